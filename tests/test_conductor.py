"""The conductor: what stages a daemon begins with, what it follows, refuses, records and tells."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ksi_daemon import settings, stages
from ksi_daemon.conductor import Conductor
from ksi_daemon.flags import Stage
from ksi_daemon.messaging import aio
from ksi_daemon.recorder import JOURNAL
from ksi_daemon.registry import BUILT
from ksi_daemon.site import Site
from ksi_daemon.stages import Ceiling, Ceilings, InForce, State
from ksi_daemon.switch import Switch
from ksi_daemon.watch import FlagsWatch
from tests.daemon import lines_of, running, write_flags
from tests.faults import HangingFile
from tests.rooms import Peer

SYNC, ASYNC = Stage.SYNC, Stage.ASYNC
AT = "2025-07-12T10:00:00Z"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root with the project's flags.yaml (all sync), and limits that a test can wait for."""
    monkeypatch.setenv("KSI_DRAIN_TIMEOUT", "0.2")
    monkeypatch.setenv("KSI_CALL_TIMEOUT", "5")
    write_flags(tmp_path)
    return tmp_path


class Conducted:
    """A conductor with its switches and sites, and the questions that clients ask it."""

    def __init__(self, root):
        self.root = root
        self.settings = settings.load(root)
        self.sites = {area.name: Site(area.name, self.settings) for area in BUILT}
        self.switches: dict[str, Any] = {area.name: Switch(area, self.sites[area.name]) for area in BUILT}
        self.watch = FlagsWatch(self.settings.flags_path, self.settings.migrate_dir)
        self.conductor = Conductor(self.switches, self.sites, self.watch, self.settings)

    async def ask(self, event, client=None):
        """What the event's handler answers."""
        handlers = {found.name: found.handler for found in self.conductor.events()}
        return await handlers[f"migration:{event}"]({}, client)

    async def status(self):
        """The whole status, which must be JSON."""
        return json.loads(json.dumps(await self.ask("status")))

    async def component(self, name="messaging"):
        """One component's row."""
        return next(row for row in (await self.status())["components"] if row["name"] == name)

    async def until(self, name="messaging", limit=1.0, **wanted):
        """The component's row as soon as it has these values, and all is recorded; within a second."""
        async with asyncio.timeout(limit):
            while True:
                row = await self.component(name)
                if row.items() >= wanted.items() and (await self.status())["settled"]:
                    return row
                await asyncio.sleep(0.005)

    def state(self):
        """What is acknowledged on disk."""
        return stages.load_state(self.settings.migrate_dir)

    def journal(self):
        """The journal's entries."""
        return lines_of(self.settings.migrate_dir / JOURNAL)


@asynccontextmanager
async def conducted(root):
    """A started conductor, stopped at the end with its switches."""
    made = Conducted(root)
    await made.conductor.start()
    try:
        yield made
    finally:
        await made.conductor.stop()
        for switch in made.switches.values():
            await switch.close()


def acknowledge(root, **components):
    """A state.json of an earlier daemon, at generation 7."""
    folder = settings.load(root).migrate_dir
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: InForce(stage, AT, "flags.yaml") for name, stage in components.items()}
    stages.save_state(folder, State(7, "ab" * 32, 1, AT, found))


def ceiling(root, stage=SYNC, **more):
    """A rollback that could not edit flags.yaml."""
    folder = settings.load(root).migrate_dir
    folder.mkdir(parents=True, exist_ok=True)
    stages.save_ceilings(folder, Ceilings({"messaging": Ceiling(stage, "disk slow", "ops", AT)}))


# starts


async def test_a_first_start_takes_the_flags(root):
    """Valid flags, no state.json: each component at its stage, acknowledged on disk, in the journal."""
    write_flags(root, messaging="async")
    async with conducted(root) as made:
        row = await made.until(acknowledged="async")
        status = await made.status()
        other = await made.component("discovery")

    assert {
        "name": "messaging",
        "title": "message bus and its log",
        "kind": "append",
        "phase": 1,
        "built": True,
        "desired": "async",
        "effective": "async",
        "ceiling": None,
        "reason": "flags.yaml",
        "durability": "os",
        "refused": None,
        "flipping": None,
        "pending": None,
    }.items() <= row.items()
    assert tuple(other[key] for key in ("built", "effective", "reason", "durability")) == (
        True,
        "sync",
        "flags.yaml",
        None,
    )
    assert (os.getpid(), True, [], True) == (
        status["pid"],
        status["flags"]["valid"],
        status["flags"]["errors"],
        status["ceilings"]["valid"],
    )
    assert status["flags"]["path"] == str(root / "flags.yaml")
    state = made.state()
    assert (status["generation"], status["digest"], os.getpid()) == (
        state.generation,
        state.digest,
        state.pid,
    )
    assert {name: found.stage for name, found in state.components.items()} == {
        **dict.fromkeys((area.name for area in BUILT), SYNC),
        "messaging": ASYNC,
    }
    entry = made.journal()[0]
    assert {
        "who": f"daemon {os.getpid()}",
        "action": "flip",
        "component": "messaging",
        "from": "sync",
        "to": "async",
        "why": "at start: flags.yaml",
        "generation": 1,
    }.items() <= entry.items()


