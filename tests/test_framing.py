"""Bytes to lines: every split of a stream gives the same, and memory stays within the limit."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksi_daemon.errors import LineTooLong
from ksi_daemon.framing import Framing

LIMIT = 8

STREAM = st.binary(max_size=60).map(lambda data: data.replace(b"\x00", b"\n"))


def lines(stream: bytes, cuts: list[int]) -> list[object]:
    """What a framing gives for a stream cut at these places, its end included."""
    framing = Framing(LIMIT)
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
    found = [line for piece in pieces for line in framing.feed(piece)]
    return [type(line) if isinstance(line, LineTooLong) else line for line in [*found, framing.end()]]


def expected(stream: bytes) -> list[object]:
    """The same, said plainly."""
    *whole, last = stream.split(b"\n")
    found: list[object] = [line if len(line) <= LIMIT else LineTooLong for line in whole]
    if len(last) > LIMIT:
        return [*found, LineTooLong, None]
    return [*found, last or None]


@given(stream=STREAM, cuts=st.lists(st.integers(min_value=0), max_size=12))
def test_any_split_gives_the_same_lines(stream: bytes, cuts: list[int]) -> None:
    """However a stream is cut into pieces, its lines and its errors are those of the whole."""
    assert lines(stream, cuts) == expected(stream)


@given(stream=STREAM)
def test_a_byte_at_a_time_gives_the_same_lines(stream: bytes) -> None:
    """The slowest client is understood as the fastest."""
    assert lines(stream, list(range(len(stream)))) == expected(stream)


@pytest.mark.parametrize(("size", "accepted"), [(LIMIT - 1, True), (LIMIT, True), (LIMIT + 1, False)])
def test_the_limit_does_not_count_the_newline(size: int, accepted: bool) -> None:
    """A line of exactly the limit is a line; one byte more is refused."""
    (line,) = Framing(LIMIT).feed(b"x" * size + b"\n")

    assert (line == b"x" * size) is accepted


def test_a_long_line_is_refused_once_and_not_kept() -> None:
    """A line of many times the limit costs one error and no memory, and the next line is understood."""
    framing = Framing(LIMIT)

    found = [line for _ in range(10_000) for line in framing.feed(b"x" * 100)]

    assert [type(line) for line in found] == [LineTooLong]
    assert len(framing._buffer) == 0
    assert framing.begun
    assert framing.feed(b"tail\nnext\n") == [b"next"]
    assert not framing.begun


def test_the_error_names_the_limit_and_the_setting() -> None:
    """Who sends too much is told how much is allowed and what to change."""
    (error,) = Framing(LIMIT).feed(b"x" * 9)

    assert str(error) == "line is longer than 8 bytes; send less, or raise KSI_MAX_LINE_BYTES"


def test_an_end_without_a_begun_line_gives_nothing() -> None:
    """A stream that ends after a newline has no last line, nor has one whose last line was too long."""
    whole, long = Framing(LIMIT), Framing(LIMIT)
    whole.feed(b"a\n")
    long.feed(b"x" * 20)

    assert (whole.end(), long.end()) == (None, None)
