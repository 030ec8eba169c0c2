"""Readers and writers at once: lists, searches and pages while others append, remove and change sides."""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import os
import random
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ksi_daemon.conversation import AREA
from ksi_daemon.conversation.aio import AsyncConversations
from ksi_daemon.conversation.contract import Progress
from ksi_daemon.flags import Stage
from ksi_daemon.settings import Settings
from ksi_daemon.site import Site
from ksi_daemon.switch import Switch
from tests.line_client import daemon, flags
from tests.talks import folder_of, lay, lines, said

pytestmark = pytest.mark.unmeasured
SESSIONS = 30


def churn(folder, seed, stop):
    """Another process: appends in pieces, removes, replaces and adds logs, until there is a file `stop`."""
    chance, numbers = random.Random(seed), itertools.count()
    Path(f"{stop}.{seed}").touch()
    while not os.path.exists(stop):
        time.sleep(0.001)
        path = os.path.join(folder, f"churn{chance.randrange(SESSIONS)}.jsonl")
        what = chance.random()
        if what < 0.7:
            data = lines(said("user", f"2025-07-12T10:00:00.{next(numbers) % 1_000_000:06d}Z", "needle " * 5))
            with open(path, "ab", buffering=0) as file:
                file.write(data[:40])
                file.write(data[40:])
        elif what < 0.8:
            with suppress(FileNotFoundError):
                os.unlink(path)
        else:
            with open(f"{path}.{seed}", "wb") as file:
                file.write(lines(said("claude", 1, "whole")))
            os.replace(f"{path}.{seed}", path)


@asynccontextmanager
async def churning(root, *seeds):
    """Other processes at work on the logs, from the beginning of the block until its end."""
    stop, context = root / "stop", multiprocessing.get_context("forkserver")
    others = [context.Process(target=churn, args=(str(folder_of(root)), seed, str(stop))) for seed in seeds]
    for other in others:
        other.start()
    try:
        while not all(Path(f"{stop}.{seed}").exists() for seed in seeds):
            await asyncio.sleep(0.01)
        yield
    finally:
        stop.touch()
        for other in others:
            other.join()


async def flip(root, until):
    """Change sides again and again."""
    for stage in itertools.cycle(("sync", "async")):
        if time.time() > until:
            return
        new = root / "flags.new"
        new.write_text(flags(conversation=stage))
        new.replace(root / "flags.yaml")
        await asyncio.sleep(0.15)


async def list_on(client, until, stable):
    """List again and again, twice at least; what nobody touches is there each time, whole."""
    seen = 0
    while time.time() < until or seen < 2:
        await client.ask("conversation:refresh")
        found = await client.ask("conversation:list", limit=1000)
        assert "error" not in found, found
        kept = {
            row["session_id"]: row["message_count"]
            for row in found["conversations"]
            if row["session_id"].startswith("kept")
        }
        assert kept == stable
        stats = await client.ask("conversation:stats")
        assert stats["total_conversations"] >= len(stable)
        seen += 1
    return seen


async def read_on(client, until):
    """Search, read and export meanwhile, until a search has found them twice at least."""
    seen = 0
    while time.time() < until or seen < 2:
        found = await client.ask("conversation:search", query="steady", limit=100)
        assert "error" not in found, found
        if found["results"]:
            assert {one["match_count"] for one in found["results"]} == {10}
            assert len(found["results"]) == SESSIONS
            seen += 1
        page = await client.ask("conversation:get", session_id="kept3", limit=5)
        assert page["total"] == 20
        exported = await client.ask("conversation:export", session_id="kept3", format="json")
        assert exported["message_count"] == 20
        gone = await client.ask("conversation:get", session_id="churn3", limit=5)
        assert gone.get("code") in (None, "not_found"), gone
    return seen


@pytest.mark.soak
@pytest.mark.timeout(180)
@pytest.mark.parametrize("flipping", [False, True])
async def test_readers_while_others_write(tmp_path, count, flipping):
    """No half list, no error, no lost file, whatever another process does; also while the sides change."""
    stable = {f"kept{number}": 20 for number in range(SESSIONS)}
    entries = [said("user", f"2025-07-12T10:00:00.{n:06d}Z", f"steady {n}") for n in range(20)]
    lay(tmp_path, **dict.fromkeys(stable, entries))
    async with churning(tmp_path, 1, 2), daemon(tmp_path, conversation="async") as bench:
        until = time.time() + count(2, 40)
        async with asyncio.TaskGroup() as group:
            listing = group.create_task(list_on(await bench.client(), until, stable))
            reading = group.create_task(read_on(await bench.client(), until))
            if flipping:
                group.create_task(flip(tmp_path, until))
    exports = [json.loads(path.read_bytes()) for path in (tmp_path / "var/state/exports").iterdir()]

    assert listing.result() > 1
    assert reading.result() > 1
    assert {one["total_messages"] for one in exports} == {20}


async def test_the_index_ends_as_the_logs_do(tmp_path):
    """After all the writing a refresh shows what the other side shows, which has no index."""
    async with daemon(tmp_path, conversation="async") as bench:
        client = await bench.client()
        async with churning(tmp_path, 7):
            for _ in range(20):
                await client.ask("conversation:refresh")
        await client.ask("conversation:refresh")
        found = await client.ask("conversation:list", limit=1000)
        (tmp_path / "flags.yaml").write_text(flags(conversation="sync"))
        while (await stage(client)) != "sync":
            await asyncio.sleep(0.02)
        await client.ask("conversation:refresh")
        again = await client.ask("conversation:list", limit=1000)

    assert found == again
    assert found["total"] > 1


async def stage(client):
    """The stage in force."""
    rows = (await client.ask("migration:status"))["components"]
    return next(row["effective"] for row in rows if row["name"] == "conversation")


async def test_a_flip_in_the_middle_of_a_refresh_ends_it_on_its_side(tmp_path):
    """New calls take the new side at once; the service's list survives the flip."""
    lay(tmp_path, **{f"s{number:02}": [said("user", 0, "x" * 400)] * 100 for number in range(40)})
    switch = Switch(AREA, Site("conversation", Settings(root=tmp_path)))
    await switch.open(Stage.ASYNC)
    slow = asyncio.create_task(switch.refresh(None))  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    await switch.flip(Stage.SYNC)
    quick = await switch.refresh(None)  # type: ignore[attr-defined]
    early = slow.done()
    found = await slow
    await switch.flip(Stage.ASYNC)
    again = await switch.refresh(None)  # type: ignore[attr-defined]
    await switch.close()

    assert not early
    assert found == quick == again
    assert len(found) == 40


async def test_a_long_scan_is_visible_in_the_status(tmp_path, monkeypatch):
    """`migration:status` has what a component is doing, in words."""
    lay(tmp_path, a=[said("user", 0, "x")])
    release = asyncio.Event()
    real = AsyncConversations._scan

    async def slow(side, told):
        side._progress = Progress(1200, 10_000)
        await release.wait()
        await real(side, told)

    monkeypatch.setattr(AsyncConversations, "_scan", slow)
    async with daemon(tmp_path, conversation="async") as bench:
        client, other = await bench.client(), await bench.client()
        client.send("conversation:list")
        while True:
            rows = (await other.ask("migration:status"))["components"]
            pending = {row["name"]: row["pending"] for row in rows}["conversation"]
            if pending is not None:
                break
        release.set()
        listed = await client.line()

    assert pending == "a scan of conversations, 1,200 of 10,000 files"
    assert listed["data"]["total"] == 1
