"""A configured action: what it is called, and which changes concern it. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from daemon.config import ActionRule
from daemon.globs import matches_branch, matches_repository
from daemon.model import ActionIdentity, BranchChange
from daemon.sync.patterns import compile_rules

_KEY_DIGITS = 16


@dataclass(frozen=True)
class Action:
    """One action of the configuration with its identity."""

    identity: ActionIdentity
    rule: ActionRule

    @property
    def key(self) -> str:
        return self.identity.key

    @property
    def kind(self) -> str:
        return self.identity.kind

    def concerns_branch(self, full_name: str, branch: str) -> bool:
        branches = self.rule.branches
        return matches_repository(full_name, self.rule.repositories) and (
            not branches or matches_branch(branch, branches)
        )

    def concerns(self, change: BranchChange) -> bool:
        """Whether the action is to run because of this change."""
        return self.concerns_branch(change.repository.full_name, change.branch) and self._touches(change)

    def _touches(self, change: BranchChange) -> bool:
        if not self.rule.paths:
            return True
        matches = compile_rules(self.rule.paths, ())
        return any(matches(path.encode()) for path in (*change.added, *change.modified, *change.removed))


def actions_of(rules: Sequence[ActionRule]) -> tuple[Action, ...]:
    """The configured actions in their order."""
    return tuple(Action(_identity(rule), rule) for rule in rules)


def _identity(rule: ActionRule) -> ActionIdentity:
    kind = "command" if rule.command else "url" if rule.url else "publish"
    key = sha256(json.dumps(rule.definition).encode()).hexdigest()[:_KEY_DIGITS]
    return ActionIdentity(key, kind, _target(rule))


def _target(rule: ActionRule) -> str:
    """What a person knows the action by: no arguments, no URL beyond its host, for they may hold secrets."""
    if rule.command:
        return rule.command[0]
    if rule.url:
        parts = urlsplit(rule.url)
        return f"{parts.scheme}://{parts.netloc}"
    return rule.publish or ""
