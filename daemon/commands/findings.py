"""What a check found, as a line for people and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; a warning is a finding that does not fail the check. ``details`` are for JSON."""

    subject: str
    message: str
    ok: bool = True
    warning: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        mark = "ok     " if self.ok and not self.warning else "warning" if self.ok else "FAILED "
        return f"{mark} {self.subject}: {self.message}"

    def as_json(self) -> dict[str, Any]:
        told = {"subject": self.subject, "message": self.message, "ok": self.ok, "warning": self.warning}
        return {**told, **self.details}
