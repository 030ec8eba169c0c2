"""Messages between clients over the wire: to one agent, to subscribers, to one that comes later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon import Running, Wire, running, write_flags

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["sync", "async"], scope="module")
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One daemon for all tests of this file, with messaging on either side."""
    root = tmp_path_factory.mktemp("d")
    write_flags(root, messaging=request.param)
    with running(root) as found:
        yield found


def join(daemon: Running, agent: str, *types: str) -> Wire:
    """A connection of an agent, subscribed."""
    wire = daemon.wire()
    assert wire.ask("message:connect", agent_id=agent)["status"] == "connected"
    if types:
        assert (
            wire.ask("message:subscribe", agent_id=agent, event_types=list(types))["status"] == "subscribed"
        )
    return wire


def publish(daemon: Running, agent: str, kind: str, **message: Any) -> Any:
    """Publish on a connection of its own; the reply's data."""
    return daemon.ask("message:publish", agent_id=agent, event_type=kind, message=message)


def test_a_direct_message_reaches_the_other_connection(daemon: Running) -> None:
    """The record arrives unasked, as it stands in the log; the sender is told that it was delivered."""
    with join(daemon, "bob") as bob:
        reply = publish(daemon, "alice", "DIRECT_MESSAGE", to="bob", text="hi\n\u2028")
        frame = bob.frame()

    assert reply == {"status": "delivered", "to": "bob", "notified": []}
    assert frame == daemon.bus()[-1]
    assert frame is not None
    assert (frame["from"], frame["to"], frame["text"]) == ("alice", "bob", "hi\n\u2028")


def test_frames_come_between_replies(daemon: Running) -> None:
    """An agent that asks and is written to at once gets every reply and every message whole."""
    with join(daemon, "busy") as busy, daemon.wire() as sender:
        count = 300
        data = {"agent_id": "x", "event_type": "DIRECT_MESSAGE", "message": {"to": "busy"}}
        sender.send(*[{"event": "message:publish", "data": data}] * count)
        busy.send(*[{"event": "system:ready", "correlation_id": n} for n in range(count)])
        frames = busy.frames(2 * count)
        sender.frames(count)

    assert [frame["correlation_id"] for frame in frames if "correlation_id" in frame] == list(range(count))
    assert len([frame for frame in frames if frame.get("to") == "busy"]) == count


def test_a_broadcast_reaches_all_subscribers_but_the_sender(daemon: Running) -> None:
    """Each subscriber's connection gets the record once, the sender's does not."""
    with join(daemon, "s1", "BROADCAST") as one, join(daemon, "s2", "BROADCAST") as two:
        reply = publish(daemon, "s1", "BROADCAST", n=1)
        frame = two.frame()
        after = one.ask("system:ready")

    assert reply == {"status": "broadcast", "delivered": ["s2"], "failed": [], "total": 1}
    assert frame is not None
    assert frame["n"] == 1
    assert after == {"status": "ready"}


def test_a_typed_message_reaches_its_subscribers(daemon: Running) -> None:
    """Any type can be subscribed to, and unsubscribed from."""
    with join(daemon, "typed", "BUILD") as wire:
        first = publish(daemon, "ci", "BUILD", n=1)
        frame = wire.frame()
        wire.ask("message:unsubscribe", agent_id="typed", event_types=["BUILD"])
        second = publish(daemon, "ci", "BUILD", n=2)

    assert frame is not None
    assert (first["delivered_to"], frame["n"], second["delivered_to"]) == (["typed"], 1, [])


def test_the_end_of_a_connection_undoes_its_connect(daemon: Running) -> None:
    """After EOF the agent is neither connected nor subscribed, and its messages wait for it."""
    wire = join(daemon, "gone", "NEWS")
    wire.close()
    while "gone" in daemon.ask("message_bus:stats")["stats"]["connected_agents"]:
        pass

    news = publish(daemon, "x", "NEWS")
    direct = publish(daemon, "x", "DIRECT_MESSAGE", to="gone")

    assert news["delivered_to"] == []
    assert direct["status"] == "queued"
    assert daemon.ask("message:subscriptions", agent_id="gone")["subscriptions"] == []


def test_waiting_messages_are_delivered_on_connect(daemon: Running) -> None:
    """In order, once each, before anything newer."""
    for n in range(50):
        assert publish(daemon, "x", "DIRECT_MESSAGE", to="later", n=n)["status"] == "queued"

    with daemon.wire() as wire:
        wire.send({"event": "message:connect", "data": {"agent_id": "later"}})
        frames = wire.frames(51)
        live = publish(daemon, "x", "DIRECT_MESSAGE", to="later", n=50)
        last = wire.frame()

    assert [frame["n"] for frame in frames if "n" in frame] == list(range(50))
    assert live["status"] == "delivered"
    assert last is not None
    assert last["n"] == 50
    assert "later" not in daemon.ask("message_bus:stats")["stats"]["offline_queues"]


def test_another_connection_takes_an_agent_over(daemon: Running) -> None:
    """The newer connection gets the messages; the older one's end does not undo it."""
    old = join(daemon, "moved")
    with join(daemon, "moved") as new:
        old.close()
        daemon.ask("system:ready")
        reply = publish(daemon, "x", "DIRECT_MESSAGE", to="moved")
        frame = new.frame()

    assert reply["status"] == "delivered"
    assert frame is not None
    assert frame["to"] == "moved"


def test_stats_after_publishes_sees_them_all(daemon: Running) -> None:
    """On one connection, pipelined: what overlaps is over before the next other event begins."""
    with daemon.wire() as wire:
        before = wire.ask("message_bus:stats")["stats"]["history_size"]
        lines = []
        for n in range(20):
            data = {"agent_id": "x", "event_type": "N", "message": {"n": n}}
            lines += [{"event": "message:publish", "data": data}] * 5
            lines += [{"event": "message_bus:stats"}]
        wire.send(*lines)
        frames = wire.frames(120)

    sizes = [
        frame["data"]["stats"]["history_size"] for frame in frames if frame["event"] == "message_bus:stats"
    ]
    assert sizes == [min(1000, before + 5 * (n + 1)) for n in range(20)]


def test_health_fits_into_old_clients_buffers(daemon: Running) -> None:
    """A reply to system:health is under 4,096 bytes, one to plain system:discover under 64 KiB."""
    with daemon.wire() as wire:
        wire.send({"event": "system:health", "correlation_id": "c" * 40}, {"event": "system:discover"})
        health, discover = wire.frames(2)

    assert len(json.dumps(health)) < 4096
    assert len(json.dumps(discover)) < 65536
