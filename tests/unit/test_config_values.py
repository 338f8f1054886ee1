from __future__ import annotations

import contextlib
import ipaddress
import socket
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.values import (
    Address,
    is_loopback_host,
    nearest,
    parse_address,
    parse_api_url,
    parse_branch,
    parse_duration,
    parse_full_name,
    parse_host_name,
    parse_path,
    parse_public_url,
    parse_size,
    shown,
)

ANYTHING = st.one_of(
    st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text()), st.binary(), st.dates()
)
NEARLY = st.text(alphabet="0123456789.dhmskMGTiB:[]/*unix -", max_size=24)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("15m", 900),
        ("6h", 21600),
        ("1d", 86400),
        ("1h30m", 5400),
        ("1d12h", 129600),
        ("1m500ms", 60.5),
        ("1.5h", 5400),
        ("0s", 0),
    ],
)
def test_a_duration_is_its_seconds(written, seconds):
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "30",
        "s",
        "-1s",
        "+1s",
        " 1s",
        "1 s",
        "1S",
        "30m1h",
        "1h1h",
        "1w",
        "1e3s",
        "٣s",
        "1s\n",
        "inf",
        ".5s",
        "4000d",
        30,
        30.0,
        None,
        True,
        ["1s"],
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(written):
    with pytest.raises(ValueError, match=r"30s|ten years"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("5MB", 5_000_000),
        ("5MiB", 5 * 2**20),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("2GiB", 2 * 2**30),
        ("1.5MB", 1_500_000),
        ("10 B", 10),
        ("512", 512),
        (512, 512),
        (0, 0),
        ("1TB", 10**12),
    ],
)
def test_a_size_is_its_bytes(written, size):
    assert parse_size(written) == size
    assert isinstance(parse_size(written), int)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "MB",
        "-5MB",
        -1,
        "5Mb",
        "5mb",
        "5 M",
        "1.5",
        "1.5B",
        "5MBB",
        5.0,
        True,
        None,
        "1e6",
        "999999999999TB",
        "5MB\n",
    ],
)
def test_what_is_no_size_is_refused(written):
    with pytest.raises(ValueError, match=r"size|bytes|more than any"):
        parse_size(written)


@pytest.mark.parametrize(
    "parse",
    [
        parse_duration,
        parse_size,
        parse_address,
        parse_full_name,
        parse_api_url,
        parse_public_url,
        parse_path,
        parse_branch,
        parse_host_name,
    ],
)
@given(value=ANYTHING | NEARLY)
def test_nothing_crashes_a_parser_and_every_refusal_is_one_printable_line(parse, value):
    told = "nothing wrong"
    try:
        parse(value)
    except ValueError as error:
        told = str(error)
    assert told.isprintable()
    assert 0 < len(told) < 400


@given(
    days=st.integers(0, 30),
    hours=st.integers(0, 99),
    minutes=st.integers(0, 99),
    seconds=st.integers(0, 999),
    ms=st.integers(0, 999),
)
def test_a_combined_duration_is_the_sum_of_its_parts(days, hours, minutes, seconds, ms):
    expected = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=ms)
    assert parse_duration(f"{days}d{hours}h{minutes}m{seconds}s{ms}ms") == pytest.approx(expected.total_seconds())


@given(st.integers(0, 10**6), st.sampled_from(["kB", "MB", "GB", "KiB", "MiB", "GiB"]))
def test_a_binary_unit_is_a_power_of_1024_and_any_other_of_1000(number, unit):
    power = "kKMG".index(unit[0]) or 1
    assert parse_size(f"{number}{unit}") == number * (1024 if "i" in unit else 1000) ** power


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(0, 65535))
def test_an_address_reads_back_as_it_is_written(host, port):
    written = f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"
    address = parse_address(written)
    assert (address.kind, ipaddress.ip_address(address.host), address.port) == ("tcp", host, port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("written", "loopback"),
    [
        ("127.0.0.1:0", True),
        ("127.9.9.9:80", True),
        ("localhost:80", True),
        ("LocalHost:80", True),
        ("[::1]:80", True),
        ("[::ffff:127.0.0.1]:80", True),
        ("unix:/run/x.sock", True),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("10.0.0.1:80", False),
        ("[::ffff:10.0.0.1]:80", False),
        ("example.org:80", False),
        ("127.1:80", False),  # other programs read it as 127.0.0.1, but who knows what this resolver does
        ("localhost.example.org:80", False),
    ],
)
def test_only_what_surely_means_this_machine_is_loopback(written, loopback):
    assert parse_address(written).is_loopback is loopback


