"""What a client asks of the queue, read and checked: `completion:async` as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ksi_daemon import wire
from ksi_daemon.errors import InvalidParameter, MissingParameter
from ksi_daemon.router import Param, obj, text, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.router import Data

PARAMS = (
    Param("request_id", "str", "a name for the request; a new one if there is none"),
    Param("session_id", "str", "the conversation to go on with, a UUID"),
    Param("agent_id", "str", "the agent that asks; without session_id its last session goes on"),
    Param("model", "str", "claude-cli/<name>; KSI_COMPLETION_DEFAULT_MODEL if there is none"),
    Param("messages", "list[dict[str, Any]]", "instead of prompt: the last one's content is sent"),
    Param("prompt", "str", "the text to send"),
    Param("originator_id", "str", "who asked; comes back as client_id"),
    Param(
        "extra_body",
        "dict[str, Any]",
        "`ksi`: agent_id, session_id, new_session, permissions {allowed_tools, disallowed_tools}, max_turns, "
        "mcp_config_path, sandbox_dir",
    ),
)
"""As `system:help` shows them; the original's others are taken and have no effect."""

FRAMES = ("completion:progress", "completion:result", "completion:error", "completion:cancelled")
"""What every client is told of a request."""

_BLOCKS = "a string or a list of text blocks"


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `options` are parameters of `claude_cli:turn`, checked for their types.

    `new_session`: the agent begins a new conversation with it, whatever its last session was.
    """

    request_id: str
    prompt: str
    model: str
    session_id: str | None = None
    agent_id: str | None = None
    originator_id: str | None = None
    new_session: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def conversation(self) -> str:
        """The key of its queue: the session, else the agent, else the request alone."""
        if self.session_id is not None:
            return self.session_id
        return f"agent:{self.agent_id}" if self.agent_id is not None else f"request:{self.request_id}"

    def turn(self, session: str | None) -> Data:
        """The parameters of `claude_cli:turn`, in the session `session`."""
        named = {"session_id": session, "agent_id": self.agent_id}
        given = {name: value for name, value in named.items() if value is not None}
        sent = {"prompt": self.prompt, "request_id": self.request_id, "model": self.model}
        return {**sent, **given, **self.options}


def read(data: Data, default_model: str, new_id: Callable[[], str]) -> Request:
    """A request from its parameters; a null counts as absent, unknown keys do not count.

    Raises `MissingParameter`, `InvalidParameter`, `Unserialisable`.
    """
    ksi = _part(_part(data, "extra_body"), "ksi")
    request = Request(
        request_id=optional(data, "request_id") or new_id(),
        prompt=_prompt(data),
        model=optional(data, "model") or default_model,
        session_id=optional(data, "session_id") or optional(ksi, "session_id"),
        agent_id=optional(data, "agent_id") or optional(ksi, "agent_id"),
        originator_id=optional(data, "originator_id"),
        new_session=_flag(ksi, "new_session"),
        options=_options(ksi),
    )
    names = [request.request_id, request.model, request.session_id, request.agent_id, request.originator_id]
    wire.encode([names, request.prompt])  # every frame and line must be able to carry it
    return request


def optional(data: Data, name: str) -> str | None:
    """An optional string; null and empty are absent. Raises `InvalidParameter`."""
    return text(data, name) if data.get(name) is not None and data[name] != "" else None


def _part(data: Data, name: str) -> Data:
    return obj(data, name) if data.get(name) is not None else {}


def _prompt(data: Data) -> str:
    prompt = optional(data, "prompt") or _last_content(data)
    if not prompt:
        raise MissingParameter("prompt or messages")
    return prompt


def _last_content(data: Data) -> str:
    messages = data.get("messages")
    if messages is None or messages == []:
        return ""
    if type(messages) is not list or type(messages[-1]) is not dict:
        raise InvalidParameter("messages", "a list of objects with content", messages)
    content = messages[-1].get("content")
    if type(content) is list:
        return "\n".join(map(_block, content))
    if type(content) is not str:
        raise InvalidParameter("content", _BLOCKS, content)
    return content


def _block(block: object) -> str:
    if type(block) is not dict or block.get("type") != "text" or type(block.get("text")) is not str:
        raise InvalidParameter("content", _BLOCKS, block)
    return str(block["text"])


def _flag(ksi: Data, name: str) -> bool:
    value = ksi.get(name)
    if value is not None and type(value) is not bool:
        raise InvalidParameter(name, "true or false", value)
    return value is True


def _options(ksi: Data) -> dict[str, Any]:
    permissions = _part(ksi, "permissions")
    found = {
        "allowed_tools": texts(permissions, "allowed_tools"),
        "disallowed_tools": texts(permissions, "disallowed_tools"),
        "max_turns": _turns(ksi),
        "mcp_config_path": optional(ksi, "mcp_config_path"),
        "sandbox_dir": optional(ksi, "sandbox_dir"),
    }
    return {name: value for name, value in found.items() if value}


def _turns(ksi: Data) -> int | None:
    value = ksi.get("max_turns")
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise InvalidParameter("max_turns", "a whole number from 1 on", value)
    return value
