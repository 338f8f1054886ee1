"""The first schema. Frozen: a later change is a later migration, whatever ``models.py`` says by then.

Plain SQL, because partial indexes and tables without rowid read best as what they are. Instants are fixed-width
ISO 8601 text. Indexes carry ``WHERE`` so that the hot inserts (ignored deliveries, current entries) skip them.
"""

from __future__ import annotations

from typing import Any

APPLICATION_ID = 0x68647774  # "hdwt", shown by file(1); tells our file from another program's

TABLES = (
    """
    CREATE TABLE repository (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        github_id BIGINT UNIQUE,
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        full_name TEXT NOT NULL UNIQUE,
        configured_as TEXT,
        patterns TEXT NOT NULL DEFAULT '[]',
        default_branch TEXT,
        archived BOOLEAN NOT NULL DEFAULT FALSE,
        private BOOLEAN NOT NULL DEFAULT FALSE,
        state TEXT NOT NULL DEFAULT 'unknown',
        tracked BOOLEAN NOT NULL DEFAULT TRUE,
        webhook TEXT NOT NULL DEFAULT 'unknown',
        missed_webhooks INTEGER NOT NULL DEFAULT 0,
        last_error TEXT,
        polled_at TEXT,
        next_poll_at TEXT,
        poll_failures INTEGER NOT NULL DEFAULT 0,
        suspect_sha TEXT,
        suspect_branch TEXT,
        suspect_at TEXT
    )
    """,
    """
    CREATE TABLE branch (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        repository_id INTEGER NOT NULL REFERENCES repository (id),
        name TEXT NOT NULL,
        is_default BOOLEAN NOT NULL DEFAULT FALSE,
        tracked BOOLEAN NOT NULL DEFAULT TRUE,
        head_sha TEXT,
        tree_sha TEXT,
        remote_sha TEXT,
        remote_read_at TEXT,
        confirmed_at TEXT,
        synced_at TEXT,
        snapshot INTEGER NOT NULL DEFAULT 0,
        oldest_snapshot INTEGER NOT NULL DEFAULT 0,
        rules_digest TEXT,
        tree_verified BOOLEAN,
        tree_error TEXT,
        last_error TEXT,
        last_trigger TEXT,
        gone BOOLEAN NOT NULL DEFAULT FALSE,
        empty BOOLEAN NOT NULL DEFAULT FALSE,
        UNIQUE (repository_id, name)
    )
    """,
    """
    CREATE TABLE entry (
        branch_id INTEGER NOT NULL REFERENCES branch (id),
        path BLOB NOT NULL,
        path_text TEXT NOT NULL,
        mode TEXT NOT NULL,
        sha TEXT NOT NULL,
        size BIGINT,
        stored BOOLEAN NOT NULL,
        since INTEGER NOT NULL,
        until BIGINT NOT NULL DEFAULT 9223372036854775807,
        PRIMARY KEY (branch_id, path, since)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE blob (
        sha TEXT NOT NULL PRIMARY KEY,
        size BIGINT NOT NULL,
        stored_at TEXT NOT NULL,
        content BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE "commit" (
        branch_id INTEGER NOT NULL REFERENCES branch (id),
        position INTEGER NOT NULL,
        sha TEXT NOT NULL,
        tree_sha TEXT NOT NULL,
        parents TEXT NOT NULL,
        author_name TEXT NOT NULL,
        author_email TEXT NOT NULL,
        authored_at TEXT NOT NULL,
        committed_at TEXT NOT NULL,
        message TEXT NOT NULL,
        PRIMARY KEY (branch_id, position)
    )
    """,
    """
    CREATE TABLE delivery (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        guid TEXT,
        body_digest TEXT NOT NULL,
        event TEXT NOT NULL,
        action TEXT,
        repository TEXT,
        ref TEXT,
        "before" TEXT,
        "after" TEXT,
        received_at TEXT NOT NULL,
        status TEXT NOT NULL,
        reason TEXT,
        repository_id INTEGER,
        branch_id INTEGER,
        generation BIGINT,
        run_id INTEGER,
        attempts INTEGER NOT NULL DEFAULT 1,
        acted BOOLEAN NOT NULL DEFAULT FALSE,
        UNIQUE (guid, body_digest)
    )
    """,
    """
    CREATE TABLE job (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        branch_id INTEGER NOT NULL UNIQUE REFERENCES branch (id),
        wanted_generation BIGINT NOT NULL DEFAULT 0,
        done_generation BIGINT NOT NULL DEFAULT 0,
        claimed_generation BIGINT NOT NULL DEFAULT 0,
        priority INTEGER NOT NULL DEFAULT 1,
        triggers TEXT NOT NULL DEFAULT '[]',
        wanted_at TEXT,
        run_after TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,
        parked BOOLEAN NOT NULL DEFAULT FALSE,
        lease_owner TEXT,
        lease_until TEXT,
        token BIGINT NOT NULL DEFAULT 0,
        last_error TEXT,
        sighting TEXT
    )
    """,
    """
    CREATE TABLE run (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        repository_id INTEGER NOT NULL REFERENCES repository (id),
        branch_id INTEGER NOT NULL REFERENCES branch (id),
        "trigger" TEXT NOT NULL,
        triggers TEXT NOT NULL,
        outcome TEXT NOT NULL,
        "before" TEXT,
        "after" TEXT,
        started_at TEXT NOT NULL,
        finished_at TEXT NOT NULL,
        added INTEGER NOT NULL DEFAULT 0,
        modified INTEGER NOT NULL DEFAULT 0,
        removed INTEGER NOT NULL DEFAULT 0,
        entity_errors INTEGER NOT NULL DEFAULT 0,
        requests INTEGER NOT NULL DEFAULT 0,
        attempt INTEGER NOT NULL DEFAULT 1,
        error TEXT,
        snapshot INTEGER
    )
    """,
    """
    CREATE TABLE outbox (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        type TEXT NOT NULL,
        branch_id INTEGER NOT NULL REFERENCES branch (id),
        "before" TEXT,
        "after" TEXT NOT NULL,
        added TEXT NOT NULL,
        modified TEXT NOT NULL,
        removed TEXT NOT NULL,
        created_at TEXT NOT NULL
    )
    """,
)

