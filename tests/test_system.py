"""The daemon's own events: health, emit, startup and shutdown."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ksi_daemon.router import Event, Param, Router
from ksi_daemon.system import System


class Stop:
    """Counts how often a stop was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> None:
        """Count."""
        self.asked += 1


async def answer(data: Any, _client: Any) -> Any:
    """Its data, or nothing."""
    return data.get("result")


@pytest.fixture
def stop() -> Stop:
    """What a shutdown calls."""
    return Stop()


@pytest.fixture
def router(stop: Stop) -> Router:
    """The system's events, and two of a room's."""
    found = Router()
    found.add(System(found, stop, lambda: 7).events())
    params = (Param("a", "str", "the first", required=True), Param("b", "int", "the second", default=3))
    found.add((Event("room:one", answer, "Do one", params), Event("room:*", answer, "Do any")))
    found.add((Event("plain", answer, "No namespace"),))
    return found


async def data_of(router: Router, name: str, /, **data: Any) -> Any:
    """The only result of an event."""
    (result,) = await router.emit(name, data)
    return result


async def test_health_is_healthy_and_small(router: Router) -> None:
    """It has the original's keys, and stays under the 4,096 bytes that old clients read."""
    found = await data_of(router, "system:health")

    assert list(found) == [
        "status",
        "uptime",
        "version",
        "modules_loaded",
        "services_registered",
        "events_registered",
        "background_tasks",
        "modules",
    ]
    assert (found["status"], found["background_tasks"], found["modules_loaded"]) == ("healthy", 7, 2)
    assert found["modules"] == ["ksi_daemon.system", __name__]
    assert len(json.dumps(found)) < 4096


@pytest.mark.parametrize(
    ("event", "data", "text", "code"),
    [
        ("shutdown:acknowledge", {}, "Missing service_name", "missing_parameter"),
        ("event:emit", {}, "Target event name required", "missing_parameter"),
        (
            "event:emit",
            {"event": "plain", "data": []},
            "data must be an object, not list",
            "invalid_parameter",
        ),
        (
            "event:emit",
            {"event": "plain", "delay": "1"},
            "delay must be a number of seconds, not str",
            "invalid_parameter",
        ),
        (
            "event:emit",
            {"event": "plain", "delay": -1},
            "delay must be a number of seconds, not int",
            "invalid_parameter",
        ),
        (
            "event:emit",
            {"event": "plain", "delay": True},
            "delay must be a number of seconds, not bool",
            "invalid_parameter",
        ),
    ],
)
async def test_errors_have_the_originals_texts(
    router: Router, event: str, data: dict[str, Any], text: str, code: str
) -> None:
    """A handler's error is its text and a code."""
    assert await data_of(router, event, **data) == {"error": text, "code": code}


async def test_lifecycle_events_only_answer(router: Router, stop: Stop) -> None:
    """A client that sends startup, ready or an acknowledgement initialises nothing."""
    assert await data_of(router, "system:startup") == {"module.system": {"loaded": True}}
    assert await data_of(router, "system:ready") == {"status": "ready"}
    assert await data_of(router, "shutdown:acknowledge", service_name="x") == {"acknowledged": "x"}
    assert stop.asked == 0


async def test_shutdown_asks_for_the_stop_each_time(router: Router, stop: Stop) -> None:
    """It answers at once; a repeated one is harmless."""
    replies = [await data_of(router, "system:shutdown") for _ in range(2)]

    assert replies == [{"status": "shutdown_initiated"}] * 2
    assert stop.asked == 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"event": "plain", "data": {"result": 5}}, 5),
        ({"event": "plain"}, {"status": "success", "results": [], "message": "no handler answered"}),
        ({"event": "room:one", "data": {"result": 1}}, {"status": "success", "results": [1, 1], "count": 2}),
        ({"event": "plain", "condition": " False "}, {"status": "skipped", "reason": "condition is false"}),
        ({"event": "plain", "data": {"result": 5}, "condition": "x > 1", "delay": 0.01}, 5),
    ],
)
async def test_emit_answers_for_the_other_event(router: Router, data: dict[str, Any], expected: Any) -> None:
    """One result as itself, none and several in an object; the condition `false` skips."""
    assert await data_of(router, "event:emit", **data) == expected


async def test_a_delayed_emit_is_refused_by_the_stop(router: Router) -> None:
    """A cancelled delay is an answer, `shutting_down`, since nothing was begun."""
    waiting = asyncio.create_task(data_of(router, "event:emit", event="plain", delay=3600))
    await asyncio.sleep(0)

    waiting.cancel()

    assert await waiting == {"error": "daemon is shutting down", "code": "shutting_down"}
