"""A daemon that takes deliveries from GitHub's addresses only, behind a proxy."""

from __future__ import annotations

from collections.abc import Callable

from harness import Daemon, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.faults import Status
from daemon.demo.standin.gitrepo import GitRepo

ONLY_GITHUB = 'github_hook_addresses = true\ntrusted_proxies = ["127.0.0.1"]'
HOOK, STRANGER = "192.0.2.7", "203.0.113.9"
PING = {"zen": "Design for failure."}


def status(daemon: Daemon, *hops: str) -> int:
    forwarded = {"X-Forwarded-For": ", ".join(hops)} if hops else {}
    return daemon.deliver(PING, event="ping", **forwarded).status_code


def test_only_githubs_addresses_deliver_and_a_reload_changes_who_is_trusted(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    github.hook_addresses = ("192.0.2.0/24",)
    daemon = make_daemon(sections={"webhook": ONLY_GITHUB}).start()
    wait_for(lambda: status(daemon, HOOK) == 200, "GitHub's addresses to be known")
    assert [status(daemon, STRANGER), status(daemon, HOOK, STRANGER), status(daemon)] == [403, 403, 403]
    health = daemon.webhook_url.replace("/api/v1/webhooks/github", "/healthz")
    assert daemon.session.get(health, timeout=10).status_code == 200
    daemon.write_config(sections={"webhook": "github_hook_addresses = true"})
    daemon.hangup()
    wait_for(lambda: status(daemon, HOOK) == 403, "the proxy to be trusted no more")
    daemon.write_config(sections={})
    daemon.hangup()
    wait_for(lambda: status(daemon, STRANGER) == 200, "everybody to be let in")


def test_until_the_addresses_are_known_deliveries_are_told_to_come_back(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    github.hook_addresses = ("192.0.2.0/24",)
    rule = github.faults.add("/meta", Status(500))
    daemon = make_daemon(sections={"webhook": ONLY_GITHUB}).start()
    wait_for(lambda: daemon.log_lines("webhook.addresses_not_read"), "the failure to be logged")
    answer = daemon.deliver(PING, event="ping", **{"X-Forwarded-For": HOOK})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    github.faults.remove(rule)
    daemon.hangup()
    wait_for(lambda: status(daemon, HOOK) == 200, "GitHub's addresses to be known")


def test_check_tells_whether_anybody_could_deliver(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(sections={"webhook": "github_hook_addresses = true"})
    assert "name it in webhook.trusted_proxies" in daemon.cli("check").stdout
    assert "GitHub delivers from 5 networks" in daemon.cli("check", "--online").stdout
    github.hook_addresses = None
    ended = daemon.cli("check", "--online")
    assert ended.returncode == 1
    assert "every delivery would be refused" in ended.stdout
