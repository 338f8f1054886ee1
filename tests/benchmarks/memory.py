"""Peak memory of the first sync of a large repository: 2 GB of files, or as many bytes as the argument says."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from support import Remote, bench, folder, report, served, synced

from daemon.demo.standin.gitrepo import GitRepo

TOTAL_BYTES = 2_000_000_000
FILE_BYTES = 200_000
BATCH = 500


def make(path: Path, total_bytes: int) -> GitRepo:
    """Files that hardly compress, so that the archive is as large as they are."""
    repo = GitRepo.init(path)
    chance = random.Random(7)
    count = max(1, total_bytes // FILE_BYTES)
    for start in range(0, count, BATCH):
        batch = range(start, min(count, start + BATCH))
        repo.commit({f"part{n // 1000:03}/file{n:06}.bin": chance.randbytes(FILE_BYTES) for n in batch})
    return repo


def child(url: str, repo: Path, store: Path) -> None:
    """One first sync in a process of its own, whose peak is that of the sync."""
    one = bench(store, Remote(url), GitRepo(repo))
    before = _peak_kibibytes()
    result = synced(one)
    one.close()
    print(json.dumps([before, _peak_kibibytes(), result.requests]))


def _peak_kibibytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def main() -> None:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else TOTAL_BYTES
    with folder() as path:
        repo = make(path / "origin.git", total)
        with served({"octo/data": repo.path}, cached=False) as github:
            command = [sys.executable, __file__, "child", github.url, str(repo.path), str(path / "store")]
            ended = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        before, peak, requests = json.loads(ended.stdout)
    report(
        "memory",
        repository_megabytes=total // 10**6,
        requests=requests,
        idle_megabytes=round(before * 1024 / 10**6),
        peak_megabytes=round(peak * 1024 / 10**6),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
