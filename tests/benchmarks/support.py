"""What the benchmarks share: repositories, a stand-in of GitHub in a process of its own, medians, one line of JSON.

Each program compares headwater with what a user would take instead, in one run on one machine: its ratios can be
compared with those of another machine, its seconds cannot.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import engines  # noqa: E402
from bench import Bench, Rule  # noqa: E402
from harness import SECRET, TOKEN, Daemon  # noqa: E402

from daemon import logs  # noqa: E402
from daemon.demo.standin import Delay, StandIn  # noqa: E402
from daemon.demo.standin.answers import Answer  # noqa: E402
from daemon.demo.standin.faults import Exchange  # noqa: E402
from daemon.demo.standin.gitprocess import environment  # noqa: E402
from daemon.demo.standin.gitrepo import GitRepo  # noqa: E402
from daemon.model import Outcome, RunResult  # noqa: E402

__all__ = ["SECRET", "TOKEN", "Bench", "Daemon", "Rule", "engines"]  # of the tests, which only this module finds

ROUNDS = int(os.environ.get("ROUNDS", "5"))
WORDS = b"the quick brown fox jumps over a lazy dog while seven wizards quietly judge my boxes of liquor jugs ".split()


@dataclass(frozen=True)
class Remote:
    """A stand-in in another process, as `Bench` needs it."""

    url: str


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards; ``TMPDIR`` says where."""
    with tempfile.TemporaryDirectory(prefix="headwater-benchmark-") as path:
        yield Path(path)


@contextmanager
def served(repositories: Mapping[str, Path], *, latency_seconds: float = 0.0, cached: bool = True) -> Iterator[Remote]:
    """Serve git repositories as GitHub does; ``cached``: each archive is made once and then kept in memory."""
    names = [f"{name}={path}" for name, path in repositories.items()]
    command = [sys.executable, __file__, "serve", str(latency_seconds), str(int(cached)), *names]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Remote(process.stdout.readline().strip())
        process.communicate()  # the end of its standard input is the end of it


class Cached:
    """Archives are made once, as GitHub keeps them."""

    def __init__(self) -> None:
        self._made: dict[str, Answer] = {}

    def apply(self, exchange: Exchange) -> Answer:
        path = exchange.request.path
        if path not in self._made:
            answer = exchange.genuine()
            self._made[path] = replace(answer, body=b"".join(answer.body))
        return self._made[path]


def serve(latency_seconds: float, names: list[str], *, cached: bool) -> None:
    """The other side of ``served``."""
    with StandIn(token=TOKEN) as github:
        if cached:
            github.faults.add("/codeload/", Cached())
        if latency_seconds:
            github.faults.add("", Delay(latency_seconds))
        for name, _, path in (one.partition("=") for one in names):
            github.add(name, Path(path))
        print(github.url, flush=True)
        sys.stdin.read()


def make_repository(path: Path, files: int, *, size: int = 2000, fan: int = 100) -> GitRepo:
    """A repository of text files of about ``size`` bytes, ``fan`` to a folder, no two alike."""
    repo = GitRepo.init(path)
    repo.commit({name_of(number, fan): text(number, size) for number in range(files)}, "Begin")
    repo.git.run("repack", "-adq")
    return repo


def name_of(number: int, fan: int = 100) -> str:
    return f"part{number // (fan * fan):03}/group{number // fan:04}/file{number:06}.txt"


def text(number: int, size: int) -> bytes:
    """Lines of words, compressible as text is."""
    state, lines = number * 2654435761 + 1, [b"file %d" % number]
    length = 0
    while length < size:
        words = []
        for _ in range(10):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            words.append(WORDS[(state >> 33) % len(WORDS)])
        lines.append(b" ".join(words))
        length += len(lines[-1]) + 1
    return b"\n".join(lines) + b"\n"


def bench(path: Path, github: Remote, repo: GitRepo) -> Bench:
    """Store, client and routine of a daemon, without its threads."""
    path.mkdir()
    quiet()
    return Bench(path, github, repo, timeout_seconds=60.0)  # type: ignore[arg-type]


def quiet() -> None:
    """Standard output is for the result."""
    logs.configure("warning", "console", secrets=tuple, stream=sys.stderr)


def synced(one: Bench) -> RunResult:
    """Sync, and insist that it brought something."""
    result = one.sync()
    assert result.outcome is Outcome.UPDATED, result.error
    return result


def timed(work: Callable[[], Any]) -> float:
    """Seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def git(*arguments: str | Path, cwd: Path | None = None) -> None:
    """Run git without any configuration of this machine."""
    loose = environment() | {"GIT_ALLOW_PROTOCOL": "file:http"}
    subprocess.run(["git", *arguments], cwd=cwd, env=loose, check=True, capture_output=True)


def middle(rounds: list[float]) -> float:
    return round(median(rounds), 4)


def report(name: str, **facts: Any) -> None:
    """The one line that a benchmark prints."""
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 1)}
    print(json.dumps({"benchmark": name, "rounds": ROUNDS, **facts, "machine": machine}), flush=True)


if __name__ == "__main__" and sys.argv[1:2] == ["serve"]:
    serve(float(sys.argv[2]), sys.argv[4:], cached=sys.argv[3] == "1")
