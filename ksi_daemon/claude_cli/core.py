"""Turns as values: what to run, what came of it, and what that means. Pure, and shared by both sides."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ksi_daemon import wire
from ksi_daemon.claude_cli.failures import (
    ApiError,
    BadOutput,
    CliFailed,
    EmptyAnswer,
    Terminated,
    UnknownSession,
)
from ksi_daemon.errors import InvalidJson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from ksi_daemon.errors import KsiError

ALLOWED = (
    *("PATH", "HOME", "USER", "LANG", "LC_*", "TMPDIR", "TZ"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("ANTHROPIC_*", "CLAUDE_*"),
)
"""The variables that reach the command; a star stands for any ending. `KSI_CLAUDE_ENV` names more."""

ENDED_BY_SIGNAL = frozenset({130, 137, 143})
"""Exit codes with which the command, or a shell around it, reports SIGINT, SIGKILL and SIGTERM."""

PLAIN_MODEL = "claude-cli/"
"""The prefix of a model's name that says who answers; it is taken off once (the KSI contract, 6.6)."""

SHOWN = 100
"""Characters of an injection's answer that its reply repeats (the KSI contract, 3.7 a)."""

_NO_SESSION = "No conversation found with session ID"
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_API_STATUS = re.compile(r"\bAPI Error:? \(?(\d{3})\b")


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of the command. `argv` lacks the program itself; `prompt` goes to its stdin as UTF-8.

    `cwd` is an absolute path; it is made if it is missing, unless `make_cwd` is false: then it must be there.
    `deadline_s` seconds after its start the command is ended. `name` tells turns apart in the process table.
    `config`, where given, is a file that the command will read: it must lie beneath the root, links resolved.
    """

    name: str
    argv: tuple[str, ...]
    prompt: str
    cwd: str
    deadline_s: float
    make_cwd: bool = True
    config: str = ""


class Ended(NamedTuple):
    """How the command ended: `code` as `subprocess` gives it (a signal is negative), and what it printed."""

    code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a turn that went well gave: the command's JSON object whole, and the session it names, if any."""

    response: dict[str, Any]
    session: str | None


@dataclass(frozen=True, slots=True)
class Options:
    """What a turn may ask of the command, checked."""

    model: str = ""
    allowed_tools: tuple[str, ...] = ()
    disallowed_tools: tuple[str, ...] = ()
    max_turns: int | None = None
    session: str = ""
    mcp_config: str = ""


def argv(options: Options) -> tuple[str, ...]:
    """The arguments of a turn. Every value is joined to its option with `=`, so none can be an option."""
    values = {
        "model": options.model,
        "allowedTools": ",".join(options.allowed_tools),
        "disallowedTools": ",".join(options.disallowed_tools),
        "max-turns": "" if options.max_turns is None else str(options.max_turns),
        "resume": options.session,
        "mcp-config": options.mcp_config,
    }
    given = (f"--{name}={value}" for name, value in values.items() if value)
    return ("-p", "--output-format", "json", *given)


def argv_of_injection(session: str) -> tuple[str, ...]:
    """The arguments of an injection (the KSI contract, 3.7 a)."""
    return (f"--resume={session}", "--print")


def environment(variables: Mapping[str, str], more: str = "") -> dict[str, str]:
    """Those of `variables` that may reach the command; `more` names others, comma-separated."""
    allowed = [*ALLOWED, *filter(None, (name.strip() for name in more.split(",")))]
    exact = {name for name in allowed if not name.endswith("*")}
    starts = tuple(name[:-1] for name in allowed if name.endswith("*"))
    return {name: value for name, value in variables.items() if name in exact or name.startswith(starts)}


def is_session(value: object) -> bool:
    """Whether a value is a UUID in its canonical form, in either case; nothing else is a session's id."""
    return type(value) is str and _UUID.fullmatch(value) is not None


def safe_name(name: str) -> str:
    """A name from outside as the name of one directory; two that differ do not share one by chance."""
    if _SAFE_NAME.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{_UNSAFE.sub('_', name)[:40]}-{digest}".lstrip("-")


def text_of(printed: bytes) -> str:
    """What the command printed, for people: without the white space around it, damage marked."""
    return printed.decode("utf-8", "replace").strip()


def judge(ended: Ended) -> Answer:
    """The answer of a turn, or what went wrong with it, by how the command ended (docs/deviations.md).

    Raises `Terminated`, `UnknownSession`, `ApiError`, `CliFailed`, `EmptyAnswer`, `BadOutput`.
    """
    found = _object(ended.stdout)
    for applies, error in _WRONG:
        if applies(ended, found):
            raise error(ended, found)
    if found is None:
        raise BadOutput("it is not one JSON object")
    session = found.get("session_id")
    if session is not None and not is_session(session):
        raise BadOutput("its session_id is not a UUID")
    return Answer(found, session)


def judge_injection(ended: Ended) -> str:
    """The first characters of what an injection was answered, which is plain text. Raises as `judge` does."""
    for applies, error in _WRONG:
        if applies(ended, None):
            raise error(ended, None)
    return ended.stdout.decode("utf-8", "replace")[:SHOWN]


_Found = dict[str, Any] | None


def _object(stdout: bytes) -> _Found:
    try:
        found = wire.decode(stdout)
    except InvalidJson:
        return None
    return found if type(found) is dict else None


def _by_signal(ended: Ended, _found: _Found) -> bool:
    return ended.code < 0 or ended.code in ENDED_BY_SIGNAL


def _no_session(ended: Ended, _found: _Found) -> bool:
    return ended.code != 0 and _NO_SESSION in text_of(ended.stderr)


def _says_error(ended: Ended, found: _Found) -> bool:
    """`is_error`, whatever the exit code; or, where the output is plain text, the client's own words."""
    if found is not None:
        return found.get("is_error") is True
    return ended.code != 0 and text_of(ended.stdout).startswith("API Error")


def _failed(ended: Ended, _found: _Found) -> bool:
    return ended.code != 0


def _empty(ended: Ended, _found: _Found) -> bool:
    return not ended.stdout.strip()


def _api_error(ended: Ended, found: _Found) -> ApiError:
    """The command's text: `result`, else the first of `errors`. The state by its field, else by the text."""
    text, status = text_of(ended.stdout), None
    if found is not None:
        errors = found.get("errors")
        said = [found.get("result"), *(errors if type(errors) is list else ())]
        text = next((one for one in said if type(one) is str and one), text_of(ended.stderr))
        status = found.get("api_error_status")
    if type(status) is not int:
        named = _API_STATUS.search(text)
        status = int(named[1]) if named else None
    return ApiError(text, status)


_WRONG: tuple[tuple[Callable[[Ended, _Found], bool], Callable[[Ended, _Found], KsiError]], ...] = (
    (_by_signal, lambda ended, _found: Terminated(ended.code)),
    (_no_session, lambda ended, _found: UnknownSession(text_of(ended.stderr))),
    (_says_error, _api_error),
    (_failed, lambda ended, _found: CliFailed(ended.code, text_of(ended.stderr) or text_of(ended.stdout))),
    (_empty, lambda _ended, _found: EmptyAnswer()),
)
"""What can be wrong with a turn, the first that applies; what is left ended with 0 and printed something."""


def injection(data: Mapping[str, Any], now: datetime) -> str:
    """An event's data as the message that the monitor injects (the KSI contract, 3.7 a)."""
    request, session = data.get("request_id", "unknown"), data.get("session_id", "unknown")
    block = json.dumps(data, indent=2)
    return f"\n[KSI Event - {now:%H:%M:%S}]\nRequest {request} in session {session}\n```json\n{block}\n```\n"
