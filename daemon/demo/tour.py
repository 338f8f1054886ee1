"""`headwater demo`: the whole promise in a minute, on loopback, with a stand-in for GitHub.

The daemon that runs here is the real one, in a process of its own, with a configuration like anybody's.
Only GitHub is played: by `daemon.demo.standin`, from a copy of a local git repository.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import click
import requests

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo
from daemon.errors import HeadwaterError
from daemon.store.database import Database

NAME = "demo/site"
STEP_SECONDS = 60.0
CHECK_SECONDS = 0.02
SHORT = 7

CONFIG = """\
# made by `headwater demo`; a real one needs a token and your repositories, and hardly more
[github]
api_url = "{api_url}"
token = "{token}"

[webhook]
listen = "127.0.0.1:0"
secret = "{secret}"

[admin]
listen = "127.0.0.1:0"

[polling]
interval = "2s"
reconcile_interval = "3s"

[storage]
url = "sqlite:///{database}"

[log]
level = "warning"

[[repositories]]
name = "{name}"
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing the tour has shown."""

    title: str
    ok: bool
    seconds: float
    detail: str


class Tour:
    """Drives the stand-in and watches the daemon through its public interfaces only."""

    def __init__(self, repo: GitRepo, github: StandIn, *, database: Path, say: Callable[[str], None]) -> None:
        self._repo = repo
        self._github = github
        self._database = database
        self._say = say
        self._branch = repo.head_branch() or "main"
        self._session = requests.Session()
        self._session.trust_env = False
        self.admin_url = ""
        self.steps: list[Step] = []

    def connect(self, daemon: subprocess.Popen[bytes], secret: str) -> None:
        """Wait until the daemon listens, and point the repository's webhook at it. Raises HeadwaterError."""
        facts = self._wait(lambda: self._listening(daemon), "the daemon to start")
        self.admin_url = facts["admin_url"]
        self._github.hook(NAME, facts["webhook_url"] + facts["webhook_path"], secret)

    def _listening(self, daemon: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        if daemon.poll() is not None:
            raise HeadwaterError(f"the daemon ended by itself with exit code {daemon.returncode}")
        facts = Database.locked_by(self._database)
        return facts if facts and facts.get("admin_url") else None

    # -- the narrated steps -----------------------------------------------------------------------

    def take(self) -> None:
        """All of it, in order."""
        self._step("first sync, nobody asked for it: the daemon looks at everything when it starts", self._first)
        self._step("a push, and its webhook arrives", self._webhook)
        self._step("a push whose webhook is lost: polling finds it", self._lost)
        self._step("the same push delivered twice: one sync", self._twice)
        self._step("a force push: history is rewritten, the copy follows", self._force)

    def _step(self, title: str, show: Callable[[], str]) -> None:
        self._say(f"\n{len(self.steps) + 1}. {title}")
        started = time.monotonic()
        try:
            detail, ok = show(), True
        except HeadwaterError as error:
            detail, ok = str(error), False
        step = Step(title, ok, round(time.monotonic() - started, 3), detail)
        self.steps.append(step)
        self._say(f"   {'ok' if ok else 'FAILED'}  {detail}")

    def _first(self) -> str:
        head = self._head()
        self._synced(head)
        run = self._runs()[0]
        return f"{run['added']} files at {head[:SHORT]} with {run['requests']} requests; {self._proof()}"

    def _webhook(self) -> str:
        before, after = self._commit("greeting.txt", b"hello from a webhook\n")
        self._deliver(before, after)
        started = time.monotonic()
        self._synced(after)
        milliseconds = (time.monotonic() - started) * 1000
        return f"{after[:SHORT]} was queryable {milliseconds:.0f} ms after the delivery's answer; {self._proof()}"

    def _lost(self) -> str:
        _, after = self._commit("lost.txt", b"no webhook told of this\n")
        started = time.monotonic()
        self._synced(after)
        seconds = time.monotonic() - started
        trigger = self._runs()[0]["trigger"]
        return f"{after[:SHORT]} was found after {seconds:.1f} s by trigger `{trigger}`; {self._proof()}"

    def _twice(self) -> str:
        before, after = self._commit("twice.txt", b"delivered twice, synced once\n")
        guid = self._deliver(before, after)
        self._synced(after)
        again = json.loads(self._github.redeliver(guid).body)["status"]
        runs = [run for run in self._runs() if run["after"] == after and run["outcome"] == "updated"]
        if again != "duplicate" or len(runs) != 1:
            raise HeadwaterError(f"the second delivery was answered `{again}` and {len(runs)} runs were made")
        return f"the second delivery was answered `{again}`, and {after[:SHORT]} has one run"

    def _force(self) -> str:
        before = self._head()
        parent = self._repo.log(self._branch)[-1]
        self._repo.reset(self._branch, parent)
        _, after = self._commit("rewritten.txt", b"another history\n")
        self._deliver(before, after)
        self._synced(after)
        run = self._runs()[0]
        counts = f"+{run['added']} ~{run['modified']} -{run['removed']}"
        return f"{before[:SHORT]} -> {after[:SHORT]}, {counts}; {self._proof()}"

    # -- the two sides ----------------------------------------------------------------------------

    def _head(self) -> str:
        return self._repo.head(self._branch) or ""

    def _commit(self, path: str, content: bytes) -> tuple[str, str]:
        before = self._head()
        return before, self._repo.commit({path: content}, f"Add {path}", branch=self._branch)

    def _deliver(self, before: str, after: str) -> str:
        result = self._github.push(NAME, self._branch, before, after)
        if result is None or result.status != requests.codes.ok:
            raise HeadwaterError(f"the daemon answered the delivery with {result.status if result else 'nothing'}")
        return result.guid

    def _api(self, path: str, **params: Any) -> dict[str, Any]:
        url = f"{self.admin_url}/api/v1/{path}"
        try:
            answer = self._session.get(url, params=params, timeout=10)
            answer.raise_for_status()
            body: dict[str, Any] = answer.json()
        except requests.RequestException as error:
            raise HeadwaterError(f"the daemon's API did not answer: {error}") from error
        return body

    def _runs(self) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self._api(f"repositories/{NAME}/runs")["items"]
        return runs

    def _synced(self, head: str) -> None:
        self._wait(lambda: self._stored_head() == head, f"{head[:SHORT]} to be stored")

    def _stored_head(self) -> str | None:
        branches = self._api(f"repositories/{NAME}")["branches"]
        return next((branch["head_sha"] for branch in branches if branch["name"] == self._branch), None)

    def _proof(self) -> str:
        """Hold every row against what git itself says. Raises HeadwaterError on the first difference."""
        stored = {(item["path"], item["mode"], item["sha"]) for item in self._files()}
        truth = {
            (entry.path.decode("utf-8", "replace"), entry.mode, entry.sha) for entry in self._repo.ls_tree(self._branch)
        }
        if stored != truth:
            raise HeadwaterError(f"{len(stored ^ truth)} entries differ from `git ls-tree`")
        return f"all {len(stored)} entries equal `git ls-tree`"

    def _files(self) -> Iterator[dict[str, Any]]:
        cursor = None
        while True:
            page = self._api(f"repositories/{NAME}/files", limit=1000, **({"cursor": cursor} if cursor else {}))
            yield from page["items"]
            cursor = page["next_cursor"]
            if not cursor:
                return

    def _wait(self, done: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + STEP_SECONDS
        while time.monotonic() < deadline:
            if result := done():
                return result
            time.sleep(CHECK_SECONDS)
        raise HeadwaterError(f"waited {STEP_SECONDS:.0f} s for {what}")


def take_tour(path: Path | None, *, once: bool, as_json: bool) -> bool:
    """Run the demo; True when every step showed what it promised. Raises HeadwaterError when it cannot start."""

    def say(text: str) -> None:
        click.echo(text, err=as_json)

    if shutil.which("git") is None:
        raise HeadwaterError("the demo needs git, and there is none on the PATH: install it (apt-get install git)")
    with ExitStack() as stack:
        stack.enter_context(_ended_in_order())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-demo-")))
        repo = _copy(path, folder) if path else _fresh(folder)
        token, secret = secrets.token_hex(16), secrets.token_hex(16)
        github = stack.enter_context(StandIn(token=token))
        github.add(NAME, repo.path)
        database = folder / "headwater.db"
        config = folder / "config.toml"
        config.touch(0o600)
        config.write_text(
            CONFIG.format(api_url=github.url, token=token, secret=secret, database=database, name=NAME),
            encoding="utf-8",
        )
        say(f"A stand-in of GitHub serves {path or 'a small new repository'} as {NAME} at {github.url}")
        daemon = stack.enter_context(_daemon(config))
        tour = Tour(repo, github, database=database, say=say)
        tour.connect(daemon, secret)
        tour.take()
        ok = all(step.ok for step in tour.steps)
        if not once:
            _look(tour.admin_url, config, say)
        if as_json:
            click.echo(json.dumps({"ok": ok, "steps": [asdict(step) for step in tour.steps]}, indent=2))
        if not once:
            _stay(daemon, say)
        return ok


def _copy(path: Path, folder: Path) -> GitRepo:
    try:
        repo = GitRepo.copy(path.resolve(), folder / "repository.git")
    except ValueError as error:
        raise HeadwaterError(
            f"{error}: name a folder that `git init` or `git clone` made, or leave PATH out"
        ) from error
    if not repo.head_branch() or not repo.head(repo.head_branch() or ""):
        raise HeadwaterError(f"{path} has no commit on its current branch: commit something first, or leave PATH out")
    return repo


def _fresh(folder: Path) -> GitRepo:
    repo = GitRepo.init(folder / "repository.git")
    repo.commit({"README.md": b"# A site\n", "docs/index.md": b"# Welcome\n"}, "Begin")
    repo.commit({f"docs/page-{number}.md": b"# Page %d\n" % number for number in range(20)}, "Add pages")
    return repo


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """TERM, and HUP when the terminal is closed, end the tour as Ctrl-C does; a second one has to wait.

    Neither the daemon nor the folder may stay behind.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores HUP
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _daemon(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real daemon beside us, ended by TERM as systemd would."""
    # The tour's own settings must hold, whatever the caller's shell has exported.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWATER_", "GITHUB_"))}
    command = [sys.executable, "-m", "daemon", "--config", str(config), "run"]
    process = subprocess.Popen(command, env=environ, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _look(admin_url: str, config: Path, say: Callable[[str], None]) -> None:
    base = f"{admin_url}/api/v1"
    say("\nWhere to look:")
    say(f"  {admin_url}/                                     the dashboard")
    say(f"  {base}/repositories                   what is kept, and how fresh it is")
    say(f"  {base}/repositories/{NAME}/files   the files of the snapshot")
    say(f"  {base}/repositories/{NAME}/raw/README.md")
    say(f"  {base}/runs                           every sync and why it ran")
    say(f"  {base}/deliveries                     every webhook delivery and what became of it")
    found = (shutil.which("headwater") and "headwater") or shutil.which("headwater", path=Path(sys.executable).parent)
    say(f"  {found or f'{sys.executable} -m daemon'} -c {config} status")


def _stay(daemon: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
    say("\nIt stays up for you to look around; Ctrl-C ends it.")
    try:
        daemon.wait()
    except KeyboardInterrupt:
        say("\nEnding.")
