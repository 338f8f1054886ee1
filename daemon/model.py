"""The words of the contract as frozen values. No behaviour beyond what the words mean.

Instants are aware UTC and end in ``_at``; a ``sha`` is 40 lower-case hex digits; a path is bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

ZERO_SHA = "0" * 40
EMPTY_TREE_SHA = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
EMPTY_BLOB_SHA = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"

# Modes as GitHub's tree API and git's own tree objects name them (the latter without leading zero).
MODE_FILE = "100644"
MODE_EXECUTABLE = "100755"
MODE_SYMLINK = "120000"
MODE_SUBMODULE = "160000"
MODE_TREE = "040000"


class Trigger(StrEnum):
    """Why a sync is wanted."""

    WEBHOOK = "webhook"
    POLL = "poll"
    MANUAL = "manual"
    STARTUP = "startup"
    RECOVERY = "recovery"
    AUDIT = "audit"


class Topic(StrEnum):
    """What the daemons that share a store tell each other of, once it is committed."""

    JOB = "job"  # a branch wants a sync
    CHANGE = "change"  # the change feed has grown
    TRACKED = "tracked"  # a repository, its name or its default branch was learnt
    BUDGET = "budget"  # GitHub has said to wait
    BEAT = "beat"  # a daemon lives


class Outcome(StrEnum):
    """How a run ended."""

    UPDATED = "updated"
    UNCHANGED = "unchanged"
    FAILED = "failed"


class WebhookHealth(StrEnum):
    """Whether deliveries of a repository are known to arrive."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    MISSING = "missing"


class RepositoryState(StrEnum):
    """What GitHub last said about a repository (stored, not derived)."""

    UNKNOWN = "unknown"
    AVAILABLE = "available"
    EMPTY = "empty"
    GONE = "gone"
    BLOCKED = "blocked"


class BranchState(StrEnum):
    """What a reader is told about a branch (derived from stored facts and the time)."""

    FRESH = "fresh"
    STALE = "stale"
    SYNCING = "syncing"
    FAILED = "failed"
    GONE = "gone"
    EMPTY = "empty"


class DeliveryStatus(StrEnum):
    """What became of a verified delivery when it arrived."""

    ACCEPTED = "accepted"
    IGNORED = "ignored"
    SKIPPED = "skipped"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class RepositoryRef:
    """A repository as GitHub addresses it; ``github_id`` once it was seen."""

    owner: str
    name: str
    github_id: int | None = None

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True)
class RemoteRepository:
    """What GitHub says a repository is; ``default_branch`` is None while it has no commit."""

    github_id: int
    owner: str
    name: str
    default_branch: str | None
    archived: bool = False
    private: bool = False
    permissions: tuple[str, ...] = field(default=(), compare=False)  # of who asks: they are not the repository's


@dataclass(frozen=True, slots=True)
class ListedRepository:
    """One line of an owner's list of repositories; ``topics`` are lower-case."""

    github_id: int
    owner: str
    name: str
    archived: bool = False
    fork: bool = False
    private: bool = False
    topics: frozenset[str] = frozenset()

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True)
class HeadsQuery:
    """One repository of a poll: the branches to ask about, the default branch always included."""

    repository: RepositoryRef
    branches: tuple[str, ...] = ()
    known: tuple[tuple[str, str], ...] = ()  # (branch, sha we have), for conditional REST requests
    every: bool = False  # all branches are wanted, since some are tracked by glob
    fragile: bool = False  # its last look failed: it is asked for apart from those that are well
    identify: bool = False  # by REST, ask also what the repository is now: a head tells no new name or default branch


@dataclass(frozen=True, slots=True)
class RepositoryHeads:
    """The heads of one repository as just read. A branch absent from ``heads`` is unknown;
    a branch whose value is None does not exist. With ``complete`` the branches are all there are.
    ``error`` replaces all of it.
    """

    repository: RemoteRepository | None
    heads: dict[str, str | None] = field(default_factory=dict)
    error: Exception | None = None
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a snapshot (blob, symlink or submodule; folders are implied).

    ``size`` is None for a submodule; ``stored`` tells whether the content is kept.
    """

    path: bytes
    mode: str
    sha: str
    size: int | None
    stored: bool = False


@dataclass(frozen=True, slots=True)
class StoredFolder:
    """What is directly in a folder of the stored snapshot: entries, and the tree ids of sub-folders, by path."""

    entries: Mapping[bytes, Entry]
    folders: Mapping[bytes, str]


@dataclass(frozen=True, slots=True)
class FolderChange:
    """Tree ids of folders by path, the root as ``b""``; None: it is gone. ``whole``: there are no others."""

    ids: Mapping[bytes, str | None]
    whole: bool


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """One entry of a tree as GitHub's API lists it: ``path`` is text and may be lossy."""

    path: str
    mode: str
    sha: str
    size: int | None


