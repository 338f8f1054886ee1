"""What pages must never do, noted as it happens."""

from __future__ import annotations

from dataclasses import dataclass, field

from playwright.sync_api import Page

SLOWEST_MS = 30_000


@dataclass
class Watch:
    """What went wrong in any page: errors on the console, violations of the policy, dialogs."""

    problems: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def page(self, page: Page) -> None:
        page.on("console", lambda message: self._note(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("dialog", lambda dialog: (self._note(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _note(self, text: str) -> None:
        if not any(one in text for one in self.expected):
            self.problems.append(text)
