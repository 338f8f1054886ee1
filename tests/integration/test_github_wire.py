"""What the client survives on the wire: cut, slow, huge, nonsense, and an environment that wants to interfere."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import subprocess
import threading
import traceback
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from engines import PATIENCE_SECONDS
from github_peer import Peer, dripping, http, silent, then_close, then_reset
from harness import Stopwatch

from daemon import errors
from daemon.clock import Clock
from daemon.github import ClientSettings, GitHubClient, Governor, RequestSeen
from daemon.github.transport import Allowance, translated
from daemon.model import RepositoryRef

A = "a" * 40
REF = RepositoryRef("o", "r")
PATH = "/repos/o/r"
HEAD = "/repos/o/r/commits/heads/main"
TARBALL = f"/repos/o/r/tarball/{A}"
REPOSITORY = {"id": 7, "full_name": "o/r", "default_branch": "main"}

Make = Callable[..., GitHubClient]


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[GitHubClient] = []

    def make(url: str, *, timeout: float = PATIENCE_SECONDS, **options: Any) -> GitHubClient:
        clock = options.pop("clock", Clock(sleep=lambda _: None))
        settings = ClientSettings(url, f"{url}/graphql", timeout, lambda: "TOKEN")
        made.append(GitHubClient(settings, clock=clock, governor=Governor(clock), **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(peer: Peer, make: Make) -> GitHubClient:
    return make(peer.url)


def drain(client: GitHubClient, max_bytes: int = 10**7) -> bytes:
    with client.tarball(REF, A, max_bytes=max_bytes) as pieces:
        return b"".join(pieces)


def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(10**6)) for _ in range(megabytes)) + packer.flush()


# Bodies that are not what was asked for


@pytest.mark.parametrize(
    "body", ["<html>Down for maintenance</html>", "", "null", "[]", '"text"', "{}", '{"id": 7', '{"id": "7"}']
)
def test_200_with_anything_else_is_a_bad_answer(peer: Peer, client: GitHubClient, body: str) -> None:
    peer.on(PATH, http(200, body))
    with pytest.raises(errors.BadAnswer, match=r"^o/r"):
        client.repository(REF)
    assert len(peer.requests) == 1


def test_a_body_shorter_than_announced_is_no_answer(peer: Peer, client: GitHubClient) -> None:
    peer.on(PATH, then_close(http(200, REPOSITORY)[:-5]))
    with pytest.raises(errors.Unreachable):
        client.repository(REF)
    assert len(peer.requests) == 3


def test_a_body_cut_where_it_would_still_be_whole_is_no_answer(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, then_close(http(200, A, Content_Length="41")))
    with pytest.raises(errors.Unreachable):
        client.head(REF, "main")


def test_json_cut_without_any_length_is_a_bad_answer(peer: Peer, client: GitHubClient) -> None:
    peer.on(PATH, then_close(http(200, '{"id": 7, "full_na', Content_Length=None)))
    with pytest.raises(errors.BadAnswer):
        client.repository(REF)


@pytest.mark.parametrize("tail", [b"5\r\n12", b"5\r\n12345\r\n", b"nonsense\r\n", b"-5\r\n12345\r\n", b""])
def test_a_chunked_body_that_is_cut_or_nonsense_is_no_answer(peer: Peer, client: GitHubClient, tail: bytes) -> None:
    start = http(200, Content_Length=None, Transfer_Encoding="chunked")
    peer.on(HEAD, then_close(start + b"28\r\n" + A.encode() + b"\r\n" + tail))
    peer.on(TARBALL, then_close(start + b"28\r\n" + A.encode() + b"\r\n" + tail))
    with pytest.raises(errors.Unreachable):
        client.head(REF, "main")
    with pytest.raises(errors.Unreachable):
        drain(client)


def test_an_archive_shorter_than_announced_raises_in_the_iteration(peer: Peer, client: GitHubClient) -> None:
    peer.on(TARBALL, then_close(http(200, b"x" * 100_000, Content_Length="200000")))
    with pytest.raises(errors.Unreachable), client.tarball(REF, A, max_bytes=10**6) as pieces:
        list(pieces)


@pytest.mark.parametrize("data", [b"", http(200, REPOSITORY)[:-5], b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_a_reset_is_no_answer_and_tried_again(peer: Peer, client: GitHubClient, data: bytes) -> None:
    peer.on(PATH, then_reset(data), http(200, REPOSITORY))
    assert client.repository(REF).github_id == 7
    assert len(peer.requests) == 2


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01", b"HELLO\r\n\r\n", b"HTTP/1.1 abc X\r\n\r\n", b"HTTP/1.1 200 OK\r\n" * 3]
)
def test_what_is_no_http_is_no_answer(peer: Peer, client: GitHubClient, data: bytes) -> None:
    peer.on(PATH, then_close(data))
    with pytest.raises(errors.GitHubError):
        client.repository(REF)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_is_tried_again_twice_and_then_an_outage(peer: Peer, client: GitHubClient, status: int) -> None:
    peer.on(PATH, http(status), http(status), http(200, REPOSITORY))
    assert client.repository(REF).github_id == 7
    peer.on(PATH, http(status, "<html>"))
    with pytest.raises(errors.Unreachable, match=str(status)):
        client.repository(REF)
    assert len(peer.requests) == 6


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and which nobody else is given meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_closed_port_is_an_outage_that_says_why(make: Make, closed_port: int) -> None:
    with pytest.raises(errors.Unreachable, match="Connection refused"):
        make(f"http://127.0.0.1:{closed_port}").repository(REF)


def test_a_host_that_cannot_be_one_is_an_error_of_ours(make: Make) -> None:
    with pytest.raises(errors.GitHubError):
        make(f"http://{'a' * 70}.example").repository(REF)


# Slow


def test_an_answer_that_never_comes_costs_one_time_out_and_not_three(peer: Peer, make: Make) -> None:
    peer.on(PATH, silent(peer.stop))
    tried: list[RequestSeen] = []
    clock = Clock(monotonic=lambda: 0.2 * len(tried), sleep=lambda _: None)  # each try takes its time-out, no longer
    with pytest.raises(errors.Unreachable, match=r"did not answer within 0\.2 s"):
        make(peer.url, timeout=0.2, clock=clock, on_request=tried.append).repository(REF)
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (http(200, Content_Length="100000"), b" "),
        (http(200, Content_Length=None), b" "),
        (http(200, Content_Length=None, Transfer_Encoding="chunked"), b"1\r\n \r\n"),
        (http(200, Content_Length=None, Transfer_Encoding="chunked") + b"1;", b"x"),
        (b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"H"),
        (http(500, Content_Length="100000"), b" "),
        (http(302, Content_Length="100000", Location="/repositories/7"), b" "),
    ],
)
def test_a_drip_ends_at_the_total_deadline_wherever_it_drips(peer: Peer, make: Make, start: bytes, drop: bytes) -> None:
    peer.on(PATH, dripping(start, stop=peer.stop, drop=drop))
    with Stopwatch() as watch, pytest.raises(errors.GitHubError):
        make(peer.url, timeout=0.15).repository(REF)
    assert watch.seconds < 3.0  # 4 times 0.15 s, and room for a busy machine


def test_an_archive_that_drips_ends_at_its_deadline(peer: Peer, make: Make) -> None:
    peer.on(TARBALL, dripping(http(200, Content_Length="100000"), stop=peer.stop))
    with (
        Stopwatch() as watch,
        pytest.raises(errors.Unreachable, match=r"took longer than a call may take|did not answer within"),
    ):
        drain(make(peer.url, timeout=0.04))
    assert watch.seconds < 5.0  # 30 times 0.04 s


# Huge


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_a_gzip_bomb_is_stopped_at_the_cap_whatever_the_status(peer: Peer, client: GitHubClient, status: int) -> None:
    peer.on(HEAD, http(status, bomb(100), Content_Encoding="gzip", Location="/repositories/7/commits/heads/main"))
    tracemalloc.start()
    try:
        with pytest.raises(errors.GitHubError):
            client.head(REF, "main")
        assert tracemalloc.get_traced_memory()[1] < 20 * 10**6
    finally:
        tracemalloc.stop()


def test_a_body_over_the_cap_is_a_bad_answer_that_says_so(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, http(200, b"a" * (2**20 + 1)))
    with pytest.raises(errors.BadAnswer, match="larger than the 1048576 bytes"):
        client.head(REF, "main")


def test_a_chain_of_encodings_is_refused(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, http(200, A, Content_Encoding=", ".join(["gzip"] * 1000)))
    with pytest.raises(errors.BadAnswer):
        client.head(REF, "main")


@pytest.mark.parametrize(
    "body", [b"no gzip at all", gzip.compress(A.encode(), mtime=0)[:-9] + b"damaged!!"], ids=["none", "damaged"]
)
def test_a_broken_encoding_is_no_answer(peer: Peer, client: GitHubClient, body: bytes) -> None:
    peer.on(HEAD, http(200, body, Content_Encoding="gzip"))
    with pytest.raises(errors.GitHubError):
        client.head(REF, "main")


def test_an_honest_gzip_answer_is_decoded(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, http(200, gzip.compress(A.encode()), Content_Encoding="gzip"))
    assert client.head(REF, "main") == A


def test_ten_thousand_headers_are_refused(peer: Peer, client: GitHubClient) -> None:
    many = "".join(f"X-H{i}: v\r\n" for i in range(10_000))
    peer.on(HEAD, then_close(f"HTTP/1.1 200 OK\r\n{many}\r\n{A}".encode()))
    with pytest.raises(errors.Unreachable):
        client.head(REF, "main")


def test_endless_interim_answers_are_stopped(peer: Peer, client: GitHubClient) -> None:
    def endless(connection: socket.socket) -> None:
        while not peer.stop.is_set():
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    peer.on(HEAD, endless)
    with pytest.raises(errors.Unreachable, match="larger than"):
        client.head(REF, "main")


def test_a_thousand_interim_answers_and_http_1_0_are_read(peer: Peer, client: GitHubClient) -> None:
    peer.on(
        HEAD, http(200, A).replace(b"HTTP/1.1", b"HTTP/1.0"), b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + http(200, A)
    )
    assert client.head(REF, "main") == A
    assert client.head(REF, "main") == A


# Redirects


def test_redirects_in_a_circle_end_after_three(peer: Peer, client: GitHubClient) -> None:
    peer.on(PATH, http(301, Location="/repositories/7"))
    peer.on("/repositories/7", http(307, Location="/repositories/7"))
    with pytest.raises(errors.BadAnswer, match="circle"):
        client.repository(REF)
    assert len(peer.requests) == 4


@pytest.mark.parametrize("path", [PATH, TARBALL])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["http://evil.example/x", "https://127.0.0.1:{port}/x", "file:///etc/passwd", "", "//evil.example/x"]
)
def test_a_redirect_elsewhere_is_refused_and_the_place_not_asked(
    peer: Peer, client: GitHubClient, path: str, status: int, location: str
) -> None:
    peer.on(path, http(status, Location=location.format(port=peer.port)))
    with pytest.raises(errors.BadAnswer):
        drain(client) if path == TARBALL else client.repository(REF)
    assert peer.paths() == [path]


def test_an_api_answer_is_not_followed_to_another_port(peer: Peer, client: GitHubClient) -> None:
    other = Peer()
    try:
        peer.on(PATH, http(301, Location=f"{other.url}/repositories/7"))
        with pytest.raises(errors.BadAnswer):
            client.repository(REF)
        assert other.connections == 0
    finally:
        other.close()


def test_the_token_in_an_archives_address_is_in_no_message_trace_or_log(
    peer: Peer, client: GitHubClient, caplog: pytest.LogCaptureFixture, closed_port: int
) -> None:
    caplog.set_level(logging.DEBUG)
    peer.on("/dl?token=SECRET", http(500, "x"), then_reset(b""), then_close(b"HTTP/1.1 404 X\r\nbad header\r\n\r\n"))
    for place in (f"http://127.0.0.1:{closed_port}", peer.url, "https://evil.example"):
        peer.on(TARBALL, http(302, Location=f"{place}/dl?token=SECRET"))
        with pytest.raises(errors.GitHubError) as raised:
            drain(client)
        told = "".join(traceback.format_exception(raised.value)) + caplog.text
        assert "SECRET" not in told
        assert "TOKEN" not in told


# The environment


def test_netrc_proxies_and_ca_bundles_of_the_environment_have_no_effect(
    peer: Peer, client: GitHubClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Peer()
    try:
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login planted password planted\ndefault login planted password planted\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(netrc))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
        monkeypatch.setenv("CURL_CA_BUNDLE", "")
        peer.on(TARBALL, http(302, Location="/dl"))
        peer.on("/dl", http(200, b"bytes"))
        assert drain(client) == b"bytes"
        assert [seen.headers.get("authorization") for seen in peer.requests] == ["Bearer TOKEN", None]
        assert proxy.connections == 0
    finally:
        proxy.close()


def test_cookies_are_not_kept(peer: Peer, client: GitHubClient) -> None:
    peer.on(HEAD, http(200, A, Set_Cookie="session=1; Path=/"))
    client.head(REF, "main")
    client.head(REF, "main")
    assert "cookie" not in peer.requests[1].headers


@pytest.fixture
def self_signed(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A TLS server on localhost whose certificate nobody signed, and that certificate."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*request, *subject, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(65536)
                    secured.sendall(http(200, REPOSITORY))
            except OSError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"https://localhost:{listener.getsockname()[1]}", certificate
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_certificate_that_nobody_signed_is_refused_whatever_the_environment_says(
    self_signed: tuple[str, Path], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, certificate = self_signed
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(certificate))
    with pytest.raises(errors.Unreachable, match=r"(?i)certificate"):
        make(url).repository(REF)


# Every way in which the libraries fail


def everything_below(base: type[BaseException]) -> list[type[BaseException]]:
    return [base, *(kind for child in base.__subclasses__() for kind in everything_below(child))]


def test_every_error_of_the_libraries_becomes_one_of_ours() -> None:
    allowance = Allowance(Clock(), deadline=float("inf"), timeout_seconds=1.0, max_bytes=1)
    kinds = [*everything_below(requests.RequestException), *everything_below(urllib3.exceptions.HTTPError)]
    assert len(kinds) > 50
    for kind in kinds:
        ours = translated(kind.__new__(kind), asked="o/r", allowance=allowance)
        assert isinstance(ours, errors.BadAnswer | errors.Unreachable), kind
        assert str(ours).startswith("o/r: "), kind
