"""`headwater man`: the manual page, made from the commands' own help, so that it says what they do."""

from __future__ import annotations

from collections.abc import Iterator

import click

FILES = (
    ("./config.toml, /etc/headwater/config.toml", "the configuration; config.example.toml explains every key"),
    ("headwater.db", "the store, in $STATE_DIRECTORY under systemd, else in the working folder"),
)
EXITS = (
    ("0", "done"),
    ("1", "something failed: a sync, a check, a port in use"),
    ("2", "wrong usage"),
    ("78", "the configuration is invalid or missing: one line a problem"),
)


def page(group: click.Group, version: str) -> str:
    """The page in man(7)'s macros."""
    context = click.Context(group, info_name="headwater")
    return "\n".join([*_head(group, version), *_commands(group, context), *_tail()]) + "\n"


def _head(group: click.Group, version: str) -> Iterator[str]:
    yield f'.TH HEADWATER 1 "" "headwater {version}" "User Commands"'
    yield from (".SH NAME", r"headwater \- " + _text(group.get_short_help_str(200)))
    yield from (".SH SYNOPSIS", r".B headwater", r"[\-c FILE] COMMAND [ARGUMENTS]")
    yield from (".SH DESCRIPTION", *_paragraphs(group.help or ""))


def _commands(group: click.Group, context: click.Context, *, above: str = "") -> Iterator[str]:
    if not above:
        yield ".SH COMMANDS"
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        yield f'.SS "{_text(f"{above}{name}")} {_text(" ".join(command.collect_usage_pieces(inner)))}"'
        yield from _paragraphs(command.help or "")
        for parameter in command.get_params(inner):
            if (record := parameter.get_help_record(inner)) and "--help" not in record[0]:
                yield from (".TP", rf"\fB{_text(record[0])}\fR", _text(record[1]) or r"\&")
        if isinstance(command, click.Group):
            yield from _commands(command, inner, above=f"{above}{name} ")


def _tail() -> Iterator[str]:
    for title, rows in (("EXIT STATUS", EXITS), ("FILES", FILES)):
        yield f".SH {title}"
        for name, said in rows:
            yield from (".TP", _text(name), _text(said))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from (".PP", _text(" ".join(paragraph.split())))


def _text(text: str) -> str:
    """Text that nothing in is a macro or an escape of."""
    quoted = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    return rf"\&{quoted}" if quoted.startswith((".", "'")) else quoted
