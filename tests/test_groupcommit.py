"""Group commit: order, whole batches, back-pressure, cancelled callers, failing and hanging disks."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from ksi_daemon import groupcommit, linefile, settings
from ksi_daemon.errors import ComponentBusy, ComponentClosed, IoFailed, OutcomeUnknown
from ksi_daemon.groupcommit import GroupCommit
from ksi_daemon.lane import Lane
from ksi_daemon.linefile import LineFile
from ksi_daemon.site import Site
from ksi_migrate.stalldisk import stalling_disk, unavailable
from tests.faults import HangingFile, file_size_limit
from tests.guard import loop_guard
from tests.threads import new


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A component's place, with limits so short that a test can wait for them."""
    monkeypatch.setenv("KSI_CALL_TIMEOUT", "0.3")
    monkeypatch.setenv("KSI_STOP_TIMEOUT", "0.3")
    return Site("messaging", settings.load(tmp_path))


@pytest.fixture
def patient(tmp_path):
    """The same with the default limits."""
    return Site("messaging", settings.load(tmp_path))


@pytest.fixture
def file(tmp_path):
    """A log whose disk can hang."""
    file = HangingFile(tmp_path / "bus.jsonl")
    yield file
    file.answers.set()


async def opened(file, site):
    """An open log."""
    commit = GroupCommit(file, site)
    await commit.open()
    return commit


def line(number):
    """One whole line."""
    return b'{"n":%d}\n' % number


def begin(commit, *numbers):
    """Calls that have begun, in this order."""
    return [asyncio.ensure_future(commit.append(line(number))) for number in numbers]


