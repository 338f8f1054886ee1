"""The tables as they are now, for queries; how they came to be is in ``migrations``.

The models belong to no database: every query is executed on the one that is passed to it.
A table named like a value of ``daemon.model`` holds exactly that value.
"""

from __future__ import annotations

from peewee import (
    AutoField,
    BigIntegerField,
    BlobField,
    BooleanField,
    CompositeKey,
    ForeignKeyField,
    IntegerField,
    Model,
    TextField,
)

from daemon.store.fields import InstantField, JsonField

CURRENT = 9223372036854775807  # ``entry.until`` of an entry that no later snapshot replaced


class Table(Model):
    """Base: tables are named exactly as they are declared."""

    class Meta:  # noqa: D106 - peewee's way to say it
        legacy_table_names = False


class Repository(Table):
    """One repository, tracked or formerly tracked, and when to ask GitHub about it next."""

    id = AutoField()
    github_id = BigIntegerField(null=True, unique=True)
    owner = TextField()
    name = TextField()
    full_name = TextField(unique=True, help_text="lower-case key of the current name")
    configured_as = TextField(
        null=True, index=True, help_text="lower-case key in the configuration, its own or 'owner/*'"
    )
    patterns = JsonField(default=list, help_text="branch names and globs; empty: the default branch")
    default_branch = TextField(null=True)
    archived = BooleanField(default=False)
    private = BooleanField(default=False)
    state = TextField(default="unknown")
    tracked = BooleanField(default=True)
    webhook = TextField(default="unknown")
    missed_webhooks = IntegerField(default=0)
    last_error = TextField(null=True)
    polled_at = InstantField(null=True, help_text="start of the last poll that succeeded")
    next_poll_at = InstantField(null=True, help_text="NULL: at once, out of its turn")
    changed_at = InstantField(null=True, help_text="when a branch of it last moved from one commit to another")
    poll_failures = IntegerField(default=0)
    suspect_sha = TextField(null=True, help_text="a head that a poll found and no delivery announced yet")
    suspect_branch = TextField(null=True)
    suspect_at = InstantField(null=True)
    search = BooleanField(default=True, help_text="whether its text may be searched")
    webhook_reason = TextField(null=True, help_text="why deliveries do not arrive, in GitHub's words")
    hook_log_due_at = InstantField(null=True)
    hook_log_until = InstantField(null=True, help_text="deliveries up to here were looked at")
    hook_log_missed = IntegerField(default=0, help_text="``missed_webhooks`` at that look")
    hinted = BooleanField(default=False, help_text="a delivery told of a change of its name or settings: ask who it is")
    replaced_at = InstantField(null=True, help_text="another repository has its name since; kept as ``name~github_id``")
    pruned = BooleanField(default=False, help_text="it is being removed, a batch at a time")


class FormerName(Table):
    """A name that a repository had, until another repository takes it."""

    full_name = TextField(primary_key=True)
    repository = ForeignKeyField(Repository, column_name="repository_id")


class Owner(Table):
    """An ``owner/*`` of the configuration, and when its repositories are looked for next."""

    configured_as = TextField(primary_key=True)
    looked_at = InstantField(null=True, help_text="start of the last look that succeeded")
    next_look_at = InstantField(null=True)
    hinted_at = InstantField(null=True, help_text="a delivery told of a change since then")
    failures = IntegerField(default=0)
    last_error = TextField(null=True)


class Branch(Table):
    """One branch: what is stored of it and what GitHub last said."""

    id = AutoField()
    repository = ForeignKeyField(Repository, column_name="repository_id")
    name = TextField(help_text='"" is the default branch while its name is unknown')
    is_default = BooleanField(default=False)
    tracked = BooleanField(default=True)
    head_sha = TextField(null=True)
    tree_sha = TextField(null=True)
    remote_sha = TextField(null=True)
    remote_read_at = InstantField(null=True)
    confirmed_at = InstantField(null=True)
    synced_at = InstantField(null=True)
    snapshot = IntegerField(default=0)
    oldest_snapshot = IntegerField(default=0, help_text="entries of older snapshots were swept")
    rules_digest = TextField(null=True)
    tree_verified = BooleanField(null=True)
    tree_error = TextField(null=True)
    last_error = TextField(null=True)
    last_trigger = TextField(null=True)
    gone = BooleanField(default=False)
    empty = BooleanField(default=False)
    archive_sha = TextField(null=True, help_text="the commit whose archive the first sync began to read")
    collections_digest = TextField(
        null=True, default="", help_text="of the rules of its entities; NULL: make them anew"
    )

    class Meta:  # noqa: D106 - peewee's way to say it
        indexes = ((("repository", "name"), True),)


