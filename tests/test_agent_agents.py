"""Agents: spawned, registered, shown and let go; what their turns bring is told on the bus."""

from __future__ import annotations

import asyncio

import pytest

from tests.agentry import BROKEN, FULL, agents, session

CONFIG = {
    "model": "claude-cli/opus",
    "allowed_tools": ["Read"],
    "disallowed_tools": ["Bash"],
    "max_turns": 3,
    "mcp_config_path": "var/mcp.json",
    "sandbox_dir": "here",
}


@pytest.fixture
async def made(tmp_path):
    """The room; agents know no sides."""
    async with agents("async", tmp_path) as found:
        yield found


async def test_spawning_with_a_prompt_queues_a_turn(made):
    """The reply comes when it is queued; the settings go to the queue as it takes them."""
    reply = await made.send(
        "agent:spawn", agent_id="coder", profile="dev", prompt="hello", session_id=session(), config=CONFIG
    )

    request = reply["request_id"]
    assert reply == {
        "agent_id": "coder",
        "status": "created",
        "profile": "dev",
        "session_id": session(),
        "request_id": request,
    }
    assert made.asked[request] == {
        "request_id": request,
        "prompt": "hello",
        "agent_id": "coder",
        "model": "claude-cli/opus",
        "session_id": session(),
        "originator_id": "coder",
        "extra_body": {
            "ksi": {
                "max_turns": 3,
                "mcp_config_path": "var/mcp.json",
                "sandbox_dir": "here",
                "permissions": {"allowed_tools": ["Read"], "disallowed_tools": ["Bash"]},
            }
        },
    }
    assert (await made.listed())["coder"] == {
        "agent_id": "coder",
        "status": "busy",
        "profile": "dev",
        "agent_type": "agent",
        "capabilities": [],
        "session_id": session(),
        "created_at": "2025-07-12T17:06:40.001000Z",
        "active_requests": 1,
    }


async def test_an_agent_without_a_prompt_waits(made):
    """It gets an id if it has none, and no turn."""
    reply = await made.send("agent:spawn")

    assert (reply["agent_id"], reply["request_id"], made.asked) == ("agent_00000001", None, {})
    assert (await made.listed())["agent_00000001"]["status"] == "idle"


async def test_an_id_is_given_once(made):
    """A second spawn is refused; `task` counts as prompt."""
    await made.send("agent:spawn", agent_id="coder", task="work")

    refused = {"error": "Agent coder already exists", "code": "already_exists"}
    assert await made.send("agent:spawn", agent_id="coder") == refused
    assert [asked["prompt"] for asked in made.asked.values()] == ["work"]


async def test_an_agent_whose_turn_is_refused_is_not_there(made):
    """The queue's own error is the reply."""
    made.refusal = FULL

    assert await made.send("agent:spawn", agent_id="coder", prompt="hello") == FULL
    assert await made.listed() == {}
    assert made.room.service.memory()["requests"] == {}
    made.refusal = None
    await made.spawn("coder", prompt="hello")


async def test_spawning_waits_for_nobody(made):
    """Twenty agents are on their way at once; their ids are taken from the beginning."""
    made.hold = asyncio.Event()
    names = [f"a{number}" for number in range(20)]
    tasks = [asyncio.create_task(made.send("agent:spawn", agent_id=name, prompt="go")) for name in names]
    await asyncio.sleep(0)
    twice = await made.send("agent:spawn", agent_id="a7")
    made.hold.set()
    replies = await asyncio.gather(*tasks)

    assert twice["code"] == "already_exists"
    assert [reply["status"] for reply in replies] == ["created"] * 20
    assert [asked["agent_id"] for asked in made.asked.values()] == names


