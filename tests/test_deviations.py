"""Where the wire and the life of this daemon differ from the original's: a test for each row of the table."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from ksi_daemon import __version__, wire
from ksi_daemon.errors import InvalidJson, Unserialisable
from ksi_daemon.linefile import LineFile
from ksi_daemon.registry import BUILT
from ksi_daemon.router import Event, Router
from tests.line_client import Bench, LineClient, daemon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["sync", "async"])
async def bench(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A running daemon with both rooms on the side under test."""
    async with daemon(tmp_path, messaging=request.param, completion=request.param) as running:
        yield running


@pytest.fixture
async def client(bench: Bench) -> LineClient:
    """A connection to it."""
    return await bench.client()


@pytest.mark.parametrize(
    ("line", "keys", "code"),
    [
        (b"\n", {"error", "code"}, "invalid_json"),
        (b"{}\n", {"error", "code"}, "invalid_request"),
        (
            b'{"event":5}\n',
            {"event", "error", "correlation_id", "timestamp", "code"},
            "invalid_request",
        ),
    ],
)
async def test_errors_outside_data_carry_a_code(
    client: LineClient, line: bytes, keys: set[str], code: str
) -> None:
    """Shapes 1 and 2 keep the original's keys and gain `code`."""
    reply = await client.exchange(line)

    assert keys == set(reply)
    assert code == reply["code"]


async def test_errors_of_handlers_carry_a_code(client: LineClient) -> None:
    """Shape 3 keeps the original's text and gains `code` inside `data`."""
    expected = {"error": "agent_id required", "code": "missing_parameter"}

    assert expected == await client.ask("message:publish")


async def test_lines_are_compact_utf8(client: LineClient) -> None:
    """A reply has no spaces between its parts and no escapes for letters beyond ASCII."""
    client.send("no:such", correlation_id="é")

    line = await client.raw()

    assert '"correlation_id":"é","timestamp":'.encode() in line


async def test_invalid_json_keeps_its_prefix(client: LineClient) -> None:
    """`Invalid JSON: ` stands, and the decoder's own text follows."""
    reply = await client.exchange(b"{]\n")

    assert reply["error"].startswith("Invalid JSON: ")


async def test_a_line_over_the_limit_is_answered(client: LineClient) -> None:
    """A line of 65,537 bytes is served, one over 1 MiB gets an error, and the connection goes on."""
    padding = {"pad": "x" * 65_537}
    assert (await client.ask("system:health", **padding))["status"] == "healthy"

    reply = await client.exchange(b"x" * (1024 * 1024 + 1) + b"\n")

    assert reply["code"] == "line_too_long"
    assert (await client.ask("system:health"))["status"] == "healthy"


@pytest.mark.parametrize("line", [b"[1]\n", b"7\n", b"null\n", b'"\xff"\n', b"\xff\xfe\n"])
async def test_what_is_no_object_is_answered(client: LineClient, line: bytes) -> None:
    """A line that is no object or no UTF-8 gets an error where the original hung up."""
    reply = await client.exchange(line)

    assert reply["code"] in ("invalid_request", "invalid_json")
    assert (await client.ask("system:health"))["status"] == "healthy"


@pytest.mark.parametrize(("data", "named"), [(None, "null"), ([], "an array"), ("x", "a string")])
async def test_data_that_is_no_object_is_named(client: LineClient, data: object, named: str) -> None:
    """The text says what `data` is and what it must be, not which attribute Python missed."""
    line = json.dumps({"event": "system:health", "data": data}).encode() + b"\n"

    reply = await client.exchange(line)

    assert reply["error"] == f"data must be an object, not {named}"


@pytest.mark.parametrize(
    "value", [b"NaN", b"Infinity", b"1e999", b"18446744073709551616", b"-9223372036854775809", b'"\\ud800"']
)
async def test_what_json_cannot_carry_is_refused(client: LineClient, value: bytes) -> None:
    """NaN, infinities, integers beyond 64 bits and lone surrogates are an error, never another value."""
    reply = await client.exchange(b'{"event":"system:health","data":{"x":' + value + b"}}\n")

    assert reply["code"] == "invalid_json"


def test_a_result_that_is_no_json_is_an_error() -> None:
    """A set becomes a sorted list, and what cannot be written at all raises: no client waits for ever."""
    assert wire.encode({"s": {"b", "a"}}) == b'{"s":["a","b"]}\n'

    with pytest.raises(Unserialisable):
        wire.encode(object())
    with pytest.raises(InvalidJson):
        wire.decode(b"NaN")


async def test_pipelined_publishes_share_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the async side the next publish is taken up while one is being written; replies keep their order."""
    writes: list[int] = []
    append = LineFile.append

    def counted(self: LineFile, data: bytes, *more: Any) -> None:
        writes.append(data.count(b"\n"))
        append(self, data, *more)

    async with daemon(tmp_path, messaging="async") as bench:
        client = await bench.client()
        monkeypatch.setattr(LineFile, "append", counted)
        for number in range(100):
            client.send("message:publish", {"agent_id": "a", "event_type": "T"}, number)
        order = [(await client.line())["correlation_id"] for _ in range(100)]
        monkeypatch.undo()

    assert order == list(range(100))
    assert max(writes) > 1


async def test_unknown_events_carry_a_code(client: LineClient) -> None:
    """An unknown event has the original's shape and gains `code`."""
    reply = await client.ask("message:publsh")

    assert {"status", "error", "code", "details"} == set(reply)
    assert "message:publish" in reply["details"]["similar"]