@dataclass(frozen=True, slots=True)
class RemoteTree:
    """A tree listing: entries include sub-trees (mode 040000)."""

    sha: str
    entries: tuple[RemoteEntry, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit; ``authored_at`` and ``committed_at`` are shown, never used for ordering."""

    sha: str
    tree_sha: str
    parents: tuple[str, ...]
    author_name: str
    author_email: str
    authored_at: str  # ISO 8601 UTC as GitHub sent it
    committed_at: str
    message: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """How ``head`` relates to ``base``: ``ahead``, ``behind``, ``identical`` or ``diverged``."""

    status: str
    ahead_by: int
    behind_by: int


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """One file of a comparison. GitHub tells no mode, and paths as text that may be lossy.

    ``status`` is ``added``, ``modified``, ``removed``, ``renamed``, ``copied``, ``changed`` or ``unchanged``.
    """

    path: str
    status: str
    sha: str | None
    previous: str | None = None  # the path that a renamed or copied file has in the base


@dataclass(frozen=True, slots=True)
class Difference:
    """What leads from one commit to another: the latest 250 commits, oldest first, and the first 300 files."""

    status: str
    total_commits: int
    commits: tuple[Commit, ...]
    files: tuple[ChangedFile, ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verified delivery, decided but not stored yet.

    ``branch_id`` is set when it wants a sync. ``hint_repository_id`` asks for a look at a repository
    without announcing a head.
    """

    guid: str | None
    body_digest: str  # hex SHA-256 of the raw body
    event: str
    action: str | None
    repository: str | None
    ref: str | None
    before: str | None
    after: str | None
    received_at: datetime
    status: DeliveryStatus
    reason: str | None = None
    repository_id: int | None = None
    branch: str | None = None
    hint_repository_id: int | None = None
    hint_owner: str | None = None  # lower-case ``owner/*`` whose list may have changed


@dataclass(frozen=True, slots=True)
class TrackedRepository:
    """What intake needs to know of one tracked repository. Immutable; replaced as a whole."""

    id: int
    github_id: int | None
    owner: str
    name: str
    default_branch: str | None
    branches: tuple[str, ...]  # configured names or globs; empty: the default branch only
    configured: str = ""  # lower-case owner/name as the configuration has it, which a rename leaves behind

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True)
class TrackedOwner:
    """What intake needs to know of an ``owner/*``: which unknown names of it are worth a look at its list."""

    owner: str
    excluded: tuple[str, ...] = ()  # globs over the full or the bare name
    passed_over: frozenset[int] = frozenset()  # numbers that the last look saw and did not take

    @property
    def key(self) -> str:
        return f"{self.owner}/*".lower()


@dataclass(frozen=True, slots=True)
class OwnerRecord:
    """How the looks for an ``owner/*`` go; ``repositories`` is how many are tracked by it."""

    configured_as: str
    repositories: int
    looked_at: datetime | None
    next_look_at: datetime | None
    failures: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class PruneCandidate:
    """A repository that is gone or not tracked any more, and how much is stored of it."""

    id: int
    full_name: str
    state: RepositoryState
    tracked: bool
    configured: bool  # by name: it is taken up again, should GitHub have it again
    branches: int
    entries: int


