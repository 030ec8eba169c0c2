"""Turns as values: arguments, environment, names, outcomes, messages; and which id a session goes by."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ksi_daemon.claude_cli import core, sessions
from ksi_daemon.claude_cli.core import Ended, Options
from ksi_daemon.claude_cli.failures import LONGEST, EmptyAnswer, RateLimited
from ksi_daemon.claude_cli.rate import Rate
from ksi_daemon.claude_cli.sessions import Chains
from ksi_daemon.errors import KsiError

SESSION = "11111111-2222-4333-8444-555555555555"
NEXT = "66666666-7777-4888-9999-aaaaaaaaaaaa"
LAST = "bbbbbbbb-cccc-4ddd-8eee-ffffffffffff"


def answer(**more):
    """What the command prints when all went well."""
    return json.dumps(
        {"type": "result", "is_error": False, "result": "ok", "session_id": SESSION, **more}
    ).encode()


def outcome(code, stdout=b"", stderr=b""):
    """The error's fields and text, or None."""
    try:
        core.judge(Ended(code, stdout, stderr))
    except KsiError as error:
        return {"error": str(error), **error.fields()}
    return None


def test_the_arguments_of_a_plain_turn():
    """What was not asked for is not there."""
    assert core.argv(Options()) == ("-p", "--output-format", "json")


def test_every_option_is_joined_to_its_value():
    """So no value can be read as an option of its own."""
    options = Options("--help", ("--x", "Bash(git log:*)"), ("-y",), 3, SESSION, "/srv/-m")

    assert core.argv(options) == (
        "-p",
        "--output-format",
        "json",
        "--model=--help",
        "--allowedTools=--x,Bash(git log:*)",
        "--disallowedTools=-y",
        "--max-turns=3",
        f"--resume={SESSION}",
        "--mcp-config=/srv/-m",
    )


def test_the_arguments_of_an_injection():
    """The contract's, with the session joined to its option."""
    assert core.argv_of_injection(SESSION) == (f"--resume={SESSION}", "--print")


def test_the_environment_is_a_list_of_what_is_allowed():
    """All else stays behind: secrets, the daemon's own settings, names that only begin alike."""
    allowed = {name.replace("*", "X"): "1" for name in core.ALLOWED}
    others = {
        "AWS_SECRET": "1",
        "KSI_ROOT": "1",
        "PATHS": "1",
        "LC": "1",
        "CLAUDECODE": "1",
        "Path": "1",
        "": "1",
    }

    assert core.environment({**others, **allowed}) == allowed


def test_more_names_may_be_allowed():
    """Separated by commas, with blanks around them and a star at the end if need be."""
    given = {"A": "1", "B_1": "2", "B_2": "3", "C": "4"}

    assert core.environment(given, " A , B_*,, ") == {"A": "1", "B_1": "2", "B_2": "3"}


@pytest.mark.parametrize("value", [SESSION, SESSION.upper()])
def test_a_session_is_a_uuid(value):
    """In either case."""
    assert core.is_session(value)


@pytest.mark.parametrize(
    "value",
    [
        *("", "--version", "../../x", "latest", SESSION[:-1], f"{SESSION}0", f"{SESSION}\n", f" {SESSION}"),
        *(f"{{{SESSION}}}", SESSION.replace("-", ""), "urn:uuid:" + SESSION, "\u0661" * 8 + SESSION[8:]),
        *(None, 5, [SESSION], SESSION.encode()),
    ],
)
def test_nothing_else_is_a_session(value):
    """No other spelling, no other type."""
    assert not core.is_session(value)


@pytest.mark.parametrize("name", ["a", "_x", "coder-1.2_b", "9", "x" * 64, SESSION])
def test_a_safe_name_is_kept(name):
    """As it is."""
    assert core.safe_name(name) == name