async def test_a_fault_in_a_handler_is_named() -> None:
    """An AttributeError is reported as itself, not as a missing parameter, and without searching any code."""

    async def broken(_data: Any, _client: Any) -> None:
        raise AttributeError("'str' object has no attribute 'get'")

    router = Router()
    router.add((Event("a:b", broken, "fails"),))

    (reply,) = await router.emit("a:b", {})

    assert reply["code"] == "handler_failed"
    assert reply["error"] == "AttributeError: 'str' object has no attribute 'get'"


async def test_shutdown_sends_each_frame_once(bench: Bench) -> None:
    """The notification and the reply come once, then `complete`, then the connection ends."""
    client = await bench.client()
    client.send("system:shutdown", correlation_id=1)

    lines = []
    while line := await client.raw():
        lines.append(json.loads(line))

    *first, last = [line["event"] for line in lines]
    assert sorted(first) == ["system:shutdown", "system:shutdown_notification"]
    assert last == "system:shutdown_complete"
    assert lines[-1]["data"]["services"] == [area.name for area in BUILT]


async def test_shutdown_answers_for_itself(client: LineClient) -> None:
    """The reply to `system:shutdown` is one result: no other handler answers it."""
    assert await client.ask("system:shutdown") == {"status": "shutdown_initiated"}


async def test_requests_after_the_stop_began_are_refused(bench: Bench) -> None:
    """What was read before the stop is finished and answered; what comes later gets `shutting_down`."""
    early, other, late = [await bench.client() for _ in range(3)]
    await late.ask("system:health")
    early.send("event:emit", {"event": "system:health", "delay": 0.3}, "early")
    await other.ask("system:health")
    other.send("system:shutdown")
    while (await late.line())["event"] != "system:shutdown_notification":
        pass
    await asyncio.sleep(0)

    refused = await late.exchange(b'{"event":"system:health"}\n')

    assert refused["code"] == "shutting_down"
    replies = [json.loads(await early.raw()) for _ in range(2)]
    assert "healthy" in [reply["data"].get("status") for reply in replies]


async def test_a_repeated_shutdown_is_harmless(bench: Bench) -> None:
    """Two shutdown requests in one piece are both answered, and the end is a clean one."""
    client = await bench.client()
    client.write(b'{"event":"system:shutdown"}\n{"event":"system:shutdown"}\n')

    lines = []
    while line := await client.raw():
        lines.append(json.loads(line)["event"])

    assert lines.count("system:shutdown") == 2
    assert await bench.serving is True


async def test_startup_initialises_nothing_twice(client: LineClient) -> None:
    """A client that sends `system:startup` is answered, and nothing that the daemon holds is reset."""
    await client.ask("message:connect", agent_id="a")
    before = await client.ask("message_bus:stats")

    await client.ask("system:startup")

    assert before == await client.ask("message_bus:stats")


async def test_health_names_our_version(client: LineClient) -> None:
    """`version` is this package's, and the reply stays under the 4,096 bytes that old clients read."""
    health = await client.ask("system:health")

    assert health["version"] == __version__
    assert len(json.dumps(health)) < 3500


async def test_details_come_from_declarations(client: LineClient) -> None:
    """Parameters are what the handler declares: no source is analysed; the plain list stays under 64 KiB."""
    plain = await client.ask("system:discover")
    detailed = await client.ask("system:discover", detail=True, event="message:publish")

    assert len(json.dumps(plain)) < 65_536
    parameters = detailed["events"]["message:publish"]["parameters"]
    assert list(parameters) == ["agent_id", "event_type", "message"]
    assert detailed["events"]["message:publish"]["triggers"] == []


async def test_priorities_are_all_normal(client: LineClient) -> None:
    """Handlers of an event begin in the order of their registration, so each shows the normal priority."""
    events = (await client.ask("module:events"))["events"]

    assert {handler["priority"] for handlers in events.values() for handler in handlers} == {50}


async def test_delay_must_be_a_number(client: LineClient) -> None:
    """`event:emit` with a delay that is no number of seconds is refused."""
    reply = await client.ask("event:emit", event="system:health", delay="soon")

    assert reply["code"] == "invalid_parameter"


async def test_changes_are_told_to_those_who_ask(bench: Bench) -> None:
    """`migration:changed` frames go to subscribed connections only: old clients know no such frame."""
    asked, silent = await bench.client(), await bench.client()
    await asked.ask("migration:subscribe")
    status = await asked.ask("migration:status")
    now = {part["name"]: part["effective"] for part in status["components"]}["messaging"]
    text = (bench.root / "flags.yaml").read_text()
    other = {"sync": "async", "async": "sync"}[now]

    (bench.root / "flags.yaml").write_text(text.replace(f"messaging: {now}", f"messaging: {other}"))
    frame = await asked.line()

    assert (frame["event"], frame["data"]["to"]) == ("migration:changed", other)
    silent.send("system:health")
    assert (await silent.line())["event"] == "system:health"
