"""The schema as a person reads it, made from the models, which a test holds against the migrations."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from peewee import BlobField, Field, ForeignKeyField

from daemon.store import models
from daemon.store.fields import InstantField, JsonField

NOTES = """\
Read it with any SQLite client, beside the running daemon too; write to it with none.
A snapshot is what one commit holds: the entries of a branch with until = 9223372036854775807 are its stored head.
Instants are UTC text (2026-11-23T21:40:41.123456Z), which sorts as time does. Paths are bytes; path_text is for people.
Contents are in blob, by git object id: SELECT content FROM entry JOIN blob USING (sha) WHERE ...
Tables whose names begin with search_ belong to the search index, schema_migration to `headwater migrate`.
"commit" is a word of SQL: quote it."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``references`` is ``table.column`` of a foreign key, ``meaning`` may be empty."""

    name: str
    kind: str
    null: bool
    key: bool
    references: str | None
    meaning: str

    def text(self) -> str:
        facts = ["key"] * self.key + [f"-> {self.references}"] * bool(self.references) + ["may be null"] * self.null
        return (
            f"  {self.name:<20} {self.kind:<8} {'; '.join([*facts, self.meaning] if self.meaning else facts)}".rstrip()
        )


@dataclass(frozen=True, slots=True)
class TableDescription:
    """One table with a sentence about it."""

    name: str
    sentence: str
    columns: tuple[Column, ...]

    def text(self) -> str:
        return "\n".join([f"{self.name}: {self.sentence}", *(column.text() for column in self.columns)])


def tables() -> list[TableDescription]:
    """Every table that is meant to be queried, by name."""
    every = [one for one in vars(models).values() if inspect.isclass(one) and issubclass(one, models.Table)]
    return sorted((_table(one) for one in every if one is not models.Table), key=lambda table: table.name)


def _table(model: Any) -> TableDescription:
    keys = {field.column_name for field in model._meta.get_primary_keys()}  # noqa: SLF001 - peewee's public reflection
    columns = tuple(_column(field, key=field.column_name in keys) for field in model._meta.sorted_fields)  # noqa: SLF001
    return TableDescription(model._meta.table_name, inspect.cleandoc(model.__doc__ or ""), columns)  # noqa: SLF001


def _column(field: Field, *, key: bool) -> Column:
    target = field.rel_field if isinstance(field, ForeignKeyField) else None
    references = f"{target.model._meta.table_name}.{target.column_name}" if target is not None else None  # noqa: SLF001
    return Column(field.column_name, _kind(field), bool(field.null), key, references, field.help_text or "")


def _kind(field: Field) -> str:
    for kind, name in ((InstantField, "instant"), (JsonField, "json"), (BlobField, "bytes")):
        if isinstance(field, kind):
            return name
    return {"TEXT": "text", "BOOL": "boolean"}.get(str(field.field_type), "integer")
