"""Agents on both sides: spawned, ended, found; their answers reach the bus, and never become turns."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ksi_daemon.agent import AREA
from ksi_daemon.router import Event
from tests.rooms import SIDES
from tests.rooms import room as opened

SESSION = "11111111-2222-4333-8444-555555555555"


class Others:
    """The queue and the bus: they keep what they are asked, and a test says how a request ends."""

    def __init__(self):
        self.queued = []
        self.cancelled = []
        self.published = []
        self.refusing = {}
        self.at_once = None
        self.room: Any = None

    def events(self):
        """What the room asks."""
        return tuple(Event(name, getattr(self, name.replace(":", "_")), "") for name in self.names)

    names = ("completion:async", "completion:cancel", "message:publish")

    async def completion_async(self, data, _client):
        """Queue it, or refuse; with `at_once` the request is over before it is acknowledged."""
        if "completion" in self.refusing:
            return self.refusing["completion"]
        self.queued.append(data)
        if self.at_once is not None:
            self.answer(data["request_id"], self.at_once)
        return {"request_id": data["request_id"], "status": "queued"}

    async def completion_cancel(self, data, _client):
        """Cancel and tell so, as the queue does."""
        self.cancelled.append(data["request_id"])
        self.room.site.hub.tell("completion:cancelled", {"request_id": data["request_id"]})
        return {"request_id": data["request_id"], "status": "cancelled"}

    async def message_publish(self, data, _client):
        """Keep it, or refuse."""
        if "bus" in self.refusing:
            return self.refusing["bus"]
        self.published.append(data)
        return {"status": "delivered", "to": data["message"].get("to")}

    def runs(self, request):
        """Say that the command was called for it."""
        told = {"request_id": request, "session_id": None, "status": "calling_provider"}
        self.room.site.hub.tell("completion:progress", told)

    def answer(self, request, text, session=SESSION):
        """Say that it was answered."""
        response = {"type": "result", "result": text, "session_id": session}
        told = {"request_id": request, "result": {"ksi": {"request_id": request}, "response": response}}
        self.room.site.hub.tell("completion:result", told)

    def fail(self, request, **error):
        """Say that it failed."""
        self.room.site.hub.tell("completion:error", {"request_id": request, "session_id": None, **error})

    def kinds(self):
        """What was published, in order: type, on whose behalf, to whom."""
        return [(one["event_type"], one["agent_id"], one["message"].get("to")) for one in self.published]


@pytest.fixture
def others():
    """The rooms that this one asks."""
    return Others()


@pytest.fixture(params=SIDES)
async def room(request, tmp_path, others):
    """The room on either side."""
    area = replace(AREA, exercise=replace(AREA.exercise, neighbours=others.events))
    async with opened(area, request.param, tmp_path) as made:
        others.room = made
        await made.send("agent:create_identity", agent_id="kept")
        yield made


async def until(holds):
    """Let others run until it holds."""
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0)


async def status(room, agent):
    """An agent's status."""
    listed = await room.send("agent:list")
    return next(line["status"] for line in listed["agents"] if line["agent_id"] == agent)


async def test_a_spawned_agent_takes_a_turn_and_its_answer_reaches_the_bus(room, others):
    """Busy until it answers; then its session is known, and one COMPLETION_RESULT is published."""
    config = {"model": "claude-cli/opus", "allowed_tools": ["Read"], "max_turns": 3}
    reply = await room.send("agent:spawn", agent_id="coder", prompt="hello", config=config, profile="dev")
    asked = others.queued[0]
    before = await status(room, "coder")
    others.answer(reply["request_id"], "hi there")
    await until(lambda: others.published)

    assert reply == {
        "agent_id": "coder",
        "status": "created",
        "profile": "dev",
        "session_id": None,
        "request_id": asked["request_id"],
    }
    assert (asked["agent_id"], asked["prompt"], asked["model"]) == ("coder", "hello", "claude-cli/opus")
    assert asked["extra_body"]["ksi"]["permissions"] == {"allowed_tools": ["Read"]}
    assert asked["extra_body"]["ksi"]["max_turns"] == 3
    line = (await room.send("agent:list"))["agents"][0]
    assert (before, line["status"], line["session_id"]) == ("busy", "idle", SESSION)
    assert others.published == [
        {
            "agent_id": "coder",
            "event_type": "COMPLETION_RESULT",
            "message": {
                "client_id": "coder",
                "request_id": reply["request_id"],
                "result": {"response": "hi there", "session_id": SESSION, "model": "claude-cli/opus"},
            },
        }
    ]


async def test_an_answer_may_come_before_the_queue_has_acknowledged(room, others):
    """The request is known before it is sent, so its answer is published all the same."""
    others.at_once = "quick"
    reply = await room.send("agent:spawn", agent_id="coder", prompt="hello")
    await until(lambda: others.published)

    assert (reply["status"], await status(room, "coder")) == ("created", "idle")