async def test_a_restart_changes_nothing(root):
    """The stages acknowledged before: since then, the same generation, and no entry in the journal."""
    acknowledge(root, messaging=SYNC, completion=SYNC)
    async with conducted(root) as made:
        row = await made.until(acknowledged="sync")
        generation = (await made.status())["generation"]

    assert (row["since"], generation, made.journal()) == (AT, 7, [])


@pytest.mark.parametrize("flags", [None, b"version: 1\n", b"\0"], ids=["missing", "refused", "junk"])
async def test_without_usable_flags_the_last_stages_hold(root, flags):
    """Status says what is wrong; with valid flags again they are followed."""
    (root / "flags.yaml").unlink() if flags is None else (root / "flags.yaml").write_bytes(flags)
    acknowledge(root, messaging=ASYNC, completion=SYNC)
    async with conducted(root) as made:
        row, status = await made.component(), await made.status()
        write_flags(root)
        await made.until(effective="sync", desired="sync")

    assert (
        row["effective"],
        row["desired"],
        row["reason"],
    ) == ("async", None, "last acknowledged: flags.yaml is refused")
    assert (status["flags"]["valid"], len(status["flags"]["errors"])) == (False, 1)


@pytest.mark.parametrize("state", [None, b"{", b'{"schema_version": 9}'], ids=["none", "damaged", "newer"])
async def test_without_flags_and_state_all_is_sync(root, state):
    """Nothing is known: nothing rises, and the daemon starts all the same."""
    (root / "flags.yaml").unlink()
    if state is not None:
        (root / "var/migrate").mkdir(parents=True)
        (root / "var/migrate/state.json").write_bytes(state)
    async with conducted(root) as made:
        row = await made.component()

    assert (row["effective"], row["reason"]) == ("sync", "flags.yaml is refused")


async def test_an_async_side_that_cannot_open_begins_at_sync(root):
    """Its log is a directory: the daemon starts, the component is at sync and says why; mended, it rises."""
    write_flags(root, messaging="async")
    log = root / "var/logs/responses/message_bus.jsonl"
    log.mkdir(parents=True)
    async with conducted(root) as made:
        row = await made.component()
        log.rmdir()
        await made.ask("reload")
        await made.until(effective="async", refused=None)

    assert row["effective"] == "sync"
    assert "EISDIR" in row["refused"]
    assert row["reason"].startswith("could not open: messaging could not open")


# ceilings


async def test_a_ceiling_caps_at_the_start_and_lets_go_later(root):
    """It holds against flags.yaml and says whose it is; removed, the component rises within a second."""
    write_flags(root, messaging="async")
    ceiling(root)
    async with conducted(root) as made:
        row = await made.component()
        (root / "var/migrate/ceilings.json").unlink()
        await made.until(effective="async", ceiling=None, reason="flags.yaml")

    assert tuple(row[key] for key in ("desired", "effective", "ceiling", "reason")) == (
        "async",
        "sync",
        "sync",
        "ceiling by ops: disk slow",
    )


async def test_a_new_ceiling_rolls_back(root):
    """Within a second, without a change of flags.yaml."""
    write_flags(root, messaging="async")
    async with conducted(root) as made:
        ceiling(root)
        await made.until(effective="sync", desired="async", reason="ceiling by ops: disk slow")


async def test_a_ceiling_above_changes_nothing(root):
    """A component below its ceiling is where flags.yaml wants it."""
    ceiling(root, ASYNC)
    async with conducted(root) as made:
        row = await made.component()

    assert (row["effective"], row["ceiling"], row["reason"]) == ("sync", "async", "flags.yaml")


async def test_with_broken_ceilings_nothing_rises(root):
    """At the start and while running; what is up stays, rollbacks go through, status shows the error."""
    folder = settings.load(root).migrate_dir
    acknowledge(root, messaging=ASYNC, completion=SYNC)
    (folder / "ceilings.json").write_bytes(b"")
    write_flags(root, messaging="async", completion="async")
    async with conducted(root) as made:
        stayed = await made.component("messaging"), await made.component("completion")
        status = await made.status()
        write_flags(root, completion="async")
        await made.until("messaging", effective="sync")
        assert (await made.component("completion"))["effective"] == "sync"
        (folder / "ceilings.json").unlink()
        await made.until("completion", effective="async")

    assert [row["effective"] for row in stayed] == ["async", "sync"]
    assert (status["ceilings"]["valid"], len(status["ceilings"]["errors"])) == (False, 1)