async def outcomes(calls):
    """For each call None or the error's class."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    return [error if error is None else type(error) for error in found]


async def test_a_hundred_callers_keep_their_order(file, patient):
    """Each line is in the file when its caller goes on, in the order of the calls, in few writes."""
    commit, order = await opened(file, patient), []

    async def call(caller):
        for number in range(20):
            order.append(mine := b'{"c":%d,"n":%d}\n' % (caller, number))
            await commit.append(mine)
            assert mine in file.path.read_bytes()

    with loop_guard():
        await asyncio.gather(*map(call, range(100)))
        assert await commit.close()

    assert b"".join(order) == file.path.read_bytes()
    assert len(file.writes) < 2_000 / 20


async def test_a_single_caller_writes_line_by_line(file, patient):
    """One at a time, each write holds one line."""
    commit = await opened(file, patient)
    for number in range(5):
        await commit.append(line(number))
    await commit.close()

    assert [line(number) for number in range(5)] == file.writes


async def test_a_large_batch_takes_no_further_line(file, patient, monkeypatch):
    """Lines beyond BATCH_BYTES go into the next write, in order."""
    monkeypatch.setattr(groupcommit, "BATCH_BYTES", 20)
    commit = await opened(file, patient)
    assert await outcomes(begin(commit, *range(10))) == [None] * 10
    await commit.close()

    assert [write.count(b"\n") for write in file.writes] == [3, 3, 3, 1]
    assert b"".join(map(line, range(10))) == file.path.read_bytes()


async def test_durability_is_looked_up_for_each_batch(file, patient, monkeypatch):
    """A durability changed while running holds from the next write on."""
    synced: list[int] = []
    monkeypatch.setattr(linefile, "sync_to_disk", synced.append)
    commit = await opened(file, patient)
    await commit.append(line(1))
    patient.durability = "fsync"
    await asyncio.gather(*begin(commit, 2, 3, 4))
    await commit.close()

    assert len(synced) == 1


async def test_a_failed_batch_is_refused_as_a_whole(file, patient):
    """Every caller of it gets io_error and none of its lines stays; later ones are written."""
    commit = await opened(file, patient)
    await commit.append(line(0))
    with file_size_limit(64 * 1024):
        big = asyncio.ensure_future(commit.append(b"x" * 70_000 + b"\n"))
        assert [IoFailed] * 3 == await outcomes([big, *begin(commit, 1, 2)])
    await commit.append(line(3))
    await commit.close()

    assert line(0) + line(3) == file.path.read_bytes()


async def test_a_log_that_cannot_be_opened(patient, tmp_path):
    """`open` raises io_error, and leaves no thread behind."""
    (tmp_path / "bus.jsonl").mkdir()
    commit = GroupCommit(HangingFile(tmp_path / "bus.jsonl"), patient)

    with pytest.raises(IoFailed) as caught:
        await commit.open()

    assert caught.value.errno == "EISDIR"
    assert commit._lane._thread is None


async def test_an_open_that_never_returns(file, site):
    """A dead disk: `open` gives up after `call_timeout` with ETIMEDOUT, retryable."""
    file.answers.clear()

    with pytest.raises(IoFailed) as caught:
        await opened(file, site)

    expected = {"code": "io_error", "component": "messaging", "errno": "ETIMEDOUT", "retryable": True}
    assert expected == caught.value.fields()


# cancelled callers


async def test_a_cancelled_caller_waits_for_its_line(file, patient):
    """It ends when its line is in the file, with `CancelledError`; the others of its batch do not notice."""
    commit = await opened(file, patient)
    file.answers.clear()
    calls = begin(commit, 0)
    await file.stuck()
    calls += begin(commit, 1, 2, 3)
    await asyncio.sleep(0)
    for cancelled in (0, 2):
        calls[cancelled].cancel()
    await asyncio.sleep(0.01)
    assert not any(call.done() for call in calls)
    file.answers.set()

    expected = [asyncio.CancelledError, None, asyncio.CancelledError, None]
    assert expected == await outcomes(calls)
    assert b"".join(map(line, range(4))) == file.path.read_bytes()
    await commit.close()


async def test_callers_of_a_failed_batch_with_a_cancelled_one(file, patient):
    """The cancelled caller gets `CancelledError`, the others of the batch the error."""
    file.path.mkdir()
    commit = GroupCommit(file, patient)
    calls = begin(commit, 0, 1, 2)
    await asyncio.sleep(0)
    calls[1].cancel()

    assert [IoFailed, asyncio.CancelledError, IoFailed] == await outcomes(calls)
    await commit.close()


# back-pressure


async def test_callers_beyond_the_backlog_wait_their_turn(file, patient, monkeypatch):
    """First come, first served, and what waits for the writer stays bounded."""
    monkeypatch.setattr(groupcommit, "BACKLOG_BYTES", 3 * len(line(0)))
    commit = await opened(file, patient)
    file.answers.clear()
    calls = begin(commit, *range(9))
    await file.stuck()
    assert 3 * len(line(0)) == commit._backlog
    assert len(commit._turns) == 6
    file.answers.set()

    assert await outcomes(calls) == [None] * 9
    assert b"".join(map(line, range(9))) == file.path.read_bytes()
    assert max(len(write) for write in file.writes) <= 3 * len(line(0))
    assert commit._backlog == 0
    await commit.close()


async def test_a_new_caller_does_not_overtake_those_who_wait(file, patient, monkeypatch):
    """While anybody waits for a turn, a new caller goes behind, also when there is room again."""
    monkeypatch.setattr(groupcommit, "BACKLOG_BYTES", len(line(0)))
    commit = await opened(file, patient)
    waiting = begin(commit, *range(3))
    while not waiting[0].done():
        await asyncio.sleep(0)
    late = begin(commit, 3)

    assert await outcomes(waiting + late) == [None] * 4
    assert b"".join(map(line, range(4))) == file.path.read_bytes()
    await commit.close()


async def test_a_caller_cancelled_while_it_waits_its_turn(file, patient, monkeypatch):
    """Nothing of it is written, and the next one's turn comes."""
    monkeypatch.setattr(groupcommit, "BACKLOG_BYTES", len(line(0)))
    commit = await opened(file, patient)
    file.answers.clear()
    calls = begin(commit, *range(4))
    await file.stuck()
    calls[1].cancel()
    file.answers.set()

    assert [None, asyncio.CancelledError, None, None] == await outcomes(calls)
    assert line(0) + line(2) + line(3) == file.path.read_bytes()
    await commit.close()


# flush and close


async def test_close_writes_what_waits(file, patient, monkeypatch):
    """Batches and callers that wait their turn are written before the end."""
    monkeypatch.setattr(groupcommit, "BACKLOG_BYTES", 3 * len(line(0)))
    commit = await opened(file, patient)
    calls = begin(commit, *range(12))
    await asyncio.sleep(0)

    assert await commit.close()
    assert await outcomes(calls) == [None] * 12
    assert b"".join(map(line, range(12))) == file.path.read_bytes()


async def test_flush_waits_for_a_turn_alone(file, patient, monkeypatch):
    """Nothing is being written, somebody is about to have a turn: `flush` waits for that line too."""
    monkeypatch.setattr(groupcommit, "BACKLOG_BYTES", len(line(0)))
    commit = await opened(file, patient)
    calls = begin(commit, 0, 1)
    while not calls[0].done():
        await asyncio.sleep(0)
    await commit.flush()

    assert line(0) + line(1) == file.path.read_bytes()
    await commit.close()


