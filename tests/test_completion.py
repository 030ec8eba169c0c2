"""Token usage on both sides: recorded in the log, then in the totals; its history loaded and bounded."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ksi_daemon.completion import AREA, core
from ksi_daemon.completion import usage as usage_service
from tests.faults import counted, file_size_limit, fill, small_disk
from tests.rooms import SIDES, START, Room, room


@pytest.fixture(params=SIDES)
async def usage(request, tmp_path):
    """The usage log on either side."""
    async with room(AREA, request.param, tmp_path) as made:
        yield made


@pytest.fixture(params=SIDES)
def side(request):
    """For tests that open the room themselves."""
    return request.param


async def record(room, number=0, /, **more):
    """One completion of 100 tokens in and 20 out."""
    tokens = {"input_tokens": 100, "output_tokens": 20, **more.pop("usage", {})}
    data = {"model": "claude-cli/sonnet", "request_id": f"r-{number}", "agent_id": "coder", **more}
    return await room.send("completion:record_usage", usage=tokens, **data)


async def asked(usage, **filters):
    """What is known, filtered."""
    return await usage.send("completion:token_usage", **filters)


def stored(number, at="2025-07-12T17:00:00Z", **more):
    """A line as the original wrote it."""
    line = {
        "event": "token_usage",
        "timestamp": at,
        "agent_id": "old",
        "model": "m",
        "request_id": f"s-{number}",
    }
    return json.dumps({**line, "input_tokens": 10, "output_tokens": 1, **more}).encode() + b"\n"


def put(root, data):
    """A log from before the daemon's start."""
    path = root / AREA.exercise.files[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


async def test_a_record_is_logged_before_the_reply(usage):
    """One line with the original's keys in its order; the reply sums it up."""
    reply = await record(usage, 1, session_id="s", has_mcp=True, usage={"cache_read_input_tokens": 1_000})

    assert reply == {
        "status": "recorded",
        "request_id": "r-1",
        "total_tokens": 120,
        "estimated_cost": 100 * 0.00001 + 20 * 0.00003 - 1_000 * 0.000009,
    }
    (line,) = usage.lines()
    assert list(line) == [
        "event",
        "timestamp",
        "request_id",
        "session_id",
        "agent_id",
        "model",
        "provider",
        "input_tokens",
        "output_tokens",
        "total_tokens",
        "cache_creation_tokens",
        "cache_read_tokens",
        "has_mcp",
        "estimated_cost",
    ]
    assert (line["event"], line["provider"], line["has_mcp"]) == ("token_usage", "claude-cli", True)


async def test_a_hundred_callers_keep_their_order(usage):
    """Lines and the kept records stand in the order of the calls; none is counted twice."""
    await asyncio.gather(*(record(usage, number) for number in range(100)))

    expected = [f"r-{number}" for number in range(100)]
    assert expected == [line["request_id"] for line in usage.lines()]
    assert expected == [kept[1] for kept in usage.service.memory()["recent"]]
    found = (await asked(usage, agent_id="coder"))["usage"]
    assert (found["request_count"], found["input_tokens"]) == (100, 10_000)


async def test_totals_by_agent_model_and_session(usage):
    """Every filter sees the same records; a request without an agent is in no agent's sum."""
    await record(usage, 1, session_id="s-1")
    await record(usage, 2, agent_id=None, has_mcp=True, usage={"cache_creation_input_tokens": 7})
    await record(usage, 3, agent_id="tester", usage={"cache_read_input_tokens": 10})

    everyone = await asked(usage)
    assert tuple(
        everyone[key] for key in ("total_requests", "active_agents", "active_models", "active_sessions")
    ) == (2, 2, 1, 1)
    assert (
        everyone["total_tokens"],
        everyone["mcp_statistics"]["total_overhead_tokens"],
        everyone["mcp_statistics"]["avg_overhead_per_request"],
    ) == (240, 7, 7.0)
    assert (await asked(usage, model="claude-cli/sonnet"))["usage"]["request_count"] == 3
    assert (await asked(usage, model="unknown"))["usage"]["request_count"] == 0
    assert {"s-1"} == set(usage.service.memory()["sessions"])
    coder = await asked(usage, agent_id="coder")
    assert (
        coder["agent_id"],
        coder["time_window_hours"],
        coder["usage"]["avg_tokens_per_request"],
    ) == ("coder", None, 120.0)
    assert (await asked(usage, agent_id="nobody"))["usage"]["avg_tokens_per_request"] == 0


async def test_an_hours_window(usage):
    """Deviation 3: only the agent's records of the last hours, with what they cost."""
    await record(usage, 1)
    usage.now += 2 * 3600
    await record(usage, 2)

    found = await asked(usage, agent_id="coder", hours=1)
    assert (
        found["usage"]["request_count"],
        found["time_window_hours"],
        round(found["estimated_cost"], 6),
    ) == (1, 1, 0.0016)
    assert (await asked(usage, agent_id="coder", hours=3))["usage"]["request_count"] == 2


async def test_a_large_completion_is_logged(usage, caplog):
    """Over 10,000 tokens in one request: recorded like any other, with a warning in the daemon's log."""
    reply = await record(usage, 1, usage={"input_tokens": usage_service.LARGE})

    assert (reply["status"], reply["total_tokens"]) == ("recorded", usage_service.LARGE + 20)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"usage": {"input_tokens": None}}, "invalid_parameter"),
        ({"usage": {"output_tokens": "3"}}, "invalid_parameter"),
        ({"usage": {"output_tokens": -1}}, "invalid_parameter"),
        ({"usage": {"output_tokens": 2**53 + 1}}, "invalid_parameter"),
        ({"usage": {"output_tokens": True}}, "invalid_parameter"),
        ({"has_mcp": "yes"}, "invalid_parameter"),
        ({"model": None}, "missing_parameter"),
        ({"agent_id": 5}, "invalid_parameter"),
        ({"request_id": "\ud800"}, "unserialisable"),
    ],
)
async def test_a_refused_record_leaves_nothing(usage, data, code):
    """No line, and no total knows of it."""
    before = usage.service.memory()
    reply = await record(usage, **data)

    assert code == reply["code"]
    assert (before, []) == (usage.service.memory(), usage.lines())