INDEXES = (
    "CREATE INDEX repository_configured_as ON repository (configured_as)",
    "CREATE INDEX entry_sha ON entry (sha)",
    "CREATE INDEX entry_superseded ON entry (branch_id, until) WHERE until < 9223372036854775807",
    'CREATE INDEX commit_sha ON "commit" (branch_id, sha)',
    "CREATE INDEX delivery_waiting ON delivery (branch_id, generation) WHERE branch_id IS NOT NULL AND NOT acted",
    'CREATE INDEX delivery_after ON delivery (branch_id, "after") WHERE branch_id IS NOT NULL',
    'CREATE INDEX delivery_before ON delivery (branch_id, "before") WHERE branch_id IS NOT NULL',
    "CREATE INDEX job_waiting ON job (priority, wanted_at) WHERE wanted_generation > done_generation",
    "CREATE INDEX run_repository ON run (repository_id, id)",
    "CREATE INDEX run_branch ON run (branch_id, id)",
    'CREATE INDEX run_after ON run (branch_id, "after")',
    "CREATE INDEX run_snapshot ON run (branch_id, snapshot) WHERE snapshot IS NOT NULL",
    "CREATE INDEX outbox_branch ON outbox (branch_id, id)",
)


def up(_migrator: Any, db: Any) -> None:
    for statement in (*TABLES, *INDEXES):
        db.execute_sql(statement)
    db.execute_sql(f"PRAGMA application_id = {APPLICATION_ID}")
