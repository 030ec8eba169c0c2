"""Every change of flags and ceilings reaches the loop within a second, and no trouble with them does harm."""

import asyncio
import os
import threading
import time
from contextlib import asynccontextmanager

import pytest

from ksi_daemon import watch as watching
from ksi_daemon.flags import Flags, FlagsInvalid, Stage, read
from ksi_daemon.replace import replace_file
from ksi_daemon.stages import Ceiling, Ceilings, StagesInvalid, digest, save_ceilings
from ksi_daemon.watch import FlagsWatch
from tests.flagset import AREAS

SYNC = b"version: 1\ncomponents:\n" + b"".join(f"  {area.name}: sync\n".encode() for area in AREAS)
ASYNC = SYNC.replace(b"messaging: sync", b"messaging: async")
CEILINGS = Ceilings({"messaging": Ceiling(Stage.SYNC, "slow", "ops", "2025-07-12T10:00:00+00:00")})


@pytest.fixture
def place(tmp_path):
    """A root with flags.yaml and var/migrate."""
    (tmp_path / "flags.yaml").write_bytes(SYNC)
    (tmp_path / "var/migrate").mkdir(parents=True)
    return tmp_path


@pytest.fixture(params=[True, False], ids=["events", "poll"])
def events(request):
    """With file events, and with the poll alone."""
    return request.param


@asynccontextmanager
async def watched(place, **options):
    """A watch of that root, closed at the end."""
    watch = FlagsWatch(place / "flags.yaml", place / "var/migrate", areas=AREAS, **options)
    try:
        yield watch
    finally:
        await watch.close()


async def soon(watch):
    """The next reading, which must come within a second."""
    return await asyncio.wait_for(anext(watch), 1)


async def until(watch, wanted):
    """The first reading with these flags bytes, within a second."""
    async with asyncio.timeout(1):
        async for seen in watch:
            if seen.flags_bytes == wanted:
                return seen
    raise AssertionError


async def test_first_reading_comes_at_once(place, events):
    """The first reading is what the files hold, parsed, with the digest of both."""
    async with watched(place, events=events) as watch:
        seen = await soon(watch)

    assert seen.flags_bytes == SYNC
    assert isinstance(seen.flags, Flags)
    assert (b"", Ceilings()) == (seen.ceilings_bytes, seen.ceilings)
    assert digest(SYNC, b"") == seen.digest


async def test_changes_of_either_file(place, events):
    """Replaced flags and new ceilings are each delivered within a second, with or without file events."""
    async with watched(place, events=events) as watch:
        await soon(watch)
        replace_file(place / "flags.yaml", ASYNC)
        flags = await soon(watch)
        save_ceilings(place / "var/migrate", CEILINGS)
        ceilings = await soon(watch)

    assert flags.flags.components["messaging"] == Stage.ASYNC
    assert (Ceilings(), CEILINGS) == (flags.ceilings, ceilings.ceilings)
    assert digest(ASYNC, (place / "var/migrate/ceilings.json").read_bytes()) == ceilings.digest


async def test_events_are_faster_than_the_poll(place):
    """With the poll at a minute, file events alone deliver a change of either directory."""
    async with watched(place, events=True, poll=60) as watch:
        await soon(watch)
        # The listener may start after the first change, so keep changing until it has heard one.
        writer = asyncio.create_task(_alternate(place / "flags.yaml", [ASYNC, SYNC], 0.2))
        flags = await asyncio.wait_for(anext(watch), 10)
        writer.cancel()
        save_ceilings(place / "var/migrate", CEILINGS)
        async with asyncio.timeout(5):
            async for seen in watch:
                if seen.ceilings_bytes:
                    break

    assert flags.flags_bytes in (ASYNC, SYNC)
    assert seen.ceilings == CEILINGS


async def _alternate(path, contents, pause):
    while True:
        for data in contents:
            replace_file(path, data)
            await asyncio.sleep(pause)


async def test_edit_with_the_same_size_and_time(place, events):
    """An edit in place that keeps size and modification time is noticed, since contents are compared."""
    path = place / "flags.yaml"
    other = SYNC.replace(b"version: 1\n", b"version: 2\n")
    found = path.stat()
    async with watched(place, events=events) as watch:
        await soon(watch)
        path.write_bytes(other)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
        seen = await until(watch, other)

    assert isinstance(seen.flags, FlagsInvalid)
    assert "version must be the number 1" in seen.flags.reason


async def test_trouble_and_recovery(place, events):
    """Deleted, a directory, a FIFO, invalid and back again: each is delivered, and the watch goes on."""
    path = place / "flags.yaml"
    reasons = []
    async with watched(place, events=events) as watch:
        await soon(watch)
        path.unlink()
        reasons.append((await soon(watch)).flags.reason)
        path.mkdir()
        reasons.append((await soon(watch)).flags.reason)
        path.rmdir()
        os.mkfifo(path)
        reasons.append((await _other_than(watch, "is missing; put it back")).flags.reason)
        replace_file(path, b"version: [")
        reasons.append((await soon(watch)).flags.reason)
        replace_file(path, SYNC)
        back = await soon(watch)

    assert [
        reason[: len(start)]
        for reason, start in zip(
            reasons, ["is missing", "is a directory", "is a FIFO", "lists are not"], strict=True
        )
    ] == ["is missing", "is a directory", "is a FIFO", "lists are not"]
    assert isinstance(back.flags, Flags)


async def _other_than(watch, reason):
    while (seen := await soon(watch)).flags.reason == reason:
        pass
    return seen


