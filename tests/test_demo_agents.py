"""The demo's agents: each gets the answer to its own turn, and what goes wrong with one fails the step."""

from __future__ import annotations

import asyncio
import json

import pytest

from ksi_migrate import demo_agents
from ksi_migrate.demo_agents import ledgers, take_turns
from ksi_migrate.demo_command import StepFailed


async def answering(tmp_path, answer):
    """A server that answers each request with the frames of `answer(request)`."""

    async def serve(reader, writer):
        while line := await reader.readline():
            for frame in answer(json.loads(line)):
                writer.write(json.dumps(frame).encode() + b"\n")
        writer.close()

    return await asyncio.start_unix_server(serve, tmp_path / "sock")


def spawned(request, **data):
    """The reply to agent:spawn."""
    name = request["correlation_id"]
    return {"event": "agent:spawn", "data": {"request_id": f"r-{name}", **data}, "correlation_id": name}


def ended(request, kind="result", **data):
    """The frame at the end of its turn."""
    return {"event": f"completion:{kind}", "data": {"request_id": f"r-{request['correlation_id']}", **data}}


async def test_everybody_is_answered(tmp_path):
    """Also when a frame comes before the reply that names its request; progress is passed over."""

    def answer(request):
        frames = [ended(request, "progress"), spawned(request), ended(request)]
        return frames if request["correlation_id"] == "a" else frames[::-1]

    async with await answering(tmp_path, answer):
        seconds = await take_turns(tmp_path / "sock", ["a", "b"], 0.1)

    assert seconds > 0


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda request: [spawned(request, error="no room")], "an agent was not spawned: no room"),
        (lambda request: [spawned(request, request_id=None)], "an agent was not spawned"),
        (lambda request: [spawned(request), ended(request, "error", error="429")], "turn failed: 429"),
        (
            lambda request: [spawned(request), ended(request, "cancelled")],
            "turn failed: completion:cancelled",
        ),
        (lambda request: [{"error": "shutting down"}], "shutting down"),
        (
            lambda request: [spawned(request), {**ended(request), "data": {"request_id": "another"}}],
            "of 1 agents only 0 were answered",
        ),
    ],
)
async def test_what_goes_wrong_fails_the_step(tmp_path, answer, text):
    """With what the daemon said."""
    async with await answering(tmp_path, answer):
        with pytest.raises(StepFailed, match=text):
            await take_turns(tmp_path / "sock", ["a"], 0.1)


async def test_a_daemon_that_hangs_up_fails_the_step(tmp_path):
    """Before it has answered, or before it was reached."""

    async def hang_up(_reader, writer):
        writer.close()

    with pytest.raises(StepFailed, match="hung up on the agents"):
        await take_turns(tmp_path / "sock", ["a"], 0.1)
    async with await asyncio.start_unix_server(hang_up, tmp_path / "sock"):
        with pytest.raises(StepFailed, match="hung up"):
            await take_turns(tmp_path / "sock", ["a"], 0.1)


async def test_agents_without_an_answer_are_not_waited_for_ever(tmp_path, monkeypatch):
    """After the patience the step has failed."""
    monkeypatch.setattr(demo_agents, "PATIENCE_S", 0.05)

    async with await answering(tmp_path, lambda _request: []):
        with pytest.raises(StepFailed, match=r"1 agents had no answer within 0\.05 s"):
            await take_turns(tmp_path / "sock", ["a"], 0.1)


def test_an_answered_agent_was_promised_a_record_in_each_log():
    """Its answer on the bus, its tokens in the usage log."""
    found = [(one.client, one.component, one.sent, one.acknowledged) for one in ledgers(["a"])]

    assert found == [("a", "messaging", 1, frozenset({0})), ("a", "completion", 1, frozenset({0}))]
