"""The steps with which the bus is tried on either side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ksi_daemon.exercise import Case, Exercise, Load, Step
from ksi_daemon.messaging.core import encode, make_record

if TYPE_CHECKING:
    from pathlib import Path

_LOG = "var/logs/responses/message_bus.jsonl"


def _publish(sender: str, kind: str, client: str = "one", **message: Any) -> Step:
    return Step("message:publish", {"agent_id": sender, "event_type": kind, "message": message}, client)


def _agent(event: str, agent: str, client: str = "one", **more: Any) -> Step:
    return Step(f"message:{event}", {"agent_id": agent, **more}, client)


_STATS = Step("message_bus:stats")

_CASES = (
    Case(
        "every way to publish",
        (
            _agent("connect", "coder", "two", capabilities=["python"]),
            _agent("subscribe", "coder", "two", event_types=["NOTE", "BROADCAST", "DIRECT_MESSAGE"]),
            _publish("planner", "NOTE", text="hello"),
            _publish("coder", "NOTE", "two", text="to myself too"),
            _publish("planner", "BROADCAST", text="to all"),
            _publish("planner", "DIRECT_MESSAGE", to="coder", content="hi"),
            _publish("planner", "DIRECT_MESSAGE", to="nobody", content="later"),
            _publish("planner", "TASK_ASSIGNMENT", required_capabilities=["python"], task="build"),
            Step(
                "transport:message",
                {"command": "PUBLISH", "parameters": {"agent_id": "a", "event_type": "T"}},
            ),
            Step("message:subscriptions"),
            _agent("subscriptions", "coder"),
            _STATS,
        ),
    ),
    Case(
        "bytes of every kind",
        (
            _publish("é", "NOTE", text="naïve ☃ \u2028 \x00 \x1b[31m \n", nested={"a": [1, 2.5, None, True]}),
            _publish("a", "NOTE", big=18446744073709551615, small=-9223372036854775808, tiny=5e-324),
            _publish("forger", "NOTE", id="1", type="X", timestamp="never", text="kept"),
            _publish("a", "NOTE", text="x" * 70_000),
        ),
    ),
    Case(
        "refused",
        (
            Step("message:publish", {}),
            Step("message:publish", {"agent_id": "a"}),
            Step("message:publish", {"agent_id": "a", "event_type": "T", "message": "text"}),
            Step("message:publish", {"agent_id": "a", "event_type": ["T"]}),
            _publish("a", "DIRECT_MESSAGE", content="to whom"),
            _publish("a", "TASK_ASSIGNMENT", required_capabilities=["rust"]),
            _agent("subscribe", "stranger", event_types=["NOTE"]),
            Step("transport:message", {"command": "SHOUT"}),
            _STATS,
        ),
    ),
    Case(
        "offline, then connected",
        (
            *(_publish("a", "DIRECT_MESSAGE", to="late", number=number) for number in range(5)),
            _agent("connect", "late", "two"),
            _STATS,
            _publish("a", "DIRECT_MESSAGE", to="late", number=5),
            Step("@hangup", client="two"),
            _publish("a", "DIRECT_MESSAGE", to="late", number=6),
            _agent("unsubscribe", "late"),
            _agent("disconnect", "late"),
            _STATS,
        ),
    ),
    Case(
        "the log in trouble",
        (
            _publish("a", "NOTE", number=1),
            Step("@block"),
            _publish("a", "NOTE", number=2),
            _STATS,
            Step("@unblock"),
            _publish("a", "NOTE", number=3),
            Step("@rotate"),
            _publish("a", "NOTE", number=4),
            Step("@remove"),
            _publish("a", "NOTE", number=5),
            _STATS,
        ),
    ),
    Case(
        "a torn tail",
        (
            _publish("a", "NOTE", number=1),
            Step("@tear"),
            Step("@restart"),
            _publish("a", "NOTE", number=2),
        ),
        files={_LOG: b'{"id":"0"}\n{"id":"1","type":"NO'},
    ),
    Case(
        "a log that cannot be opened at start",
        (
            Step("@block"),
            Step("@restart"),
            _publish("a", "NOTE", number=1),
            Step("@unblock"),
            _publish("a", "NOTE", number=2),
        ),
        files={_LOG: b'{"id":"0"}\n'},
    ),
)


def _lines(count: int) -> list[bytes]:
    return [encode(_record(number)) for number in range(count)]


def _record(number: int) -> dict[str, Any]:
    payload = {"to": "coder", "content": f"{number:06d} " + "x" * 160}
    return make_record("DIRECT_MESSAGE", "planner", payload, 1752340000.0 + number / 1000)


def _reference(path: Path, number: int) -> None:
    """What the original did for each message."""
    with open(path, "a") as log:
        log.write(json.dumps(_record(number)) + "\n")


EXERCISE = Exercise(
    files=(_LOG,),
    cases=_CASES,
    writes=(_publish("a", "NOTE", which="first"), _publish("b", "DIRECT_MESSAGE", to="c", which="second")),
    loads=(Load("append", 300, "append", _lines, _reference),),
)
