from __future__ import annotations

import pytest

from daemon.targets import parse_target, rendered, shared

ONE = [("octo", "data", ())]


def test_placeholders_are_filled_and_slashes_of_a_branch_make_no_folder():
    path = rendered("/srv/{owner}/{name}-{branch}", owner="octo", name="data", branch="release/1.0")
    assert path == "/srv/octo/data-release~1.0"


@pytest.mark.parametrize(
    ("owner", "branch"), [("..", "main"), ("octo", ".."), (".", "x"), ("a/b", "x"), ("", "x"), ("o", "\0")]
)
def test_a_value_never_leads_elsewhere(owner, branch):
    with pytest.raises(ValueError, match="no folder"):
        rendered("/srv/{owner}/{branch}", owner=owner, name="data", branch=branch)


def test_a_branch_that_climbs_stays_one_name():
    assert rendered("/srv/{branch}", owner="o", name="n", branch="../../etc") == "/srv/..~..~etc"


def test_what_a_value_holds_is_no_placeholder_again():
    assert rendered("/srv/{branch}", owner="o", name="n", branch="{owner}") == "/srv/{owner}"


@pytest.mark.parametrize(
    "text", ["srv", "/", "/srv/../etc", "/srv/./x", "/srv/{repo}", "/srv/{name", "/srv/{owner.__class__}", "/a}"]
)
def test_a_wrong_target_is_refused(text):
    with pytest.raises(ValueError):
        parse_target(text)


def test_a_target_loses_its_final_slash():
    assert parse_target("/srv//site/") == "/srv/site"


@pytest.mark.parametrize(
    ("template", "repositories", "branches", "why"),
    [
        ("/s", [("a", "x", ()), ("a", "y", ())], (), "a/x and a/y"),
        ("/s/{name}", [("a", "x", ()), ("b", "X", ())], (), "a/x and b/X"),
        ("/s", [("a", "*", ())], (), "all repositories of a"),
        ("/s", [("a", "x", ("main", "dev"))], (), "a/x@main and a/x@dev"),
        ("/s", [("a", "x", ("release/*",))], (), "several branches of a/x"),
        ("/s/{owner}", [("a", "x", ("r/*",))], ("r/1", "r/2"), "a/x@r/1 and a/x@r/2"),
    ],
)
def test_a_folder_for_two_branches_is_a_problem(template, repositories, branches, why):
    assert why in (shared(template, repositories, branches) or "")


@pytest.mark.parametrize(
    ("template", "repositories", "branches"),
    [
        ("/s", ONE, ()),
        ("/s", [("a", "x", ("main", "dev"))], ("main",)),
        ("/s", [("a", "x", ("*",))], ("main",)),
        ("/s/{branch}", [("a", "x", ("*",))], ()),
        ("/s/{owner}/{name}", [("a", "*", ()), ("b", "*", ())], ()),
    ],
)
def test_a_folder_for_each_is_none(template, repositories, branches):
    assert shared(template, repositories, branches) is None
