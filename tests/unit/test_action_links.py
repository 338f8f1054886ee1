"""Where a symlink of a snapshot leads, real resolution being the oracle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.actions.links import leads_outside


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"a", b"/etc/passwd"),
        (b"a", b".."),
        (b"a", b"../site/x"),
        (b"d/a", b"../../x"),
        (b"d/a", b"./.././../x"),
        (b"a", b"b/../../c"),
    ],
)
def test_a_link_out_of_the_folder_leads_outside(path, target):
    assert leads_outside(path, {path: target})


@pytest.mark.parametrize(
    ("path", "target"),
    [(b"a", b"b"), (b"d/a", b"../b"), (b"a", b"missing/deep"), (b"a", b"a"), (b"a", b"d/../b"), (b"a", b".")],
)
def test_a_link_within_the_folder_does_not(path, target):
    assert not leads_outside(path, {path: target})


def test_a_parent_behind_another_link_is_that_ones_parent():
    links = {b"p/q/root": b"../..", b"out": b"p/q/root/../x"}
    assert not leads_outside(b"p/q/root", links)
    assert leads_outside(b"out", links)


def test_a_chain_that_ends_outside_leads_outside_from_its_beginning():
    links = {b"a": b"b", b"b": b"c", b"c": b"/etc"}
    assert all(leads_outside(path, links) for path in links)


NAMES = st.sampled_from([b"a", b"b", b"c"])
TARGETS = st.lists(st.sampled_from([b"..", b".", b"a", b"b", b"c", b""]), min_size=1, max_size=6).map(b"/".join)


@settings(max_examples=300, deadline=None)
@given(links=st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map(b"/".join), TARGETS.filter(bool), max_size=4))
def test_what_the_kernel_can_reach_outside_is_refused(tmp_path_factory, links):
    """Links are made on disk where that is possible; one that really leads outside is never said to stay inside."""
    root = tmp_path_factory.mktemp("outer") / "site"
    root.mkdir()
    made = {}
    for path, target in links.items():
        place = os.fsencode(root) + b"/" + path
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.symlink(target, place)
        except OSError:
            continue
        if not Path(os.fsdecode(os.path.dirname(place))).resolve().is_relative_to(root):
            os.unlink(place)
        elif os.path.realpath(os.path.dirname(place)) == os.path.dirname(place):
            made[path] = target
    for path in made:
        place = os.fsencode(root) + b"/" + path
        try:
            real = os.path.realpath(place, strict=True)
        except OSError:
            continue
        if real != os.fsencode(root) and not real.startswith(os.fsencode(root) + b"/"):
            assert leads_outside(path, made)
