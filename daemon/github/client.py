"""The only door to GitHub: what the rest of headwater may ask, as values of the model or typed errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

from daemon.clock import Clock
from daemon.errors import (
    BadAnswer,
    BranchNotFound,
    Forbidden,
    GraphQLUnavailable,
    ObjectNotFound,
    RepositoryEmpty,
    RepositoryNotFound,
    RepositoryRecreated,
    RepositoryReplaced,
)
from daemon.github import listing, shapes
from daemon.github import queries as graphql
from daemon.github.apps import App, Asker
from daemon.github.batching import Batches
from daemon.github.exchange import Call, ClientSettings, Exchange, RequestSeen, Tally
from daemon.github.governor import GRAPHQL, Governor
from daemon.github.hooks import Hooks
from daemon.github.paths import repository_path
from daemon.github.protocol import Answer, Subject, is_sha, parse_json
from daemon.github.tokenfacts import TokenFacts, token_facts
from daemon.model import (
    EMPTY_BLOB_SHA,
    EMPTY_TREE_SHA,
    Commit,
    Comparison,
    Difference,
    HeadsQuery,
    ListedRepository,
    RemoteRepository,
    RemoteTree,
    RepositoryHeads,
    RepositoryRef,
)
from daemon.values import Network

_T = TypeVar("_T")
_A = TypeVar("_A")

SHA = "application/vnd.github.sha"
RAW = "application/vnd.github.raw+json"
PAGE = 100
TOKEN_ASKED = "the token"  # noqa: S105 - what is asked about
MAX_HEAD_BYTES = 2**20  # 40 from GitHub; the whole commit from a server that knows no bare ids
MOST_BY_ID = 10  # of one batch

_OWN_ERRORS = (BadAnswer, Forbidden, RepositoryNotFound, RepositoryReplaced)


class GitHubClient:
    """Reads repositories. Thread-safe; every call ends within its deadline and raises only `GitHubError`."""

    def __init__(
        self,
        settings: ClientSettings,
        *,
        clock: Clock,
        governor: Governor,
        on_request: Callable[[RequestSeen], None] | None = None,
    ) -> None:
        self._exchange = Exchange(settings, clock=clock, governor=governor, on_request=on_request or _ignore)
        self._batches = Batches(self._heads_batch)
        self.governor = governor
        self.hooks = Hooks(self._exchange)

    def reconfigure(self, settings: ClientSettings) -> None:
        """Use other settings from the next call on; calls that run keep theirs."""
        self._exchange.adopt(settings)

    def close(self) -> None:
        """Close every kept connection."""
        self._exchange.close()

    @property
    def app(self) -> App | None:
        """The GitHub App that is asked as, if there is one."""
        return self._exchange.app

    def account_of(self, ref: RepositoryRef) -> str:
        """What repositories have in common that are read with one credential, and so out of one budget."""
        return self._exchange.account_of(ref)

    def secrets(self) -> list[str]:
        """What no log may show, beyond the configuration's own secrets."""
        return self.app.secrets() if self.app is not None else []

    def tally(self) -> AbstractContextManager[Tally]:
        """Count the HTTP requests that this thread makes inside."""
        return self._exchange.tally()

    def time_at_github(self) -> datetime | None:
        """What GitHub's clock says now, as its last answer told; None before the first."""
        return self._exchange.github_clock.now()

    def alongside(self, work: Callable[[_A], _T]) -> Callable[[_A], _T]:
        """``work`` for threads that this one starts: what they ask counts as asked by this one."""
        return self._exchange.alongside(work)

    def background(self) -> AbstractContextManager[None]:
        """Mark what this thread asks inside as polling: it leaves a fifth of the budget to deliveries."""
        return self._exchange.background()

    def repository(self, ref: RepositoryRef) -> RemoteRepository:
        """What the repository is now, under its current name; also found by its id once the name is gone.

        ``default_branch`` is named even while the repository has no commit: REST does not tell. Raises
        RepositoryRecreated when its name is another's and its id leads nowhere.
        """
        try:
            found = self._repository(ref, repository_path(ref), asker=ref)
        except RepositoryNotFound:
            # The redirect of a rename dies when somebody takes or frees the old name; the id does not.
            asker = self._asker_elsewhere(ref)
            if asker is None:
                raise
            if ref.github_id is None:
                return self._repository(ref, repository_path(ref), asker=asker)
            return self._by_id(ref, asker)
        if ref.github_id in {None, found.github_id}:
            return found
        try:
            return self._by_id(ref, ref)
        except RepositoryNotFound as error:
            raise RepositoryRecreated(
                f"{ref.full_name} is another repository now (id {found.github_id}, it was {ref.github_id}): that one "
                "is taken up under the name, and the last good copy of the old one is kept"
            ) from error

    def settle(self, queries: Sequence[HeadsQuery], answers: Iterable[RepositoryHeads]) -> Iterator[RepositoryHeads]:
        """The answers of ``heads``, where a name leads nowhere or to another repository, asked again by its id.

        At most `MOST_BY_ID` are: a token that sees nothing any more must not cost a request for each repository.
        """
        left = MOST_BY_ID
        for query, answer in zip(queries, answers, strict=True):
            lost = isinstance(answer.error, RepositoryNotFound | RepositoryReplaced)
            if lost and query.repository.github_id is not None and left:
                left -= 1
                yield self.heads_by_rest(dataclasses.replace(query, identify=True))
            else:
                yield answer

    def heads(self, queries: Sequence[HeadsQuery]) -> list[RepositoryHeads]:
        """The heads of many repositories by GraphQL, in the order asked, what is wrong with one inside its result.

        Raises GraphQLUnavailable (ask by REST), Outage or Unauthorized, also when it is so for one account only.
        """
        accounts: dict[str, list[int]] = {}
        for number, query in enumerate(queries):
            accounts.setdefault(self.account_of(query.repository), []).append(number)
        found: dict[int, RepositoryHeads] = {}
        for numbers in accounts.values():
            found.update(zip(numbers, self._heads_of_account([queries[number] for number in numbers]), strict=True))
        return [found[number] for number in range(len(queries))]

    def check_turn(self, resource: str, ref: RepositoryRef) -> None:
        """Raise Paced where a look would spend the budget of ``core`` or ``graphql`` faster than it lasts."""
        self.governor.check_turn(resource, self._exchange.mark_of(self.account_of(ref)))

    def has_spare(self, resource: str, ref: RepositoryRef) -> bool:
        """Whether the budget of ``core`` or ``graphql`` has enough left for looks that no promise needs."""
        return self.governor.has_spare(resource, self._exchange.mark_of(self.account_of(ref)))

    def limit_of(self, resource: str, ref: RepositoryRef) -> int | None:
        """What GitHub allows an hour of ``core`` or ``graphql``; None while it has not said."""
        return self.governor.limit_of(resource, self._exchange.mark_of(self.account_of(ref)))

    def heads_by_rest(self, query: HeadsQuery) -> RepositoryHeads:
        """The heads of one repository by conditional requests, which cost nothing while nothing changed.

        ``repository`` is only filled in when it had to be asked for: by ``identify``, because its id or its
        branches were not known, or because one of them is gone. Raises Outage or Unauthorized.
        """
        ref = query.repository
        known = dict(query.known)
        names = tuple(dict.fromkeys((*query.branches, *known)))
        try:
            if ref.github_id is None or not names or query.identify:
                return self._heads_with_repository(ref, names, known)
            try:
                heads = self._heads_of(ref, names, known)
            except (RepositoryEmpty, RepositoryNotFound):
                return self._heads_with_repository(ref, names, known)
            return (
                self._heads_with_repository(ref, names, known)
                if None in heads.values()
                else RepositoryHeads(None, heads)
            )
        except _OWN_ERRORS as error:
            return RepositoryHeads(None, error=error)

    def head(self, ref: RepositoryRef, branch: str, *, known: str | None = None) -> str:
        """The commit that the branch is at; ``known`` is the one we have, and free to confirm.

        Raises BranchNotFound for a branch that is not there: GitHub tells by 422, other servers by the 404 that may be
        about the repository as well, so that the list of its branches decides.
        """
        try:
            return self._head(ref, branch, known=known)
        except RepositoryNotFound as error:
            if branch in self.branches(ref):
                raise
            raise BranchNotFound(f"{ref.full_name} branch {branch!r}: it is none of the branches there") from error

    def _head(self, ref: RepositoryRef, branch: str, *, known: str | None) -> str:
        asked = f"{ref.full_name} branch {branch!r}"
        call = _call("head", ref, f"/commits/heads/{_branch(branch, asked=asked)}", asked=asked)
        # Asked for as a bare id, the ETag *is* the commit id in quotes, whatever the token: GITHUB.md, Limits.
        call = dataclasses.replace(call, subject=Subject.BRANCH, accept=SHA, max_bytes=MAX_HEAD_BYTES)
        if known is not None:
            answer = self._exchange.ask(dataclasses.replace(call, headers=(("If-None-Match", f'"{known}"'),)))
            if answer.status != HTTPStatus.NOT_MODIFIED:
                return _bare_sha(answer, asked=asked)
            if _confirms(answer, known):
                return known
        # Not asked before, or "not modified" about another commit: a cache in between answers for itself.
        return _bare_sha(self._exchange.ask(call), asked=asked)

    def branches(self, ref: RepositoryRef) -> dict[str, str]:
        """Every branch and its head."""
        asked = f"{ref.full_name} branches"
        call = _call("branches", ref, "/git/matching-refs/heads/", asked=asked)
        return shapes.branches(self._json(dataclasses.replace(call, subject=Subject.REPOSITORY)), asked=asked)

    def commits(
        self, ref: RepositoryRef, sha: str, *, limit: int, known: Callable[[str], bool] = lambda _: False
    ) -> list[Commit]:
        """The history of ``sha``, newest first: at most ``limit``, in whole pages until it meets what is ``known``.

        A merge lists the old head before the commits that it brought in, so one known commit is no end: each
        commit that is new must have its parents listed or known.
        """
        found: dict[str, Commit] = {}
        size = min(PAGE, limit)
        for page in range(1, -(-limit // PAGE) + 1) if limit > 0 else ():
            listed = self._commit_page(ref, sha, size=size, page=page)
            if page == 1 and (not listed or listed[0].sha != sha):
                raise BadAnswer(f"{ref.full_name} history of {sha}: GitHub's answer starts with another commit")
            for commit in listed:
                found.setdefault(commit.sha, commit)
                if len(found) == limit:
                    return list(found.values())
            if len(listed) < size or _meets(found, sha, known):
                break
        return list(found.values())

    def tree(self, ref: RepositoryRef, tree_sha: str, *, recursive: bool) -> RemoteTree:
        """A tree's entries, sub-trees included; ``truncated`` when GitHub left some out."""
        if tree_sha == EMPTY_TREE_SHA:
            return RemoteTree(tree_sha, (), truncated=False)  # known by its id, and not every server has it
        asked = f"{ref.full_name} tree {tree_sha}"
        # Any value of `recursive` turns it on, "0" and "false" included: leave it out instead.
        call = _call("tree", ref, f"/git/trees/{_sha(tree_sha)}{'?recursive=1' if recursive else ''}", asked=asked)
        return shapes.tree(self._json(call), tree_sha, asked=asked)

    def blob(self, ref: RepositoryRef, sha: str, *, max_bytes: int) -> bytes:
        """The content with the id ``sha``, proven to have it; BadAnswer when it is larger than ``max_bytes``."""
        if sha == EMPTY_BLOB_SHA:
            return b""
        asked = f"{ref.full_name} blob {sha}"
        call = _call("blob", ref, f"/git/blobs/{_sha(sha)}", asked=asked)
        room = max_bytes + max_bytes // 2 + 64 * 1024  # as base64 in JSON, should raw not be understood
        body = self._exchange.ask(dataclasses.replace(call, accept=RAW, max_bytes=room)).body
        content = shapes.blob(body, sha, asked=asked)
        if len(content) > max_bytes:
            raise BadAnswer(f"{asked}: it is larger than the {max_bytes} bytes that were expected at most")
        return content

    def tarball(self, ref: RepositoryRef, sha: str, *, max_bytes: int) -> AbstractContextManager[Iterator[bytes]]:
        """The archive of a commit as it is sent, compressed, in pieces; the iteration raises when it is cut off."""
        asked = f"{ref.full_name} archive of {sha}"
        call = _call("tarball", ref, f"/tarball/{_sha(sha)}", asked=asked)
        return self._exchange.stream(dataclasses.replace(call, max_bytes=max_bytes, download=True))

    def compare(self, ref: RepositoryRef, base: str, head: str) -> Comparison:
        """How ``head`` relates to ``base``; ObjectNotFound when either is unknown or they are unrelated."""
        asked = f"{ref.full_name} comparison {base}...{head}"
        # Files come on the first page only, so the second one tells the relation and spares megabytes of patches.
        path = f"/compare/{_sha(base)}...{_sha(head)}?per_page=1&page=2"
        return shapes.comparison(self._json(_call("compare", ref, path, asked=asked)), base, asked=asked)

    def difference(self, ref: RepositoryRef, base: str, head: str) -> Difference:
        """What leads from ``base`` to ``head``; ObjectNotFound when either is unknown or they are unrelated."""
        asked = f"{ref.full_name} comparison {base}...{head}"
        # Without paging it is the latest 250 commits, and the files. What takes GitHub too long is not asked again.
        call = _call("compare", ref, f"/compare/{_sha(base)}...{_sha(head)}", asked=asked)
        return shapes.difference(self._json(dataclasses.replace(call, divisible=True)), base, asked=asked)

    def hook_addresses(self) -> tuple[Network, ...]:
        """The networks that GitHub delivers webhooks from; BadAnswer when this server names none."""
        asked = "the addresses of webhooks"
        return shapes.networks(
            self._json(Call(endpoint="meta", asked=asked, asker=None, path="/meta", public=True)), asked=asked
        )

    def token_facts(self, installation: int | None = None) -> TokenFacts:
        """What GitHub says of the token, or of an installation's. Costs nothing."""
        asked = TOKEN_ASKED
        try:
            answer = self._exchange.ask(
                Call(endpoint="rate_limit", asked=asked, path="/rate_limit", asker=installation)
            )
        except ObjectNotFound:  # Enterprise Server without limits
            return TokenFacts({}, None, None)
        return token_facts(answer, asked=asked)

    def repositories_of(self, owner: str) -> list[ListedRepository]:
        """Every repository of an owner that may be seen, of an App what it is installed on; all, or an error."""
        return listing.repositories(
            self._exchange.ask,
            owner,
            api_url=self._exchange.settings.api_url,
            installation=self.app is not None,
            known_caller=self.app is None and self._exchange.token() is not None,
        )

    def _asker_elsewhere(self, ref: RepositoryRef) -> RepositoryRef | int | None:
        """Who may find a repository that its name does not lead to; None when nobody can.

        By its id whoever asked before; of an App the installation that reads it at the owner it moved to.
        """
        if self.app is None:
            return ref if ref.github_id is not None else None
        try:
            return self.app.look_up(ref)
        except Forbidden:
            return None

    def _by_id(self, ref: RepositoryRef, asker: Asker) -> RemoteRepository:
        found = self._repository(ref, f"/repositories/{ref.github_id}", asker=asker)
        if found.github_id != ref.github_id:
            raise BadAnswer(f"{ref.full_name}: GitHub answered with another repository than the id {ref.github_id}")
        return found

    def _repository(self, ref: RepositoryRef, path: str, *, asker: Asker) -> RemoteRepository:
        asked = ref.full_name
        call = Call(
            endpoint="repository",
            asked=asked,
            path=path,
            subject=Subject.REPOSITORY,
            asker=asker,
            github_id=ref.github_id,
        )
        return shapes.repository(self._json(call), asked=asked)

    def _json(self, call: Call) -> Any:
        return parse_json(self._exchange.ask(call), asked=call.asked)

    def _commit_page(self, ref: RepositoryRef, sha: str, *, size: int, page: int) -> list[Commit]:
        asked = f"{ref.full_name} history of {sha}"
        # Pages are counted here: a "next" link may lead to itself or to another host.
        path = f"/commits?sha={_sha(sha)}&per_page={size}&page={page}"
        items = shapes.list_of(self._json(_call("commits", ref, path, asked=asked)), asked=asked)
        return [shapes.commit(item, asked=asked) for item in items]

    def _heads_of_account(self, queries: Sequence[HeadsQuery]) -> list[RepositoryHeads]:
        refusals: list[RepositoryHeads] = []
        for query in queries:
            try:
                token = self._exchange.token(query.repository)
            except Forbidden as error:  # an App that is not installed there: it may be for the next one
                refusals.append(RepositoryHeads(None, error=error))
                continue
            if token is None:
                raise GraphQLUnavailable("GraphQL needs a token; heads are asked for by REST instead")
            found = self._batches.read(queries)
            if all(isinstance(heads.error, BadAnswer) for heads in found):
                # It has been reported that an answer holds no alias at all: REST can still keep the promise.
                raise GraphQLUnavailable(f"GraphQL cannot be used here ({found[0].error}); heads are asked for by REST")
            return [self._completed(one, heads) for one, heads in zip(queries, found, strict=True)]
        return refusals

    def _heads_batch(self, queries: Sequence[HeadsQuery]) -> list[RepositoryHeads]:
        asked = f"the heads of {len(queries)} repositories"
        call = Call(
            endpoint="graphql",
            asked=asked,
            asker=queries[0].repository,
            url=self._exchange.settings.graphql_url,
            subject=Subject.REPOSITORY,
            method="POST",
            body=graphql.heads_body(queries),
            resource=GRAPHQL,
            divisible=len(queries) > 1,
            inspect=_graphql_limit,
        )
        try:
            value = self._json(call)
        except (Forbidden, RepositoryNotFound, RepositoryEmpty, BadAnswer) as error:
            # Switched off, not permitted, or a page in between: REST can still keep the promise.
            raise GraphQLUnavailable(f"GraphQL cannot be used here ({error}); heads are asked for by REST") from error
        return graphql.read_heads(value, queries)

    def _completed(self, query: HeadsQuery, heads: RepositoryHeads) -> RepositoryHeads:
        """With all branches that were asked for: GraphQL lists a hundred, REST the rest of them."""
        if not query.every or heads.complete or heads.repository is None:
            return heads
        remote = heads.repository
        try:
            every = self.branches(RepositoryRef(remote.owner, remote.name, remote.github_id))
        except _OWN_ERRORS as error:
            return RepositoryHeads(remote, error=error)
        return dataclasses.replace(heads, heads={**every}, complete=True)

    def _heads_with_repository(
        self, ref: RepositoryRef, names: Sequence[str], known: dict[str, str]
    ) -> RepositoryHeads:
        repository = self.repository(ref)
        current = RepositoryRef(repository.owner, repository.name, repository.github_id)
        default = (repository.default_branch,) if repository.default_branch is not None else ()
        try:
            return RepositoryHeads(repository, self._heads_of(current, tuple(dict.fromkeys((*default, *names))), known))
        except RepositoryEmpty:
            return RepositoryHeads(dataclasses.replace(repository, default_branch=None), dict.fromkeys(names))

    def _heads_of(self, ref: RepositoryRef, names: Sequence[str], known: dict[str, str]) -> dict[str, str | None]:
        return {name: self._head_or_none(ref, name, known.get(name)) for name in names}

    def _head_or_none(self, ref: RepositoryRef, branch: str, known: str | None) -> str | None:
        try:
            return self.head(ref, branch, known=known)
        except BranchNotFound:
            return None


def _ignore(_: RequestSeen) -> None:
    return


def _meets(listed: dict[str, Commit], head: str, known: Callable[[str], bool]) -> bool:
    """Whether every way back from ``head`` reaches a known commit (or a root) within what is listed."""
    seen: set[str] = set()
    todo = [head]
    while todo:
        sha = todo.pop()
        if sha in seen or known(sha):
            continue
        if sha not in listed:
            return False
        seen.add(sha)
        todo += listed[sha].parents
    return True


def _call(endpoint: str, ref: RepositoryRef, path: str, *, asked: str) -> Call:
    path = repository_path(ref) + path
    return Call(endpoint=endpoint, asked=asked, path=path, asker=ref, github_id=ref.github_id)


def _branch(branch: str, *, asked: str) -> str:
    try:
        path = quote(branch, safe="/", errors="surrogateescape")
    except UnicodeEncodeError:
        path = ""
    # git allows no such component (git-check-ref-format), and a client would resolve it into another path.
    if any(part in {"", ".", ".."} for part in path.split("/")):
        raise BranchNotFound(f"{asked}: no branch can have this name; correct the configuration")
    return path


def _sha(sha: str) -> str:
    if not is_sha(sha):
        raise ValueError(f"{sha!r} is no object id of 40 lower-case hex digits")
    return sha


def _bare_sha(answer: Answer, *, asked: str) -> str:
    text = answer.body.decode("ascii", "replace").strip()
    if text.startswith("{"):  # a server that does not know this form tells the whole commit
        return shapes.commit(parse_json(answer, asked=asked), asked=asked).sha
    if not is_sha(text):
        raise BadAnswer(
            f"{asked}: GitHub answered {len(answer.body)} bytes that are no commit id; "
            "a proxy or a maintenance page may be in between, it is asked again later"
        )
    return text


def _confirms(answer: Answer, known: str) -> bool:
    etag = answer.headers.get("etag")
    return etag is None or etag.strip().removeprefix("W/").strip('"') == known


def _graphql_limit(answer: Answer) -> Answer:
    """GraphQL tells a limit with status 200; from here on it is the 429 that it would be elsewhere."""
    try:
        limited = graphql.is_limited(parse_json(answer, asked="GraphQL"))
    except BadAnswer:
        return answer
    return dataclasses.replace(answer, status=HTTPStatus.TOO_MANY_REQUESTS) if limited else answer
