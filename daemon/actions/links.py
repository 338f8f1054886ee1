"""Where a symlink of a snapshot leads. Pure: the links are the snapshot's own, nothing of the disk is asked."""

from __future__ import annotations

from collections.abc import Mapping

MOST_HOPS = 40  # as Linux follows at most, see path_resolution(7)
LONGEST_TARGET = 4095  # PATH_MAX without its NUL
_UP = b".."
_ROOT = b"/"


def leads_outside(path: bytes, links: Mapping[bytes, bytes]) -> bool:
    """Whether following the link at ``path`` could leave the folder, on the way or in the end.

    ``links`` are all symlinks of the snapshot with their targets: `..` behind another link means that one's parent.
    More hops than the kernel follows lead nowhere.
    """
    at = path.split(b"/")[:-1]
    parts = _steps(links[path])
    hops = 0
    while parts and hops <= MOST_HOPS:
        part = parts.pop()
        if part == _ROOT or (part == _UP and not at):
            return True
        if part == _UP:
            at.pop()
            continue
        at.append(part)
        if (inner := links.get(b"/".join(at))) is not None:
            hops += 1
            at.pop()
            parts += _steps(inner)
    return False


def _steps(target: bytes) -> list[bytes]:
    """The components of a target, the first one last; an absolute one leaves at once."""
    if target.startswith(b"/"):
        return [_ROOT]
    return [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
