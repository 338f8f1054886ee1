"""``python clockjump.py OFFSET_FILE ARGUMENTS``: headwater under a wall clock that is off by what the file says.

The file holds seconds, and may change while the daemon runs. The monotonic clock goes on as it is.
"""

from __future__ import annotations

import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import time_machine

from daemon.cli import main

LOOK_SECONDS = 0.05


def follow(path: Path, wall: time_machine.Coordinates, offset: float) -> None:
    sleep = threading.Event()
    while not sleep.wait(LOOK_SECONDS):
        wanted = float(path.read_text() or offset)
        if wanted != offset:
            wall.shift(wanted - offset)
            offset = wanted


def begin(path: Path) -> None:
    offset = float(path.read_text())
    wall = time_machine.travel(datetime.fromtimestamp(time.time(), UTC) + timedelta(seconds=offset), tick=True).start()
    threading.Thread(target=follow, args=(path, wall, offset), daemon=True).start()


if __name__ == "__main__":
    begin(Path(sys.argv.pop(1)))
    main()