@given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
@example(["..", "."])
@example(["a/b", "a_b"])
@example(["", "_"])
@example(["x" * 300, "x" * 301])
@example(["\ud800", "\ud801"])
def test_every_name_is_one_directory(names):
    """Of its own, of plain characters, short, and never hidden, an option or the way up."""
    safe = [core.safe_name(name) for name in names]

    assert safe[0] != safe[1]
    assert all(core._SAFE_NAME.fullmatch(name) for name in safe)


def test_a_good_answer():
    """The object whole, and its session."""
    assert core.judge(Ended(0, answer() + b"\n", b"warning")) == core.Answer(json.loads(answer()), SESSION)


def test_an_answer_without_result_or_session():
    """Both can be missing."""
    assert core.judge(Ended(0, b'{"type":"result"}', b"")) == core.Answer({"type": "result"}, None)


FAILED = {"retryable": False}
OUTCOMES = [
    ((1, b"", b"no such model\n"), {"error": "no such model", "code": "cli_failed", "exit_code": 1}),
    ((1, b"said here", b" \n"), {"error": "said here", "code": "cli_failed", "exit_code": 1}),
    (
        (2, b"", b""),
        {"error": "the claude command ended with exit code 2", "code": "cli_failed", "exit_code": 2},
    ),
    ((1, answer(), b"odd"), {"error": "odd", "code": "cli_failed", "exit_code": 1}),
    ((1, b"", b"\xff"), {"error": "\ufffd", "code": "cli_failed", "exit_code": 1}),
    ((1, b"", b"x" * 9999), {"error": "x" * LONGEST + "…", "code": "cli_failed", "exit_code": 1}),
    (
        (1, b"", f"No conversation found with session ID: {SESSION}\n".encode()),
        {"error": f"No conversation found with session ID: {SESSION}", "code": "unknown_session"},
    ),
    (
        (1, answer(is_error=True, result="API Error: 429 slow down"), b""),
        {"error": "API Error: 429 slow down", "code": "api_error", "api_status": 429, "retryable": True},
    ),
    (
        (1, answer(is_error=True, result='API Error (529 {"type":"error"})'), b""),
        {
            "error": 'API Error (529 {"type":"error"})',
            "code": "api_error",
            "api_status": 529,
            "retryable": True,
        },
    ),
    (
        (1, answer(is_error=True, result="API Error: Request rejected (429)", api_error_status=429), b""),
        {
            "error": "API Error: Request rejected (429)",
            "code": "api_error",
            "api_status": 429,
            "retryable": True,
        },
    ),
    (
        (1, answer(is_error=True, result=None, errors=["Reached max turns", 2]), b""),
        {"error": "Reached max turns", "code": "api_error"},
    ),
    ((1, answer(is_error=True, result=None, errors="odd"), b"said"), {"error": "said", "code": "api_error"}),
    (
        (0, answer(is_error=True, result="API Error: 401 who are you"), b""),
        {"error": "API Error: 401 who are you", "code": "api_error", "api_status": 401},
    ),
    (
        (1, answer(is_error=True, result="Invalid API key"), b""),
        {"error": "Invalid API key", "code": "api_error"},
    ),
    ((1, answer(is_error=True, result=None), b"only here"), {"error": "only here", "code": "api_error"}),
    (
        (0, answer(is_error=True, result=""), b""),
        {"error": "the claude command reports an error and says nothing about it", "code": "api_error"},
    ),
    (
        (1, b"API Error: 500 in plain text\n", b""),
        {"error": "API Error: 500 in plain text", "code": "api_error", "api_status": 500, "retryable": True},
    ),
    *(
        (
            (code, answer(is_error=True), b"No conversation found with session ID: x"),
            {
                "error": f"the claude command was ended by a signal (exit code {code})",
                "code": "terminated",
                "exit_code": code,
            },
        )
        for code in (130, 137, 143, -2, -9, -15)
    ),
    *(
        ((0, stdout, b"noise"), {"error": str(EmptyAnswer()), "code": "empty_answer"})
        for stdout in (b"", b" \n\t")
    ),
    *(
        (
            (0, stdout, b""),
            {
                "error": "the claude command printed no usable answer: it is not one JSON object",
                "code": "bad_output",
            },
        )
        for stdout in (
            b'{"result": "ha',
            b"[1]",
            b"text",
            b"{}{}",
            b'{"a":NaN}',
            b'"x"',
            b"\xff",
            b"7",
            b"null",
        )
    ),
    *(
        (
            (0, answer(session_id=session), b""),
            {
                "error": "the claude command printed no usable answer: its session_id is not a UUID",
                "code": "bad_output",
            },
        )
        for session in ("", "../../x", 5, [SESSION])
    ),
]


