"""The index over stored text. The index keeps no text itself: it is fed with that of ``blob``, also to forget.

``search_blob`` gives each content a number for the index; a content that is no text has one too, so that it is not
looked at again. Positions are not kept (``detail=none``): what the index finds is held against the text anyway.
"""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE repository ADD COLUMN search BOOLEAN NOT NULL DEFAULT TRUE",
    "CREATE TABLE search_blob (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, sha TEXT NOT NULL UNIQUE)",
    """
    CREATE VIRTUAL TABLE search_index
    USING fts5(content, content='', columnsize=0, detail='none', tokenize='trigram')
    """,
)


def up(_migrator: Any, db: Any) -> None:
    for statement in STATEMENTS:
        db.execute_sql(statement)
