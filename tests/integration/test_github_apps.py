"""A GitHub App against the stand-in: whose token asks about what, and what becomes of tokens that end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from app_key import AppKey, make_key
from bench import MovableClock

from daemon import errors
from daemon.appkey import PrivateKey
from daemon.demo.standin import GitRepo, Hold, Installation, StandIn, Status
from daemon.github import ClientSettings, GitHubClient, Governor
from daemon.github.apps import AppSettings
from daemon.model import HeadsQuery, RepositoryRef

APP_ID = "Iv1.headwater"
DATA, MORE, ACME = RepositoryRef("octo", "data"), RepositoryRef("octo", "more"), RepositoryRef("acme", "site")

Make = Callable[..., GitHubClient]


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def github(clock: MovableClock, app_key: AppKey) -> Iterator[StandIn]:
    """A stand-in with an App and no token of its own, on the clock that the client has."""
    with StandIn(token="nobody has this one", clock=clock.clock) as standin:
        standin.apps.register(APP_ID, app_key.public)
        yield standin


@pytest.fixture
def repo(tmp_path: Path, github: StandIn) -> GitRepo:
    repo = GitRepo.init(tmp_path / "served.git")
    repo.commit({"README.md": b"# Data\n"}, "Begin")
    for ref in (DATA, MORE, ACME):
        github.add(ref.full_name, repo.path, private=True)
    return repo


@pytest.fixture
def octo(github: StandIn, repo: GitRepo) -> Installation:
    return github.apps.install("Octo")


@pytest.fixture
def acme(github: StandIn, repo: GitRepo) -> Installation:
    return github.apps.install("acme")


@pytest.fixture
def key_file(tmp_path: Path, app_key: AppKey) -> Path:
    path = tmp_path / "app.pem"
    path.write_text(app_key.private)
    return path


@pytest.fixture
def make(github: StandIn, clock: MovableClock, key_file: Path) -> Iterator[Make]:
    made: list[GitHubClient] = []

    def make(**changes: object) -> GitHubClient:
        its = changes.pop("clock", clock.clock)
        client = GitHubClient(settings(github, key_file, **changes), clock=its, governor=Governor(its))
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make: Make) -> GitHubClient:
    return make()


def settings(github: StandIn, key_file: Path, **changes: object) -> ClientSettings:
    app = {"app_id": APP_ID, "key": PrivateKey(key_file), "installation_id": None} | changes
    return ClientSettings(github.url, f"{github.url}/graphql", 60.0, lambda: None, app=AppSettings(**app))


def asked(github: StandIn) -> list[str]:
    """The paths that were asked for since the last call."""
    paths = [f"{one.method} {one.path}" for one in github.requests.all()]
    github.requests.clear()
    return paths


def token_request(installation: Installation) -> str:
    return f"POST /app/installations/{installation.id}/access_tokens"


# -- which installation ------------------------------------------------------------------------------


def test_an_owners_repositories_are_those_its_installation_is_shown(
    client: GitHubClient, octo: Installation, acme: Installation
) -> None:
    assert [one.full_name for one in client.repositories_of("octo")] == ["octo/data", "octo/more"]
    assert [one.full_name for one in client.repositories_of("acme")] == ["acme/site"]
    with pytest.raises(errors.Forbidden, match="not installed"):
        client.repositories_of("nobody")


def test_the_installation_of_an_owner_is_found_once_and_its_token_used_again(
    client: GitHubClient, github: StandIn, repo: GitRepo, octo: Installation
) -> None:
    assert client.head(DATA, "main") == repo.head()
    assert asked(github) == [
        "GET /repos/octo/data/installation",
        token_request(octo),
        "GET /repos/octo/data/commits/heads/main",
    ]
    assert client.head(MORE, "main") == repo.head()
    assert asked(github) == ["GET /repos/octo/more/commits/heads/main"]


def test_what_the_app_asks_for_itself_counts_as_requests_too(client: GitHubClient, octo: Installation) -> None:
    with client.tally() as tally:
        client.head(DATA, "main")
    assert tally.requests == 3


def test_a_configured_installation_is_not_looked_for(make: Make, github: StandIn, octo: Installation) -> None:
    make(installation_id=octo.id).head(DATA, "main")
    assert asked(github)[0] == token_request(octo)


def test_heads_of_several_owners_come_in_the_order_asked_each_with_its_own_token(
    client: GitHubClient, github: StandIn, repo: GitRepo, octo: Installation, acme: Installation
) -> None:
    found = client.heads([HeadsQuery(ref, ("main",)) for ref in (DATA, ACME, MORE)])
    assert [one.repository.name for one in found if one.repository] == ["data", "site", "more"]
    assert [one.heads for one in found] == [{"main": repo.head()}] * 3
    assert asked(github).count("POST /graphql") == 2


def test_without_an_installation_only_that_owners_repositories_fail(
    client: GitHubClient, github: StandIn, repo: GitRepo, octo: Installation
) -> None:
    absent, present = client.heads([HeadsQuery(ACME, ("main",)), HeadsQuery(DATA, ("main",))])
    assert isinstance(absent.error, errors.Forbidden)
    assert "acme/site: GitHub App Iv1.headwater is not installed for acme" in str(absent.error)
    assert present.heads == {"main": repo.head()}
    by_rest = client.heads_by_rest(HeadsQuery(ACME, ("main",)))
    assert isinstance(by_rest.error, errors.Forbidden)


def test_a_missing_installation_is_not_asked_about_for_a_minute_and_then_found(
    client: GitHubClient, github: StandIn, clock: MovableClock, repo: GitRepo
) -> None:
    for _ in range(3):
        with pytest.raises(errors.Forbidden, match="install it there"):
            client.head(DATA, "main")
    assert asked(github) == ["GET /repos/octo/data/installation"]
    github.apps.install("octo")
    clock.advance(61.0)
    assert client.head(DATA, "main") == repo.head()


def test_a_repository_that_was_not_selected_keeps_no_other_of_its_owner_from_being_read(
    client: GitHubClient, github: StandIn, repo: GitRepo
) -> None:
    github.apps.install("octo", ["more"])
    unselected, selected = client.heads([HeadsQuery(DATA, ("main",)), HeadsQuery(MORE, ("main",))])
    assert isinstance(unselected.error, errors.RepositoryNotFound)
    assert selected.heads == {"main": repo.head()}


def test_an_app_that_is_installed_again_is_found_again(
    client: GitHubClient, github: StandIn, repo: GitRepo, octo: Installation
) -> None:
    client.head(DATA, "main")
    github.apps.uninstall(octo)
    with pytest.raises(errors.Forbidden, match=rf"has no installation {octo.id} \(any more\); install it again"):
        client.head(DATA, "main")
    github.apps.install("octo")
    assert client.head(DATA, "main") == repo.head()


def test_a_suspended_installation_says_so_and_is_left_alone_for_a_minute(
    client: GitHubClient, github: StandIn, clock: MovableClock, octo: Installation
) -> None:
    octo.suspended_at = clock.at
    for _ in range(3):
        (found,) = client.heads([HeadsQuery(DATA, ("main",))])
        assert isinstance(found.error, errors.Forbidden)
        assert "suspended" in str(found.error)
    assert asked(github).count(token_request(octo)) == 1


def test_a_renamed_repository_is_followed_with_the_installations_token(
    client: GitHubClient, github: StandIn, octo: Installation
) -> None:
    github.rename("octo/data", "octo/renamed")
    assert client.repository(DATA).name == "renamed"
    assert client.head(DATA, "main")


def test_a_repository_that_moved_to_another_owner_is_found_through_that_ones_installation(
    client: GitHubClient, github: StandIn, repo: GitRepo, octo: Installation, acme: Installation
) -> None:
    known = replace(DATA, github_id=client.repository(DATA).github_id)
    github.rename("octo/data", "acme/moved")
    for ref in (known, DATA):
        assert client.repository(ref).owner == "acme"
        assert client.heads_by_rest(HeadsQuery(ref, ("main",), identify=True)).heads == {"main": repo.head()}
    assert client.head(MORE, "main") == repo.head()
    github.remove("acme/moved")
    with pytest.raises(errors.RepositoryNotFound):
        client.repository(known)


def test_a_name_that_leads_to_another_owner_from_the_start_does_not_mix_the_owners_up(
    client: GitHubClient, github: StandIn, repo: GitRepo, octo: Installation, acme: Installation
) -> None:
    github.rename("octo/data", "acme/moved")
    assert client.repository(DATA).owner == "acme"
    assert client.head(MORE, "main") == repo.head()
    assert client.head(ACME, "main") == repo.head()


def test_an_owner_can_be_asked_for_without_naming_a_repository(
    client: GitHubClient, github: StandIn, octo: Installation, acme: Installation
) -> None:
    app = client.app
    assert app is not None
    assert app.credential("ACME").account == f"installation {acme.id}"
    for _ in range(2):
        with pytest.raises(errors.Forbidden, match="not installed for lost; install it there"):
            app.credential("lost")
    assert asked(github).count("GET /app/installations") == 2


def test_an_app_of_an_enterprise_server_works_the_same_below_its_base(
    client: GitHubClient, github: StandIn, key_file: Path, repo: GitRepo, octo: Installation
) -> None:
    base = replace(settings(github, key_file), api_url=f"{github.url}/api/v3", graphql_url=f"{github.url}/api/graphql")
    client.reconfigure(base)
    (found,) = client.heads([HeadsQuery(DATA, ("main",))])
    assert found.heads == {"main": repo.head()}
    github.rename("octo/data", "octo/renamed")
    assert client.repository(DATA).name == "renamed"
    with client.tarball(DATA, repo.head(), max_bytes=10**6) as pieces:
        assert b"".join(pieces)
    paths = {path for path in asked(github) if "/codeload/" not in path}
    assert all("/api/v3/" in path or path == "POST /api/graphql" for path in paths)


def test_another_installations_limit_or_absence_of_one_does_not_stop_reads(
    client: GitHubClient, github: StandIn, repo: GitRepo, octo: Installation, acme: Installation
) -> None:
    github.limit(remaining=0, reset_in=600, installation=octo)
    with pytest.raises(errors.RateLimited, match=f"of installation {octo.id}"):
        client.head(DATA, "main")
    assert client.head(ACME, "main") == repo.head()
    asked(github)
    with pytest.raises(errors.RateLimited):
        client.head(DATA, "main")
    assert asked(github) == []


# -- its token ---------------------------------------------------------------------------------------


def test_a_token_is_renewed_minutes_before_its_end(
    client: GitHubClient, github: StandIn, clock: MovableClock, octo: Installation
) -> None:
    client.head(DATA, "main")
    clock.advance(3600.0 - 310.0)
    client.head(DATA, "main")
    assert github.apps.issued == 1
    clock.advance(20.0)
    client.head(DATA, "main")
    assert github.apps.issued == 2


def test_the_end_of_a_token_is_reckoned_by_githubs_clock(
    github: StandIn, make: Make, clock: MovableClock, octo: Installation
) -> None:
    behind = replace(clock.clock, now=lambda: clock.at - timedelta(minutes=8))
    client = make(clock=behind)
    github.apps.lifetime_seconds = 1200.0
    client.head(DATA, "main")
    clock.advance(1200.0 - 290.0)
    client.head(DATA, "main")
    assert github.apps.issued == 2


def test_a_wall_clock_that_jumps_voids_no_signature(
    github: StandIn, make: Make, clock: MovableClock, octo: Installation
) -> None:
    wrong = [timedelta()]
    client = make(clock=replace(clock.clock, now=lambda: clock.at + wrong[-1]))
    client.head(DATA, "main")
    for jumped in (timedelta(days=-1), timedelta(days=3650), timedelta()):
        wrong.append(jumped)
        clock.advance(3400.0)
        client.head(DATA, "main")
    assert github.apps.issued == 4
    assert github.requests.count(status=401) == 0


def test_a_wall_clock_that_is_wrong_from_the_start_is_corrected_by_githubs_within_seconds(
    github: StandIn, make: Make, clock: MovableClock, octo: Installation
) -> None:
    client = make(clock=replace(clock.clock, now=lambda: clock.at + timedelta(hours=1)))
    with pytest.raises(errors.Unauthorized, match="this machine's clock"):
        client.head(DATA, "main")
    clock.advance(6.0)
    client.head(DATA, "main")


def test_a_token_goes_on_being_used_while_its_early_renewal_fails(
    client: GitHubClient, github: StandIn, clock: MovableClock, octo: Installation
) -> None:
    client.head(DATA, "main")
    github.faults.add("access_tokens", Status(503))
    clock.advance(3400.0)
    asked(github)
    client.head(DATA, "main")
    assert asked(github).count(token_request(octo)) == 3
    client.head(DATA, "main")
    assert asked(github) == ["GET /repos/octo/data/commits/heads/main"]
    clock.advance(300.0)
    with pytest.raises(errors.Unreachable):
        client.head(DATA, "main")


def test_many_threads_make_one_token(client: GitHubClient, github: StandIn, octo: Installation) -> None:
    hold = Hold()
    github.faults.add("access_tokens", hold)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(client.head(DATA, "main"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert hold.reached.wait(30)
    hold.release()
    for thread in threads:
        thread.join(30)
    assert (len(found), github.apps.issued) == (8, 1)


def test_while_one_thread_renews_a_token_the_others_go_on_with_the_old_one(
    client: GitHubClient, github: StandIn, clock: MovableClock, octo: Installation
) -> None:
    client.head(DATA, "main")
    clock.advance(3400.0)
    hold = Hold(late=True)
    github.faults.add("access_tokens", hold)
    renewing = threading.Thread(target=lambda: client.head(DATA, "main"))
    renewing.start()
    assert hold.reached.wait(30)
    client.head(DATA, "main")
    assert github.apps.issued == 1
    hold.release()
    renewing.join(30)
    assert github.apps.issued == 2


def test_a_fresh_token_that_github_does_not_know_yet_is_given_some_seconds(
    client: GitHubClient, github: StandIn, clock: MovableClock, repo: GitRepo, octo: Installation
) -> None:
    github.apps.late_seconds = 5.0
    before = clock.at
    assert client.head(DATA, "main") == repo.head()
    assert 5.0 <= (clock.at - before).total_seconds() <= 8.0
    assert github.apps.issued == 1
    asked(github)
    client.head(DATA, "main")  # nothing holds against the token that it was refused
    assert len(asked(github)) == 1


def test_a_token_that_is_refused_later_is_replaced_at_once(
    client: GitHubClient, github: StandIn, clock: MovableClock, repo: GitRepo, octo: Installation
) -> None:
    client.head(DATA, "main")
    github.apps.revoke_tokens()
    before = clock.at
    assert client.head(DATA, "main") == repo.head()
    assert (github.apps.issued, clock.at) == (2, before)


def test_an_archive_is_streamed_with_a_new_token_too(
    client: GitHubClient, github: StandIn, repo: GitRepo, octo: Installation
) -> None:
    client.head(DATA, "main")
    github.apps.revoke_tokens()
    with client.tarball(DATA, repo.head(), max_bytes=10**6) as pieces:
        assert b"".join(pieces)[:2] == b"\x1f\x8b"
    assert github.apps.issued == 2


def test_what_refuses_every_token_is_left_alone_for_a_minute(
    client: GitHubClient, github: StandIn, clock: MovableClock, octo: Installation, acme: Installation
) -> None:
    rule = github.faults.add("/repos/octo/data/commits", Status(401))
    with pytest.raises(errors.Unauthorized, match="check the App's installation"):
        client.head(DATA, "main")
    assert asked(github).count("GET /repos/octo/data/commits/heads/main") == 5
    with pytest.raises(errors.Unauthorized, match=f"installation {octo.id}"):
        client.head(DATA, "main")
    assert "GET /repos/octo/data/commits/heads/main" not in asked(github)
    client.head(ACME, "main")
    github.faults.remove(rule)
    clock.advance(61.0)
    client.head(DATA, "main")


# -- the key -----------------------------------------------------------------------------------------


def test_a_key_that_is_replaced_in_its_file_is_used_from_then_on(
    client: GitHubClient, github: StandIn, key_file: Path, octo: Installation, acme: Installation
) -> None:
    client.head(DATA, "main")
    other = make_key()
    key_file.write_text(other.private)
    github.apps.register(APP_ID, other.public)
    client.head(ACME, "main")
    key_file.write_text("half of a ro")
    github.apps.uninstall(octo)
    github.apps.install("octo")
    with pytest.raises(errors.Forbidden):
        client.head(DATA, "main")
    client.head(DATA, "main")


def test_a_wrong_key_is_refused_once_a_minute_and_the_error_says_what_to_check(
    client: GitHubClient, github: StandIn, key_file: Path, octo: Installation
) -> None:
    key_file.write_text(make_key().private)
    with pytest.raises(errors.Unauthorized, match=r"check github\.app_id, github\.private_key_file and this machine's"):
        client.head(DATA, "main")
    with pytest.raises(errors.Unauthorized, match=r"GitHub App Iv1\.headwater"):
        client.head(DATA, "main")
    assert asked(github) == ["GET /repos/octo/data/installation"]


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\xff\xfe"])
def test_without_a_readable_key_the_error_names_the_file_and_nothing_is_asked(
    client: GitHubClient, github: StandIn, key_file: Path, octo: Installation, content: bytes | None
) -> None:
    key_file.unlink()
    if content is not None:
        key_file.write_bytes(content)
    with pytest.raises(errors.Unauthorized, match=r"app\.pem (cannot read the key|holds no RSA private key)"):
        client.head(DATA, "main")
    assert asked(github) == []


# -- secrets -----------------------------------------------------------------------------------------


def test_keys_and_tokens_are_known_as_secrets_and_never_quoted(
    client: GitHubClient, github: StandIn, app_key: AppKey, octo: Installation
) -> None:
    github.apps.token_prefix = "v1."  # as older Enterprise Servers make them: no shape gives them away
    client.head(DATA, "main")
    (token,) = [one for one in client.secrets() if one.startswith("v1.")]
    github.faults.add("/repos/octo/data/commits", Status(404, {"message": f"nothing for {token} here"}))
    with pytest.raises(errors.GitHubError, match="nothing for") as raised:
        client.head(DATA, "main")
    assert token not in str(raised.value)
    assert app_key.private.strip() in client.secrets()
    assert sum(one.startswith("eyJ") for one in client.secrets()) == 2


# -- reload ------------------------------------------------------------------------------------------


def test_a_reload_keeps_the_installations_of_the_same_app_and_forgets_those_of_another(
    client: GitHubClient, github: StandIn, key_file: Path, octo: Installation
) -> None:
    client.head(DATA, "main")
    asked(github)
    client.reconfigure(settings(github, key_file))
    client.head(DATA, "main")
    assert asked(github) == ["GET /repos/octo/data/commits/heads/main"]
    client.reconfigure(settings(github, key_file, app_id="other"))
    with pytest.raises(errors.Unauthorized):
        client.head(DATA, "main")


def test_a_reload_asks_again_about_what_was_missing(
    client: GitHubClient, github: StandIn, key_file: Path, repo: GitRepo
) -> None:
    with pytest.raises(errors.Forbidden):
        client.head(DATA, "main")
    github.apps.install("octo")
    client.reconfigure(settings(github, key_file))
    assert client.head(DATA, "main") == repo.head()
