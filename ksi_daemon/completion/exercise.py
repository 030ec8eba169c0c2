"""The steps with which the room is tried on either side: those of token usage; the queue's lie beside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ksi_daemon.completion import exercise_queue
from ksi_daemon.completion.core import Usage, encode
from ksi_daemon.exercise import Case, Exercise, Load, Step

if TYPE_CHECKING:
    from pathlib import Path

_LOG = "var/logs/daemon/tool_usage.jsonl"


def _record(request: str, agent: str | None = "coder", **more: Any) -> Step:
    usage = {"input_tokens": 100, "output_tokens": 20, **more.pop("usage", {})}
    data = {"model": "claude-cli/sonnet", "request_id": request, "agent_id": agent, "usage": usage, **more}
    return Step("completion:record_usage", data)


def _ask(**filters: Any) -> Step:
    return Step("completion:token_usage", filters)


def _old(timestamp: str, **more: Any) -> bytes:
    """A line as the original wrote it."""
    return json.dumps({"event": "token_usage", "timestamp": timestamp, **more}).encode() + b"\n"


_OLD = b"".join(
    (
        b'{"event":"tool_use","tool":"grep"}\n',
        _old(
            "2025-07-12T17:00:00Z",
            agent_id="old",
            model="m",
            input_tokens=5,
            cache_read_tokens=2,
            has_mcp=True,
        ),
        b"damaged\n\x00\x00\x00\n\xff\xfe\n[1,2]\n\n",
        _old("2025-07-01T00:00:00Z", agent_id="past", input_tokens=9),
        _old("never", agent_id="bad", input_tokens=9),
        _old("2025-07-12T17:01:00Z", agent_id="old", input_tokens=None),
        _old("2025-07-12T17:02:00.5Z", agent_id="newer", model="n", session_id="s", input_tokens=7),
        b'{"event":"token_us',
    )
)

_CASES = (
    Case(
        "recorded and asked for",
        (
            _record("r-1"),
            _record("r-2", None),
            _record("r-3", "tester", session_id="s-1", has_mcp=True, usage={"cache_read_input_tokens": 1000}),
            _record("r-4", usage={"input_tokens": 20_000, "cache_creation_input_tokens": 7}, has_mcp=True),
            _ask(),
            _ask(agent_id="coder"),
            _ask(agent_id="coder", hours=1),
            _ask(agent_id="nobody"),
            _ask(model="claude-cli/sonnet"),
            _ask(model="unknown"),
        ),
    ),
    Case(
        "refused",
        (
            _record("r-1", usage={"input_tokens": None}),
            _record("r-1", usage={"output_tokens": "3"}),
            _record("r-1", usage={"output_tokens": -1}),
            _record("r-1", has_mcp="yes"),
            Step("completion:record_usage", {"model": "m"}),
            Step("completion:record_usage", {"usage": {"input_tokens": 1}}),
            _ask(agent_id="coder", hours="many"),
            _ask(agent_id=5),
            _ask(),
        ),
    ),
    Case(
        "history of the last 24 hours",
        (
            _ask(),
            _ask(agent_id="old"),
            _record("r-1"),
            Step("@restart"),
            _ask(),
            _ask(agent_id="old", hours=9),
        ),
        files={_LOG: _OLD},
    ),
    Case(
        "the log in trouble",
        (
            _record("r-1"),
            Step("@block"),
            _record("r-2"),
            _ask(),
            Step("@unblock"),
            _record("r-3"),
            Step("@rotate"),
            _record("r-4"),
            Step("@remove"),
            _record("r-5"),
            Step("@tear"),
            Step("@restart"),
            _ask(),
        ),
    ),
    Case(
        "a history that cannot be read",
        (
            Step("@block"),
            Step("@restart"),
            _ask(),
            _record("r-1"),
            Step("@unblock"),
            _record("r-2"),
            _ask(),
            Step("@restart"),
            _ask(),
        ),
        files={_LOG: _OLD},
    ),
)


def _usage(number: int) -> Usage:
    request, session = f"request-{number:08d}", "11111111-2222-3333-4444-555555555555"
    return Usage(
        at=1752340000.0,
        request_id=request,
        session_id=session,
        agent_id="coder",
        model="claude-cli/sonnet",
        provider="claude-cli",
        input_tokens=100,
        output_tokens=20,
        cache_creation_tokens=0,
        cache_read_tokens=0,
        has_mcp=False,
    )


def _lines(count: int) -> list[bytes]:
    return [encode(_usage(number)) for number in range(count)]


def _reference(path: Path, number: int) -> None:
    """What the original did for each record."""
    usage = _usage(number)
    entry = {
        "event": "token_usage",
        "timestamp": "2025-07-12T17:06:40Z",
        **{
            name: getattr(usage, name)
            for name in ("request_id", "session_id", "agent_id", "model", "provider")
        },
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "cache_creation_tokens": 0,
        "cache_read_tokens": 0,
        "has_mcp": False,
        "estimated_cost": usage.estimated_cost,
    }
    with open(path, "a") as log:
        log.write(json.dumps(entry) + "\n")


EXERCISE = Exercise(
    files=(_LOG, *(f"var/logs/responses/{session}.jsonl" for session in exercise_queue.SESSIONS)),
    cases=(*_CASES, *exercise_queue.CASES),
    writes=(_record("first"), _record("second", "tester")),
    loads=(Load("append", 350, "append", _lines, _reference),),
    neighbours=exercise_queue.neighbours,
    settings=exercise_queue.SETTINGS,
)