# changes while running


async def test_changed_flags_are_followed_within_a_second(root):
    """Up and down again, each acknowledged on disk and in the journal with its duration."""
    async with conducted(root) as made:
        before = (await made.status())["generation"]
        for number, stage in enumerate(("async", "sync"), 1):
            write_flags(root, messaging=stage)
            await made.until(effective=stage, acknowledged=stage)
            assert (before + number, Stage(stage)) == (
                made.state().generation,
                made.state().components["messaging"].stage,
            )

    entries = [entry for entry in made.journal() if entry["component"] == "messaging"][-2:]
    assert [(entry["from"], entry["to"]) for entry in entries] == [("sync", "async"), ("async", "sync")]
    assert all(entry["duration_ms"] > 0 and entry["why"] == "flags.yaml" for entry in entries)


async def test_refused_flags_keep_the_last_good_ones(root):
    """While running nothing moves; status tells the file, the line and the reason."""
    write_flags(root, messaging="async")
    async with conducted(root) as made:
        (root / "flags.yaml").write_text("version: 1\ncomponents: {}\n")
        async with asyncio.timeout(1):
            while (status := await made.status())["flags"]["valid"]:
                await asyncio.sleep(0.005)
        row = await made.component()

    assert (row["desired"], row["effective"]) == ("async", "async")
    assert str(root / "flags.yaml") in status["flags"]["errors"][0]


async def test_durability_changes_live(root):
    """The sites get it at once; no side changes."""
    async with conducted(root) as made:
        text = (root / "flags.yaml").read_text().replace("messaging: os", "messaging: fsync", 1)
        (root / "flags.yaml").write_text(text)
        row = await made.until(durability="fsync")

    assert (row["effective"], made.sites["messaging"].durability) == ("sync", "fsync")
    assert made.sites["completion"].durability == "os"


async def test_frames_go_to_subscribers_only(root):
    """One `migration:changed` each, however often they subscribed; none after unsubscribe or the end."""
    peers = asking, twice, leaving, gone, silent = [Peer() for _ in range(5)]
    async with conducted(root) as made:
        for peer in (asking, twice, twice, leaving, gone):
            await made.ask("subscribe", peer)
        await made.ask("unsubscribe", leaving)
        await made.ask("unsubscribe", silent)
        await made.ask("subscribe", None)
        gone.hang_up()
        gone.gone = False
        write_flags(root, completion="async")
        await made.until("completion", effective="async")

    assert [len(peer.frames) for peer in peers] == [1, 1, 0, 0, 0]
    (frame,) = asking.frames
    assert (
        frame["event"],
        *(frame["data"][key] for key in ("component", "from", "to")),
    ) == ("migration:changed", "completion", "sync", "async")


@pytest.fixture
def hanging(monkeypatch):
    """The bus log's async side gets files whose disk can hang; those made."""
    files = []

    def made(path, component):
        files.append(HangingFile(path, component))
        return files[-1]

    monkeypatch.setattr(aio, "LineFile", made)
    yield files
    for file in files:
        file.answers.set()


async def test_a_rollback_that_waits_is_shown(root, hanging):
    """`flipping` names the side, the time and the write that holds it; other components flip meanwhile."""
    write_flags(root, messaging="async")
    async with conducted(root) as made:
        (file,) = hanging
        file.answers.clear()
        call = asyncio.ensure_future(made.switches["messaging"].append(b"{}\n"))
        await file.stuck()
        write_flags(root, completion="async")
        while not (row := await made.component())["flipping"]:
            await asyncio.sleep(0.005)
        for stage in ("async", "sync"):
            write_flags(root, completion=stage)
            async with asyncio.timeout(1):
                while (await made.component("completion"))["effective"] != stage:
                    await asyncio.sleep(0.005)
        settled = (await made.status())["settled"]
        file.answers.set()
        await call
        await made.until(effective="sync")

    assert (row["flipping"]["to"], settled) == ("sync", False)
    assert row["flipping"]["waits_for"].startswith("a write of 1 lines")


async def test_a_refused_flip_is_shown_and_tried_again(root):
    """The old side goes on, with the reason in status and journal; a reload tries again."""
    log = root / "var/logs/responses/message_bus.jsonl"
    async with conducted(root) as made:
        log.unlink(missing_ok=True)
        log.mkdir(parents=True, exist_ok=True)
        write_flags(root, messaging="async")
        async with asyncio.timeout(1):
            while not (row := await made.component())["refused"]:
                await asyncio.sleep(0.005)
        log.rmdir()
        assert await made.ask("reload") == {"status": "reading"}
        await made.until(effective="async", refused=None)

    assert (row["effective"], row["desired"]) == ("sync", "async")
    assert "messaging stays at sync" in row["refused"]
    actions = [entry["action"] for entry in made.journal() if entry["component"] == "messaging"]
    assert actions[-2:] == ["refused", "flip"]


