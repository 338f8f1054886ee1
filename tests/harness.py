"""A daemon as its users have it: a process of its own, seen only through its interfaces."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import requests

from daemon.demo.standin.gitrepo import GitRepo
from daemon.store.database import Database

SECRET = "a secret for tests"
TOKEN = "ghp_TestTokenTestTokenTestTokenTestToken"
DEADLINE = 30.0
TICK_SECONDS = 0.05
STILL_SECONDS = 0.25  # later than that nobody gets his turn who is only in others' way


def wait_for(done: Callable[[], Any], what: str, *, seconds: float = DEADLINE) -> Any:
    """Poll until ``done`` gives something true; the only waiting that tests do."""
    deadline = time.monotonic() + seconds
    while True:
        if result := done():
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.01)


class Stopwatch:
    """The seconds that a block takes, but for those in which this machine stands still: in them nobody is slow.

    ``elapsed`` are all of them.
    """

    seconds = elapsed = 0.0

    def __enter__(self) -> Self:
        self._ended = threading.Event()
        self._still = 0.0
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._tick)
        self._thread.start()
        return self

    def _tick(self) -> None:
        ended, before = False, time.monotonic()
        while not ended:
            ended = self._ended.wait(TICK_SECONDS)
            now = time.monotonic()
            late = now - before - TICK_SECONDS
            self._still += late if late > STILL_SECONDS else 0.0
            before = now

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.elapsed = time.monotonic() - self._began
        self.seconds = self.elapsed - self._still


class Daemon:
    """`python -m daemon run` with a configuration of its own in ``folder``."""

    def __init__(
        self,
        folder: Path,
        api_url: str,
        *,
        repositories: tuple[str, ...] = ("octo/data",),
        extra: str = "",
        interval: str = "1h",
        reconcile: str = "1h",
        token: str | None = TOKEN,
        secret: str | None = SECRET,
        storage: str | None = None,
        sections: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.database = folder / "headwater.db"
        self.config = folder / "config.toml"
        self.log = folder / "daemon.log"
        self.secret = secret
        self.process: subprocess.Popen[bytes] | None = None
        self.variables: dict[str, str] = {}  # of its environment, beyond the usual
        self.fds: tuple[int, ...] = ()  # that it inherits
        self._starts = 0
        self.session = requests.Session()
        self.session.trust_env = False
        sections = sections or {}
        self.settings = {
            "api_url": api_url,
            "repositories": repositories,
            "extra": extra,
            "interval": interval,
            "reconcile": reconcile,
            "token": token,
            "secret": secret,
            "storage": storage or f"sqlite:///{self.database}",
            "sections": sections,
        }
        self.write_config()

    def write_config(self, **changes: Any) -> None:
        """(Re)write the configuration file with some settings changed."""
        self.settings |= changes
        s = self.settings
        more = s["sections"]
        lines = ["[github]", f'api_url = "{s["api_url"]}"', 'timeout = "10s"', more.get("github", "")]
        lines += [f'token = "{s["token"]}"'] if s["token"] else []
        lines += ["[webhook]", 'listen = "127.0.0.1:0"', more.get("webhook", "")]
        lines += [f'secret = "{s["secret"]}"'] if s["secret"] else []
        lines += ["[admin]", 'listen = "127.0.0.1:0"', more.get("admin", "")]
        lines += ["[polling]", f'interval = "{s["interval"]}"', f'reconcile_interval = "{s["reconcile"]}"']
        lines += [more.get("polling", ""), "[storage]", f'url = "{s["storage"]}"', more.get("storage", "")]
        lines += ["[sync]", more.get("sync", ""), "[server]", 'shutdown_timeout = "10s"', "[log]", 'level = "debug"']
        lines += ['format = "json"']
        for name in s["repositories"]:
            lines += ["[[repositories]]", f'name = "{name}"', s["extra"]]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    # -- life -------------------------------------------------------------------------------------

    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWATER_", "GITHUB_"))}
        return kept | {"PYTHONWARNINGS": "default"} | self.variables

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "daemon", "--config", str(self.config), *arguments]

    def cli(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run another command of headwater with this configuration."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=timeout, env=self.environ(), check=False
        )

    def start(self, *, ready: bool = True) -> Daemon:
        self._starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command("run"), stdout=log, stderr=log, env=self.environ(), pass_fds=self.fds
            )
        if ready:
            wait_for(self._listening, "the daemon to listen")
        return self

    def _listening(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            said = self.log.read_text()[-3000:] if self.log.is_file() else "(its log is no file)"
            raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{said}")
        if self.settings["storage"].startswith("postgresql:"):
            return self._said_where()
        facts = Database.locked_by(self.database)
        if not facts or not facts.get("admin_url") or facts.get("pid") != self.process.pid:
            return False
        self.admin_url = str(facts["admin_url"])
        self.webhook_url = str(facts["webhook_url"]) + str(facts["webhook_path"])
        return True

    def _said_where(self) -> bool:
        """Where it listens, as its log says of this start."""
        said = self.log_lines("daemon.listening")
        if len(said) == self._starts:
            self.admin_url, self.webhook_url = said[-1]["admin"], said[-1]["webhook"]
        return len(said) == self._starts

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def hangup(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def reload(self) -> None:
        """Have it read its configuration; all of the new one is in force afterwards, and not only its repositories."""
        applied = len(self.log_lines("config.applied"))
        self.hangup()
        wait_for(lambda: len(self.log_lines("config.applied")) > applied, "the reload")

    def end(self) -> None:
        """For the fixture: whatever state the test left it in."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.session.close()

    def log_lines(self, event: str | None = None) -> list[dict[str, Any]]:
        lines = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if event is None or record.get("event") == event:
                lines.append(record)
        return lines

    # -- the interfaces ---------------------------------------------------------------------------

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self.session.get(self.admin_url + path, timeout=10, **kwargs)

    def post(self, path: str, **kwargs: Any) -> requests.Response:
        return self.session.post(self.admin_url + path, timeout=10, **kwargs)

    def items(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, through all its pages."""
        cursor = None
        while True:
            answer = self.get(path, params={"limit": 1000, **params, **({"cursor": cursor} if cursor else {})})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            yield from page["items"]
            assert page["has_next"] == (page["next_cursor"] is not None)
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def repository(self, name: str = "octo/data") -> dict[str, Any]:
        answer = self.get(f"/api/v1/repositories/{name}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def branch(self, branch: str = "main", name: str = "octo/data") -> dict[str, Any] | None:
        if self.get(f"/api/v1/repositories/{name}").status_code == 404:
            return None  # not tracked yet
        return next((one for one in self.repository(name)["branches"] if one["name"] == branch), None)

    def head(self, branch: str = "main", name: str = "octo/data") -> str | None:
        found = self.branch(branch, name)
        return found["head_sha"] if found else None

    def wait_head(
        self, sha: str | None, branch: str = "main", name: str = "octo/data", *, seconds: float = DEADLINE
    ) -> None:
        wait_for(lambda: self.head(branch, name) == sha, f"{name}@{branch} to be at {sha}", seconds=seconds)

    def wait_idle(self, *, seconds: float = DEADLINE) -> None:
        def idle() -> bool:
            queue = self.get("/api/v1/status").json()["queue"]
            return queue["pending"] == queue["running"] == 0

        wait_for(idle, "the queue to be empty", seconds=seconds)

    def runs(self, name: str = "octo/data") -> list[dict[str, Any]]:
        return list(self.items(f"/api/v1/repositories/{name}/runs"))

    def deliver(
        self, payload: Any, *, event: str = "push", guid: str | None = None, secret: str | None = "", **headers: str
    ) -> requests.Response:
        """Send one delivery as GitHub would, signed with the daemon's secret unless told otherwise."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        secret = self.secret if secret == "" else secret
        sent = {
            "Content-Type": "application/json",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": guid or str(uuid.uuid4()),
            **headers,
        }
        if secret:
            sent["X-Hub-Signature-256"] = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return self.session.post(self.webhook_url, data=body, headers=sent, timeout=15)

    def integrity(self) -> str:
        connection = sqlite3.connect(self.database)
        try:
            return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
        finally:
            connection.close()


def stored_tree(
    daemon: Daemon, branch: str | None = None, name: str = "octo/data"
) -> list[tuple[str, str, int | None, bytes]]:
    """(mode, sha, size, path) of every stored entry, in git's order."""
    import base64

    params = {"branch": branch} if branch else {}
    rows = []
    for item in daemon.items(f"/api/v1/repositories/{name}/files", **params):
        path = base64.b64decode(item["path_base64"]) if item.get("path_base64") else item["path"].encode()
        rows.append((item["mode"], item["sha"], item["size"], path))
    return sorted(rows, key=lambda row: row[3])


def git_tree(repo: GitRepo, branch: str = "main") -> list[tuple[str, str, int | None, bytes]]:
    """The same from `git ls-tree -r`."""
    return sorted(((e.mode, e.sha, e.size, e.path) for e in repo.ls_tree(branch)), key=lambda row: row[3])


def assert_equal_to_git(daemon: Daemon, repo: GitRepo, branch: str = "main", name: str = "octo/data") -> None:
    assert stored_tree(daemon, branch, name) == git_tree(repo, branch)
    found = daemon.branch(branch, name)
    assert found is not None
    assert (found["head_sha"], found["tree_sha"]) == (repo.head(branch), repo.tree_sha(branch))
