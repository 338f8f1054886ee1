"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from app_key import AppKey, make_key
from engines import Engine, Server
from harness import TOKEN, Daemon
from hypothesis import settings
from pgbouncer import Bouncer

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

# How long an example takes tells of the machine's other work; what hangs is ended by the time-out of its test.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, one for each process of the tests."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def github() -> Iterator[StandIn]:
    """A stand-in of GitHub that asks for the token of the tests; while it is stopped nobody else gets its port."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))  # and never listens: the stand-in does, beside it
        with StandIn(port=kept.getsockname()[1], token=TOKEN) as standin:
            yield standin


@pytest.fixture(scope="session")
def app_key() -> AppKey:
    """The key of a GitHub App."""
    return make_key()


@pytest.fixture
def repo(tmp_path: Path, github: StandIn) -> GitRepo:
    """A repository with two commits, served as octo/data."""
    repo = GitRepo.init(tmp_path / "octo-data.git")
    repo.commit({"README.md": b"# Data\n", "docs/index.md": b"welcome\n"}, "Begin")
    repo.commit({"docs/page.md": b"a page\n"}, "Add a page")
    github.add("octo/data", repo.path)
    return repo


@pytest.fixture
def make_daemon(tmp_path: Path, github: StandIn) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that are surely gone after the test."""
    made: list[Daemon] = []

    def make(**settings: Any) -> Daemon:
        folder = tmp_path / f"daemon-{len(made)}"
        folder.mkdir()
        daemon = Daemon(folder, settings.pop("api_url", github.url), **settings)
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.end()


@pytest.fixture
def postgres_url(postgres: Server, tmp_path: Path) -> Iterator[str]:
    """`storage.url` of a database of this test's own."""
    engine = Engine(postgres)
    yield engine.url(tmp_path / "nodes")
    engine.close()


@pytest.fixture
def bouncer(postgres: Server) -> Iterator[Bouncer]:
    """A pooler of this test's own, whose log tells of nothing else."""
    bouncer = Bouncer(postgres)
    yield bouncer
    bouncer.close()


@pytest.fixture
def make_node(postgres_url: str, make_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    """Makes daemons that share that database, and end before it does."""
    return lambda **settings: make_daemon(storage=postgres_url, **settings)