async def test_an_agent_whose_first_turn_is_refused_is_not_there(room, others):
    """The queue's error is the reply; nobody has been added."""
    others.refusing["completion"] = {"error": "too many", "code": "queue_full", "retryable": True}
    reply = await room.send("agent:spawn", agent_id="coder", prompt="hello")

    assert reply == {"error": "too many", "code": "queue_full", "retryable": True}
    assert await room.send("agent:list") == {"agents": [], "count": 0}


async def test_an_id_is_spawned_once(room):
    """The second is refused with the first untouched; an id that nobody gave is made."""
    await room.send("agent:spawn", agent_id="coder")
    again = await room.send("agent:spawn", agent_id="coder")
    made = await room.send("agent:spawn")

    assert again == {"error": "Agent coder already exists", "code": "already_exists"}
    assert made["agent_id"].startswith("agent_")
    assert len(made["agent_id"]) == len("agent_") + 8


@pytest.mark.parametrize(("force", "ended"), [(False, ["waits"]), (True, ["runs", "waits"])])
async def test_terminate_cancels_what_waits_and_by_force_what_runs(room, others, force, ended):
    """Without force the turn that runs may end, and its answer is still published."""
    first = await room.send("agent:spawn", agent_id="coder", prompt="one")
    second = await room.send("agent:send_message", agent_id="coder", message={"content": "two"})
    others.published.clear()
    others.runs(first["request_id"])
    reply = await room.send("agent:terminate", agent_id="coder", force=force)
    others.answer(first["request_id"], "late")
    if not force:
        await until(lambda: others.published)

    names = {"runs": first["request_id"], "waits": second["request_id"]}
    assert reply["cancelled"] == [names[one] for one in ended]
    assert others.kinds() == ([] if force else [("COMPLETION_RESULT", "coder", None)])
    gone = await room.send("agent:terminate", agent_id="coder")
    assert gone == {"error": "Agent coder not found", "code": "not_found"}


async def test_two_agents_cannot_keep_each_other_busy(room, others):
    """An answer to another agent's message is told to it on the bus, and is no turn of it."""
    for agent in ("a", "b"):
        await room.send("agent:spawn", agent_id=agent)
    sent = await room.send("agent:send_message", agent_id="b", sender="a", message={"content": "/exit"})
    others.answer(sent["request_id"], "and you?")
    await until(lambda: len(others.published) == 3)

    assert [asked["prompt"] for asked in others.queued] == ["Message from a:\n/exit"]
    assert others.kinds() == [
        ("DIRECT_MESSAGE", "a", "b"),
        ("COMPLETION_RESULT", "b", None),
        ("DIRECT_MESSAGE", "b", "a"),
    ]
    assert others.published[2]["message"]["in_reply_to"] == sent["request_id"]


async def test_a_message_the_bus_refuses_is_no_turn(room, others):
    """The bus's error is the reply."""
    await room.send("agent:spawn", agent_id="coder")
    others.refusing["bus"] = {"error": "disk full", "code": "io_error", "errno": "ENOSPC"}
    reply = await room.send("agent:send_message", agent_id="coder", message={"content": "hi"})

    assert (reply["error"], reply["code"], others.queued) == ("disk full", "io_error", [])


async def test_a_broadcast_becomes_a_turn_of_each_spawned_agent(room, others):
    """Twenty are told, once over the bus; who is excluded, registered or the sender is not asked."""
    names = [f"agent-{number}" for number in range(22)]
    for name in names:
        await room.send("agent:spawn", agent_id=name)
    said = {"content": "all"}
    reply = await room.send("agent:broadcast", message=said, sender=names[0], exclude_agents=[names[1]])

    assert (reply["agents"], reply["delivered"], reply["total"]) == (names[2:], 20, 20)
    assert others.kinds() == [("BROADCAST", names[0], None)]
    assert [asked["agent_id"] for asked in others.queued] == names[2:]


async def test_tasks_go_to_whoever_has_least_to_do(room, others):
    """Four tasks for two capable agents: two each, the oldest first; nobody capable is an error."""
    for agent, able in (("a", ["c"]), ("b", ["c", "rust"]), ("x", ["go"])):
        await room.send("agent:spawn", agent_id=agent, capabilities=able)
    routed = [
        await room.send("agent:route_task", task=f"t{number}", required_capabilities=["c"])
        for number in range(4)
    ]
    nobody = await room.send("agent:route_task", task="t", required_capabilities=["cobol"])

    assert [reply["agent_id"] for reply in routed] == ["a", "b", "a", "b"]
    assert nobody == {"error": "No capable agent found", "code": "no_recipient"}


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [
        ("answer", ("answered", "fine", None)),
        ("fail", (None, None, "api_error")),
        ("terminate", (None, None, "cancelled")),
    ],
)
async def test_a_sender_may_wait_for_the_response(room, others, ends, wanted):
    """It gets the text, the turn's own error, or that the agent was terminated meanwhile."""
    await room.send("agent:spawn", agent_id="coder")
    data = {"agent_id": "coder", "message": {"content": "well?"}, "wait_for_response": True}
    waiting = asyncio.create_task(room.send("agent:send_message", **data))
    await until(lambda: others.queued)
    request = others.queued[0]["request_id"]
    if ends == "answer":
        others.answer(request, "fine")
    elif ends == "fail":
        others.fail(request, error="API Error: 500", code="api_error")
    else:
        await room.send("agent:terminate", agent_id="coder")
    reply = await waiting

    assert (reply.get("status"), reply.get("response"), reply.get("code")) == wanted


