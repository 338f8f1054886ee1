"""Secrets never appear in logs, errors, the API or a process list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness import TOKEN, Daemon, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Status
from daemon.demo.standin.gitrepo import GitRepo

WEBHOOK = "canary-webhook-5f1d7a"
ADMIN = "canary-admin-93be01"


def test_planted_secrets_are_nowhere(github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(interval="1s", secret=WEBHOOK, sections={"admin": f'token = "{ADMIN}"'}).start()
    authorized = {"Authorization": f"Bearer {ADMIN}"}
    daemon.session.headers.update(authorized)
    daemon.wait_head(repo.head())
    # Errors that quote what they were about: a refused token, a failing archive whose link carries a token, bad deliveries.
    github.faults.add(r"/codeload/", Status(500, f"token {TOKEN}"), times=3)
    github.faults.add(r"/commits", Status(403, {"message": f"Bad token {TOKEN}"}), times=3)
    repo.commit({f"many/{n}.txt": b"%d" % n for n in range(150)})
    daemon.deliver({"ref": WEBHOOK}, secret="wrong")
    daemon.deliver({"ref": "refs/heads/main"}, **{"X-Hub-Signature-256": f"sha256={WEBHOOK}"}, secret=None)
    github.token = "another-token"
    wait_for(lambda: daemon.repository()["last_error"], "the refused token to be told")
    assert daemon.session.get(daemon.admin_url + "/", headers={"Authorization": f"Bearer {ADMIN}x"}).status_code == 401
    paths = ("status", "repositories", "repositories/octo/data", "runs", "deliveries", "openapi.json")
    shown = "".join(daemon.get(f"/api/v1/{path}").text for path in paths) + daemon.get("/metrics").text
    assert daemon.process is not None
    shown += Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes().decode()
    for arguments in (("status", "--json"), ("check", "--json"), ("check", "--online"), ("sync",), ("verify",)):
        answer = daemon.cli(*arguments)
        shown += answer.stdout + answer.stderr
    assert daemon.stop() == 0
    shown += daemon.log.read_text(errors="replace")
    stored = daemon.database.read_bytes()
    for canary in (TOKEN, WEBHOOK, ADMIN):
        assert canary not in shown
        assert canary.encode() not in stored


def test_the_store_and_its_lock_are_for_their_owner_only(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    for path in daemon.folder.glob("headwater.db*"):
        assert path.stat().st_mode & 0o077 == 0, path
