"""The message bus on both sides: a message is logged, remembered and delivered, or nothing of it is."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from ksi_daemon.messaging import AREA, core
from ksi_daemon.messaging import service as bus_service
from tests.faults import counted, file_size_limit, fill, small_disk
from tests.rooms import SIDES, Peer, room


@pytest.fixture(params=SIDES)
async def bus(request, tmp_path, monkeypatch):
    """The bus on either side, with an offline queue of five."""
    monkeypatch.setenv("KSI_OFFLINE_QUEUE_LIMIT", "5")
    async with room(AREA, request.param, tmp_path) as made:
        yield made


async def publish(bus, kind="NOTE", agent="a", **message):
    """Publish `message`; the reply."""
    return await bus.send("message:publish", agent_id=agent, event_type=kind, message=message)


async def connected(bus, *agents, **more):
    """A peer on whose connection these agents are."""
    peer = Peer()
    for agent in agents:
        await bus.send("message:connect", peer, agent_id=agent, **more)
    return peer


async def subscribed(bus, agent, *kinds):
    """A peer with one agent that has subscribed."""
    peer = await connected(bus, agent)
    await bus.send("message:subscribe", agent_id=agent, event_types=list(kinds))
    return peer


async def stats(bus):
    """The bus in figures."""
    return (await bus.send("message_bus:stats"))["stats"]


async def test_a_published_message_is_logged_before_the_reply(bus):
    """One line: the envelope, then the payload's keys in their order."""
    reply = await publish(bus, text="hello", number=1)

    assert reply == {"status": "published", "event_type": "NOTE", "delivered_to": []}
    (record,) = bus.lines()
    assert list(record) == ["id", "type", "from", "timestamp", "text", "number"]
    assert {"type": "NOTE", "from": "a", "timestamp": "2025-07-12T17:06:40.001000Z"}.items() <= record.items()
    assert record["id"] == "1752340000.001"


async def test_a_payload_cannot_forge_the_envelope(bus):
    """Deviation 21: the envelope wins, and the payload is kept whole under `payload`."""
    await publish(bus, **{"from": "root", "text": "kept"})

    (record,) = bus.lines()
    assert (
        record["from"],
        record["text"],
        record["payload"],
    ) == ("a", "kept", {"from": "root", "text": "kept"})


async def test_a_hundred_callers_keep_their_order(bus):
    """Lines, history and deliveries stand in the order of the calls."""
    peer = await subscribed(bus, "watcher", "NOTE")
    await asyncio.gather(*(publish(bus, number=number) for number in range(100)))

    expected = list(range(100))
    assert expected == [line["number"] for line in bus.lines()]
    assert expected == [record["number"] for record in bus.service.memory()["history"]]
    assert expected == [frame["number"] for frame in peer.frames]


async def test_the_history_holds_a_thousand(bus, monkeypatch):
    """The newest; the log has all."""
    await asyncio.gather(*(publish(bus, number=number) for number in range(bus_service.HISTORY + 5)))

    history = bus.service.memory()["history"]
    assert (len(history), history[0]["number"]) == (1_000, 5)
    assert (await stats(bus))["history_size"] == 1_000
    assert len(bus.lines()) == 1_005


async def test_a_direct_message_reaches_a_connected_agent(bus):
    """The frame is the record; other subscribers to direct messages are notified, the sender is not."""
    peer, watcher = await connected(bus, "coder"), await subscribed(bus, "watcher", "DIRECT_MESSAGE")
    sender = await subscribed(bus, "a", "DIRECT_MESSAGE")
    reply = await publish(bus, "DIRECT_MESSAGE", to="coder", content="hi")

    assert reply == {"status": "delivered", "to": "coder", "notified": ["watcher"]}
    assert bus.lines() == peer.frames == watcher.frames
    assert sender.frames == []


async def test_a_broadcast_tells_who_got_it(bus):
    """Subscribers but the sender; one whose connection is gone is among the failed."""
    peers = [await subscribed(bus, agent, "BROADCAST") for agent in ("a", "b", "c")]
    peers[2].gone = True
    reply = await publish(bus, "BROADCAST", text="all")

    assert reply == {"status": "broadcast", "delivered": ["b"], "failed": ["c"], "total": 2}
    assert [len(peer.frames) for peer in peers] == [0, 1, 0]


async def test_another_type_reaches_its_subscribers_and_the_sender(bus):
    """As in the original, the sender too, if it subscribed."""
    mine, other = await subscribed(bus, "a", "NOTE"), await subscribed(bus, "b", "OTHER")
    reply = await publish(bus, text="x")

    assert reply["delivered_to"] == ["a"]
    assert (len(mine.frames), len(other.frames)) == (1, 0)


