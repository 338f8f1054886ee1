"""The one exception tree, branched by what can be done about it.

::

    HeadwaterError
    ├── ConfigError             correct the configuration (exit 78)
    ├── Refusal                 answer the sender with this status; nothing is stored
    ├── StoreError
    │   ├── StoreUnavailable    disk full, locked, I/O error: try again later (503)
    │   │   └── StoreInterrupted  the database ended the transaction: nothing was written, try again at once
    │   ├── StoreLocked         another daemon owns the store (exit 1)
    │   ├── StoreIncompatible   not our file, damaged, or made by a newer program (exit 1)
    │   └── LeaseLost           another worker owns the job now: drop what was being done
    ├── GitHubError
    │   ├── Outage              wait; costs no attempt
    │   │   ├── Unreachable     network, time-out, 5xx
    │   │   └── RateLimited     primary or secondary limit, with the instant to come back
    │   │       └── Paced       no limit yet: polling spreads what is left of the budget
    │   ├── BadAnswer           GitHub answered something that is not what was asked for: try again
    │   ├── Unauthorized        401: the token is wrong or revoked
    │   ├── Forbidden           403 without a limit, 451: permission missing or repository blocked
    │   ├── Rejected            422 to a change: correct what was asked for
    │   ├── RepositoryNotFound  404: deleted, private, or not visible to this token
    │   ├── RepositoryReplaced  the name belongs to a repository with another id now
    │   │   └── RepositoryRecreated  and the old id leads nowhere: begin anew under that name
    │   ├── RepositoryEmpty     409: there is no commit yet
    │   ├── BranchNotFound      404 or 422: the branch does not exist
    │   ├── ObjectNotFound      404, 409 or 422 for a commit, tree or blob: not there (yet)
    │   └── GraphQLUnavailable  GraphQL cannot be used here: ask by REST
    ├── SyncError
    │   ├── ProofFailed         the recomputed tree id is not the commit's
    │   └── ArchiveBroken       the tarball is cut, malformed or over a cap
    └── PublishError            the snapshot cannot be a folder there: correct the path or the repository
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


class HeadwaterError(Exception):
    """Base of everything headwater raises on purpose; ``str()`` is fit to be shown to a person."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration: where it stands and what to do about it."""

    source: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.source}: {self.key}: {self.message}" if self.key else f"{self.source}: {self.message}"


class ConfigError(HeadwaterError):
    """The configuration is missing or invalid; carries every problem found, in order."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class Refusal(HeadwaterError):
    """A request that gets an error answer: HTTP status and the ``detail`` to send."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail
        super().__init__(f"{status} {detail}")


class StoreError(HeadwaterError):
    """The store cannot do what was asked."""


class StoreUnavailable(StoreError):
    """The store cannot be written or read right now (disk full, locked, I/O error)."""


class StoreInterrupted(StoreUnavailable):
    """The database ended a transaction half way (a deadlock, a restart): nothing of it was written."""


class StoreLocked(StoreError):
    """Another process owns this store."""


class StoreIncompatible(StoreError):
    """The file is not a headwater store, is damaged, or was written by a newer program."""


class LeaseLost(StoreError):
    """The fencing token of a claim is no longer current: nothing was written."""


class GitHubError(HeadwaterError):
    """GitHub could not be asked, or did not give what was asked for."""


class Outage(GitHubError):
    """Not the repository's fault: wait and ask again, without counting an attempt."""


class Unreachable(Outage):
    """No usable answer arrived: network trouble, a time-out, or a 5xx."""


class RateLimited(Outage):
    """A primary or secondary limit; ``until`` (aware UTC) is when asking again is allowed."""

    def __init__(self, message: str, *, until: datetime) -> None:
        self.until = until
        super().__init__(message)


class Paced(RateLimited):
    """Nothing was refused: polling waits for its turn, so that what is left of the budget lasts until the reset."""


class BadAnswer(GitHubError):
    """The answer is not what was asked for: HTML, cut JSON, a wrong id, another repository's data."""


class Unauthorized(GitHubError):
    """401: the token is missing, wrong, expired or revoked."""


class Forbidden(GitHubError):
    """403 that is no limit, or 451: the permission is missing or access is blocked."""


class Rejected(GitHubError):
    """422: GitHub does not take the change that was asked for, and says why."""


class RepositoryNotFound(GitHubError):
    """404: the repository was deleted, is private, or this token may not see it."""


class RepositoryReplaced(GitHubError):
    """The name now belongs to a repository with another numeric id."""


class RepositoryRecreated(RepositoryReplaced):
    """The name belongs to another repository now, and the id of the one it belonged to leads nowhere."""


class RepositoryEmpty(GitHubError):
    """409: the repository has no commit yet."""


class BranchNotFound(GitHubError):
    """The branch does not exist on GitHub (any more)."""


class ObjectNotFound(GitHubError):
    """A commit, tree or blob is not there; right after a push it may just not be there yet."""


class GraphQLUnavailable(GitHubError):
    """GraphQL cannot be used (no token, switched off, or it answers nonsense): use REST."""


class SyncError(HeadwaterError):
    """A sync could not reach a proven snapshot; the stored one is unchanged."""


class ProofFailed(SyncError):
    """The tree id recomputed from the planned rows differs from the commit's tree id."""


class ArchiveBroken(SyncError):
    """A tarball that is cut, malformed, or larger than the tree it claims to hold."""


class PublishError(HeadwaterError):
    """A snapshot cannot be published; what was published stays."""