async def test_a_closed_log_refuses(file, patient):
    """component_closed, and nothing is written."""
    commit = await opened(file, patient)
    await commit.close()

    with pytest.raises(ComponentClosed):
        await commit.append(line(0))
    assert file.path.read_bytes() == b""


# a disk that hangs


async def test_callers_of_a_hanging_disk_are_answered(file, site):
    """After `call_timeout`: what the kernel has is outcome_unknown, what waits is component_busy."""
    commit = await opened(file, site)
    file.answers.clear()
    first = begin(commit, 0)
    await file.stuck()
    later = begin(commit, 1, 2)

    with loop_guard():
        assert [OutcomeUnknown, ComponentBusy, ComponentBusy] == await outcomes(first + later)
    unknown = first[0].exception()
    assert (unknown.errno, unknown.transient) == ("ETIMEDOUT", False)

    assert [ComponentBusy] == await outcomes(begin(commit, 3))
    file.answers.set()
    await commit.flush()
    assert await outcomes(begin(commit, 4)) == [None]
    assert line(0) + line(4) == file.path.read_bytes()
    assert await commit.close()


async def test_those_who_wait_their_turn_are_answered_too(file, site, monkeypatch):
    """Back-pressure behind a hanging disk ends with component_busy, in the order of the callers."""
    monkeypatch.setattr(groupcommit, "BACKLOG_BYTES", len(line(0)))
    commit = await opened(file, site)
    file.answers.clear()
    calls = begin(commit, *range(4))
    await file.stuck()
    calls[2].cancel()

    expected = [OutcomeUnknown, ComponentBusy, asyncio.CancelledError, ComponentBusy]
    assert expected == await outcomes(calls)
    file.answers.set()
    assert await commit.close()


async def test_a_turn_cancelled_as_the_disk_is_given_up(file, site, monkeypatch):
    """A ticket that is cancelled in the same step is left alone."""
    monkeypatch.setattr(groupcommit, "BACKLOG_BYTES", len(line(0)))
    commit = await opened(file, site)
    file.answers.clear()
    calls = begin(commit, 0, 1)
    await file.stuck()
    calls[1].cancel()
    commit._give_up(1.0)
    file.answers.set()

    assert [OutcomeUnknown, asyncio.CancelledError] == await outcomes(calls)
    assert await commit.close()


async def test_close_gives_up_in_time(file, site):
    """A disk that still hangs after `stop_timeout`: False, and everybody is answered."""
    commit = await opened(file, site)
    file.answers.clear()
    calls = begin(commit, 0)
    await file.stuck()
    calls += begin(commit, 1)
    await asyncio.sleep(0)
    began = asyncio.get_running_loop().time()

    assert not await commit.close()
    assert asyncio.get_running_loop().time() - began < 1.0
    assert [OutcomeUnknown, ComponentBusy] == await outcomes(calls)

    writers = [thread for thread in new() if thread.name == "ksi-messaging-writer"]
    file.answers.set()
    for thread in writers:
        await asyncio.to_thread(thread.join, 5)
    assert [thread.is_alive() for thread in writers] == [False]
    assert line(0) == file.path.read_bytes()


async def test_close_after_the_callers_were_answered(file, site, monkeypatch):
    """It looks now and then whether the write has ended, instead of spinning."""
    commit = await opened(file, site)
    file.answers.clear()
    assert [OutcomeUnknown] == await outcomes(begin(commit, 0))
    looks, wait = [], asyncio.wait

    async def counted(*args, **options):
        looks.append(args)
        return await wait(*args, **options)

    monkeypatch.setattr(asyncio, "wait", counted)
    assert not await commit.close()

    assert 1 < len(looks) < 20


async def test_another_component_is_not_held_up(file, site, tmp_path):
    """One dead disk costs one component: another's lines are written meanwhile."""
    dead, alive = await opened(file, site), await opened(HangingFile(tmp_path / "usage.jsonl"), site)
    file.answers.clear()
    stuck = begin(dead, 0)
    await file.stuck()

    assert await outcomes(begin(alive, *range(20))) == [None] * 20
    assert not stuck[0].done()
    file.answers.set()
    assert await outcomes(stuck) == [None]
    assert all([await dead.close(), await alive.close()])


async def test_a_drain_is_told_what_it_waits_for(file, patient):
    """In words with numbers; None when nothing is being written."""
    commit = await opened(file, patient)
    assert commit.pending() is None
    file.answers.clear()
    calls = begin(commit, 0, 1)
    await file.stuck()

    assert commit.pending() == "a write of 2 lines, for 0.0 s"
    file.answers.set()
    await asyncio.gather(*calls)
    await commit.close()


