"""What a line says: a message of `conversation:get` or of the bus's log, and what a search looks at. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from ksi_daemon.conversation.core import CLAUDE, DIRECT, HUMAN, IT, UNKNOWN, USER, YOU, clean, plain

Message = dict[str, Any]
"""A message as a reply shows it."""

BUS_KIND = "COMPLETION_RESULT"


class Spoken(NamedTuple):
    """An entry whatever its format: its kind, its stamp, and what was said in it."""

    kind: Any
    stamp: Any
    content: Any
    result: Any


def spoken(value: dict[str, Any]) -> Spoken:
    """An entry of either format; what the daemon itself has written counts as said by Claude."""
    ksi = value.get("ksi")
    if type(ksi) is dict and value.get("timestamp") is None:
        response = value.get("response")
        result = response.get("result") if type(response) is dict else response
        return Spoken(CLAUDE, ksi.get("timestamp"), None, result)
    return Spoken(value.get("type"), value.get("timestamp"), value.get("content"), value.get("result"))


def message(value: dict[str, Any]) -> Message | None:
    """An entry as a message; None for one of another kind."""
    if "ksi" in value:
        kind, stamp, content, result = spoken(value)
    else:
        kind, stamp = value.get("type"), value.get("timestamp")
        content, result = value.get("content"), value.get("result")
    stamp = clean(stamp) if type(stamp) is str else None
    if kind in (USER, HUMAN):  # a tuple: a kind may be what no set can hold
        return {"timestamp": stamp, "sender": YOU, "content": _shown(content), "type": USER}
    if kind == CLAUDE:
        return {"timestamp": stamp, "sender": IT, "content": _shown(result or content), "type": CLAUDE}
    if kind == DIRECT:
        sender, to = _name(value.get("from")), plain(value.get("to"))
        return {"timestamp": stamp, "sender": sender, "content": _shown(content), "type": "message", "to": to}
    return None


def bus_message(value: dict[str, Any], conversation: str | None = None) -> Message | None:
    """A completion as the bus's log has it, of one conversation or of any; None for any other record."""
    result = value.get("result")
    if value.get("type") != BUS_KIND or type(result) is not dict:
        return None
    session = result.get("session_id")
    if conversation is not None and session != conversation:
        return None
    stamp = value.get("timestamp")
    return {
        "timestamp": clean(stamp) if type(stamp) is str else None,
        "sender": _name(value.get("client_id")),
        "content": _shown(result.get("response")),
        "session_id": plain(session),
        "model": plain(result.get("model") or "unknown"),
        "type": "completion_result",
    }


def _shown(content: Any) -> Any:
    return "" if content is None else plain(content)


def _name(value: Any) -> str:
    return clean(value) if type(value) is str and value else UNKNOWN
