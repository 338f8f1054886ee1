"""A GitHub App: which of its installations reads a repository, and with which token.

An installation belongs to one owner, so it is found once for each and remembered. Its tokens live an hour; they are
kept in memory only and replaced early, by one thread at a time, while the others go on with the old one.
Source: https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote

from daemon.appkey import PrivateKey
from daemon.clock import Clock, OtherClock
from daemon.errors import BadAnswer, Forbidden, ObjectNotFound, Outage, Unauthorized
from daemon.github import shapes
from daemon.github.auth import Credential, checked_token
from daemon.github.protocol import Answer, parse_json
from daemon.model import RepositoryRef

LIFETIME_SECONDS = 3600.0
RENEWED_BEFORE_SECONDS = 300.0
ANOTHER_TRY_SECONDS = 30.0  # at an early renewal, when GitHub could not be asked
REFUSED_SECONDS = 60.0  # how long a missing or suspended installation is not asked about again
REMEMBERED_SECRETS = 8
PAGE = 100
MOST_PAGES = 100

APP_REMEDY = "check github.app_id, github.private_key_file and this machine's clock"
INSTALLATION_REMEDY = "check the App's installation on GitHub"

# Whose token asks: of the installation that reads a repository, of an owner's, of that with a number, or the App's own.
Asker = RepositoryRef | str | int | None


@dataclass(frozen=True, slots=True)
class AppSettings:
    """What the configuration says of the App; without ``installation_id`` it is found for each owner."""

    app_id: str
    key: PrivateKey
    installation_id: int | None = None


@dataclass(frozen=True, slots=True)
class Installation:
    """One installation as GitHub lists it; ``selected`` when it may see chosen repositories only."""

    id: int
    owner: str
    suspended: bool
    selected: bool


class Asking(Protocol):
    """Makes one request of the App itself, and gives the 2xx answer."""

    def __call__(self, endpoint: str, path: str, *, asked: str, method: str = "GET") -> Answer: ...


@dataclass(frozen=True, slots=True)
class _Issued:
    """A token of an installation; instants are of the monotonic clock."""

    credential: Credential
    renew_at: float
    ends_at: float


class App:
    """Gives each request its credential. Thread-safe; ``settings`` may be replaced by others of the same App."""

    def __init__(self, settings: AppSettings, ask: Asking, clock: Clock, github_clock: OtherClock) -> None:
        self.settings = settings
        self._ask = ask
        self._clock = clock
        self._github_clock = github_clock
        self._guard = threading.Lock()
        self._locks: defaultdict[Hashable, threading.Lock] = defaultdict(threading.Lock)
        self._found: dict[str, int] = {}  # installation by owner, and by repository, in lower case
        self._issued: dict[int, _Issued] = {}
        self._refusals: dict[Hashable, tuple[float, str]] = {}
        self._secrets: deque[str] = deque(maxlen=REMEMBERED_SECRETS)

    def account_of(self, ref: RepositoryRef) -> str:
        """What two repositories have in common that the same installation reads."""
        return "" if self.settings.installation_id is not None else ref.owner.lower()

    def credential(self, asker: Asker) -> Credential:
        """What a request of ``asker`` is made with.

        Raises Forbidden when there is no such installation or it is suspended, Outage, BadAnswer or Unauthorized.
        """
        if asker is None:
            return self._own()
        return self._current(asker if isinstance(asker, int) else self._installation_of(asker))

    def look_up(self, ref: RepositoryRef) -> int:
        """The installation that reads a repository wherever it is now. Raises Forbidden when none does."""
        self._refuse_again(ref.full_name.lower())
        asked = f"{ref.full_name}: the installation of {self._called}"
        path = f"/repos/{quote(ref.owner, safe='')}/{quote(ref.name, safe='')}/installation"
        try:
            found = self._json("installation", path, asked=asked)
        except ObjectNotFound as error:
            raise self._refusal(
                ref.full_name.lower(),
                f"{ref.full_name}: {self._called} is not installed for {ref.owner} with access to this repository; "
                "install it there, or correct the name",
            ) from error
        return self._learnt(_installation(found, asked=asked), ref)

    def forget(self, credential: Credential) -> None:
        """Use a token no more that GitHub refuses."""
        with self._guard:
            self._issued = {key: one for key, one in self._issued.items() if one.credential is not credential}

    def forget_refusals(self) -> None:
        """Ask again at once about what was missing or suspended."""
        with self._guard:
            self._refusals.clear()

    def secrets(self) -> list[str]:
        """What must not be shown: the keys and the last tokens."""
        with self._guard:
            return [*self.settings.key.seen(), *self._secrets]

    def name(self) -> str:
        """What the App is called on GitHub."""
        asked = self._called
        facts = shapes.object_of(self._json("app", "/app", asked=asked), asked=asked)
        return shapes.text_of(facts.get("slug") or facts.get("name"), "name", asked=asked)

    def installations(self) -> Iterator[Installation]:
        """All of them, page by page."""
        asked = f"the installations of {self._called}"
        for page in range(1, MOST_PAGES + 1):
            path = f"/app/installations?per_page={PAGE}&page={page}"
            listed = shapes.list_of(self._json("installations", path, asked=asked), asked=asked)
            yield from (_installation(one, asked=asked) for one in listed)
            if len(listed) < PAGE:
                return

    @property
    def _called(self) -> str:
        return f"GitHub App {self.settings.app_id}"

    def _own(self) -> Credential:
        try:
            token = self.settings.key.sign(self.settings.app_id, now=self._now())
        except ValueError as error:
            raise Unauthorized(f"the key of {self._called}: {self.settings.key.path} {error}") from error
        self._hide(token)
        return Credential(token, self._called, remedy=APP_REMEDY)

    def _now(self) -> datetime:
        """GitHub's time: by a wall clock that is wrong or has jumped every signature would be void."""
        return self._github_clock.now() or self._clock.now()

    def _hide(self, secret: str) -> None:
        with self._guard:
            self._secrets.append(secret)

    def _json(self, endpoint: str, path: str, *, asked: str) -> Any:
        return parse_json(self._ask(endpoint, path, asked=asked), asked=asked)

    # -- which installation -----------------------------------------------------------------------

    def _installation_of(self, asker: RepositoryRef | str) -> int:
        if self.settings.installation_id is not None:
            return self.settings.installation_id
        owner = (asker if isinstance(asker, str) else asker.owner).lower()
        with self._lock(owner):
            known = self._found.get(owner)
            if known is None and isinstance(asker, RepositoryRef):
                known = self._found.get(asker.full_name.lower())
            if known is not None:
                return known
            return self._of_owner(asker) if isinstance(asker, str) else self.look_up(asker)

    def _of_owner(self, owner: str) -> int:
        self._refuse_again(owner.lower())
        for one in self.installations():
            if one.owner.lower() == owner.lower():
                return self._learnt(one)
        raise self._refusal(owner.lower(), f"{self._called} is not installed for {owner}; install it there")

    def _learnt(self, installation: Installation, ref: RepositoryRef | None = None) -> int:
        """Remember it for its own owner; a repository that moved there from another one is no reason to mix them up."""
        with self._guard:
            self._found[installation.owner.lower()] = installation.id
            if ref is not None:
                self._found[ref.full_name.lower()] = installation.id
        return installation.id

    # -- its token --------------------------------------------------------------------------------

    def _current(self, installation: int) -> Credential:
        issued = self._issued.get(installation)
        now = self._clock.monotonic()
        if issued is not None and now < issued.renew_at:
            return issued.credential
        lock = self._lock(installation)
        if not lock.acquire(blocking=issued is None or now >= issued.ends_at):
            assert issued is not None
            return issued.credential  # another thread is replacing it
        try:
            return self._replaced(installation)
        finally:
            lock.release()

    def _replaced(self, installation: int) -> Credential:
        issued = self._issued.get(installation)
        now = self._clock.monotonic()
        if issued is not None and now < issued.renew_at:
            return issued.credential
        try:
            fresh = self._create(installation)
        except Outage:
            if issued is None or now >= issued.ends_at:
                raise
            fresh = _Issued(issued.credential, now + ANOTHER_TRY_SECONDS, issued.ends_at)
        with self._guard:
            self._issued[installation] = fresh
        return fresh.credential

    def _create(self, installation: int) -> _Issued:
        self._refuse_again(installation)
        asked = f"a token of installation {installation} of {self._called}"
        path = f"/app/installations/{installation}/access_tokens"
        try:
            answer = self._ask("installation_token", path, asked=asked, method="POST")
        except ObjectNotFound as error:
            self._lose(installation)
            remedy = "install it again" if self.settings.installation_id is None else "correct github.installation_id"
            raise self._refusal(
                installation, f"{self._called} has no installation {installation} (any more); {remedy}"
            ) from error
        except Forbidden as error:
            raise self._refusal(installation, f"{error}; is the installation suspended?") from error
        facts = shapes.object_of(parse_json(answer, asked=asked), asked=asked)
        token = shapes.text_of(facts.get("token"), "token", asked=asked)
        self._hide(token)
        seconds = _lifetime(facts.get("expires_at"), now=self._now(), asked=asked)
        account = f"installation {installation}"
        credential = Credential(checked_token(token), account, renewable=True, remedy=INSTALLATION_REMEDY)
        created = self._clock.monotonic()
        return _Issued(credential, created + seconds - min(RENEWED_BEFORE_SECONDS, seconds / 2), created + seconds)

    # -- what there is not ------------------------------------------------------------------------

    def _lose(self, installation: int) -> None:
        with self._guard:
            self._found = {owner: known for owner, known in self._found.items() if known != installation}
            self._issued.pop(installation, None)

    def _refusal(self, key: Hashable, sentence: str) -> Forbidden:
        with self._guard:
            self._refusals[key] = (self._clock.monotonic() + REFUSED_SECONDS, sentence)
        return Forbidden(sentence)

    def _refuse_again(self, key: Hashable) -> None:
        with self._guard:
            until, sentence = self._refusals.get(key, (0.0, ""))
        if self._clock.monotonic() < until:
            raise Forbidden(sentence)

    def _lock(self, key: Hashable) -> threading.Lock:
        with self._guard:
            return self._locks[key]


def _installation(value: object, *, asked: str) -> Installation:
    facts = shapes.object_of(value, asked=asked)
    account = shapes.object_of(facts.get("account") or {}, asked=asked)
    return Installation(
        id=shapes.count_of(facts.get("id"), "installation id", asked=asked),
        owner=str(account.get("login") or account.get("slug") or ""),  # a deleted account has neither
        suspended=facts.get("suspended_at") is not None,
        selected=facts.get("repository_selection") == "selected",
    )


def _lifetime(expires_at: object, *, now: datetime, asked: str) -> float:
    """Seconds until a token ends."""
    try:
        end = datetime.fromisoformat(str(expires_at))
    except ValueError:
        raise BadAnswer(f"{asked}: GitHub's answer does not say when it ends; it is asked again later") from None
    end = end.replace(tzinfo=UTC) if end.tzinfo is None else end
    return max(1.0, min((end - now).total_seconds(), LIFETIME_SECONDS))
