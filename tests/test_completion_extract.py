"""Events in the text of an answer: found wherever they stand, and never at more than a bounded cost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksi_daemon.completion import extract
from ksi_daemon.completion.extract import Scan


def found(text):
    """Name and data of each event."""
    return [(one.event, one.data) for one in Scan(text).run() if one is not None]


def slowly(text):
    """The same by trying the standard library's decoder at every brace."""

    def refuse(constant):
        raise ValueError(constant)

    decoder, events, place = json.JSONDecoder(parse_constant=refuse), [], 0
    while (start := text.find("{", place)) >= 0:
        place = start + 1
        try:
            value, end = decoder.raw_decode(text, start)
        except ValueError:
            continue
        name, data = value.get("event"), value.get("data")
        if type(name) is str and name and type(data) in (dict, type(None)):
            events.append((name, data or {}))
            place = end
    return events


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ('{"event":"a"}', [("a", {})]),
        (
            'Yes: {"event": "a:b", "data": {"x": [1, 2.5e3, null, true]}} - done',
            [("a:b", {"x": [1, 2500.0, None, True]})],
        ),
        ('```json\n{\n  "event": "a",\n  "data": {}\n}\n```', [("a", {})]),
        ('{"event":"a"}{"event":"b"}', [("a", {}), ("b", {})]),
        ('{"actions": [{"event": "a"}, {"event": "b"}], "n": 1}', [("a", {}), ("b", {})]),
        ('{"event": "a", "data": {"event": "inner"}}', [("a", {"event": "inner"})]),
        ('{bad {"event": "a"} {"event": "b"', [("a", {})]),
        ('{"x": {"event": "a"}, oops', [("a", {})]),
        ('{"x": "{", "y": {"event": "a"}', [("a", {})]),
        ('{"say": "{\\"event\\": \\"a\\"}"}', []),
        ('{"event": 1} {"event": ""} {"event": null} {"event": ["a"]}', []),
        ('{"event": "a", "event": 2} {"event": "b", "data": [1]} {"Event": "c"}', []),
        ('{"event": "a", "n": 123456789012345678901234567890}', []),
        ('{"event": "\\ud800"} {"event": "\ud800"}', []),
        ('{"event": "\\u00e9", "data": {"t": "\\"{}[]"}}', [("é", {"t": '"{}[]'})]),
        (
            '{"event" "a"} {"event": "a",} {"event": 01} {,"event":"a"} {"event"::"a"} {:} {"event":"a" "b"}',
            [],
        ),
        ('[{"event": "a"}, {"a": ["event", {"event": "b"}]}] "event"', [("a", {}), ("b", {})]),
        ('{"event": "a", "list": [], "obj": {}, "bad": [}]} {"x": [1,] "event": "a"}', []),
        ('{"event": "a"', []),
        ("nothing at all", []),
        ("", []),
    ],
)
def test_events_are_found(text, events):
    """In prose, in fences, in lists, inside objects that are none or never end; not inside of strings."""
    assert events == found(text)


_WHOLE = st.sampled_from(
    ['{"event":"a"}', '{"event":"b","data":{"x":1}}', '{"event":1}', '{"k":{"event":"c"}}', '"event"']
)
_PIECES = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        '"',
        ":",
        ",",
        "\\",
        " ",
        "\n",
        "x",
        "1",
        "-2.5",
        "true",
        '"k"',
        '"event":',
        '"event":"d"',
    ]
)


@given(st.lists(_PIECES | _WHOLE, max_size=40).map("".join))
def test_the_scan_finds_what_a_slow_one_finds(text):
    """On any mixture of JSON and rubbish."""
    if '"event"' in text:
        assert slowly(text) == found(text)


@given(
    st.recursive(
        st.none() | st.text('{}"\\e', max_size=5) | st.integers(-9, 9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["event", "data", "k", "{"]), inner, max_size=3)
        ),
        max_leaves=15,
    ),
    st.integers(0, 80),
)
def test_the_scan_of_real_objects(value, cut):
    """Whole or cut short, with braces and quotes in strings."""
    text = json.dumps(value, ensure_ascii=False)
    for part in (text, text[:cut], "{" + text, text + '{"event":"z"}'):
        if '"event"' in part:
            assert slowly(part) == found(part)


HOSTILE = {
    "never closed": '{"a":' * 25_000 + '"event"',
    "deep": '{"a":' * 25_000 + '{"event":"x"}' + "}" * 25_000,
    "deep events": '{"event":"x","a":' * 8_000 + "1" + "}" * 8_000,
    "never closed events": '{"event":"x","a":' * 8_000,
    "braces in strings": '{"a":"{","b":"{",' * 8_000 + '"event":"x"',
    "two readings of one text": '{":":{":",' * 15_000 + '"event"',
    "lists": '{"a":[' * 25_000 + '"event"',
    "braces": "{" * 125_000 + '"event"',
    "keys": '{"{' * 45_000 + '"event"',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_the_work_is_linear(text):
    """No place is read more than twice: tokens read are at most as many as characters, whatever the text."""
    scan = Scan(text)
    pauses = sum(one is None for one in scan.run())

    assert scan.steps <= min(len(text), extract.MOST_STEPS)
    assert pauses >= scan.steps // (2 * extract.PIECE)


def test_the_work_is_bounded(monkeypatch):
    """After MOST_STEPS tokens the rest is left alone, in the middle of an object or between two."""
    monkeypatch.setattr(extract, "MOST_STEPS", 100)
    wide, many = Scan('{"k":[%s1],"event":"x"}' % ("1," * 1_000)), Scan('{"event":1}' * 1_000)

    assert list(wide.run()) == []
    assert [one for one in many.run() if one is not None] == []
    assert (wide.steps, many.steps) == (100, 100)


def test_what_is_looked_at_is_bounded(monkeypatch):
    """MOST_TEXT characters, MOST_EVENTS events, MOST_REFUSED objects that are none, DEEPEST levels."""
    monkeypatch.setattr(extract, "MOST_TEXT", 30)
    assert found('{"event":"a"}' + " " * 10 + '{"event":"b"}') == [("a", {})]
    monkeypatch.undo()
    assert len(found('{"event":"a"}' * 200)) == extract.MOST_EVENTS
    assert found('{"event":""}' * extract.MOST_REFUSED + '{"event":"a"}') == []
    assert found('{"event":""}' * (extract.MOST_REFUSED - 1) + '{"event":"a"}') == [("a", {})]
    levels = extract.DEEPEST - 1
    assert len(found('{"event":"a","data":' + '{"k":' * (levels - 1) + "{}" + "}" * levels)) == 1
    assert found('{"event":"a","data":' + '{"k":' * levels + "{}" + "}" * (levels + 1)) == []


def test_an_event_far_below_is_found():
    """Where more levels are open than one reading follows, the next one begins below them."""
    text = '{"a":' * (3 * extract.MOST_OPEN) + '{"event":"x"}'

    assert found(text) == [("x", {})]
