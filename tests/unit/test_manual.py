"""The manual page says what the commands' own help says."""

from __future__ import annotations

import re

import click
from click.testing import CliRunner

from daemon.cli import cli
from daemon.commands.manual import page

MACROS = {".TH", ".SH", ".SS", ".TP", ".PP", ".B"}


def test_the_page_names_every_command_and_every_option() -> None:
    made = page(cli, "1.2").replace(r"\-", "-")
    assert '"headwater 1.2"' in made
    for name, command in cli.commands.items():
        assert f'.SS "{name} ' in made
        assert " ".join((command.help or "").split("\n\n")[0].split()) in made.replace(r"\(dq", '"')
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert option in made, (name, option)
    assert '.SS "hooks install ' in made


def test_every_line_that_begins_with_a_dot_is_a_macro() -> None:
    lines = page(cli, "1.2").splitlines()
    assert {line.split(" ")[0] for line in lines if line.startswith(".")} == MACROS


def test_text_that_looks_like_a_macro_is_text() -> None:
    group = click.Group("g", help=".TH begins\n\n'quoted' \\ -x")
    said = [line for line in page(group, "1").splitlines() if re.search("begins|quoted", line)][-2:]
    assert said == [r"\&.TH begins", r"\&'quoted' \e \-x"]


def test_the_command_prints_it() -> None:
    assert CliRunner().invoke(cli, ["man"]).output.startswith(".TH HEADWATER 1")
