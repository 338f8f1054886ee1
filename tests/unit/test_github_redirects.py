from __future__ import annotations

import pytest

from daemon.errors import BadAnswer
from daemon.github.redirects import Hop, next_hop, redacted, repository_id

API = "https://api.github.com"
SERVER = "https://ghe.example/api/v3"
LOCAL = "http://127.0.0.1:8000"


def follow(location: str | None, *, api: str = API, download: bool = False) -> Hop:
    return next_hop(location, at=f"{api}/repos/o/r/x", api_url=api, download=download, asked="o/r")


@pytest.mark.parametrize(
    ("api", "location", "url"),
    [
        (API, f"{API}/repositories/7/commits/heads/main", f"{API}/repositories/7/commits/heads/main"),
        (API, "/repositories/7", f"{API}/repositories/7"),
        (API, "https://API.github.com:443/repos/n/r", "https://API.github.com:443/repos/n/r"),
        (SERVER, f"{SERVER}/repositories/7", f"{SERVER}/repositories/7"),
        (LOCAL, f"{LOCAL}/repositories/7", f"{LOCAL}/repositories/7"),
    ],
)
def test_a_rename_is_followed_on_the_same_origin_with_the_token(api: str, location: str, url: str) -> None:
    assert follow(location, api=api) == Hop(url, authorized=True)
    assert follow(location, api=api, download=True) == Hop(url, authorized=True)


@pytest.mark.parametrize(
    ("api", "location"),
    [
        (API, "https://codeload.github.com/o/r/legacy.tar.gz/abc?token=SECRET"),
        (SERVER, "https://codeload.ghe.example/o/r"),
        (SERVER, "https://ghe.example/_codeload/o/r?token=SECRET"),
        ("https://api.sub.ghe.com", "https://codeload.sub.ghe.com/o/r"),
        (LOCAL, "http://127.0.0.1:9000/o/r"),
        (LOCAL, "http://localhost:9000/o/r"),
    ],
)
def test_an_archive_may_come_from_the_download_host_without_the_token(api: str, location: str) -> None:
    assert follow(location, api=api, download=True) == Hop(location, authorized=False)


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "https://evil.example/repositories/7",
        "https://api.github.com.evil.example/repositories/7",
        "https://api.github.com@evil.example/repositories/7",
        "https://user:pw@api.github.com/repositories/7",
        "//evil.example/repositories/7",
        "\\\\evil.example\\repositories\\7",
        "http://api.github.com/repositories/7",
        "http://codeload.github.com/o/r",
        "https://codeload.github.com:99999/o/r",
        "https://codeload.github.com.evil.example/o/r",
        "https://127.0.0.1/o/r",
        "http://127.0.0.1:8000/o/r",
        "http://[::1]/o/r",
        "https://[::1/o/r",
        "file:///etc/passwd",
        "ftp://api.github.com/repositories/7",
        "javascript:alert(1)",
        f"{API}/repositories/7\r\nX-Evil: 1",
        f"{API}/repositories/../user/keys",
        f"{API}/repositories/%2e%2E/user/keys",
        f"{API}/repositories/ü",
    ],
)
def test_every_other_redirect_is_refused(location: str | None, download: bool) -> None:
    with pytest.raises(BadAnswer, match=r"^o/r: GitHub answered a redirect"):
        follow(location, download=download)


@pytest.mark.parametrize(
    "location", [f"{API}/user/keys", "https://codeload.github.com/o/r", "https://ghe.example/login"]
)
def test_an_api_answer_is_followed_to_repositories_only(location: str) -> None:
    with pytest.raises(BadAnswer):
        follow(location)


def test_a_refused_address_is_named_without_the_token_it_holds() -> None:
    with pytest.raises(BadAnswer) as raised:
        follow("https://user:hunter2@evil.example/x?token=SECRET#SECRET")
    assert "evil.example/x" in str(raised.value)
    assert "SECRET" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_redacted_address_keeps_scheme_host_and_path_only() -> None:
    assert redacted("https://u:p@host:1/a/b?c=d#e") == "https://host:1/a/b"
    assert redacted("http://[::1") == "an address that cannot be read"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        (f"{API}/repositories/42/commits/heads/main", 42),
        (f"{API}/repositories/42", 42),
        (f"{API}/repos/repositories/42", None),
        (f"{API}/repositories/42x", None),
    ],
)
def test_the_id_in_an_address_is_read(url: str, named: int | None) -> None:
    assert repository_id(url, api_url=API) == named