@pytest.mark.parametrize(("ended", "expected"), OUTCOMES)
def test_what_a_failed_turn_is_called(ended, expected):
    """Code, text and whether trying again helps, by exit code, stdout and stderr together."""
    assert outcome(*ended) == {**FAILED, **expected}


def test_an_injection_is_answered_in_plain_text():
    """Of which the first hundred characters are told."""
    assert core.judge_injection(Ended(0, ("é" * 200).encode(), b"")) == "é" * 100


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        ((1, b"", b"No conversation found with session ID: x"), "unknown_session"),
        ((0, b"\n", b""), "empty_answer"),
        ((1, b"API Error: 429 later", b""), "api_error"),
        ((143, b"x", b""), "terminated"),
        ((3, b"x", b""), "cli_failed"),
    ],
)
def test_an_injection_fails_as_a_turn_does(ended, code):
    """The same codes."""
    with pytest.raises(KsiError) as raised:
        core.judge_injection(Ended(*ended))

    assert raised.value.code == code


def test_the_layout_of_an_injected_message():
    """The contract's: a newline, the stamp, who it is about, the data in a fence."""
    now = datetime(2025, 7, 12, 9, 8, 7).astimezone()

    assert core.injection({"request_id": "r-1", "status": "é"}, now) == (
        "\n[KSI Event - 09:08:07]\nRequest r-1 in session unknown\n"
        '```json\n{\n  "request_id": "r-1",\n  "status": "\\u00e9"\n}\n```\n'
    )


def test_an_answer_under_the_same_id_changes_nothing():
    """As from 1.0.124 on; whatever the case."""
    chains = Chains()

    chains.follow(SESSION, SESSION.upper())

    assert chains.memory() == {}
    assert chains.newest(SESSION) == SESSION


def test_a_new_id_with_each_answer_is_still_one_session():
    """As up to 1.0.117: whichever id is named, the newest goes on, and one key orders them all."""
    chains = Chains()

    chains.follow(SESSION, NEXT)
    chains.follow(NEXT, LAST)

    assert {chains.newest(one) for one in (SESSION, SESSION.upper(), NEXT, LAST)} == {LAST}
    assert {chains.key(one) for one in (SESSION, NEXT.upper(), LAST)} == {SESSION}
    assert chains.memory() == {SESSION: LAST, NEXT: LAST}


def test_chains_are_bounded(monkeypatch):
    """The id that was used longest ago is forgotten."""
    monkeypatch.setattr(sessions, "MOST", 3)
    chains = Chains()

    chains.follow(SESSION, NEXT)
    chains.newest(SESSION)
    chains.follow(LAST, SESSION[::-1])

    assert chains.newest(NEXT) == NEXT
    assert chains.newest(LAST) == SESSION[::-1]


def test_a_rate_counts_what_happened_lately():
    """Each key by itself; what was refused does not count."""
    rate = Rate(2, 60)
    rate.take("a", 0)
    rate.take("a", 30)

    for _ in range(3):
        with pytest.raises(RateLimited, match=r"2 injections in 60 s"):
            rate.take("a", 59)
    rate.take("b", 59)
    rate.take("a", 60)
    with pytest.raises(RateLimited):
        rate.take("a", 61)


def test_a_rate_forgets():
    """Keys of long ago take no memory, and a clock that was set back locks nobody out."""
    rate = Rate(1, 60)
    rate.take("a", 0)
    rate.take("b", 1000)

    assert list(rate._taken) == ["b"]
    rate.take("b", 500)
