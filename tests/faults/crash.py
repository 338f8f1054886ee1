"""Kills a process at its N-th system call of a kind, or lets that call fail: `strace -e inject=CALL:…:when=N`.

The calls of one part are counted first, in a run that nothing happens to; then every number is a point of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import scenario

CALLS = (
    *("pwrite64", "write", "fdatasync", "fsync", "ftruncate", "unlink", "unlinkat", "rename", "openat", "close"),
    *("sendto", "recvfrom", "connect", "mkdir", "symlink", "link"),
)
SECONDS = 60
_LINE = re.compile(r"(?P<pid>\d+) +(?P<call>\w+)\(")


@dataclass(frozen=True)
class Point:
    """The N-th ``call`` of a part after its begin; ``when`` counts from the start of the process."""

    part: str
    call: str
    number: int
    when: int

    def __str__(self) -> str:
        return f"{self.part}/{self.call}/{self.number}"


@dataclass(frozen=True)
class Bench:
    """Where a part is run: a prepared folder that every run gets a copy of, and the stand-in's address."""

    prepared: Path
    api_url: str

    def fresh(self, name: str) -> Path:
        folder = self.prepared.parent / f"run-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.prepared, folder, symlinks=True)
        return folder


def points(bench: Bench, part: str, *, broken: str | None = None, calls: tuple[str, ...] = CALLS) -> list[Point]:
    """Every point of a part, in the order of the calls' names; the part must end by itself."""
    folder = bench.fresh(f"{part}-count")
    trace = folder / "trace"
    options = ["-o", str(trace), "-e", f"trace=access,faccessat,faccessat2,{','.join(calls)}"]
    ended = _run(bench, part, folder, options, broken=broken)
    assert ended.returncode == 0, ended.stderr.decode()
    made = list(_calls(trace.read_text(errors="replace")))
    begin = made.index(scenario.MARKER)
    before, after = Counter(made[:begin]), Counter(made[begin + 1 :])
    return [Point(part, call, n, before[call] + n) for call in calls for n in range(1, after[call] + 1)]


def _calls(trace: str) -> Iterator[str]:
    """The calls of the main thread, its marker by name: numbers are counted a thread each."""
    main = None
    for line in trace.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        main = main or found["pid"]
        if found["pid"] == main:
            yield scenario.MARKER if scenario.MARKER in line else found["call"]


def kill(bench: Bench, point: Point, *, broken: str | None = None) -> Path | None:
    """Run the part and kill it there; what it left. None when it ended by itself before."""
    folder = bench.fresh(f"{point.part}-{point.call}-{point.number}")
    inject = ["-o", os.devnull, "-e", f"trace={point.call}"]
    inject += ["-e", f"inject={point.call}:signal=SIGKILL:when={point.when}"]
    ended = _run(bench, point.part, folder, inject, broken=broken)
    if ended.returncode == 0:
        return None
    killed = ended.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert killed, f"{point}: {ended.returncode} {ended.stderr.decode()[-2000:]}"
    return folder


def fail(bench: Bench, point: Point, error: str, *, forever: bool, broken: str | None = None) -> Path:
    """Run the part to its end while that call, and with ``forever`` every later one, fails; what it left."""
    folder = bench.fresh(f"{point.part}-{point.call}-{point.number}-{error}-{forever}")
    when = f"{point.when}+" if forever else str(point.when)
    inject = ["-o", os.devnull, "-e", f"trace={point.call}", "-e", f"inject={point.call}:error={error}:when={when}"]
    ended = _run(bench, point.part, folder, inject, broken=broken)
    assert ended.returncode == 0, f"{point} {error}: {ended.returncode} {ended.stderr.decode()[-2000:]}"
    return folder


def record(bench: Bench, part: str, calls: str, *, broken: str | None = None) -> tuple[Path, str]:
    """Run the part to its end; its folder, and every such call with all of its bytes in hexadecimal."""
    folder = bench.fresh(f"{part}-record")
    trace = folder / "trace"
    ended = _run(
        bench, part, folder, ["-xx", "-s", "10000000", "-o", str(trace), "-e", f"trace={calls}"], broken=broken
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return folder, trace.read_text()


def _run(
    bench: Bench, part: str, folder: Path, options: list[str], *, broken: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    program = [sys.executable, "-X", "utf8", scenario.__file__, part, str(folder), bench.api_url]
    program += ["--broken", broken] if broken else []
    environ = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "HOME": str(folder)}
    command = ["strace", "-f", "-qq", *options, *program]
    return subprocess.run(command, env=environ, capture_output=True, timeout=SECONDS, check=False)
