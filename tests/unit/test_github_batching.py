from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from daemon.github.batching import Batches
from daemon.github.protocol import Overloaded
from daemon.model import HeadsQuery, RemoteRepository, RepositoryHeads, RepositoryRef


@dataclass
class GraphQL:
    """Answers up to ``most`` repositories at once, and never when one of ``heavy`` is among them."""

    most: int = 100
    heavy: frozenset[str] = frozenset()
    asked: list[int] = field(default_factory=list)

    def __call__(self, batch: Sequence[HeadsQuery]) -> list[RepositoryHeads]:
        names = [query.repository.name for query in batch]
        self.asked.append(len(names))
        if len(names) > self.most or self.heavy & set(names):
            raise Overloaded("502")
        return [RepositoryHeads(RemoteRepository(1, "o", name, "main")) for name in names]


def queries(count: int, fragile: Sequence[int] = ()) -> list[HeadsQuery]:
    return [HeadsQuery(RepositoryRef("o", str(number)), fragile=number in fragile) for number in range(count)]


def names(heads: list[RepositoryHeads]) -> list[str | None]:
    return [one.repository.name if one.repository else None for one in heads]


def test_ten_thousand_repositories_are_a_hundred_requests() -> None:
    graphql = GraphQL()
    assert names(Batches(graphql).read(queries(10_000))) == [str(number) for number in range(10_000)]
    assert graphql.asked == [100] * 100


def test_a_size_that_is_too_much_is_remembered_and_grows_back_slowly() -> None:
    graphql = GraphQL(most=60)
    batches = Batches(graphql)
    assert names(batches.read(queries(100))) == [str(number) for number in range(100)]
    assert graphql.asked == [100, 50, 50]
    graphql.asked.clear()
    batches.read(queries(50))
    batches.read(queries(50))
    assert graphql.asked == [50, 50]
    assert batches.size == 55
    graphql.most = 100
    for _ in range(20):
        batches.read(queries(100))
    assert batches.size == 100


def test_a_batch_smaller_than_the_size_says_nothing_about_it() -> None:
    batches = Batches(GraphQL(most=60))
    batches.read(queries(100))
    batches.read(queries(3))
    assert batches.size == 50


def test_one_repository_that_is_too_much_fails_alone_and_costs_the_others_no_size() -> None:
    graphql = GraphQL(heavy=frozenset({"7"}))
    batches = Batches(graphql)
    heads = batches.read(queries(100))
    assert [index for index, one in enumerate(heads) if one.error] == [7]
    assert batches.size == 100


def test_what_failed_before_is_asked_for_apart_and_the_order_kept() -> None:
    graphql = GraphQL(heavy=frozenset({"7"}))
    heads = Batches(graphql).read(queries(100, fragile=[7, 9]))
    assert graphql.asked == [98, 2, 1, 1]
    assert names(heads) == [str(number) if number != 7 else None for number in range(100)]


@pytest.mark.parametrize("count", [1, 2, 100])
def test_where_nothing_is_answered_it_is_an_outage_and_nobodys_fault(count: int) -> None:
    graphql = GraphQL(most=0)
    with pytest.raises(Overloaded):
        Batches(graphql).read(queries(count))
    assert len(graphql.asked) < 15
