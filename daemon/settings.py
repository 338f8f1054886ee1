"""The one table of settings: what each key is called, takes, defaults to and means.

A field's alias is its key in the file, its type parses and checks, its default is the default, its
description is the sentence of the documentation. A field of type Secret is never shown, and has a twin
``…_file`` in the file. The values are what the other parts see: seconds, bytes, addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import pydantic
from pathspec import GitIgnoreSpec
from pydantic import AfterValidator, BeforeValidator, ConfigDict, InstanceOf, PlainValidator

from daemon.errors import StoreIncompatible
from daemon.secret import Secret
from daemon.targets import parse_target
from daemon.values import (
    Address,
    Proxy,
    parse_address,
    parse_api_url,
    parse_branch,
    parse_duration,
    parse_full_name,
    parse_host_name,
    parse_path,
    parse_postgres_url,
    parse_proxy,
    parse_public_url,
    parse_size,
    parse_text,
    shown,
    url_passwords,
)

FORBID_UNKNOWN = ConfigDict(extra="forbid")
WEBHOOK_LISTEN = Address("tcp", host="127.0.0.1", port=8787)
ADMIN_LISTEN = Address("tcp", host="127.0.0.1", port=8788)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MOST_WORKERS = 256  # each is a thread with a connection to GitHub and one to the database
FOUR_DAYS = 4 * 86400.0  # GitHub redelivers within three days, and a day to notice


def _key(alias: str | None, sentence: str) -> Any:
    return pydantic.Field(alias=alias, description=sentence)


def _at_least(parse: Callable[[Any], float], minimum: float, written: str) -> BeforeValidator:
    def check(value: Any) -> float:
        parsed = parse(value)
        if parsed < minimum:
            raise ValueError(f"{shown(value)} is too little; write {written} or more")
        return parsed

    return BeforeValidator(check)


def _seconds(minimum: float, written: str) -> BeforeValidator:
    return _at_least(parse_duration, minimum, written)


def _bytes(minimum: int) -> BeforeValidator:
    return _at_least(parse_size, minimum, str(minimum))


def _count(minimum: int, maximum: int = 1_000_000) -> Any:
    return pydantic.Field(strict=True, ge=minimum, le=maximum)


def _lowered(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must not be empty")
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _app_id(value: Any) -> str:
    # GitHub takes an App's number or its client id ("Iv1.…") as the issuer of its tokens.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else parse_text(value)


def _pattern(value: Any) -> str:
    text = parse_text(value)
    try:
        GitIgnoreSpec.from_lines([text], backend="simple")
    except ValueError as error:
        raise ValueError(f"{shown(value)} is not a gitignore-style pattern") from error
    return text


def _storage_url(value: Any) -> str:
    hint = "write sqlite:///relative/file.db, sqlite:////absolute/file.db or postgresql://user@host/database"
    scheme, colon, rest = value.partition("://") if isinstance(value, str) else ("", "", "")
    if scheme in {"postgresql", "postgres"}:
        if find_spec("psycopg") is None:
            raise ValueError("needs psycopg, which is not installed; pip install 'headwater[postgres]'")
        return parse_postgres_url(value)
    if scheme != "sqlite" or not colon:
        raise ValueError(f"is not the URL of a database; {hint}")
    path = rest.removeprefix("/")
    if not rest.startswith("/") or path.endswith("/") or path in {"", ".", "..", ":memory:"}:
        raise ValueError(f"names no file; {hint}")
    if not path.isprintable() or set(path) & set("?#"):
        raise ValueError(f"has options or characters that a file name here must not have; {hint}")
    return str(value)


def _argument(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("must be a text in quotes, without NUL")
    return value


Flag = Annotated[bool, pydantic.Field(strict=True)]
Text = Annotated[str, PlainValidator(parse_text)]
Texts = Annotated[tuple[Text, ...], pydantic.Field()]
Arguments = tuple[Annotated[str, PlainValidator(_argument)], ...]
Patterns = tuple[Annotated[str, PlainValidator(_pattern)], ...]
Branches = tuple[Annotated[str, PlainValidator(parse_branch)], ...]
Globs = Annotated[Texts, BeforeValidator(_listed)]
FilePath = Annotated[Path, PlainValidator(lambda value: Path(parse_text(value)))]
Listen = Annotated[Address, PlainValidator(parse_address)]


@dataclass(frozen=True)
class GitHubSettings:
    """`[github]`: where GitHub is, and as whom it is asked."""

    __pydantic_config__ = FORBID_UNKNOWN

    api_url: Annotated[
        str,
        PlainValidator(parse_api_url),
        _key(
            None,
            "REST base, `https://HOST/api/v3` for Enterprise Server; GraphQL is derived; plain http only to loopback.",
        ),
    ] = "https://api.github.com"
    secret: Annotated[
        InstanceOf[Secret], _key("token", "Without it nothing is fetched, unless `anonymous` is set.")
    ] = field(default_factory=Secret, repr=False)
    anonymous: Annotated[
        Flag, _key(None, "Whether public repositories are read without a token (60 requests an hour).")
    ] = False
    app_id: Annotated[
        str | None,
        PlainValidator(_app_id),
        _key(None, "The id of a GitHub App, instead of a token; needs the extra `app`."),
    ] = None
    private_key_file: Annotated[
        FilePath | None, _key(None, "The file with the App's private key (PEM), read again at every use.")
    ] = None
    installation_id: Annotated[
        int | None, _count(1, 2**63 - 1), _key(None, "The App's installation; found per owner when not given.")
    ] = None
    timeout_seconds: Annotated[
        float,
        _seconds(0.1, '"100ms"'),
        _key("timeout", "For one request: connect, and each read; there is a total deadline besides."),
    ] = 30.0

    @property
    def graphql_url(self) -> str:
        # https://docs.github.com/en/enterprise-server/graphql/guides/forming-calls-with-graphql
        base = self.api_url.rstrip("/")
        return f"{base.removesuffix('/v3')}/graphql" if base.endswith("/api/v3") else f"{base}/graphql"

    @property
    def configured(self) -> bool:
        """Whether GitHub may be asked at all."""
        return self.anonymous or self.app_id is not None or self.token() is not None

    def token(self) -> str | None:
        """The token in force; its file is read again."""
        return self.secret.first()


@dataclass(frozen=True)
class WebhookSettings:
    """`[webhook]`: the public listener."""

    __pydantic_config__ = FORBID_UNKNOWN

    listen: Annotated[
        Listen, _key(None, "`host:port`, `[v6]:port`, `unix:/path`; a systemd socket named `webhook` wins.")
    ] = WEBHOOK_LISTEN
    path: Annotated[str, PlainValidator(parse_path), _key(None, "The path that GitHub posts deliveries to.")] = (
        "/api/v1/webhooks/github"
    )
    public_url: Annotated[
        str | None,
        PlainValidator(parse_public_url),
        _key(None, "Where GitHub reaches it, for `headwater hooks`; `path` is added when it has none."),
    ] = None
    secret: Annotated[
        InstanceOf[Secret],
        _key(None, "A string, or a list while rotating (any of them verifies); unset is development mode."),
    ] = field(default_factory=Secret, repr=False)
    allow_unverified: Annotated[Flag, _key(None, "The only way to listen beyond loopback without a secret.")] = False
    max_body_bytes: Annotated[
        int, _bytes(1), _key("max_body", "The largest delivery taken; this is GitHub's own cap.")
    ] = 25 * 2**20

    github_hook_addresses: Annotated[
        Flag, _key(None, "Whether deliveries are taken from GitHub's own addresses (GET /meta) only.")
    ] = False
    trusted_proxies: Annotated[
        tuple[Annotated[Proxy, PlainValidator(parse_proxy)], ...],
        _key(
            None,
            "Addresses, networks or `unix` of proxies whose last hop in `X-Forwarded-For` is taken for the sender.",
        ),
    ] = ()

    def delivery_url(self, public_url: str | None = None) -> str | None:
        """What GitHub is to post deliveries to, by ``public_url`` or the configured one; None without either."""
        url = public_url or self.public_url
        if url is None:
            return None
        parts = urlsplit(url)
        return url if parts.path.strip("/") else parts._replace(path=self.path).geturl()

    def secrets(self) -> tuple[bytes, ...]:
        """The secrets in force, as HMAC keys; the file is read again."""
        return tuple(value.encode() for value in self.secret.values())


@dataclass(frozen=True)
class AdminSettings:
    """`[admin]`: the listener of API, dashboard and metrics."""

    __pydantic_config__ = FORBID_UNKNOWN

    listen: Annotated[
        Listen, _key(None, "API, dashboard, metrics; notations as above; a systemd socket named `admin` wins.")
    ] = ADMIN_LISTEN
    secret: Annotated[
        InstanceOf[Secret],
        _key("token", "Bearer token for everything here but the health checks; needed to listen beyond loopback."),
    ] = field(default_factory=Secret, repr=False)
    allowed_hosts: Annotated[
        tuple[Annotated[str, PlainValidator(parse_host_name)], ...],
        AfterValidator(_not_empty),
        _key(None, "Host headers answered (against DNS rebinding), without port; others get 403."),
    ] = LOOPBACK_NAMES

    def token(self) -> str | None:
        """The token in force; its file is read again."""
        return self.secret.first()


@dataclass(frozen=True)
class PollingSettings:
    """`[polling]`: what is asked of GitHub without having been told."""

    __pydantic_config__ = FORBID_UNKNOWN

    enabled: Annotated[Flag, _key(None, "Whether repositories are polled at all.")] = True
    interval_seconds: Annotated[
        float,
        _seconds(1.0, '"1s"'),
        _key("interval", "How long a change may go unseen while webhooks are unavailable; at least 1s."),
    ] = 60.0
    reconcile_interval_seconds: Annotated[
        float,
        _seconds(1.0, '"1s"'),
        _key(
            "reconcile_interval",
            "The same while webhooks of that repository work; at least `interval`.",
        ),
    ] = 900.0
    batch_size: Annotated[int, _count(1), _key(None, "Repositories asked about in one GraphQL request.")] = 100


@dataclass(frozen=True)
class StorageSettings:
    """`[storage]`: the database."""

    __pydantic_config__ = FORBID_UNKNOWN

    url: Annotated[
        str,
        PlainValidator(_storage_url),
        _key(
            None, "`sqlite:///file` (when relative under $STATE_DIRECTORY, else here) or `postgresql://user@host/db`."
        ),
    ] = field(default="sqlite:///headwater.db", repr=False)  # it may hold a password
    secret: Annotated[
        InstanceOf[Secret],
        _key(
            "password",
            "PostgreSQL's password, where neither the URL nor libpq's own ways bring it.",
        ),
    ] = field(default_factory=Secret, repr=False)
    delivery_retention_seconds: Annotated[
        float,
        _seconds(FOUR_DAYS, '"4d", GitHub\'s redelivery window and a day,'),
        _key("delivery_retention", "How long deliveries are remembered; never less than 4d."),
    ] = 30 * 86400.0
    change_retention_seconds: Annotated[
        float,
        _seconds(3600.0, '"1h"'),
        _key("change_retention", "How far back the change feed can be read; at least 1h."),
    ] = 30 * 86400.0

    @property
    def is_postgres(self) -> bool:
        """Whether the store is one that several daemons may share."""
        return not self.url.startswith("sqlite:")

    def password(self) -> str | None:
        """The password in force; its file is read again."""
        return self.secret.first()

    @property
    def sqlite_path(self) -> Path:
        """The database file of a store on SQLite; absolute once loaded. Raises StoreIncompatible on PostgreSQL."""
        if self.is_postgres:
            raise StoreIncompatible("the store is on PostgreSQL and no file")
        return Path(self.url.removeprefix("sqlite:///"))


@dataclass(frozen=True)
class SyncSettings:
    """`[sync]`: how branches are brought up to date."""

    __pydantic_config__ = FORBID_UNKNOWN

    workers: Annotated[int, _count(1, MOST_WORKERS), _key(None, "Syncs at a time.")] = 4
    max_attempts: Annotated[
        int, _count(1), _key(None, "Attempts before a job is parked as failed; outages and rate limits do not count.")
    ] = 8
    max_file_bytes: Annotated[
        int, _bytes(0), _key("max_file_size", "Larger files keep their entry, without content.")
    ] = 5_000_000
    commit_history: Annotated[int, _count(1), _key(None, "Commits stored on the first sync.")] = 100


@dataclass(frozen=True)
class ServerSettings:
    """`[server]`: the process."""

    __pydantic_config__ = FORBID_UNKNOWN

    shutdown_timeout_seconds: Annotated[
        float, _seconds(0.0, '"0s"'), _key("shutdown_timeout", "How long running work may take to end after TERM.")
    ] = 30.0


@dataclass(frozen=True)
class MetricsSettings:
    """`[metrics]`: what `/metrics` tells."""

    __pydantic_config__ = FORBID_UNKNOWN

    repository_labels: Annotated[
        Flag, _key(None, "Whether it names repositories and branches; false where others may read it.")
    ] = True


@dataclass(frozen=True)
class LogSettings:
    """`[log]`: what is logged, and how it looks."""

    __pydantic_config__ = FORBID_UNKNOWN

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(_lowered),
        _key(None, "`debug`, `info`, `warning` or `error`."),
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "journald", "json"],
        BeforeValidator(_lowered),
        _key(None, "`console`, `journald`, `json`; `auto`: console on a terminal, journald under systemd, else JSON."),
    ] = "auto"


@dataclass(frozen=True)
class CollectionRule:
    """`[[repositories.collections]]`: turns files into entities."""

    __pydantic_config__ = FORBID_UNKNOWN

    type: Annotated[Text, _key(None, "The type that the entities get.")]
    files: Annotated[
        Globs,
        AfterValidator(_not_empty),
        _key(None, "Glob over the paths of the files, or several; `**` goes through folders."),
    ]
    id: Annotated[Text | None, _key(None, "The key that holds the id; else `id`, `@id`, the file's stem.")] = None
    label: Annotated[Text | None, _key(None, "The key that holds the label; else `label`, `name`, the id.")] = None
    description: Annotated[
        Text | None, _key(None, "The key that holds the description; else `description`, `comment`.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class _RepositoryKeys:
    """What `[[repositories]]` says besides the name."""

    branches: Annotated[Branches, _key(None, "Names or globs; the default branch when not given.")] = ()
    include: Annotated[Patterns, _key(None, "gitignore-style patterns of the content to keep; else everything.")] = ()
    exclude: Annotated[
        Patterns, _key(None, "gitignore-style patterns of content to leave out; its entries keep path and id.")
    ] = ()
    exclude_repositories: Annotated[
        Texts, _key(None, "With `owner/*`: globs over the full or the bare name of repositories to leave out.")
    ] = ()
    topics: Annotated[Globs, _key(None, "With `owner/*`: only repositories that have one of these topics.")] = ()
    archived: Annotated[Flag, _key(None, "With `owner/*`: whether archived repositories are taken.")] = True
    forks: Annotated[Flag, _key(None, "With `owner/*`: whether forks are taken.")] = True
    search: Annotated[Flag, _key(None, "Whether its text can be searched.")] = True
    collections: Annotated[tuple[CollectionRule, ...], _key(None, "Rules that turn files into entities.")] = ()


@dataclass(frozen=True)
class RepositoryTable(_RepositoryKeys):
    """`[[repositories]]` as it is written."""

    __pydantic_config__ = FORBID_UNKNOWN

    name: Annotated[str, PlainValidator(parse_full_name), _key(None, "`owner/name`, or `owner/*` for all of them.")]


@dataclass(frozen=True)
class RepositoryRule(_RepositoryKeys):
    """A configured repository, or with the name ``*`` all of an owner's."""

    owner: str
    name: str

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def is_pattern(self) -> bool:
        return self.name == "*"


