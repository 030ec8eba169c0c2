"""The async side's own: order, large files, what a worker keeps, what becomes of callers and workers."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import signal
import time
import zlib
from contextlib import contextmanager
from typing import Any

import pytest

from ksi_daemon import filetimes
from ksi_daemon.config import aio, cache, core, files, jobs, quick
from ksi_daemon.config.cache import Cache, _Entry
from ksi_daemon.config.turns import Turns
from ksi_daemon.errors import ComponentBusy, ComponentClosed, OutcomeUnknown, WorkerFailed
from ksi_daemon.lane import CancelledTooLate
from ksi_daemon.worker import Turn
from tests.configs import BACKED_UP, FILE, below, dumped, encoded, kept, made, opened, site_of, target
from tests.guard import loop_guard

ONLY_SMALL = False
"""What a worker is told that is not for large files."""


@pytest.fixture
def site(tmp_path):
    """A place with a file that holds `a: 1`."""
    (tmp_path / FILE).write_bytes(b"a: 1\n")
    return site_of(tmp_path)


@contextmanager
def held(root, what):
    """Hold a lock as another process would."""
    locks = root / "var/migrate/locks"
    locks.mkdir(parents=True, exist_ok=True)
    fd = os.open(locks / hashlib.sha256(os.fsencode(what)).hexdigest()[:32], os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def put(files, place, key, value, path=FILE):
    """Set a key."""
    return files.put(target(place, path), key, encoded(value), BACKED_UP, 0.0)


def noted(call, calls):
    """The call, which adds to `calls` each time."""

    def noting(*args):
        calls.append(args)
        return call(*args)

    return noting


async def until(condition):
    """Wait for it."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


def pid(files, at):
    """The process of a worker."""
    return files._workers._workers[at]._process._pid


def at_of(files, place, path=FILE):
    """The worker of a file."""
    key = f"{target(place, path).base}/{path}"
    return zlib.crc32(key.encode()) % (len(files._turns) - 1)


async def test_calls_of_a_file_keep_their_order(site, tmp_path):
    """A hundred at once, gets between sets: each sees what was called before it; the loop never blocks."""
    with loop_guard():
        async with opened("async", site) as files:
            calls = []
            for number in range(50):
                calls.append(put(files, site, "a", number))
                calls.append(files.get(target(site), "a"))
            found = await asyncio.gather(*calls)

    assert [one.value for one in found[1::2]] == [encoded(number) for number in range(50)]
    assert (tmp_path / FILE).read_bytes() == b"a: 49\n"


async def test_a_large_file_has_a_worker_of_its_own(site, tmp_path):
    """Found out at its first call, remembered for the next; the others go on meanwhile."""
    large = {f"key{number}": "x y" * 30 for number in range(3_500)}
    (tmp_path / "large.yaml").write_bytes(dumped(large))
    assert (tmp_path / "large.yaml").stat().st_size > jobs.LARGE
    async with opened("async", site) as files:
        path = target(site, "large.yaml")
        slow = asyncio.ensure_future(files.get(path, "key1"))
        await until(lambda: files._turns[-1].taken)
        assert (await files.get(target(site), "a")).value == b"1"
        assert files.pending() in {"1 of 3 configuration workers", None}
        assert (await slow).value == encoded("x y" * 30)
        assert list(files._large) == [f"{path.base}/large.yaml"]
        assert (await files.validate(path, None)).error == ""
        await put(files, site, "key1", "z", "large.yaml")
        assert (await files.get(path, "key1")).value == b'"z"'
        assert files.pending() is None
        await files.backup(path, "", 0.0)
        await files.rollback(path, "", 0.0)


async def test_only_so_many_large_files_are_remembered(site, monkeypatch):
    """The one found first is forgotten."""
    monkeypatch.setattr(aio, "MANY_LARGE", 2)
    files = made("async", site)
    for key in "abc":
        files._remember(key)

    assert list(files._large) == ["b", "c"]


async def test_a_closed_side_says_so(site):
    """Before it is opened and after its close."""
    files = made("async", site)
    with pytest.raises(ComponentClosed):
        await files.get(target(site), "a")
    await files.open()
    await files.get(target(site), "a")
    await files.close()
    with pytest.raises(ComponentClosed):
        await files.get(target(site), "a")


