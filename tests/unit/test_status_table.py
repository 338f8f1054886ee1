"""The table of `headwater status`: readable in 80 columns, and a row a line where nobody looks at it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from daemon.commands.status import _table, print_table

NOW = datetime(2026, 11, 26, 16, 0, tzinfo=UTC)


def row(name: str, **changes: Any) -> dict[str, Any]:
    repository, _, branch = name.partition("@")
    facts = {
        "repository": repository,
        "name": branch,
        "state": "syncing",
        "remote_sha": "a" * 40,
        "head_sha": "b" * 40,
        "behind_seconds": 3590.0,
        "last_trigger": "webhook",
        "webhook": "unknown",
        "missed_webhooks": 0,
        "webhook_reason": None,
        "next_poll_at": (NOW + timedelta(minutes=15)).isoformat(),
        "last_error": None,
        "actions": [],
    }
    return facts | changes


def shown(*rows: dict[str, Any], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(_table(list(rows), NOW, width))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_an_ordinary_name_is_whole_in_80_columns() -> None:
    heading, line = shown(row("octo-org/schemas@main"), width=80)
    assert " ".join(line.split()) == "octo-org/schemas@main syncing aaaaaaa bbbbbbb 60m ago webhook unknown in 15m"
    assert heading.endswith("next poll")
    assert "main  syncing" in shown(row("octo-org/schemas@main"), width=120)[1]  # with the room there is


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("octo-org/a-longer-name@main", ["octo-org/a-longer-name", "@main"]),
        ("octo-org/schemas@release/2026.11.26", ["octo-org/schemas", "@release/2026.11.26"]),
        ("octo/a@b/c/d/e/f/g/h/i/j/k/l/m", ["octo/a@b/c/d/e/f/g/h/", "i/j/k/l/m"]),
    ],
)
def test_a_longer_name_is_folded_between_its_parts(name: str, lines: list[str]) -> None:
    told = shown(row("octo-org/schemas@main"), row(name), width=80)
    assert all(len(line) <= 80 for line in told)
    assert [line.split()[0] for line in told[2:]] == lines


def test_counts_and_errors_leave_the_name_readable_too() -> None:
    told = shown(row("octo-org/schemas@main", webhook="missing", missed_webhooks=1234), width=80)
    assert all(len(line) <= 80 for line in told)
    assert [line.split()[0] for line in told[1:]] == ["octo-org/", "schemas@main"]


def test_in_a_pipe_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a-rather-long-organisation/with-a-rather-long-repository@and/a-rather-long-branch"
    print_table([row(name)], now=NOW)
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{name}  syncing")


def test_nothing_to_show_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([], now=NOW)
    said = "no repository is configured: add a [[repositories]] table to the configuration\n"
    assert capsys.readouterr().out == said


def test_what_is_wrong_with_a_webhook_is_told_once_a_repository(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("octo/data@main", "octo/data@next", "octo/other@main")
    print_table([row(name, webhook_reason="none leads here") for name in names], now=NOW)
    assert capsys.readouterr().out.splitlines()[4:] == [
        "octo/data: webhook: none leads here",
        "octo/other: webhook: none leads here",
    ]
