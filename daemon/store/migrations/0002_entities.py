"""Entities: what each file says, which entity that makes, what it was before, and which files say nothing.

``entity_source`` holds every claim, so that the next file takes over an id without being read again; ``entity`` is
the claim that won, whose data stands in its source; ``entity_version`` is what it said and when.
"""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    # "" is the digest where no collections are configured; NULL has everything read again.
    "ALTER TABLE branch ADD COLUMN collections_digest TEXT DEFAULT ''",
    """
    CREATE TABLE entity_source (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        branch_id INTEGER NOT NULL REFERENCES branch (id),
        path BLOB NOT NULL,
        entity_type TEXT NOT NULL,
        entity_id TEXT NOT NULL,
        label TEXT,
        description TEXT,
        sha TEXT NOT NULL,
        commit_sha TEXT NOT NULL,
        digest TEXT NOT NULL,
        stale BOOLEAN NOT NULL DEFAULT FALSE,
        data TEXT NOT NULL,
        UNIQUE (branch_id, path, entity_type)
    )
    """,
    """
    CREATE TABLE entity (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        branch_id INTEGER NOT NULL REFERENCES branch (id),
        entity_type TEXT NOT NULL,
        entity_id TEXT NOT NULL,
        label TEXT,
        description TEXT,
        path BLOB NOT NULL,
        path_text TEXT NOT NULL,
        commit_sha TEXT NOT NULL,
        digest TEXT NOT NULL,
        stale BOOLEAN NOT NULL DEFAULT FALSE,
        deleted BOOLEAN NOT NULL DEFAULT FALSE,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        UNIQUE (branch_id, entity_type, entity_id)
    )
    """,
    """
    CREATE TABLE entity_version (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        entity_key INTEGER NOT NULL REFERENCES entity (id),
        commit_sha TEXT NOT NULL,
        valid_from TEXT NOT NULL,
        valid_to TEXT,
        data TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE entity_error (
        branch_id INTEGER NOT NULL REFERENCES branch (id),
        path BLOB NOT NULL,
        entity_type TEXT NOT NULL,
        path_text TEXT NOT NULL,
        entity_id TEXT,
        line INTEGER,
        "column" INTEGER,
        error TEXT NOT NULL,
        PRIMARY KEY (branch_id, path, entity_type)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX entity_source_claim ON entity_source (branch_id, entity_type, entity_id, path)",
    "CREATE INDEX entity_listed ON entity (entity_type, entity_id, branch_id) WHERE NOT deleted",
    "CREATE INDEX entity_counted ON entity (branch_id, entity_type, entity_id) WHERE NOT deleted",
    "CREATE INDEX entity_version_entity ON entity_version (entity_key, id)",
    "CREATE INDEX entity_error_claim ON entity_error (branch_id, entity_type, entity_id) WHERE entity_id IS NOT NULL",
)


def up(_migrator: Any, db: Any) -> None:
    for statement in STATEMENTS:
        db.execute_sql(statement)