@pytest.mark.parametrize(
    "written",
    [
        "",
        "8787",
        ":8787",
        "*:8787",
        "host",
        "host:",
        "host:x",
        "host:65536",
        "host:-1",
        "::1:80",
        "[::1]",
        "[::1:80",
        "[x]:80",
        "ho st:80",
        "-x:80",
        "http://x:80",
        "unix:",
        "unix:x.sock",
        "unix:/",
        "unix:/" + "x" * 200,
        "unix:/a\0b",
        8787,
        None,
    ],
)
def test_what_is_no_address_is_refused(written):
    with pytest.raises(ValueError):
        parse_address(written)


def test_the_address_of_an_inherited_socket_is_the_bound_one(tmp_path):
    with contextlib.closing(socket.socket()) as one, contextlib.closing(socket.socket(socket.AF_UNIX)) as other:
        one.bind(("127.0.0.1", 0))
        other.bind(str(tmp_path / "s"))
        assert Address.of_socket(one) == Address("tcp", host="127.0.0.1", port=one.getsockname()[1])
        assert Address.of_socket(other) == Address("unix", path=str(tmp_path / "s"))


@pytest.mark.parametrize("name", ["octocat/hello-world", "A/b", "a-b/c.d_e", "acme_co/x", "acme/*", "a/.github", "a/-"])
def test_a_repository_is_owner_and_name(name):
    assert parse_full_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a",
        "/",
        "a/",
        "/b",
        "a/b/c",
        "-a/b",
        "a b/c",
        "a/b c",
        "a/ü",
        "a/..",
        "a/.",
        "*/b",
        "a/b*",
        "a/x.git",
        "https://github.com/a/b",
        "git@github.com:a/b",
        "a" * 40 + "/b",
        "a/" + "b" * 101,
        "a/b\n",
        3,
    ],
)
def test_what_github_would_not_call_a_repository_is_refused(name):
    with pytest.raises(ValueError):
        parse_full_name(name)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://api.github.com", "https://api.github.com"),
        ("https://api.github.com/", "https://api.github.com"),
        ("https://ghe.example.org/api/v3/", "https://ghe.example.org/api/v3"),
        ("http://127.0.0.1:80/x", "http://127.0.0.1:80/x"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_an_api_url_loses_its_last_slash(written, url):
    assert parse_api_url(written) == url


@pytest.mark.parametrize(
    "written",
    [
        "http://api.github.com",
        "http://127.0.0.1.example.org",
        "http://0.0.0.0",
        "ftp://x",
        "api.github.com",
        "https://",
        "https://u:hunter2@x",
        "https://hunter2@x",
        "https://x?q=1",
        "https://x#f",
        "https://x:99999",
        "https://[x",
        "https://a b",
        "https://x\n",
        "http://localhost\\@evil.org",
        None,
    ],
)
def test_an_api_url_that_would_leak_the_token_or_is_none_is_refused_without_showing_it(written):
    with pytest.raises(ValueError) as caught:
        parse_api_url(written)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "name"), [("Example.org", "example.org"), ("::1", "[::1]"), ("[::1]", "[::1]"), ("10.0.0.1", "10.0.0.1")]
)
def test_a_host_name_is_lower_case_and_an_ipv6_address_bracketed(host, name):
    assert parse_host_name(host) == name


@pytest.mark.parametrize("host", ["", "*", "a:80", "http://a", "a/b", "[::1]:80", " a", 3])
def test_a_host_name_has_no_port_scheme_or_wildcard(host):
    with pytest.raises(ValueError):
        parse_host_name(host)


def test_a_ref_instead_of_a_branch_is_refused_with_the_branch():
    with pytest.raises(ValueError, match='write the name of the branch, "main"'):
        parse_branch("refs/heads/main")


@given(st.text())
def test_what_a_message_shows_is_one_short_printable_line(text):
    assert shown(text).isprintable()
    assert len(shown(text)) < 1000


@given(st.text(), st.lists(st.text(min_size=1), min_size=1))
def test_there_is_always_a_nearest_name(name, known):
    assert nearest(name, known) in known


def test_a_name_is_not_looked_up_to_find_out_whether_it_is_loopback(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("looked up"))
    assert not is_loopback_host("headwater.example.org")
