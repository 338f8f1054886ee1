"""A secret of the configuration: given as text, or kept in a file that is read again at every use."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_BYTES = 64 * 1024
REMEMBERED = 8


@dataclass(slots=True)
class Secret:
    """``inline`` values, or the one in ``file``. Nothing of it is ever shown by ``repr``.

    A file that has become empty, unreadable or nonsense while running (half of a rotation) does not unset the
    secret: the last good value stays, because a webhook secret that vanished would let everybody in.
    """

    inline: tuple[str, ...] = field(default=(), repr=False)
    file: Path | None = None
    is_token: bool = False
    _read: tuple[str, ...] = field(default=(), repr=False, compare=False)  # newest first

    @classmethod
    def from_text(cls, texts: list[str], *, is_token: bool) -> Secret:
        """Raises ValueError; empty texts count as none."""
        return cls(inline=tuple(checked(text, is_token=is_token) for text in texts if text.strip()))

    @classmethod
    def from_file(cls, path: Path, *, is_token: bool) -> Secret:
        """Raises ValueError, saying what to do, when there is no such file or it holds no secret."""
        secret = cls(file=path, is_token=is_token)
        try:
            secret._remember(_read(path, is_token=is_token))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ValueError(f"cannot read {path}: {reason}; create it, readable for this process only") from error
        return secret

    def values(self) -> tuple[str, ...]:
        """The secrets in force; empty when none is set."""
        if self.file is None:
            return self.inline
        try:
            if stat.S_ISREG(self.file.stat().st_mode):  # a pipe gives its content once
                self._remember(_read(self.file, is_token=self.is_token))
        except (OSError, ValueError):
            pass
        return self._read[:1]

    def first(self) -> str | None:
        return next(iter(self.values()), None)

    def seen(self) -> tuple[str, ...]:
        """Every value there was, the replaced ones too: what must not be shown. Reads nothing."""
        return self.inline + self._read

    def _remember(self, text: str) -> None:
        if text:
            self._read = (text, *(old for old in self._read if old != text))[:REMEMBERED]


def checked(text: str, *, is_token: bool) -> str:
    """``text``, unless no secret can look like that. The message of the ValueError does not show it."""
    if any(ord(one) < 0x20 or 0x7F <= ord(one) < 0xA0 or 0xD800 <= ord(one) < 0xE000 for one in text):  # noqa: PLR2004
        raise ValueError("the secret has a line break or another control character inside; correct it")
    if is_token and not all(0x20 < ord(one) < 0x7F for one in text.strip()):  # noqa: PLR2004 - goes into a header
        raise ValueError("the token has a space or a character beyond ASCII inside; correct it")
    return text.strip() if is_token else text


def _read(path: Path, *, is_token: bool) -> str:
    with path.open("rb") as file:
        raw = file.read(LONGEST_BYTES + 1)
    if len(raw) > LONGEST_BYTES:
        raise ValueError(f"{path} is larger than any secret; is it the right file?")
    try:
        text = raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text; is it the right file?") from error
    return checked(text, is_token=is_token) if text.strip() else ""


def readable_by_others(path: Path) -> bool:
    """Whether every user of this machine may read the file."""
    try:
        return os.name == "posix" and bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