async def test_a_task_finds_a_capable_agent(bus):
    """Deviation 8: the first connected agent that can, never the sender; the record names it."""
    await connected(bus, "a", capabilities=["python"])
    await connected(bus, "cook", capabilities=["soup"])
    peer = await connected(bus, "coder", capabilities=["python", "sql"])
    reply = await publish(bus, "TASK_ASSIGNMENT", required_capabilities=["python"], task="build")

    assert reply == {"status": "delivered", "to": "coder", "notified": []}
    assert "coder" == peer.frames[0]["to"] == bus.lines()[0]["to"]


@pytest.mark.parametrize(
    ("kind", "message", "code"),
    [
        ("DIRECT_MESSAGE", {}, "no_recipient"),
        ("DIRECT_MESSAGE", {"to": 5}, "invalid_parameter"),
        ("TASK_ASSIGNMENT", {"required_capabilities": ["rust"]}, "no_recipient"),
        ("NOTE", {"text": "\ud800"}, "unserialisable"),
        ("NOTE", {"number": 2**64}, "unserialisable"),
    ],
)
async def test_a_refused_message_leaves_nothing(bus, kind, message, code):
    """No line, no history, no delivery."""
    await subscribed(bus, "watcher", kind)
    reply = await publish(bus, kind, **message)

    assert code == reply["code"]
    assert (bus.lines(), bus.service.memory()["history"]) == ([], [])


@pytest.mark.parametrize(
    ("event", "data", "code"),
    [
        ("message:publish", {}, "missing_parameter"),
        ("message:publish", {"agent_id": "a", "event_type": ["T"]}, "invalid_parameter"),
        ("message:publish", {"agent_id": "a", "event_type": "T", "message": "x"}, "invalid_parameter"),
        ("message:subscribe", {"agent_id": "a"}, "missing_parameter"),
        ("message:subscribe", {"agent_id": "a", "event_types": "NOTE"}, "invalid_parameter"),
        ("message:subscribe", {"agent_id": "stranger", "event_types": ["NOTE"]}, "not_connected"),
        ("message:connect", {}, "missing_parameter"),
        ("message:disconnect", {}, "missing_parameter"),
        ("message:unsubscribe", {}, "missing_parameter"),
        ("transport:message", {"command": "SHOUT"}, "invalid_parameter"),
        ("transport:message", {}, "invalid_parameter"),
    ],
)
async def test_what_is_refused_says_why(bus, event, data, code):
    """Every wrong request has its stable code."""
    assert code == (await bus.send(event, **data))["code"]


async def test_messages_wait_for_an_agent_that_is_not_connected(bus):
    """Queued, then sent in order at `message:connect`; those after them come behind."""
    replies = [await publish(bus, "DIRECT_MESSAGE", to="late", number=number) for number in range(3)]
    assert [reply["status"] for reply in replies] == ["queued"] * 3
    assert (await stats(bus))["offline_queues"] == {"late": 3}
    peer = await connected(bus, "late")
    await publish(bus, "DIRECT_MESSAGE", to="late", number=3)
    while (await stats(bus))["offline_queues"]:
        await asyncio.sleep(0)

    assert [frame["number"] for frame in peer.frames] == [0, 1, 2, 3]


async def test_an_offline_queue_drops_its_oldest(bus):
    """At most KSI_OFFLINE_QUEUE_LIMIT; what was dropped is counted in stats."""
    for number in range(8):
        await publish(bus, "DIRECT_MESSAGE", to="late", number=number)
    found = await stats(bus)
    assert (found["offline_queues"], found["offline_dropped"]) == ({"late": 5}, {"late": 3})
    peer = await connected(bus, "late")
    await asyncio.sleep(0.01)

    assert [frame["number"] for frame in peer.frames] == [3, 4, 5, 6, 7]


async def test_what_waits_goes_at_the_pace_of_the_reader(bus):
    """A slow reader is waited for; when it goes away meanwhile, the next one gets the queue."""
    for number in range(3):
        await publish(bus, "DIRECT_MESSAGE", to="late", number=number)
    slow = Peer()
    slow.reads.clear()
    await bus.send("message:connect", slow, agent_id="late")
    await asyncio.sleep(0.01)
    assert slow.frames == []
    slow.gone = True
    slow.reads.set()
    await asyncio.sleep(0.01)
    peer = await connected(bus, "late")
    await asyncio.sleep(0.01)

    assert (slow.frames, [frame["number"] for frame in peer.frames]) == ([], [0, 1, 2])


