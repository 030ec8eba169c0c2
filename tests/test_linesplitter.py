"""Reading a log in pieces: every way to cut it gives the same lines."""

from hypothesis import given
from hypothesis import strategies as st

from ksi_daemon import linesplitter
from ksi_daemon.linesplitter import LineSplitter

PIECES = st.lists(st.binary(max_size=8) | st.sampled_from([b"\n", b"ab\ncd", b"\n\n"]), max_size=20)


@given(PIECES)
def test_every_split_gives_the_same_lines(pieces):
    """The lines do not depend on where the pieces end; blank ones and an unended one are left out."""
    whole = b"".join(pieces)
    splitter = LineSplitter(len(whole))

    found = [line for piece in pieces for line in splitter.feed(piece)]

    assert [line for line in whole.split(b"\n")[:-1] if line] == found


@given(PIECES, st.integers(0, 60))
def test_nothing_after_the_end_counts(pieces, end):
    """Lines that were appended after the reading began are not read."""
    whole = b"".join(pieces)
    splitter = LineSplitter(end)

    found = [line for piece in pieces for line in splitter.feed(piece)]

    assert [line for line in whole[:end].split(b"\n")[:-1] if line] == found


def test_a_line_over_the_limit_is_passed_over(monkeypatch):
    """It costs only itself, and no more memory than the limit and a piece."""
    monkeypatch.setattr(linesplitter, "LARGEST_LINE", 5)
    splitter = LineSplitter(1_000)

    found = [line for piece in (b"12345\n123", b"456", b"78", b"9\nab\n") for line in splitter.feed(piece)]

    assert found == [b"12345", b"ab"]
