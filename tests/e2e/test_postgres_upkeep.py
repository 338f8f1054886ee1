"""A store on PostgreSQL as its keeper handles it: backed up and restored by the README's commands, and every command
that looks after a store."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engines import Server
from harness import Daemon, assert_equal_to_git, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo
from daemon.store.database import HISTORY_TABLE, MIGRATIONS

README = Path(__file__).parents[2] / "README.md"
PUSH = {"ref": "refs/heads/main", "repository": {"full_name": "octo/data"}, "commits": []}
EVERY = sorted(path.stem for path in MIGRATIONS.glob("[0-9]*.py"))


@pytest.fixture
def node(repo: GitRepo, make_node: Callable[..., Daemon]) -> Daemon:
    node = make_node().start()
    node.wait_head(repo.head())
    return node


@pytest.fixture
def empty(postgres: Server) -> Iterator[str]:
    """The name of a database that does not exist yet."""
    name = f"restored_{uuid.uuid4().hex[:8]}"
    yield name
    with postgres.admin() as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def environ(postgres: Server) -> dict[str, str]:
    """Where libpq's programs are, and what they connect to where the command does not say."""
    reached = {
        "PGHOST": str(postgres.folder),
        "PGUSER": "headwater",
        "PATH": f"{postgres.binaries}:{os.environ['PATH']}",
    }
    return os.environ | reached


def guids(daemon: Daemon) -> set[str]:
    return {one["guid"] for one in daemon.items("/api/v1/deliveries")}


# -- backup -----------------------------------------------------------------------------------------


def test_what_the_readme_says_restores_all_that_was_accepted_and_it_verifies(
    github: StandIn, repo: GitRepo, node: Daemon, postgres: Server, empty: str
) -> None:
    (said,) = re.findall(r"<!-- postgres backup -->\n```sh\n(.*?)```", README.read_text(), re.DOTALL)
    name = node.settings["storage"].split("?")[0].rsplit("/", 1)[1]
    said = said.replace("headwater_restored", empty).replace("@db.example.org/headwater", f"@/{name}")
    said = said.replace("@db.example.org/", "@/")
    dump, create, restore, verify = said.splitlines()

    def run(command: str) -> None:
        ended = subprocess.run(
            command, shell=True, cwd=node.folder, capture_output=True, text=True, env=environ(postgres), check=False
        )
        assert (ended.returncode, ended.stderr) == (0, ""), command

    before = {str(uuid.uuid4()) for _ in range(5)}
    for guid in before:
        assert node.deliver(PUSH, guid=guid).json()["status"] == "accepted"
    node.wait_idle()  # a run that is under way would be so in the copy too, for as long as its lease lasts
    run(dump)
    after = str(uuid.uuid4())
    assert node.deliver(PUSH, guid=after).json()["status"] == "accepted"
    node.stop()
    run(create)
    restored = node  # the same configuration, but for where the store is
    restored.write_config(storage=postgres.url(empty))
    assert restored.cli("verify").returncode == 1
    run(restore)
    assert verify == "headwater verify"
    proven = restored.cli("verify")
    assert proven.returncode == 0, proven.stdout + proven.stderr
    assert f"ok: 3 entries prove {repo.head()}" in proven.stdout
    github.stop()
    restored.start()
    assert restored.head() == repo.head()
    assert_equal_to_git(restored, repo)
    assert guids(restored) == before
    github.start()
    pushed = repo.commit({"after.md": b"the restore\n"})
    assert restored.deliver(PUSH | {"after": pushed}, guid=after).json()["status"] == "accepted"
    restored.wait_head(pushed)
    assert guids(restored) == before | {after}
    changes = [one["id"] for one in restored.items("/api/v1/changes")]
    assert changes == sorted(set(changes))