@dataclass(frozen=True, slots=True)
class ContentRules:
    """Which content of a repository is kept. ``digest`` changes whenever the rules do."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    max_file_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a delivery not acted on yet announced for a branch; ``after`` is None where it named no head."""

    delivery_id: int
    before: str | None
    after: str | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Sighting:
    """A disputed head: what reads keep saying although it is older or not what was announced."""

    head: str
    first_at: datetime
    reads: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to sync one branch, until the lease ends: guarded by ``token``."""

    job_id: int
    branch_id: int
    repository_id: int
    repository: RepositoryRef
    branch: str  # "" while the default branch is not known yet
    token: int
    generation: int
    triggers: tuple[Trigger, ...]  # in the order they came; the first names the run
    attempt: int  # 1 for the first
    wanted_at: datetime
    sighting: Sighting | None = None


@dataclass(frozen=True, slots=True)
class SyncProgress:
    """How far a running sync has come: ``done`` of ``total`` in its ``phase``; a total of 0 is not known yet."""

    repository_id: int
    repository: str
    branch: str  # "" while the default branch is not known yet
    phase: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class BranchFacts:
    """What is stored of a branch, read at the start of a run."""

    id: int
    repository_id: int
    name: str
    head_sha: str | None
    tree_sha: str | None
    remote_sha: str | None
    remote_read_at: datetime | None
    snapshot: int  # number of the current snapshot, 0 before the first
    rules_digest: str | None
    tree_verified: bool | None
    gone: bool = False
    empty: bool = False
    collections_digest: str | None = ""


@dataclass(frozen=True, slots=True)
class Collection:
    """A rule that turns files into entities: a type, globs over paths, and the keys that name an entity."""

    type: str
    files: tuple[str, ...]
    id: str | None = None
    label: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """What one file says under one collection: an entity (``data`` is JSON text), or the ``error`` it is instead.

    ``sha`` is the content's id; ``digest`` is of ``data``; ``line`` and ``column`` count from 1.
    """

    path: bytes
    entity_type: str
    sha: str
    entity_id: str = ""
    label: str | None = None
    description: str | None = None
    data: str = ""
    digest: str = ""
    error: str | None = None
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True, slots=True)
class EntityChange:
    """What the files of a branch say now. ``parsed`` is all that ``paths`` hold; with None, all that there is."""

    collections_digest: str
    parsed: tuple[ParsedFile, ...]
    paths: tuple[bytes, ...] | None


EntityName = tuple[str, str]  # a type, and an id


@dataclass(frozen=True, slots=True)
class EntityNews:
    """Which entities of a branch came, say something else than before, or went; each in the order of its names."""

    added: tuple[EntityName, ...] = ()
    modified: tuple[EntityName, ...] = ()
    removed: tuple[EntityName, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.modified or self.removed)

    def as_json(self) -> dict[str, list[dict[str, str]]]:
        """As every way out tells it: three lists of ``entity_type`` and ``entity_id``."""
        return {
            kind: [{"entity_type": entity_type, "entity_id": entity_id} for entity_type, entity_id in names]
            for kind, names in (("added", self.added), ("modified", self.modified), ("removed", self.removed))
        }


@dataclass(frozen=True, slots=True)
class SnapshotChange:
    """What turns the stored snapshot into the new one, computed and proven before any row moves."""

    head_sha: str
    tree_sha: str
    added: tuple[Entry, ...]
    modified: tuple[Entry, ...]
    removed: tuple[bytes, ...]
    tree_verified: bool
    tree_error: str | None
    rules_digest: str
    entities: EntityChange | None = None
    folders: FolderChange | None = None  # None: they stay as they are


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One execution of a job, as it is stored and shown."""

    id: int
    repository: str
    branch: str
    trigger: str
    triggers: tuple[str, ...]
    outcome: str
    before: str | None
    after: str | None
    started_at: datetime
    finished_at: datetime
    added: int
    modified: int
    removed: int
    entity_errors: int
    requests: int
    attempt: int
    error: str | None


