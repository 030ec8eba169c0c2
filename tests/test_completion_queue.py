"""The completion queue on both sides: requests, answers, order, limits, and what is shown of it."""

from __future__ import annotations

import asyncio

import pytest

from ksi_daemon.completion import turns
from tests.completions import SONNET, USAGE, answer, completions, lines, log_of, session
from tests.rooms import SIDES

STAMP = "2025-07-12T17:06:40"


@pytest.fixture(params=SIDES)
async def room(request, tmp_path):
    """The room on either side, with a provider that does what a test tells it."""
    async with completions(request.param, tmp_path) as made:
        yield made


# a request and its answer


async def test_a_request_is_queued_at_once_and_answered_by_frames(room, tmp_path):
    """The reply's keys are the original's; progress, result; one line in the session's log, one of usage."""
    reply = await room.ask("hello", model=SONNET, agent_id="coder", originator_id="me")
    await room.quiet()

    message = reply.pop("message")
    assert type(message) is str
    assert reply == {
        "request_id": "hello",
        "status": "queued",
        "queued": True,
        "queue_depth": 1,
        "session_active": False,
    }
    assert room.told() == [("progress", "hello"), ("result", "hello")]
    assert [list(frame) for frame in room.frames] == [["event", "data", "timestamp"]] * 2
    assert room.frame("progress", "hello") == {
        "request_id": "hello",
        "session_id": None,
        "status": "calling_provider",
        "provider": "claude-cli",
    }
    found = room.frame("result", "hello")
    assert list(found) == ["request_id", "result", "agent_id"]
    assert list(found["result"]["ksi"]) == ["provider", "request_id", "timestamp", "duration_ms", "client_id"]
    assert found["result"]["ksi"].pop("timestamp").startswith(STAMP)
    assert found["result"]["ksi"] == {
        "provider": "claude-cli",
        "request_id": "hello",
        "duration_ms": 7,
        "client_id": "me",
    }
    assert found["result"]["response"] == {"type": "result", "result": "hello", "usage": USAGE}
    (line,) = lines(log_of(tmp_path, 1))
    assert (list(line), line["response"]) == (["ksi", "response"], found["result"]["response"])
    (used,) = room.room.lines()
    assert used["timestamp"] == line["ksi"]["timestamp"]
    assert {
        "request_id": "hello",
        "session_id": None,
        "agent_id": "coder",
        "model": SONNET,
        "provider": "claude-cli",
        "total_tokens": 13,
        "has_mcp": False,
    }.items() <= used.items()


async def test_without_an_agent_no_frame_names_one(room):
    """`agent_id` stands in a frame only if the request had one; `client_id` only with an originator."""
    await room.ask("hello")
    await room.quiet()

    assert list(room.frame("result", "hello")) == ["request_id", "result"]
    assert "client_id" not in room.frame("result", "hello")["result"]["ksi"]


async def test_a_request_without_a_name_gets_one(room):
    """The reply tells it."""
    reply = await room.send("completion:async", prompt="hello")
    await room.quiet()

    assert [("result", reply["request_id"])] == room.told("result")


async def test_an_answer_without_a_session_has_no_log(room, tmp_path):
    """Its result is told and its tokens are counted all the same."""
    room.provider.replies["hello"] = [answer(number=None)]
    await room.ask("hello")
    await room.quiet()

    assert room.told("result", "error") == [("result", "hello")]
    assert len(room.room.lines()) == 1
    assert sorted(path.name for path in (tmp_path / "var/logs").rglob("*.jsonl")) == ["tool_usage.jsonl"]


@pytest.mark.parametrize(
    ("model", "usage"),
    [("sonnet", USAGE), (SONNET, {}), (SONNET, None), (SONNET, [1]), (SONNET, {"input_tokens": "many"})],
)
async def test_only_real_tokens_of_the_commands_models_are_recorded(room, model, usage):
    """Another model, no usage, or a broken one: no record, and the answer is given."""
    room.provider.replies["hello"] = [answer(usage=usage)]
    await room.ask("hello", model=model)
    await room.quiet()

    assert room.told("result", "error") == [("result", "hello")]
    assert room.room.lines() == []


async def test_an_mcp_configuration_is_noted(room):
    """`has_mcp` is whether one was given; the default model is the setting's."""
    await room.ask("hello", extra_body={"ksi": {"mcp_config_path": "var/mcp.json"}})
    await room.quiet()

    (used,) = room.room.lines()
    default = room.room.site.settings.completion_default_model
    assert (used["has_mcp"], used["model"]) == (True, default)


# order


