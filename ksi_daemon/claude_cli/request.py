"""What a client asks for, checked: nothing here may become an option, a path or a program of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ksi_daemon.claude_cli.core import PLAIN_MODEL, Options, is_session, safe_name
from ksi_daemon.claude_cli.failures import Unusable
from ksi_daemon.errors import InvalidParameter, MissingParameter
from ksi_daemon.router import Data, Param, text, texts

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.settings import Settings

TURN = (
    Param("prompt", "str", "passed on as it is: a leading / is a command, @path a file", required=True),
    Param("request_id", "str", "the request's id; a new one if absent"),
    Param("session_id", "str", "the session to go on with, a UUID; else a new one begins"),
    Param("agent_id", "str", "the agent in whose directory a new session begins"),
    Param("model", "str", "a model's name, with or without claude-cli/"),
    Param("allowed_tools", "list[str]", "tools that need no permission"),
    Param("disallowed_tools", "list[str]", "tools that are not offered"),
    Param("max_turns", "int", "most steps of the agent", min_value=1),
    Param("mcp_config_path", "str", "an MCP configuration beneath the root"),
    Param("sandbox_dir", "str", "the directory of a new session, beneath KSI_SANDBOX_DIR"),
    Param("timeout", "float", "seconds, at most KSI_CLAUDE_PROGRESS_TIMEOUT"),
)

INJECT = (
    Param("session_id", "str", "the session to tell, a UUID", required=True),
    Param("message", "str", "what to tell it, as it is", required=True),
    Param("cwd", "str", "the directory in which the session began, absolute; known for sessions begun here"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One turn as it was asked for; what is empty was not given. Paths are absolute."""

    prompt: str
    request_id: str
    session: str
    agent: str
    options: Options
    sandbox_dir: str
    deadline_s: float

    def directory(self, sandbox: Path, request_id: str) -> str:
        """Where a new session of this request begins."""
        if self.sandbox_dir:
            return self.sandbox_dir
        kind, name = ("agents", self.agent) if self.agent else ("sessions", request_id)
        return str(sandbox / kind / safe_name(name))


@dataclass(frozen=True, slots=True)
class Injection:
    """One injection as it was asked for; an empty `cwd` was not given."""

    session: str
    message: str
    cwd: str


def turn_asked(data: Data, settings: Settings) -> Asked:
    """The data of a `claude_cli:turn`. Raises `MissingParameter`, `InvalidParameter`, `Unusable`."""
    return Asked(
        prompt=_text(data, "prompt"),
        request_id=_word(data, "request_id"),
        session=_session(data) if data.get("session_id") else "",
        agent=_word(data, "agent_id"),
        options=Options(
            model=_model(data),
            allowed_tools=_words(data, "allowed_tools"),
            disallowed_tools=_words(data, "disallowed_tools"),
            max_turns=_count(data, "max_turns"),
            mcp_config=_beneath(data, "mcp_config_path", settings.root, settings.root),
        ),
        sandbox_dir=_beneath(data, "sandbox_dir", settings.root, settings.sandbox_dir),
        deadline_s=min(_seconds(data, "timeout", settings), settings.claude_progress_timeout),
    )


def injection_asked(data: Data) -> Injection:
    """The data of a `claude_cli:inject`. Raises `MissingParameter`, `InvalidParameter`, `Unusable`."""
    cwd = _word(data, "cwd")
    if cwd and not os.path.isabs(cwd):
        raise Unusable("cwd", "an absolute path")
    return Injection(_session(data), _text(data, "message"), os.path.normpath(cwd) if cwd else "")


def _session(data: Data) -> str:
    found = text(data, "session_id")
    if not is_session(found):
        raise Unusable("session_id", "a UUID, 8-4-4-4-12 hexadecimal digits")
    return found


def _text(data: Data, name: str) -> str:
    """A required text of any content that UTF-8 can carry."""
    found = text(data, name)
    try:
        found.encode()
    except UnicodeEncodeError:
        raise Unusable(name, "text without lone surrogates") from None
    return found


def _word(data: Data, name: str) -> str:
    """An optional text that may become an argument or a name; absent is empty."""
    if data.get(name) is None or data[name] == "":
        return ""
    found = _text(data, name)
    if "\0" in found:
        raise Unusable(name, "text without NUL")
    return found


def _words(data: Data, name: str) -> tuple[str, ...]:
    found = tuple(_word({name: item}, name) for item in texts(data, name))
    if not all(found):
        raise Unusable(name, "a list of names that are not empty")
    return found


def _model(data: Data) -> str:
    found = _word(data, "model")
    name = found.removeprefix(PLAIN_MODEL)
    if found and not name:
        raise MissingParameter("model")
    return name


def _count(data: Data, name: str) -> int | None:
    found = data.get(name)
    if found is None:
        return None
    if type(found) is not int or found < 1:
        raise InvalidParameter(name, "a whole number from 1 on", found)
    return found


def _seconds(data: Data, name: str, settings: Settings) -> float:
    found = data.get(name)
    if found is None:
        return settings.claude_progress_timeout
    if type(found) not in (int, float) or not found > 0:
        raise InvalidParameter(name, "a number of seconds above 0", found)
    return float(found)


def _beneath(data: Data, name: str, root: Path, place: Path) -> str:
    """An optional path, relative to the root or absolute, that must lie beneath `place`."""
    found = _word(data, name)
    if not found:
        return ""
    path = os.path.normpath(os.path.join(root, found))
    if not path.startswith(os.path.join(place, "")):
        raise Unusable(name, f"a path beneath {place}")
    return path
