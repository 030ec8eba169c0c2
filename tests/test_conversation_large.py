"""Large histories: memory is bounded and the daemon answers, whatever lies in the directory."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import pytest

from ksi_daemon.conversation import pages
from ksi_daemon.conversation.aio import AsyncConversations
from ksi_daemon.conversation.contract import Progress
from ksi_daemon.conversation.core import Wanted, Which
from ksi_daemon.settings import Settings
from ksi_daemon.site import Site
from ksi_daemon.worker import Turn
from tests.conftest import soaking
from tests.daemon import running, write_flags
from tests.rooms import SIDES
from tests.talks import folder_of, lay, lines, said, talks

MIB = 1024 * 1024
MEMORY = 24 * MIB
"""Bytes that a worker may have grown by, at its peak, beyond what the answer itself needs."""

LINE = 48 * MIB
"""The same where a line is as long as one may be, or longer: 16 MiB of it are held, in two forms."""

ANSWERS_MS = 15.0
"""What the user's analysis gives the daemon for an answer, whatever else it does."""


def peak(pid):
    """The most memory that a process ever had."""
    with open(f"/proc/{pid}/status") as file:
        row = next(line for line in file if line.startswith("VmHWM:"))
    return int(row.split()[1]) * 1024


@pytest.fixture
async def side(tmp_path):
    """The async side alone; a million lines take a while on a busy machine."""
    made = AsyncConversations(Site("conversation", Settings(root=tmp_path, call_timeout=60.0)))
    await made.open()
    yield made
    await made.close()


def pids(side):
    """Its workers."""
    return [link._process._pid for link in side._workers._workers]


