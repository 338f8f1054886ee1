from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import daemon.origins
from daemon.config import Address, Config, RepositoryRule, diff_needing_restart, exposures, find, load
from daemon.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    def read(text="", *, environ=None):
        path = tmp_path / "config.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(path, environ=environ or {}, cwd=tmp_path)

    return read


@pytest.fixture
def problems(read, tmp_path):
    """Each problem as `key: message`, with `environment ` in front when that is its source."""

    def problems(text="", *, environ=None):
        with pytest.raises(ConfigError) as caught:
            read(text, environ=environ)
        file = str(tmp_path / "config.toml")
        assert all(problem.source in (file, "environment", "credentials") for problem in caught.value.problems)
        assert all(str(problem).isprintable() for problem in caught.value.problems)
        return [
            f"{'' if problem.source == file else problem.source + ' '}{problem.key}: {problem.message}"
            for problem in caught.value.problems
        ]

    return problems


def only(problems):
    assert len(problems) == 1, problems
    return problems[0]


# -- finding --------------------------------------------------------------------------------------


def test_the_file_is_the_named_one_then_the_environments_then_here_then_the_systems(tmp_path):
    system, here, other, named = (
        tmp_path / name for name in ("system.toml", "config.toml", "other.toml", "named.toml")
    )
    environ = {"HEADWATER_CONFIG": "other.toml"}
    for path in (system, here, other, named):
        path.touch()
    assert find("named.toml", environ=environ, cwd=tmp_path, system=system) == named
    assert find(None, environ=environ, cwd=tmp_path, system=system) == other
    assert find(None, environ={"HEADWATER_CONFIG": ""}, cwd=tmp_path, system=system) == here
    here.unlink()
    assert find(None, environ={}, cwd=tmp_path, system=system) == system


def test_without_any_file_the_problem_names_where_it_was_looked_for(tmp_path):
    with pytest.raises(ConfigError) as caught:
        find(None, environ={}, cwd=tmp_path, system=tmp_path / "system.toml")
    (problem,) = caught.value.problems
    assert str(tmp_path / "config.toml") in str(problem)
    assert str(tmp_path / "system.toml") in str(problem)


@pytest.mark.parametrize(("explicit", "environ"), [("gone.toml", {}), (None, {"HEADWATER_CONFIG": "gone.toml"})])
def test_a_named_file_that_is_missing_is_not_replaced_by_another(tmp_path, explicit, environ):
    (tmp_path / "config.toml").touch()
    with pytest.raises(ConfigError, match=r"gone\.toml: does not exist"):
        find(explicit, environ=environ, cwd=tmp_path)


# -- reading --------------------------------------------------------------------------------------


def test_an_empty_file_is_the_defaults_without_repositories(read, tmp_path):
    assert read("") == Config(source=tmp_path / "config.toml", storage=read("").storage)
    assert read("").repositories == ()


