"""The stand-in suite, run inside the unit: what every test starts as a daemon is as confined as the service is."""

from __future__ import annotations

import re

import pytest
from machine import ROOT, Machine

pytestmark = pytest.mark.nspawn

UNIT = "suite.service"
# These ask other programs, which the container does not have: nginx and Caddy, promtool, PgBouncer.
ASKS_ANOTHER = re.compile(r"\bshutil\.which\(|\bbouncer\b")
LEFT_OUT = [
    path.name for path in sorted((ROOT / "tests/e2e").glob("test_*.py")) if ASKS_ANOTHER.search(path.read_text())
]
# The unit's own text is used, and what a suite cannot have as a service has is changed by this, and by nothing else.
DROP_IN = """\
[Service]
# It is no daemon of systemd's: it ends, and nobody feeds the watchdog or starts it again.
Type=oneshot
WatchdogSec=0
Restart=no
TimeoutStartSec=infinity
ExecReload=
ExecStopPost=
ExecStart=
ExecStartPre=/bin/grep -E "^(CapBnd|NoNewPrivs|Seccomp):" /proc/self/status
ExecStart=/opt/suite/bin/python -m pytest -p no:cacheprovider --basetemp=/var/lib/suite/t -n 2 {arguments}
WorkingDirectory=/opt/source
StandardOutput=append:/var/log/suite.log
StandardError=inherit
# Nothing is skipped for want of a program; hypothesis writes where it may.
Environment=CI=true HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis
# The service's secrets and folders stay the service's.
LoadCredential=
StateDirectory=
StateDirectory=suite
RuntimeDirectory=
RuntimeDirectory=suite
# For one daemon; the suite runs several at a time, and itself.
MemoryMax=8G
TasksMax=8192
"""


# What CI has the time for, of the whole: deliveries, order, secrets and actions.
PART = (
    "tests/e2e/test_promise_1_accepted_is_synced.py::test_a_delivery_accepted_just_before_a_kill_is_synced_after_the_restart",
    "tests/e2e/test_promise_6_never_back.py",
    "tests/e2e/test_promise_7_secrets_stay_secret.py",
    "tests/e2e/test_actions.py",
)
# Of the process itself, and first of what it writes: all capabilities gone, no way back to them, a filter of calls.
CONFINED = "CapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"


def summary_of(machine: Machine, *arguments: str, seconds: float) -> str:
    """Run pytest in the unit; the last line of what it says."""
    ignored = [f"--ignore=tests/e2e/{name}" for name in LEFT_OUT]
    folder = machine.path("/etc/systemd/system")
    (folder / UNIT).write_text((ROOT / "systemd/headwater.service").read_text())
    (folder / f"{UNIT}.d").mkdir(exist_ok=True)
    (folder / f"{UNIT}.d/suite.conf").write_text(DROP_IN.format(arguments=" ".join([*ignored, *arguments])))
    log = machine.path("/var/log/suite.log")
    log.unlink(missing_ok=True)
    machine.run("systemctl", "daemon-reload", check=True)
    try:
        ended = machine.run("systemctl", "start", UNIT, seconds=seconds)
    finally:
        machine.run("systemctl", "kill", "--signal=KILL", UNIT)
        told = log.read_text() if log.exists() else ""
    assert told.startswith(CONFINED), told[:1000] + ended.stderr
    assert ended.returncode == 0, told[-20_000:] + ended.stderr
    return told.splitlines()[-1]


def passed(summary: str) -> int:
    """How many tests have passed, where nothing else became of any."""
    found = re.search(r"(\d+) passed(?:, \d+ deselected)? in ", summary)
    assert found, summary
    return int(found[1])


@pytest.mark.timeout(300)
def test_a_part_of_the_stand_in_suite_passes_in_the_unit(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    summary = summary_of(machine, *PART, seconds=240)
    with capsys.disabled():
        print(f"\na part of the stand-in suite, in the unit: {summary}")  # noqa: T201
    assert passed(summary) >= 14


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_whole_stand_in_suite_passes_in_the_unit(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    summary = summary_of(machine, "tests/e2e", seconds=3500)
    with capsys.disabled():
        print(f"\nthe stand-in suite, in the unit: {summary}")  # noqa: T201
    assert passed(summary) >= 240