async def test_giving_up_before_the_batch_is_handed_over(file, patient):
    """A batch that was dropped in the same step is not handed over."""
    commit = await opened(file, patient)
    calls = begin(commit, 0)
    await asyncio.sleep(0)
    commit._give_up(1.0)

    assert [ComponentBusy] == await outcomes(calls)
    assert file.writes == []
    assert await commit.close()


async def test_a_slow_disk_is_looked_at_once_in_a_while(file, site):
    """A write within the limit is not given up, however many there are: the look comes again."""
    commit = await opened(file, site)
    for number in range(4):
        file.answers.clear()
        calls = begin(commit, number)
        await file.stuck()
        await asyncio.sleep(0.15)
        file.answers.set()
        assert await outcomes(calls) == [None]
    await asyncio.sleep(0.35)

    assert commit._watch is None
    assert await commit.close()


@pytest.fixture
def stalling(tmp_path):
    """A real disk, frozen for 0.6 s in every 0.9 s."""
    if why := unavailable():
        pytest.skip(why)
    with stalling_disk(tmp_path, hold_ms=600, every_ms=900) as disk:
        yield disk


async def test_a_disk_that_really_stalls(stalling, site):
    """The loop goes on, callers are answered, and what was acknowledged is in the file, in order."""
    file, loop, outcome = LineFile(stalling / "bus.jsonl", "messaging"), asyncio.get_running_loop(), {}
    commit, end, number = None, loop.time() + 2.5, 0
    with loop_guard():
        while commit is None:
            with contextlib.suppress(IoFailed):  # an open that meets a stall gives up too
                commit = await opened(file, site)
        while loop.time() < end:
            (outcome[number],) = await outcomes(begin(commit, number))
            number += 1
            await asyncio.sleep(0.005)
        await commit.flush()
        await commit.close()

    found = [int(text[5:-1]) for text in file.path.read_bytes().split()]
    acknowledged = [number for number, error in outcome.items() if error is None]
    assert OutcomeUnknown in outcome.values()
    assert {None, OutcomeUnknown, ComponentBusy} >= set(outcome.values())
    assert acknowledged == [number for number in found if outcome[number] is None]


async def test_a_close_that_is_cancelled_answers_who_waits(file, patient):
    """By a stop that has no time left: what hangs is `outcome_unknown`, what waits is refused."""
    commit = await opened(file, patient)
    file.answers.clear()
    calls = begin(commit, 1)
    await file.stuck()
    calls += begin(commit, 2)
    closing = asyncio.ensure_future(commit.close())
    await asyncio.sleep(0.01)
    closing.cancel()
    found = await outcomes(calls)
    file.answers.set()

    assert found == [OutcomeUnknown, ComponentBusy]
    assert await outcomes([closing]) == [asyncio.CancelledError]


# several files on one lane


async def test_files_may_share_a_lane(file, patient, tmp_path):
    """Each keeps its order; closing one leaves the thread to the other; its owner ends it."""
    lane = Lane("ksi-shared")
    other = HangingFile(tmp_path / "other.jsonl")
    commits = [GroupCommit(one, patient, lane) for one in (file, other)]
    for commit in commits:
        await commit.open()
    await asyncio.gather(*(commits[n % 2].append(line(n)) for n in range(10)))
    closed = await commits[0].close()
    await commits[1].append(line(10))
    both = closed, await commits[1].close()

    assert both == (True, True)
    assert file.path.read_bytes() == b"".join(map(line, range(0, 10, 2)))
    assert other.path.read_bytes() == b"".join(map(line, (1, 3, 5, 7, 9, 10)))
    assert sum(thread.name == "ksi-shared" for thread in threading.enumerate()) == 1
    assert await lane.close(1)


async def test_a_shared_lane_that_hangs_is_left_to_its_owner(file, site):
    """The close of a file says that it could not be let go, in time; the lane goes on when the disk does."""
    lane = Lane("ksi-shared")
    commit = GroupCommit(file, site, lane)
    await commit.open()
    file.answers.clear()
    call = begin(commit, 1)
    await file.stuck()
    closed = await commit.close()
    file.answers.set()

    assert (closed, await outcomes(call)) == (False, [OutcomeUnknown])
    assert await lane.close(1)


async def test_a_file_on_a_shared_lane_that_cannot_be_opened(patient, tmp_path):
    """Its error is raised, and the lane goes on."""
    lane = Lane("ksi-shared")
    (tmp_path / "bus.jsonl").mkdir()
    with pytest.raises(IoFailed, match="EISDIR"):
        await GroupCommit(HangingFile(tmp_path / "bus.jsonl"), patient, lane).open()

    assert await lane.run(lambda: 5) == 5
    assert await lane.close(1)
