"""A one-file change of a published folder of 5,000 files: against `git checkout` of it in a worktree, and of a new one.

A worktree that is checked out in place shows its readers a mixture meanwhile; a new one each time does not.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from support import ROUNDS, bench, folder, git, make_repository, middle, name_of, report, served, synced, timed

from daemon.actions.publish import Folder

FILES = 5_000


def main() -> None:
    with folder() as path:
        repo = make_repository(path / "origin.git", FILES, size=4_000)
        site = Folder(path / "site", grace_seconds=0)
        place = path / "worktree"
        git("worktree", "add", "--quiet", "--detach", place, "main", cwd=repo.path)
        now = datetime.now(UTC)
        ours, in_place, anew = [], [], []
        with served({"octo/data": repo.path}) as github:
            one = bench(path / "store", github, repo)
            for number in range(ROUNDS + 1):
                synced(one)
                head, entries = repo.head() or "", one.snapshots.entries(one.facts().id)
                now += timedelta(seconds=10)
                ours.append(timed(lambda: site.publish(head, entries, one.snapshots.blob, now=now)))  # noqa: B023
                in_place.append(timed(lambda: git("checkout", "--quiet", "--detach", "main", cwd=place)))
                new = path / f"new-{number}"
                anew.append(timed(lambda: git("worktree", "add", "--quiet", "--detach", new, "main", cwd=repo.path)))  # noqa: B023
                repo.commit({name_of(number * 7): b"changed %d\n" % number})
            one.close()
    report(
        "publish",
        files=FILES,
        seconds=middle(ours[1:]),
        against_checkout_in_place=round(middle(ours[1:]) / middle(in_place[1:]), 2),
        against_new_worktree=round(middle(ours[1:]) / middle(anew[1:]), 2),
    )


if __name__ == "__main__":
    main()