async def test_one_sessions_requests_run_one_after_another(room, tmp_path):
    """In the order in which they came, also when there is room for more; depth and activity are told."""
    room.provider.hold("0")
    replies = [await room.ask(str(number), session_id=session(7)) for number in range(5)]
    await room.quiet()
    begun = [asked["prompt"] for asked in room.provider.asked]
    room.provider.let_go("0")
    await room.quiet()

    assert [reply["queue_depth"] for reply in replies] == [1, 1, 2, 3, 4]
    assert begun == ["0"]
    assert [line["ksi"]["request_id"] for line in lines(log_of(tmp_path, 7))] == list("01234")
    assert room.provider.most == 1
    assert room.told("result") == [("result", name) for name in "01234"]


async def test_the_reply_says_that_its_session_is_busy(room):
    """`session_active` is whether a request of the conversation runs; the running one does not wait."""
    room.provider.hold("0")
    await room.ask("0", session_id=session(7))
    reply = await room.ask("1", session_id=session(7))

    assert (reply["queue_depth"], reply["session_active"]) == (1, True)


async def test_different_conversations_run_together_up_to_the_limit(room):
    """Sessions, agents and requests alone; beyond KSI_CLAUDE_PARALLEL they wait, and none for ever."""
    names = [f"p{number}" for number in range(20)]
    room.provider.hold(*names)
    for number, name in enumerate(names):
        kind = ({"session_id": session(number)}, {"agent_id": name}, {})[number % 3]
        await room.ask(name, **kind)
    await room.quiet()
    limit = room.room.site.settings.claude_parallel
    assert names[:limit] == room.provider.running
    room.provider.let_go(*names)
    await room.quiet()

    assert (limit, names) == (room.provider.most, sorted(room.provider.ended, key=names.index))
    assert len(room.told("result")) == 20


async def test_conversations_take_turns(room):
    """A long line does not keep another conversation waiting: heads are served in turn."""
    room.room.service._queue.parallel = 1
    room.provider.hold("a0")
    for name in ("a0", "a1", "a2", "b0", "b1"):
        await room.ask(name, session_id=session(ord(name[0])))
    room.provider.let_go("a0")
    await room.quiet()

    assert room.provider.ended == ["a0", "b0", "a1", "b1", "a2"]


async def test_an_agents_requests_share_its_session(room):
    """Two quick requests: the second resumes the session that the first one's answer gave."""
    room.provider.replies["first"] = [answer("hi", 5)]
    await room.ask("first", agent_id="coder")
    await room.ask("second", agent_id="coder")
    await room.quiet()
    await room.ask("third", agent_id="coder", session_id=session(9))
    await room.quiet()
    await room.ask("fourth", extra_body={"ksi": {"agent_id": "coder"}})
    await room.quiet()

    asked = [(turn["prompt"], turn.get("session_id")) for turn in room.provider.asked]
    assert asked == [("first", None), ("second", session(5)), ("third", session(9)), ("fourth", session(9))]
    assert room.room.service.memory()["agent_sessions"] == {"coder": session(9)}
    assert [used["session_id"] for used in room.room.lines()] == [None, session(5), session(9), session(9)]


async def test_an_agents_lost_session_is_forgotten(room):
    """After `unknown_session` the agent's next request begins a new conversation; one named by hand stays."""
    await room.ask("first", agent_id="coder")
    await room.quiet()
    lost = {"error": "No conversation found with session ID: x", "code": "unknown_session"}
    room.provider.replies["second"] = [lost]
    await room.ask("second", agent_id="coder", session_id=session(3))
    await room.quiet()
    kept = room.room.service.memory()["agent_sessions"]
    await room.ask("second", agent_id="coder")
    await room.quiet()
    await room.ask("third", agent_id="coder")
    await room.quiet()

    assert kept == {"coder": session(1)}
    assert [turn.get("session_id") for turn in room.provider.asked] == [
        None,
        session(3),
        session(1),
        None,
    ]


async def test_a_new_session_may_be_asked_for(room):
    """Then the agent's last one is forgotten, and later requests go on in the new one."""
    room.provider.replies["first"] = [answer(number=1)]
    room.provider.replies["anew"] = [answer(number=2)]
    for prompt, ksi in (("first", {}), ("anew", {"new_session": True}), ("later", {})):
        await room.ask(prompt, agent_id="a", extra_body={"ksi": ksi})
        await room.quiet()

    asked = [(turn["prompt"], turn.get("session_id")) for turn in room.provider.asked]
    assert asked == [("first", None), ("anew", None), ("later", session(2))]


async def test_agents_are_forgotten_in_the_order_of_their_answers(room, monkeypatch):
    """Beyond AGENTS the one that answered least recently gives way."""
    monkeypatch.setattr(turns, "AGENTS", 2)
    for agent in ("a", "b", "a", "c"):
        await room.ask("hello", agent_id=agent)
        await room.quiet()

    assert list(room.room.service.memory()["agent_sessions"]) == ["a", "c"]


# limits and names


