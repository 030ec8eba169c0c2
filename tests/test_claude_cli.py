"""Turns of the claude command on both sides: what it gets, where it runs, what comes of it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import pytest

from ksi_daemon.claude_cli import AREA, service
from ksi_daemon.claude_cli.exercise import FIRST, SECOND, THIRD
from tests.rooms import SIDES, room

RECORDER = r"""#!/bin/sh
root=${0%/bin/claude}
for one do printf '%s\0' "$one"; done > "$root/argv"
env > "$root/env"
cat > "$root/stdin"
pwd -P > "$root/cwd"
printf '{"result":"ok","session_id":"11111111-2222-4333-8444-555555555555"}\n'
"""


def lay(root, program=RECORDER, place="bin/claude", **settings):
    """Put a program below the root; the room with settings that name it."""
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(program.encode() if isinstance(program, str) else program)
    path.chmod(0o755)
    given = {"claude_bin": place, "claude_grace": 0.5, **settings}
    return replace(AREA, exercise=replace(AREA.exercise, programs={}, settings=given))


@pytest.fixture(params=SIDES)
def side(request):
    """For tests that lay down a program of their own."""
    return request.param


@pytest.fixture
async def recorded(side, tmp_path):
    """The room with a program that writes down what it gets."""
    area = lay(tmp_path)
    async with room(area, side, tmp_path) as made:
        yield made


@pytest.fixture
async def claude(side, tmp_path):
    """The room with the program that parity uses."""
    area = lay(tmp_path, AREA.exercise.programs["bin/claude"], claude_max_output_bytes=65536)
    async with room(area, side, tmp_path) as made:
        yield made


async def turn(room, prompt="hello", **data):
    """One turn's reply."""
    return await room.send("claude_cli:turn", prompt=prompt, **data)


def remembered(root, session=FIRST):
    """What is written of a session."""
    return (root / "var/state/claude_sessions" / session).read_text()


async def test_a_reply_holds_the_whole_answer(recorded):
    """The command's object as it is, the session it names, and how long it took."""
    reply = await turn(recorded, request_id="r-1")

    assert reply == {
        "status": "completed",
        "request_id": "r-1",
        "session_id": FIRST,
        "response": {"result": "ok", "session_id": FIRST},
        "duration_ms": 1,
    }


async def test_the_arguments_are_exactly_these(recorded, tmp_path):
    """In this order, each value joined to its option; nothing else, and the prompt not among them."""
    (tmp_path / "mcp.json").write_text("{}")

    await turn(
        recorded,
        session_id=FIRST,
        model="claude-cli/claude-cli/sonnet; rm -rf /",
        allowed_tools=["Read", "--x"],
        disallowed_tools=["Write"],
        max_turns=3,
        mcp_config_path="mcp.json",
    )

    assert (tmp_path / "argv").read_text().split("\0")[:-1] == [
        *("-p", "--output-format", "json", "--model=claude-cli/sonnet; rm -rf /"),
        *("--allowedTools=Read,--x", "--disallowedTools=Write", "--max-turns=3", f"--resume={FIRST}"),
        f"--mcp-config={tmp_path}/mcp.json",
    ]


async def test_the_environment_is_exactly_what_is_allowed(recorded, tmp_path, monkeypatch):
    """Secrets of the daemon's own do not reach the command."""
    for name in os.environ:
        monkeypatch.delenv(name)
    kept = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/h",
        "LC_ALL": "C",
        "ANTHROPIC_API_KEY": "dummy",
        "CLAUDE_X": "1",
    }
    for name, value in {
        **kept,
        "AWS_SECRET": "s",
        "KSI_TOKEN": "s",
        "LD_PRELOAD": "",
        "CLAUDECODE": "1",
    }.items():
        monkeypatch.setenv(name, value)

    await turn(recorded)

    lines = (tmp_path / "env").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines)
    mark = found.pop("KSI_TURN")
    shells_own = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert {name: value for name, value in found.items() if name not in shells_own} == kept
    assert mark.startswith(hashlib.sha256(os.fsencode(tmp_path)).hexdigest()[:12] + "-")


