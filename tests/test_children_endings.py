"""However a run ends, by itself, by force or in the middle, nothing of it is left."""

from __future__ import annotations

import asyncio
import errno
import signal
import subprocess
import sys
import threading
import time

import pytest

from ksi_daemon import children
from ksi_daemon.children import Finished, Flood, Overtime, run
from ksi_daemon.family import Family
from tests.families import (
    ESCAPED,
    FOREVER,
    KINDS,
    NEVER,
    OURS,
    command,
    left,
    spotless,
    there_or_done,
    zombies,
)
from tests.threads import new


@pytest.fixture
async def lane(tmp_path):
    """A lane; at the end nothing of the test is left."""
    async with spotless(tmp_path) as lane:
        yield lane


@pytest.mark.parametrize("kind", [*KINDS, "escaped"])
@pytest.mark.parametrize("ending", ["ends", "fails", "overtime", "flood", "cancelled"])
async def test_no_kind_of_descendant_outlives_it(tmp_path, lane, kind, ending):
    """However a run ends, every process it started is gone and reaped when the caller goes on."""
    begin = f"{KINDS.get(kind, ESCAPED)}\nwhile ! grep -qs tail /proc/[0-9]*/comm; do :; done; touch began"
    endings = {"ends": "exit 0", "fails": "exit 7", "flood": f"head -c 3000000 /dev/zero; {FOREVER}"}
    script = f"{begin}; {endings.get(ending, FOREVER)}"
    deadline = 0.3 if ending == "overtime" else 30.0
    running = asyncio.ensure_future(run(command(tmp_path, script, deadline_s=deadline), lane))
    if ending == "cancelled":
        await there_or_done(tmp_path / "began", running)
        running.cancel()
    outcome = (await asyncio.gather(running, return_exceptions=True))[0]

    assert left(tmp_path) == []
    assert zombies() == []
    codes = {"ends": 0, "fails": 7}
    errors = {"overtime": Overtime, "flood": Flood, "cancelled": asyncio.CancelledError}
    if ending in codes:
        assert outcome == Finished(codes[ending], b"", b"")
    else:
        assert type(outcome) is errors[ending]


async def test_sigterm_comes_first_and_leaves_time(tmp_path, lane):
    """A command that tidies up on SIGTERM can; its grace ends when it does."""
    script = f"trap 'sleep 0.1; touch tidy; exit' TERM; touch began; {FOREVER} & wait"
    running = asyncio.ensure_future(run(command(tmp_path, script, grace_s=30.0), lane))
    await there_or_done(tmp_path / "began", running)
    running.cancel()
    begun = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert (tmp_path / "tidy").exists()
    assert time.monotonic() - begun < 25


@pytest.mark.parametrize("when", ["before", "during"])
async def test_hurry_ends_the_grace(tmp_path, lane, when):
    """Set before the end or in the middle of the grace: SIGKILL at once."""
    hurry = asyncio.Event()
    script = f"trap 'touch told' TERM; touch began; while :; do {FOREVER}; done"
    running = asyncio.ensure_future(run(command(tmp_path, script, grace_s=50.0), lane, hurry=hurry))
    await there_or_done(tmp_path / "began", running)
    if when == "before":
        hurry.set()
    running.cancel()
    if when == "during":
        await there_or_done(tmp_path / "told", running)
        hurry.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert (tmp_path / "told").exists() == (when == "during")


async def test_hurry_alone_ends_nothing(tmp_path, lane):
    """A run that is not being ended goes on."""
    hurry = asyncio.Event()
    hurry.set()

    assert (await run(command(tmp_path, "sleep 0.3; echo well"), lane, hurry=hurry)).stdout == b"well\n"


async def test_cancelled_again_and_again_it_still_ends_all(tmp_path, lane):
    """Every turn of the loop brings another cancellation, from before the start to the end."""
    running = asyncio.ensure_future(run(command(tmp_path, f"trap '' TERM; {NEVER}"), lane))
    await there_or_done(tmp_path / "began", running)
    while not running.done():
        running.cancel()
        await asyncio.sleep(0)

    assert running.cancelled()
    assert left(tmp_path) == []


@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_a_cancellation_at_any_stage_leaves_nothing(tmp_path, lane, turns):
    """Also while the child is being started, and twice in a row."""
    running = asyncio.ensure_future(run(command(tmp_path, FOREVER), lane))
    for _ in range(turns):
        await asyncio.sleep(0 if turns < 12 else 0.0003)
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert left(tmp_path) == []


