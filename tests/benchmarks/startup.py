"""How long `headwater status` takes, and the daemon until it listens, with a million rows: against a bare interpreter."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

from support import ROUNDS, Daemon, folder, make_repository, middle, report, served, timed

ROWS = 1_000_000

# Where the `postgres` extra is not installed, as a store on SQLite needs it; peewee imports the driver where it is there.
WITHOUT_DRIVER = "import sys; sys.modules['psycopg'] = None; from daemon.cli import main; main()"

_FILL = """
    INSERT INTO entry (branch_id, path, path_text, mode, sha, size, stored, since)
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
    SELECT 1, CAST(printf('more/%04d/%07d', n / 1000, n) AS BLOB), printf('more/%04d/%07d', n / 1000, n),
           '100644', printf('%040x', n), 10, FALSE, 1
    FROM number
"""


def fill(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(_FILL, (ROWS,))
    connection.close()


def status_without_driver(daemon: Daemon) -> None:
    command = [sys.executable, "-c", WITHOUT_DRIVER, *daemon.command("status")[3:]]
    subprocess.run(command, capture_output=True, check=True, env=daemon.environ())


def main() -> None:
    with folder() as path:
        repo = make_repository(path / "origin.git", 10)
        with served({"octo/data": repo.path}) as github:
            daemon = Daemon(path, github.url).start()
            daemon.wait_head(repo.head())
            daemon.stop()
            fill(daemon.database)
            starts, statuses, with_driver, bare = [], [], [], []
            for _ in range(ROUNDS):
                starts.append(timed(daemon.start))
                daemon.cli("status")  # the daemon has things to do right after its start
                statuses.append(timed(lambda: status_without_driver(daemon)))
                with_driver.append(timed(lambda: daemon.cli("status").check_returncode()))
                daemon.stop()
                bare.append(timed(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True)))
    report(
        "startup",
        rows=ROWS,
        status_seconds=middle(statuses),
        status_with_postgres_extra_seconds=middle(with_driver),
        status_against_bare_python=round(middle(statuses) / middle(bare), 1),
        listening_seconds=middle(starts),
        listening_against_bare_python=round(middle(starts) / middle(bare), 1),
    )


if __name__ == "__main__":
    main()