async def test_a_wait_for_the_response_ends(room):
    """After the timeout it is an error that names the request; the agent stays busy."""
    await room.send("agent:spawn", agent_id="coder")
    said = {"content": "well?"}
    reply = await room.send(
        "agent:send_message", agent_id="coder", message=said, wait_for_response=True, timeout=0.01
    )

    assert (reply["code"], reply["retryable"]) == ("turn_timeout", False)
    assert await status(room, "coder") == "busy"


async def test_a_stop_tells_those_who_wait(room, others):
    """They hear that the daemon stops, and an answer that comes later is not published."""
    await room.send("agent:spawn", agent_id="coder")
    data = {"agent_id": "coder", "message": {"content": "well?"}, "wait_for_response": True}
    waiting = asyncio.create_task(room.send("agent:send_message", **data))
    await until(lambda: others.queued)
    await room.service.stop()
    reply = await waiting
    published = len(others.published)
    others.answer(others.queued[0]["request_id"], "late")
    await asyncio.sleep(0)

    assert (reply["code"], len(others.published)) == ("shutting_down", published)


async def test_restart_spawns_it_anew(room, others):
    """Its settings and prompt are the same, its session is a new one, its old request is cancelled."""
    first = await room.send("agent:spawn", agent_id="coder", prompt="go", session_id=SESSION, model="m")
    reply = await room.send("agent:restart", agent_id="coder")

    assert (reply["status"], others.cancelled) == ("restarted", [first["request_id"]])
    assert [(asked["prompt"], asked["model"], asked.get("session_id")) for asked in others.queued] == [
        ("go", "m", SESSION),
        ("go", "m", None),
    ]
    assert [begins_anew(asked) for asked in others.queued] == [False, True]


async def test_only_the_first_request_begins_a_new_session(room, others):
    """What an earlier agent of that id said is forgotten; afterwards its own session goes on."""
    await room.send("agent:spawn", agent_id="coder", config={"allowed_tools": ["Read"]})
    await room.send("agent:send_message", agent_id="coder", message={"content": "one"})
    await room.send("agent:send_message", agent_id="coder", message={"content": "two"})

    assert [begins_anew(asked) for asked in others.queued] == [True, False]
    assert all(asked["extra_body"]["ksi"]["permissions"] for asked in others.queued)


def begins_anew(asked):
    """Whether a request asks for a new session."""
    return asked.get("extra_body", {}).get("ksi", {}).get("new_session", False)


async def test_registered_agents_take_no_turns(room, others):
    """They are written to on the bus alone, listed, found and forgotten."""
    known = await room.send("agent:register", agent_id="ide", info={"capabilities": ["rust"]})
    await room.send("agent:spawn", agent_id="coder", originator_agent_id="ide")
    sent = await room.send("agent:send_message", agent_id="ide", message={"content": "hi"})
    peers = await room.send("agent:discover_peers", agent_id="coder", capabilities=["rust"])
    constructs = await room.send("agent:list_constructs", originator_id="ide")
    able = await room.send("agent:get_capabilities")
    gone = await room.send("agent:unregister", agent_id="ide")

    assert known == {"agent_id": "ide", "status": "registered"}
    assert (sent["request_id"], others.queued) == (None, [])
    assert [(peer["agent_id"], peer["status"]) for peer in peers["peers"]] == [("ide", "registered")]
    assert [construct["agent_id"] for construct in constructs["constructs"]] == ["coder"]
    assert able == {"capabilities": {"ide": ["rust"], "coder": []}}
    assert gone == {"agent_id": "ide", "status": "unregistered"}


async def test_a_failed_turn_shows_until_the_next_answer(room, others):
    """The status is `failed`, then `idle` again."""
    first = await room.send("agent:spawn", agent_id="coder", prompt="one")
    others.fail(first["request_id"], error="no", code="api_error")
    failed = await status(room, "coder")
    second = await room.send("agent:send_message", agent_id="coder", message={"content": "two"})
    others.answer(second["request_id"], "yes")

    assert (failed, await status(room, "coder")) == ("failed", "idle")
