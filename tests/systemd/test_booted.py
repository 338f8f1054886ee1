"""The unit as systemd runs it, in a Debian that really boots; one file of promises, in any order."""

from __future__ import annotations

import json
import stat
import threading
import time
import uuid
from concurrent.futures import wait
from typing import Any

import pytest
import requests
from conftest import ADMIN, SECRET, TOKEN, Service
from harness import wait_for

from daemon.demo.standin.faults import Hold

pytestmark = [pytest.mark.nspawn, pytest.mark.timeout(600)]

PUSH = {"ref": "refs/heads/main", "repository": {"full_name": "octo/data"}, "commits": []}
PER_SECOND = 200

# Run as an action, so within the sandbox: where can it write, what can it read?
PROBE = """\
import json, os, pathlib
def try_to(what):
    try:
        what()
    except OSError as error:
        return error.strerror
    return "done"
write = {folder: try_to(lambda: pathlib.Path(folder, "probe").write_text("x")) for folder in (
    "/", "/etc", "/etc/headwater", "/opt/headwater", "/usr/lib", "/var/lib", "/var/log", "/run", "/srv", "/root", "/home",
    "/dev", "/proc/sys/kernel", "/var/lib/headwater", "/run/headwater", "/tmp")}
read = {path: try_to(lambda: pathlib.Path(path).read_bytes()) for path in (
    "/etc/credstore/headwater.github_token", "/root/token", "/etc/shadow", "/dev/kmsg")}
print(json.dumps({"write": write, "read": read, "uid": os.getuid(), "secrets": sorted(
    name for name in os.environ if "TOKEN" in name or "SECRET" in name or "CREDENTIALS" in name)}))
"""
PROBED = '[[actions]]\ncommand = ["/usr/bin/python3", "/opt/probe.py"]'

# Hangs the loop, and nothing else, when it is told to.
HANG = "import signal, time\nsignal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))\n"


def test_installing_waits_until_it_is_ready_and_says_what_to_enter_on_github(installed: tuple[Service, str]) -> None:
    _, told = installed
    assert "headwater.service is ready; keeping 1 repository" in told
    for part in ("Payload URL", "/api/v1/webhooks/github", "application/json", "/etc/credstore/headwater."):
        assert part in told
    assert not [secret for secret in (TOKEN, SECRET, ADMIN) if secret in told]


def test_it_is_active_through_both_sockets_and_its_status_says_how_it_goes(service: Service) -> None:
    assert service.facts("ActiveState", "SubState", "Type") == {
        "ActiveState": "active",
        "SubState": "running",
        "Type": "notify",
    }
    assert "MALLOC_ARENA_MAX=2" in service.facts("Environment")["Environment"].split()
    for name in ("webhook", "admin"):
        unit = f"headwater-{name}.socket"
        assert service.machine.shown("ActiveState", unit=unit)["ActiveState"] == "active"
    wait_for(lambda: "1 fresh; queue 0" in service.facts("StatusText")["StatusText"], "the status")
    after = service.push()
    service.wait_head(after)


def test_the_command_line_finds_the_store_and_the_secrets_of_the_service(service: Service) -> None:
    program = "/opt/headwater/bin/headwater"
    rows = json.loads(service.machine.run(program, "status", "--json", check=True).stdout)["branches"]
    assert rows[0]["head_sha"] == service.repo.head()
    secrets = "CREDENTIALS_DIRECTORY=/run/credentials/headwater.service"
    told = service.machine.run("env", secrets, program, "check", "--online", check=True).stdout
    assert "octo/data" in told


