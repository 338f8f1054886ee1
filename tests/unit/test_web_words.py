from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from daemon.web import words

NOW = datetime(2026, 11, 23, 21, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain text, 100 %", "plain text, 100 %"),
        ("Grüße, 世界, עברית", "Grüße, 世界, עברית"),
        ("tab\tstays", "tab\tstays"),
        ("exe.\u202etxt", "exe.‹U+202E›txt"),
        ("\u2066hidden\u2069", "‹U+2066›hidden‹U+2069›"),
        ("zero\u200bwidth\ufeff", "zero‹U+200B›width‹U+FEFF›"),
        ("line\nbreak\r", "line‹U+000A›break‹U+000D›"),
        ("bell\x07 del\x7f c1\x9b", "bell‹U+0007› del‹U+007F› c1‹U+009B›"),
        ("filler\u3164 blank\u2800", "filler‹U+3164› blank‹U+2800›"),
        ("tag\U000e0041", "tag‹U+E0041›"),
        ("selector a\ufe0f", "selector a‹U+FE0F›"),
        ("join a\u200db", "join a‹U+200D›b"),
        ("⚡\ufe0f 👩\u200d🚀 ✨", "⚡\ufe0f 👩\u200d🚀 ✨"),
    ],
)
def test_what_has_no_glyph_is_written_out(text, seen):
    assert words.visible(text) == seen


def test_what_is_shown_is_safe_in_text_and_in_attributes():
    assert words.shown(
        """<b a="x" c='y'>&\u202e"""
    ) == "&lt;b a=&quot;x&quot; c=&#x27;y&#x27;&gt;&amp;‹U+202E›".replace("&#x27;", words.shown("'"))
    assert set(words.shown("<>\"'")) & set("<>\"'") == set()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (0.2, "< 1 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (86400 * 3, "3 d"), (86400 * 1000, "3 y")],
)
def test_a_span_has_one_unit(seconds, said):
    assert words.span(seconds) == said


def test_an_instant_is_relative_with_the_exact_one_beside_it():
    told = words.when(NOW - timedelta(minutes=3), NOW)
    assert told == '<time datetime="2026-11-23T21:37:00.000Z" title="2026-11-23 21:37:00 UTC">3 min ago</time>'
    assert ">in 2 h</time>" in words.when(NOW + timedelta(hours=2), NOW)
    assert "&lt; 1 s ago" in words.when(NOW - timedelta(milliseconds=20), NOW)
    assert "never" in words.when(None, NOW)


@pytest.mark.parametrize("text", ["<script>", "0001-01-01T00:00:00+14:00", "yesterday"])
def test_a_date_that_is_none_is_shown_as_it_is_and_safe(text):
    assert "<script" not in words.when(text, NOW)
    assert "<time" not in words.when(text, NOW)


def test_the_time_zone_of_an_instant_does_not_matter():
    assert "21:40:00 UTC" in words.when("2026-11-23T23:40:00+02:00", NOW)


@pytest.mark.parametrize(
    ("count", "said"), [(None, "–"), (0, "0 B"), (999, "999 B"), (1400, "1.4 KB"), (3_100_000_000_000, "3100.0 GB")]
)
def test_a_size_is_short(count, said):
    assert words.size(count) == said


def test_urls_hold_nothing_that_could_end_an_attribute():
    url = words.repository_url("o/n", "/files", branch='a"><b>\u202e', path=b"caf\xe9/<x>")
    assert url == "/repositories/o/n/files?branch=a%22%3E%3Cb%3E%E2%80%AE&path=caf%E9%2F%3Cx%3E"
    assert words.raw_url("o/n", b"a b/%\xff", "m") == "/api/v1/repositories/o/n/raw/a%20b/%25%FF?branch=m"
