"""One refresh for all who wait: its progress, its start by itself, and what comes of it when workers die."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from typing import Any

import pytest
from structlog.testing import capture_logs

from ksi_daemon.conversation import aio
from ksi_daemon.conversation.aio import AsyncConversations
from ksi_daemon.conversation.contract import Progress
from ksi_daemon.conversation.core import Wanted
from ksi_daemon.conversation.scan import Part
from ksi_daemon.errors import IoFailed, WorkerFailed
from ksi_daemon.settings import Settings
from ksi_daemon.site import Site
from tests.guard import loop_guard
from tests.rooms import SIDES, Peer
from tests.talks import lay, said, talks

SETTLED = 0.06
"""Seconds after which a log's time says that it has not changed."""


@pytest.fixture(params=SIDES)
async def room(request, tmp_path):
    """The room with three conversations."""
    lay(tmp_path, **{name: [said("user", 0, name)] for name in "abc"})
    async with talks(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def side(tmp_path):
    """The async side alone, with forty conversations of some length, so that its work has parts."""
    lay(tmp_path, **{f"s{number:02}": [said("user", 0, "x" * 400)] * 100 for number in range(40)})
    await asyncio.sleep(SETTLED)
    made = AsyncConversations(Site("conversation", Settings(root=tmp_path, stop_timeout=2.0)))
    with loop_guard():
        await made.open()
        yield made
        await made.close()


async def test_a_refresh_tells_what_it_did(room):
    """Files in all, read, as they were, gone; damaged lines; how long it took."""
    first = await room.ask("refresh")
    folder = lay(room.root, a=[said("user", 0, "changed"), b"broken"])
    (folder / "b.jsonl").unlink()
    second = await room.ask("refresh")

    assert first["status"] == "refreshed"
    assert first["files"] == {"total": 3, "read": 3, "unchanged": 0, "removed": 0}
    assert second["files"]["total"] == 2
    assert (first["skipped_lines"], second["skipped_lines"]) == (0, 1)
    assert second["duration_s"] >= 0
    assert await room.sessions() == ["a", "c"]


async def test_only_who_asks_for_frames_gets_them(room):
    """The last one says that all is done."""
    watching, other = Peer(), Peer()
    await asyncio.gather(room.ask("refresh", watching, stream=True), room.ask("refresh", other))

    assert other.frames == []
    assert watching.frames[-1] == {
        "event": "conversation:progress",
        "data": {"done": 3, "total": 3, "read": 3, "removed": 0},
    }


async def test_all_wait_for_the_same_refresh(room):
    """Ten listings at once look at the files once, and a cancelled one takes nothing from the others."""
    calls = 0
    real = room.service._visible._store.refresh

    class Store:
        async def refresh(self, told):
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.01)
            return await real(told)

    room.service._visible._store = Store()
    asked = [asyncio.create_task(room.ask("list")) for _ in range(10)]
    await asyncio.sleep(0)
    asked[0].cancel()
    found = await asyncio.gather(*asked[1:])

    assert (calls, {one["total"] for one in found}) == (1, {3})
    assert asked[0].cancelled()


async def test_a_refresh_by_hand_waits_for_one_that_nobody_watches(room):
    """It begins after it, so that it sees everything that was there when it was asked for."""
    listing = asyncio.create_task(room.ask("list"))
    await asyncio.sleep(0)
    found = await room.ask("refresh")
    await listing

    assert found["files"]["total"] == 3


async def test_a_failed_refresh_fails_all_who_wait(room):
    """And the next one tries again."""
    folder = room.root / "var/logs/responses"
    folder.rename(folder.with_name("aside"))
    folder.write_bytes(b"")
    failed = await asyncio.gather(room.ask("list"), room.ask("stats"), room.ask("refresh"))
    folder.unlink()
    folder.with_name("aside").rename(folder)

    assert {one["code"] for one in failed} == {"io_error"}
    assert failed[2]["error"].startswith("Failed to refresh conversations: ")
    assert (await room.ask("list"))["total"] == 3


