"""Secrets never appear in logs, errors, the API or a process list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness import TOKEN, Daemon, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Status
from daemon.demo.standin.gitrepo import GitRepo
from daemon.web.admin import routes

WEBHOOK = "canary-webhook-5f1d7a"
ADMIN = "canary-admin-93be01"
ACTION = "canary-action-77c2e4"


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


def everything_shown(daemon: Daemon) -> str:
    """Every page and answer there is to get, the stream apart, which does not end."""
    filled = {"owner": "octo", "name": "data", "path": "README.md", "type": "schema", "id": "1"}
    paths = [route.template.format_map(filled) for route in routes() if "GET" in route.functions]
    answers = [daemon.get(path) for path in paths if path != "/api/v1/events"]
    return "".join(f"{answer.headers}{answer.text}" for answer in answers)


def test_planted_secrets_are_on_no_page_in_no_error_and_in_no_file(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    action = f'[[actions]]\nurl = "http://127.0.0.1:1/"\nsecret = "{ACTION}"\n'
    daemon = make_daemon(interval="1s", secret=WEBHOOK, sections={"admin": f'token = "{ADMIN}"'})
    daemon.config.write_text(daemon.config.read_text() + action)
    daemon.start()
    daemon.session.headers["Authorization"] = f"Bearer {ADMIN}"
    daemon.wait_head(repo.head())
    after = repo.commit({"acted.txt": b"1\n"})  # the action fails, and says why
    daemon.wait_head(after)
    wait_for(lambda: daemon.log_lines("action.finished"), "the action to fail")
    github.faults.add(r"/", Status(403, {"message": f"Bad credentials {TOKEN}, {WEBHOOK}"}), times=20)
    repo.commit({"refused.txt": b"1\n"})
    wait_for(lambda: daemon.repository()["last_error"], "the refusal to be told")
    refused = [daemon.deliver(b"{", secret="wrong"), daemon.deliver(b'{"ref": 5}'), daemon.post("/api/v1/status")]
    refused.append(daemon.get("/api/v1/runs", params={"cursor": "x"}))
    refused.append(daemon.get("/api/v1/runs", headers={"Authorization": f"Basic {ADMIN}"}))
    assert [answer.status_code for answer in refused] == [403, 400, 405, 422, 401]
    shown = everything_shown(daemon) + "".join(answer.text for answer in refused)
    files = {path.name: path.read_bytes() for path in daemon.folder.iterdir() if path.name != daemon.config.name}
    assert {"headwater.db", "headwater.db-wal", "daemon.log"} <= set(files)
    assert daemon.stop() == 0
    for canary in (TOKEN, WEBHOOK, ADMIN, ACTION):
        assert canary not in shown
        assert [name for name, content in files.items() if canary.encode() in content] == []


def test_the_store_and_its_lock_are_for_their_owner_only(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    for path in daemon.folder.glob("headwater.db*"):
        assert path.stat().st_mode & 0o077 == 0, path
