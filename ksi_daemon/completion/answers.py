"""What came of a turn, as values: an answer or a failure, how it is logged, the tokens it used."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksi_daemon import wire
from ksi_daemon.completion import core
from ksi_daemon.errors import InvalidParameter, reply_fields

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.completion.requests import Request
    from ksi_daemon.errors import KsiError
    from ksi_daemon.settings import Settings

PROVIDER = "claude-cli"
"""The one provider; a model that begins with this and a slash has its tokens recorded."""

RETRIED = frozenset({"api_error", "start_failed"})
"""Codes after which the same request may be sent again; after a kill it would arrive twice."""

OPEN_LOGS = 64
"""Sessions whose logs are known, and on the async side open, at a time."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_OF_REPLIES = frozenset({"error", "status", "details", "request_id", "session_id"})


def session_log(settings: Settings, session: str) -> Path:
    """Where a session's answers are logged. Raises `InvalidParameter` for what is no UUID."""
    if not _UUID.fullmatch(session):
        raise InvalidParameter("session_id", "a UUID", session)
    return settings.response_log_dir / f"{session}.jsonl"


@dataclass(frozen=True, slots=True)
class Answer:
    """The command's own JSON object, the session it is of (None: it named none), and how long it took."""

    response: dict[str, Any]
    session: str | None
    duration_ms: int

    @property
    def text(self) -> str:
        """What was said."""
        result = self.response.get("result")
        return result if type(result) is str else ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer, or why it could not be kept; `fields` begin with `code`."""

    error: str
    fields: dict[str, Any]

    @classmethod
    def of(cls, error: KsiError) -> Failure:
        """One of our own errors."""
        told = reply_fields(error)
        return cls(told.pop("error"), told)

    @property
    def code(self) -> str:
        """What kind of failure it is."""
        return str(self.fields["code"])

    @property
    def retryable(self) -> bool:
        """Whether the queue itself may try again."""
        return self.fields.get("retryable") is True and self.code in RETRIED


def read(reply: object) -> Answer | Failure:
    """The reply to `claude_cli:turn`; one without the expected keys is a failure of the code `bad_output`."""
    if type(reply) is dict and "error" in reply:
        fields = {name: value for name, value in reply.items() if name not in _OF_REPLIES | {"code"}}
        return Failure(str(reply["error"]), {"code": str(reply.get("code") or "handler_failed"), **fields})
    if type(reply) is dict:
        response, session, duration = (reply.get(name) for name in ("response", "session_id", "duration_ms"))
        known = session is None or (type(session) is str and _UUID.fullmatch(session))
        if type(response) is dict and known and type(duration) is int:
            return Answer(response, session, duration)
    return Failure("the reply to claude_cli:turn is not what was expected", {"code": "bad_output"})


def body(request: Request, answer: Answer, at: float) -> dict[str, Any]:
    """An answer as its session's log and its frame have it (the KSI contract, 3.7)."""
    ksi = {
        "provider": PROVIDER,
        "request_id": request.request_id,
        "timestamp": wire.utc_stamp(at),
        "duration_ms": answer.duration_ms,
    }
    if request.originator_id is not None:
        ksi["client_id"] = request.originator_id
    return {"ksi": ksi, "response": answer.response}


def usage(request: Request, session: str | None, answer: Answer, at: float) -> core.Usage | None:
    """The tokens of an answer; None if it tells none, or the model is not one of the command's.

    `session` is the one asked in, not the answer's (the KSI contract, 3.2). Raises `InvalidParameter`.
    """
    found = answer.response.get("usage")
    if not found or not request.model.startswith(f"{PROVIDER}/"):
        return None
    if type(found) is not dict:
        raise InvalidParameter("usage", "an object", found)
    return core.Usage(
        at=at,
        request_id=request.request_id,
        session_id=session,
        agent_id=request.agent_id,
        model=request.model,
        provider=PROVIDER,
        input_tokens=core.count(found, "input_tokens"),
        output_tokens=core.count(found, "output_tokens"),
        cache_creation_tokens=core.count(found, "cache_creation_input_tokens"),
        cache_read_tokens=core.count(found, "cache_read_input_tokens"),
        has_mcp="mcp_config_path" in request.options,
    )