async def test_a_stop_ends_a_refresh(tmp_path):
    """Nothing of it goes on."""
    lay(tmp_path, a=[said("user", 0, "x")])
    async with talks("async", tmp_path) as room:
        listing = asyncio.create_task(room.ask("list"))
        await asyncio.sleep(0)
        await room.service.stop()
        with pytest.raises(asyncio.CancelledError):
            await listing


async def test_a_setting_refreshes_at_the_start_and_on_a_period(tmp_path, monkeypatch):
    """Without anybody asking, so a search finds something; an error is logged and the next one tried."""
    lay(tmp_path, a=[said("user", 0, "needle")])
    monkeypatch.setenv("KSI_CONVERSATION_REFRESH_S", "0.05")
    async with talks("async", tmp_path) as room:
        while not (await room.ask("search", query="needle"))["results"]:
            await asyncio.sleep(0.01)
        folder = tmp_path / "var/logs/responses"
        folder.rename(folder.with_name("aside"))
        folder.write_bytes(b"")
        with capture_logs() as logs:
            while not any("not refreshed" in entry["event"] for entry in logs):
                await asyncio.sleep(0.01)
        folder.unlink()
        folder.with_name("aside").rename(folder)
        lay(tmp_path, b=[said("user", 0, "needle")])
        while len((await room.ask("search", query="needle"))["results"]) < 2:
            await asyncio.sleep(0.01)


# the async side


async def test_progress_is_told_and_shown(side):
    """By parts, up to all; `pending` has it in words meanwhile."""
    words, shown = list[Progress](), set()

    def told(progress):
        words.append(progress)
        shown.add(side.pending())

    rows = await side.refresh(told)

    assert len(rows) == 40
    assert words[-1] == Progress(40, 40, 40)
    assert len(words) >= 4
    assert [one.done for one in words] == sorted(one.done for one in words)
    assert any(told.startswith("a scan of conversations, 0 of ") for told in shown)
    assert side.pending() is None


async def test_nothing_changed_gives_the_same_object(side):
    """So that nothing has to be made anew; one line more gives another."""
    rows = await side.refresh(None)
    again = await side.refresh(None)
    folder = side._folder
    with open(f"{folder}/s07.jsonl", "ab") as file:
        file.write(b'{"timestamp": "2025-07-13"}\n')
    more = await side.refresh(None)

    assert again is rows
    assert [one.session for one in more] == [one.session for one in rows]
    assert [(one.session, one.messages) for one in more if one not in rows] == [("s07", 101)]


@pytest.mark.parametrize("job", ["refresh", "read", "settle"])
async def test_a_worker_that_dies_costs_only_time(side, job, monkeypatch):
    """Whichever part of the work it was at: another takes its place, and the listing is whole."""
    await side.refresh(None)
    real, killed = side._workers.run, list[str]()

    async def run(name, *args, **options):
        if name == job and not killed:
            killed.append(name)
            for link in side._workers._workers:
                link.kill()
        return await real(name, *args, **options)

    monkeypatch.setattr(side._workers, "run", run)
    for number in range(40):
        with open(f"{side._folder}/s{number:02}.jsonl", "ab") as file:
            file.write(b'{"timestamp": "2025-07-13"}\n' * 3000)
    rows = await side.refresh(None)

    again = await side.refresh(None)

    assert killed
    assert {one.messages for one in rows} == {3100}
    assert again == rows


async def test_a_worker_that_dies_again_and_again_is_told(side, monkeypatch):
    """After a few tries the request fails, and says why."""
    await side.refresh(None)

    async def run(_name, *_args, **_options):
        raise WorkerFailed("conversation", "died")

    with monkeypatch.context() as patched:
        patched.setattr(side._workers, "run", run)
        with pytest.raises(WorkerFailed):
            await side.refresh(None)


