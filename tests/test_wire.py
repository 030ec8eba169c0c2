"""One line of JSON in and out: what is accepted keeps its value, everything else is a clear error."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ksi_daemon import wire
from ksi_daemon.errors import InvalidJson, InvalidRequest, ShuttingDown, Unserialisable

WITHIN = st.integers(min_value=-(2**63), max_value=2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | WITHIN | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT, v, max_size=4))


@given(value=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_decode_agrees_with_json(value: Any, ascii_only: bool, indent: int | None) -> None:
    """What the standard library writes is read with the same value and type."""
    line = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()

    assert repr(wire.decode(line)) == repr(json.loads(line))


@given(value=VALUES)
def test_encode_agrees_with_json(value: Any) -> None:
    """What we write is one line, which the standard library reads as the same value."""
    line = wire.encode(value)

    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert json.loads(line) == value


@given(line=st.binary(max_size=40))
def test_no_bytes_do_more_than_raise_invalid_json(line: bytes) -> None:
    """Any bytes are a value that the standard library reads alike, or `InvalidJson`."""
    try:
        value = wire.decode(line)
    except InvalidJson:
        return
    assert json.loads(line) == value


@given(number=st.integers())
def test_integers_keep_their_value_or_are_refused(number: int) -> None:
    """No integer is rounded: within 64 bits it is itself, beyond it is an error."""
    within = -(2**63) <= number < 2**64
    try:
        value = wire.decode(b"[%d]" % number)
    except InvalidJson:
        assert not within
    else:
        assert value == [number]
        assert type(value[0]) is int


@given(
    digits=st.integers(min_value=17, max_value=40), offset=st.integers(-3, 3), sign=st.sampled_from([1, -1])
)
def test_long_integers_are_never_rounded(digits: int, offset: int, sign: int) -> None:
    """Around every power of ten the value is kept or refused, also inside a request."""
    number = sign * (10**digits + offset)
    line = json.dumps({"event": "e", "data": {"n": [number]}}).encode()
    assume(not -(2**63) <= number < 2**64)

    with pytest.raises(InvalidJson, match="integer beyond 64 bits"):
        wire.decode(line)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**53 + 1])
def test_the_ends_of_64_bits_are_within(number: int) -> None:
    """The largest and the smallest integer of 64 bits are exact."""
    assert wire.decode(str(number).encode()) == number


HOSTILE = {
    "blank": b"",
    "spaces": b"   ",
    "NaN": b'{"event": NaN}',
    "Infinity": b"-Infinity",
    "1e999": b'{"event": "e", "data": {"x": 1e999}}',
    "5,000 digits": b"1" * 5000,
    "5,000 digits inside": b'{"event": "e", "n": -' + b"7" * 5000 + b"}",
    "beyond 64 bits": b"18446744073709551616",
    "below 64 bits": b"-9223372036854775809",
    "beyond, nested deeply": b"[" * 1020 + b"99999999999999999999" + b"]" * 1020,
    "depth 100,000": b"[" * 100_000,
    "depth 100,000, closed": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "trailing data": b'{"event": "e"} {}',
    "two documents": b"1 2",
    "invalid UTF-8": b'{"event": "\xff"}',
    "overlong": b'"\xc0\x80"',
    "UTF-8 surrogate": b'"\xed\xa0\x80"',
    "UTF-16": '{"event": "e"}'.encode("utf-16"),
    "UTF-16 without mark": '{"event": "e"}'.encode("utf-16-le"),
    "BOM": b"\xef\xbb\xbf{}",
    "lone surrogate": b'{"event": "\\ud800"}',
    "wrong pair": b'"\\udc00\\ud800"',
    "NUL": b'{"event": "a\x00b"}',
    "single quotes": b"{'event': 'e'}",
    "bare word": b"event",
    "half": b'{"event": "e"',
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_lines_are_invalid_json(line: bytes) -> None:
    """Each is one error with the original's prefix and the decoder's text on a single line."""
    with pytest.raises(InvalidJson, match=r"^Invalid JSON: .+$") as raised:
        wire.decode_request(line)

    assert "\n" not in str(raised.value)
    assert raised.value.fields() == {"code": "invalid_json"}


ODD = {
    "escaped NUL": (b'"\\u0000"', "\0"),
    "U+2028": ('"\u2028"'.encode(), "\u2028"),
    "escaped pair": (b'"\\ud83d\\ude00"', "\U0001f600"),
    "repeated keys": (b'{"a": 1, "a": 2}', {"a": 2}),
    "digits in a string": (b'"99999999999999999999"', "99999999999999999999"),
    "many digits": (b"0.12345678901234567890123", 0.12345678901234568),
    "ANSI": (b'"\\u001b[2J\\n"', "\x1b[2J\n"),
    "carriage return": (b'{"a": 1}\r', {"a": 1}),
}


@pytest.mark.parametrize(("line", "value"), ODD.values(), ids=ODD.keys())
def test_odd_but_legal_lines_are_read(line: bytes, value: Any) -> None:
    """What JSON allows is taken as it is; of repeated keys the last counts, as before."""
    assert wire.decode(line) == value


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"[]", "an array"),
        (b'"x"', "a string"),
        (b"1", "a number"),
        (b"1.5", "a number"),
        (b"true", "a boolean"),
        (b"null", "null"),
    ],
)
def test_a_request_is_an_object(line: bytes, kind: str) -> None:
    """A root value of another type is refused by name, where the original hung up."""
    with pytest.raises(InvalidRequest, match=f"^a request is a JSON object, not {kind}$"):
        wire.decode_request(line)


@pytest.mark.parametrize("line", [b"{}", b'{"event": ""}', b'{"event": null}', b'{"data": {}}'])
def test_a_request_names_an_event(line: bytes) -> None:
    """An absent or empty event name gives the original's text."""
    with pytest.raises(InvalidRequest, match=r"^Missing event name$"):
        wire.decode_request(line)