@dataclass(frozen=True)
class ActionRule:
    """`[[actions]]`: what is done after a sync changed something; one of command, url, publish."""

    __pydantic_config__ = FORBID_UNKNOWN

    command: Annotated[Arguments, _key(None, "A program and its arguments; changed paths on its standard input.")] = ()
    url: Annotated[str | None, PlainValidator(parse_public_url), _key(None, "Where to post the change as JSON.")] = None
    secret: Annotated[InstanceOf[Secret], _key(None, "Signs what is posted, as GitHub signs.")] = field(
        default_factory=Secret, repr=False
    )
    publish: Annotated[
        str | None,
        PlainValidator(parse_target),
        _key(None, "A folder that flips atomically; `{owner}`, `{name}`, `{branch}` when it is for several."),
    ] = None
    timeout_seconds: Annotated[
        float, _seconds(0.1, '"100ms"'), _key("timeout", "How long a command or a request may take.")
    ] = 300.0
    repositories: Annotated[Texts, _key(None, "Only these repositories (globs).")] = ()
    branches: Annotated[Texts, _key(None, "Only these branches (globs).")] = ()
    paths: Annotated[Patterns, _key(None, "Only when one of these paths changed (gitignore-style patterns).")] = ()

    @property
    def definition(self) -> tuple[object, ...]:
        """What it does and for what: another secret or time-out makes no other action."""
        return (self.command, self.url, self.publish, self.repositories, self.branches, self.paths)


