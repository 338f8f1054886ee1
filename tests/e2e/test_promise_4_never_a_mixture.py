"""Readers see one commit or the other, never a mixture."""

from __future__ import annotations

import threading
from collections.abc import Callable

from harness import Daemon

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

FOLDERS = 40
FLIPS = 40


def marked(number: int) -> dict[str | bytes, bytes]:
    """One marker in every folder, all with the same number."""
    return {f"folder-{folder:02}/marker.txt": b"%d\n" % number for folder in range(FOLDERS)}


def test_a_reader_that_pages_during_syncs_sees_one_commit(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    trees: dict[str, set[tuple[str, str]]] = {}

    def flip(number: int) -> tuple[str | None, str]:
        before = repo.head()
        after = repo.commit(marked(number), branch="next", parents=[before or ""])
        trees[after] = {(entry.path.decode(), entry.sha) for entry in repo.ls_tree("next")}
        repo.reset("main", after)  # not before: a sync that is under way may read it at once
        return before, after

    flip(0)
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    ended = threading.Event()
    seen: list[set[tuple[str, str]]] = []
    problems: list[str] = []

    def read() -> None:
        import requests

        with requests.Session() as session:
            session.trust_env = False
            while not ended.is_set():
                rows, cursor, commits = set(), None, set()
                while True:
                    params = {"limit": 7, **({"cursor": cursor} if cursor else {})}
                    answer = session.get(
                        daemon.admin_url + "/api/v1/repositories/octo/data/files", params=params, timeout=10
                    )
                    if answer.status_code != 200:
                        problems.append(answer.text)
                        break
                    commits.add(answer.headers["X-Commit-Sha"])
                    page = answer.json()
                    rows |= {(item["path"], item["sha"]) for item in page["items"]}
                    cursor = page["next_cursor"]
                    if cursor is None:
                        seen.append(rows)
                        break
                if len(commits) != 1 or rows != trees[next(iter(commits))]:
                    problems.append(f"a mixture of {commits}")

    readers = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, FLIPS):
        before, after = flip(number)
        github.push("octo/data", "main", before, after)
    daemon.wait_head(repo.head())
    ended.set()
    for reader in readers:
        reader.join(30)
    assert problems == []
    assert len(seen) > 1
