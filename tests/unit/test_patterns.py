"""Patterns mean what they mean to git; git is asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sync.patterns import compile_rules, rules

PATHS = [
    b"README.md", b"docs/README.md", b"docs/a/b.txt", b"docs", b"src/docs/x", b"src/a.py", b"src/deep/a.py", b"a.PY",
    b"build/out.bin", b"build/keep.bin", b"x/build/out.bin", b"#note", b"!bang", b"caf\xe9/a.py", "\u00e9.txt".encode(),
    b"a b.txt", b"a[1].txt", b"data/1.json", b"data/12.json", b"data/sub/1.json", b".hidden", b"x/.hidden/y", b"foo/bar/baz",
]  # fmt: skip

PATTERNS = [
    ["*.py"], ["*.PY"], ["/README.md"], ["README.md"], ["docs/"], ["docs"], ["/docs/"], ["docs/*"], ["docs/**"], ["**/docs"],
    ["**/docs/**"], ["src/**/a.py"], ["build/*", "!build/keep.bin"], ["*.bin", "!keep.bin"],
    ["\\#note"], ["#note"], ["\\!bang"], ["caf*"], ["a b.txt"], ["a\\[1\\].txt"], ["data/?.json"], ["data/[0-9].json"],
    ["data/[!0-9].json"], [".*"], ["*"], ["**"], ["foo/*/baz"], ["foo/*"], ["bar"], ["bar/"], ["/bar"], ["", "#"],
]  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patterns")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


def ignored_by_git(repository: Path, patterns: list[str]) -> set[bytes]:
    (repository / ".gitignore").write_text("\n".join(patterns) + "\n")
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "-z", "--stdin"],
        cwd=repository,
        input=b"\0".join(PATHS),
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull},
    )
    assert done.returncode in (0, 1), done.stderr
    return set(done.stdout.split(b"\0")) - {b""}


@pytest.mark.parametrize("patterns", PATTERNS, ids=" ".join)
def test_a_pattern_means_what_it_means_to_git(repository: Path, patterns: list[str]) -> None:
    ignored = ignored_by_git(repository, patterns)
    kept = compile_rules([], patterns)
    assert {path for path in PATHS if not kept(path)} == ignored
    taken = compile_rules(patterns, [])
    assert {path for path in PATHS if taken(path)} == ignored


@pytest.mark.parametrize(
    ("patterns", "path"), [(["build/", "!build/keep.bin"], b"build/keep.bin"), (["*", "!*.md"], b"docs/README.md")]
)
def test_unlike_in_git_a_file_can_be_taken_back_out_of_a_folder(patterns: list[str], path: bytes) -> None:
    # git does not look into an excluded folder any more; here nothing is walked, so what is written counts.
    assert not compile_rules(patterns, [])(path)
    assert compile_rules([], patterns)(path)


def test_no_rules_keep_everything() -> None:
    assert all(map(compile_rules([], []), PATHS))


def test_exclude_wins_over_include() -> None:
    kept = compile_rules(["*.py", "docs/"], ["deep/", "docs/README.md"])
    assert [path for path in PATHS if kept(path)] == [b"docs/a/b.txt", b"src/docs/x", b"src/a.py", b"caf\xe9/a.py"]


def test_a_path_that_is_not_utf8_is_matched_by_what_is_text_in_it() -> None:
    assert not compile_rules([], ["*.py"])(b"\xff\xfe.py")
    assert compile_rules(["caf?/*"], [])(b"caf\xe9/x")


@pytest.mark.parametrize("patterns", [["**/x"], ["docs/**/x"], ["/docs/"], ["docs"], ["x"], ["d*"]])
def test_a_line_feed_in_a_name_hides_nothing_from_a_pattern(patterns: list[str]) -> None:
    assert not compile_rules([], patterns)(b"docs/a\nb/x")


def test_a_line_feed_at_the_end_of_a_name_is_a_part_of_it() -> None:
    assert compile_rules([], ["secret"])(b"secret\n")


@pytest.mark.parametrize("pattern", ["!", "\\", "a\\"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    for include, exclude in ([pattern], []), ([], [pattern]):
        with pytest.raises(ValueError, match="Invalid git pattern"):
            compile_rules(include, exclude)


@given(st.binary(max_size=30), st.lists(st.sampled_from(["*.a", "**/b", "c/", "!d", "[a-f]*", "e/**/f"]), max_size=4))
def test_any_bytes_can_be_asked_about(path: bytes, patterns: list[str]) -> None:
    assert compile_rules(patterns, [])(path) in (True, False)
    assert compile_rules([], patterns)(path) in (True, False)


def test_the_digest_changes_whenever_the_rules_do() -> None:
    variants = [
        rules([], [], 5),
        rules(["a"], [], 5),
        rules([], ["a"], 5),
        rules(["a", "b"], [], 5),
        rules(["b", "a"], [], 5),
        rules(["a,b"], [], 5),
        rules(['a","b'], [], 5),
        rules([], [], 6),
    ]
    assert len({variant.digest for variant in variants}) == len(variants)


def test_the_digest_of_the_same_rules_is_the_same_everywhere() -> None:
    # Stored with each snapshot: another spelling would fetch everything anew after an update.
    first = rules(["*.md", "\u00e9"], ("x",), 5_000_000)
    assert first == rules(("*.md", "\u00e9"), ["x"], 5_000_000)
    assert (first.include, first.exclude, first.max_file_bytes) == (("*.md", "\u00e9"), ("x",), 5_000_000)
    assert first.digest == "fd515470699c2c1e34eb831b5406f32364e728b233b41b9531e2bb6a27f55a70"