def test_a_whole_configuration_is_what_it_says(read, tmp_path):
    config = read(
        """
        [github]
        api_url = "https://ghe.example.org/api/v3/"
        token = "abc"
        anonymous = true
        timeout = "5s"
        [webhook]
        listen = "unix:/run/hw.sock"
        path = "/hook"
        public_url = "https://example.org/hook"
        secret = ["new", "old"]
        max_body = "1MiB"
        [admin]
        listen = "[::]:9000"
        token = "t"
        allowed_hosts = ["Example.org"]
        [polling]
        enabled = false
        interval = "1m30s"
        reconcile_interval = "1h"
        batch_size = 50
        [storage]
        url = "sqlite:////var/x.db"
        delivery_retention = "4d"
        [sync]
        workers = 2
        max_attempts = 3
        max_file_size = 10
        commit_history = 1
        [server]
        shutdown_timeout = "0s"
        [log]
        level = "DEBUG"
        format = "json"
        [[repositories]]
        name = "Acme/Site"
        branches = ["main", "v*"]
        include = ["*.md", "!x.md"]
        exclude = ["/private/"]
        [[repositories]]
        name = "acme/*"
        exclude_repositories = ["acme/old-*"]
        """
    )
    assert config.github.graphql_url == "https://ghe.example.org/api/graphql"
    assert (config.github.token(), config.github.configured, config.github.timeout_seconds) == ("abc", True, 5.0)
    assert config.webhook.listen == Address("unix", path="/run/hw.sock")
    assert config.webhook.secrets() == (b"new", b"old")
    assert (config.webhook.path, config.webhook.max_body_bytes) == ("/hook", 2**20)
    assert config.webhook.public_url == "https://example.org/hook"
    assert config.admin.listen == Address("tcp", host="::", port=9000)
    assert (config.admin.token(), config.admin.allowed_hosts) == ("t", ("example.org",))
    polling = config.polling
    assert (polling.enabled, polling.interval_seconds, polling.reconcile_interval_seconds) == (False, 90.0, 3600.0)
    assert config.storage.sqlite_path == Path("/var/x.db")
    assert config.storage.delivery_retention_seconds == 4 * 86400
    assert (config.sync.workers, config.sync.max_attempts, config.sync.max_file_bytes) == (2, 3, 10)
    assert (config.server.shutdown_timeout_seconds, config.log.level, config.log.format) == (0.0, "debug", "json")
    site, everything = config.repositories
    assert (site.owner, site.name, site.full_name, site.is_pattern) == ("Acme", "Site", "Acme/Site", False)
    assert (site.branches, site.include, site.exclude) == (("main", "v*"), ("*.md", "!x.md"), ("/private/",))
    assert everything == RepositoryRule("acme", "*", exclude_repositories=("acme/old-*",))
    assert everything.is_pattern
    assert config.source == tmp_path / "config.toml"


@pytest.mark.parametrize(
    ("api_url", "graphql_url"),
    [
        ("https://api.github.com", "https://api.github.com/graphql"),
        ("https://ghe.example.org/api/v3", "https://ghe.example.org/api/graphql"),
        ("https://api.sub.ghe.com", "https://api.sub.ghe.com/graphql"),
        ("http://127.0.0.1:4000", "http://127.0.0.1:4000/graphql"),
    ],
)
def test_graphql_is_derived_from_the_api_url(read, api_url, graphql_url):
    assert read(f'github.api_url = "{api_url}"').github.graphql_url == graphql_url


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a = \n", r"not valid TOML: .*line 1, column 5"),
        (b"[webhook]\nlisten = 'x", r"line 2"),
        (b"[webhook]\n[webhook]\n", r"line 2"),
        (b"\n\xff\xfe", r"not UTF-8 text \(line 2\)"),
        (b"a = " + b"[" * 100_000, r"nested too deeply"),
        (b"a = " + b"9" * 5000, r"too many digits"),
        (b"\0", r"not valid TOML"),
    ],
)
def test_what_is_no_toml_is_one_problem_with_its_place(problems, raw, message):
    assert re.search(message, only(problems(raw)))


def test_a_file_with_a_byte_order_mark_is_read(read):
    assert read(b"\xef\xbb\xbf[sync]\nworkers = 2").sync.workers == 2


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml: does not exist"):
        load(tmp_path / "gone.toml", environ={}, cwd=tmp_path)
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path, environ={}, cwd=tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: Input/output error"):
        load(Path("/proc/self/mem"), environ={}, cwd=tmp_path)


def test_a_file_that_is_a_name_too_long_is_a_problem_not_a_crash(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / ("x" * 300), environ={}, cwd=tmp_path)


# -- problems -------------------------------------------------------------------------------------


