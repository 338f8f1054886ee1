"""The one way to a new snapshot: look at the head, plan, fetch, prove, and swap in one transaction.

A delivery or a poll only says "look at this branch". Whatever is fetched here is pinned to the one
commit id that the head read gave; nothing visible changes before the last transaction, and that one
is refused when the lease was lost meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from daemon.clock import Clock
from daemon.config import SyncSettings
from daemon.errors import (
    BadAnswer,
    BranchNotFound,
    GraphQLUnavailable,
    ObjectNotFound,
    RepositoryEmpty,
    RepositoryRecreated,
)
from daemon.github.client import GitHubClient
from daemon.model import (
    ZERO_SHA,
    Announcement,
    Claim,
    Commit,
    CommitChange,
    ContentRules,
    Difference,
    HeadsQuery,
    Outcome,
    RemoteRepository,
    RepositoryRef,
    RunResult,
    Trigger,
    WebhookHealth,
)
from daemon.store.jobs import Jobs
from daemon.store.repositories import Repositories
from daemon.store.snapshots import Snapshots
from daemon.sync import delta, planning
from daemon.sync.assembly import Assembly
from daemon.sync.attempt import Attempt, Progress
from daemon.sync.audit import mend
from daemon.sync.entities import Collections
from daemon.sync.guard import NO_BRANCH, dispute

RECENT_SECONDS = 30.0
LOOK_AGAIN_SECONDS = 10.0
STALE_API_SECONDS = 300.0
LONGEST_CATCH_UP = 500  # commits listed to meet the stored ones again; beyond it the list starts anew
ASKED_COMPARISONS = 3


class Interrupted(Exception):
    """The run was asked to stop between two steps; nothing visible was changed."""


@dataclass(frozen=True, slots=True)
class HeadRead:
    """What GitHub said the branch is at: ``NO_BRANCH`` when there is none."""

    head: str
    at: datetime
    empty: bool = False


def no_progress(_phase: str, _done: int, _total: int) -> None:
    """For callers that show none."""


class Routine:
    """Brings one branch up to date. Safe to repeat after a kill at any line."""

    def __init__(
        self,
        client: GitHubClient,
        repositories: Repositories,
        jobs: Jobs,
        snapshots: Snapshots,
        *,
        clock: Clock,
        settings: Callable[[], SyncSettings],
        rules: Callable[[RepositoryRef], ContentRules],
        collections: Callable[[RepositoryRef], Collections] = lambda _ref: Collections(()),
        on_identity: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._repositories = repositories
        self._jobs = jobs
        self._snapshots = snapshots
        self._clock = clock
        self._settings = settings
        self._rules = rules
        self._on_identity = on_identity
        self._assembly = Assembly(client, snapshots, clock=clock, rules=rules, collections=collections)

    def run(
        self, claim: Claim, *, check: Callable[[], None] = lambda: None, progress: Progress = no_progress
    ) -> RunResult | None:
        """Sync the claimed branch and end its claim; None when it was handed back to be asked again.

        ``check`` is called between steps and may raise to stop. Raises GitHubError, SyncError,
        StoreError and Interrupted: the caller decides what becomes of the job then.
        """
        with self._client.tally() as tally:
            facts = self._snapshots.facts(claim.branch_id)
            attempt = Attempt(claim, facts, claim.repository, self._clock.now(), tally, check, progress)
            progress("head", 0, 1)
            if Trigger.AUDIT in claim.triggers:
                mend(self._snapshots, facts)
                self._reload(attempt)
            try:
                return self._sync(attempt)
            except RepositoryRecreated:
                self._repositories.replace(claim.repository_id, now=self._clock.now())
                self._on_identity()
                raise

    def _sync(self, attempt: Attempt) -> RunResult | None:
        read = self._read_head(attempt)
        if read.head == attempt.stored_head:
            return self._confirm(attempt, read)
        if read.head == NO_BRANCH:
            return self._vanish(attempt, read)
        return self._follow(attempt, read)

    # -- the head ---------------------------------------------------------------------------------

    def _read_head(self, attempt: Attempt) -> HeadRead:
        facts = attempt.facts
        hinted = self._repositories.hinted(attempt.claim.repository_id)
        if not facts.name or attempt.repository.github_id is None or hinted:
            return self._identifying_read(attempt)
        if self._poll_just_read(attempt) and facts.remote_sha and facts.remote_read_at:
            return HeadRead(facts.remote_sha, facts.remote_read_at)
        at = self._clock.now()
        try:
            return HeadRead(self._ask_head(attempt), at)
        except RepositoryEmpty:
            return HeadRead(NO_BRANCH, at, empty=True)
        except BranchNotFound:
            return self._read_renamed(attempt)

    def _ask_head(self, attempt: Attempt) -> str:
        return self._client.head(attempt.repository, attempt.facts.name, known=attempt.facts.head_sha)

    def _poll_just_read(self, attempt: Attempt) -> bool:
        """The wish for this run came from a poll that read the head a moment ago: believe it once."""
        claim, at = attempt.claim, attempt.facts.remote_read_at
        if claim.attempt > 1 or claim.sighting or not set(claim.triggers) <= {Trigger.POLL, Trigger.STARTUP}:
            return False
        return at is not None and timedelta() <= attempt.started_at - at < timedelta(seconds=RECENT_SECONDS)

    def _identifying_read(self, attempt: Attempt) -> HeadRead:
        """Learn id, spelling and default branch together with the head: one request where GraphQL is to be had."""
        query = HeadsQuery(attempt.repository, (attempt.facts.name,) if attempt.facts.name else (), identify=True)
        at = self._clock.now()
        try:
            answer = next(self._client.settle([query], self._client.heads([query])))
        except GraphQLUnavailable:
            answer = self._client.heads_by_rest(query)
        if answer.error is not None:
            raise answer.error
        if answer.repository is None:
            raise BadAnswer(f"GitHub did not say what {attempt.repository.full_name} is")
        self._identify(attempt, answer.repository, at, heads=answer.heads)
        empty = answer.repository.default_branch is None
        return HeadRead(answer.heads.get(attempt.facts.name) or NO_BRANCH, at, empty=empty)

    def _read_renamed(self, attempt: Attempt) -> HeadRead:
        """The branch is not there: perhaps it is the default branch and was renamed."""
        before = attempt.facts.name
        at = self._clock.now()
        self._identify(attempt, self._client.repository(attempt.repository), at)
        if attempt.facts.name == before:
            return HeadRead(NO_BRANCH, at)
        try:
            return HeadRead(self._ask_head(attempt), at)
        except BranchNotFound:
            return HeadRead(NO_BRANCH, at)

    def _identify(
        self, attempt: Attempt, remote: RemoteRepository, at: datetime, *, heads: Mapping[str, str | None] | None = None
    ) -> None:
        self._repositories.identify(attempt.claim.repository_id, remote, heads=heads, now=at)
        self._reload(attempt)
        self._on_identity()

    def _reload(self, attempt: Attempt) -> None:
        attempt.facts = self._snapshots.facts(attempt.claim.branch_id)
        attempt.repository = self._repositories.ref(attempt.claim.repository_id)

    # -- nothing to fetch -------------------------------------------------------------------------

    def _confirm(self, attempt: Attempt, read: HeadRead) -> RunResult | None:
        announced = self._announcements(attempt)
        if self._unserved(attempt, read.head, announced, ()) and not self._settled(attempt, read.head):
            return None
        rules = self._rules(attempt.repository)
        if read.head != NO_BRANCH and attempt.facts.rules_digest != rules.digest:
            # The head stands still but which content is kept has changed: take the same commit again.
            return self._update(attempt, read, self._list_commits(attempt, read.head), announced, None)
        if read.head == NO_BRANCH:
            self._mark_missing(attempt, read)
        else:
            self._repositories.confirm(attempt.claim.branch_id, head=read.head, at=read.at)
        return self._end_unchanged(attempt, read.head, announced)

    def _vanish(self, attempt: Attempt, read: HeadRead) -> RunResult | None:
        """GitHub says there is no such branch: keep the last good copy, and say so."""
        announced = self._announcements(attempt)
        if not any(_target(item) == NO_BRANCH for item in announced) and not self._settled(attempt, NO_BRANCH):
            return None
        self._mark_missing(attempt, read)
        return self._end_unchanged(attempt, NO_BRANCH, announced)

    def _mark_missing(self, attempt: Attempt, read: HeadRead) -> None:
        name = attempt.repository.full_name
        if read.empty:
            error = f"{name} has no commit on GitHub"
        else:
            then = "check its name" if attempt.facts.head_sha is None else "the last good copy is kept"
            error = f"branch {attempt.facts.name} of {name} does not exist on GitHub; {then}"
        self._repositories.mark_branch(
            attempt.claim.branch_id, gone=not read.empty, empty=read.empty, at=read.at, error=error
        )

    def _end_unchanged(self, attempt: Attempt, head: str, announced: Sequence[Announcement]) -> RunResult:
        now = self._clock.now()
        sha = attempt.facts.head_sha
        result = RunResult(Outcome.UNCHANGED, sha, sha, attempt.started_at, now, requests=attempt.tally.requests)
        served = [item.delivery_id for item in announced]
        # A poll that finds nothing is no run.
        record = not set(attempt.claim.triggers) <= {Trigger.POLL, Trigger.STARTUP}
        self._jobs.finished(
            attempt.claim, result, now=now, record=record, served=served, head=None if head == NO_BRANCH else head
        )
        return result

    # -- what was announced -----------------------------------------------------------------------

    def _announcements(self, attempt: Attempt) -> list[Announcement]:
        return self._jobs.announcements(attempt.claim.branch_id, generation=attempt.claim.generation)

    def _unserved(
        self, attempt: Attempt, head: str, announced: Sequence[Announcement], listed: Sequence[Commit]
    ) -> list[Announcement]:
        """The announcements that this head does not answer: GitHub has yet to show what they promise."""
        contained = {commit.sha for commit in listed}
        open_ones = [
            item
            for item in announced
            if _target(item) != head and item.after not in contained and not self._is_past(attempt, item)
        ]
        asked = open_ones[-ASKED_COMPARISONS:]
        return [item for item in open_ones if item not in asked or not self._contains(attempt, head, item)]

    def _is_past(self, attempt: Attempt, item: Announcement) -> bool:
        """A late delivery: the branch was at that head before, or has moved on from it since."""
        if item.after is None:
            return True  # it named no head: whatever is read now is later than what it told of
        if item.before == attempt.facts.head_sha:
            return False  # it says the branch leaves what is stored now: that is news
        branch = attempt.claim.branch_id
        if self._jobs.moved_away(branch, item.after):
            return True
        if item.after == ZERO_SHA:
            return False
        return self._jobs.acted_head(branch, item.after) or self._snapshots.has_commit(branch, item.after)

    def _contains(self, attempt: Attempt, head: str, item: Announcement) -> bool:
        if item.after is None or NO_BRANCH in (head, _target(item)) or item.before == head:
            return False
        try:
            comparison = self._client.compare(attempt.repository, item.after, head)
        except ObjectNotFound:
            return False
        return comparison.status in {"ahead", "identical"}

    def _settled(self, attempt: Attempt, head: str) -> bool:
        """Whether a disputed head is to be believed now; if not, the claim is handed back."""
        now = self._clock.now()
        doubt = dispute(head, attempt.claim.sighting, now=now)
        if doubt.settled:
            # Deliveries and GitHub's API disagree about this repository: rely on polling alone for
            # a while, and look again soon, in case the API was just slow for longer than that.
            repository_id = attempt.claim.repository_id
            self._repositories.set_health(repository_id, WebhookHealth.UNKNOWN)
            self._repositories.look_by(repository_id, at=now + timedelta(seconds=LOOK_AGAIN_SECONDS))
            return True
        self._jobs.waiting(
            attempt.claim,
            run_after=doubt.read_again_at,
            sighting=doubt.sighting,
            note=self._stale_note(attempt, head, now),
            now=now,
        )
        return False

    def _stale_note(self, attempt: Attempt, head: str, now: datetime) -> str | None:
        if (now - attempt.claim.wanted_at).total_seconds() < STALE_API_SECONDS:
            return None
        shown = head or "no such branch"
        return f"stale API: GitHub keeps answering {shown} although something newer was announced or stored"

    # -- a new head -------------------------------------------------------------------------------

    def _follow(self, attempt: Attempt, read: HeadRead) -> RunResult | None:
        announced = self._announcements(attempt)
        believed = self._is_news(attempt, read.head, announced)
        if not believed and self._known_before(attempt, read.head):
            if not self._settled(attempt, read.head):
                return None
            believed = True
        difference = self._assembly.compare(attempt, read.head)
        if difference is not None and difference.status == "ahead":
            commits = delta.chain(difference, attempt.stored_head, read.head)
            listed = commits or self._list_commits(attempt, read.head)
            return self._update(attempt, read, listed, announced, difference)
        listed = self._list_commits(attempt, read.head)
        if attempt.facts.head_sha not in {None, *(commit.sha for commit in listed)}:
            # Another history: is it still the same repository? A name that somebody else took is told
            # apart by the id alone, and neither heads nor commits carry that by REST.
            remote = self._client.repository(attempt.repository)
            if (remote.owner, remote.name) != (attempt.repository.owner, attempt.repository.name):
                # What was read under the name may be another's by now: ask again under the new one.
                self._identify(attempt, remote, read.at)
                self._jobs.hand_back(attempt.claim, now=self._clock.now())
                return None
            if (
                not believed
                and self._is_behind(attempt, read.head, difference)
                and not self._settled(attempt, read.head)
            ):
                return None
        return self._update(attempt, read, listed, announced, None)

    def _is_news(self, attempt: Attempt, head: str, announced: Sequence[Announcement]) -> bool:
        """Whether a delivery that was not acted on yet says that the branch goes there, and is not just late.

        One that leads on from what is stored, perhaps over others, is news whatever was before. Of the rest, those are
        late whose head the branch is known to have had already: a stale answer must not make them true.
        """
        if not any(_target(item) == head for item in announced):
            return False
        if head in _reached(attempt.facts.head_sha, announced):
            return True
        return not (self._jobs.moved_away(attempt.claim.branch_id, head) or self._known_before(attempt, head))

    def _known_before(self, attempt: Attempt, head: str) -> bool:
        branch = attempt.claim.branch_id
        return self._snapshots.has_commit(branch, head) or self._jobs.acted_head(branch, head)

    def _is_behind(self, attempt: Attempt, head: str, difference: Difference | None) -> bool:
        if difference is not None:
            return difference.status == "behind"
        try:
            return self._client.compare(attempt.repository, attempt.stored_head, head).status == "behind"
        except ObjectNotFound:
            return False  # the stored head is gone from GitHub: a rewritten history, not an older one

    def _list_commits(self, attempt: Attempt, head: str) -> list[Commit]:
        attempt.check()
        stored = set(self._snapshots.commit_shas(attempt.claim.branch_id))
        limit = LONGEST_CATCH_UP if stored else self._settings().commit_history
        commits = self._client.commits(attempt.repository, head, limit=max(limit, 1), known=stored.__contains__)
        if not commits or commits[0].sha != head:
            raise BadAnswer(f"GitHub's commit list of {attempt.repository.full_name} does not begin with {head}")
        return commits

    def _update(
        self,
        attempt: Attempt,
        read: HeadRead,
        listed: Sequence[Commit],
        announced: Sequence[Announcement],
        difference: Difference | None,
    ) -> RunResult:
        change = self._assembly.build(attempt, listed[0], difference)
        unserved = self._unserved(attempt, read.head, announced, listed)
        now = self._clock.now()
        result = RunResult(
            outcome=Outcome.UPDATED,
            before=attempt.facts.head_sha,
            after=read.head,
            started_at=attempt.started_at,
            finished_at=now,
            added=len(change.added),
            modified=len(change.modified),
            removed=len(change.removed),
            requests=attempt.tally.requests,
        )
        claim = attempt.claim
        if unserved:
            # Something newer was announced than what GitHub shows: take this, and keep the wish alive.
            claim = replace(claim, generation=claim.generation - 1)
        attempt.check()
        attempt.progress("store", 0, 1)
        self._snapshots.apply(
            claim,
            change,
            result,
            commits=self._history(attempt, listed),
            now=now,
            read_at=read.at,
            served=[item.delivery_id for item in announced if item not in unserved],
        )
        return result

    def _history(self, attempt: Attempt, listed: Sequence[Commit]) -> CommitChange:
        return planning.merge_history(self._snapshots.commit_shas(attempt.claim.branch_id), listed)


def _target(item: Announcement) -> str | None:
    """The head an announcement promises, if it named one; a deletion promises that there is none."""
    return NO_BRANCH if item.after == ZERO_SHA else item.after


def _reached(stored: str | None, announced: Sequence[Announcement]) -> set[str | None]:
    """The heads that announcements lead to, one after another, from what is stored."""
    reached: set[str | None] = set()
    places = {stored}
    while places:
        found = {_target(item) for item in announced if item.before in places} - reached
        reached |= found
        places = found
    return reached
