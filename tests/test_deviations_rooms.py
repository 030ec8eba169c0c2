"""Where the bus and the token usage log differ from the original's: a test for each row of the table."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from ksi_daemon.messaging.service import MessageBus
from ksi_daemon.settings import load
from ksi_daemon.site import Site
from tests.line_client import Bench, LineClient, daemon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BUS = "var/logs/responses/message_bus.jsonl"
USAGE = "var/logs/daemon/tool_usage.jsonl"


@pytest.fixture(params=["sync", "async"])
def side(request: pytest.FixtureRequest) -> str:
    """The stage of both rooms."""
    return str(request.param)


@pytest.fixture
async def bench(tmp_path: Path, side: str) -> AsyncIterator[Bench]:
    """A running daemon with both rooms on the side under test."""
    async with daemon(tmp_path, messaging=side, completion=side) as running:
        yield running


@pytest.fixture
async def client(bench: Bench) -> LineClient:
    """A connection to it."""
    return await bench.client()


def records(root: Path, name: str = BUS) -> list[dict[str, Any]]:
    """The log's lines as values."""
    path = root / name
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def publish(client: LineClient, kind: str, sender: str = "planner", **message: Any) -> Any:
    """The reply to one publish."""
    return await client.ask("message:publish", agent_id=sender, event_type=kind, message=message)


async def record(client: LineClient, **usage: Any) -> Any:
    """The reply to one usage record of the agent `coder`."""
    return await client.ask("completion:record_usage", model="m", agent_id="coder", usage=usage)


class Reader:
    """A client that takes what it is sent, or refuses it."""

    def __init__(self, *, gone: bool = False, slow: bool = False) -> None:
        self.taken: list[bytes] = []
        self._gone = gone
        self._may_write = asyncio.Event()
        if not slow:
            self._may_write.set()

    def send(self, frame: bytes) -> bool:
        """Keep the frame unless the client is gone."""
        if not self._gone:
            self.taken.append(frame)
        return not self._gone

    async def writable(self) -> None:
        """Wait for `read`."""
        await self._may_write.wait()

    def read(self) -> None:
        """Let writers go on."""
        self._may_write.set()

    def on_close(self, call: Any) -> None:
        """Never closes."""


class Memory:
    """A log that keeps nothing."""

    async def append(self, line: bytes) -> None:
        """Accept the line."""


def bus(tmp_path: Path) -> MessageBus:
    """The service of the bus without a daemon."""
    return MessageBus(Memory(), Site("messaging", load(tmp_path)))


async def test_connect_registers_the_connection(bench: Bench, client: LineClient) -> None:
    """After `message:connect` and `message:subscribe` a message arrives on that connection as one line."""
    reader = await bench.client()
    await reader.ask("message:connect", agent_id="coder")
    assert (await reader.ask("message:subscribe", agent_id="coder", event_types=["NOTE"]))[
        "status"
    ] == "subscribed"

    assert (await publish(client, "NOTE", text="hi"))["delivered_to"] == ["coder"]

    assert (await reader.line())["text"] == "hi"


@pytest.mark.parametrize(
    ("kind", "text"),
    [("DIRECT_MESSAGE", "No recipient specified"), ("TASK_ASSIGNMENT", "No capable agent found")],
)
async def test_nobody_to_deliver_to_writes_nothing(
    bench: Bench, client: LineClient, kind: str, text: str
) -> None:
    """A message with no recipient is refused before it is logged, with the original's text."""
    expected = {"error": text, "code": "no_recipient"}

    assert expected == await publish(client, kind)

    assert records(bench.root) == []
    assert (await client.ask("message_bus:stats"))["stats"]["history_size"] == 0


async def test_a_refused_subscribe_is_forgotten(client: LineClient) -> None:
    """An agent that is not connected is refused, and its types are not remembered."""
    reply = await client.ask("message:subscribe", agent_id="ghost", event_types=["NOTE"])

    assert reply["code"] == "not_connected"
    assert (await client.ask("message:subscriptions", agent_id="ghost"))["subscriptions"] == []


async def test_all_subscriptions_are_answered(client: LineClient) -> None:
    """`message:subscriptions` without an agent has a reply when there are some."""
    await client.ask("message:connect", agent_id="coder")
    await client.ask("message:subscribe", agent_id="coder", event_types=["NOTE", "BROADCAST"])

    reply = await client.ask("message:subscriptions")

    assert reply == {"all_subscriptions": {"coder": ["NOTE", "BROADCAST"]}}


async def test_lists_keep_the_order_of_the_subscriptions(client: LineClient) -> None:
    """Agents stand in the order in which they subscribed, not in the order of a set."""
    agents = [f"agent-{number}" for number in range(20)]
    for agent in agents:
        await client.ask("message:connect", agent_id=agent)
        await client.ask("message:subscribe", agent_id=agent, event_types=["NOTE"])

    client.send("message:publish", {"agent_id": "a", "event_type": "NOTE"}, "p")
    while (reply := await client.line()).get("correlation_id") != "p":
        pass

    assert agents == reply["data"]["delivered_to"]


async def test_a_lost_recipient_is_queued_without_an_error(tmp_path: Path) -> None:
    """A recipient whose connection takes nothing gets the message later; the reply says only queued."""
    service = bus(tmp_path)
    await service.connect({"agent_id": "coder"}, Reader(gone=True))
    message = {"agent_id": "a", "event_type": "DIRECT_MESSAGE", "message": {"to": "coder"}}

    assert await service.publish(message, None) == {"status": "queued", "to": "coder", "notified": []}


async def test_new_messages_wait_behind_old_ones(tmp_path: Path) -> None:
    """While an agent's waiting messages are being sent, a new one joins them: it overtakes none."""
    service, reader = bus(tmp_path), Reader(slow=True)
    message = {"agent_id": "a", "event_type": "DIRECT_MESSAGE", "message": {"to": "late"}}
    await service.publish(message, None)
    await service.connect({"agent_id": "late"}, reader)

    assert (await service.publish(message, None))["status"] == "queued"

    reader.read()
    while len(reader.taken) < 2:
        await asyncio.sleep(0)
    await service.stop()
    ids = [float(json.loads(line)["id"]) for line in reader.taken]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("message", "text"),
    [("text", "message must be an object, not str"), (None, "message must be an object, not NoneType")],
)
async def test_a_wrong_type_is_named(client: LineClient, message: object, text: str) -> None:
    """The error names the parameter and the type, before anything is written."""
    reply = await client.ask("message:publish", agent_id="a", event_type="T", message=message)

    assert {"error": text, "code": "invalid_parameter"} == reply


async def test_missing_directories_are_made(tmp_path: Path, side: str) -> None:
    """On an empty tree the first message is in its file: the daemon makes the directories it writes to."""
    async with daemon(tmp_path, messaging=side) as bench:
        await publish(await bench.client(), "NOTE")

    assert len(records(tmp_path)) == 1


async def test_usage_comes_from_outside_too(bench: Bench, client: LineClient) -> None:
    """`completion:record_usage`, an event of ours, writes the record that the original wrote by itself."""
    await record(client, input_tokens=100, output_tokens=20)

    (line,) = records(bench.root, USAGE)

    assert list(line)[:7] == [
        "event",
        "timestamp",
        "request_id",
        "session_id",
        "agent_id",
        "model",
        "provider",
    ]
    assert (line["event"], line["total_tokens"]) == ("token_usage", 120)