@dataclass(frozen=True, slots=True)
class RunResult:
    """What the routine reports of an execution that reached an end."""

    outcome: Outcome
    before: str | None
    after: str | None
    started_at: datetime
    finished_at: datetime
    added: int = 0
    modified: int = 0
    removed: int = 0
    requests: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """A stored delivery, as it is shown."""

    id: int
    guid: str | None
    event: str
    action: str | None
    repository: str | None
    ref: str | None
    before: str | None
    after: str | None
    received_at: datetime
    status: str
    reason: str | None
    run_id: int | None
    attempts: int


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The durable wish for a sync of one branch, as it is shown."""

    id: int
    repository: str
    branch: str
    state: str  # idle, pending, running, failed
    wanted_generation: int
    done_generation: int
    triggers: tuple[str, ...]
    attempts: int
    run_after: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class BranchRecord:
    """Everything stored of a branch that a reader may be told."""

    id: int
    name: str
    head_sha: str | None
    tree_sha: str | None
    remote_sha: str | None
    synced_at: datetime | None
    confirmed_at: datetime | None
    tree_verified: bool | None
    tree_error: str | None
    last_error: str | None
    last_trigger: str | None
    gone: bool
    empty: bool
    job_state: str  # idle, pending, running, failed
    waiting_for: str | None = None  # why the job waits without having failed: an outage, a limit, a stale API


@dataclass(frozen=True, slots=True)
class RepositoryRecord:
    """Everything stored of a repository that a reader may be told."""

    id: int
    github_id: int | None
    owner: str
    name: str
    default_branch: str | None
    state: RepositoryState
    webhook: WebhookHealth
    missed_webhooks: int
    last_error: str | None
    next_poll_at: datetime | None
    polled_at: datetime | None
    branches: tuple[BranchRecord, ...]
    archived: bool = False
    webhook_reason: str | None = None  # why deliveries do not arrive, in GitHub's words
    replaced: bool = False  # another repository has its name now: what is kept is never synced again
    found_by: str | None = None  # the lower-case ``owner/*`` that found it; None where it is configured by name
    job_states: tuple[str, ...] = ()  # of the unnamed default branch too, which is no branch yet

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def expected(self) -> bool:
        """Whether it has to be fresh: what an ``owner/*`` had found and GitHub has no more is only kept."""
        return self.found_by is None or self.state is not RepositoryState.GONE


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """The queue in four numbers; ``oldest_seconds`` is the age of the oldest unserved wish."""

    pending: int
    running: int
    failed: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class PollTarget:
    """A repository whose look is due, with everything the poller needs to judge the answer."""

    repository_id: int
    query: HeadsQuery
    health: WebhookHealth
    failures: int
    patterns: tuple[str, ...]  # configured branch names or globs; empty: the default branch only
    branches: tuple[BranchFacts, ...]
    known: RemoteRepository | None  # what is stored of its identity; None before it was first seen
    changed_at: datetime | None = None  # when its stored copy last moved to another commit
    polled_at: datetime | None = None
    due_at: datetime | None = None  # None: at once, out of its turn
    put_off: bool = False  # the look before failed, whoever was to blame

    @property
    def archived(self) -> bool:
        return self.known is not None and self.known.archived


@dataclass(frozen=True, slots=True)
class BudgetRecord:
    """What is known of one resource of one token, which ``mark`` tells from others; resource "" is all of them."""

    mark: str
    resource: str
    limit: int | None
    remaining: int | None
    reset_at: datetime | None
    paused_until: datetime | None


@dataclass(frozen=True, slots=True)
class CommitChange:
    """What turns the stored history of a branch into the new one.

    ``prepend`` is newest first. With ``replace`` the stored rows go first, all but those strictly
    older than ``keep_below`` when that is given.
    """

    prepend: tuple[Commit, ...]
    replace: bool
    keep_below: str | None = None


@dataclass(frozen=True, slots=True)
class FilesPage:
    """Entries of one snapshot in path order, and which commit they belong to.

    ``confirmed_at`` is when GitHub was last seen to be at that commit, None before the first sync.
    """

    snapshot: int
    head_sha: str | None
    confirmed_at: datetime | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stood at one instant: what the store does not remember. ``remaining`` is by resource."""

    at: datetime
    stalest_seconds: float | None  # since GitHub confirmed the stalest branch; None while one never was
    unwell: int  # branches that were neither fresh nor syncing
    requests: int  # to GitHub since the sample before
    remaining: dict[str, int]


@dataclass(frozen=True, slots=True)
class FolderItem:
    """A file or a folder in a folder; ``path`` is the whole path. A folder has nothing but that."""

    path: bytes
    folder: bool
    mode: str = MODE_TREE
    sha: str | None = None
    size: int | None = None
    stored: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """What is in a folder, in path order, and where the rest of it begins: None when this is all."""

    items: tuple[FolderItem, ...]
    begin: bytes | None


@dataclass(frozen=True, slots=True)
class RawFile:
    """The stored content of one path, and the commit it was read at."""

    sha: str
    mode: str
    size: int
    head_sha: str
    confirmed_at: datetime | None
    content: bytes


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """One row of the change feed: what moved a branch from ``before`` to ``after``; paths in their display form."""

    id: int
    type: str
    repository: str
    branch: str
    before: str | None
    after: str
    added: tuple[str, ...]
    modified: tuple[str, ...]
    removed: tuple[str, ...]
    created_at: datetime
    entities: EntityNews = EntityNews()


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Consecutive changes, oldest first, and whether there are more beyond them."""

    items: tuple[ChangeRecord, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class ActionIdentity:
    """A configured action as the store knows it; ``key`` is a digest of its definition."""

    key: str
    kind: str  # command, url, publish
    target: str  # what a person knows it by; holds no secret


@dataclass(frozen=True, slots=True)
class BranchChange:
    """One change of a branch, as an action is told of it; paths are in their display form."""

    id: int
    branch_id: int
    repository: RepositoryRef
    branch: str
    before: str | None
    after: str
    added: tuple[str, ...]
    modified: tuple[str, ...]
    removed: tuple[str, ...]
    entities: EntityNews = EntityNews()


@dataclass(frozen=True, slots=True)
class ActionTask:
    """What an action is to do next on a branch; ``change`` is None when only its result is to be looked after."""

    action: str
    branch_id: int
    repository: RepositoryRef
    branch: str
    wanted_id: int
    attempts: int  # that failed since the last success
    change: BranchChange | None


@dataclass(frozen=True, slots=True)
class ActionResult:
    """How one execution of an action ended; ``error`` is None for a success."""

    error: str | None = None
    output: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """How far an action has come on a branch, as it is shown; no branch while nothing changed since it exists."""

    action: str
    kind: str
    target: str
    branch_id: int | None
    repository: str | None
    branch: str | None
    pending: bool
    attempts: int
    run_after: datetime | None
    commit_sha: str | None
    last_error: str | None
    note: str | None
    output: str | None
    finished_at: datetime | None

    @property
    def state(self) -> str:
        """``failed``: its last execution failed, and it tries again; ``pending``; ``done``: nothing is left to do."""
        if self.last_error is not None:
            return "failed"
        return "pending" if self.pending else "done"


@dataclass(frozen=True, slots=True)
class AskedBranch:
    """A branch that a question about entities concerns, and the commit it is at."""

    id: int
    repository: str
    name: str
    head_sha: str | None
    confirmed_at: datetime | None


@dataclass(frozen=True, slots=True)
class EntityRecord:
    """One entity as it is shown; ``key`` is its row, ``data`` JSON text."""

    key: int
    branch_id: int
    entity_id: str
    entity_type: str
    label: str | None
    description: str | None
    data: str
    repository: str
    branch: str
    path: bytes
    commit_sha: str
    stale: bool  # its file does not parse any more: this is what it said last
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class EntityVersion:
    """What an entity was from ``valid_from`` until ``valid_to``, None while it still is; ``data`` is JSON text."""

    commit_sha: str
    data: str
    valid_from: datetime
    valid_to: datetime | None


@dataclass(frozen=True, slots=True)
class EntityError:
    """A file that is no entity although a collection takes it, and why."""

    branch_id: int
    repository: str
    branch: str
    path: bytes
    entity_type: str
    line: int | None
    column: int | None
    error: str


@dataclass(frozen=True, slots=True)
class SearchHit:
    """The first place in a file that holds what was searched for; ``path`` in its display form."""

    repository: str
    branch: str
    path: str
    line: int
    excerpt: str
    commit_sha: str


@dataclass(frozen=True, slots=True)
class SearchPosition:
    """The file that a page of a search came to; ``full_name`` in lower case."""

    full_name: str
    branch: str
    path: bytes


@dataclass(frozen=True, slots=True)
class SearchPage:
    """What was found, and where to go on: None when every file was looked at."""

    items: tuple[SearchHit, ...]
    position: SearchPosition | None


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One daemon of those that share a store, as it last told of itself."""

    id: str
    host: str
    pid: int
    version: str
    started_at: datetime
    heartbeat_at: datetime
    config_digest: str
    admin_url: str | None