def test_all_problems_are_told_at_once(problems):
    found = problems(
        """
        [polling]
        interval = "0s"
        intervall = "3s"
        [sync]
        workers = "4"
        [webhook]
        listen = "0.0.0.0:80"
        [[repositories]]
        name = "nonsense"
        [[repositories]]
        name = "a/b"
        [[repositories]]
        name = "A/B"
        """,
        environ={"HEADWATER_LOG__LEVEL": "loud", "HEADWATER_NONSENSE": "1"},
    )
    assert sorted(line.partition(": ")[0] for line in found) == [
        "environment HEADWATER_NONSENSE",
        "environment log.level",
        "polling.interval",
        "polling.intervall",
        "repositories[0].name",
        "repositories[2].name",
        "sync.workers",
        "webhook.secret",
    ]


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("polling.intervall = '1s'", "polling.intervall", "polling.interval"),
        ("polling.workers = 3", "polling.workers", "sync.workers"),
        ("polling.interval_seconds = 3", "polling.interval_seconds", "polling.interval"),
        ("webhook.secrets = 'x'", "webhook.secrets", "webhook.secret"),
        ("[webhok]\nlisten = 'x'", "webhok", "webhook"),
        ("[GitHub]\ntoken = 'x'", "GitHub", "github"),
        ("max_body = 3", "max_body", "webhook.max_body"),
        ("[[repositories]]\nname = 'a/b'\nbranch = 'x'", "repositories[0].branch", "repositories[0].branches"),
        (
            "[[repositories]]\nname = 'a/b'\n[[repositories.collections]]\ntype = 'x'\nfiles = 'y'\nlabl = 'z'",
            "repositories[0].collections[0].labl",
            "repositories[0].collections[0].label",
        ),
        ("[[actions]]\nurl = 'https://x'\nbranchs = []", "actions[0].branchs", "actions[0].branches"),
    ],
)
def test_an_unknown_key_or_section_is_told_with_the_nearest_known_one(problems, text, key, nearest):
    line = only(problems(text))
    assert line.startswith(f"{key}: unknown ")
    assert line.endswith(f" {nearest}")


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("sync.workers = '4'", "sync.workers", "whole number"),
        ("sync.workers = 4.0", "sync.workers", "whole number"),
        ("sync.workers = true", "sync.workers", "whole number"),
        ("sync.workers = 0", "sync.workers", "1 or more"),
        ("sync.workers = 100000", "sync.workers", "256 or less"),
        ("sync.max_attempts = -1", "sync.max_attempts", "1 or more"),
        ("sync.max_file_size = -1", "sync.max_file_size", "not a size"),
        ("sync.commit_history = 0", "sync.commit_history", "1 or more"),
        ("polling.batch_size = 0", "polling.batch_size", "1 or more"),
        ("polling.enabled = 1", "polling.enabled", "true or false"),
        ("polling.enabled = 'yes'", "polling.enabled", "true or false"),
        ("polling.interval = '999ms'", "polling.interval", '"1s" or more'),
        ("polling.interval = 60", "polling.interval", "with its unit"),
        ("polling.interval = 1979-05-27", "polling.interval", "is not a duration"),
        ("polling.reconcile_interval = '59s'", "polling.reconcile_interval", "shorter than polling.interval"),
        ("storage.delivery_retention = '95h'", "storage.delivery_retention", '"4d"'),
        ("storage.url = 'postgresql://u:hunter2@h/'", "storage.url", "postgresql://user@host/database"),
        ("storage.url = 'postgres://u:hunter2@h:port/db'", "storage.url", "host or port is malformed"),
        ("storage.url = 'postgres://u:hunter2@h/db#1'", "storage.url", "must be written as %20"),
        ("webhook.listen = ':8787'", "webhook.listen", '"0.0.0.0:8787" or "[::]:8787" is every interface'),
        ("webhook.listen = '*:8787'", "webhook.listen", '"0.0.0.0:8787" or "[::]:8787" is every interface'),
        ("github.api_url = 'https://@x'", "github.api_url", "user name or password"),
        ("storage.url = 'mysql://u:hunter2@h/db'", "storage.url", "postgresql://user@host/database"),
        ("storage.url = 'sqlite://'", "storage.url", "names no file"),
        ("storage.url = 'sqlite:///'", "storage.url", "names no file"),
        ("storage.url = 'sqlite:///:memory:'", "storage.url", "names no file"),
        ("storage.url = 'sqlite:///x?mode=ro'", "storage.url", "options"),
        ("storage.url = 3", "storage.url", "write sqlite:///"),
        ("github.api_url = 'http://api.github.com'", "github.api_url", "write https"),
        ("github.api_url = 'https://github.com'", "github.api_url", "write https://api.github.com"),
        ("github.api_url = 'https://Sub.ghe.com/'", "github.api_url", "write https://api.sub.ghe.com"),
        ("github.timeout = '0s'", "github.timeout", "100ms"),
        ("github.token = 3", "github.token", "text in quotes"),
        ("github.token = ['a']", "github.token", "text in quotes"),
        ("github.app_id = true", "github.app_id", "text in quotes"),
        ("github.app_id = 7", "github.private_key_file", "required with github.app_id"),
        ("github.installation_id = 0", "github.installation_id", "1 or more"),
        ("github.installation_id = 7", "github.installation_id", "set github.app_id too"),
        ("webhook.path = 'hook'", "webhook.path", "starts with /"),
        ("webhook.github_hook_addresses = 'yes'", "webhook.github_hook_addresses", "true or false"),
        ("webhook.trusted_proxies = '10.0.0.1'", "webhook.trusted_proxies", "must be a list"),
        ("webhook.trusted_proxies = ['::1', 'proxy']", "webhook.trusted_proxies[1]", '"10.0.0.0/8", or "unix"'),
        ("webhook.trusted_proxies = [7]", "webhook.trusted_proxies[0]", "is not an address"),
        ("webhook.trusted_proxies = ['10.0.0.7/8']", "webhook.trusted_proxies[0]", "write 10.0.0.0/8"),
        ("webhook.listen = 'localhost'", "webhook.listen", "has no port"),
        ("webhook.secret = [1]", "webhook.secret", "or a list of them"),
        ("webhook.public_url = 'https://u:hunter2@x'", "webhook.public_url", "user name or password"),
        ("admin.listen = '127.0.0.1:8787'", "admin.listen", "give it another port"),
        ("admin.allowed_hosts = []", "admin.allowed_hosts", "must not be empty"),
        ("admin.allowed_hosts = 'x'", "admin.allowed_hosts", "must be a list"),
        ("admin.allowed_hosts = ['*']", "admin.allowed_hosts[0]", "neither a host name nor an IP address"),
        ("log.level = 'trace'", "log.level", "'debug', 'info'"),
        ("log.format = 3", "log.format", "'auto', 'console'"),
        ("polling = 3", "polling", "[polling]"),
        ("[[polling]]\ninterval='1s'", "polling", "[polling]"),
        ("[repositories]\nname = 'a/b'", "repositories", "[[repositories]]"),
        ("repositories = 'a/b'", "repositories", "[[repositories]]"),
        ("repositories = ['a/b']", "repositories[0]", "must be a table"),
        ("[[repositories]]\nbranches = []", "repositories[0].name", "is required"),
        ("[[repositories]]\nname = 'a/b'\nbranches = 'main'", "repositories[0].branches", 'such as ["one", "two"]'),
        ("[[repositories]]\nname = 'a/b'\nbranches = ['x', '']", "repositories[0].branches[1]", "is empty"),
        ("[[repositories]]\nname = 'a/b'\nbranches = [' ']", "repositories[0].branches[0]", "is empty"),
        ("[[repositories]]\nname = 'a/b'\ninclude = ['!']", "repositories[0].include[0]", "gitignore-style"),
        (
            "[[repositories]]\nname = 'a/b'\nexclude_repositories = ['x']",
            "repositories[0].exclude_repositories",
            "a/* only",
        ),
        ("[[repositories]]\nname = 'a/b'\ntopics = ['x']", "repositories[0].topics", "a/* only"),
        ("[[repositories]]\nname = 'a/b'\narchived = false", "repositories[0].archived", "a/* only"),
        ("[[repositories]]\nname = 'a/b'\nforks = false", "repositories[0].forks", "a/* only"),
        ("[[repositories]]\nname = 'a/*'\nforks = 'no'", "repositories[0].forks", "true or false"),
        (
            "[[repositories]]\nname = 'a/b'\n[[repositories.collections]]\ntype = 'x'",
            "repositories[0].collections[0].files",
            "is required",
        ),
        ("[[actions]]\nbranches = ['x']", "actions[0]", "exactly one of command, url and publish"),
        ("[[actions]]\nurl = 'https://x'\ncommand = ['y']", "actions[0]", "exactly one of command, url and publish"),
        ("[[actions]]\ncommand = ['y']\nsecret = 'hunter2'", "actions[0].secret", "is for url only"),
        ("[[actions]]\ncommand = 'rm x'", "actions[0].command", "must be a list"),
        ("[[actions]]\npublish = 'srv'", "actions[0].publish", "absolute path"),
        ("[[actions]]\npublish = '/srv/../x'", "actions[0].publish", "without . and .."),
        ("[[actions]]\ncommand = ['']", "actions[0].command", "names no program"),
        ("[[actions]]\ncommand = ['x']\n" * 2, "actions[1]", "does the same as actions[0]"),
        ("[[actions]]\npaths = ['!']\nurl = 'https://x'", "actions[0].paths[0]", "gitignore"),
    ],
)
def test_a_wrong_value_is_one_problem_that_says_what_to_do(problems, text, key, message):
    line = only(problems(text))
    assert line.startswith(f"{key}: ")
    assert message in line
    assert "hunter2" not in line