async def test_a_cancelled_set_is_finished(site, tmp_path):
    """Once it has begun; its caller gets the outcome with the cancel. A get is given up at once."""
    async with opened("async", site) as files:
        await files.get(target(site), "a")
        with held(tmp_path, str(tmp_path / FILE)):
            task = asyncio.ensure_future(put(files, site, "a", 2))
            await until(lambda: files._turns[at_of(files, site)].taken)
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.sleep(0.02)
            assert not task.done()
        with pytest.raises(CancelledTooLate) as late:
            await task
        assert late.value.error is None
        assert (tmp_path / FILE).read_bytes() == b"a: 2\n"
        assert (await files.get(target(site), "a")).value == b"2"


async def test_a_set_cancelled_before_its_turn_is_none(site, tmp_path):
    """It leaves the queue, and those behind it go on."""
    async with opened("async", site) as files:
        with held(tmp_path, str(tmp_path / FILE)):
            first = asyncio.ensure_future(put(files, site, "a", 2))
            await until(lambda: files._turns[at_of(files, site)].taken)
            second = asyncio.ensure_future(put(files, site, "b", 3))
            third = asyncio.ensure_future(put(files, site, "c", 4))
            await asyncio.sleep(0.01)
            second.cancel()
        await asyncio.gather(first, third)
        with pytest.raises(asyncio.CancelledError):
            await second

    assert (tmp_path / FILE).read_bytes() == b"a: 2\nc: 4\n"


async def test_a_lock_that_another_process_keeps(tmp_path):
    """`component_busy` after KSI_CALL_TIMEOUT, on a get never; nothing is changed."""
    (tmp_path / FILE).write_bytes(b"a: 1\n")
    place = site_of(tmp_path, call_timeout=1.0)
    async with opened("async", place) as files:
        await files.get(target(place), "a")
        with held(tmp_path, str(tmp_path / FILE)):
            with pytest.raises(ComponentBusy):
                await put(files, place, "a", 2)
            assert (await files.get(target(place), "a")).value == b"1"
        await put(files, place, "a", 3)

    assert (tmp_path / FILE).read_bytes() == b"a: 3\n"


async def test_a_worker_killed_before_it_changes_anything(site, tmp_path):
    """The set fails and the file stands; the next one finds another worker and no lock."""
    async with opened("async", site) as files:
        await files.get(target(site), "a")
        before = below(tmp_path)
        with held(tmp_path, str(tmp_path / FILE)):
            task = asyncio.ensure_future(put(files, site, "a", 2))
            await until(lambda: files._turns[at_of(files, site)].taken)
            await asyncio.sleep(0.05)
            os.kill(pid(files, at_of(files, site)), signal.SIGKILL)
            with pytest.raises(WorkerFailed):
                await task
        assert below(tmp_path) == before
        await put(files, site, "a", 3)

    assert (tmp_path / FILE).read_bytes() == b"a: 3\n"


async def test_a_worker_killed_while_it_writes(site, tmp_path):
    """`outcome_unknown`; the file is the old one or the new, and what was left is removed by the next set."""
    async with opened("async", site) as files:
        await files.get(target(site), "a")
        with held(tmp_path, "backups"):
            task = asyncio.ensure_future(put(files, site, "a", 2))
            await until(lambda: any(name.startswith(".config.") for name in below(tmp_path)))
            await asyncio.sleep(0.1)
            os.kill(pid(files, at_of(files, site)), signal.SIGKILL)
            with pytest.raises(OutcomeUnknown):
                await task
        assert (tmp_path / FILE).read_bytes() == b"a: 1\n"
        await put(files, site, "a", 3)

    assert list(kept(tmp_path).values()) == [b"a: 1\n"]
    assert [name for name in below(tmp_path) if "/." in f"/{name}"] == []


