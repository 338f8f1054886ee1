"""PgBouncer in transaction mode, in front of the tests' PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from engines import Server
from harness import wait_for

# Few sessions for many clients, so that a transaction seldom has the session of the one before.
CONFIG = """\
[databases]
* = host={server} user=headwater
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
server_round_robin = 1
max_client_conn = 400
logfile = {folder}/log
"""
SOCKET = ".s.PGSQL.6432"


class Bouncer:
    """Stands between clients and a server, on a unix socket of its own."""

    def __init__(self, server: Server, *, sessions: int = 4) -> None:
        program = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            assert not os.environ.get("CI"), "pgbouncer is missing: README's test command installs it"
            pytest.skip("needs pgbouncer, of Debian's package of that name")
        self._server = server
        self.folder = Path(tempfile.mkdtemp(prefix="pgb-"))
        (self.folder / "ini").write_text(CONFIG.format(server=server.folder, folder=self.folder, sessions=sessions))
        nobody = pwd.getpwnam("nobody")
        as_root = os.getuid() == 0  # which it refuses
        if as_root:
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        user: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if as_root else {}
        self.process = subprocess.Popen([program, "-q", str(self.folder / "ini")], cwd=self.folder, **user)
        wait_for(lambda: (self.folder / SOCKET).exists() or self.process.poll() is not None, "pgbouncer to listen")
        assert self.process.poll() is None, self.log()

    def through(self, url: str) -> str:
        """The URL of a database of the server's, by way of this."""
        return url.replace(f"host={self._server.folder}", f"host={self.folder}&port=6432")

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        shutil.rmtree(self.folder)