def test_an_unreadable_file_is_not_also_blamed_for_what_it_might_say(problems):
    assert only(problems("admin.token = ", environ={"HEADWATER_ADMIN__LISTEN": "0.0.0.0:80"})).startswith(
        ": is not valid TOML"
    )


def test_wrong_repositories_do_not_shift_the_numbers_of_the_others(problems):
    found = problems("\n".join(f"[[repositories]]\nname = '{name}'" for name in ("bad", "a/b", "bad", "A/B")))
    assert [line.partition(": ")[0] for line in found] == [
        "repositories[0].name",
        "repositories[2].name",
        "repositories[3].name",
    ]
    assert "configured already by repositories[1]" in found[2]


def test_the_same_repository_in_another_case_is_a_problem_and_a_pattern_beside_a_name_is_not(read, problems):
    assert len(read("[[repositories]]\nname = 'a/*'\n[[repositories]]\nname = 'a/b'").repositories) == 2
    assert "already" in only(problems("[[repositories]]\nname = 'a/*'\n[[repositories]]\nname = 'A/*'"))


def test_a_key_with_control_characters_cannot_forge_a_line_of_the_report(problems):
    assert "\\n" in only(problems('[webhook]\n"a\\nb" = 1'))
    assert "\\n" in only(problems('"a\\nb" = 1'))