class Entry(Table):
    """One entry of the snapshots ``since`` <= N < ``until`` of a branch."""

    branch_id = IntegerField()
    path = BlobField()
    path_text = TextField()
    mode = TextField()
    sha = TextField()
    size = BigIntegerField(null=True)
    stored = BooleanField()
    since = IntegerField()
    until = BigIntegerField(default=CURRENT)

    class Meta:  # noqa: D106 - peewee's way to say it
        primary_key = CompositeKey("branch_id", "path", "since")
        without_rowid = True


class Folder(Table):
    """The tree id of a folder of the current snapshot; the root is ``b""``, its own parent."""

    branch = ForeignKeyField(Branch, column_name="branch_id")
    parent = BlobField(help_text="the folder it is in")
    path = BlobField()
    tree_sha = TextField()

    class Meta:  # noqa: D106 - peewee's way to say it
        primary_key = CompositeKey("branch", "parent", "path")
        without_rowid = True


class Blob(Table):
    """Content by git object id; written before the snapshot that shows it."""

    sha = TextField(primary_key=True)
    size = BigIntegerField()
    stored_at = InstantField()
    content = BlobField(help_text="the bytes")  # last, so that the columns before it are read without touching it


class Commit(Table):
    """The commits of a branch; a higher ``position`` is newer."""

    branch_id = IntegerField()
    position = IntegerField()
    sha = TextField()
    tree_sha = TextField()
    parents = JsonField()
    author_name = TextField()
    author_email = TextField()
    authored_at = TextField()
    committed_at = TextField()
    message = TextField()

    class Meta:  # noqa: D106 - peewee's way to say it
        primary_key = CompositeKey("branch_id", "position")


class Delivery(Table):
    """Every verified delivery; a repeated one only raises ``attempts``."""

    id = AutoField()
    guid = TextField(null=True)
    body_digest = TextField()
    event = TextField()
    action = TextField(null=True)
    repository = TextField(null=True)
    ref = TextField(null=True)
    before = TextField(null=True)
    after = TextField(null=True)
    received_at = InstantField()
    status = TextField()
    reason = TextField(null=True)
    repository_id = IntegerField(null=True)
    branch_id = IntegerField(null=True)
    generation = BigIntegerField(null=True)
    run_id = IntegerField(null=True)
    attempts = IntegerField(default=1)
    acted = BooleanField(default=False)

    class Meta:  # noqa: D106 - peewee's way to say it
        indexes = ((("guid", "body_digest"), True),)


class Job(Table):
    """The one durable wish for a sync of a branch."""

    id = AutoField()
    branch = ForeignKeyField(Branch, column_name="branch_id", unique=True)
    wanted_generation = BigIntegerField(default=0)
    done_generation = BigIntegerField(default=0)
    claimed_generation = BigIntegerField(default=0)
    priority = IntegerField(default=1, help_text="0: webhook or manual, 1: the rest")
    triggers = JsonField(default=list, help_text="[generation, trigger, when it came] of what is not served yet")
    wanted_at = InstantField(null=True)
    run_after = InstantField(null=True)
    attempts = IntegerField(default=0)
    parked = BooleanField(default=False)
    lease_owner = TextField(null=True)
    lease_until = InstantField(null=True)
    token = BigIntegerField(default=0)
    last_error = TextField(null=True)
    sighting = JsonField(null=True)


class Run(Table):
    """One execution of a job that reached an end."""

    id = AutoField()
    repository = ForeignKeyField(Repository, column_name="repository_id")
    branch = ForeignKeyField(Branch, column_name="branch_id")
    trigger = TextField()
    triggers = JsonField()
    outcome = TextField()
    before = TextField(null=True)
    after = TextField(null=True)
    started_at = InstantField()
    finished_at = InstantField()
    added = IntegerField(default=0)
    modified = IntegerField(default=0)
    removed = IntegerField(default=0)
    entity_errors = IntegerField(default=0)
    requests = IntegerField(default=0)
    attempt = IntegerField(default=1)
    error = TextField(null=True)
    snapshot = IntegerField(null=True, help_text="the snapshot it made, if it made one")


