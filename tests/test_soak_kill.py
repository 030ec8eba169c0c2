"""kill -9 under load: after the restart every acknowledged record is there once, in order, in whole lines."""

from __future__ import annotations

import random
import time

import pytest

from tests.daemon import running, write_flags
from tests.load import ROOMS, Load, on_disk

pytestmark = [pytest.mark.soak, pytest.mark.unmeasured]
STAGES = ("sync", "async")


def kill_under_load(daemon, random_, life):
    """Load both rooms, perhaps begin a flip, and kill the daemon; the loads."""
    loads = [
        Load(daemon, room, f"life{life}-{room}-{number}", random_.random())
        for room in ROOMS
        for number in range(2)
    ]
    for load in loads:
        load.start()
    time.sleep(random_.uniform(0.0, 0.25))
    if random_.random() < 0.5:
        write_flags(daemon.root, **{room: random_.choice(STAGES) for room in ROOMS})
        time.sleep(random_.uniform(0.0, 0.25))
    daemon.kill()
    for load in loads:
        load.join(30)
    return loads


def check(root, loads):
    """Each connection's records 0 … n are there, once and in order, with all that were acknowledged."""
    for room in ROOMS:
        found = on_disk(root, room)
        for load in (load for load in loads if load.room == room):
            numbers = found[load.label]
            assert list(range(len(numbers))) == numbers
            assert load.acknowledged <= len(numbers) <= load.sent
            assert load.refused == []


def test_kills_under_load(tmp_path, count, seed):
    """At random moments, on either side and during flips; each life finds what all before it wrote."""
    kills, random_, root, loads = count(10, 100), random.Random(seed), tmp_path / "root", list[Load]()
    root.mkdir()
    for life in range(kills):
        write_flags(root, **{room: random_.choice(STAGES) for room in ROOMS})
        with running(root) as daemon:
            check(root, loads)
            loads += kill_under_load(daemon, random_, life)
    with running(root) as daemon:
        check(root, loads)
        code = daemon.stop()

    total, torn = sum(load.acknowledged for load in loads), len(list(root.rglob("*.torn-*")))
    print(  # noqa: T201 - the result of `make soak`
        f"seed {seed}: {kills} kills, {total} acknowledged records, {torn} torn tails mended"
    )
    assert (code, total > kills) == (0, True)
