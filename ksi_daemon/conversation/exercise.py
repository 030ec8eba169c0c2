"""The steps with which the room is tried on either side."""

from __future__ import annotations

import json
from typing import Any

from ksi_daemon.exercise import Case, Exercise, Step

_LOGS = "var/logs/responses"
_ALPHA = f"{_LOGS}/alpha.jsonl"
_BUS = f"{_LOGS}/message_bus.jsonl"
_NEVER = "2025-07-12T23:59:59Z"


def _lines(*entries: Any) -> bytes:
    """One line each; bytes and texts are lines as they are."""
    return b"".join(
        (entry if isinstance(entry, bytes) else json.dumps(entry).encode()) + b"\n" for entry in entries
    )


def _said(kind: str, at: str | int, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": kind, "timestamp": at, "content": content, **more}


def _answer(at: str, result: Any) -> dict[str, Any]:
    return {"ksi": {"provider": "claude-cli", "timestamp": at}, "response": {"result": result, "usage": {}}}


def _completion(at: str, session: Any, response: Any, **more: Any) -> dict[str, Any]:
    result = {"session_id": session, "response": response, **more}
    return {"type": "COMPLETION_RESULT", "timestamp": at, "client_id": "coder", "result": result}


_STORED = {
    _ALPHA: _lines(
        _said("user", "2025-07-12T10:00:00Z", "Hello there"),
        {"type": "claude", "timestamp": "2025-07-12T10:00:01Z", "result": "General greetings, naïve ☃"},
        _answer("2025-07-12T10:00:02.5Z", "written by this daemon"),
        _said("DIRECT_MESSAGE", "2025-07-12T10:00:03+00:00", "between agents", **{"from": "a", "to": "b"}),
        _said("user", "2025-07-12T10:00:00Z", "Hello there"),
    ),
    f"{_LOGS}/beta.jsonl": _lines(
        _said("human", "2025-07-11T09:00:00+02:00", "x" * 60 + "needle" + "y" * 300),
        _said("claude", "2025-07-11T08:30:00Z", None, result="a needle again"),
    ),
    f"{_LOGS}/empty.jsonl": b"",
    _BUS: _lines(
        _completion("2025-07-12T10:00:00Z", "s1", "first", model="sonnet"),
        _completion("2025-07-12T10:00:01Z", "s2", "second"),
        _completion("2025-07-12T10:00:02Z", "s1", "third"),
        {"type": "NOTE", "timestamp": "2025-07-12T10:00:03Z"},
        {"type": "COMPLETION_RESULT", "timestamp": "2025-07-12T10:00:04Z", "result": "no object"},
    ),
}
_ODD = {
    f"{_LOGS}/broken.jsonl": b'{"type": "user", "timestamp": "2025-07-12T10:00:00Z", "content": "caf\xe9"}\n'
    + _lines(
        b'{"type": "user"',
        ["no", "object"],
        b"\xff\xfe",
        b"",
        b"   ",
        b'{"type": "user", "timestamp": NaN, "content": "not a number"}',
        b'{"type": "user", "timestamp": "2025-07-12T10:00:01Z", "content": "\\ud800 alone"}',
        b'{"type": "user", "timestamp": "2025-07-12T10:00:02Z", "content": ' + b"1" * 30 + b"}",
        b'{"type": "user", "timestamp": "2025-07-12T10:00:03Z", "content": ' + b"1" * 5000 + b"}",
        b'{"type": "user", "timestamp": "2025-07-12T10:00:04Z", "content": 1e999}',
        b'{"timestamp": "2025-07-12T10:00:05Z", "timestamp": "2025-07-12T10:00:06Z", "type": "user"}',
        b'{"type": "user", "timestamp": "2025-07-12T10:00:07Z", "content": "two"} {"type": "user"}',
        b'{"type": ["user"], "timestamp": "2025-07-12T10:00:08Z", "from": {"a": 1}}',
        _said("user", "tomorrow", "no time, but searched"),
        _said("user", 1752340000, "a number"),
        _said("user", "", "empty"),
        _said("claude", "20250712T100009", ["a", {"list": [1, 2.5, None, True]}]),
        _said("DIRECT_MESSAGE", "2025-07-12", "no sender"),
        {"ksi": {"timestamp": "2025-07-12T10:00:10Z"}, "response": "text"},
        {"ksi": "no object", "response": {}},
        {"ksi": {}, "response": {"result": "no stamp"}},
    )
    + b'{"type": "claude", "timestamp": "2025-07-12T11:00:00Z", "content": "no newline \xc3\xa9"}',
    f"{_LOGS}/naive.jsonl": _lines(
        _said("user", "2025-07-12T10:00:00", "naive"), _said("user", "2025-07-12", "naive")
    ),
    f"{_LOGS}/no-log.txt": _lines(_said("user", _NEVER, "needle")),
    f"{_LOGS}/.jsonl": _lines(_said("user", _NEVER, "needle")),
    f"{_LOGS}/Ünï ☃.jsonl": _lines(_said("user", "2025-07-12T10:00:00Z", "needle \u212aelvin \u0130stanbul")),
    _BUS: _lines([1], b"\xff", _completion("2025-07-12T10:00:00", {"a": 1}, None), {"result": {}})
    + b'{"type": "COMPLETION_RESULT", "times',
}


def _list(**data: Any) -> Step:
    return Step("conversation:list", data)


def _search(query: Any, **data: Any) -> Step:
    return Step("conversation:search", {"query": query, **data})


def _get(session: Any, **data: Any) -> Step:
    return Step("conversation:get", {"session_id": session, **data})


def _export(session: Any, form: Any = "markdown") -> Step:
    return Step("conversation:export", {"session_id": session, "format": form})


def _active(**data: Any) -> Step:
    return Step("conversation:active", data)


_STATS = Step("conversation:stats")
_OUTSIDE = ("../x", "a/b", ".", "..", "nul\x00", "x" * 300, "/etc/passwd", "ghost")

_CASES = (
    Case(
        "listed, searched, read and exported",
        (
            _search("needle"),
            _list(),
            _search("NEEDLE"),
            _search("you", search_in=["content", "sender"]),
            _search("claude", search_in=["sender"]),
            _get("alpha"),
            _get("alpha", limit=2, offset=1),
            _get("message_bus"),
            _get("message_bus", conversation_id="s1"),
            _export("alpha"),
            _export("alpha"),
            _export("beta", "json"),
            _export("message_bus", "json"),
            _active(),
            _active(max_lines=1),
            _active(max_lines=3, max_age_hours=0),
            _STATS,
        ),
        _STORED,
    ),
    Case(
        "sorted, paged and filtered",
        (
            *(_list(sort_by=by) for by in ("first_timestamp", "message_count", "nonsense")),
            _list(sort_by="message_count", reverse=False),
            _list(limit=1, offset=1),
            _list(limit=0),
            _list(offset=10),
            _list(start_date="2025-07-12T00:00:00Z"),
            _list(end_date="2025-07-12T00:00:00Z"),
            _list(start_date="2025-07-12"),
            _list(start_date="soon"),
        ),
        _STORED,
    ),
    Case(
        "lines of every kind",
        (
            _list(),
            _STATS,
            _list(start_date="2025-07-01T00:00:00Z"),
            *(_search(query) for query in ("a", "é", "☃", "k", "kelvin", "i", "istanbul", '"', "\\", " ")),
            _search("no time"),
            _search("x", search_in=[]),
            *(_get(session) for session in ("broken", "naive", "Ünï ☃", "message_bus")),
            _export("broken"),
            _export("broken", "json"),
            _active(),
        ),
        _ODD,
    ),
    Case(
        "requests refused",
        (
            _list(limit="1"),
            _list(limit=-1),
            _list(offset=True),
            _list(start_date=5),
            _search(""),
            _search(5),
            _search("x", search_in="content"),
            Step("conversation:get"),
            _get(5),
            *(_get(session) for session in _OUTSIDE),
            *(_export(session) for session in _OUTSIDE),
            _export("alpha", "pdf"),
            _get("message_bus", conversation_id=5),
            _active(max_lines="many"),
            _active(max_lines=10**9),
            _active(max_age_hours="long"),
        ),
        _STORED,
    ),
    Case(
        "nothing there",
        (
            _list(),
            _STATS,
            _search("x"),
            _get("alpha"),
            _get("message_bus"),
            _export("alpha"),
            _export("message_bus"),
            _active(),
        ),
    ),
    Case(
        "logs in trouble",
        (
            _list(),
            Step("@tear"),
            _get("alpha"),
            Step("@restart"),
            _list(),
            Step("@block"),
            _get("alpha"),
            _search("there"),
            Step("@restart"),
            _list(),
            Step("@unblock"),
            Step("@rotate"),
            Step("@restart"),
            _list(),
            _get("alpha"),
            _search("there"),
        ),
        _STORED,
    ),
    Case(
        "the directory in trouble",
        (
            _list(),
            Step("@cover"),
            _search("there"),
            _get("alpha"),
            _export("alpha"),
            _active(),
            Step("@restart"),
            _list(),
            _STATS,
            Step("@uncover"),
            _list(),
            _search("there"),
        ),
        _STORED,
    ),
    Case(
        "locks",
        (
            *(
                Step("conversation:acquire_lock", {"request_id": request, "conversation_id": "c"})
                for request in ("one", "two", "three", "one")
            ),
            Step(
                "conversation:acquire_lock",
                {"request_id": "four", "conversation_id": "d", "metadata": {"a": 1}},
            ),
            Step("conversation:lock_status", {"conversation_id": "c"}),
            _active(),
            Step("conversation:release_lock", {"request_id": "two"}),
            Step("conversation:release_lock", {"request_id": "one"}),
            Step("conversation:release_lock", {"request_id": "one"}),
            Step("conversation:acquire_lock", {"request_id": "three", "conversation_id": "d"}),
            Step("conversation:release_lock"),
            Step("conversation:acquire_lock", {"request_id": "five"}),
            Step(
                "conversation:fork_detected",
                {"request_id": "one", "expected_conversation_id": "c", "actual_conversation_id": "e"},
            ),
            Step("conversation:lock_status", {"conversation_id": "c"}),
            Step("conversation:lock_status"),
        ),
    ),
)

EXERCISE = Exercise(
    files=(_ALPHA,),
    cases=_CASES,
    writes=(_export("alpha"), _export("beta", "json")),
)
