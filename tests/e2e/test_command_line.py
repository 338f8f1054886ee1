from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Daemon, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Hold, Status
from daemon.demo.standin.gitrepo import GitRepo


def headwater(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWATER_", "GITHUB_"))}
    command = [sys.executable, "-m", "daemon", *arguments]
    here = str(Path(__file__).parents[2])
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=kept | {"PYTHONPATH": here} | environ,
        timeout=120,
        check=False,
    )


def test_no_command_prints_the_help_and_is_wrong_usage(tmp_path: Path) -> None:
    ended = headwater(cwd=tmp_path)
    assert ended.returncode == 2
    for command in ("run", "sync", "check", "status", "ls", "cat", "log", "changes", "verify", "hooks", "demo"):
        assert command in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("run", "sync", "check", "doctor", "status", "verify", "hooks", "demo", "backup", "migrate", "schema"),
        *("install-service", "uninstall-service", "man"),
    ],
)
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    ended = headwater(command, "--help", cwd=tmp_path)
    assert ended.returncode == 0
    assert "Usage" in ended.stdout


@pytest.mark.parametrize("arguments", [("nonsense",), ("run", "--nonsense"), ("status", "extra")])
def test_wrong_usage_is_two(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert headwater(*arguments, cwd=tmp_path).returncode == 2


@pytest.mark.parametrize("command", ["run", "sync", "check", "doctor", "status", "verify"])
def test_a_missing_configuration_is_78_with_one_line(tmp_path: Path, command: str) -> None:
    ended = headwater("--config", "absent.toml", command, cwd=tmp_path)
    assert ended.returncode == 78
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "absent.toml" in ended.stderr


def test_every_problem_of_the_configuration_is_one_line_naming_file_and_key(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[webhook]\nlissten = "x"\nmax_body = "1 potato"\n[polling]\ninterval = "0s"\n')
    ended = headwater("run", cwd=tmp_path)
    assert ended.returncode == 78
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 3
    for key in ("webhook.lissten", "webhook.max_body", "polling.interval"):
        assert any(key in line and "config.toml" in line for line in lines)
    assert any("listen" in line.split("lissten")[1] for line in lines if "lissten" in line)


def test_sync_without_a_daemon_syncs_and_status_shows_it(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    ended = daemon.cli("sync")
    assert ended.returncode == 0, ended.stderr
    assert "octo/data@main" in ended.stdout
    shown = json.loads(daemon.cli("status", "--json").stdout)
    assert [(row["repository"], row["name"], row["head_sha"]) for row in shown["branches"]] == [
        ("octo/data", "main", repo.head())
    ]
    again = json.loads(daemon.cli("sync", "--json", "OCTO/Data").stdout)
    assert [run["outcome"] for run in again["runs"]] == ["unchanged"]
    assert daemon.cli("status").returncode == 0


def test_sync_without_a_daemon_finds_the_branches_that_a_glob_is_for(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    first = repo.commit({"one.txt": b"1\n"}, branch="release/1")
    repo.commit({"other.txt": b"1\n"}, branch="other")
    daemon = make_daemon(extra='branches = ["release/*"]')
    ended = daemon.cli("sync", "OCTO/data", "--json")
    assert ended.returncode == 0, ended.stderr
    assert [(run["branch"], run["head_sha"]) for run in json.loads(ended.stdout)["runs"]] == [("release/1", first)]
    repo.commit({"two.txt": b"2\n"}, branch="release/2")
    assert {run["branch"] for run in json.loads(daemon.cli("sync", "--json").stdout)["runs"]} == {
        "release/1",
        "release/2",
    }
    github.remove("octo/data")
    ended = daemon.cli("sync")
    assert ended.returncode == 1
    assert "octo/data@release/*  failed: " in ended.stdout


def test_sync_beside_a_daemon_asks_the_daemon(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(sections={"admin": 'token = "letmein"'}).start()
    daemon.session.headers["Authorization"] = "Bearer letmein"
    daemon.wait_head(repo.head())
    after = repo.commit({"asked.txt": b"1\n"})
    ended = daemon.cli("sync", "octo/data")
    assert ended.returncode == 0, ended.stderr
    assert after[:7] in ended.stdout
    assert daemon.head() == after
    assert daemon.runs()[0]["trigger"] == "manual"


def test_sync_beside_a_daemon_has_it_look_for_what_globs_are_for(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    first = repo.commit({"one.txt": b"1\n"}, branch="release/1")
    daemon = make_daemon(extra='branches = ["release/*"]', interval="1h", reconcile="1h").start()
    daemon.wait_head(first, branch="release/1")
    daemon.wait_idle()
    second = repo.commit({"two.txt": b"2\n"}, branch="release/2")
    assert daemon.cli("sync", "octo/data").returncode == 0
    daemon.wait_head(second, branch="release/2")


def test_a_repository_without_a_branch_to_sync_is_said_and_does_not_keep_the_others(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    none = 'branches = ["release/*"]'
    daemon = make_daemon(extra=none)
    ended = daemon.cli("sync")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.startswith("nothing to sync: ")
    github.add("octo/other", repo.path)
    daemon = make_daemon(extra=f'{none}\n[[repositories]]\nname = "octo/other"').start()
    ended = daemon.cli("sync")
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["octo/other@main"]
    assert repo.head()[:7] in ended.stdout


def test_what_has_no_commit_and_what_never_was_there_is_said_in_whole_words(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    github.add("octo/empty", GitRepo.init(tmp_path / "empty").path)
    daemon = make_daemon(repositories=("octo/empty",))
    assert daemon.cli("sync").stdout == "octo/empty@(default branch)  unchanged at no commit\n"
    daemon = make_daemon(extra='branches = ["mian"]')
    assert daemon.cli("sync").returncode == 1
    (row,) = json.loads(daemon.cli("status", "--json").stdout)["branches"]
    assert row["last_error"] == "branch mian of octo/data does not exist on GitHub; check its name"


def test_that_no_repository_is_configured_is_said(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(repositories=())
    for command, said in (
        ("sync", "nothing to sync: no repository is configured: add a [[repositories]] table to the configuration"),
        ("verify", "nothing to verify: no repository is tracked"),
    ):
        ended = daemon.cli(command)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", f"{said}\n")


def test_sync_of_a_name_that_is_not_configured_is_wrong_usage(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    ended = make_daemon().cli("sync", "octo/other")
    assert ended.returncode == 2
    assert "octo/other" in ended.stderr


def test_a_sync_that_fails_is_one_and_says_why(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon()
    github.remove("octo/data")
    ended = daemon.cli("sync")
    assert ended.returncode == 1
    assert "cannot find it" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_sync_without_github_configured_says_what_to_set(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    ended = make_daemon(token=None).cli("sync")
    assert ended.returncode == 1
    assert "github.token" in ended.stderr


def test_check_reports_and_online_asks_github(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon()
    assert daemon.cli("check").returncode == 0
    online = json.loads(daemon.cli("check", "--online", "--json").stdout)
    assert online["ok"] is True
    github.remove("octo/data")
    ended = daemon.cli("check", "--online")
    assert ended.returncode == 1
    assert "octo/data" in ended.stdout


def test_verify_finds_drift_and_repair_mends_it(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    import sqlite3

    daemon = make_daemon()
    assert daemon.cli("sync").returncode == 0
    assert daemon.cli("verify").returncode == 0
    with sqlite3.connect(daemon.database) as connection:
        connection.execute("UPDATE blob SET content = x'00' WHERE sha = (SELECT sha FROM entry LIMIT 1)")
        connection.execute("DELETE FROM entry WHERE path = ?", (b"docs/page.md",))
    connection.close()
    found = daemon.cli("verify")
    assert found.returncode == 1
    assert "DRIFT" in found.stdout
    assert daemon.cli("verify", "--repair").returncode == 0
    report = json.loads(daemon.cli("verify", "--json", "octo/data").stdout)
    assert [branch["ok"] for branch in report["branches"]] == [True]


def test_what_cannot_be_compared_with_github_is_no_drift_and_not_ok(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon()
    assert daemon.cli("sync").returncode == 0
    github.faults.add(".", Status(401))
    ended = daemon.cli("verify", "octo/data", "OCTO/data", "--repair")
    assert ended.returncode == 1
    assert "DRIFT" not in ended.stdout
    assert ended.stdout.count("octo/data@main  not compared with GitHub: ") == 1
    assert "could not be mended" not in ended.stdout
    report = json.loads(daemon.cli("verify", "--json").stdout)["branches"]
    assert [(one["ok"], one["drift"], one["error"] is None) for one in report] == [(False, [], False)]


def test_verify_names_what_the_store_does_not_know_yet(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    assert daemon.cli("sync").returncode == 0
    daemon.write_config(repositories=("octo/data", "octo/later"))
    ended = daemon.cli("verify", "octo/later")
    assert ended.returncode == 0, ended.stderr
    assert "octo/later" in ended.stdout
    assert "not synced yet" in ended.stdout


def test_repair_beside_a_running_daemon_asks_the_daemon(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    import sqlite3

    daemon = make_daemon()
    assert daemon.cli("sync").returncode == 0
    with sqlite3.connect(daemon.database) as connection:
        connection.execute("DELETE FROM entry WHERE path = ?", (b"docs/page.md",))
    connection.close()
    daemon.start()
    assert daemon.cli("verify").returncode == 1
    assert daemon.cli("verify", "--repair").returncode == 0


def test_status_before_the_first_start_says_what_to_do(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    ended = make_daemon().cli("status")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "headwater" in ended.stderr


@pytest.mark.timeout(180)
def test_the_demo_shows_every_step_and_leaves_its_path_alone(tmp_path: Path) -> None:
    source = GitRepo.init(tmp_path / "mine", bare=False)
    source.commit({"README.md": b"mine\n", "src/a.py": b"print()\n"})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")}
    ended = headwater("demo", str(tmp_path / "mine"), "--once", "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["ok"] is True
    assert len(told["steps"]) == 5
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")} == before


@pytest.mark.timeout(180)
def test_the_demo_ends_by_itself_with_once(tmp_path: Path) -> None:
    ended = headwater("demo", "--once", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("   ok  ") == 5
    assert "Where to look" not in ended.stdout  # nobody answers there any more


def test_a_demo_of_something_that_is_no_repository_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = headwater("demo", str(tmp_path / "empty"), "--once", cwd=tmp_path)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr


def test_a_demo_without_git_says_what_is_missing(tmp_path: Path) -> None:
    ended = headwater("demo", "--once", cwd=tmp_path, PATH=str(tmp_path))
    assert ended.returncode == 1
    assert "needs git" in ended.stderr


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    folder, output = tmp_path / "tmp", tmp_path / "output"
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWATER_", "GITHUB_"))}
    environ = kept | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with output.open("wb") as file:
        command = [sys.executable, "-m", "daemon", "demo"]
        demo = subprocess.Popen(command, stdout=file, stderr=file, env=environ, start_new_session=True)
    try:
        wait_for(lambda: "Ctrl-C" in output.read_text(), "the end of the tour", seconds=120)
        assert "/api/v1/repositories" in output.read_text()
        (lock,) = folder.glob("*/headwater.db.lock")
        pid = json.loads(lock.read_text())["pid"]
        demo.send_signal(number)
        assert demo.wait(60) == 0
    finally:
        demo.kill()
        demo.wait()
    assert list(folder.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_sync_after_one_that_failed_tries_again(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon()
    github.remove("octo/data")
    assert daemon.cli("sync").returncode == 1
    github.add("octo/data", repo.path)
    ended = daemon.cli("sync")
    assert ended.returncode == 0, ended.stdout
    assert (repo.head() or "")[:7] in ended.stdout


def test_a_sync_whose_daemon_dies_ends_too_and_says_so(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    hold = Hold()
    github.faults.add(r"/repos/|/graphql", hold)
    repo.commit({"asked.txt": b"1\n"})
    asking = subprocess.Popen(daemon.command("sync"), env=daemon.environ(), stderr=subprocess.PIPE, text=True)
    try:
        assert hold.reached.wait(30)
        daemon.kill()
        hold.release()
        _, told = asking.communicate(timeout=60)
    finally:
        asking.kill()
        asking.wait()
    assert asking.returncode == 1
    assert "the daemon ended" in told


def test_what_is_not_looked_for_yet_does_not_keep_the_rest_from_syncing(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(repositories=("octo/data", "octo/*"))
    ended = daemon.cli("sync")
    assert ended.returncode == 0, ended.stderr
    assert "octo/data@main" in ended.stdout


@pytest.mark.parametrize("command", ["sync", "status", "ls octo/data", "verify --json"])
def test_streams_that_are_closed_are_no_crash_and_no_place_for_the_store(
    repo: GitRepo, make_daemon: Callable[..., Daemon], command: str
) -> None:
    daemon = make_daemon()
    assert daemon.cli("sync").returncode == 0
    line = shlex.join(daemon.command(*command.split()))
    ended = subprocess.run(
        ["sh", "-c", f"{line} <&- >&-"], capture_output=True, text=True, env=daemon.environ(), timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert daemon.cli("verify").returncode == 0


def test_a_name_that_the_locale_cannot_write_is_written_all_the_same(
    repo: GitRepo, make_daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit({"menu.txt": b"1\n"}, branch="café")
    daemon = make_daemon(extra='branches = ["café"]')
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert daemon.cli("sync").returncode == 0
    ended = daemon.cli("status")
    assert ended.returncode == 0, ended.stderr
    assert "caf\\xe9" in ended.stdout


def test_status_tells_the_state_of_a_repository_without_a_branch_as_the_api_does(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    github.add("octo/empty", GitRepo.init(tmp_path / "empty").path)
    daemon = make_daemon(repositories=("octo/empty", "octo/nowhere")).start()

    def told() -> dict[str, str]:
        return {one["full_name"]: one["state"] for one in daemon.get("/api/v1/repositories").json()["items"]}

    wait_for(lambda: told() == {"octo/empty": "empty", "octo/nowhere": "gone"}, "the first looks")
    rows = json.loads(daemon.cli("status", "--json").stdout)["branches"]
    assert {one["repository"]: one["state"] for one in rows} == told()


def test_status_has_the_fields_of_the_api_before_the_first_sync(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon()
    assert daemon.cli("sync").returncode == 0
    (synced,) = json.loads(daemon.cli("status", "--json").stdout)["branches"]
    github.remove("octo/data")
    other = make_daemon()
    assert other.cli("sync").returncode == 1
    (unknown,) = json.loads(other.cli("status", "--json").stdout)["branches"]
    assert unknown.keys() == synced.keys()
    assert (unknown["name"], unknown["state"]) == (None, "failed")