async def test_files_that_cannot_be_read_are_left_out_and_told(side, monkeypatch):
    """In the log, with their number; the others are there."""
    real = side._workers.run

    async def run(name, *args, **options):
        result = await real(name, *args, **options)
        return result._replace(failed=1, missing=("s00",)) if name == "read" else result

    monkeypatch.setattr(side._workers, "run", run)
    with capture_logs() as logs:
        rows = await side.refresh(None)

    assert len(rows) == 40
    assert [entry["count"] for entry in logs if "could not be read" in entry["event"]]


async def test_the_index_is_taken_up_by_the_next_start(side):
    """What was read is not read again, and yet nothing is shown before a refresh."""
    rows = await side.refresh(None)
    await side.close()
    await side.open()
    words = list[Progress]()
    again = await side.refresh(words.append)

    assert again == rows
    assert words[-1] == Progress(40, 40, 0)


async def test_the_index_is_written_now_and_then(side, monkeypatch):
    """Not for every change; the last one is there after a close."""
    await side.refresh(None)
    while side._tasks:
        await asyncio.wait(side._tasks)
    for number in range(3):
        with open(f"{side._folder}/s0{number}.jsonl", "ab") as file:
            file.write(b'{"timestamp": "2025-07-13"}\n')
        await asyncio.sleep(SETTLED)
        await side.refresh(None)
        await side._taken_in()
        assert side._unsaved
    await side.close()
    await side.open()
    words = list[Progress]()
    await side.refresh(words.append)

    assert words[-1].read <= 1
    monkeypatch.setattr(aio, "SAVED_S", -1.0)
    with open(f"{side._folder}/s00.jsonl", "ab") as file:
        file.write(b'{"timestamp": "2025-07-13"}\n')
    await side.refresh(None)
    await side._taken_in()
    assert not side._unsaved


async def test_a_cache_that_cannot_be_written_costs_nothing(side, tmp_path):
    """It is told in the log."""
    (tmp_path / "var/cache").write_bytes(b"")
    with capture_logs() as logs:
        rows = await side.refresh(None)
        while side._tasks:
            await asyncio.wait(side._tasks)

    assert len(rows) == 40
    assert [entry["job"] for entry in logs if entry["event"] == "done without"] == ["keep"]


async def test_a_close_does_not_wait_for_ever(side, monkeypatch):
    """A worker that hangs is given up."""
    await side.refresh(None)
    for link in side._workers._workers:
        os.kill(link._process._pid, signal.SIGSTOP)
    side._unsaved = True
    monkeypatch.setattr(side._site, "settings", Settings(root=side._site.settings.root, stop_timeout=0.2))
    async with asyncio.timeout(10):
        await side.close()


async def test_errors_of_the_disk_become_ours(side):
    """A directory that is none: refresh, search, read, export and active all say so."""
    rows = await side.refresh(None)
    folder = side._folder
    os.rename(folder, f"{folder}.aside")
    with open(folder, "wb"):
        pass
    for call in (
        side.refresh(None),
        side.search(rows, Wanted("x", content=True, sender=False, limit=1)),
        side.active(1, 0.0),
    ):
        with pytest.raises(IoFailed, match="ENOTDIR"):
            await call


async def test_a_word_after_the_end_of_a_scan_is_for_nobody(side, monkeypatch):
    """A worker that has not heard yet that the scan was given up begins no work."""
    await side.refresh(None)
    words: list[Any] = []

    async def run(_name: str, *_args: Any, told: Any = None, **_options: Any) -> None:
        if told is not None:
            words.append(told)
        raise OSError(errno.EIO, "made up")

    with monkeypatch.context() as patch:
        patch.setattr(side._workers, "run", run)
        with pytest.raises(IoFailed, match="made up"):
            await side.refresh(None)
        before = asyncio.all_tasks()
        words[0](Part(1, b""))
        words[0]([("one",)])
        assert asyncio.all_tasks() == before
