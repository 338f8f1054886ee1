"""The first sync of a repository of 7,000 files, its archive already made, as GitHub keeps it.

Against `git clone --depth 1` of the same repository on the same machine, against that and loading the same blobs
into SQLite, and against one request per file where each takes 20 ms (measured on 200 files, scaled to all of them).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from support import ROUNDS, Remote, bench, folder, git, make_repository, middle, report, served, synced, timed

from daemon.demo.standin.gitrepo import GitRepo
from daemon.model import RepositoryRef

FILES = 7_000
LATENCY_SECONDS = 0.02
SINGLE = 200


def first_sync(path: Path, github: Remote, repo: GitRepo) -> tuple[float, int]:
    one = bench(path, github, repo)
    requests: list[int] = []
    seconds = timed(lambda: requests.append(synced(one).requests))
    one.close()
    return seconds, requests[0]


def clone(path: Path, repo: GitRepo) -> float:
    return timed(lambda: git("clone", "--quiet", "--depth=1", f"file://{repo.path}", path))


def load(path: Path, store: Path) -> float:
    """What a script would do: every blob of the clone into a table, committed once and durable."""

    def work() -> None:
        copy = GitRepo(path)
        with sqlite3.connect(store) as database:
            database.execute("PRAGMA journal_mode=wal")
            database.execute("PRAGMA synchronous=full")
            database.execute("CREATE TABLE blob (sha TEXT PRIMARY KEY, path BLOB, content BLOB)")
            entries = copy.ls_tree()
            asked = "".join(f"{entry.sha}\n" for entry in entries).encode()
            packed = copy.git.run("cat-file", "--batch", data=asked)
            at, rows = 0, []
            for entry in entries:
                at = packed.index(b"\n", at) + 1
                rows.append((entry.sha, entry.path, packed[at : at + (entry.size or 0)]))
                at += (entry.size or 0) + 1
            database.executemany("INSERT OR IGNORE INTO blob VALUES (?, ?, ?)", rows)

    return timed(work)


def one_by_one(path: Path, github: Remote, repo: GitRepo) -> float:
    """Seconds for all files, from those for the first of them."""
    one = bench(path, github, repo)
    reference = RepositoryRef("octo", "data")
    entries = repo.ls_tree()[:SINGLE]
    contents = []
    seconds = timed(lambda: contents.extend(one.client.blob(reference, e.sha, max_bytes=10**6) for e in entries))
    one.close()
    return seconds / SINGLE * FILES


def main() -> None:
    with folder() as path:
        repo = make_repository(path / "origin.git", FILES, size=6_000)
        syncs, clones, loads = [], [], []
        with served({"octo/data": repo.path}) as github:
            first_sync(path / "warm", github, repo)  # makes the archive
            for number in range(ROUNDS):
                seconds, requests = first_sync(path / f"store-{number}", github, repo)
                syncs.append(seconds)
                clones.append(clone(path / f"clone-{number}", repo))
                loads.append(clones[-1] + load(path / f"clone-{number}", path / f"load-{number}.db"))
        with served({"octo/data": repo.path}, latency_seconds=LATENCY_SECONDS) as github:
            first_sync(path / "warm-slow", github, repo)
            slow = [first_sync(path / f"slow-{number}", github, repo)[0] for number in range(ROUNDS)]
            single = one_by_one(path / "single", github, repo)
    report(
        "first_sync",
        files=FILES,
        requests=requests,
        seconds=middle(syncs),
        against_clone=round(middle(syncs) / middle(clones), 2),
        against_clone_and_load=round(middle(syncs) / middle(loads), 2),
        times_faster_than_one_by_one=round(single / middle(slow), 1),
    )


if __name__ == "__main__":
    main()
