"""Debian's nginx in front, by the README's own example, which passes deliveries on over a unix socket."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Daemon, wait_for

from daemon.demo.standin.gitrepo import GitRepo

README = Path(__file__).parents[2] / "README.md"
MIB = 1 << 20
PUSH = {"ref": "refs/heads/main", "repository": {"full_name": "octo/data"}, "commits": []}
AROUND = """\
daemon off; user root; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {server}
}}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: a unix socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def example(port: int, upstream: Path) -> str:
    """The README's server, without TLS, at a port and a socket of the test's."""
    (server,) = re.findall(r"<!-- nginx example -->\n```nginx\n(.*?)```", README.read_text(), re.DOTALL)
    server = re.sub(r"listen 443 ssl;", f"listen 127.0.0.1:{port};", server)
    server = re.sub(r"ssl_certificate\w* [^;]+;", "", server)
    assert "/run/headwater-webhook.sock" in server
    return server.replace("/run/headwater-webhook.sock", str(upstream))


@pytest.fixture
def nginx(folder: Path) -> Iterator[int]:
    """nginx, passing on to ``folder/webhook.sock``; the port it listens on."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        assert not os.environ.get("CI"), "nginx is missing: README's test command installs it"
        pytest.skip("needs nginx, of Debian's package nginx-light")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        config = folder / "nginx.conf"
        config.write_text(AROUND.format(folder=folder, server=example(port, folder / "webhook.sock")))
        # Handed over as nginx does it to its successor, so that no other program can take the port.
        process = subprocess.Popen(
            [program, "-c", str(config), "-p", str(folder)],
            env={"NGINX": f"{listening.fileno()};"},
            pass_fds=[listening.fileno()],
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: (folder / "pid").exists() or process.poll() is not None, "nginx to start")
            assert process.poll() is None, (folder / "error.log").read_text()
            yield port
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def daemon(repo: GitRepo, folder: Path, nginx: int, make_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = make_daemon()
    text = daemon.config.read_text().replace('listen = "127.0.0.1:0"', f'listen = "unix:{folder}/webhook.sock"', 1)
    daemon.config.write_text(text)
    daemon.start()
    daemon.webhook_url = f"http://127.0.0.1:{nginx}/api/v1/webhooks/github"
    daemon.wait_head(repo.head())
    return daemon


def test_a_push_arrives_through_the_proxy_and_is_synced(repo: GitRepo, daemon: Daemon) -> None:
    after = repo.commit({"new.md": b"new\n"})
    assert daemon.deliver(PUSH | {"after": after}).json()["status"] == "accepted"
    daemon.wait_head(after)


def test_what_the_daemon_refuses_is_refused_through_the_proxy(daemon: Daemon) -> None:
    assert daemon.deliver(PUSH, secret="wrong").status_code == 403
    daemon.webhook_url = daemon.webhook_url.replace("/api/v1/webhooks/github", "/api/v1/status")
    assert daemon.deliver(PUSH).status_code == 404


def test_the_largest_delivery_of_github_passes_and_a_larger_one_does_not(daemon: Daemon) -> None:
    body = b'{"padding": "' + b"x" * (25 * MIB - 64) + b'"}'
    assert daemon.deliver(body, event="ping").json() == {"status": "ignored", "event": "ping"}
    assert daemon.deliver(body + b" " * 64, event="ping").status_code == 413