async def test_a_full_queue_says_so(room):
    """`queue_full`, retryable; a name that is refused is not taken, and room is made as requests end."""
    room.room.service._queue.limit = 2
    room.provider.hold("a", "b")
    await room.ask("a")
    await room.ask("b")
    refused = await room.ask("c")
    await room.quiet()
    room.provider.let_go("a", "b")
    await room.quiet()
    again = await room.ask("c")
    await room.quiet()

    assert refused == {
        "error": "2 requests are waiting or running; send it again later,"
        " or raise KSI_COMPLETION_QUEUE_LIMIT",
        "code": "queue_full",
        "retryable": True,
    }
    assert again["status"] == "queued"
    assert len(room.told("result")) == 3


async def test_a_name_in_use_is_refused(room):
    """`already_exists` while a request of that name waits or runs; afterwards it may be used again."""
    room.provider.hold("a")
    await room.ask("a")
    refused = await room.ask("b", request_id="a")
    await room.quiet()
    room.provider.let_go("a")
    await room.quiet()
    again = await room.ask("b", request_id="a")
    await room.quiet()

    assert refused == {"error": "Request a is already running", "code": "already_exists"}
    assert again["status"] == "queued"
    assert room.told("result") == [("result", "a")] * 2


async def test_ten_thousand_waiting_requests_cost_no_tasks(room):
    """A waiting request is an entry in a table: only what runs has a task; cancelling one is a look-up."""
    room.room.service._queue.limit = 20_000
    names = [str(number) for number in range(room.room.site.settings.claude_parallel)]
    room.provider.hold(*names)
    await room.send("completion:token_usage")  # its load has a task
    before = len(asyncio.all_tasks())
    for number in range(10_000):
        await room.ask(str(number), session_id=session(number % 100) if number >= 5_000 else None)
        await asyncio.sleep(0)  # a reply never waits, and one client sends no ten thousand in one go
    await room.quiet()
    for number in range(9_999, 5_000, -1):
        await room.send("completion:cancel", request_id=str(number))
        await asyncio.sleep(0)
    status = await room.send("completion:status")
    tasks = len(asyncio.all_tasks())
    room.frames.clear()
    await room.room.service.stop()

    assert tasks - before == len(names)
    assert (status["queued"], status["cancelled"]) == (10_000 - 4_999 - len(names), 4_999)
    assert len(room.told("error")) == 10_000 - 4_999


# what is shown


async def test_the_status_shows_everything(room):
    """Every key, while one runs and one waits."""
    room.provider.hold("a")
    await room.ask("z")
    await room.quiet()
    await room.ask("a", session_id=session(2), agent_id="coder")
    await room.ask("b", session_id=session(2))
    status = await room.send("completion:status")

    (active,) = status.pop("active_requests")
    assert 0 <= active.pop("for_s") < 1
    assert active == {
        "request_id": "a",
        "session_id": session(2),
        "agent_id": "coder",
        "status": "running",
        "attempt": 1,
    }
    assert status.pop("token_usage") == await room.send("completion:token_usage")
    assert status == {
        "status": "running",
        "queued": 1,
        "active": 1,
        "completed": 1,
        "failed": 0,
        "cancelled": 0,
        "queue_limit": room.room.site.settings.completion_queue_limit,
        "parallel": room.room.site.settings.claude_parallel,
        "queues": {session(2): 1},
        "retries": [],
    }


async def test_a_session_shows_its_requests(room):
    """The running one first; an agent's request stands under the session it runs in; or all sessions."""
    await room.ask("z", agent_id="coder")
    await room.quiet()
    room.provider.hold("a", "b", "d")
    await room.ask("a", session_id=session(2))
    await room.ask("b", agent_id="coder")
    await room.ask("c", session_id=session(2))
    await room.ask("d")
    await room.quiet()
    one = await room.send("completion:session_status", session_id=session(2))
    none = await room.send("completion:session_status", session_id=session(3))
    everyone = await room.send("completion:session_status")

    assert one == {"session_id": session(2), "active": True, "queued": 1, "request_ids": ["a", "c"]}
    assert none == {"session_id": session(3), "active": False, "queued": 0, "request_ids": []}
    agents = {"session_id": session(1), "active": True, "queued": 0, "request_ids": ["b"]}
    assert everyone == {"sessions": [one, agents]}


async def test_memory_tells_how_requests_ended(room):
    """Counts, ends in their order, the provider's tally."""
    room.provider.replies["b"] = [{"error": "no", "code": "cli_failed"}]
    for name in ("a", "b", "c"):
        await room.ask(name)
    await room.send("completion:cancel", request_id="c")
    await room.quiet()

    found = room.room.service.memory()
    over = found["queue"].pop("over")
    assert over == {"c": "cancelled", "a": "completed", "b": "failed"}
    assert found["queue"] == {"queued": 0, "completed": 1, "failed": 1, "cancelled": 1}
    assert found["providers"] == {"claude-cli": {"ok": 1, "failed": 1, "last_error": "cli_failed"}}
