"""Finds, reads and checks the configuration: everything that is wrong with it is told at once.

The table of settings is in ``settings``. Values come from the environment, else from the file, else from
systemd's credentials, else they are the defaults; the layers are merged here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from daemon import origins, targets
from daemon.appkey import PrivateKey, extra_is_installed
from daemon.errors import ConfigError, Problem
from daemon.globs import matches_repository
from daemon.origins import Layer
from daemon.redaction import redact_shapes
from daemon.secret import Secret, readable_by_others
from daemon.settings import (
    ActionRule,
    AdminSettings,
    CollectionRule,
    Config,
    GitHubSettings,
    LogSettings,
    MetricsSettings,
    PollingSettings,
    RepositoryRule,
    RepositoryTable,
    ServerSettings,
    Setting,
    StorageSettings,
    SyncSettings,
    WebhookSettings,
    settings,
)
from daemon.values import Address, nearest, shown, url_passwords

__all__ = [
    "ActionRule",
    "Address",
    "AdminSettings",
    "CollectionRule",
    "Config",
    "GitHubSettings",
    "LogSettings",
    "MetricsSettings",
    "PollingSettings",
    "RepositoryRule",
    "ServerSettings",
    "Setting",
    "StorageSettings",
    "SyncSettings",
    "WebhookSettings",
    "diff_needing_restart",
    "exposures",
    "find",
    "load",
    "settings",
]

SYSTEM_FILE = Path("/etc/headwater/config.toml")

TYPE_SENTENCES = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number, such as 4 (without quotes)",
    "tuple_type": 'must be a list, such as ["one", "two"]',
    "dataclass_type": "must be a table of keys and values",
    "missing": "is required here",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
}


class _Tree(BaseModel):
    """The shape of the whole file, for pydantic to validate; ``layers`` is all that it is built from."""

    # Not pydantic-settings, whose import alone is a third of what a short command takes.
    model_config = ConfigDict(extra="forbid", validate_default=True, arbitrary_types_allowed=True)

    github: GitHubSettings = Field(default_factory=GitHubSettings)
    webhook: WebhookSettings = Field(default_factory=WebhookSettings)
    admin: AdminSettings = Field(default_factory=AdminSettings)
    polling: PollingSettings = Field(default_factory=PollingSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    sync: SyncSettings = Field(default_factory=SyncSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    repositories: tuple[RepositoryTable, ...] = ()
    actions: tuple[ActionRule, ...] = ()

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__(**_merged(layers))


def _merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """The sections with every key from the first of the layers that has it."""
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        for name, value in layer.values.items():
            below = merged.get(name)
            merged[name] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def find(explicit: str | None, *, environ: Mapping[str, str], cwd: Path, system: Path = SYSTEM_FILE) -> Path:
    """The file to read: ``explicit``, else $HEADWATER_CONFIG, else ./config.toml, else the system's.

    Raises ConfigError when there is none.
    """
    named = explicit or environ.get("HEADWATER_CONFIG", "")
    if named:
        if not os.path.lexists(cwd / named):
            raise ConfigError([Problem(named, "", "does not exist; write it after config.example.toml")])
        return cwd / named
    candidates = (cwd / "config.toml", system)
    for candidate in candidates:
        if os.path.lexists(candidate):
            return candidate
    looked = " nor ".join(str(candidate) for candidate in candidates)
    message = f"there is neither {looked}; write one after config.example.toml, or name it with --config"
    raise ConfigError([Problem("configuration", "", message)])


def load(path: Path | None, *, environ: Mapping[str, str], cwd: Path) -> Config:
    """The configuration of the file at ``path`` (none: no file), the environment and the credentials.

    Raises ConfigError with every problem found.
    """
    above = [origins.environment(environ, cwd), origins.file(path, cwd)]
    layers = [*above, origins.credentials(environ, cwd, above)]
    problems = list(_told(layers))
    tree, more, skipped = _validated(layers)
    problems += more
    config = _config(tree, path, environ, cwd)
    if not any(layer.has("polling.reconcile_interval") for layer in layers):
        config = replace(config, polling=_paced(config.polling))
    if all(layer.usable for layer in layers):
        wrong = {problem.key.removesuffix("_file") for problem in problems}
        for keys, message in _contradictions(config, skipped):
            if wrong.isdisjoint(keys):
                problems.append(Problem(_origin(layers, keys), keys[0], message))
    if problems:
        raise ConfigError(problems)
    return replace(config, advice=tuple(_advice(config, layers)))


def diff_needing_restart(old: Config, new: Config) -> tuple[str, ...]:
    """The keys whose change a reload cannot apply: listeners and storage."""
    pairs = {
        "webhook.listen": (old.webhook.listen, new.webhook.listen),
        "webhook.path": (old.webhook.path, new.webhook.path),
        "admin.listen": (old.admin.listen, new.admin.listen),
        "storage.url": (old.storage.url, new.storage.url),
    }
    return tuple(key for key, (before, after) in pairs.items() if before != after)


def exposures(config: Config, *, webhook: Address, admin: Address) -> Iterator[tuple[tuple[str, ...], str]]:
    """What forbids to listen at these addresses: the keys concerned, and why.

    The addresses need not be the configured ones: sockets may have come from systemd.
    """
    if not (webhook.is_loopback or config.webhook.secrets() or config.webhook.allow_unverified):
        why = f"must be set, because webhook.listen is {webhook}, which other machines can reach: set it, "
        or_else = "listen on 127.0.0.1, or set webhook.allow_unverified = true to believe whatever arrives"
        yield ("webhook.secret", "webhook.listen"), why + or_else
    if not (admin.is_loopback or config.admin.token()):
        why = f"must be set, because admin.listen is {admin}, which other machines can reach: set it, "
        yield ("admin.token", "admin.listen"), why + "or listen on 127.0.0.1"


def _told(layers: Sequence[Layer]) -> Iterator[Problem]:
    """What is wrong in the layers, but for what the environment overrides anyway."""
    for layer in layers:
        for problem in layer.problems:
            overridden = any(map(layers[0].has, (problem.key, problem.key.removesuffix("_file"))))
            if layer is layers[0] or not overridden:
                yield problem


# -- validation -----------------------------------------------------------------------------------


def _validated(layers: Sequence[Layer]) -> tuple[_Tree, list[Problem], set[tuple[Any, ...]]]:
    """The tree, with defaults where the values are wrong; the problems; the places that were left out.

    So what is right is still checked against the rest, and all problems are told in one go.
    """
    try:
        return _Tree(layers), [], set()
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    problems = [_problem(detail, layers) for detail in details]
    skipped = {detail["loc"][:2] for detail in details}
    reduced = [replace(layer, values=_without(layer.values, skipped)) for layer in layers]
    return _Tree(reduced), problems, skipped


def _without(values: Mapping[str, Any], skipped: set[tuple[Any, ...]]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if (name,) in skipped:
            continue
        if isinstance(value, dict):
            kept[name] = {leaf: one for leaf, one in value.items() if (name, leaf) not in skipped}
        else:
            kept[name] = [one for index, one in enumerate(value) if (name, index) not in skipped]
    return kept


def _problem(detail: ErrorDetails, layers: Sequence[Layer]) -> Problem:
    loc = detail["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{_printable(part)}" for part in loc).lstrip(".")
    source = _origin(layers, (f"{loc[0]}.{loc[1]}" if len(loc) > 1 else key,))
    return Problem(source, key, redact_shapes(_sentence(detail, key)))


def _sentence(detail: ErrorDetails, key: str) -> str:
    context = detail.get("ctx", {})
    if detail["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        return f"unknown {'key' if '.' in key else 'section or key'}; the nearest known one is {_nearest_key(key)}"
    if "error" in context:
        return str(context["error"])
    return TYPE_SENTENCES.get(detail["type"], detail["msg"]).format(**context)


def _printable(text: str) -> str:
    return text if text.isprintable() and len(text) <= 60 else shown(text)  # noqa: PLR2004


def _nearest_key(key: str) -> str:
    """The known key nearest to ``key``: the same last word elsewhere, else one of the same table, else any."""
    indexes = re.findall(r"\[[0-9]+\]", key)
    generic = re.sub(r"\[[0-9]+\]", "[]", key)
    known = [setting.key for setting in settings()]
    table, _, leaf = generic.rpartition(".")
    if not table and leaf not in {one.rpartition(".")[2] for one in known}:
        return nearest(key, _Tree.model_fields)
    same_leaf = [one for one in known if one.rpartition(".")[2] == leaf]
    same_table = [one for one in known if one.rpartition(".")[0] == table]
    found = nearest(generic, same_leaf or same_table or known)
    for index in indexes:
        found = found.replace("[]", index, 1)
    return found


def _origin(layers: Sequence[Layer], keys: Iterable[str]) -> str:
    """The layer that sets one of ``keys``, else the file."""
    for key in keys:
        for layer in layers:
            if layer.has(key):
                return layer.name
    return layers[1].name


# -- the whole ------------------------------------------------------------------------------------


def _config(tree: _Tree, path: Path | None, environ: Mapping[str, str], cwd: Path) -> Config:
    sections = {section: getattr(tree, section) for section in _Tree.model_fields if section != "repositories"}
    folder = cwd / (environ.get("STATE_DIRECTORY", "").partition(":")[0] or cwd)
    if not tree.storage.is_postgres:
        sections["storage"] = replace(tree.storage, url=f"sqlite:///{folder / tree.storage.sqlite_path}")
    rules = tuple(_rule(table) for table in tree.repositories)
    return Config(**sections, repositories=rules, source=path)


def _paced(polling: PollingSettings) -> PollingSettings:
    """Nobody should have to write a second interval for the sake of a long first one."""
    longer = max(polling.reconcile_interval_seconds, polling.interval_seconds)
    return replace(polling, reconcile_interval_seconds=longer)


def _rule(table: RepositoryTable) -> RepositoryRule:
    owner, _, name = table.name.partition("/")
    rest = {item.name: getattr(table, item.name) for item in fields(table) if item.name != "name"}
    return RepositoryRule(owner, name, **rest)


def _contradictions(config: Config, skipped: set[tuple[Any, ...]]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong between keys that are right one by one: the keys (the one to name first), and why."""
    polling, webhook, admin, github = config.polling, config.webhook, config.admin, config.github
    if polling.reconcile_interval_seconds < polling.interval_seconds:
        bounds = (
            f"{polling.reconcile_interval_seconds:g} s, shorter than polling.interval ({polling.interval_seconds:g} s)"
        )
        yield ("polling.reconcile_interval", "polling.interval"), f"is {bounds}; write at least as much"
    yield from exposures(config, webhook=webhook.listen, admin=admin.listen)
    if webhook.listen == admin.listen and (webhook.listen.port or webhook.listen.path):
        yield ("admin.listen", "webhook.listen"), f"is {admin.listen}, as webhook.listen is; give it another port"
    yield from _app_contradictions(github)
    yield from _repository_contradictions(_numbered(config.repositories, "repositories", skipped))
    yield from _action_contradictions(_numbered(config.actions, "actions", skipped))
    yield from _target_contradictions(_numbered(config.actions, "actions", skipped), config.repositories)


