"""The container, booted once for all tests, and headwater as a service in it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from harness import Daemon, wait_for
from machine import TOOLS, Machine, build

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

TOKEN = "ghp_PlantedTokenPlantedTokenPlantedToke"
SECRET = "a planted secret of the webhook"
ADMIN = "a-planted-admin-token"
CONFIG = """\
[github]
api_url = "{url}"
timeout = "10s"
[polling]
interval = "1h"
reconcile_interval = "1h"
[storage]
url = "sqlite:////var/lib/headwater/headwater.db"
[server]
shutdown_timeout = "10s"
[log]
level = "debug"
{extra}
[[repositories]]
name = "octo/data"
"""


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    assert not missing, f"{', '.join(missing)}: apt-get install systemd-container debootstrap"
    assert os.geteuid() == 0, "only root can boot a container"
    folder = tmp_path_factory.mktemp("machine")
    tree = Path(os.environ.get("NSPAWN_TREE", folder / "tree"))  # one that is named is kept for the next time
    build(tree, folder / "wheels")
    machine = Machine(tree)
    try:
        machine.boot()
        yield machine
    finally:
        machine.end()
        shutil.rmtree(folder, ignore_errors=True)


class Service(Daemon):
    """headwater as `install-service` set it up in the container, with a stand-in of GitHub beside it."""

    def __init__(self, machine: Machine, github: StandIn, repo: GitRepo) -> None:
        self.machine, self.github, self.repo = machine, github, repo
        self.secret = SECRET
        self.webhook_url = "http://127.0.0.1:8787/api/v1/webhooks/github"
        self.admin_url = "http://127.0.0.1:8788"

    def configure(self, extra: str = "") -> None:
        path = self.machine.path("/etc/headwater/config.toml")
        path.parent.mkdir(exist_ok=True, mode=0o755)
        path.write_text(CONFIG.format(url=self.github.url, extra=extra))

    def install(self) -> str:
        """Run the real command inside; what it says."""
        for name, value in (("token", TOKEN), ("secret", SECRET), ("admin", ADMIN)):
            path = self.machine.path(f"/root/{name}")
            path.touch(0o600)
            path.write_text(value + "\n")
        files = ("--github-token-file", "/root/token", "--webhook-secret-file", "/root/secret")
        command = ("/opt/headwater/bin/headwater", "install-service", *files, "--admin-token-file", "/root/admin")
        return self.machine.run(*command, check=True, seconds=120).stdout

    def systemctl(self, *arguments: str, check: bool = True) -> Any:
        return self.machine.run("systemctl", *arguments, seconds=120, check=check)

    def drop_in(self, name: str, text: str) -> None:
        path = self.machine.path(f"/etc/systemd/system/headwater.service.d/{name}.conf")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.systemctl("daemon-reload")

    def begin_anew(self) -> None:
        """Whatever a test did to it: as installed, running, with its own settings."""
        shutil.rmtree(self.machine.path("/etc/systemd/system/headwater.service.d"), ignore_errors=True)
        self.configure()
        self.github.faults.clear()
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed", "headwater.service", check=False)
        began = datetime.now(UTC)
        self.systemctl("restart", "headwater.service")
        # What is stored is the head already; the look that comes with a start must not find what the test commits.
        wait_for(lambda: self._looked_at() > began, "the look after the start")
        self.wait_head(self.repo.head())

    def _looked_at(self) -> datetime:
        return datetime.fromisoformat(self.repository()["polled_at"] or "1970-01-01T00:00:00Z")

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self._ask("GET", self.admin_url + path, headers={"Authorization": f"Bearer {ADMIN}"}, **kwargs)

    def push(self) -> str:
        """Commit, and announce it; the commit."""
        after = self.repo.commit({"pushed.txt": uuid.uuid4().bytes})
        payload = {"ref": "refs/heads/main", "after": after, "repository": {"full_name": "octo/data"}, "commits": []}
        assert self.machine.inside(self.send, payload, str(uuid.uuid4())).json()["status"] == "accepted"
        return after

    def send(self, payload: Any, guid: str) -> requests.Response:
        """For threads that are inside already; each delivery on a connection of its own, as GitHub makes them."""
        sender = copy.copy(self)
        with requests.Session() as sender.session:
            sender.session.trust_env = False
            return sender.deliver(payload, guid=guid, Connection="close")

    def _ask(self, method: str, url: str, **kwargs: Any) -> requests.Response:
        def ask() -> requests.Response:
            with requests.Session() as session:
                session.trust_env = False
                return session.request(method, url, timeout=20, **kwargs)

        return self.machine.inside(ask)

    def facts(self, *names: str) -> dict[str, str]:
        return self.machine.shown(*names)

    def journal(self, *arguments: str) -> list[dict[str, Any]]:
        """The journal's entries of the unit, oldest first."""
        command = ("journalctl", "-u", "headwater.service", "-o", "json", "--all", "--no-pager", *arguments)
        return [json.loads(line) for line in self.machine.run(*command, check=True).stdout.splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return self.journal(f"HEADWATER_EVENT={name}")


@pytest.fixture(scope="session")
def installed(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """The service and what its installation said."""
    github = StandIn(token=TOKEN)
    repo = GitRepo.init(tmp_path_factory.mktemp("repo") / "octo-data.git")
    repo.commit({"README.md": b"# Data\n", "docs/index.md": b"welcome\n"}, "Begin")
    machine.inside(github.start)
    github.add("octo/data", repo.path)
    service = Service(machine, github, repo)
    service.configure()
    told = service.install()
    yield service, told
    github.stop()


@pytest.fixture
def service(installed: tuple[Service, str]) -> Service:
    installed[0].begin_anew()
    return installed[0]
