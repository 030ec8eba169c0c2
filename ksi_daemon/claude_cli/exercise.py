"""The steps with which turns are tried on either side."""

from __future__ import annotations

from typing import Any

from ksi_daemon.claude_cli.standin import PROGRAM
from ksi_daemon.exercise import Case, Exercise, Step

FIRST = "11111111-2222-4333-8444-555555555555"
SECOND = "66666666-7777-4888-9999-aaaaaaaaaaaa"
THIRD = "bbbbbbbb-cccc-4ddd-8eee-ffffffffffff"


def _turn(prompt: str, **more: Any) -> Step:
    return Step("claude_cli:turn", {"prompt": prompt, **more})


def _inject(message: str, session: str = FIRST, **more: Any) -> Step:
    return Step("claude_cli:inject", {"session_id": session, "message": message, **more})


def _begin(session: str = FIRST, agent: str = "coder") -> Step:
    return _turn(f"session:{session} hello", request_id="begin", agent_id=agent)


_STATUS = Step("claude_cli:status")

_NO_SESSIONS = ("--version", "../../x", f"{FIRST}\n", f"{FIRST}0", f"{{{FIRST}}}", "\u0661" * 36, 5)
_NO_PARAMETERS: tuple[tuple[str, Any], ...] = (
    ("request_id", 7),
    ("agent_id", {}),
    ("agent_id", "a\0b"),
    ("model", "claude-cli/"),
    ("model", "a\0b"),
    ("allowed_tools", "Read"),
    ("allowed_tools", [""]),
    ("disallowed_tools", ["a\0b"]),
    ("max_turns", "3"),
    ("max_turns", 0),
    ("max_turns", True),
    ("mcp_config_path", "../outside"),
    ("mcp_config_path", "/etc/passwd"),
    ("mcp_config_path", "var/missing"),
    ("sandbox_dir", "var"),
    ("sandbox_dir", "var/sandbox/../state/x"),
    ("timeout", 0),
    ("timeout", "soon"),
)
_OUTCOMES = ("unknown", "wrong", "empty", "half", "array", "text", "killed", "nobody", "silent")

_CASES = (
    Case(
        "turns",
        (
            _begin(),
            _turn("go on", session_id=FIRST, request_id="r-2"),
            _turn("somebody else", agent_id="tester", request_id="r-3"),
            _turn("on my own", request_id="r-4"),
            _turn("no request"),
            _turn("in a place of its own", request_id="r-5", sandbox_dir="var/sandbox/shared/place"),
            _turn("line one\nline two", request_id="r-6"),
            _turn(
                "with everything",
                request_id="r-7",
                model="claude-cli/sonnet",
                allowed_tools=["Read", "Bash(git log:*)"],
                disallowed_tools=["Write"],
                max_turns=3,
                mcp_config_path="bin/claude",
                timeout=20,
            ),
            _STATUS,
        ),
    ),
    Case(
        "gone on with after a restart",
        (
            _begin(),
            Step("@restart"),
            _turn("still there", session_id=FIRST, request_id="r-2"),
            _turn("somewhere else", session_id=SECOND, request_id="r-3"),
            Step("@restart"),
            _inject("are you there", SECOND),
            _turn("still there", session_id=FIRST.upper(), request_id="r-4"),
        ),
    ),
    Case(
        "a new id with each turn",
        (
            _begin(),
            _turn(f"session:{SECOND}", session_id=FIRST),
            _turn("the newest goes on", session_id=FIRST),
            _turn(f"session:{THIRD}", session_id=SECOND),
            _turn("the newest goes on", session_id=FIRST),
            _inject("the newest is told"),
            Step("@restart"),
            _turn("where the second was", session_id=SECOND),
        ),
    ),
    Case(
        "one id in two places",
        (
            _begin(),
            _begin(FIRST, "tester"),
            _turn("the later place", session_id=FIRST),
            _begin(SECOND, "coder"),
            Step("@restart"),
            _turn("the later place", session_id=FIRST),
        ),
    ),
    Case(
        "every outcome",
        (
            *(_turn(f"exit:{code}", request_id="r") for code in (1, 2, 130, 137, 143)),
            *(_turn(f"says:{code}", request_id="r") for code in (1, 143)),
            _turn("mute:3", request_id="r"),
            *(_turn(f"api:{status}", request_id="r") for status in (400, 401, 429, 500, 529)),
            *(_turn(f"session:{name}", request_id="r") for name in ("x", "../../x", "--version")),
            *(
                _turn(word, request_id="r", session_id=FIRST)
                for word in (
                    "unknown",
                    "wrong",
                    "empty",
                    "half",
                    "array",
                    "text",
                    "killed",
                    "nobody",
                    "silent",
                )
            ),
            _turn("tool left behind", request_id="r"),
            _turn("flood", request_id="r"),
            _turn("hang", request_id="r", timeout=0.2),
            _turn("sleep:0", request_id="r"),
            _STATUS,
        ),
    ),
    Case(
        "refused",
        (
            Step("claude_cli:turn"),
            _turn(""),
            Step("claude_cli:turn", {"prompt": ["a"]}),
            *(_turn("x", session_id=name) for name in _NO_SESSIONS),
            *(_turn("x", **{name: value}) for name, value in _NO_PARAMETERS),
            _inject("x", "latest"),
            _inject(""),
            _inject("x", cwd="relative"),
            _inject("x", cwd="/nowhere/at/all"),
            _inject("x"),
        ),
    ),
    Case(
        "injections",
        (
            _begin(),
            *(_inject(f"note {number}") for number in range(3)),
            _inject("exit:1"),
            _inject("empty"),
            _inject("one too many"),
            _inject("one too many", FIRST.upper()),
            _inject("another session", SECOND, cwd="/"),
            _inject("unknown", SECOND, cwd="/"),
            _inject("x" * 300, SECOND, cwd="/"),
        ),
    ),
    Case(
        "hostile strings",
        tuple(
            _turn(text, request_id=text, agent_id=agent, model=text)
            for text in (
                "$(touch owned); `touch owned` && touch owned | touch owned > owned",
                "--dangerously-skip-permissions",
                "-p\n--resume=x",
                "../../../etc",
                ".",
                "..",
                "a/b",
                "é ☃ \u2028 \x1b[31m",
                "x" * 300,
                "message_bus",
                "'\"\\",
            )
            for agent in ("", text)
        ),
    ),
    Case(
        "the file of a session in trouble",
        (
            _begin(),
            Step("@block"),
            Step("@restart"),
            _turn("cannot be read", session_id=FIRST),
            Step("@unblock"),
            _turn("there again", session_id=FIRST),
            Step("@block"),
            _begin(FIRST, "tester"),
            _turn("in memory", session_id=FIRST),
            Step("@unblock"),
            _turn("written after all", session_id=FIRST),
            Step("@restart"),
            _turn("in its new place", session_id=FIRST),
            Step("@remove"),
            Step("@restart"),
            _turn("forgotten", session_id=FIRST, request_id="r"),
        ),
    ),
)

EXERCISE = Exercise(
    files=(f"var/state/claude_sessions/{FIRST}",),
    cases=_CASES,
    writes=(
        _turn("the first of two", session_id=FIRST, request_id="w-1"),
        _turn("the second of two", session_id=FIRST, request_id="w-2"),
    ),
    programs={"bin/claude": PROGRAM},
    settings={"claude_bin": "bin/claude", "claude_grace": 0.5, "claude_max_output_bytes": 65536},
)
