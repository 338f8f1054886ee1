"""A part with the state it begins from, and the oracle: what must hold whenever and however it was cut short."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import crash
from bench import Bench
from scenario import Peer, act_on_all

from daemon.actions.publish import Folder
from daemon.clock import Clock
from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo, executable


class Case:
    """A part with the state it begins from, and what must hold whenever it was killed."""

    def __init__(self, folder: Path, github: StandIn, repo: GitRepo) -> None:
        self.github, self.repo = github, repo
        github.world.limits.enabled = False  # thousands of runs ask one stand-in
        self.prepared = folder / "prepared"
        self.prepared.mkdir()
        self.bench = crash.Bench(self.prepared, github.url)

    def open(self, folder: Path) -> Bench:
        return Bench(folder, Peer(self.github.url), self.repo)  # type: ignore[arg-type]

    def prepare(self, part: str) -> None:
        if part == "start":
            return
        bench = self.open(self.prepared)
        if part == "first":
            self.repo.commit({f"many/{n}.txt": b"%d\n" % n for n in range(40)}, "Many")
            bench.want()
            bench.close()
            return
        bench.sync()
        if part == "act":
            act_on_all(bench, self.prepared)  # an action is for what comes after it
            self.repo.commit({"acted.txt": b"1\n"}, "Act on this")
            bench.sync()
        if part in ("sync", "prune", "publish"):
            self.repo.commit({"docs/index.md": None, "new.txt": b"new\n", "run.sh": executable(b"#!/bin/sh\n")}, "Move")
            self.repo.commit({f"many/{n}.txt": b"%d\n" % n for n in range(12)}, "More")
            bench.announce(None, self.repo.head(), guid="moved")
        if part in ("prune", "publish"):
            bench.settle()
        if part == "publish":
            entries = bench.snapshots.entries(bench.facts().id)
            Folder(self.prepared / "site").publish("0" * 40, entries[:3], bench.snapshots.blob, now=Clock().now())
        bench.close()

    def check(self, part: str, folder: Path) -> str | None:
        """What is wrong after a crash; None when nothing is."""
        try:
            self._check(part, folder)
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:500]
        return None

    def _check(self, part: str, folder: Path) -> None:
        promised = (folder / "ledger").read_text().splitlines() if (folder / "ledger").exists() else []
        self._published_whole(folder, promised)
        bench = self.open(folder)
        try:
            assert bench.database.integrity() == "ok"
            self._kept(folder, [line for line in promised if line.startswith("guid")])
            self._one_commit(bench)
            bench.jobs.recover(now=bench.time.at)
            bench.time.advance(60)
            bench.want()
            bench.settle()
            bench.assert_equal_to_git()
            self._reflected(folder)
            if part == "act":
                act_on_all(bench, folder)
                acted = (folder / "acted").read_text().split()
                assert self.repo.head() in acted, "a change that no action was told of"
        finally:
            bench.close()

    def _kept(self, folder: Path, guids: list[str]) -> None:
        with sqlite3.connect(folder / "bench.db") as db:
            rows = dict(db.execute("SELECT guid, generation FROM delivery WHERE status = 'accepted'").fetchall())
            wanted = [row[0] for row in db.execute("SELECT wanted_generation FROM job")]
        db.close()
        assert set(guids) <= set(rows), f"acknowledged and lost: {sorted(set(guids) - set(rows))}"
        assert all(rows[guid] <= max(wanted) for guid in guids), "acknowledged, and no generation covers it"

    def _one_commit(self, bench: Bench) -> None:
        facts = bench.facts()
        rows = sorted((e.path, e.mode, e.sha) for e in bench.snapshots.entries(facts.id))
        truth = sorted((e.path, e.mode, e.sha) for e in self.repo.ls_tree(facts.head_sha)) if facts.head_sha else []
        assert rows == truth, "the snapshot is not that of its commit"

    def _reflected(self, folder: Path) -> None:
        with sqlite3.connect(folder / "bench.db") as db:
            open_ones = db.execute("SELECT guid FROM delivery WHERE status = 'accepted' AND NOT acted").fetchall()
        db.close()
        assert open_ones == [], "accepted, and never acted on"

    def _published_whole(self, folder: Path, promised: list[str]) -> None:
        site = folder / "site"
        if not site.exists():
            return
        found = {
            str(path.relative_to(site.resolve())): path.read_bytes()
            for path in site.resolve().rglob("*")
            if path.is_file()
        }
        truth = {e.path.decode(): self.repo.cat(e.sha) for e in self.repo.ls_tree("main")}
        first = dict(sorted(truth.items())[:3])
        assert found in (truth, first), "readers see a mixture"
        assert found == truth or self.repo.head() not in promised, "said to be published, and is not"
