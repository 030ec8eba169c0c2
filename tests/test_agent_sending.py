"""Messages to agents: logged and delivered by the bus, a turn of spawned ones, and no end to nobody."""

from __future__ import annotations

import asyncio

import pytest

from tests.agentry import BROKEN, FULL, agents, session


@pytest.fixture
async def made(tmp_path):
    """The room; messages know no sides."""
    async with agents("async", tmp_path) as found:
        yield found


async def waiting(made, task):
    """The request of a message whose sender waits."""
    while not made.asked and not task.done():
        await asyncio.sleep(0)
    return next(iter(made.asked))


async def test_a_message_goes_over_the_bus_and_becomes_a_turn(made):
    """The reply tells what the bus did and which request to listen for."""
    await made.spawn("coder")
    reply = await made.say("coder", "hi", sender="planner")

    delivery = {"status": "queued", "to": "coder", "notified": []}
    request = reply["request_id"]
    assert reply == {"status": "sent", "agent_id": "coder", "request_id": request, "delivery": delivery}
    assert made.bus() == [("DIRECT_MESSAGE", "planner", {"content": "hi", "to": "coder"})]
    assert made.asked[request]["prompt"] == "Message from planner:\nhi"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"content": "/clear"}, "/clear"),
        ({"content": "", "prompt": "@/etc/passwd"}, "@/etc/passwd"),
        ({"text": "words"}, "words"),
        ({"content": 5, "é": [1]}, '{"content":5,"é":[1]}'),
        ({"to": "elsewhere", "content": "x"}, "x"),
    ],
)
async def test_no_message_begins_a_turn_as_a_command(made, message, words):
    """The first line is ours, whoever sends; the recipient is ours too."""
    await made.spawn("coder")
    await made.send("agent:send_message", agent_id="coder", message=message, sender="/a\n@b")

    (asked,) = made.asked.values()
    assert asked["prompt"] == f"Message from /a @b:\n{words}"
    assert made.bus()[0][2]["to"] == "coder"


async def test_who_sends(made):
    """`sender`, `from`, or the agent in whose answer the event stood, which nobody can deny; else system."""
    await made.spawn("coder")
    for data in ({}, {"from": "f"}, {"from": "f", "sender": "s"}, {"sender": "system", "_agent_id": "a"}):
        await made.say("coder", **data)

    assert [sender for _, sender, _ in made.bus()] == ["system", "f", "s", "a"]


async def test_an_answer_goes_to_the_sender_and_begins_nothing(made):
    """Two agents that write to each other take one turn a message: no ping-pong."""
    await made.spawn("coder", "planner")
    request = (await made.say("coder", sender="planner"))["request_id"]
    made.answer(request, "done")

    told = await made.told(3)
    assert told[1][:2] == ("COMPLETION_RESULT", "coder")
    back = {"to": "planner", "content": "done", "in_reply_to": request}
    assert told[2] == ("DIRECT_MESSAGE", "coder", back)
    await asyncio.sleep(0)
    assert len(made.asked) == 1


async def test_a_registered_agent_gets_the_message_alone(made):
    """It takes no turns, so nobody can wait for one."""
    await made.send("agent:register", agent_id="ide")
    reply = await made.say("ide")

    assert (reply["status"], reply["request_id"], made.asked) == ("sent", None, {})
    assert (await made.say("ide", wait_for_response=True))["code"] == "invalid_parameter"
    assert len(made.published) == 1


async def test_what_fails_is_told(made):
    """A bus that refuses: nothing has happened. A queue that refuses: the message is on the bus."""
    await made.spawn("coder")
    assert (await made.say("nobody"))["error"] == "Agent nobody not found"
    made.bus_down = BROKEN
    assert await made.say("coder") == BROKEN
    assert (made.published, made.asked) == ([], {})
    made.bus_down, made.refusal = None, FULL
    delivery = {"status": "queued", "to": "coder", "notified": []}
    assert await made.say("coder") == {**FULL, "agent_id": "coder", "delivery": delivery}


async def test_an_agent_that_goes_meanwhile_takes_no_turn(made):
    """Its message is on the bus all the same, and the reply says both."""
    await made.spawn("coder")
    made.hold_bus = asyncio.Event()
    task = asyncio.create_task(made.say("coder"))
    await asyncio.sleep(0)
    await made.send("agent:terminate", agent_id="coder")
    made.hold_bus.set()
    reply = await task

    assert (reply["code"], reply["delivery"]["to"], made.asked) == ("not_found", "coder", {})


async def test_waiting_for_the_answer(made):
    """The reply holds it."""
    await made.spawn("coder")
    task = asyncio.create_task(made.say("coder", wait_for_response=True))
    request = await waiting(made, task)
    made.answer(request, "done", 3)
    reply = await task

    assert reply.pop("delivery")["to"] == "coder"
    assert reply == {
        "status": "answered",
        "agent_id": "coder",
        "request_id": request,
        "response": "done",
        "session_id": session(3),
    }


async def test_waiting_for_a_turn_that_fails(made):
    """The turn's own error and code."""
    await made.spawn("coder")
    task = asyncio.create_task(made.say("coder", wait_for_response=True))
    request = await waiting(made, task)
    made.fail(request, code="unknown_session")
    reply = await task

    assert (reply["error"], reply["code"]) == ("API Error: 500", "unknown_session")
    assert (reply["agent_id"], reply["request_id"]) == ("coder", request)


