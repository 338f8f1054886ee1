"""Debian's nginx and Caddy in front, by the README's own examples, which pass deliveries on over a unix socket."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import requests
from harness import Daemon, wait_for

from daemon.demo.standin.gitrepo import GitRepo

README = Path(__file__).parents[2] / "README.md"
MIB = 1 << 20
PUSH = {"ref": "refs/heads/main", "repository": {"full_name": "octo/data"}, "commits": []}
AROUND_NGINX = """\
daemon off; user root; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {server}
}}
"""
AROUND_CADDY = """\
{{
    admin off
}}
{server}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: a unix socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def example(name: str, language: str, upstream: Path) -> str:
    """The README's server, at a socket of the test's."""
    (server,) = re.findall(rf"<!-- {name} example -->\n```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    assert "/run/headwater-webhook.sock" in server
    return server.replace("/run/headwater-webhook.sock", str(upstream))


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        assert not os.environ.get("CI"), f"{name} is missing: README's test command installs it"
        pytest.skip(f"needs {name}, of Debian's package {package}")
    return found


@contextmanager
def nginx(folder: Path) -> Iterator[int]:
    server = re.sub(r"ssl_certificate\w* [^;]+;", "", example("nginx", "nginx", folder / "webhook.sock"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        server = server.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
        config = folder / "nginx.conf"
        config.write_text(AROUND_NGINX.format(folder=folder, server=server))
        # Handed over as nginx does it to its successor, so that no other program can take the port.
        process = subprocess.Popen(
            [program("nginx", "nginx-light"), "-c", str(config), "-p", str(folder)],
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


@contextmanager
def caddy(folder: Path) -> Iterator[int]:
    with socket.socket() as kept, (folder / "caddy.log").open("wb") as log:
        # Bound but not listening: no other program can take the port, and Caddy shares it.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        server = example("caddy", "caddy", folder / "webhook.sock")
        server = server.replace("hooks.example.org", f"http://127.0.0.1:{port}")
        config = folder / "Caddyfile"
        config.write_text(AROUND_CADDY.format(server=server))
        process = subprocess.Popen(
            [program("caddy", "caddy"), "run", "--config", str(config), "--adapter", "caddyfile"],
            env={"HOME": str(folder)},
            stderr=log,
        )

        def answers() -> bool:
            assert process.poll() is None, (folder / "caddy.log").read_text()
            try:
                return requests.get(f"http://127.0.0.1:{port}", timeout=5).status_code == 404
            except (requests.ConnectionError, requests.Timeout):
                return False

        try:
            wait_for(answers, "Caddy to listen")
            yield port
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(params=[nginx, caddy], ids=lambda proxy: proxy.__name__)
def port(request: pytest.FixtureRequest, folder: Path) -> Iterator[int]:
    """Where the proxy listens, which passes on to ``folder/webhook.sock``."""
    proxy: Callable[[Path], AbstractContextManager[int]] = request.param
    with proxy(folder) as port:
        yield port


@pytest.fixture
def daemon(repo: GitRepo, folder: Path, port: int, make_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = make_daemon()
    text = daemon.config.read_text().replace('listen = "127.0.0.1:0"', f'listen = "unix:{folder}/webhook.sock"', 1)
    daemon.config.write_text(text)
    daemon.start()
    daemon.webhook_url = f"http://127.0.0.1:{port}/api/v1/webhooks/github"
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