def test_a_token_in_the_wrong_place_is_not_shown(problems):
    assert "ghp_0123456789abcdef" not in only(problems("[[repositories]]\nname = 'ghp_0123456789abcdef'"))
    assert "ghp_0123456789abcdef" not in only(problems("webhook.listen = 'ghp_0123456789abcdef'"))


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["github", "webhook", "polling", "repositories", "actions", "storage", "nonsense"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["name", "token", "secret", "listen", "url", "interval", "collections", "é"]),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ),
    )
)
def test_no_shape_of_a_file_crashes_the_reader(monkeypatch, tmp_path, values):
    (tmp_path / "c.toml").touch()
    monkeypatch.setattr(daemon.origins, "_parse", lambda _: values)
    problems = []
    try:
        load(tmp_path / "c.toml", environ={}, cwd=tmp_path)
    except ConfigError as error:
        problems = error.problems
    assert all(str(problem).isprintable() for problem in problems)


# -- exposure -------------------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "example.org:80"])
def test_beyond_loopback_the_webhook_needs_a_secret_or_the_explicit_flag(read, problems, listen):
    line = only(problems(f"webhook.listen = '{listen}'"))
    assert line.startswith("webhook.secret: must be set, because webhook.listen is ")
    assert only(problems(f"webhook.listen = '{listen}'\nwebhook.secret = '  '")) == line
    assert only(problems(f"webhook.listen = '{listen}'\nwebhook.secret = ['', ' ']")) == line
    assert read(f"webhook.listen = '{listen}'\nwebhook.secret = 'x'")
    assert read(f"webhook.listen = '{listen}'\nwebhook.allow_unverified = true")


def test_beyond_loopback_the_admin_listener_needs_a_token_whatever_else_is_set(read, problems):
    text = "admin.listen = '0.0.0.0:80'\nwebhook.allow_unverified = true"
    assert only(problems(text)).startswith("admin.token: must be set")
    assert read(text + "\nadmin.token = 'x'")