async def test_a_change_of_mind_during_a_flip(root, hanging):
    """Flags changed back while a rollback still waits: the component ends where they want it last."""
    write_flags(root, messaging="async")
    async with conducted(root) as made:
        (file,) = hanging
        file.answers.clear()
        call = asyncio.ensure_future(made.switches["messaging"].append(b"{}\n"))
        await file.stuck()
        write_flags(root)
        while not (await made.component())["flipping"]:
            await asyncio.sleep(0.005)
        write_flags(root, messaging="async")
        while (await made.component())["desired"] != "async":
            await asyncio.sleep(0.005)
        file.answers.set()
        await call
        await made.until(effective="async")

    moves = [(entry["from"], entry["to"]) for entry in made.journal() if entry["component"] == "messaging"]
    assert moves[-2:] == [("async", "sync"), ("sync", "async")]


# recording


async def test_a_disk_that_refuses_the_record_is_no_reason_to_stay(root):
    """state.json cannot be written: the flip is in force, not acknowledged; when it can, it is."""
    folder = settings.load(root).migrate_dir
    async with conducted(root) as made:
        await made.until(acknowledged="sync")
        (folder / "state.json").unlink()
        (folder / "state.json").mkdir()
        write_flags(root, messaging="async")
        row = await made.until(effective="async")
        (folder / "state.json").rmdir()
        await made.ask("reload")
        await made.until(acknowledged="async")

    assert row["acknowledged"] == "sync"
    assert made.state().components["messaging"].stage == ASYNC
    assert made.journal()[-1]["to"] == "async"


async def test_a_torn_journal_is_mended(root):
    """What a crash left of the last entry is cut; ours begin their own lines."""
    folder = settings.load(root).migrate_dir
    folder.mkdir(parents=True)
    (folder / JOURNAL).write_bytes(b'{"at":"then"}\n{"at":"no')
    async with conducted(root) as made:
        await made.until(acknowledged="sync")
        write_flags(root, messaging="async")
        await made.until(acknowledged="async")

    assert [made.journal()[0]["at"], made.journal()[-1]["component"]] == ["then", "messaging"]


async def test_a_stop_that_cannot_wait(root, hanging):
    """A follower stuck in a rollback ends with the conductor, within seconds."""
    write_flags(root, messaging="async")
    made = Conducted(root)
    await made.conductor.start()
    (file,) = hanging
    file.answers.clear()
    call = asyncio.ensure_future(made.switches["messaging"].append(b"{}\n"))
    await file.stuck()
    write_flags(root)
    while not (await made.component())["flipping"]:
        await asyncio.sleep(0.005)
    began = time.monotonic()
    await made.conductor.stop()
    assert time.monotonic() - began < 3
    file.answers.set()
    await call
    for switch in made.switches.values():
        await switch.close()


async def test_before_the_start_there_is_a_status(root):
    """A question that comes early is answered: nothing is in force yet."""
    made = Conducted(root)
    status = await made.status()
    await made.conductor.stop()

    assert (status["digest"], status["generation"], status["settled"]) == (None, 0, True)
    assert {None} == {row["desired"] for row in status["components"]}


# a whole daemon


def test_sighup_and_frames_over_the_socket(tmp_path):
    """SIGHUP reads the flags at once, and a connection that subscribed gets the frame; another none."""
    with running(tmp_path / "root") as daemon, daemon.wire() as asking, daemon.wire() as silent:
        asking.ask("migration:subscribe")
        write_flags(daemon.root, messaging="async")
        began = time.monotonic()
        os.kill(daemon.pid, signal.SIGHUP)
        frame = asking.frame()
        took = time.monotonic() - began
        assert silent.ask("system:health")["status"] == "healthy"
        assert daemon.stop() == 0

    assert frame is not None
    assert (frame["event"], frame["data"]["to"]) == ("migration:changed", "async")
    assert took < 1


@pytest.fixture(scope="module", autouse=True)
def others():
    """The threads that were there before this file's tests; some of other files hang on purpose."""
    return set(threading.enumerate())


def test_threads_end_with_the_conductor(others):
    """No thread of an earlier test's conductor is left."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        new = set(threading.enumerate()) - others
        left = [thread.name for thread in new if thread.name.startswith("ksi-migration")]
        if not left:
            break
        time.sleep(0.01)
    assert left == []
