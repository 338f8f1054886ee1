"""`headwater prune`, beside a daemon and without one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from harness import Daemon, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

BOTH = ("octo/data", "octo/more")


def pruned(daemon: Daemon, *arguments: str) -> list[str]:
    ended = daemon.cli("prune", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr
    return [one["repository"] for one in json.loads(ended.stdout)["pruned"]]


def test_prune_removes_what_is_not_tracked_any_more_and_asks_first(
    make_daemon: Callable[..., Daemon], github: StandIn, repo: GitRepo
) -> None:
    github.add("octo/more", repo.path)
    daemon = make_daemon(repositories=BOTH).start()
    for name in BOTH:
        daemon.wait_head(repo.head(), name=name)
    assert pruned(daemon, "--yes") == []
    assert daemon.cli("prune", "octo/more", "--yes").returncode == 1
    assert daemon.cli("prune", "--json").returncode == 2
    daemon.write_config(repositories=("octo/data",))
    daemon.hangup()
    wait_for(lambda: daemon.get("/api/v1/repositories/octo/more").status_code == 404, "octo/more not to be tracked")
    assert pruned(daemon, "--dry-run") == ["octo/more"]
    refused = subprocess.run(
        daemon.command("prune"), input="n\n", capture_output=True, text=True, env=daemon.environ(), check=False
    )
    assert refused.returncode == 1
    assert "octo/more  not tracked: 1 branch, 3 entries" in refused.stdout
    assert daemon.post("/api/v1/repositories/octo/data/prune").status_code == 409
    assert daemon.post("/api/v1/repositories/octo/nothing/prune").status_code == 404
    assert pruned(daemon, "--yes") == ["octo/more"]
    wait_for(lambda: daemon.log_lines("store.pruned"), "the rows to go")
    assert pruned(daemon, "--dry-run") == []
    daemon.stop()
    daemon.write_config(repositories=("octo/more",))
    assert daemon.cli("sync").returncode == 0
    assert pruned(daemon, "octo/DATA", "--yes") == ["octo/data"]
    assert daemon.integrity() == "ok"
    assert json.loads(daemon.cli("status", "--json").stdout)["branches"][0]["head_sha"] == repo.head()
