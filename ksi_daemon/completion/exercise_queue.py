"""The steps with which the queue is tried on either side, and the rooms that it asks meanwhile.

No step leaves a request running: what must happen while one runs is asked for in the text of an answer.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ksi_daemon.exercise import Case, Step
from ksi_daemon.router import Client, Data, Event

SESSIONS = ONE, TWO, BLOCKED, TORN = tuple(f"{digit * 8}-0000-4000-8000-000000000000" for digit in "1234")
_LOGS = "var/logs/responses"
_USAGE = {"input_tokens": 12, "output_tokens": 3, "cache_read_input_tokens": 1000}

SETTINGS = {"claude_retry_backoff": 0.001}
"""Retries without a wait worth the name."""


def _answer(text: str | None, session: str | None = ONE, usage: object = _USAGE) -> dict[str, Any]:
    response = {"type": "result", "is_error": False, "result": text, "session_id": session, "usage": usage}
    return {"status": "completed", "session_id": session, "response": response, "duration_ms": 5}


def _quiet(*events: tuple[str, Data]) -> dict[str, Any]:
    """An answer that does nothing but emit: it has neither a session nor tokens to log."""
    found = [json.dumps({"event": event, "data": data}) for event, data in events]
    return _answer("\n".join(("Now:", *found)), None, None)


def _request(request: str, prompt: str, **more: Any) -> Data:
    return {"request_id": request, "prompt": prompt, "model": "claude-cli/sonnet", **more}


_BUSY = {"error": "API Error: 529 Overloaded", "code": "api_error", "retryable": True, "api_status": 529}
_NOTE = '{"event": "notes:add", "data": {"text": "%s"}}'

_REPLIES: dict[str, tuple[Any, ...]] = {
    "take notes": (_answer(f"First {_NOTE % 'a'}.\n```json\n[{_NOTE % 'b'}]\n``` {{no}} {_NOTE % 'c'}"),),
    "no session": (_answer("a thought", None),),
    "no usage": (_answer("free", usage={}),),
    "odd usage": (_answer("odd", usage={"input_tokens": "many"}),),
    "no text": (_answer(None),),
    "at first": (_BUSY, {**_BUSY, "code": "start_failed"}, _answer("at last")),
    "never": (_BUSY,),
    "broken": ({"error": "Invalid API key", "code": "api_error", "retryable": False},),
    "lost": ({"error": "No conversation found with session ID: x", "code": "unknown_session"},),
    "odd": ({"status": "completed"},),
    "in two": (_answer("in the second", TWO),),
    "in blocked": (_answer(_NOTE % "never", BLOCKED),),
    "in torn": (_answer("behind a torn tail", TORN),),
    "two at once": (
        _quiet(
            ("completion:async", _request("left", "in two")),
            ("completion:async", _request("right", "in two")),
        ),
    ),
    "a line": (
        _quiet(*(("completion:async", _request(f"l-{n}", "hello", session_id=TWO)) for n in range(4))),
    ),
    "cancel": (
        _quiet(
            ("completion:async", _request("runs", "hold", session_id=TWO)),
            ("completion:async", _request("waits", "hello", session_id=TWO)),
            ("completion:async", _request("stays", "hello", session_id=TWO)),
            ("notes:pause", {}),
            ("completion:session_status", {"session_id": TWO}),
            ("completion:cancel", {"request_id": "waits"}),
            ("completion:cancel", {"request_id": "runs"}),
            ("completion:cancel", {"request_id": "runs"}),
        ),
    ),
}
"""What the stand-in answers to a prompt, one after another, the last one again and again."""


class _Neighbours:
    """Turns by prompt, and a room that keeps what the events of answers bring."""

    def __init__(self) -> None:
        self._asked: dict[str, int] = {}
        self._notes: list[Data] = []

    def events(self) -> tuple[Event, ...]:
        return (
            Event("claude_cli:turn", self.turn, "Answer by prompt; others in the session asked for"),
            Event("notes:add", self.add, "Keep the data"),
            Event("notes:list", self.kept, "Show what was kept"),
            Event("notes:pause", self.pause, "Let others begin"),
        )

    async def turn(self, data: Data, _client: Client | None) -> Any:
        await asyncio.sleep(0)
        prompt = data["prompt"]
        self._notes.append({"turn": data})
        if prompt == "hold":
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)
        replies = _REPLIES.get(prompt)
        if replies is None:
            return _answer(prompt.upper(), data.get("session_id", ONE))
        number = self._asked.get(prompt, 0)
        self._asked[prompt] = number + 1
        return replies[min(number, len(replies) - 1)]

    async def add(self, data: Data, _client: Client | None) -> Data:
        self._notes.append(data)
        return {"status": "noted"}

    async def kept(self, _data: Data, _client: Client | None) -> list[Data]:
        return list(self._notes)

    async def pause(self, _data: Data, _client: Client | None) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


def neighbours() -> tuple[Event, ...]:
    """`claude_cli:turn` and three events of notes, as new."""
    return _Neighbours().events()


def _ask(request: str, prompt: str, **more: Any) -> Step:
    return Step("completion:async", _request(request, prompt, **more))


_STATUS = Step("completion:status")
_NOTES = Step("notes:list")
_PROVIDERS = Step("completion:provider_status")

CASES = (
    Case(
        "requests and answers",
        (
            _ask("r-1", "hello"),
            _ask("r-2", "again", session_id=ONE, originator_id="me"),
            _ask("r-3", "in two", agent_id="coder"),
            _ask("r-4", "more", agent_id="coder"),
            _ask("r-4", "more", agent_id="coder", extra_body={"ksi": {"mcp_config_path": "var/mcp.json"}}),
            Step("completion:async", {"messages": [{"content": "no"}, {"content": "by message"}]}),
            _ask("r-5", "no session"),
            _ask("r-6", "no usage"),
            _ask("r-7", "odd usage"),
            _ask("r-8", "no text"),
            _ask("r-9", "other model", model="opus"),
            _STATUS,
            _PROVIDERS,
            Step("completion:session_status"),
            Step("completion:token_usage", {"agent_id": "coder"}),
            _NOTES,
            Step("@restart"),
            _STATUS,
            _ask("r-10", "after", agent_id="coder"),
        ),
    ),
    Case(
        "requests refused",
        (
            Step("completion:async"),
            _ask("r-1", "hello", session_id=5),
            _ask("r-1", "hello", extra_body={"ksi": {"max_turns": "many"}}),
            Step("completion:cancel"),
            Step("completion:cancel", {"request_id": "nobody"}),
            _ask("r-1", "hello"),
            Step("completion:cancel", {"request_id": "r-1"}),
            _STATUS,
        ),
    ),
    Case(
        "events in the text",
        (_ask("r-1", "take notes", agent_id="coder"), _NOTES, _ask("r-2", "a line"), _NOTES, _STATUS),
    ),
    Case("two answers to one session at once", (_ask("r-1", "two at once"), _STATUS)),
    Case("cancelled while waiting and while running", (_ask("r-1", "cancel"), _NOTES, _STATUS)),
    Case(
        "failures and retries",
        (
            _ask("r-1", "at first", agent_id="coder"),
            _ask("r-2", "never"),
            _ask("r-3", "broken", session_id=ONE),
            _ask("r-4", "lost", agent_id="coder"),
            _ask("r-5", "hello", agent_id="coder"),
            _ask("r-6", "odd"),
            Step("completion:retry_status"),
            _PROVIDERS,
            _STATUS,
        ),
    ),
    Case(
        "session logs in trouble",
        (
            _ask("r-1", "in blocked", agent_id="coder"),
            _ask("r-2", "in torn"),
            _ask("r-3", "in blocked"),
            Step("@block"),
            _ask("r-4", "hello", agent_id="coder"),
            Step("@unblock"),
            _ask("r-5", "hello", agent_id="coder"),
            _NOTES,
            _STATUS,
        ),
        files={
            f"{_LOGS}/{BLOCKED}.jsonl/in-the-way": b"",
            f"{_LOGS}/{TORN}.jsonl": b'{"ksi":{},"response":{}}\n{"ksi":{"provi',
        },
    ),
)
