"""Flips under real load: every acknowledged record is on disk once, in its connection's order."""

from __future__ import annotations

import random
import time

import pytest

from tests.daemon import PATIENCE, running, write_flags
from tests.load import ROOMS, Load, on_disk

pytestmark = [pytest.mark.soak, pytest.mark.unmeasured]
CONNECTIONS = 4


def stage_of(daemon, room):
    """What is in force, once the daemon has settled; else None."""
    status = daemon.ask("migration:status")
    (found,) = [one for one in status["components"] if one["name"] == room]
    assert found["refused"] is None
    return found["effective"] if status["settled"] else None


def flip(daemon, room, stage):
    """Write the flags and wait until the daemon acknowledges; the seconds that it took."""
    began = time.monotonic()
    write_flags(daemon.root, **{room: stage})
    while stage_of(daemon, room) != stage:
        assert time.monotonic() < began + PATIENCE, daemon.log()
        time.sleep(0.005)
    return time.monotonic() - began


@pytest.mark.parametrize("room", ROOMS)
def test_flips_under_load(room, tmp_path, count, seed):
    """In both directions, again and again: nothing lost, doubled, reordered or refused; exit 0 at the end."""
    flips, random_ = count(20, 200), random.Random(seed)
    took = []
    with running(tmp_path / "root") as daemon:
        loads = [Load(daemon, room, f"c{number}", seed + number) for number in range(CONNECTIONS)]
        for load in loads:
            load.start()
        for number in range(flips):
            took.append(flip(daemon, room, ("async", "sync")[number % 2]))
            time.sleep(random_.uniform(0, 0.05))
        for load in loads:
            load.stop()
        generation = daemon.ask("migration:status")["generation"]
        code = daemon.stop()

    total = sum(load.acknowledged for load in loads)
    print(  # noqa: T201 - the result of `make soak`
        f"seed {seed}: {flips} flips of {room}, the slowest {max(took):.2f} s, {total} records"
    )
    found = on_disk(daemon.root, room)
    assert {load.label: list(range(load.sent)) for load in loads} == dict(found)
    assert [load.refused for load in loads if load.refused] == []
    assert (code, generation >= flips) == (0, True)
    assert all(load.acknowledged == load.sent > flips for load in loads)
