"""Asking for the heads of due repositories: a hundred in one GraphQL request while that works, else each by REST."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from daemon.clock import Clock
from daemon.errors import GitHubError, GraphQLUnavailable, Outage, RateLimited, Unauthorized
from daemon.github.client import GitHubClient
from daemon.github.governor import CORE, GRAPHQL
from daemon.globs import matches_branch
from daemon.logs import get_logger
from daemon.model import HeadsQuery, PollTarget, RemoteRepository, RepositoryHeads

log = get_logger()

IDENTITY_SECONDS = 3600.0  # how long a new name or default branch may go unseen while only REST can be asked
REST_ONLY_SECONDS = 300.0  # how long to ask by REST after GraphQL could not be used
GRAPHQL_FAILURES = 2  # rounds that GraphQL leaves unanswered before REST is tried

Seen = tuple[PollTarget, RepositoryHeads]


class Heads:
    """Reads the heads of a batch; knows which of the two APIs can be used at the moment."""

    def __init__(self, client: GitHubClient, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._rest_until = 0.0
        self._unanswered = 0
        self._identified_at: dict[int, float] = {}

    @property
    def by_rest(self) -> bool:
        """Whether each branch costs a request of its own at the moment."""
        return self._clock.monotonic() < self._rest_until

    def forget_graphql_outage(self) -> None:
        """Try GraphQL again at once (the token or the base changed)."""
        self._rest_until = 0.0

    def identified(self, remote: RemoteRepository) -> None:
        """Note that an answer said what a repository is; by REST that is asked for now and then only."""
        self._identified_at[remote.github_id] = self._clock.monotonic()

    def read(self, targets: Sequence[PollTarget]) -> Iterator[Seen]:
        """Each target with its answer, in order, as they come: a limit may allow some of a batch and not the rest.

        Raises Outage or Unauthorized when GitHub cannot be asked: what was not given by then is unknown.
        """
        queries = [target.query for target in targets]
        answers = None if self.by_rest else self._by_graphql(queries)
        seen = self._by_rest(targets) if answers is None else zip(targets, answers, strict=True)
        return ((target, _tracked(target, answer)) for target, answer in seen)

    def _by_graphql(self, queries: Sequence[HeadsQuery]) -> Iterator[RepositoryHeads] | None:
        """The answers; None where REST is to be asked instead, now and for a while."""
        self._client.check_turn(GRAPHQL, queries[0].repository)
        try:
            answers = self._client.heads(queries)
        except RateLimited:
            raise
        except GraphQLUnavailable as error:
            reason = str(error)
        except Outage as error:
            self._unanswered += 1
            if self._unanswered < GRAPHQL_FAILURES:
                raise
            reason = str(error)
        else:
            self._unanswered = 0
            return self._client.settle(queries, answers)
        log.info("poll.by_rest", reason=reason, seconds=REST_ONLY_SECONDS)
        self._rest_until = self._clock.monotonic() + REST_ONLY_SECONDS
        return None

    def _by_rest(self, targets: Sequence[PollTarget]) -> Iterator[Seen]:
        answering = False
        for target in targets:
            self._client.check_turn(CORE, target.query.repository)
            try:
                answer = self._one_by_rest(target)
            except (RateLimited, Unauthorized):
                raise
            except Outage as error:
                # One repository that always ends in a 5xx must not hold up those behind it.
                answering = answering or self._is_up()
                if not answering:
                    self._rest_until = 0.0  # all of GitHub is down: afterwards GraphQL comes first again
                    raise
                answer = RepositoryHeads(None, error=error)
            else:
                answering = True
            yield target, answer

    def _is_up(self) -> bool:
        """Whether GitHub answers at all, by the one question that costs nothing."""
        try:
            self._client.token_facts()
        except Outage:
            return False
        except GitHubError:
            return True  # it refuses, but it does say something
        return True

    def _one_by_rest(self, target: PollTarget) -> RepositoryHeads:
        at = self._identified_at.get(target.query.repository.github_id or 0)
        # A head costs nothing and says nothing of the repository: now and then that is asked as well.
        fresh = at is not None and self._clock.monotonic() - at < IDENTITY_SECONDS
        answer = self._client.heads_by_rest(target.query if fresh else replace(target.query, identify=True))
        if answer.error is not None or not target.query.every:
            return answer
        try:
            return replace(answer, heads={**self._client.branches(target.query.repository)}, complete=True)
        except (Outage, Unauthorized):
            raise
        except GitHubError as error:
            return RepositoryHeads(answer.repository, error=error)


def _tracked(target: PollTarget, answer: RepositoryHeads) -> RepositoryHeads:
    """Of all branches those that match a glob; of a complete list what is tracked and not in it is gone."""
    if not answer.complete:
        return answer
    matching = {name: sha for name, sha in answer.heads.items() if matches_branch(name, target.patterns)}
    known = {branch.name: answer.heads.get(branch.name) for branch in target.branches if branch.name}
    return replace(answer, heads={**known, **matching})