async def test_questions_that_are_refused(usage):
    """An empty usage is missing; hours are a number, not negative; an agent is a string."""
    assert (await usage.send("completion:record_usage", model="m", usage={}))["code"] == "missing_parameter"
    for filters in ({"agent_id": "a", "hours": "many"}, {"agent_id": "a", "hours": -1}, {"agent_id": 5}):
        assert (await asked(usage, **filters))["code"] == "invalid_parameter"


# history


async def test_history_is_loaded_at_the_start(side, tmp_path):
    """The last 24 hours count; foreign and damaged lines cost only themselves; records go on behind."""
    old = (
        b'{"event":"tool_use"}\n',
        stored(1),
        b"damaged\n\0\0\0\n\xff\xfe\n[1,2]\n\n",
        stored(2, at="2025-07-01T00:00:00Z"),
        stored(3, at="never"),
        stored(4, at=5),
        stored(5, input_tokens=None),
        stored(6, at="2025-07-12T17:00:01", model=7),
        stored(7, at="2025-07-12T17:00:01.5", session_id="s", has_mcp=True),
        stored(8)[:-9],
    )
    path = put(tmp_path, b"".join(old))
    async with room(AREA, side, tmp_path) as usage:
        found = await asked(usage, agent_id="old")
        await record(usage, 9, agent_id="old")
        recent = [kept[1] for kept in usage.service.memory()["recent"]]

    assert (found["usage"]["request_count"], found["usage"]["input_tokens"]) == (2, 20)
    assert recent == ["s-1", "s-7", "r-9"]
    assert path.read_bytes().startswith(b"".join(old[:-1]))


async def test_records_during_the_load_are_counted_once(side, tmp_path):
    """A record that is written while history loads stands behind it, once, whatever the timing."""
    put(tmp_path, b"".join(map(stored, range(3_000))))
    async with room(AREA, side, tmp_path) as usage:
        await record(usage, 1, agent_id="old")
        await record(usage, 2, agent_id="new", has_mcp=True)
        found = await asked(usage, agent_id="old")
        recent = [kept[1] for kept in usage.service.memory()["recent"]]

    assert found["usage"]["request_count"] == 3_001
    assert recent[-3:] == ["s-2999", "r-1", "r-2"]


async def test_a_restart_gives_the_same_totals(usage):
    """What was recorded is loaded again: nothing lost, nothing doubled."""
    for number in range(20):
        await record(usage, number, session_id=f"s-{number % 3}", has_mcp=number % 2 == 0)
    before = usage.service.memory()
    await usage.restart()
    await asked(usage)

    assert before == usage.service.memory()


async def test_a_load_that_fails_is_not_the_end(side, tmp_path):
    """A log that cannot be read: the totals begin empty, records and questions are answered."""
    path = put(tmp_path, stored(1))
    made = Room(AREA, side, tmp_path)
    await made.open()
    await asked(made)
    await made.service.stop()
    path.unlink()
    path.mkdir()
    await made.service.start()
    found = await asked(made)
    path.rmdir()
    reply = await record(made, 2)
    await made.close()

    assert "total_requests" in found
    assert reply["status"] == "recorded"


async def test_a_log_that_vanished_has_no_lines(side, tmp_path):
    """Removed between open and load: an empty history."""
    made = Room(AREA, side, tmp_path)
    await made.open()
    await asked(made)
    made.path.unlink()
    await made.service.start()

    assert (await asked(made))["total_requests"] == 0
    await made.close()


