"""Entities end to end: two hundred files of which four are hostile, mended by a push, and rules that change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from harness import Daemon, Stopwatch, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

TYPES = ("category", "property", "subobject", "module", "profile")
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + below] * 9)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MALFORMED, DUPLICATE, BOMBED, DEEP = (
    "category/07.json",
    "property/39.json",
    "module/bomb.yaml",
    "profile/deep.json",
)


def collection(kind: str, **keys: str) -> str:
    more = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    return f'[[repositories.collections]]\ntype = "{kind}"\nfiles = ["{kind}/**/*.json", "{kind}/*.yaml"]\n{more}'


RULES = "".join(collection(kind) for kind in TYPES)


def good(kind: str, number: int, **more: Any) -> bytes:
    return json.dumps({"id": f"{kind}-{number:02d}", "label": f"{kind} {number}", "n": number, **more}).encode()


def two_hundred() -> dict[str, bytes | None]:
    """Forty files a folder; four of them hostile."""
    files: dict[str, bytes | None] = {
        f"{kind}/{number:02d}.json": good(kind, number) for kind in TYPES for number in range(40)
    }
    files[MALFORMED] = b'{\n  "id": "category-07",\n  "label": oops\n}\n'
    files[DUPLICATE] = good("property", 3)
    del files["module/20.json"], files["profile/20.json"]
    return files | {BOMBED: BOMB.encode(), DEEP: b"\n" + b"[" * 100_000}


def total(daemon: Daemon) -> int:
    return int(daemon.get("/api/v1/entities").json()["total"])


def problems(daemon: Daemon) -> dict[str, dict[str, Any]]:
    return {item["path"]: item for item in daemon.items("/api/v1/entity-errors")}


def push(repo: GitRepo, github: StandIn, daemon: Daemon, files: dict[str, bytes | None], message: str) -> str:
    head = repo.commit(files, message)
    daemon.post("/api/v1/repositories/octo/data/sync")
    daemon.wait_head(head)
    daemon.wait_idle()
    return head


def test_four_bad_files_of_two_hundred_cost_four_errors_and_a_push_mends_them(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    first = repo.commit(two_hundred(), "Two hundred")
    daemon = make_daemon(extra=RULES).start()
    daemon.wait_head(first)
    daemon.wait_idle()

    overview = daemon.get("/api/v1/entities")
    assert overview.json()["total"] == 196
    assert {one["entity_type"]: one["count"] for one in overview.json()["types"]} == {
        "category": 39,
        "module": 39,
        "profile": 39,
        "property": 39,
        "subobject": 40,
    }
    assert overview.headers["X-Commit-Sha"] == first
    assert overview.headers["X-Confirmed-At"]
    run = daemon.runs()[0]
    assert (run["outcome"], run["entity_errors"]) == ("updated", 4)
    found = problems(daemon)
    assert set(found) == {MALFORMED, DUPLICATE, BOMBED, DEEP}
    assert (found[MALFORMED]["line"], found[BOMBED]["line"], found[DEEP]["line"]) == (3, 6, 2)
    assert "property/03.json" in found[DUPLICATE]["error"]
    assert DUPLICATE in found[DUPLICATE]["error"]

    second = push(
        repo,
        github,
        daemon,
        {
            MALFORMED: good("category", 7),
            DUPLICATE: good("property", 39),
            BOMBED: b"id: module-20\n",
            DEEP: b"{}",
            "module/05.json": good("module", 5, more=True),
        },
        "Mend",
    )
    assert problems(daemon) == {}
    assert daemon.runs()[0]["entity_errors"] == 0
    assert total(daemon) == 200
    told = daemon.get("/api/v1/entities/module/module-05?history=1")
    assert [version["commit_sha"] for version in told.json()["history"]] == [second, first]
    assert told.json()["history"][1]["data"] == json.loads(good("module", 5))
    assert told.json()["commit_sha"] == told.headers["X-Commit-Sha"] == second

    push(repo, github, daemon, {"module/05.json": None}, "Remove")
    gone = daemon.get("/api/v1/entities/module/module-05")
    assert (gone.status_code, gone.json()) == (404, {"detail": "Entity not found"})
    third = push(repo, github, daemon, {"module/05.json": good("module", 5)}, "Return")
    back = daemon.get("/api/v1/entities/module/module-05?history=1").json()
    assert back["id"] == told.json()["id"]
    assert [version["commit_sha"] for version in back["history"]] == [third, second, first]

    push(repo, github, daemon, {"module/05.json": b"{"}, "Break")
    assert daemon.get("/api/v1/entities/module/module-05").json()["stale"] is True
    changes = list(daemon.items("/api/v1/changes"))
    kinds = ("added", "modified", "removed")
    assert [[len(change["entities"][kind]) for kind in kinds] for change in changes] == [
        *([196, 0, 0], [4, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0])
    ]
    assert changes[2]["entities"]["removed"] == [{"entity_type": "module", "entity_id": "module-05"}]
    assert set(problems(daemon)) == {"module/05.json"}


def soon(done: Callable[[], Any], what: str) -> None:
    """Sooner than a look comes by itself, which it does every ten seconds."""
    with Stopwatch() as watch:
        wait_for(done, what)
    assert watch.seconds < 5


def test_rules_that_change_on_reload_are_applied_without_github(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    head = repo.commit({"module/a.json": good("module", 1, key="other"), "module/b.json": b"["}, "Two files")
    daemon = make_daemon().start()
    daemon.wait_head(head)
    daemon.wait_idle()
    assert total(daemon) == 0
    github.stop()

    daemon.write_config(extra=RULES)
    daemon.hangup()
    soon(lambda: total(daemon) == 1, "the entities to appear")
    assert set(problems(daemon)) == {"module/b.json"}
    assert daemon.get("/api/v1/entities/module/module-01").json()["commit_sha"] == head

    daemon.write_config(extra=collection("module", id="key"))
    daemon.hangup()
    soon(lambda: daemon.get("/api/v1/entities/module/other").status_code == 200, "the id to change")
    assert daemon.get("/api/v1/entities/module/module-01").status_code == 404

    daemon.write_config(extra="")
    daemon.hangup()
    soon(lambda: total(daemon) == 0, "the entities to go")
    assert problems(daemon) == {}


def test_rules_that_changed_while_it_was_stopped_are_applied_at_start_without_github(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    head = repo.commit({"module/a.json": good("module", 1)}, "One file")
    daemon = make_daemon().start()
    daemon.wait_head(head)
    assert daemon.stop() == 0
    github.stop()
    daemon.write_config(extra=RULES)
    daemon.start()
    wait_for(lambda: total(daemon) == 1, "the entities to appear")


def test_lists_filter_page_and_say_which_commit_they_are_of(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    files: dict[str, bytes | None] = {f"module/{number:02d}.json": good("module", number) for number in range(25)}
    files["module/slash.json"] = b'{"id": "https://example.org/a b?c#d%2F", "description": "found me"}'
    head = repo.commit(files, "Files")
    repo.commit({"module/00.json": good("module", 0, on="dev")}, "Other", branch="dev")
    daemon = make_daemon(extra='branches = ["main", "dev"]\n' + RULES).start()
    daemon.wait_head(head)
    daemon.wait_head(repo.head("dev"), "dev")
    daemon.wait_idle()
    path = "/api/v1/entities/module"

    assert "commit_sha" not in daemon.get(path).json()
    assert "X-Commit-Sha" not in daemon.get(path).headers
    page = daemon.get(path, params={"branch": "main", "limit": 10})
    assert page.json()["commit_sha"] == page.headers["X-Commit-Sha"] == head
    ids = [item["entity_id"] for item in daemon.items(path, branch="main", limit=7)]
    assert ids == sorted(ids)
    assert len(ids) == 26
    assert [i["entity_id"] for i in daemon.items(path, branch="main", q="FOUND")] == ["https://example.org/a b?c#d%2F"]
    encoded = "https%3A%2F%2Fexample.org%2Fa%20b%3Fc%23d%252F"
    assert daemon.get(f"{path}/{encoded}").json()["description"] == "found me"
    assert daemon.get(f"{path}/https://example.org/a%20b%3Fc%23d%252F").status_code == 200
    assert daemon.get(f"{path}/module-00").json()["branch"] == "main"
    assert daemon.get(f"{path}/module-00", params={"branch": "dev"}).json()["data"]["on"] == "dev"
    assert set(daemon.get(f"{path}/module-00").json()) == {
        *("id", "entity_id", "entity_type", "label", "description", "data", "repository", "branch", "path"),
        *("commit_sha", "stale", "created_at", "updated_at"),
    }

    assert list(daemon.items("/api/v1/entities/nothing")) == []
    for query in ("limit=0", "limit=1001", "limit=x", "cursor=x", "cursor=WyJydW5zIiwxXQ"):
        assert daemon.get(f"{path}?{query}").status_code == 422, query
    assert daemon.get(path, params={"repository": "octo/none"}).status_code == 404
    assert daemon.get(path, params={"branch": "none"}).status_code == 404
    assert daemon.get("/api/v1/entities", params={"repository": "OCTO/data", "branch": "main"}).json()["total"] == 26


def test_a_sync_from_the_command_line_applies_changed_rules_although_the_commit_stands(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    repo.commit({"module/a.json": good("module", 1)}, "One file")
    daemon = make_daemon()
    assert daemon.cli("sync").returncode == 0
    daemon.write_config(extra=RULES)
    assert daemon.cli("sync").returncode == 0
    github.stop()
    daemon.start()
    assert total(daemon) == 1


def test_the_dashboard_tells_entities_of_several_branches_apart(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    head = repo.commit({"category/a.json": good("category", 1), "category/b.json": b"{"})
    repo.commit({"later": b"1"}, branch="next", parents=[head])
    daemon = make_daemon(extra=f'branches = ["main", "next"]\n{collection("category")}').start()
    for branch in ("main", "next"):
        daemon.wait_head(repo.head(branch), branch)
    page = "/repositories/octo/data/entities"
    told = daemon.get(f"{page}?type=category").text
    assert re.findall(r'data-label="Branch"><a href="(.*?)">(.*?)</a>', told) == [
        (f"{page}?branch=main&amp;type=category", "main"),
        (f"{page}?branch=next&amp;type=category", "next"),
        (f"{page}?branch=main", "main"),
        (f"{page}?branch=next", "next"),
    ]
    narrowed = daemon.get(f"{page}?type=category&branch=next").text
    assert "/api/v1/entities/category?repository=octo%2Fdata&amp;branch=next" in narrowed