async def test_a_cancellation_of_every_task_leaves_nothing(tmp_path, lane):
    """As asyncio does at the end of a loop: those within a run, too."""
    running = asyncio.ensure_future(run(command(tmp_path, NEVER), lane))
    await there_or_done(tmp_path / "began", running)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert left(tmp_path) == []


async def test_a_timeout_around_it_is_a_timeout(tmp_path, lane):
    """`asyncio.timeout` gets its cancellation back, when all is ended."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await run(command(tmp_path, FOREVER), lane)

    assert left(tmp_path) == []


async def test_twenty_at_once(tmp_path, lane):
    """Each gets its own output, and one that ends takes nothing from the others."""
    runs = [
        run(
            command(
                tmp_path,
                f"cat; {KINDS['own session']} sleep 0.{n % 4}",
                mark=f"{OURS}many-{n}",
                stdin=b"%d" % n,
            ),
            lane,
        )
        for n in range(20)
    ]

    assert [b"%d" % n for n in range(20)] == [done.stdout for done in await asyncio.gather(*runs)]


async def test_what_got_away_is_ended_with_the_last_that_was_there(tmp_path, lane):
    """Two runs together: nobody can say whose the daemon is, until only one of them is left."""
    other = asyncio.ensure_future(
        run(command(tmp_path, "mkfifo go; touch ready; read line <go", mark=OURS + "b"), lane)
    )
    await run(command(tmp_path, f"{ESCAPED}; touch began; sleep 0.2", mark=OURS + "a"), lane)
    await there_or_done(tmp_path / "ready", other)
    undecided = left(tmp_path)
    (tmp_path / "go").write_text("\n")
    await other

    assert len(undecided) == 2  # the other run's shell, and the daemon
    assert left(tmp_path) == []


async def test_another_run_is_left_alone(tmp_path, lane):
    """One with another mark, also while its neighbour is killed."""
    other = asyncio.ensure_future(run(command(tmp_path, f"{NEVER}", mark=OURS + "other"), lane))
    await there_or_done(tmp_path / "began", other)
    with pytest.raises(Overtime):
        await run(command(tmp_path, f"trap '' TERM; {FOREVER}", deadline_s=0.1), lane)
    before = left(tmp_path)
    other.cancel()
    await asyncio.wait([other])

    assert len(before) == 2
    assert other.cancelled()


async def test_a_stuck_lane_costs_an_error_and_not_silence(tmp_path, lane, monkeypatch):
    """The main process and its group are killed without it; the files are closed when it goes on."""
    monkeypatch.setattr(children, "HANG", 0.3)
    monkeypatch.setattr(children, "KILLING", 0.5)
    go = threading.Event()
    running = asyncio.ensure_future(run(command(tmp_path, NEVER), lane))
    await there_or_done(tmp_path / "began", running)
    stuck = asyncio.ensure_future(lane.run(go.wait))
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is checked
        await running

    assert caught.value.errno == errno.ETIMEDOUT
    assert left(tmp_path) == []
    go.set()
    await stuck
    await lane.run(int)


async def test_an_end_that_cannot_be_had_is_given_up(tmp_path, lane, monkeypatch):
    """Something in the kernel, say: the run is over and logged, what it waits for is not waited for."""
    monkeypatch.setattr(children, "KILLING", 0.05)
    send = Family.press
    monkeypatch.setattr(Family, "press", lambda family, number: [4711])
    errors = []
    monkeypatch.setattr(children.log, "error", lambda event, **fields: errors.append(fields["pids"]))
    with pytest.raises(Overtime):
        await run(command(tmp_path, FOREVER, deadline_s=0.1, grace_s=0.05), lane)
    main = left(tmp_path)

    assert errors == [[4711]]
    assert len(main) == 2
    family = Family(OURS + tmp_path.name)
    family._since = 0
    while send(family, signal.SIGKILL):
        await asyncio.sleep(0.01)
    family.over()
    while [thread for thread in new() if "waitpid" in thread.name]:
        await asyncio.sleep(0.01)


def test_a_loop_that_ends_with_it_hears_no_complaint(tmp_path):
    """Neither asyncio nor the interpreter has anything to say about a child, closed or not."""
    code = f"""
import asyncio, pathlib, sys
from ksi_daemon import children
from ksi_daemon.lane import Lane
from tests.families import command, FOREVER
async def main():
    place, lane = pathlib.Path({str(tmp_path)!r}), Lane("t")
    tasks = [asyncio.ensure_future(children.run(command(place, s, mark=s), lane)) for s in ("exit", FOREVER)]
    await tasks[0]
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, OURS],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert left(tmp_path) == []