@dataclass(frozen=True)
class Config:
    """The whole configuration; ``source`` is the file it was read from, ``advice`` what in it works but is unwise."""

    github: GitHubSettings = field(default_factory=GitHubSettings)
    webhook: WebhookSettings = field(default_factory=WebhookSettings)
    admin: AdminSettings = field(default_factory=AdminSettings)
    polling: PollingSettings = field(default_factory=PollingSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    log: LogSettings = field(default_factory=LogSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    repositories: tuple[RepositoryRule, ...] = ()
    actions: tuple[ActionRule, ...] = ()
    source: Path | None = None
    advice: tuple[str, ...] = ()

    def secret_values(self) -> list[str]:
        """Every secret there is or was, for redaction. Reads no file."""
        secrets = [self.github.secret, self.webhook.secret, self.admin.secret, self.storage.secret]
        secrets += [action.secret for action in self.actions]
        return [value for secret in secrets for value in secret.seen()] + url_passwords(self.storage.url)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. ``key`` is written as in the contract: `webhook.listen`, `repositories[].name`."""

    key: str
    sentence: str
    default: Any  # as the other parts see it; None when unset
    secret: bool = False
    kind: Literal["flag", "number", "text", "list"] = "text"


def settings() -> Iterator[Setting]:
    """The table of settings, the ``…_file`` twins of secrets included."""
    for section in fields(Config):
        if section.name == "repositories":
            yield from _rows("repositories[]", RepositoryTable)
        elif section.name == "actions":
            yield from _rows("actions[]", ActionRule)
        elif section.default_factory is not MISSING:
            yield from _rows(section.name, type(section.default_factory()))


def _rows(prefix: str, table: type) -> Iterator[Setting]:
    hints = get_type_hints(table, include_extras=True)
    for item in fields(table):
        base = get_args(hints[item.name])[0]
        about = pydantic.fields.FieldInfo.from_annotation(hints[item.name])
        key, sentence = f"{prefix}.{about.alias or item.name}", about.description or ""
        if base == tuple[CollectionRule, ...]:
            yield from _rows(f"{key}[]", CollectionRule)
        elif item.default_factory is Secret:
            yield Setting(key, sentence, None, secret=True)
            yield Setting(f"{key}_file", f"A file that holds `{key.replace('[]', '')}`, read again at every use.", None)
        else:
            yield Setting(key, sentence, None if item.default is MISSING else item.default, kind=_kind(base))


def _kind(base: Any) -> Literal["flag", "number", "text", "list"]:
    if base is bool:
        return "flag"
    if base is int or int in get_args(base):
        return "number"
    return "list" if get_origin(base) is tuple else "text"
