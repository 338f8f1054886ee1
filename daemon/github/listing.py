"""All repositories of an owner, page by page: complete, or an error.

Which endpoint shows private ones depends on who asks: an organisation's list, the token's own, an App's installation
(https://docs.github.com/rest/repos/repos). A page is found by the ``Link`` of the one before, on the API's own host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from daemon.errors import BadAnswer, Forbidden, RepositoryNotFound
from daemon.github import redirects, shapes
from daemon.github.calls import Call
from daemon.github.protocol import Answer, Subject, parse_json
from daemon.model import ListedRepository

MAX_PAGES = 200  # of a hundred each

_PAGES = "per_page=100&sort=created&direction=asc"  # what is made meanwhile comes last, so no page shifts
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,<>]*\brel="?next"?(?=[;,\s]|$)', re.IGNORECASE)

Ask = Callable[[Call], Answer]


def repositories(
    ask: Ask, owner: str, *, api_url: str, installation: bool, known_caller: bool
) -> list[ListedRepository]:
    """What ``owner`` has, each once.

    ``installation``: an App asks, which is shown what it is installed on. ``known_caller``: with a token, whose own
    private repositories only its own list has. Raises GitHubError; then nothing is known.
    """
    asked = f"the repositories of {owner}"
    path = "/installation/repositories?per_page=100" if installation else _path(ask, owner, known_caller=known_caller)
    found = {one.github_id: one for one in _listed(ask, path, owner, api_url=api_url, asked=asked)}
    return [one for one in found.values() if one.owner.lower() == owner.lower()]


def next_page(link: str | None, *, at: str, api_url: str, asked: str) -> str | None:
    """Where a ``Link`` header says that the list goes on; BadAnswer when that is not on the API's own host."""
    found = _NEXT.search(link or "")
    if found is None:
        return None
    url = redirects.on_api(found[1], at=at, api_url=api_url)
    if url is None:
        shown = redirects.redacted(found[1])[:200]
        raise BadAnswer(f"{asked}: the next page would be {shown!r}, where headwater does not follow; nothing changes")
    return url


def _path(ask: Ask, owner: str, *, known_caller: bool) -> str:
    account = _account(ask, f"/users/{owner}", owner, asked=f"the owner {owner}")
    if account.get("type") == "Organization":
        return f"/orgs/{owner}/repos?type=all&{_PAGES}"
    if known_caller and _is_caller(ask, owner):
        return f"/user/repos?affiliation=owner&{_PAGES}"
    return f"/users/{owner}/repos?type=owner&{_PAGES}"


def _is_caller(ask: Ask, owner: str) -> bool:
    try:
        login = _account(ask, "/user", owner, asked="the token's own user").get("login")
    except (Forbidden, RepositoryNotFound):  # a token that is nobody's, such as an Actions one
        return False
    return isinstance(login, str) and login.lower() == owner.lower()


def _account(ask: Ask, path: str, owner: str, *, asked: str) -> dict[str, Any]:
    call = Call(endpoint="owner", asked=asked, asker=owner, path=path, subject=Subject.REPOSITORY)
    return shapes.object_of(parse_json(ask(call), asked=asked), asked=asked)


def _listed(ask: Ask, path: str, owner: str, *, api_url: str, asked: str) -> Iterator[ListedRepository]:
    url: str | None = api_url.rstrip("/") + path
    seen: set[str] = set()
    while url is not None:
        if url in seen:
            raise BadAnswer(f"{asked}: GitHub's pages lead in a circle; nothing changes, it is asked again later")
        if len(seen) == MAX_PAGES:
            raise BadAnswer(f"{asked}: there are more than {MAX_PAGES} pages of them; configure them by name")
        seen.add(url)
        answer = ask(Call(endpoint="repositories", asked=asked, asker=owner, url=url, subject=Subject.REPOSITORY))
        for item in _items(parse_json(answer, asked=asked), asked=asked):
            yield _repository(item, asked=asked)
        url = next_page(answer.headers.get("link"), at=url, api_url=api_url, asked=asked)


def _items(value: object, *, asked: str) -> list[Any]:
    if isinstance(value, dict):  # an installation's list stands in an object
        value = value.get("repositories")
    return shapes.list_of(value, asked=asked)


def _repository(value: object, *, asked: str) -> ListedRepository:
    body = shapes.object_of(value, asked=asked)
    owner, name = shapes.split_name(body.get("full_name"), asked=asked)
    topics = body.get("topics")
    return ListedRepository(
        github_id=shapes.count_of(body.get("id"), "id", asked=asked),
        owner=owner,
        name=name,
        archived=body.get("archived") is True,
        fork=body.get("fork") is True,
        private=body.get("private") is True,
        topics=frozenset(one.lower() for one in topics if isinstance(one, str))
        if isinstance(topics, list)
        else frozenset(),
    )
