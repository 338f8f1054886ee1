"""The thread that sees to it that every action acts on every change that concerns it: in order, at least once.

It looks through the outbox, and gives what is due to threads of the pairs of action and branch, so that one that fails
or hangs holds up no other. Progress is committed after the act: a kill in between repeats it.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from daemon.actions.command import MOST_OUTPUT_BYTES, run_command
from daemon.actions.publish import Folder
from daemon.actions.rules import Action, actions_of
from daemon.actions.url import post
from daemon.clock import Clock
from daemon.config import ActionRule
from daemon.errors import PublishError, StoreError
from daemon.github.transport import Transport
from daemon.logs import get_logger
from daemon.model import ActionResult, ActionTask, BranchChange, Entry, RepositoryRef
from daemon.store.actions import Actions
from daemon.store.snapshots import Snapshots
from daemon.targets import rendered

log = get_logger()

IDLE_SECONDS = 1.0  # the longest the runner sleeps before it asks the database itself
FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 3600.0
MOST_AT_ONCE = 4  # branches that one action acts on at a time
FILES_PAGE = 10_000

Pair = tuple[str, int]


class ActionRunner:
    """Runs the configured actions. ``on_end`` hears of each execution: its kind, and whether it failed.

    ``may_act`` is asked before anything is begun: of those that share a store one acts.
    """

    def __init__(
        self,
        actions: Actions,
        snapshots: Snapshots,
        *,
        clock: Clock,
        environ: Mapping[str, str] = os.environ,
        redact: Callable[[str], str] = lambda text: text,
        on_end: Callable[[str, bool], None] = lambda _kind, _failed: None,
        may_act: Callable[[], bool] = lambda: True,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = actions
        self._snapshots = snapshots
        self._clock = clock
        self._environ = environ
        self._redact = redact
        self._on_end = on_end
        self._may_act = may_act
        self._jitter = jitter
        self._transport = Transport()
        self._actions: Mapping[str, Action] = {}
        self._wake = threading.Condition()
        self._wakes = 0
        self._running: dict[Pair, threading.Thread] = {}
        self._stopping = threading.Event()
        self._ending = threading.Event()  # nobody waits any longer for what runs
        self._thread: threading.Thread | None = None

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="actions", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """A branch has changed, or something may be tried again."""
        with self._wake:
            self._wakes += 1
            self._wake.notify_all()

    def configure(self, rules: Sequence[ActionRule]) -> None:
        """Do these from now on; every published folder is looked after once. Raises StoreUnavailable."""
        actions = {action.key: action for action in actions_of(rules)}
        self._store.configure([action.identity for action in actions.values()])
        self._actions = actions
        self._store.force(self._publications())
        self.wake()

    def retry(self, key: str | None = None) -> int:
        """Try again at once whatever failed, of one action or of all; how many branches that concerns."""
        count = self._store.retry(key)
        self._store.force([pair for pair in self._publications() if key in (None, pair[0])])
        self.wake()
        return count

    def stop(self, timeout: float) -> None:
        """Begin nothing more, wait ``timeout`` seconds for what runs, then end it: it is repeated after the start."""
        self._stopping.set()
        self.wake()
        deadline = self._clock.monotonic() + timeout
        self._join(deadline)
        self._ending.set()
        self._join(self._clock.monotonic() + IDLE_SECONDS)
        self._transport.close()

    def _join(self, deadline: float) -> None:
        with self._wake:
            threads = list(self._running.values())
        for thread in [*threads, *([self._thread] if self._thread else [])]:
            thread.join(max(0.0, deadline - self._clock.monotonic()))

    # -- what is due ------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping.is_set():
            seen = self._wakes
            wait = IDLE_SECONDS
            try:
                wait = self._dispatch()
            except StoreError as error:
                log.warning("actions.store_failed", error=str(error))
            except Exception as error:
                log.error("actions.unexpected_error", exc_info=error)
            self._rest(seen, wait)

    def _rest(self, seen: int, seconds: float) -> None:
        with self._wake:
            if self._wakes == seen and not self._stopping.is_set():
                self._wake.wait(seconds)

    def _dispatch(self) -> float:
        """Look through what is new and begin what is due; how long to sleep then."""
        if not self._actions or not self._may_act():
            return IDLE_SECONDS
        while self._store.scan(self._concerns):
            pass
        now = self._clock.now()
        for pair in self._store.due(now):
            self._begin(pair)
        return min(IDLE_SECONDS, self._store.next_due(now) or IDLE_SECONDS)

    def _concerns(self, key: str, change: BranchChange) -> bool:
        action = self._actions.get(key)
        return action is not None and action.concerns(change)

    def _begin(self, pair: Pair) -> None:
        with self._wake:
            busy = Counter(key for key, _ in self._running)
            if pair in self._running or busy[pair[0]] >= MOST_AT_ONCE or self._stopping.is_set():
                return
            thread = threading.Thread(target=self._serve, args=(pair,), name=f"action-{pair[0]}", daemon=True)
            self._running[pair] = thread
        thread.start()

    def _serve(self, pair: Pair) -> None:
        """Act on the branch for as long as that goes well and there is something to do."""
        try:
            while not self._stopping.is_set() and self._may_act() and self.step(pair):
                pass
        except StoreError as error:  # progress is not stored: it is repeated
            log.warning("actions.store_failed", error=str(error))
            self._clock.sleep(IDLE_SECONDS)
        except Exception as error:
            log.error("actions.unexpected_error", exc_info=error)
            self._clock.sleep(IDLE_SECONDS)
        finally:
            with self._wake:
                self._running.pop(pair, None)
            self.wake()

    # -- one act ----------------------------------------------------------------------------------

    def step(self, pair: Pair) -> bool:
        """Do the next thing of an action on a branch, and store how it ended; whether to go on with it."""
        action = self._actions.get(pair[0])
        task = self._store.task(*pair)
        if action is None or task is None:
            return False
        if action.kind == "publish":
            return self._publish(action, task)
        if task.change is None or not action.concerns(task.change):
            self._store.skip(task, up_to=task.change.id if task.change else task.wanted_id)
            return True
        began = self._clock.monotonic()
        result = self._act(action, task.change)
        return self._end(action, task, result, began, up_to=task.change.id, commit_sha=task.change.after)

    def _act(self, action: Action, change: BranchChange) -> ActionResult:
        timeout = action.rule.timeout_seconds
        if action.rule.url:
            secret = action.rule.secret.first()
            return post(
                self._transport, action.rule.url, change, secret=secret, timeout_seconds=timeout, clock=self._clock
            )
        return run_command(
            action.rule.command, change, environ=self._environ, timeout_seconds=timeout, clock=self._clock,
            stopping=self._ending.is_set,
        )  # fmt: skip

    def _publish(self, action: Action, task: ActionTask) -> bool:
        """Publish the snapshot as it is now, which is at least as new as the newest change that is wanted."""
        began = self._clock.monotonic()
        head_sha = None
        try:
            folder = Folder(self._target(action, task))
            head_sha, entries = self._snapshot(task.branch_id)
            published = folder.publish(head_sha, entries, self._snapshots.blob, now=self._clock.now())
            told = f"{published.written} files written, {published.linked} kept"
            result = ActionResult(None, told, published.note)
        except (PublishError, OSError, ValueError, LookupError) as error:
            result = ActionResult(_words(error))
        return self._end(action, task, result, began, up_to=task.wanted_id, commit_sha=head_sha)

    def _target(self, action: Action, task: ActionTask) -> Path:
        """Where the branch goes. Raises PublishError when another branch goes there too, ValueError."""
        path = _folder(action, task.repository, task.branch)
        for other, branch_id, repository, branch in self._published():
            if (other.key, branch_id) != (action.key, task.branch_id) and _folder(other, repository, branch) == path:
                there = f"{repository.full_name}@{branch}"
                raise PublishError(f"{path} is also where {there} is published; give each a folder of its own")
        return Path(path)

    def _snapshot(self, branch_id: int) -> tuple[str, list[Entry]]:
        """The commit and every entry of the current snapshot. Raises LookupError when it is swept meanwhile."""
        page = self._snapshots.files(branch_id, snapshot=None, prefix=b"", after=None, limit=FILES_PAGE)
        entries = list(page.entries)
        if page.head_sha is None:
            raise LookupError("the branch has no snapshot yet")
        while len(page.entries) == FILES_PAGE:
            page = self._snapshots.files(
                branch_id, snapshot=page.snapshot, prefix=b"", after=entries[-1].path, limit=FILES_PAGE
            )
            entries += page.entries
        return str(page.head_sha), entries

    def _publications(self) -> list[Pair]:
        return [(action.key, branch_id) for action, branch_id, _, _ in self._published()]

    def _published(self) -> Iterator[tuple[Action, int, RepositoryRef, str]]:
        """Every branch that is published, with the action that does it."""
        publishing = [action for action in self._actions.values() if action.kind == "publish"]
        for branch_id, repository, branch in self._store.tracked() if publishing else ():
            for action in publishing:
                if action.concerns_branch(repository.full_name, branch):
                    yield action, branch_id, repository, branch

    # -- endings ----------------------------------------------------------------------------------

    def _end(
        self,
        action: Action,
        task: ActionTask,
        result: ActionResult,
        began: float,
        *,
        up_to: int,
        commit_sha: str | None,
    ) -> bool:
        if result.error is not None and self._ending.is_set():
            return False  # ended by us: no failure of its own
        result = self._told(result)
        now = self._clock.now()
        if result.error is None:
            self._store.done(task, result, up_to=up_to, commit_sha=commit_sha, now=now)
        else:
            run_after = now + timedelta(seconds=self._backoff_seconds(task.attempts + 1))
            self._store.failed(task, result, run_after=run_after, now=now)
        self._on_end(action.kind, result.error is not None)
        _log_end(action, task, result, commit_sha, self._clock.monotonic() - began)
        return result.error is None

    def _told(self, result: ActionResult) -> ActionResult:
        """The same without secrets, and not too long."""
        texts = (result.error, result.output, result.note)
        return ActionResult(*(None if text is None else self._redact(text)[-MOST_OUTPUT_BYTES:] for text in texts))

    def _backoff_seconds(self, attempt: int) -> float:
        seconds = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(attempt - 1, 12), LONGEST_BACKOFF_SECONDS)
        return seconds * (0.75 + self._jitter() / 2)


def _folder(action: Action, repository: RepositoryRef, branch: str) -> str:
    return rendered(str(action.rule.publish), owner=repository.owner, name=repository.name, branch=branch)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        name = error.filename2 or error.filename
        return f"{os.fsdecode(name)}: {error.strerror}" if isinstance(name, str | bytes) else error.strerror
    return str(error)


def _log_end(action: Action, task: ActionTask, result: ActionResult, commit_sha: str | None, seconds: float) -> None:
    log_at = log.info if result.error is None else log.warning
    log_at(
        "action.finished",
        action=action.key,
        kind=action.kind,
        target=action.identity.target,
        branch=f"{task.repository.full_name}@{task.branch}",
        outcome="done" if result.error is None else "failed",
        after=commit_sha,
        attempt=task.attempts + 1,
        seconds=round(seconds, 3),
        error=result.error,
    )