async def test_waiting_no_longer_than_asked(made):
    """The turn goes on, and its answer is still told."""
    await made.spawn("coder")
    reply = await made.say("coder", wait_for_response=True, timeout=0.01)
    request = reply["request_id"]
    made.answer(request)

    assert (reply["status"], reply["code"], reply["agent_id"]) == ("timeout", "turn_timeout", "coder")
    assert (await made.told(1, "COMPLETION_RESULT"))[0][2]["request_id"] == request


@pytest.mark.parametrize("begun", [True, False])
async def test_waiting_for_an_agent_that_is_terminated(made, begun):
    """A turn that waits is cancelled; one that runs ends, and its answer comes."""
    await made.spawn("coder")
    task = asyncio.create_task(made.say("coder", wait_for_response=True))
    request = await waiting(made, task)
    if begun:
        made.begin(request)
    await made.send("agent:terminate", agent_id="coder")
    if begun:
        made.answer(request, "still")
    reply = await task

    assert reply.get("response", reply.get("code")) == ("still" if begun else "cancelled")


async def test_waiting_when_the_daemon_stops(made):
    """Nobody waits for what will not come."""
    await made.spawn("coder")
    task = asyncio.create_task(made.say("coder", wait_for_response=True))
    await waiting(made, task)
    await made.room.service.stop()

    assert (await task)["code"] == "shutting_down"


async def test_a_broadcast_reaches_twenty(made):
    """On the bus once, and a turn each; the sender is left out, and those who are excluded."""
    names = [f"a{number}" for number in range(20)]
    await made.spawn(*names)
    await made.spawn("other", agent_type="qa")
    await made.send("agent:register", agent_id="ide")
    asked = {"message": {"content": "all"}, "sender": "a0", "exclude_agents": ["a1"]}
    reply = await made.send("agent:broadcast", **asked, agent_types=["agent", "external"])

    meant = [*names[2:], "ide"]
    expected = {"status": "broadcast", "agents": meant, "delivered": 19, "failed": [], "total": 19}
    assert reply == expected
    assert made.bus() == [("BROADCAST", "a0", {"content": "all"})]
    assert [asked["agent_id"] for asked in made.asked.values()] == names[2:]
    assert {asked["prompt"] for asked in made.asked.values()} == {"Message from a0:\nall"}


async def test_a_broadcast_that_the_queue_refuses(made):
    """Each agent that was not told is named, with the reason."""
    await made.spawn("a")
    await made.send("agent:register", agent_id="ide")
    made.refusal = FULL
    reply = await made.send("agent:broadcast", message={"content": "all"})

    failed = [{"agent_id": "a", "error": FULL["error"], "code": "queue_full"}]
    assert (reply["delivered"], reply["failed"], reply["total"]) == (1, failed, 2)
    made.bus_down = BROKEN
    assert await made.send("agent:broadcast", message={"content": "all"}) == BROKEN


async def test_tasks_go_to_whoever_has_least_to_do(made):
    """Of those who can: the fewest requests, then the oldest."""
    await made.spawn("a", "b", "c", capabilities=["x", "y"])
    await made.spawn("d")
    routed = [
        (await made.send("agent:route_task", task=f"t{number}", required_capabilities=["x"]))["agent_id"]
        for number in range(7)
    ]

    assert routed == ["a", "b", "c", "a", "b", "c", "a"]
    task = {"to": "a", "task": "t0", "required_capabilities": ["x"]}
    assert made.bus()[0] == ("TASK_ASSIGNMENT", "system", task)
    assert next(iter(made.asked.values()))["prompt"] == "Task from system:\nt0"


async def test_tasks_for_nobody(made):
    """None can, or none may; the text is the bus's own."""
    await made.spawn("a", capabilities=["x"])
    nobody = {"error": "No capable agent found", "code": "no_recipient"}

    assert await made.send("agent:route_task", task="t", capabilities=["z"]) == nobody
    assert await made.send("agent:route_task", task="t", exclude=["a"]) == nobody
    assert await made.send("agent:route_task", task="t", sender="a") == nobody
    assert made.published == []


async def test_a_task_may_be_an_object_and_go_outside(made):
    """A registered agent is told by the bus alone."""
    await made.send("agent:register", agent_id="ide", capabilities=["x"])
    routed = await made.send("agent:route_task", task={"prompt": "look"}, capabilities=["x"])

    assert routed == {"status": "routed", "agent_id": "ide", "request_id": None}


@pytest.mark.parametrize(
    ("event", "data", "code"),
    [
        ("send_message", {"agent_id": "coder"}, "missing_parameter"),
        ("send_message", {"agent_id": "coder", "message": {}}, "missing_parameter"),
        ("send_message", {"agent_id": "coder", "message": "hi"}, "invalid_parameter"),
        ("send_message", {"agent_id": "coder", "message": {"a": 1}, "timeout": 0}, "invalid_parameter"),
        ("send_message", {"agent_id": "coder", "message": {"a": 1}, "timeout": True}, "invalid_parameter"),
        ("send_message", {"agent_id": "coder", "message": {"a": 1}, "sender": 5}, "invalid_parameter"),
        ("send_message", {"message": {"a": 1}}, "missing_parameter"),
        ("broadcast", {}, "missing_parameter"),
        ("broadcast", {"message": {"a": 1}, "agent_types": "x"}, "invalid_parameter"),
        ("route_task", {}, "missing_parameter"),
        ("route_task", {"task": 5}, "invalid_parameter"),
    ],
)
async def test_wrong_messages_are_refused(made, event, data, code):
    """Before anything is said to anybody."""
    await made.spawn("coder")

    assert (await made.send(f"agent:{event}", **data))["code"] == code
    assert (made.published, made.asked) == ([], {})