async def test_a_change_from_outside_is_noticed(site, tmp_path):
    """Another content, another file in its place, the same size and time: a get is what is on the disk."""
    async with opened("async", site) as files:
        path = tmp_path / FILE
        for number in range(30):
            path.write_bytes(b"a: %d\n" % (number % 10))
            assert (await files.get(target(site), "a")).value == b"%d" % (number % 10)
        other = tmp_path / "other"
        other.write_bytes(b"a: x\n")
        times = path.stat()
        os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
        os.rename(other, path)
        assert (await files.get(target(site), "a")).value == b'"x"'
        path.unlink()
        with pytest.raises(Exception, match="does not exist"):
            await files.get(target(site), "a")


def test_what_is_unchanged_is_not_read_again(site, tmp_path, monkeypatch):
    """Once the file has been still for a moment; before, its content decides."""
    parsed, read = list[Any](), list[Any]()
    monkeypatch.setattr(quick, "parse", noted(quick.parse, parsed))
    monkeypatch.setattr(files, "read", noted(files.read, read))
    monkeypatch.setattr(jobs, "_CACHE", Cache())
    place = core.place(site)

    def get(key="a"):
        found: Any = jobs.get(Turn(), place, ONLY_SMALL, target(site), key)
        return found.value

    changed = (tmp_path / FILE).stat().st_ctime_ns
    monkeypatch.setattr(time, "time_ns", lambda: changed + filetimes.TICK_NS)
    assert (get(), get(), len(parsed), len(read)) == (b"1", b"1", 1, 2)
    monkeypatch.setattr(time, "time_ns", lambda: changed + 10**10)
    assert [get() for _ in range(5)] == [b"1"] * 5
    assert (len(parsed), len(read)) == (1, 3)
    os.utime(tmp_path / FILE)
    assert (get(), len(parsed), len(read)) == (b"1", 1, 4)
    jobs.put(Turn(), place, ONLY_SMALL, target(site), "a", b"2", BACKED_UP, 0.0)
    assert (get(), len(parsed)) == (b"2", 1)
    jobs.put(Turn(), place, ONLY_SMALL, target(site), "a", encoded("é"), BACKED_UP, 0.0)
    assert (get(), len(parsed)) == (encoded("é"), 2)
    with pytest.raises(Exception, match="Cannot set"):
        jobs.put(Turn(), place, ONLY_SMALL, target(site), "a.b", b"2", BACKED_UP, 0.0)
    assert (get(), len(parsed)) == (encoded("é"), 3)


def test_the_cache_is_bounded(monkeypatch):
    """By number and by size; what was not used for longest goes, and what is too large is not kept."""
    monkeypatch.setattr(cache, "MOST", 3)
    monkeypatch.setattr(cache, "MOST_BYTES", 100)
    kept_ones = Cache()

    def keep(name, size=10):
        kept_ones.keep((name, "yaml"), _Entry(None, finite=True, digest=b"", size=size, version=None))

    for name in "abc":
        keep(name)
    kept_ones.get(("a", "yaml"))
    keep("d")
    assert [key[0] for key in kept_ones._entries] == ["c", "a", "d"]
    keep("e", 90)
    assert [key[0] for key in kept_ones._entries] == ["d", "e"]
    keep("f", 101)
    assert [key[0] for key in kept_ones._entries] == ["d", "e"]


async def test_nobody_is_refused_while_turns_end():
    """However long the queue: patience is for a worker that does not get on."""
    turns = Turns("config", 0.15)

    async def one():
        await turns.take()
        await asyncio.sleep(0.03)
        turns.give(moved=True)

    await asyncio.gather(*(one() for _ in range(12)))
    assert not turns.taken


async def test_all_are_refused_when_no_turn_ends():
    """After `patience_s`, and the queue is empty then."""
    turns = Turns("config", 0.05)
    await turns.take()
    found = await asyncio.gather(*(turns.take() for _ in range(3)), return_exceptions=True)

    assert [type(one) for one in found] == [ComponentBusy] * 3
    turns.give(moved=False)
    assert not turns.taken


async def test_a_turn_given_to_one_who_has_just_gone():
    """Goes to the next."""
    turns = Turns("config", 1.0)
    await turns.take()
    first, second = asyncio.ensure_future(turns.take()), asyncio.ensure_future(turns.take())
    await asyncio.sleep(0)
    turns.give(moved=True)
    first.cancel()
    await second

    assert first.cancelled()
    assert turns.taken