def _app_contradictions(github: GitHubSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    if github.app_id is None:
        if github.installation_id is not None:
            yield ("github.installation_id",), "is for a GitHub App; set github.app_id too, or remove it"
        return
    if github.token():
        yield ("github.app_id", "github.token"), "and github.token are both set; keep one of them"
    if not extra_is_installed():
        yield ("github.app_id",), "needs the extra `app`, which is not installed; pip install 'headwater[app]'"
    elif github.private_key_file is None:
        yield ("github.private_key_file", "github.app_id"), "is required with github.app_id"
    else:
        try:
            PrivateKey(github.private_key_file).load()
        except ValueError as error:
            yield ("github.private_key_file",), str(error)


def _numbered(items: Sequence[Any], name: str, skipped: set[tuple[Any, ...]]) -> Iterator[tuple[str, Any]]:
    """The items with their keys, counted as in the file, where wrong ones stand between them."""
    positions = (index for index in range(len(items) + len(skipped)) if (name, index) not in skipped)
    return ((f"{name}[{index}]", item) for index, item in zip(positions, items, strict=False))


def _repository_contradictions(rules: Iterator[tuple[str, RepositoryRule]]) -> Iterator[tuple[tuple[str, ...], str]]:
    seen: dict[str, str] = {}
    for key, rule in rules:
        first = seen.setdefault(rule.full_name.lower(), key)
        if first != key:
            yield (f"{key}.name",), f"{shown(rule.full_name)} is configured already by {first}; remove one of the two"
        for name in ("exclude_repositories", "topics", "archived", "forks"):
            if not rule.is_pattern and getattr(rule, name) != getattr(RepositoryRule, name):
                yield (f"{key}.{name}",), f"is for {rule.owner}/* only; remove it, or write that name"


def _action_contradictions(actions: Iterator[tuple[str, ActionRule]]) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, action in actions:
        if sum(map(bool, (action.command, action.url, action.publish))) != 1:
            yield (key,), "needs exactly one of command, url and publish"
        if action.command and not action.command[0].strip():
            yield (f"{key}.command",), "names no program"
        if action.secret != Secret() and not action.url:
            yield (f"{key}.secret",), "is for url only; remove it"


def _target_contradictions(
    actions: Iterator[tuple[str, ActionRule]], repositories: Sequence[RepositoryRule]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What would have two actions be one, or two branches share a published folder."""
    seen: dict[tuple[object, ...], str] = {}
    for key, action in actions:
        first = seen.setdefault(action.definition, key)
        if first != key:
            yield (key,), f"does the same as {first} for the same; remove one of the two"
        followed = [
            (rule.owner, rule.name, rule.branches)
            for rule in repositories
            if rule.is_pattern or matches_repository(rule.full_name, action.repositories)
        ]
        if action.publish and (why := targets.shared(action.publish, followed, action.branches)):
            yield (f"{key}.publish",), why


def _advice(config: Config, layers: Sequence[Layer]) -> Iterator[str]:
    """What is valid, but lets no delivery in or everybody, or every user of this machine read a secret."""
    webhook = config.webhook
    if webhook.github_hook_addresses and webhook.listen.is_loopback and not webhook.trusted_proxies:
        yield (
            f"webhook.github_hook_addresses lets nobody in at {webhook.listen}, where only a proxy can connect; "
            "name it in webhook.trusted_proxies"
        )
    held = [config.github.secret, config.webhook.secret, config.admin.secret, config.storage.secret]
    held += [action.secret for action in config.actions]
    for secret in held:
        if secret.file and not secret.values():
            yield f"{secret.file} is empty: it is as if no secret was set, until there is one in it"
    files = [secret.file for secret in held if secret.file] + [config.github.private_key_file]
    in_file = any(isinstance(one, Secret) and one.inline for one in _leaves(layers[1]))
    in_url = bool(url_passwords(config.storage.url)) and layers[1].has("storage.url")
    files.append(config.source if in_file or in_url else None)
    for path in files:
        if path is not None and readable_by_others(path):
            yield f"every user of this machine may read {path}, which holds a secret; chmod 600 it"


def _leaves(layer: Layer) -> Iterator[Any]:
    tables = [value for value in layer.values.values() if isinstance(value, dict)]
    tables += [action for action in layer.values.get("actions", ()) if isinstance(action, dict)]
    for table in tables:
        yield from table.values()
