"""The journal read back: since when a component is at async, and which rollbacks came into force."""

from __future__ import annotations

import pytest

from ksi_migrate import history
from tests.proofs import ago, asked, flip

UP = flip("agent", at=ago(days=20))


@pytest.mark.parametrize(
    ("entries", "since"),
    [
        ([], None),
        ([asked("enable", "agent", "async")], None),
        ([UP], ago(days=20)),
        ([UP, flip("agent", "sync")], None),
        ([UP, flip("agent", "sync"), flip("agent", at=ago(days=3))], ago(days=3)),
        ([UP, asked("rollback", "agent", "sync")], None),
        (
            [UP, asked("rollback", "agent", "sync"), asked("enable", "agent", "async", ago(days=2))],
            ago(days=2),
        ),
        ([UP, asked("enable", "agent", "async", ago(days=2))], ago(days=20)),
        ([UP, {**flip("agent", "sync"), "action": "refused"}], ago(days=20)),
        ([UP, asked("rollback", "messaging", "sync"), flip("messaging", "sync")], ago(days=20)),
        ([flip("agent", at=ago(days=1)), flip("agent", "sync", ago(days=9))], None),
    ],
    ids=[
        "nothing",
        "asked and never flipped",
        "flipped",
        "flipped back by hand",
        "flipped again",
        "asked back while no daemon ran",
        "asked back and up again before any flip",
        "enabled twice",
        "a refused flip",
        "another's rollback",
        "a clock that went back",
    ],
)
def test_since_when_a_component_is_at_async(entries, since):
    """A stay begins with a flip and ends with a flip away or a rollback, in the order of the lines."""
    stay = history.stay_of(entries, "agent")

    assert (stay.at if stay else None) == since


@pytest.mark.parametrize("at", ["yesterday", "", "2025-13-01T00:00:00Z"])
def test_a_time_that_is_none(at):
    """What cannot be read as a time is no time; one without a zone is UTC."""
    stay = history.stay_of([{**UP, "at": at, "generation": None}], "agent")

    assert stay is not None
    assert (stay.since(), stay.generation) == (None, None)
    assert history.Stay("2025-07-12T20:00:00", 1).since() == history.Stay("2025-07-12T20:00:00Z", 1).since()


def test_rollbacks_that_came_into_force():
    """A flip to sync after a rollback counts; one without, and one that was overtaken, do not."""
    entries = [
        UP,
        flip("agent", "sync"),
        UP,
        asked("rollback", "agent", "sync"),
        asked("enable", "agent", "async"),
        flip("agent", "sync"),
        UP,
        asked("rollback", "agent", "sync"),
        flip("agent", "sync", ago(days=1)),
    ]

    assert [entry["at"] for entry in history.rollbacks(entries)] == [ago(days=1)]
