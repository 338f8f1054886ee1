"""Git as a process that sees one repository and nothing of the machine around it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 64 * 1024


class GitFailed(RuntimeError):
    """A git command ended with an error; the message is the command and what git said."""


@dataclass(frozen=True, slots=True)
class GitObject:
    """One object as ``cat-file --batch`` gives it."""

    sha: str
    type: str  # commit, tree, blob, tag
    content: bytes


def environment() -> dict[str, str]:
    """The whole environment git gets: no configuration, attributes, hooks or network of this machine."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C",
        "TZ": "UTC",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        # A partial clone would fetch what it lacks in the middle of a read.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        # GitHub does not follow refs/replace.
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_DEFAULT_REF_FORMAT": "files",
        "GIT_DEFAULT_HASH": "sha1",
    }


@dataclass(frozen=True, slots=True)
class Git:
    """Runs git on one git directory (not the work tree around it)."""

    directory: Path

    def run(self, *arguments: str | bytes | Path, data: bytes | None = None) -> bytes:
        """Standard output of one command; raises GitFailed when it exits with anything but 0."""
        done = subprocess.run(
            self.command(*arguments),
            input=data if data is not None else b"",
            capture_output=True,
            env=environment(),
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise GitFailed(f"git {os.fsdecode(arguments[0])} in {self.directory} exited {done.returncode}: {said}")
        return done.stdout

    def attempt(self, *arguments: str | bytes | Path) -> bytes | None:
        """Like run, None when git says no: for questions such as "is there a common ancestor"."""
        try:
            return self.run(*arguments)
        except GitFailed:
            return None

    def stream(self, *arguments: str) -> Iterator[bytes]:
        """Standard output in chunks as it comes; the process is ended when the reader stops."""
        process = subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            bufsize=0,
        )
        try:
            assert process.stdout is not None
            while chunk := process.stdout.read(CHUNK_BYTES):
                yield chunk
        finally:
            process.kill()
            process.communicate()
        if process.returncode not in {0, -9}:
            raise GitFailed(f"git {arguments[0]} in {self.directory} exited {process.returncode}")

    def command(self, *arguments: str | bytes | Path) -> list[str | bytes | Path]:
        # --git-dir instead of discovery: no search upwards, and no refusal of a repository of another user.
        quiet = ("-c", "core.hooksPath=" + os.devnull, "-c", "gc.auto=0", "-c", "core.fsync=none")
        return ["git", "--git-dir", self.directory, *quiet, *arguments]


class ObjectReader:
    """One ``git cat-file --batch`` kept running: objects by id without a process for each."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, sha: str) -> GitObject | None:
        """The object with this id (40 hex digits), None when there is none."""
        with self._lock:
            try:
                return self._ask(sha)
            except (OSError, ValueError):
                # The process died, say because the repository was replaced under it: a new one sees the new files.
                self._end()
                return self._ask(sha)

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ask(self, sha: str) -> GitObject | None:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(sha.encode() + b"\n")
        process.stdin.flush()
        head = process.stdout.readline().split()
        if head[-1:] == [b"missing"]:
            return None
        found, kind, size = head
        content = process.stdout.read(int(size) + 1)
        if len(content) != int(size) + 1:
            raise ValueError("cut")
        return GitObject(found.decode(), kind.decode(), content[:-1])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._git.command("cat-file", "--batch"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