class Outbox(Table):
    """What changed, per branch in order, written in the transaction that changed it."""

    id = AutoField()
    type = TextField()
    branch_id = IntegerField()
    before = TextField(null=True)
    after = TextField()
    added = JsonField()
    modified = JsonField()
    removed = JsonField()
    created_at = InstantField()
    entities = JsonField(null=True, help_text="[added, modified, removed], each [[type, id], …]; NULL: none")


class Node(Table):
    """A daemon that shares the store, and when it was last heard of."""

    id = TextField(primary_key=True)
    host = TextField()
    pid = IntegerField()
    version = TextField()
    started_at = InstantField()
    heartbeat_at = InstantField()
    config_digest = TextField()
    admin_url = TextField(null=True)


class Lease(Table):
    """What one node does for all of them, until when."""

    name = TextField(primary_key=True)
    owner = TextField()
    until = InstantField()


class Action(Table):
    """A configured action; every outbox row up to ``scanned_id`` was held against its filters."""

    key = TextField(primary_key=True, help_text="a digest of its definition")
    position = IntegerField()
    kind = TextField()
    target = TextField()
    scanned_id = BigIntegerField()


class ActionState(Table):
    """How far an action has come on a branch: it waits while ``done_id`` is below ``wanted_id``, or when ``forced``."""

    action = TextField()
    branch_id = IntegerField()
    wanted_id = BigIntegerField()
    done_id = BigIntegerField()
    forced = BooleanField(default=False)
    attempts = IntegerField(default=0)
    run_after = InstantField(null=True)
    commit_sha = TextField(null=True)
    last_error = TextField(null=True)
    note = TextField(null=True)
    output = TextField(null=True)
    finished_at = InstantField(null=True)

    class Meta:  # noqa: D106 - peewee's way to say it
        primary_key = CompositeKey("action", "branch_id")


class EntitySource(Table):
    """What a file says under a collection; the first by path of those with one id is the entity."""

    id = AutoField()
    branch_id = IntegerField()
    path = BlobField()
    entity_type = TextField()
    entity_id = TextField()
    label = TextField(null=True)
    description = TextField(null=True)
    sha = TextField()
    commit_sha = TextField()
    digest = TextField(help_text="of data")
    stale = BooleanField(default=False, help_text="the file does not parse any more")
    data = JsonField()

    class Meta:  # noqa: D106 - peewee's way to say it
        indexes = ((("branch_id", "path", "entity_type"), True),)


class Entity(Table):
    """An entity of a branch, its data in the source of its path and type; a deleted one stays for its history."""

    id = AutoField()
    branch_id = IntegerField()
    entity_type = TextField()
    entity_id = TextField()
    label = TextField(null=True)
    description = TextField(null=True)
    path = BlobField()
    path_text = TextField()
    commit_sha = TextField()
    digest = TextField()
    stale = BooleanField(default=False)
    deleted = BooleanField(default=False)
    created_at = InstantField()
    updated_at = InstantField()

    class Meta:  # noqa: D106 - peewee's way to say it
        indexes = ((("branch_id", "entity_type", "entity_id"), True),)


class EntityVersion(Table):
    """What an entity said from ``valid_from`` until ``valid_to``."""

    id = AutoField()
    entity_key = IntegerField()
    commit_sha = TextField()
    valid_from = InstantField()
    valid_to = InstantField(null=True)
    data = JsonField()


class EntityError(Table):
    """A file that is no entity although a collection takes it; ``entity_id`` is the one that another file has."""

    branch_id = IntegerField()
    path = BlobField()
    entity_type = TextField()
    path_text = TextField()
    entity_id = TextField(null=True)
    line = IntegerField(null=True)
    column = IntegerField(null=True)
    error = TextField()

    class Meta:  # noqa: D106 - peewee's way to say it
        primary_key = CompositeKey("branch_id", "path", "entity_type")
        without_rowid = True


class Budget(Table):
    """What is left of one resource of one token; resource "" is all of them."""

    mark = TextField(help_text="a digest of the token")
    resource = TextField()
    quota = IntegerField(null=True)
    remaining = IntegerField(null=True)
    reset_at = InstantField(null=True)
    paused_until = InstantField(null=True)
    updated_at = InstantField()

    class Meta:  # noqa: D106 - peewee's way to say it
        primary_key = CompositeKey("mark", "resource")
