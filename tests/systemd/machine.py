"""A whole Debian with systemd as its first process, in a container of systemd-nspawn and a network of its own.

It never touches the machine that it runs on: the tree is built by debootstrap in a folder of the test's.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from harness import wait_for

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
PYTHON = "3.11"  # what that suite has
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv"
TOOLS = ("systemd-nspawn", "debootstrap", "nsenter")
CLONE_NEWNET = 0x40000000
CONTROL_GROUPS = [Path(f"/sys/fs/cgroup/unified/{name}") for name in ("payload", "supervisor")]
T = TypeVar("T")


def build(tree: Path, wheels: Path) -> None:
    """Make the tree, or take the one that an earlier run left, with headwater in an environment of its own."""
    _call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels), seconds=120)
    (wheel,) = wheels.glob("headwater-*.whl")
    if not (tree / "opt/headwater").exists():
        _call("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(tree), seconds=900)
        pip = [sys.executable, "-m", "pip", "download", "-q", "-d", str(wheels), "-c", str(ROOT / "requirements.lock")]
        _call(*pip, "--only-binary=:all:", "--python-version", PYTHON, str(wheel), seconds=600)
    shutil.copytree(wheels, tree / "root/wheels", dirs_exist_ok=True)
    pip_inside = "/opt/headwater/bin/pip install -q --no-index --find-links /root/wheels"
    install = f"python3 -m venv /opt/headwater && {pip_inside} headwater && {pip_inside} --force-reinstall --no-deps headwater"
    nspawn = ["systemd-nspawn", "-q", "-D", str(tree), "--register=no", "--keep-unit", "--private-network", "--pipe"]
    _call(*nspawn, "/bin/sh", "-c", install, seconds=600)
    for left in (
        "var/lib/private/headwater",
        "etc/headwater",
        "etc/credstore",
        "etc/systemd/system/headwater.service.d",
    ):
        shutil.rmtree(tree / left, ignore_errors=True)
    for unit in (tree / "etc/systemd/system").rglob("headwater*"):
        unit.unlink()


def _call(*command: str, seconds: float) -> None:
    ended = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert ended.returncode == 0, f"{command[0]}: {ended.stdout[-3000:]}"


class Machine:
    """The booted container; commands run in it, and functions of the test in its network."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._threads = ThreadPoolExecutor(64, initializer=self._enter_network)

    def boot(self) -> None:
        command = ["systemd-nspawn", "-q", "-D", str(self.tree), "-b", "--register=no", "--keep-unit"]
        self._nspawn = subprocess.Popen(
            [*command, "--private-network", "--console=pipe"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._leader = wait_for(self._find_leader, "the container's first process")
        wait_for(
            lambda: self.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"), "the boot"
        )

    def _find_leader(self) -> int:
        """The process that is the first one of a pid namespace below nspawn's."""
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, "systemd-nspawn ended"
        waiting = [self._nspawn.pid]
        while waiting:
            pid = waiting.pop()
            status = _read(Path(f"/proc/{pid}/status"))
            names = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
            if names[1:] == ["1"] and "systemd" in _read(Path(f"/proc/{pid}/cmdline")):
                return pid
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                waiting += [int(child) for child in _read(task).split()]
        return 0

    def end(self) -> None:
        """End the container with all that runs in it."""
        if self._nspawn is None:
            return
        self._threads.shutdown()
        self._nspawn.terminate()  # an orderly power-off, after which nspawn cleans up
        try:
            self._nspawn.wait(60)
        except subprocess.TimeoutExpired:
            if self._leader:
                os.kill(self._leader, signal.SIGKILL)  # the first process: the kernel takes the others with it
            self._nspawn.kill()
            self._nspawn.wait(60)
        _remove_control_groups()

    def run(self, *command: str, seconds: float = 60, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root."""
        ended = subprocess.run(
            ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "--", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            timeout=seconds,
            check=False,
        )
        assert ended.returncode == 0 or not check, f"{command}: {ended.stdout}{ended.stderr}"
        return ended

    def inside(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of the test on a thread whose sockets are those of the container."""
        return self._threads.submit(function, *arguments).result(120)

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """The same without waiting for it."""
        return self._threads.submit(function, *arguments)

    def _enter_network(self) -> None:
        with Path(f"/proc/{self._leader}/ns/net").open("rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def path(self, inside: str) -> Path:
        """Where the test finds a file of the container; not through links with absolute targets."""
        return self.tree / inside.lstrip("/")

    def shown(self, *properties: str, unit: str = "headwater.service") -> dict[str, str]:
        """What `systemctl show` says of a unit."""
        told = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties), check=True).stdout
        return dict(line.split("=", 1) for line in told.splitlines())


def _remove_control_groups() -> None:
    """What nspawn leaves of the container's: the next one would take it for its own. Only empty ones can be removed."""
    for root in CONTROL_GROUPS:
        for folder in sorted(root.glob("**/"), key=lambda path: len(path.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
