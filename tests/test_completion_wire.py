"""Completions over the socket, with the room of the `claude` command: what a client of a real daemon sees."""

from __future__ import annotations

import pytest

from tests.completions import lines, session
from tests.line_client import daemon
from tests.rooms import SIDES

CLAUDE = """#!/bin/sh
read prompt
cat <<END
{"type": "result", "is_error": false, "result": "you said $prompt", "session_id": "%s",
 "usage": {"input_tokens": 10, "output_tokens": 3}}
END
"""


@pytest.fixture(params=SIDES)
async def bench(request, tmp_path):
    """A daemon whose claude answers at once, both rooms on one side."""
    program = tmp_path / "bin/claude"
    program.parent.mkdir()
    program.write_text(CLAUDE % session(1))
    program.chmod(0o755)
    (tmp_path / ".env").write_text("KSI_CLAUDE_BIN=bin/claude\n")
    async with daemon(tmp_path, completion=request.param, claude_cli=request.param) as running:
        yield running


async def frames(client, *wanted):
    """The next frames, until these have come."""
    found: list[dict] = []
    while [frame["event"] for frame in found if frame["event"] in wanted] != list(wanted):
        line = await client.line()
        if line["event"].startswith("completion:") and "count" not in line:
            found.append(line)
    return found


async def test_every_client_gets_the_frames_under_their_own_names(bench):
    """Progress and result, to who asked and who did not; the turn's line and its tokens are in the logs."""
    one, other = await bench.client(), await bench.client()
    await other.ask("system:health")
    one.send("completion:async", {"prompt": "hello", "request_id": "r-1", "agent_id": "coder"})
    seen = [await frames(client, "completion:progress", "completion:result") for client in (one, other)]

    assert seen[0] == seen[1]
    progress, result = seen[0]
    assert [list(frame) for frame in (progress, result)] == [["event", "data", "timestamp"]] * 2
    assert progress["data"]["status"] == "calling_provider"
    found = result["data"]["result"]
    assert (found["response"]["result"], found["ksi"]["provider"]) == ("you said hello", "claude-cli")
    (line,) = lines(bench.root / f"var/logs/responses/{session(1)}.jsonl")
    assert line == found
    used = await one.ask("completion:token_usage", agent_id="coder")
    assert used["usage"]["total_tokens"] == 13


async def test_a_second_request_goes_on_in_the_session(bench):
    """The agent's session is resumed: the command gets it, and both answers are in its log, in order."""
    client = await bench.client()
    for name in ("first", "second"):
        client.send("completion:async", {"prompt": name, "request_id": name, "agent_id": "coder"})
    await frames(client, "completion:result", "completion:result")

    logged = lines(bench.root / f"var/logs/responses/{session(1)}.jsonl")
    assert [line["ksi"]["request_id"] for line in logged] == ["first", "second"]
    assert [line["session_id"] for line in lines(bench.root / "var/logs/daemon/tool_usage.jsonl")] == [
        None,
        session(1),
    ]


async def test_a_failed_turn_is_an_error_frame(bench):
    """With the command's own words and a code; it leaves no line."""
    (bench.root / "bin/claude").write_text('#!/bin/sh\necho "no credit left" >&2\nexit 1\n')
    client = await bench.client()
    client.send("completion:async", {"prompt": "hello", "request_id": "r-1"})
    *_, failed = await frames(client, "completion:error")

    assert (failed["data"]["code"], failed["data"]["error"]) == ("cli_failed", "no credit left")
    assert lines(bench.root / "var/logs/daemon/tool_usage.jsonl") == []