async def test_a_stop_during_the_load(side, tmp_path):
    """The load ends with the service, without an error."""
    put(tmp_path, b"".join(map(stored, range(3_000))))
    async with room(AREA, side, tmp_path) as usage:
        await usage.service.stop()


async def test_stopping_before_starting(tmp_path):
    """A service that was never started has nothing to end, and answers from nothing."""
    made = Room(AREA, SIDES[0], tmp_path)
    service: Any = AREA.service(None, made.site)
    await service.stop()

    assert (await service.usage.token_usage({}, None))["total_requests"] == 0


async def test_a_torn_tail_is_mended_at_the_start(usage):
    """Half a record is cut and kept beside; one that only lacks its newline counts."""
    await record(usage, 1)
    with usage.path.open("ab") as log:
        log.write(stored(2)[:-1])
    await usage.restart()
    await record(usage, 3)
    with usage.path.open("ab") as log:
        log.write(stored(4)[:40])
    await usage.restart()
    await asked(usage)

    expected = ["r-1", "s-2", "r-3"]
    assert expected == [line["request_id"] for line in usage.lines()]
    assert expected == [kept[1] for kept in usage.service.memory()["recent"]]
    (part,) = usage.path.parent.glob("*.torn-*")
    assert stored(4)[:40] == part.read_bytes()


def test_names_are_bounded(monkeypatch):
    """Beyond NAMES the agent that came first is forgotten."""
    monkeypatch.setattr(core, "NAMES", 2)
    totals = core.Totals()
    for agent in ("a", "b", "c"):
        totals.add(core.Usage(START, None, None, agent, "m", "p", 1, 1, 0, 0, has_mcp=False))

    assert list(totals.agents) == ["b", "c"]


# the log in trouble


async def test_a_failed_record_is_in_no_total(usage):
    """EFBIG in mid-line: io_error with its errno, no line, no total; the next one is fine."""
    await record(usage, 1)
    before = usage.service.memory()
    with file_size_limit(64 * 1024):
        failed = await record(usage, 2, session_id="x" * 100_000)
    assert before == usage.service.memory()
    await record(usage, 3)

    expected = {"code": "io_error", "component": "completion", "errno": "EFBIG", "retryable": False}
    assert expected.items() <= failed.items()
    assert [line["request_id"] for line in usage.lines()] == ["r-1", "r-3"]


async def test_a_full_disk(side, tmp_path):
    """ENOSPC in mid-line: retryable, nothing kept; with room again everything is well."""
    with small_disk(tmp_path) as disk:
        async with room(AREA, side, disk) as usage:
            await record(usage, 1)
            filler = fill(disk)
            failed = await record(usage, 2, session_id="x" * 50_000)
            filler.unlink()
            await record(usage, 3)
            found = [line["request_id"] for line in usage.lines()]

    assert tuple(failed[key] for key in ("code", "errno", "retryable")) == ("io_error", "ENOSPC", True)
    assert found == ["r-1", "r-3"]


@pytest.mark.parametrize("durability", ["os", "fsync"])
async def test_durability_reaches_the_disk(usage, durability, monkeypatch):
    """With `fsync` each reply comes after an fsync, with `os` none is made."""
    await record(usage)
    calls = counted(monkeypatch, "fsync")
    usage.site.durability = durability
    await record(usage)

    assert (durability == "fsync") == bool(calls)


async def test_a_log_rotated_or_replaced_by_somebody_else(usage):
    """Rotation is noticed; a directory in its place is refused and leaves no total."""
    await record(usage, 1)
    usage.path.rename(usage.path.with_suffix(".1"))
    usage.path.mkdir()
    failed = await record(usage, 2)
    usage.path.rmdir()
    await record(usage, 3)

    assert (failed["code"], failed["errno"]) == ("io_error", "EISDIR")
    assert [line["request_id"] for line in usage.lines()] == ["r-3"]
    assert [kept[1] for kept in usage.service.memory()["recent"]] == ["r-1", "r-3"]


async def test_a_cancelled_record_does_not_disturb_others(usage):
    """Cancelled anywhere, it is in the log at most once; every other one is there and counted."""
    for steps in range(4):
        doomed = asyncio.ensure_future(record(usage, f"doomed-{steps}"))
        others = [asyncio.ensure_future(record(usage, f"{steps}-{number}")) for number in range(3)]
        for _ in range(steps):
            await asyncio.sleep(0)
        doomed.cancel()
        await asyncio.gather(doomed, *others, return_exceptions=True)

    found = [line["request_id"] for line in usage.lines()]
    assert sum("doomed" not in request for request in found) == 12
    assert len(found) == len(set(found)) <= 16