async def beats(stop):
    """The longest time in milliseconds for which the loop ran nothing else."""
    longest, loop = 0.0, asyncio.get_running_loop()
    while not stop.is_set():
        before = loop.time()
        await asyncio.sleep(0.001)
        longest = max(longest, loop.time() - before)
    return longest * 1000


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_a_million_lines(side, tmp_path, count):
    """They are counted, searched and paged, in memory that does not grow with them, stamps apart."""
    many = count(40_000, 1_000_000)
    folder = lay(tmp_path, short=[said("user", 0, "one")])
    wanted = Wanted("nowhere", content=True, sender=True, limit=5)
    await side.search(await side.refresh(None), wanted)
    await side.read(Which("short", 0, 10, None, 1 << 20))
    while not all(pids(side)):  # one may still be starting
        await asyncio.sleep(0.01)
    before = [peak(pid) for pid in pids(side)]
    lay_many(folder / "long.jsonl", many)
    stop = asyncio.Event()
    beating = asyncio.create_task(beats(stop))
    row, _ = await side.refresh(None)
    found = await side.search([row], wanted)
    page = await side.read(Which("long", 500, 10, None, 1 << 20))
    stop.set()
    grown = [peak(pid) - was for pid, was in zip(pids(side), before, strict=True)]

    assert (row.messages, found) == (many, ())
    assert page is not None
    assert page.total == 1000
    assert max(grown) < MEMORY + many * 150 < (folder / "long.jsonl").stat().st_size
    assert await beating < 500  # other tests run beside this one; a daemon is asked below


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SIDES)
async def test_a_line_that_is_too_long(name, tmp_path, count):
    """It costs only itself, and not its length in memory: one of 1 GB lies in a sparse file."""
    size = count(64, 1024) * 1024 * 1024
    folder = lay(tmp_path, huge=[said("user", 0, "needle before")])
    path = folder / "huge.jsonl"
    with path.open("ab") as file:
        file.truncate(size)
        file.seek(size)
        file.write(b"\n" + lines(said("user", 1, "needle after")))
    async with talks(name, tmp_path) as room:
        workers = pids(room.backend) if name == "async" else [os.getpid()]
        before = {pid: peak(pid) for pid in workers if pid}
        row = (await room.ask("list"))["conversations"][0]
        stats = await room.ask("stats")
        found = await room.ask("search", query="needle")
        got = await room.ask("get", session_id="huge")
        if name == "async":
            assert all(peak(pid) - before.get(pid, 0) < LINE < size for pid in pids(room.backend))

    assert (row["message_count"], row["size_bytes"], stats["skipped_lines"]) == (2, path.stat().st_size, 1)
    assert [one["line_num"] for one in found["results"][0]["matches"]] == [0, 2]
    assert [one["content"] for one in got["messages"]] == ["needle before", "needle after"]


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_ten_thousand_conversations(side, tmp_path, count):
    """All are listed; the second look reads nothing, and a page of them is no stall."""
    many = count(1000, 10_000)
    folder = folder_of(tmp_path)
    data = lines(*[said("user", n, "x" * 100) for n in range(20)])
    for number in range(many):
        (folder / f"s{number:05}.jsonl").write_bytes(data)
    await asyncio.sleep(0.1)
    words = list[Progress]()
    rows = await side.refresh(words.append)
    began = time.perf_counter()
    again = await side.refresh(words.append)

    assert len(rows) == many
    assert again is rows
    assert (words[-1].total, words[-1].read) == (many, 0)
    assert time.perf_counter() - began < (10 if soaking() else 5)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_daemon_answers_meanwhile(tmp_path, count):
    """Pings beside refreshes, searches, pages and exports of all of that; on its own within 15 ms.

    The gate, with other tests beside this one, asks that of half of them.
    """
    root = tmp_path / "root"
    root.mkdir()
    write_flags(root, conversation="async")
    folder = lay(root, **{f"s{n:05}": [said("user", n, "x" * 100)] * 20 for n in range(count(500, 10_000))})
    lay_many(folder / "long.jsonl", count(20_000, 1_000_000))
    with (folder / "huge.jsonl").open("wb") as file:
        file.truncate(count(64, 1024) * MIB)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + lines(said("user", 1, "after")))
    requests: tuple[tuple[str, dict[str, Any]], ...] = (
        ("conversation:refresh", {}),
        ("conversation:list", {"limit": 1000}),
        ("conversation:search", {"query": "nowhere"}),
        ("conversation:get", {"session_id": "long", "limit": 100, "offset": 500}),
        ("conversation:export", {"session_id": "long"}),
        ("conversation:stats", {}),
    )
    with running(root) as daemon:
        stop, waited = threading.Event(), list[float]()
        pinging = threading.Thread(target=ping, args=(daemon, stop, waited))
        pinging.start()
        try:
            with daemon.wire(timeout=300) as wire:
                replies = [wire.ask(event, **data) for event, data in requests]
        finally:
            stop.set()
            pinging.join()
        assert daemon.stop() == 0

    waited.sort()
    p50, p99, most = (waited[min(len(waited) - 1, len(waited) * at // 100)] for at in (50, 99, 100))
    print(f"{len(waited)} pings: p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most {most:.1f} ms")  # noqa: T201 - the result of `make soak`
    assert [reply for reply in replies if "error" in reply] == []
    assert replies[0]["skipped_lines"] == 1
    assert (p99 if soaking() else p50) < ANSWERS_MS


def ping(daemon, stop, waited):
    """Ask whether the daemon is well, 200 times a second; the milliseconds of each answer."""
    with daemon.wire() as wire:
        while not stop.is_set():
            began = time.perf_counter()
            wire.ask("system:health")
            waited.append(1e3 * (time.perf_counter() - began))
            time.sleep(0.005)


def lay_many(path, many):
    """A log of so many lines of 1 kB."""
    block = lines(*[said("user", f"2025-07-12T10:00:00.{n:06d}Z", "x" * 1000) for n in range(1000)])
    with path.open("wb") as file:
        for _ in range(many // 1000):
            file.write(block)


@pytest.mark.parametrize("order", ["in order", "backwards"])
async def test_pages_of_a_log_in_any_order(side, tmp_path, order):
    """A log whose stamps are in disorder is read twice, and gives the same page."""
    entries = [said("user", f"2025-07-12T10:00:00.{n // 2:06d}Z", f"m{n}") for n in range(2000)]
    lay(tmp_path, log=(entries if order == "in order" else entries[::-1]) + entries[:10])
    page = await side.read(Which("log", 100, 4, None, 1 << 20))
    few = await side.read(Which("log", 0, 10_000, None, 1 << 20))

    assert page is not None
    assert few is not None
    assert page.total == few.total == 2000
    assert page.messages.count(b"timestamp") == 4


async def test_a_log_that_changes_while_it_is_paged(tmp_path, monkeypatch):
    """Lines that are gone at the second look are left out."""
    entries = [said("user", f"2025-07-12T10:00:{59 - n:02d}Z", f"m{n}") for n in range(40)]
    folder = lay(tmp_path, log=entries)
    real = pages._ordered

    def ordered(log):
        os.truncate(folder / "log.jsonl", 1000)
        return real(log)

    with monkeypatch.context() as patched:
        patched.setattr(pages._Log, "messages", kept_messages)
        patched.setattr(pages, "_ordered", ordered)
        page = pages.page(Turn(), str(folder), Which("log", 0, 100, None, 1 << 20))

    assert page is not None
    assert 0 < page.total < 40


def kept_messages(log):
    """What stood in the log before it was cut."""
    if log not in _KEPT:
        _KEPT[log] = list(_messages(log))
    return iter(_KEPT[log])


_KEPT: dict = {}
_messages = pages._Log.messages