async def test_a_cancelled_spawn_leaves_no_agent(made):
    """Nobody would know of it."""
    made.hold = asyncio.Event()
    task = asyncio.create_task(made.send("agent:spawn", agent_id="coder", prompt="go"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert await made.listed() == {}
    assert made.room.service.memory()["requests"] == {}


async def test_an_answer_is_told_on_the_bus(made):
    """The session is remembered, the agent is idle, and no further turn begins."""
    spawned = await made.send("agent:spawn", agent_id="coder", prompt="hello", model="m")
    made.begin(spawned["request_id"])
    made.answer(spawned["request_id"], "done", 7)

    result = {"response": "done", "session_id": session(7), "model": "m"}
    told = {"client_id": "coder", "request_id": spawned["request_id"], "result": result}
    assert await made.told(1) == [("COMPLETION_RESULT", "coder", told)]
    row = (await made.listed())["coder"]
    assert (row["status"], row["session_id"], row["active_requests"]) == ("idle", session(7), 0)
    assert len(made.asked) == 1


async def test_failed_and_cancelled_turns_show_in_the_status(made):
    """The next answer mends it; completions of others are none of ours."""
    await made.spawn("coder")
    first, second, third = [(await made.say("coder"))["request_id"] for _ in range(3)]
    for request in ("somebody's", first):
        made.fail(request)
    busy = (await made.listed())["coder"]
    made.hub.tell("completion:cancelled", {"request_id": second})
    made.hub.tell("completion:cancelled", {"request_id": "somebody's"})
    made.answer("somebody's")
    made.begin("somebody's")
    made.fail(third)
    failed = (await made.listed(status="failed"))["coder"]
    fourth = (await made.say("coder"))["request_id"]
    made.answer(fourth, None)

    assert (busy["status"], busy["active_requests"], failed["status"]) == ("busy", 2, "failed")
    assert (await made.listed())["coder"]["status"] == "idle"
    assert (await made.told(1, "COMPLETION_RESULT"))[0][2]["result"]["response"] == ""


async def test_a_bus_that_refuses_costs_nothing_but_the_message(made):
    """It is logged."""
    spawned = await made.send("agent:spawn", agent_id="coder", prompt="hello")
    made.bus_down = BROKEN
    made.answer(spawned["request_id"])
    while made.room.service._turns._telling:
        await asyncio.sleep(0)

    assert (await made.listed())["coder"]["status"] == "idle"
    assert made.published == []


async def test_terminating_cancels_what_waits(made):
    """What runs may end, and its answer is told; with force it is cancelled too."""
    await made.spawn("coder", "tester")
    for name in ("coder", "tester"):
        requests = [(await made.say(name))["request_id"] for _ in range(3)]
        made.begin(requests[0])
        reply = await made.send("agent:terminate", agent_id=name, force=name == "tester")
        kept = requests[1:] if name == "coder" else requests
        assert reply == {"agent_id": name, "status": "terminated", "cancelled": kept}
        if name == "coder":
            made.answer(requests[0])

    assert await made.listed() == {}
    assert [sender for _, sender, _ in await made.told(1, "COMPLETION_RESULT")] == ["coder"]
    gone = {"error": "Agent coder not found", "code": "not_found"}
    assert await made.send("agent:terminate", agent_id="coder") == gone
    assert made.room.service.memory()["requests"] == {}


async def test_a_request_that_the_queue_does_not_know_is_forgotten(made):
    """It would keep the agent busy for ever."""
    await made.spawn("coder")
    request = (await made.say("coder"))["request_id"]
    del made.asked[request]

    assert (await made.send("agent:terminate", agent_id="coder"))["cancelled"] == []
    assert made.room.service.memory()["requests"] == {}


async def test_restart_begins_anew_with_the_same_settings(made):
    """What waits is cancelled; when its prompt is refused it is gone."""
    await made.spawn("coder", prompt="hello", profile="dev", capabilities=["python"])
    first = next(iter(made.asked))
    reply = await made.send("agent:restart", agent_id="coder")

    assert reply == {"agent_id": "coder", "status": "restarted", "request_id": reply["request_id"]}
    assert made.asked[reply["request_id"]] == {**made.asked[first], "request_id": reply["request_id"]}
    assert (await made.listed())["coder"]["active_requests"] == 1
    made.refusal = FULL
    assert (await made.send("agent:restart", agent_id="coder"))["code"] == "queue_full"
    assert await made.listed() == {}
    await made.send("agent:register", agent_id="outside")
    assert (await made.send("agent:restart", agent_id="outside"))["code"] == "invalid_parameter"


async def test_registered_agents(made):
    """The documented parameters work, and `info` as before; again replaces what is given; then it is gone."""
    registered = {"agent_id": "ide", "status": "registered"}
    given = {"profile": "p", "capabilities": ["rust"], "info": {"agent_type": "editor"}}
    assert await made.send("agent:register", agent_id="ide", **given) == registered
    row = (await made.listed(status="registered"))["ide"]
    assert (row["profile"], row["capabilities"], row["agent_type"]) == ("p", ["rust"], "editor")
    info = {"profile": "q", "capabilities": ["go"]}
    assert await made.send("agent:register", agent_id="ide", info=info) == registered
    row = (await made.listed())["ide"]

    assert (row["profile"], row["capabilities"], row["agent_type"]) == ("q", ["go"], "editor")
    unregistered = {"agent_id": "ide", "status": "unregistered"}
    assert await made.send("agent:unregister", agent_id="ide") == unregistered
    gone = {"error": "Agent ide not found", "code": "not_found"}
    assert await made.send("agent:unregister", agent_id="ide") == gone


async def test_agents_are_found_by_what_they_can(made):
    """Capabilities, peers and constructs."""
    await made.spawn("a", capabilities=["x", "y"])
    await made.spawn("b", capabilities=["x"], originator_agent_id="a", agent_type="qa")

    assert await made.send("agent:get_capabilities") == {"capabilities": {"a": ["x", "y"], "b": ["x"]}}
    assert await made.send("agent:get_capabilities", agent_id="b") == {
        "agent_id": "b",
        "capabilities": ["x"],
    }
    assert (await made.send("agent:get_capabilities", agent_id="c"))["code"] == "not_found"
    b = {"agent_id": "b", "profile": None, "agent_type": "qa", "capabilities": ["x"], "status": "idle"}
    peers = await made.send("agent:discover_peers", agent_id="a", capabilities=["x"], agent_type="qa")
    assert peers == {"agent_id": "a", "peers": [b], "count": 1}
    assert (await made.send("agent:discover_peers", agent_id="b", capabilities=["z"]))["count"] == 0
    for given in ({}, {"originator_id": "a"}, {"originator_agent_id": "a"}):
        (construct,) = (await made.send("agent:list_constructs", **given))["constructs"]
        assert (construct["agent_id"], construct["originator_agent_id"]) == ("b", "a")
    assert await made.send("agent:list_constructs", originator_id="b") == {"constructs": [], "count": 0}


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("spawn", {"agent_id": 5}),
        ("spawn", {"agent_id": "x" * 1001}),
        ("spawn", {"config": "opus"}),
        ("spawn", {"config": {"max_turns": 0}}),
        ("spawn", {"config": {"max_turns": True}}),
        ("spawn", {"config": {"allowed_tools": "Read"}}),
        ("spawn", {"prompt": ["hello"]}),
        ("spawn", {"capabilities": [1]}),
        ("register", {"agent_id": "a", "info": "text"}),
        ("terminate", {"agent_id": "coder", "force": "yes"}),
        ("list", {"status": 5}),
    ],
)
async def test_wrong_parameters_are_refused(made, event, data):
    """And nothing has happened."""
    await made.spawn("coder")

    assert (await made.send(f"agent:{event}", **data))["code"] == "invalid_parameter"
    assert list(await made.listed()) == ["coder"]