@pytest.mark.parametrize(
    "prompt",
    [
        "x",
        "a\0b",
        "$(touch owned) `x` 'y' \"z\"\n\n",
        "--version",
        "é ☃ \u2028 \x1b[31m",
        "☃" * (1024 * 1024 // 3),
    ],
    ids=["plain", "nul", "shell", "option", "utf8", "MiB"],
)
async def test_the_prompt_arrives_byte_for_byte(recorded, tmp_path, prompt):
    """On stdin, as UTF-8, whatever its size."""
    reply = await turn(recorded, prompt)

    assert reply["status"] == "completed"
    assert (tmp_path / "stdin").read_bytes() == prompt.encode()
    assert not list(tmp_path.rglob("owned"))


async def test_a_new_session_begins_where_its_agent_lives(claude, tmp_path):
    """Or, without an agent, in a directory of its request."""
    replies = [await turn(claude, agent_id="coder"), await turn(claude, request_id="r-1"), await turn(claude)]

    assert [reply["response"]["cwd"] for reply in replies] == [
        "var/sandbox/agents/coder",
        "var/sandbox/sessions/r-1",
        f"var/sandbox/sessions/{replies[2]['request_id']}",
    ]
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "var/sandbox").rglob("*")} == {"0o700"}


async def test_a_session_stays_in_its_directory(claude, tmp_path):
    """Whoever goes on with it, and after a restart too: there alone the command finds it."""
    await turn(claude, f"session:{FIRST}", agent_id="coder")
    before = await turn(claude, session_id=FIRST, agent_id="other")
    await claude.restart()
    after = await turn(claude, session_id=FIRST.upper(), sandbox_dir="var/sandbox/elsewhere")

    assert [reply["response"]["cwd"] for reply in (before, after)] == ["var/sandbox/agents/coder"] * 2
    assert remembered(tmp_path) == "agents/coder"


async def test_a_directory_may_be_given(claude, tmp_path):
    """For a new session, and for one that began elsewhere; relative to the root or absolute."""
    relative = await turn(claude, f"session:{FIRST}", sandbox_dir="var/sandbox/a/b")
    absolute = await turn(claude, session_id=SECOND, sandbox_dir=f"{tmp_path}/var/sandbox/c/../d")

    assert [reply["response"]["cwd"] for reply in (relative, absolute)] == [
        "var/sandbox/a/b",
        "var/sandbox/d",
    ]
    assert remembered(tmp_path, SECOND) == "d"