def test_a_wrong_secret_is_not_also_told_to_be_missing(problems):
    assert only(problems("webhook.listen = '0.0.0.0:80'\nwebhook.secret = \"a\\nb\"")).startswith(
        "webhook.secret: the secret has"
    )
    assert only(problems("webhook.listen = '0.0.0.0:80'\nwebhook.secret_file = 'gone'")).startswith(
        "webhook.secret_file: cannot read"
    )


def test_an_inherited_socket_beyond_loopback_needs_the_same_secrets(read):
    open_address = Address("tcp", host="0.0.0.0", port=80)
    config = read("")
    found = list(exposures(config, webhook=open_address, admin=open_address))
    assert [keys[0] for keys, _ in found] == ["webhook.secret", "admin.token"]
    assert not list(exposures(config, webhook=config.webhook.listen, admin=config.admin.listen))


def test_both_listeners_may_let_the_system_choose_their_ports(read):
    assert read("webhook.listen = '127.0.0.1:0'\nadmin.listen = '127.0.0.1:0'")


# -- environment ----------------------------------------------------------------------------------


def test_the_environment_overrides_the_file_for_every_kind_of_value(read):
    config = read(
        "polling.interval = '5s'\npolling.enabled = true\nsync.workers = 1\nadmin.allowed_hosts = ['a']",
        environ={
            "HEADWATER_POLLING__INTERVAL": "7s",
            "HEADWATER_POLLING__ENABLED": "false",
            "HEADWATER_SYNC__WORKERS": "3",
            "HEADWATER_SYNC__MAX_FILE_SIZE": "1MiB",
            "HEADWATER_WEBHOOK__MAX_BODY": "1000",
            "HEADWATER_WEBHOOK__LISTEN": "127.0.0.1:1",
            "HEADWATER_ADMIN__ALLOWED_HOSTS": "x.example.org, ::1",
            "HEADWATER_GITHUB__APP_ID": "",
        },
    )
    assert (config.polling.interval_seconds, config.polling.enabled, config.sync.workers) == (7.0, False, 3)
    assert (config.sync.max_file_bytes, config.webhook.max_body_bytes) == (2**20, 1000)
    assert config.webhook.listen.port == 1
    assert config.admin.allowed_hosts == ("x.example.org", "[::1]")


def test_without_a_file_the_environment_is_enough(tmp_path):
    config = load(None, environ={"HEADWATER_SYNC__WORKERS": "9"}, cwd=tmp_path)
    assert (config.sync.workers, config.source) == (9, None)


def test_a_value_that_the_environment_overrides_may_be_wrong_in_the_file_and_the_rest_of_it_counts(read):
    config = read("sync.workers = 'x'\nsync.max_attempts = 2", environ={"HEADWATER_SYNC__WORKERS": "3"})
    assert (config.sync.workers, config.sync.max_attempts) == (3, 2)


def test_a_wrong_value_in_the_environment_is_told_with_its_source_and_key(problems):
    assert only(problems(environ={"HEADWATER_SYNC__WORKERS": "many"})).startswith("environment sync.workers: ")
    assert only(problems(environ={"HEADWATER_POLLING__ENABLED": "maybe"})).startswith("environment polling.enabled: ")
    assert only(problems("sync.workers = 2", environ={"HEADWATER_SYNC__WORKERS": "0"})).startswith(
        "environment sync.workers: "
    )


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("HEADWATER_POLLING_INTERVAL", "HEADWATER_POLLING__INTERVAL"),
        ("HEADWATER_POLLING__INTERVALL", "HEADWATER_POLLING__INTERVAL"),
        ("HEADWATER_GITHUB_TOKEN", "HEADWATER_GITHUB__TOKEN"),
        ("HEADWATER_", None),
        ("HEADWATER_polling__interval", "HEADWATER_POLLING__INTERVAL"),
    ],
)
def test_a_variable_that_names_no_key_is_a_problem_with_the_nearest(problems, name, nearest):
    line = only(problems(environ={name: "hunter2"}))
    assert line.startswith(f"environment {name}: names no known key")
    assert "hunter2" not in line
    assert nearest is None or line.endswith(nearest)