@pytest.mark.parametrize("event", ["terminate", "restart", "register", "unregister", "discover_peers"])
async def test_an_id_is_required(made, event):
    """With the original's text."""
    missing = {"error": "agent_id required", "code": "missing_parameter"}
    assert await made.send(f"agent:{event}") == missing


async def test_there_is_a_limit_to_agents(made, monkeypatch):
    """Memory is bounded; who is there may be registered again."""
    monkeypatch.setattr("ksi_daemon.agent.roster.MOST", 2)
    await made.spawn("a")
    await made.send("agent:register", agent_id="b")

    assert (await made.send("agent:spawn"))["code"] == "queue_full"
    assert (await made.send("agent:register", agent_id="b"))["status"] == "registered"
    many: dict[str, dict] = {name: {} for name in "abc"}
    assert (await made.send("checkpoint:restore", agents=many))["code"] == "queue_full"
    assert list(await made.listed()) == ["a", "b"]


async def test_a_new_id_is_one_that_nobody_has(made):
    """The next one is taken."""
    await made.spawn("agent_00000001")

    assert (await made.send("agent:spawn"))["agent_id"] == "agent_00000002"


async def test_agents_come_back_from_a_checkpoint(made):
    """With settings and session; turns under way stay with them."""
    await made.spawn("coder", prompt="hello", config=CONFIG, capabilities=["x"], metadata={"a": 1})
    await made.send("agent:register", agent_id="ide")
    request = next(iter(made.asked))
    state = await made.send("checkpoint:collect")
    await made.send("agent:unregister", agent_id="ide")
    restored = await made.send("checkpoint:restore", **state)
    again = await made.send("checkpoint:collect")
    made.answer(request)

    assert restored == {"status": "restored", "agents": 2, "identities": 0}
    assert state == again
    row = (await made.listed())["coder"]
    assert (row["session_id"], row["status"], row["capabilities"]) == (session(), "idle", ["x"])


async def test_a_stop_tells_what_it_can(made):
    """An answer that is on its way to the bus gets there; one that the bus holds back is given up."""
    await made.spawn("coder")
    first, second = [(await made.say("coder"))["request_id"] for _ in range(2)]
    made.answer(first)
    await made.room.service.stop()
    assert len(made.bus("COMPLETION_RESULT")) == 1
    made.answer(second)

    assert len(made.bus("COMPLETION_RESULT")) == 1
    assert (await made.send("agent:spawn", prompt="late"))["code"] == "shutting_down"


async def test_a_stop_gives_up_a_bus_that_hangs(made):
    """Well within the time that a stop has."""
    spawned = await made.send("agent:spawn", agent_id="coder", prompt="hello")
    made.hold_bus = asyncio.Event()
    made.answer(spawned["request_id"])
    await made.room.service.stop()

    assert not made.room.service._turns._telling
    assert made.published == []
