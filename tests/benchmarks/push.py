"""A one-file push to a repository of 100,000 files: against the same to one of 1,000 files, and against `git fetch`."""

from __future__ import annotations

from pathlib import Path

from support import ROUNDS, bench, folder, git, make_repository, middle, name_of, report, served, synced, timed

LARGE, SMALL = 100_000, 1_000


def measure(path: Path, files: int) -> tuple[list[float], list[float], set[int]]:
    """Seconds of each sync, of each `git fetch`, and the requests that a sync took."""
    path.mkdir()
    repo = make_repository(path / "origin.git", files, size=500)
    clone = path / "clone.git"
    git("clone", "--quiet", "--bare", "--depth=1", f"file://{repo.path}", clone)
    syncs, fetches, requests = [], [], set()
    with served({"octo/data": repo.path}) as github:
        one = bench(path / "store", github, repo)
        synced(one)
        for number in range(ROUNDS + 1):
            repo.commit({name_of(number * 7): b"changed %d\n" % number})
            syncs.append(timed(lambda: requests.add(synced(one).requests)))
            fetches.append(timed(lambda: git("fetch", "--quiet", "--depth=1", "origin", "main", cwd=clone)))
        one.close()
    return syncs[1:], fetches[1:], requests  # the first push warms what a daemon has warm


def main() -> None:
    with folder() as path:
        large, fetches, requests = measure(path / "large", LARGE)
        small, _, _ = measure(path / "small", SMALL)
    report(
        "push",
        files=LARGE,
        requests=max(requests),
        seconds=middle(large),
        against_1000_files=round(middle(large) / middle(small), 2),
        against_git_fetch=round(middle(large) / middle(fetches), 2),
    )


if __name__ == "__main__":
    main()