@pytest.mark.parametrize("name", ["HEADWATER_REPOSITORIES", "HEADWATER_ACTIONS", "HEADWATER_REPOSITORIES__NAME"])
def test_tables_are_not_set_in_the_environment(problems, name):
    assert (
        only(problems(environ={name: "[]"}))
        == f"environment {name}: cannot be set in the environment; write it in the file"
    )


@pytest.mark.parametrize(
    "name",
    [
        "HEADWATER_CONFIG",
        "HEADWATER_REPOSITORY",
        "HEADWATER_AFTER",
        "HEADWATER_SERVICE_HOST",
        "HEADWATER_SERVICE_PORT_ADMIN",
        "HEADWATER_PORT",
        "HEADWATER_PORT_8788_TCP_ADDR",
        "OTHER_POLLING__INTERVALL",
    ],
)
def test_variables_that_others_set_are_no_settings(read, name):
    assert read(environ={name: "tcp://10.0.0.1:8788"})


# -- storage --------------------------------------------------------------------------------------


def test_a_relative_database_is_in_the_state_directory_else_in_the_working_folder(read, tmp_path):
    assert read("").storage.sqlite_path == tmp_path / "headwater.db"
    state = read("storage.url = 'sqlite:///a/b.db'", environ={"STATE_DIRECTORY": "/var/lib/hw:/var/lib/other"})
    assert state.storage.sqlite_path == Path("/var/lib/hw/a/b.db")
    assert state.storage.url == "sqlite:////var/lib/hw/a/b.db"
    absolute = read("storage.url = 'sqlite:////srv/x.db'", environ={"STATE_DIRECTORY": "/var/lib/hw"})
    assert absolute.storage.sqlite_path == Path("/srv/x.db")


# -- what the daemon is told ----------------------------------------------------------------------


def test_a_pattern_has_collections_and_an_action_its_secret(read):
    config = read(
        "[[repositories]]\nname = 'a/*'\n[[repositories.collections]]\ntype = 'x'\nfiles = 'y/*.json'\n"
        "[[actions]]\nurl = 'https://x'\nsecret = 's'"
    )
    assert config.repositories[0].collections[0].files == ("y/*.json",)
    assert config.actions[0].secret.values() == ("s",)


def test_only_listeners_and_storage_need_a_restart(read):
    old = read("")
    new = read(
        "storage.url = 'sqlite:///other.db'\nstorage.delivery_retention = '5d'\nwebhook.listen = '127.0.0.1:1'\nwebhook.path = '/x'\n"
        "webhook.secret = 'x'\nadmin.listen = '127.0.0.1:2'\nsync.workers = 9\nadmin.token = 'x'"
    )
    assert diff_needing_restart(old, new) == ("webhook.listen", "webhook.path", "admin.listen", "storage.url")
    assert diff_needing_restart(old, read("sync.workers = 9\nwebhook.secret = 'x'")) == ()


def test_a_hundred_thousand_repositories_load(read):
    text = "\n".join(f'[[repositories]]\nname = "acme/r{number}"' for number in range(100_000))
    assert len(read(text).repositories) == 100_000


def test_a_long_interval_alone_raises_the_default_of_the_other(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("polling.interval = '1h'\n")
    polling = load(path, environ={}, cwd=tmp_path).polling
    assert (polling.interval_seconds, polling.reconcile_interval_seconds) == (3600.0, 3600.0)


@pytest.mark.parametrize(
    ("written", "given", "expected"),
    [
        ("https://h.example", None, "https://h.example/api/v1/webhooks/github"),
        ("https://h.example/", None, "https://h.example/api/v1/webhooks/github"),
        ("https://h.example/hook?x=1", None, "https://h.example/hook?x=1"),
        ("https://h.example/hook", "http://other.example:8080", "http://other.example:8080/api/v1/webhooks/github"),
    ],
)
def test_the_url_of_deliveries_has_the_path_unless_it_has_one(read, written, given, expected):
    assert read(f"[webhook]\npublic_url = '{written}'").webhook.delivery_url(given) == expected


def test_without_a_public_url_there_is_no_url_of_deliveries(read):
    assert read("").webhook.delivery_url() is None