def test_backup_says_which_command_backs_up_without_the_password(
    postgres: Server, postgres_url: str, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon(storage=postgres_url.replace("headwater@", "headwater:hunter2@") + "&sslpassword=hunter3")
    file = tmp_path / "my store.dump"
    assert daemon.cli("migrate").returncode == 0
    ended = daemon.cli("backup", str(file))
    assert ended.returncode == 2
    assert "hunter" not in ended.stdout + ended.stderr
    (command,) = [line for line in ended.stderr.splitlines() if "pg_dump" in line and "--format" in line]
    subprocess.run(shlex.split(command), check=True, env=environ(postgres))
    listed = subprocess.run(
        [postgres.binaries / "pg_restore", "--list", str(file)], capture_output=True, text=True, check=True
    )
    assert "TABLE DATA public delivery" in listed.stdout


# -- migrations -------------------------------------------------------------------------------------


def test_migrating_is_told_done_and_refused_as_it_is_on_sqlite(
    make_daemon: Callable[..., Daemon], postgres: Server, empty: str
) -> None:
    with postgres.admin() as admin:
        admin.execute(f"CREATE DATABASE {empty}")
    daemon = make_daemon(storage=postgres.url(empty))
    checked = daemon.cli("migrate", "--check")
    assert (checked.returncode, EVERY[-1] in checked.stdout) == (1, True), checked.stderr
    assert json.loads(daemon.cli("migrate", "--check", "--json").stdout) == {"applied": [], "pending": EVERY}
    assert json.loads(daemon.cli("migrate", "--json").stdout) == {"applied": EVERY, "pending": []}
    assert "the schema is current" in daemon.cli("migrate").stdout
    daemon.start()
    assert daemon.cli("migrate", "--check").returncode == 0
    assert daemon.stop() == 0
    import psycopg

    with psycopg.connect(postgres.url(empty), autocommit=True) as connection:
        connection.execute(f"INSERT INTO {HISTORY_TABLE} (name) VALUES ('9999_future')")
    for arguments in (["--check"], []):
        newer = daemon.cli("migrate", *arguments)
        assert (newer.returncode, "newer headwater" in newer.stderr) == (1, True)


def test_a_server_that_is_not_there_is_one_line(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon(storage=f"postgresql://headwater@/none?host={tmp_path}")
    for command in (["migrate"], ["migrate", "--check"], ["prune", "--dry-run"]):
        ended = daemon.cli(*command)
        assert ended.returncode == 1
        assert len(ended.stderr.splitlines()) == 1, ended.stderr
    report = daemon.cli("doctor", "--offline")
    assert (report.returncode, report.stderr) == (1, "")
    assert re.search("^FAILED +store: .*none", report.stdout, re.MULTILINE)


# -- the others ---------------------------------------------------------------------------------------


def test_doctor_tells_of_the_daemons_and_of_the_store(
    repo: GitRepo, node: Daemon, make_node: Callable[..., Daemon]
) -> None:
    second = make_node().start()
    told = json.loads(node.cli("doctor", "--json").stdout)
    assert told["ok"] is True
    messages = [(one["subject"], one["message"]) for one in told["findings"]]
    daemons = [message for subject, message in messages if subject == "daemon"]
    assert len(daemons) == 2
    for one in (node, second):
        assert any(f"process {one.process.pid} " in message and one.admin_url in message for message in daemons)  # type: ignore[union-attr]
    facts = dict(messages)
    assert re.search(r"the PostgreSQL database \w+ .*B, 1 repository, 1 branch", facts["store"])
    assert "pg_amcheck" in facts["integrity"]
    assert facts["last run"].startswith("octo/data@main")
    for one in (node, second):
        assert one.stop() == 0
    assert re.search("^warning +daemon: does not run", node.cli("doctor").stdout, re.MULTILINE)


def test_hooks_test_waits_for_whichever_node_the_ping_arrives_at(
    github: StandIn, node: Daemon, make_node: Callable[..., Daemon]
) -> None:
    other = make_node().start()
    public = f'public_url = "{other.webhook_url.removesuffix("/api/v1/webhooks/github")}"'
    node.write_config(sections={"webhook": public})
    assert node.cli("hooks", "install").returncode == 0
    ended = node.cli("hooks", "test", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (row,) = json.loads(ended.stdout)["hooks"]
    assert row["state"] == "ok"
    assert row["guid"] in guids(node)
    for one in (node, other):
        assert one.stop() == 0
    refused = node.cli("hooks", "test")
    assert (refused.returncode, "no daemon runs" in refused.stderr) == (1, True)


def test_prune_beside_running_daemons_removes_what_is_not_tracked_any_more(
    github: StandIn, repo: GitRepo, make_node: Callable[..., Daemon]
) -> None:
    github.add("octo/more", repo.path)
    node = make_node(repositories=("octo/data", "octo/more")).start()
    for name in ("octo/data", "octo/more"):
        node.wait_head(repo.head(), name=name)
    assert node.cli("prune", "octo/more", "--yes").returncode == 1
    node.write_config(repositories=("octo/data",))
    node.hangup()
    wait_for(lambda: node.get("/api/v1/repositories/octo/more").status_code == 404, "octo/more not to be tracked")
    pruned = node.cli("prune", "--yes", "--json")
    assert [one["repository"] for one in json.loads(pruned.stdout)["pruned"]] == ["octo/more"], pruned.stderr
    assert json.loads(node.cli("prune", "--dry-run", "--json").stdout)["pruned"] == []
    assert node.cli("verify").returncode == 0
    assert node.head() == repo.head()