async def test_damaged_ceilings_are_delivered(place):
    """Damaged ceilings come as an error beside good flags."""
    (place / "var/migrate/ceilings.json").write_bytes(b"")
    async with watched(place, events=False) as watch:
        empty = await soon(watch)
        (place / "var/migrate/ceilings.json").unlink()
        (place / "var/migrate/ceilings.json").mkdir()
        directory = await soon(watch)

    assert isinstance(empty.flags, Flags)
    assert "is damaged" in empty.ceilings.reason
    assert isinstance(directory.ceilings, StagesInvalid)
    assert "is a directory" in directory.ceilings.reason


async def test_nudge_delivers_without_a_change(place):
    """A nudge reads at once and delivers also what did not change; a rewrite of the same bytes does not."""
    async with watched(place, events=False, poll=0.1) as watch:
        first = await soon(watch)
        replace_file(place / "flags.yaml", SYNC)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.5)
        watch.nudge()
        again = await soon(watch)

    assert first == again


@pytest.fixture
def readings(monkeypatch):
    """One entry for each reading of flags.yaml: the name of the thread that did it."""
    names = []

    def spy(path):
        names.append(threading.current_thread().name)
        return read(path)

    monkeypatch.setattr(watching, "read", spy)
    return names


async def test_a_thousand_rewrites_a_second(place, events, readings):
    """A file rewritten 1,000 times a second is read ten times a second, and its last content arrives."""
    writer = Rewriter(place / "flags.yaml")
    async with watched(place, events=events) as watch:
        seen = await soon(watch)
        began = time.monotonic()
        writer.start()
        count = 0
        while seen.flags_bytes != writer.last:
            seen = await soon(watch)
            count += 1
        now = time.monotonic()
    writer.join()

    assert count > 3
    assert now - writer.ended < 1
    assert len(readings) <= 11 * (now - began) + 3


class Rewriter(threading.Thread):
    """Replaces a file 1,000 times a second for one second and a half, and then once more."""

    def __init__(self, path):
        super().__init__()
        self.last = SYNC + b"# last"
        self.ended = float("inf")
        self._path = path

    def run(self):
        """The rewriting."""
        began = time.monotonic()
        for number in range(1500):
            self._put(SYNC + b"# %d" % number)
            time.sleep(max(0.0, began + number / 1000 - time.monotonic()))
        self._put(self.last)
        self.ended = time.monotonic()

    def _put(self, data):
        new = self._path.with_name("new")
        new.write_bytes(data)
        new.rename(self._path)


async def test_a_storm_of_nudges(place, readings):
    """Nudged without end, as by a storm of SIGHUP, it reads ten times a second at most."""
    async with watched(place, events=False) as watch:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            watch.nudge()
            await soon(watch)

    assert 5 <= len(readings) <= 12


@pytest.fixture
def hung(monkeypatch):
    """Readings of flags.yaml hang until the event is set, as on a dead disk."""
    release, reads = threading.Event(), threading.Event()

    def hang(path):
        reads.set()
        release.wait()
        return path.read_bytes()

    monkeypatch.setattr(watching, "read", hang)
    yield release, reads
    release.set()


async def test_hung_reading_does_not_hang_close(place, hung):
    """Closing takes less than a second while a reading hangs, and ends the iteration that waits for it."""
    _, reads = hung
    watch = FlagsWatch(place / "flags.yaml", place / "var/migrate", areas=AREAS)
    waiting = asyncio.create_task(anext(watch))
    while not reads.is_set():
        await asyncio.sleep(0.01)

    began = time.monotonic()
    await watch.close()

    assert time.monotonic() - began < 1
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_hung_flags_do_not_hide_a_ceiling(place, hung, monkeypatch):
    """A flags.yaml that hangs is reported so, and a new ceiling arrives within a second all the same."""
    release, _ = hung
    monkeypatch.setattr(watching, "PATIENCE", 0.2)
    async with watched(place, events=False) as watch:
        stuck = await soon(watch)
        save_ceilings(place / "var/migrate", CEILINGS)
        capped = await soon(watch)
        release.set()
        well = await soon(watch)

    assert "has not answered" in stuck.flags.reason
    assert (stuck.flags, CEILINGS) == (capped.flags, capped.ceilings)
    assert isinstance(well.flags, Flags)


async def test_an_unexpected_error_is_raised(place, monkeypatch):
    """A fault of our own in a reading reaches whoever iterates."""

    def fault(path):
        raise ZeroDivisionError

    monkeypatch.setattr(watching, "read", fault)
    async with watched(place, events=False) as watch:
        with pytest.raises(ZeroDivisionError):
            await soon(watch)


async def test_close_ends_the_iteration(place):
    """After close, which may come twice, the iteration is over and no thread of the watch is left."""
    before = set(threading.enumerate())
    watch = FlagsWatch(place / "flags.yaml", place / "var/migrate", areas=AREAS)
    await soon(watch)
    waiting = asyncio.create_task(anext(watch))
    await asyncio.sleep(0)

    await watch.close()
    await watch.close()

    with pytest.raises(StopAsyncIteration):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    async with asyncio.timeout(10):  # on a busy machine the file events' thread outlives its half second
        while any(thread.name.startswith("ksi-watch") for thread in set(threading.enumerate()) - before):
            await asyncio.sleep(0.01)


async def test_events_that_cannot_be_had(place):
    """Where file events fail (here: no such directory), the poll goes on alone."""
    (place / "var/migrate").rmdir()
    async with watched(place, events=True) as watch:
        await soon(watch)
        replace_file(place / "flags.yaml", ASYNC)
        seen = await until(watch, ASYNC)

    assert isinstance(seen.flags, Flags)


async def test_files_are_read_off_the_loop(place, readings):
    """Files are read on the watch's own threads, never on the loop's."""
    async with watched(place, events=False) as watch:
        await soon(watch)

    assert readings == ["ksi-watch-flags"]
