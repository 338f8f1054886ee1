"""The program that an action runs: what it is given, and how it is ended."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from harness import wait_for

from daemon.actions.command import MOST_OUTPUT_BYTES, run_command
from daemon.clock import Clock
from daemon.model import BranchChange, EntityNews, RepositoryRef

PATHS = (("new $(id)",), ("é",), ("gone",))
NEWS = EntityNews(modified=(("module", "m"),))
CHANGE = BranchChange(7, 1, RepositoryRef("octo", "data"), "main", None, "a" * 40, *PATHS, NEWS)
ENVIRON = {
    "PATH": os.environ["PATH"],
    "HOME": "/home/x",
    "GITHUB_TOKEN": "ghp_x",
    "HEADWATER_ADMIN__TOKEN": "t",
    "AWS": "s",
}


def run(*command, timeout=20.0, stopping=lambda: False, clock=Clock()):  # noqa: B008 - frozen
    return run_command(command, CHANGE, environ=ENVIRON, timeout_seconds=timeout, clock=clock, stopping=stopping)


def python(script, *arguments, **options):
    return run(sys.executable, "-c", script, *arguments, **options)


def test_it_gets_the_change_on_its_standard_input_and_in_its_environment():
    result = python("import os, sys, json; print(json.dumps([json.load(sys.stdin), dict(os.environ)]))")
    assert result.error is None
    told, environment = json.loads(str(result.output))
    assert told == {
        "repository": "octo/data", "branch": "main", "before": None, "after": "a" * 40,
        "added": ["new $(id)"], "modified": ["é"], "removed": ["gone"],
        "entities": {"added": [], "modified": [{"entity_type": "module", "entity_id": "m"}], "removed": []},
    }  # fmt: skip
    assert {name: value for name, value in environment.items() if name.startswith(("HEADWATER", "GITHUB", "AWS"))} == {
        "HEADWATER_REPOSITORY": "octo/data", "HEADWATER_BRANCH": "main", "HEADWATER_BEFORE": "", "HEADWATER_AFTER": "a" * 40,
    }  # fmt: skip
    assert (environment["HOME"], environment["LANG"]) == ("/home/x", "C.UTF-8")


def test_no_shell_reads_its_arguments():
    assert python("import sys; print(sys.argv[1])", "$(id); `id` > /x").output == "$(id); `id` > /x\n"


def test_another_exit_code_than_zero_is_a_failure_with_its_output():
    result = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert str(result.error).endswith("ended with exit code 3")
    assert {"out", "err"} <= set(str(result.output).split())


def test_an_end_by_a_signal_is_a_failure():
    assert "signal 9" in str(python("import os; os.kill(os.getpid(), 9)").error)


@pytest.mark.parametrize("command", ["/nowhere/at/all", "/etc"])
def test_what_cannot_be_started_is_a_failure(command):
    assert "cannot be started" in str(run(command).error)


def test_a_program_that_never_reads_and_a_large_output_are_no_trouble():
    result = python("print('x' * 3_000_000); print('the end')")
    assert result.error is None
    assert len(str(result.output)) == MOST_OUTPUT_BYTES
    assert str(result.output).endswith("the end\n")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


CHILDREN = (
    "import os, sys, time, signal\n"
    "if sys.argv[2] == 'deaf': signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('begun', flush=True)\n"
    "os.fork()\n"
    "open(sys.argv[1], 'a').write(f'{os.getpid()} ')\n"
    "time.sleep(600)\n"
)


def have_begun(pids):
    return pids.exists() and len(pids.read_text().split()) == 2


@pytest.mark.parametrize("kind", ["plain", "deaf"])
def test_a_time_out_ends_the_program_and_its_children(tmp_path, kind):
    pids = tmp_path / "pids"
    clock = Clock(monotonic=lambda: time.monotonic() + 600.0 * have_begun(pids))  # however long it takes to begin
    result = python(CHILDREN, str(pids), kind, timeout=600.0, clock=clock)
    assert "longer than 600 s" in str(result.error)
    assert "begun" in str(result.output)
    found = pids.read_text().split()
    assert len(found) == 2
    wait_for(lambda: not any(alive(pid) for pid in found), "the group to be gone")


def test_a_program_that_writes_without_end_is_ended_all_the_same():
    began = time.monotonic()
    result = python("import sys\nwhile True: sys.stdout.write('x' * 10000)", timeout=0.5)
    assert "longer" in str(result.error)
    assert time.monotonic() - began < 10


def test_a_stop_of_the_daemon_ends_it(tmp_path):
    pids = tmp_path / "pids"
    result = python(CHILDREN, str(pids), "plain", stopping=lambda: have_begun(pids))
    assert "the daemon stops" in str(result.error)
    wait_for(lambda: not any(alive(pid) for pid in pids.read_text().split()), "the group to be gone")


def test_a_child_that_stays_and_holds_the_output_does_not_hold_the_action(tmp_path):
    pids = tmp_path / "pids"
    script = (
        "import os, sys, time\npid = os.fork()\nif pid: open(sys.argv[1], 'w').write(str(pid))\nelse: time.sleep(600)\n"
    )
    began = time.monotonic()
    result = python(script, str(pids))
    assert result.error is None
    assert time.monotonic() - began < 10
    os.kill(int(pids.read_text()), 9)
