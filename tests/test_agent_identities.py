"""Identities on both sides: replies, error texts, the file, and what becomes of changes at the same time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ksi_daemon.agent import AREA
from ksi_daemon.agent.core import DEEPEST
from ksi_daemon.agent.identities import Identities
from ksi_daemon.errors import IoFailed, KsiError
from ksi_daemon.lane import CancelledTooLate
from ksi_daemon.settings import load
from ksi_daemon.site import Site
from tests.rooms import SIDES
from tests.rooms import room as opened


@pytest.fixture(params=SIDES)
async def room(request, tmp_path):
    """The room on either side, with one change already made."""
    async with opened(AREA, request.param, tmp_path) as made:
        await made.send("agent:create_identity", agent_id="kept", identity={"name": "K"})
        yield made


def stored(room):
    """What the file holds."""
    return json.loads(room.path.read_bytes())


def nested(levels):
    """Objects in objects."""
    found: dict[str, Any] = {}
    for _ in range(levels - 1):
        found = {"in": found}
    return found


async def test_replies_are_the_contracts(room):
    """Create, update, get, list and remove answer as the original did; the file follows each."""
    created = await room.send("agent:create_identity", agent_id="c", identity={"name": "C", "role": "dev"})
    updated = await room.send("agent:update_identity", agent_id="c", updates={"role": "lead"})
    got = await room.send("agent:get_identity", agent_id="c")
    listed = await room.send("agent:list_identities")
    in_file = stored(room)["c"]
    removed = await room.send("agent:remove_identity", agent_id="c")

    assert created == {"agent_id": "c", "status": "created"}
    assert updated == {"agent_id": "c", "status": "updated"}
    identity = got["identity"]
    assert list(identity) == ["agent_id", "created_at", "updated_at", "name", "role"]
    assert (identity["role"], in_file) == ("lead", identity)
    assert identity["created_at"] < identity["updated_at"]
    assert listed["count"] == 2
    stamp = identity["created_at"]
    assert listed["identities"][1] == {"agent_id": "c", "name": "C", "role": "lead", "created_at": stamp}
    assert removed == {"status": "removed"}
    assert list(stored(room)) == ["kept"]


@pytest.mark.parametrize("event", ["get", "update", "remove"])
async def test_error_texts_are_the_contracts(room, event):
    """An id must be given, and known."""
    absent = await room.send(f"agent:{event}_identity")
    unknown = await room.send(f"agent:{event}_identity", agent_id="X")

    assert absent == {"error": "agent_id required", "code": "missing_parameter"}
    assert unknown == {"error": "Identity for X not found", "code": "not_found"}


async def test_given_keys_override_those_that_are_made(room):
    """They stay in their places, as in the original; `updated_at` is always set anew by an update."""
    given = {"name": "N", "created_at": "long ago", "agent_id": "other"}
    await room.send("agent:create_identity", agent_id="c", identity=given)
    both = {"identity": {"a": 1, "b": 1}, "updates": {"b": 2, "updated_at": "never"}}
    await room.send("agent:update_identity", agent_id="c", **both)
    identity = stored(room)["c"]

    assert list(identity) == ["agent_id", "created_at", "updated_at", "name", "a", "b"]
    assert (identity["agent_id"], identity["created_at"], identity["b"]) == ("other", "long ago", 2)
    assert identity["updated_at"].startswith("2025-07-12T17:06:4")


@pytest.mark.parametrize(
    "wrong",
    [
        {"agent_id": 7},
        {"agent_id": "x" * 1001},
        {"agent_id": "a", "identity": "text"},
        {"agent_id": "a", "identity": {"deep": nested(DEEPEST)}},
        {"agent_id": "a", "identity": {"deep": [nested(DEEPEST - 1)]}},
    ],
)
async def test_what_cannot_be_stored_is_refused(room, wrong):
    """Numbers as ids, long ids, no objects, too much nesting: nothing is written."""
    before = room.path.read_bytes()
    reply = await room.send("agent:create_identity", **wrong)

    assert (reply["code"], room.path.read_bytes()) == ("invalid_parameter", before)


async def test_an_identity_may_be_nested_as_deeply_as_allowed(room):
    """Exactly so many levels are stored and read back."""
    deepest = nested(DEEPEST)
    reply = await room.send("agent:create_identity", agent_id="a", identity=deepest)

    assert (reply["status"], stored(room)["a"]["in"]) == ("created", deepest["in"])


async def test_many_changes_at_once_are_all_in_the_file(room):
    """Three hundred, each of its own identity, in order; few on the sync side, one by one."""
    names = [f"a{number}" for number in range(300 if room.side == "async" else 20)]
    replies = await asyncio.gather(*(room.send("agent:create_identity", agent_id=name) for name in names))

    assert {reply["status"] for reply in replies} == {"created"}
    assert list(stored(room)) == ["kept", *names]
    assert room.service.memory()["identities"] == stored(room)


async def test_two_updates_of_one_identity_at_once_keep_both(room):
    """The later one builds on the earlier one."""
    changes = ({"a": 1}, {"b": 2})
    await asyncio.gather(
        *(room.send("agent:update_identity", agent_id="kept", updates=change) for change in changes)
    )

    assert {"a": 1, "b": 2}.items() <= stored(room)["kept"].items()


async def test_a_failed_save_changes_nothing(room):
    """With a directory in the file's place a change is refused and memory is as before; then it works."""
    aside = room.path.with_name("aside")
    room.path.rename(aside)
    room.path.mkdir()
    refused = await room.send("agent:update_identity", agent_id="kept", updates={"name": "new"})
    got = await room.send("agent:get_identity", agent_id="kept")
    room.path.rmdir()
    aside.rename(room.path)
    again = await room.send("agent:update_identity", agent_id="kept", updates={"name": "newer"})

    assert (refused["code"], got["identity"]["name"]) == ("io_error", "K")
    assert (again["status"], stored(room)["kept"]["name"]) == ("updated", "newer")


