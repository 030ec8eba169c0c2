"""Pages of encoded identities: the bytes of the whole, in the order of a dict, and what snapshots share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksi_daemon.agent import core, pages
from ksi_daemon.agent.pages import Pages
from tests.identity_sides import identity, many, stored


def filled(identities):
    """Pages with these."""
    found = Pages()
    for agent, one in identities.items():
        found.put(agent, core.entry(agent, one))
    return found


def test_no_identities():
    """An empty object, as `json.dump` writes it; also when the last one was dropped."""
    one = filled({"a": {}})
    one.put("a", None)

    assert [b"".join(found.snapshot()) for found in (Pages(), one)] == [b"{}", b"{}"]


@pytest.mark.parametrize("count", [1, pages.PAGE - 1, pages.PAGE, pages.PAGE + 1, 5 * pages.PAGE + 3])
def test_any_number_of_pages(count):
    """The bytes are those of `json.dumps(…, indent=2)`."""
    assert b"".join(filled(many(count)).snapshot()) == stored(many(count))


STEPS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.one_of(st.none(), st.integers(0, 9))), max_size=60)


@given(STEPS)
def test_any_sequence_of_changes(steps):
    """What is put again keeps its place, what was dropped and comes again goes last, as in a dict."""
    wanted: dict[str, int] = {}
    found = Pages()
    before, pages.PAGE = pages.PAGE, 3
    try:
        for agent, value in steps:
            core.apply(wanted, agent, value)
            found.put(agent, None if value is None else core.entry(agent, value))
            assert b"".join(found.snapshot()) == stored(wanted)
    finally:
        pages.PAGE = before


def test_a_snapshot_stays_as_it_is():
    """Changes that come while it is being written are not in it."""
    found = filled(many(300))
    taken = found.snapshot()
    found.put("agent-0", core.entry("agent-0", identity(7)))
    found.put("agent-1", None)
    found.put("new", core.entry("new", {}))

    assert b"".join(taken) == stored(many(300))


def test_one_change_makes_one_page_anew():
    """The text of every other page is the very same object in the next snapshot: nothing is joined twice."""
    found = filled(many(1000))
    before = found.snapshot()
    found.put("agent-500", core.entry("agent-500", identity(1)))
    after = found.snapshot()

    assert sum(old is not new for old, new in zip(before, after, strict=True)) == 1