@pytest.mark.parametrize("name", ["event", "correlation_id"])
def test_what_a_reply_cannot_repeat_is_refused_beforehand(name: str) -> None:
    """A value that decodes but is too deep to encode is an error before the event has any effect."""
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    line = json.dumps({"event": "e", name: deep}).encode()

    with pytest.raises(InvalidRequest, match=f"^{name} is nested too deeply"):
        wire.decode_request(line)


def test_any_modest_correlation_id_is_accepted() -> None:
    """A correlation id may be any JSON value."""
    request = {"event": "e", "correlation_id": {"a": [1, None]}}

    assert wire.decode_request(json.dumps(request).encode()) == request


@pytest.mark.parametrize(("results", "data"), [([], []), ([7], 7), ([[1]], [1]), ([1, 2], [1, 2])])
def test_a_reply_has_five_keys_in_order(results: list[Any], data: Any) -> None:
    """One result stands as itself, none or several as an array."""
    found = json.loads(wire.reply("e", results, "c", 1.5))

    assert list(found.items()) == [
        ("event", "e"),
        ("data", data),
        ("count", len(results)),
        ("correlation_id", "c"),
        ("timestamp", 1.5),
    ]


def test_the_first_two_error_shapes() -> None:
    """Shape 1 has the text and the code; shape 2 the event, the correlation id and the time too."""
    assert json.loads(wire.framing_error(InvalidRequest("no"))) == {"error": "no", "code": "invalid_request"}
    assert json.loads(wire.request_error("e", ShuttingDown(), None, 2.0)) == {
        "event": "e",
        "error": "daemon is shutting down",
        "correlation_id": None,
        "timestamp": 2.0,
        "code": "shutting_down",
    }


def test_sets_become_sorted_lists() -> None:
    """A set, which made the original send no reply at all, is a list."""
    assert json.loads(wire.encode({"a": {"y", "x"}, "b": frozenset({2, 1})})) == {
        "a": ["x", "y"],
        "b": [1, 2],
    }


@pytest.mark.parametrize("value", ["\ud800", 2**64, object(), {1, "a"}, {"k": {object()}}])
def test_what_json_cannot_say_is_unserialisable(value: object) -> None:
    """A lone surrogate, an integer beyond 64 bits or a foreign object is an error, not a silence."""
    with pytest.raises(Unserialisable, match=r"^not representable as JSON: "):
        wire.encode({"x": value})


def test_not_a_number_becomes_null() -> None:
    """A NaN of a handler's own is null on the wire: no client reads NaN."""
    assert wire.encode([math.nan, math.inf]) == b"[null,null]\n"


def test_a_deep_document_with_a_long_number_is_refused() -> None:
    """Its integers cannot be checked by writing them again, so nothing is guessed."""
    line = b"[" * 300 + b"1234567890123456789" + b"]" * 300
    with pytest.raises(InvalidJson, match="nested too deeply"):
        wire.decode(line)