async def test_a_file_that_cannot_be_read_is_tried_again_and_never_written_over(room):
    """Each request answers `unreadable` until it can be read; then all is there."""
    aside = room.path.with_name("aside")
    room.path.rename(aside)
    room.path.mkdir()
    await room.restart()
    refused = [
        await room.send(event, agent_id="new")
        for event in ("agent:create_identity", "agent:list_identities", "checkpoint:collect")
    ]
    room.path.rmdir()
    aside.rename(room.path)
    await room.send("agent:create_identity", agent_id="new")

    assert {reply["code"] for reply in refused} == {"unreadable"}
    assert list(stored(room)) == ["kept", "new"]


async def test_a_checkpoint_can_be_put_back(room):
    """Everything is replaced by what was collected; an empty one changes nothing."""
    await room.send("agent:spawn", agent_id="coder", capabilities=["c"])
    kept = await room.send("checkpoint:collect")
    await room.send("agent:create_identity", agent_id="later")
    await room.send("agent:terminate", agent_id="coder")
    empty = await room.send("checkpoint:restore", agent_state={})
    restored = await room.send("checkpoint:restore", **kept)

    assert empty["status"] == "unchanged"
    assert restored == {"status": "restored", "agents": 1, "identities": 1}
    assert await room.send("checkpoint:collect") == kept
    assert list(stored(room)) == ["kept"]


# a store that does what a test says


class Store:
    """Saves wait until they are told their outcome; `views` are what they were given."""

    def __init__(self):
        self.views = []
        self.outcomes = []

    async def load(self):
        """One identity."""
        return {"kept": {"name": "K"}}

    async def save(self, identities, changed):
        """Wait for the outcome."""
        self.views.append((dict(identities), list(changed)))
        outcome = asyncio.get_running_loop().create_future()
        self.outcomes.append(outcome)
        await outcome


class Disk(OSError):
    """The disk's refusal."""


@pytest.fixture
async def slow(tmp_path):
    """Identities over such a store, and the store."""
    store = Store()
    identities = Identities(store, Site("agent", load(tmp_path)))
    await identities.start()
    return identities, store


async def begun(identities, store, *changes):
    """Updates of `kept`, their saves begun."""
    tasks = []
    for change in changes:
        data = {"agent_id": "kept", "updates": change}
        tasks.append(asyncio.create_task(identities.update(data, None)))
        while len(store.outcomes) < len(tasks):
            await asyncio.sleep(0)
    return tasks


def failed():
    """A save's error."""
    return IoFailed("agent", "replace", Disk(28, "No space left on device"))


async def test_changes_build_on_those_under_way_and_are_read_when_saved(slow):
    """The second view holds both; until the first is saved nobody reads it."""
    identities, store = slow
    tasks = await begun(identities, store, {"a": 1}, {"b": 2})
    unsaved = dict(identities.saved["kept"])
    for outcome in store.outcomes:
        outcome.set_result(None)
    await asyncio.gather(*tasks)

    assert unsaved == {"name": "K"}
    assert {"a": 1, "b": 2}.items() <= store.views[1][0]["kept"].items()
    assert {"a": 1, "b": 2}.items() <= identities.saved["kept"].items()


async def test_failed_saves_leave_memory_as_it_was(slow):
    """Both callers hear of it, and a later change builds on what is saved."""
    identities, store = slow
    tasks = await begun(identities, store, {"a": 1}, {"b": 2})
    for outcome in store.outcomes:
        outcome.set_exception(failed())
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    store.outcomes.clear()
    (later,) = await begun(identities, store, {"c": 3})
    store.outcomes[0].set_result(None)
    await later

    assert [type(error) for error in errors] == [IoFailed, IoFailed]
    assert identities.saved["kept"].keys() == {"name", "c", "updated_at"}


@pytest.mark.parametrize(("error", "kept"), [(None, True), (failed(), False)])
async def test_a_caller_cancelled_too_late_leaves_the_outcome_behind(slow, error, kept):
    """A save that succeeded is in memory, one that failed is not."""
    identities, store = slow
    (task,) = await begun(identities, store, {"a": 1})
    store.outcomes[0].set_exception(CancelledTooLate(error))
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ("a" in identities.saved["kept"]) is kept


async def test_a_caller_cancelled_in_time_leaves_nothing(slow):
    """Nothing of it is built on."""
    identities, store = slow
    (task,) = await begun(identities, store, {"a": 1})
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.outcomes.clear()
    (later,) = await begun(identities, store, {"b": 2})
    store.outcomes[0].set_result(None)
    await later

    assert identities.saved["kept"].keys() == {"name", "b", "updated_at"}


async def test_a_stop_waits_shortly_for_changes(slow):
    """One whose save does not end is given up; what is saved is untouched."""
    identities, store = slow
    (task,) = await begun(identities, store, {"a": 1})
    await identities.stop()

    assert (task.done(), identities.saved["kept"]) == (False, {"name": "K"})
    store.outcomes[0].set_exception(failed())
    with pytest.raises(KsiError):
        await task