@pytest.mark.parametrize("text", ["../../etc", "..", "", "x\0y", b"\xff", b"a" * 8192])
async def test_what_no_daemon_wrote_is_not_followed(claude, tmp_path, text):
    """A file of a session that leads out of the sandbox, or is no path, is as good as none."""
    path = tmp_path / "var/state/claude_sessions" / FIRST
    path.parent.mkdir(parents=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    reply = await turn(claude, session_id=FIRST, request_id="r-1")

    assert reply["response"]["cwd"] == "var/sandbox/sessions/r-1"


async def test_an_absolute_directory_is_gone_back_to(claude, tmp_path):
    """Outside the sandbox it must still be there: nothing is made."""
    path = tmp_path / "var/state/claude_sessions" / FIRST
    path.parent.mkdir(parents=True)
    path.write_text(f"{tmp_path}/project")

    missing = await turn(claude, session_id=FIRST)
    (tmp_path / "project").mkdir()
    there = await turn(claude, session_id=FIRST)

    assert missing["code"] == "invalid_parameter"
    assert there["response"]["cwd"] == "project"


async def test_no_link_leads_out_of_the_sandbox(claude, tmp_path):
    """Neither in the place of a directory nor on the way to one."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "var/sandbox/agents").mkdir(parents=True)
    (tmp_path / "var/sandbox/agents/coder").symlink_to(outside)
    (tmp_path / "var/sandbox/sessions").symlink_to(outside)

    replies = [await turn(claude, agent_id="coder"), await turn(claude, request_id="r-1")]

    assert {(reply["code"], reply["errno"]) for reply in replies} <= {
        ("io_error", "ELOOP"),
        ("io_error", "ENOTDIR"),
    }
    assert list(outside.iterdir()) == []


async def test_a_directory_that_cannot_be_made_costs_the_turn(claude, tmp_path):
    """The error names it."""
    (tmp_path / "var").mkdir()
    (tmp_path / "var/sandbox").write_text("in the way")

    reply = await turn(claude, agent_id="coder")

    assert reply["code"] == "io_error"
    assert f"make {tmp_path}/var/sandbox/agents/coder" in reply["error"]


async def test_a_session_whose_directory_was_not_written_down_goes_on(claude, tmp_path):
    """The answer is given all the same; memory keeps it, and the next turn writes it."""
    path = tmp_path / "var/state/claude_sessions"
    path.parent.mkdir(parents=True)
    path.write_text("in the way")

    first = await turn(claude, f"session:{FIRST}", agent_id="coder")
    path.unlink()
    second = await turn(claude, session_id=FIRST)

    assert (first["status"], second["response"]["cwd"]) == ("completed", "var/sandbox/agents/coder")
    assert remembered(tmp_path) == "agents/coder"


async def test_a_directory_that_cannot_be_recalled_costs_the_turn(claude, tmp_path):
    """A turn in the wrong place would be worse: the command would not know the session there."""
    (tmp_path / "var/state/claude_sessions" / FIRST).mkdir(parents=True)

    reply = await turn(claude, session_id=FIRST)

    assert (reply["code"], reply["errno"]) == ("io_error", "EISDIR")


async def test_a_new_id_with_each_turn_is_followed(claude, tmp_path):
    """Whichever id of the session is named, the newest goes on, in the same directory."""
    await turn(claude, f"session:{FIRST}", agent_id="coder")
    await turn(claude, f"session:{SECOND}", session_id=FIRST)
    await turn(claude, f"session:{THIRD}", session_id=FIRST)

    replies = [await turn(claude, session_id=session) for session in (FIRST, SECOND, THIRD)]

    assert [reply["response"]["resumed"] for reply in replies] == [THIRD] * 3
    assert {remembered(tmp_path, session) for session in (FIRST, SECOND, THIRD)} == {"agents/coder"}
    assert claude.service.memory() == {
        "chains": {FIRST: THIRD, SECOND: THIRD},
        "directories": dict.fromkeys(sorted((FIRST, SECOND, THIRD)), "agents/coder"),
    }


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("exit:1", {"error": "it went wrong", "code": "cli_failed", "exit_code": 1}),
        ("says:1", {"error": "it says why", "code": "cli_failed", "exit_code": 1}),
        (
            "mute:7",
            {"error": "the claude command ended with exit code 7", "code": "cli_failed", "exit_code": 7},
        ),
        ("exit:143", {"code": "terminated", "exit_code": 143}),
        ("killed", {"code": "terminated", "exit_code": -9}),
        ("unknown", {"error": f"No conversation found with session ID: {FIRST}", "code": "unknown_session"}),
        ("api:429", {"code": "api_error", "api_status": 429, "retryable": True}),
        ("api:500", {"code": "api_error", "api_status": 500, "retryable": True}),
        ("api:401", {"error": "API Error: 401 {}", "code": "api_error", "api_status": 401}),
        ("wrong", {"error": "Invalid API key", "code": "api_error"}),
        ("empty", {"code": "empty_answer"}),
        ("half", {"code": "bad_output"}),
        ("array", {"code": "bad_output"}),
        ("text", {"code": "bad_output"}),
        ("session:../../x", {"code": "bad_output"}),
        ("flood", {"code": "output_too_large"}),
    ],
)
async def test_every_outcome_has_its_code(claude, tmp_path, prompt, expected):
    """And an error leaves nothing behind: no session, no memory."""
    reply = await turn(claude, prompt, session_id=FIRST)

    assert {"retryable": False, **expected}.items() <= reply.items()
    assert "status" not in reply
    assert claude.service.memory() == {"chains": {}, "directories": {}}
    assert not (tmp_path / "var/state").exists()


@pytest.mark.parametrize(("prompt", "session"), [("nobody", None), ("silent", FIRST)])
async def test_what_may_be_missing_in_an_answer(claude, prompt, session):
    """A session's id, the result."""
    reply = await turn(claude, prompt, session_id=FIRST)

    assert (reply["status"], reply["session_id"]) == ("completed", session)


async def test_a_turn_past_its_deadline(claude):
    """Is ended, and says after how long."""
    reply = await turn(claude, "hang", timeout=0.2)

    assert reply == {
        "error": "the claude command did not end within 0.2 s and was killed",
        "code": "turn_timeout",
        "retryable": False,
    }


async def test_no_turn_may_take_longer_than_the_setting_says(side, tmp_path):
    """A timeout only lowers the deadline."""
    area = lay(tmp_path, AREA.exercise.programs["bin/claude"], claude_progress_timeout=0.2)
    async with room(area, side, tmp_path) as claude:
        reply = await turn(claude, "hang", timeout=60)

    assert reply["error"] == "the claude command did not end within 0.2 s and was killed"


async def test_a_large_answer_is_whole(side, tmp_path):
    """As it would not be on a pipe with some versions."""
    area = lay(
        tmp_path,
        """#!/bin/sh
        said=x; while [ ${#said} -lt 200000 ]; do said=$said$said; done
        printf '{"result":"%s"}' "$said"
        """,
    )
    async with room(area, side, tmp_path) as claude:
        reply = await turn(claude)

    assert len(reply["response"]["result"]) == 262144


@pytest.mark.parametrize("place", ["bin/other", "/nowhere/claude"])
async def test_a_program_that_is_not_there(side, tmp_path, place):
    """The error says where it was looked for; nothing was tried."""
    area = lay(tmp_path, claude_bin=place)
    async with room(area, side, tmp_path) as claude:
        reply = await turn(claude)

    assert reply == {
        "error": f"Claude CLI not found at {tmp_path / place}",
        "code": "program_missing",
        "retryable": False,
    }
    assert not (tmp_path / "var/sandbox").exists()


async def test_the_program_is_looked_for_in_path_at_each_turn(side, tmp_path, monkeypatch):
    """In absolute entries alone: no `./claude` in a working directory ever runs."""
    lay(tmp_path, place="own/claude")
    area = lay(tmp_path, '#!/bin/sh\necho \'{"result":"planted"}\'\n', "planted/claude", claude_bin="")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/claude").write_text("not executable")
    monkeypatch.chdir(tmp_path / "planted")
    async with room(area, side, tmp_path) as claude:
        monkeypatch.setenv("PATH", ":.:../planted:/nowhere")
        missing = await turn(claude)
        monkeypatch.setenv("PATH", f":.:../planted:{tmp_path}/text:{tmp_path}/own:/usr/bin:/bin")
        found = await turn(claude, sandbox_dir="var/sandbox/x")

    assert (missing["code"], missing["error"]) == ("program_missing", "Claude CLI not found at PATH")
    assert found["response"]["result"] == "ok"


@pytest.mark.parametrize("content", [b"\x7fELF nonsense", b"#!/nowhere/interpreter\n"])
async def test_a_program_that_cannot_be_started(side, tmp_path, content):
    """Says so with the system's own name of the reason."""
    area = lay(tmp_path, content)
    async with room(area, side, tmp_path) as claude:
        reply = await turn(claude)

    assert (reply["code"], reply["component"], reply["retryable"]) == ("start_failed", "claude_cli", False)
    assert reply["errno"] in {"ENOEXEC", "ENOENT"}


async def test_a_scratch_directory_that_cannot_be_used(side, tmp_path):
    """Is a start that failed: the command never ran."""
    area = lay(tmp_path)
    async with room(area, side, tmp_path) as claude:
        (tmp_path / "var").mkdir(exist_ok=True)
        (tmp_path / "var/tmp").write_text("in the way")
        reply = await turn(claude)

    assert (reply["code"], reply["retryable"]) == ("start_failed", False)
    assert not (tmp_path / "argv").exists()


def _steps(name):
    (case,) = (case for case in AREA.exercise.cases if case.name == name)
    return case.steps


@pytest.mark.parametrize("step", _steps("refused"), ids=lambda step: repr(step.data)[:60])
async def test_what_is_refused_never_starts(recorded, tmp_path, step):
    """Nothing from outside becomes an option or a path outside its place."""
    reply = await recorded.send(step.event, **step.data)

    assert reply["code"] in {"missing_parameter", "invalid_parameter"}
    assert not (tmp_path / "argv").exists()


@pytest.mark.parametrize("step", _steps("hostile strings"), ids=lambda step: repr(step.data)[:60])
async def test_hostile_strings_stay_strings(recorded, tmp_path, step):
    """As prompt, model, request and agent: one argument, one directory below the sandbox."""
    reply = await recorded.send(step.event, **step.data)

    assert reply["status"] == "completed"
    assert (tmp_path / "stdin").read_text() == step.data["prompt"]
    assert f"--model={step.data['model']}" in (tmp_path / "argv").read_text().split("\0")
    kind = "agents" if step.data["agent_id"] else "sessions"
    assert (tmp_path / "cwd").read_text().startswith(f"{os.path.realpath(tmp_path)}/var/sandbox/{kind}/")
    assert {path.name for path in tmp_path.iterdir()} == {"argv", "bin", "cwd", "env", "stdin", "var"}


async def test_what_utf8_cannot_carry_is_refused(recorded):
    """Other rooms may send what no client can."""
    replies = [await turn(recorded, "\ud800"), await turn(recorded, agent_id="\udfff")]

    assert [reply["error"] for reply in replies] == [
        "prompt must be text without lone surrogates",
        "agent_id must be text without lone surrogates",
    ]


async def test_an_mcp_configuration_must_be_a_file_beneath_the_root(recorded, tmp_path):
    """Links are followed before that is judged."""
    (tmp_path / "out.json").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()

    replies = [await turn(recorded, mcp_config_path=path) for path in ("out.json", "folder", "missing")]

    assert [reply["error"] for reply in replies] == ["mcp_config_path must be a file beneath the root"] * 3
    assert not (tmp_path / "argv").exists()


async def test_an_injection_goes_to_the_session(recorded, tmp_path):
    """With its message on stdin, in the directory that is given; nothing is made of the answer."""
    project = tmp_path / "project"
    project.mkdir()

    reply = await recorded.send(
        "claude_cli:inject", session_id=FIRST, cwd=f"{project}/.", message="\n[KSI]\n"
    )

    assert reply == {
        "status": "injected",
        "session_id": FIRST,
        "output": (RECORDER.splitlines()[-1][8:-3] + "\n")[:100],
    }
    assert (tmp_path / "argv").read_text() == f"--resume={FIRST}\0--print\0"
    assert (tmp_path / "stdin").read_bytes() == b"\n[KSI]\n"
    assert (tmp_path / "cwd").read_text() == f"{os.path.realpath(project)}\n"
    assert recorded.service.memory() == {"chains": {}, "directories": {}}


async def test_an_injection_finds_a_session_begun_here(claude):
    """Its directory is remembered, and the newest id of it is told."""
    await turn(claude, f"session:{FIRST}", agent_id="coder")
    await claude.restart()

    reply = await claude.send("claude_cli:inject", session_id=FIRST, message="hello")

    assert reply["output"] == "told hello in var/sandbox/agents/coder\n"


@pytest.mark.parametrize(
    ("message", "code"), [("exit:1", "cli_failed"), ("empty", "empty_answer"), ("unknown", "unknown_session")]
)
async def test_an_injection_fails_as_a_turn_does(claude, tmp_path, message, code):
    """The same codes."""
    reply = await claude.send("claude_cli:inject", session_id=FIRST, cwd=str(tmp_path), message=message)

    assert reply["code"] == code


async def test_injections_are_few(claude, tmp_path):
    """Five a minute to a session, counted by the clock; another session's do not count."""
    one = {"session_id": FIRST, "cwd": str(tmp_path), "message": "hello"}

    replies = [await claude.send("claude_cli:inject", **one) for _ in range(service.INJECTIONS + 1)]
    other = await claude.send("claude_cli:inject", **{**one, "session_id": SECOND})
    claude.now += service.PER
    later = await claude.send("claude_cli:inject", **one)

    assert [reply.get("status") for reply in replies] == ["injected"] * 5 + [None]
    assert replies[-1] == {
        "error": "a session takes 5 injections in 60 s; send it again later",
        "code": "rate_limited",
        "retryable": True,
    }
    assert (other["status"], later["status"]) == ("injected", "injected")


async def test_nothing_is_left_in_the_scratch_directory(claude, tmp_path):
    """What goes in and comes out lies in files without names."""
    for prompt in ("hello", "exit:1", "flood", "killed"):
        await turn(claude, prompt)

    assert list((tmp_path / "var/tmp").iterdir()) == []
    assert oct((tmp_path / "var/tmp").stat().st_mode & 0o777) == "0o700"


async def test_a_stopped_room_takes_no_more(claude):
    """The error is the daemon's."""
    await claude.service.stop()

    assert (await turn(claude))["code"] == "shutting_down"
    assert (await claude.send("claude_cli:status")) == {"running": [], "waiting": []}
