"""A word that stands in one of 20,000 files: against `git grep` of it at the same commit."""

from __future__ import annotations

import time

from support import ROUNDS, bench, folder, git, make_repository, middle, name_of, report, served, synced, timed

from daemon.store.search import Search

FILES = 20_000
WORD = "needleinthehaystack"


def main() -> None:
    with folder() as path:
        repo = make_repository(path / "origin.git", FILES, size=2_000)
        repo.commit({name_of(FILES // 2): f"a line\nwith the {WORD} in it\n".encode()})
        with served({"octo/data": repo.path}) as github:
            one = bench(path / "store", github, repo)
            synced(one)
            search = Search(one.database)
            started = time.perf_counter()
            search.catch_up()
            indexing = time.perf_counter() - started
            ours, theirs = [], []
            for _ in range(ROUNDS):
                page = []
                ours.append(timed(lambda: page.append(one_page(search))))  # noqa: B023
                assert len(page[0].items) == 1
                theirs.append(timed(lambda: git("grep", "--quiet", "-F", WORD, "main", cwd=repo.path)))
            one.close()
    report(
        "search",
        files=FILES,
        seconds=middle(ours),
        against_git_grep=round(middle(ours) / middle(theirs), 3),
        indexing_seconds=round(indexing, 1),
    )


def one_page(search: Search):
    return search.find(WORD, repository_id=None, prefix=b"", after=None, limit=10)


if __name__ == "__main__":
    main()