async def test_a_second_connection_takes_over(bus):
    """Messages go to the newest; the older one's end does not disconnect the agent."""
    await publish(bus, "DIRECT_MESSAGE", to="late", number=0)
    first = Peer()
    first.reads.clear()
    await bus.send("message:connect", first, agent_id="late")
    await asyncio.sleep(0)
    second = await connected(bus, "late")
    first.hang_up()
    await asyncio.sleep(0.01)
    await publish(bus, "DIRECT_MESSAGE", to="late", number=1)

    assert (first.frames, [frame["number"] for frame in second.frames]) == ([], [0, 1])


async def test_hanging_up_disconnects(bus):
    """Deviation 9: the end of a connection undoes connect and subscribe."""
    peer = await subscribed(bus, "coder", "NOTE")
    peer.hang_up()

    found = await stats(bus)
    assert (found["connected_agents"], found["subscriptions"]) == ([], {"NOTE": []})
    assert (await publish(bus, "DIRECT_MESSAGE", to="coder"))["status"] == "queued"


async def test_subscriptions_are_listed_and_ended(bus):
    """One agent's, everybody's (deviation 5), some of them, all of them; unknown ones are harmless."""
    await subscribed(bus, "a", "X", "Y", "Z")
    await subscribed(bus, "b", "X")
    mine = {"agent_id": "a", "subscriptions": ["X", "Y", "Z"]}
    assert mine == await bus.send("message:subscriptions", agent_id="a")
    assert await bus.send("message:subscriptions") == {
        "all_subscriptions": {"a": ["X", "Y", "Z"], "b": ["X"]}
    }

    some = await bus.send("message:unsubscribe", agent_id="a", event_types=["X", "never"])
    rest = await bus.send("message:unsubscribe", agent_id="a")
    assert (some["event_types"], rest["event_types"]) == (["X", "never"], ["Y", "Z"])
    assert (await stats(bus))["subscriptions"] == {"X": ["b"], "Y": [], "Z": []}
    assert (await bus.send("message:unsubscribe", agent_id="nobody"))["event_types"] == []
    assert await bus.send("message:disconnect", agent_id="b") == {"status": "disconnected", "agent_id": "b"}
    assert await bus.send("message:subscriptions") == {"all_subscriptions": {}}


async def test_connecting_without_a_connection_changes_nothing(bus):
    """A request from inside the daemon has nobody to deliver to."""
    assert await bus.send("message:connect", agent_id="x") == {"status": "connected", "agent_id": "x"}
    assert (await stats(bus))["connected_agents"] == []


async def test_the_older_form_does_the_same(bus):
    """`transport:message` publishes and subscribes."""
    peer = await connected(bus, "a")
    subscribe = {"agent_id": "a", "event_types": ["T"]}
    await bus.send("transport:message", command="SUBSCRIBE", parameters=subscribe)
    await bus.send(
        "transport:message", peer, command="PUBLISH", parameters={"agent_id": "a", "event_type": "T"}
    )

    assert bus.lines() == peer.frames


def test_offline_queues_share_a_bound():
    """Beyond the bytes that all may hold, the queue that has waited longest gives way."""
    queues = core.OfflineQueues(limit=10, total=10)
    for agent in ("first", "first", "second"):
        queues.put(agent, b"1234")

    assert (queues.lengths(), queues.dropped) == ({"first": 1, "second": 1}, {"first": 1})
    assert queues.first("nobody") is None


# the log in trouble


async def test_a_failed_publish_leaves_nothing(bus):
    """EFBIG in mid-line: io_error; no line, history, delivery or queue; the next one is fine."""
    peer = await subscribed(bus, "watcher", "NOTE")
    await publish(bus, number=1)
    before = bus.service.memory()
    with file_size_limit(64 * 1024):
        failed = await publish(bus, text="x" * 100_000)
        queued = await publish(bus, "DIRECT_MESSAGE", to="late", text="x" * 100_000)
    assert before == bus.service.memory()
    await publish(bus, number=2)

    for reply in (failed, queued):
        expected = {"code": "io_error", "component": "messaging", "errno": "EFBIG", "retryable": False}
        assert expected.items() <= reply.items()
    assert [line["number"] for line in bus.lines()] == [1, 2]
    assert [frame["number"] for frame in peer.frames] == [1, 2]


