"""What a disk holds after the power fails: only what was synced is sure, of the rest any part may be there.

The writes of one part are recorded by strace and played again up to any instant. A write that was not synced yet is
dropped, kept or kept in part, as a seeded chance says; directory entries are durable as soon as they are made, which
SQLite sees to by syncing the folder.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DATABASE = ("bench.db", "bench.db-wal")  # the -shm is made anew by whoever opens the database first
CALLS = "openat,close,pwrite64,write,fsync,fdatasync,ftruncate,unlink"
SECTOR = 512

_CALL = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Write:
    """Bytes at a place in a file; ``size`` instead of bytes cuts it there."""

    data: bytes
    offset: int
    size: int | None = None

    def into(self, content: bytearray, upto: int | None = None) -> None:
        if self.size is not None:
            content[self.size :] = b"\0" * max(0, self.size - len(content))
            return
        data = self.data[:upto]
        if len(content) < self.offset:
            content.extend(b"\0" * (self.offset - len(content)))
        content[self.offset : self.offset + len(data)] = data


@dataclass
class File:
    """What is sure, and what is on its way."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write] = field(default_factory=list)

    def sync(self) -> None:
        for write in self.pending:
            write.into(self.durable)
        self.pending.clear()

    def after_cut(self, chance: random.Random | None) -> bytes:
        """Its content after the cut; without ``chance`` nothing of what was on its way arrived."""
        content = bytearray(self.durable)
        for write in self.pending if chance else ():
            fate = chance.random()  # type: ignore[union-attr]
            if fate < 0.4:
                write.into(content)
            elif fate < 0.6 and write.size is None:
                write.into(content, SECTOR * chance.randint(0, max(1, len(write.data) // SECTOR)))  # type: ignore[union-attr]
        return bytes(content)


@dataclass
class Disk:
    """The files of a store as a recorded run leaves them, call by call."""

    folder: Path
    files: dict[str, File] = field(default_factory=dict)
    promised: list[str] = field(default_factory=list)
    _open: dict[int, str] = field(default_factory=dict)

    @classmethod
    def before(cls, prepared: Path, folder: Path) -> Disk:
        """As the run found it: ``prepared`` was copied to ``folder``."""
        names = [name for name in DATABASE if (prepared / name).exists()]
        return cls(folder, {name: File(bytearray((prepared / name).read_bytes())) for name in names})

    def play(self, trace: str) -> Iterator[int]:
        """Play a trace; yields the number of the call after each one that changed or promised something."""
        main = None
        for number, line in enumerate(trace.splitlines()):
            call = _CALL.match(line)
            if call is None or int(call["result"]) < 0:
                continue
            main = main or call["pid"]
            if call["pid"] == main and self._take(call["name"], call["arguments"], int(call["result"])):
                yield number

    def rebuild(self, folder: Path, chance: random.Random | None) -> None:
        """Write what is left into ``folder``."""
        for name, file in self.files.items():
            (folder / name).write_bytes(file.after_cut(chance))
        (folder / "ledger").write_text("".join(f"{line}\n" for line in self.promised))

    def _take(self, name: str, arguments: str, result: int) -> bool:
        if name == "openat":
            self._opened(_text(arguments), result, truncated="O_TRUNC" in arguments)
            return False
        if name == "unlink":
            return self.files.pop(self._name(_text(arguments)), None) is not None
        handle = int(arguments.split(",", maxsplit=1)[0])
        path = self._open.get(handle)
        if path is None:
            return False
        if name == "close":
            del self._open[handle]
            return False
        return self._written(path, name, arguments)

    def _opened(self, path: bytes, handle: int, *, truncated: bool) -> None:
        name = self._name(path)
        if name in DATABASE:
            file = self.files.setdefault(name, File())
            if truncated:
                file.pending.append(Write(b"", 0, 0))
        if name in (*DATABASE, "ledger"):
            self._open[handle] = name

    def _name(self, path: bytes) -> str:
        found = Path(path.decode())
        return found.name if found.parent == self.folder else ""

    def _written(self, path: str, name: str, arguments: str) -> bool:
        if path == "ledger":
            self.promised += _text(arguments).decode().split()
            return True
        file = self.files[path]
        if name in ("fsync", "fdatasync"):
            file.sync()
        elif name == "ftruncate":
            file.pending.append(Write(b"", 0, int(arguments.split(",")[1])))
        else:
            file.pending.append(Write(_text(arguments), int(arguments.rsplit(",", 1)[1])))
        return True


def _text(arguments: str) -> bytes:
    found = _TEXT.search(arguments)
    assert found is not None, arguments[:200]
    return bytes.fromhex(found[1].replace("\\x", ""))
