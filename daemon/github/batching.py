"""Batches of heads that fit what GraphQL can take: halved when one is too much, grown back slowly.

Too much is ten seconds of GitHub's time, then 502 or 504 and a penalty
(https://docs.github.com/graphql/overview/rate-limits-and-query-limits-for-the-graphql-api).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from daemon.github import queries as graphql
from daemon.github.protocol import Overloaded
from daemon.model import HeadsQuery, RepositoryHeads

LEAF_FAILURES = 3  # single repositories failing one after the other are an outage, not heavy repositories
GROWTH = 10  # a batch that was answered lets the next one be a tenth larger

Ask = Callable[[Sequence[HeadsQuery]], list[RepositoryHeads]]


class Batches:
    """Reads any number of heads in batches, and remembers between calls how large one may be."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.size = graphql.MAX_REPOSITORIES

    def read(self, queries: Sequence[HeadsQuery]) -> list[RepositoryHeads]:
        """One result per query, in order. A repository that is too much even alone fails alone.

        Raises Overloaded when none was answered. What failed before is asked for apart: it takes nobody along.
        """
        order = sorted(range(len(queries)), key=lambda index: queries[index].fragile)
        found: list[RepositoryHeads] = []
        for batch in graphql.batches([queries[index] for index in order], most=self.size):
            halving = _Halving(self._ask)
            found += halving.read(batch)
            self._learn(len(batch), halving)
        errors = [one.error for one in found if isinstance(one.error, Overloaded)]
        if errors and len(errors) == len(found):
            raise errors[0]
        results = dict(zip(order, found, strict=True))
        return [results[index] for index in range(len(queries))]

    def _learn(self, asked: int, halving: _Halving) -> None:
        if halving.halved and not halving.alone:  # else it was that one repository, whatever the size
            self.size = halving.largest
        elif not halving.halved and asked >= self.size:
            self.size = min(self.size + max(1, self.size // GROWTH), graphql.MAX_REPOSITORIES)


class _Halving:
    """One batch, in halves of halves where it is too much."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._failures = 0
        self.halved = False
        self.alone = 0  # repositories that were too much by themselves
        self.largest = 1  # of the parts that were answered

    def read(self, batch: Sequence[HeadsQuery]) -> list[RepositoryHeads]:
        try:
            heads = self._ask(batch)
        except Overloaded as error:
            if len(batch) > 1:
                self.halved = True
                middle = len(batch) // 2
                return [*self.read(batch[:middle]), *self.read(batch[middle:])]
            self._failures += 1
            self.alone += 1
            if self._failures >= LEAF_FAILURES:
                raise
            return [RepositoryHeads(None, error=error)]
        self._failures = 0
        self.largest = max(self.largest, len(batch))
        return heads