def test_a_reload_applies_the_configuration_and_an_invalid_one_is_refused(service: Service) -> None:
    service.github.add("octo/more", service.repo.path)
    service.configure('[[repositories]]\nname = "octo/more"')
    service.systemctl("reload", "headwater.service")
    service.wait_head(service.repo.head(), name="octo/more")
    service.machine.path("/etc/headwater/config.toml").write_text("[webhok]\n")
    service.systemctl("reload", "headwater.service")
    wait_for(lambda: "refused" in service.facts("StatusText")["StatusText"], "the status to say so")
    assert service.facts("ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}


def test_a_loop_that_hangs_is_killed_by_the_watchdog_and_started_again(service: Service) -> None:
    hang = service.machine.path("/opt/hang/sitecustomize.py")
    hang.parent.mkdir(exist_ok=True)
    hang.write_text(HANG)
    service.drop_in("watchdog", "[Service]\nWatchdogSec=6\nRestartSec=1\nEnvironment=PYTHONPATH=/opt/hang\n")
    service.systemctl("restart", "headwater.service")
    before = service.facts("MainPID")["MainPID"]
    fed = set(service.facts("WatchdogTimestampMonotonic").values())
    while len(fed) < 6:  # for longer than the watchdog waits: a daemon that is well is left alone
        fed.update(
            wait_for(lambda: set(service.facts("WatchdogTimestampMonotonic").values()) - fed, "the watchdog to be fed")
        )
    assert service.facts("MainPID", "NRestarts") == {"MainPID": before, "NRestarts": "0"}
    service.machine.run("sh", "-c", f"kill -USR1 {before}", check=True)
    wait_for(lambda: service.facts("NRestarts")["NRestarts"] == "1", "the restart", seconds=60)
    wait_for(lambda: service.facts("ActiveState")["ActiveState"] == "active", "it to be ready again")
    assert service.facts("MainPID")["MainPID"] != before
    after = service.push()
    service.wait_head(after)


def test_term_drains_and_leaves_no_failure_behind(service: Service) -> None:
    hold = Hold()
    service.github.faults.add(r"/git/trees/|/compare/", hold, times=1)
    after = service.push()
    assert hold.reached.wait(30)
    before = len(service.events("daemon.stopping"))
    stopping = threading.Thread(target=service.systemctl, args=("stop", "headwater.service"))
    stopping.start()
    wait_for(lambda: len(service.events("daemon.stopping")) > before, "it to begin")
    hold.release()
    stopping.join(60)
    assert service.facts("Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}
    service.systemctl("start", "headwater.service")
    service.wait_head(after)


def test_an_invalid_configuration_is_not_started_again_and_its_sockets_close(service: Service) -> None:
    service.systemctl("stop", "headwater.service")
    path = service.machine.path("/etc/headwater/config.toml")
    path.write_text("[webhok]\n")
    assert service.systemctl("start", "headwater.service", check=False).returncode != 0
    expected = {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}
    assert service.facts(*expected) == expected
    started = service.facts("ExecMainStartTimestampMonotonic")
    socket = "headwater-webhook.socket"
    wait_for(
        lambda: service.machine.shown("ActiveState", unit=socket)["ActiveState"] == "inactive", "the socket to close"
    )
    with pytest.raises(requests.ConnectionError):
        service.machine.inside(service.send, PUSH, "guid")
    assert service.facts("ExecMainStartTimestampMonotonic") == started
    service.configure()
    service.systemctl("start", "headwater.service")
    assert service.machine.shown("ActiveState", unit=socket)["ActiveState"] == "active"


def test_it_writes_only_where_it_may_and_secrets_are_its_own(service: Service) -> None:
    service.machine.path("/opt/probe.py").write_text(PROBE)
    service.configure(PROBED)
    service.machine.path("/etc/headwater").chmod(0o777)  # so that its mode is not what keeps the service out
    service.systemctl("restart", "headwater.service")
    after = service.push()
    service.wait_head(after)

    def done() -> dict[str, Any] | None:
        rows = service.get("/api/v1/actions").json()["items"]
        return next((row for row in rows if row["commit_sha"] == after and row["output"]), None)

    try:
        output = wait_for(done, "the action")["output"]
    finally:
        service.machine.path("/etc/headwater").chmod(0o755)
    probed = json.loads(output)
    writable = {folder for folder, outcome in probed["write"].items() if outcome == "done"}
    assert writable == {"/var/lib/headwater", "/run/headwater", "/tmp"}
    assert not service.machine.path("/tmp/probe").exists()
    assert "done" not in probed["read"].values()
    assert 61184 <= probed["uid"] <= 65519  # a dynamic user
    assert probed["secrets"] == []


def test_credentials_are_roots_files_and_nobody_elses(service: Service) -> None:
    for name in ("github_token", "github_webhook_secret", "admin_token"):
        path = service.machine.path(f"/etc/credstore/headwater.{name}")
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) == (0o600, 0)
        as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat")
        for inside in (f"/etc/credstore/headwater.{name}", f"/run/credentials/headwater.service/{name}"):
            assert service.machine.run("cat", inside).returncode == 0
            assert service.machine.run(*as_nobody, inside).returncode != 0


def test_restarts_under_load_lose_and_refuse_no_delivery(service: Service) -> None:
    sent: dict[str, Any] = {}
    under_way = []

    def send(guid: str) -> None:
        try:
            answer = service.send(PUSH, guid)
            sent[guid] = (answer.status_code, answer.json()["status"])
        except requests.RequestException as error:
            sent[guid] = str(error)

    def load(stop: threading.Event) -> None:
        begun, number = time.monotonic(), 0
        while not stop.wait(max(0.0, begun + number / PER_SECOND - time.monotonic())):
            under_way.append(service.machine.submit(send, str(uuid.uuid4())))
            number += 1

    stop = threading.Event()
    loading = threading.Thread(target=load, args=(stop,))
    loading.start()
    try:
        for restart in range(2):
            wait_for(lambda: len(sent) > 200 * (restart + 1), "deliveries to be answered")  # noqa: B023
            service.systemctl("restart", "headwater.service")
    finally:
        stop.set()
        loading.join()
    wait(under_way, timeout=120)
    assert len(sent) == len(under_way)
    assert {str(outcome) for outcome in sent.values()} == {"(200, 'accepted')"}
    assert set(sent) <= {item["guid"] for item in service.items("/api/v1/deliveries")}


def test_the_journal_has_fields_priorities_one_time_and_no_secret(service: Service) -> None:
    after = service.push()
    service.wait_head(after)
    ran = wait_for(
        lambda: [one for one in service.events("run.finished") if one["HEADWATER_AFTER"] == after], "the run"
    )
    (entry,) = ran
    assert entry["HEADWATER_BRANCH"] == "octo/data@main"
    assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("6", "headwater")
    assert entry["MESSAGE"].startswith("run.finished branch=octo/data@main")
    assert entry["_TRANSPORT"] == "journal"
    service.machine.path("/etc/headwater/config.toml").write_text(f'[github]\ntokn = "{TOKEN}"\n')
    service.systemctl("reload", "headwater.service")
    assert wait_for(lambda: service.events("config.refused"), "the refusal")[-1]["PRIORITY"] == "3"
    everything = service.machine.run("journalctl", "-o", "export", "--no-pager", check=True).stdout
    assert "run.finished" in everything
    assert not [secret for secret in (TOKEN, SECRET, ADMIN) if secret in everything]


def test_uninstalling_keeps_the_data_and_installing_again_goes_on_with_it(service: Service) -> None:
    program = "/opt/headwater/bin/headwater"
    head = service.repo.head()
    service.machine.run(program, "uninstall-service", check=True)
    assert service.facts("LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}
    assert service.machine.path("/var/lib/private/headwater/headwater.db").exists()
    service.install()
    assert service.head() == head