@pytest.mark.parametrize("side", SIDES)
async def test_a_full_disk(side, tmp_path):
    """ENOSPC in mid-line: retryable, nothing kept; with room again everything is well, in order."""
    with small_disk(tmp_path) as disk:
        async with room(AREA, side, disk) as bus:
            await publish(bus, number=1)
            filler = fill(disk)
            failed = await publish(bus, text="x" * 50_000)
            filler.unlink()
            await publish(bus, number=2)
            numbers = [line["number"] for line in bus.lines()]
            history = bus.service.memory()["history"]

    assert tuple(failed[key] for key in ("code", "errno", "retryable")) == ("io_error", "ENOSPC", True)
    assert [1, 2] == numbers == [record["number"] for record in history]


@pytest.mark.parametrize("durability", ["os", "fsync"])
async def test_durability_reaches_the_disk(bus, durability, monkeypatch):
    """With `fsync` each reply comes after an fsync, with `os` none is made; a change holds at once."""
    await publish(bus)
    calls = counted(monkeypatch, "fsync")
    bus.site.durability = durability
    await publish(bus)

    assert (durability == "fsync") == bool(calls)


@pytest.mark.parametrize("trouble", ["directory", "link", "fifo"])
async def test_what_is_no_file_is_refused(bus, trouble):
    """Something else in the log's place: io_error, nothing in memory; when it is gone, all is well."""
    await publish(bus, number=1)
    with bus.overlooked():
        bus.path.rename(bus.path.with_suffix(".old"))
        {
            "directory": bus.path.mkdir,
            "link": lambda: bus.path.symlink_to("x"),
            "fifo": lambda: os.mkfifo(bus.path),
        }[trouble]()
    failed = await publish(bus, number=2)
    assert ("io_error", {"directory": "EISDIR", "link": "ELOOP", "fifo": "EINVAL"}[trouble]) == (
        failed["code"],
        failed["errno"],
    )
    bus.path.rmdir() if trouble == "directory" else bus.path.unlink()
    await publish(bus, number=3)

    assert [line["number"] for line in bus.lines()] == [3]
    assert [record["number"] for record in bus.service.memory()["history"]] == [1, 3]


async def test_a_log_rotated_removed_or_cut_by_somebody_else(bus):
    """Each is noticed at the next publish, which stands in the file of that name."""
    await publish(bus, number=1)
    bus.path.rename(bus.path.with_suffix(".1"))
    await publish(bus, number=2)
    assert [line["number"] for line in bus.lines()] == [2]
    bus.path.unlink()
    await publish(bus, number=3)
    assert [line["number"] for line in bus.lines()] == [3]
    os.truncate(bus.path, 10)
    await publish(bus, number=4)

    head, line = bus.path.read_bytes().splitlines()
    assert (len(head), json.loads(line)["number"]) == (10, 4)


async def test_a_torn_tail_is_mended_at_the_start(bus):
    """The line that a crash left open is cut and kept beside the log; the next one begins cleanly."""
    await publish(bus, number=1)
    with bus.path.open("ab") as log:
        log.write(b'{"id":"2","ty')
    await bus.restart()
    await publish(bus, number=3)

    assert [line["number"] for line in bus.lines()] == [1, 3]
    (part,) = bus.path.parent.glob("*.torn-*")
    assert part.read_bytes() == b'{"id":"2","ty'


async def test_a_cancelled_publish_is_whole_or_nothing(bus):
    """Cancelled anywhere, a message is in the log at most once and whole, and others are not disturbed."""
    for steps in range(4):
        doomed = asyncio.ensure_future(publish(bus, doomed=steps))
        others = [asyncio.ensure_future(publish(bus, other=(steps, number))) for number in range(3)]
        for _ in range(steps):
            await asyncio.sleep(0)
        doomed.cancel()
        await asyncio.gather(doomed, *others, return_exceptions=True)

    lines = bus.lines()
    assert sum("other" in line for line in lines) == 12
    doomed_lines = [line["doomed"] for line in lines if "doomed" in line]
    assert len(doomed_lines) == len(set(doomed_lines)) <= 4


async def test_a_stop_forgets_everybody(bus):
    """Connections, queues and deliveries under way end with the service; the log stays."""
    await publish(bus, "DIRECT_MESSAGE", to="late")
    slow = Peer()
    slow.reads.clear()
    await bus.send("message:connect", slow, agent_id="late")
    await bus.restart()

    found = await stats(bus)
    assert (found["connected_agents"], found["offline_queues"], found["history_size"]) == ([], {}, 0)
    assert len(bus.lines()) == 1
