"""The steps of agents, and neighbours that stand in for the completion queue and the bus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ksi_daemon.exercise import Case, Step
from ksi_daemon.router import Client, Data, Event

if TYPE_CHECKING:
    from collections.abc import Mapping

REFUSE = "refuse"
"""A prompt that the queue refuses, and a content that the bus refuses."""

_SESSION = "11111111-2222-4333-8444-555555555555"


class _Neighbours:
    """A queue in which nothing ever runs, and a bus with nobody on it; both remember what they were asked."""

    def __init__(self) -> None:
        self._asked: list[Data] = []
        self._queued: dict[str, None] = {}

    def events(self) -> tuple[Event, ...]:
        return (
            Event("completion:async", self.complete, "Queue a request"),
            Event("completion:cancel", self.cancel, "Take a request out"),
            Event("message:publish", self.publish, "Publish"),
            Event("notes:list", self.asked, "Show what was asked since the last question"),
        )

    async def complete(self, data: Data, _client: Client | None) -> Data:
        self._asked.append({"completion:async": data})
        if data["prompt"].endswith(REFUSE):
            return {"error": "1000 requests are waiting or running", "code": "queue_full", "retryable": True}
        self._queued[data["request_id"]] = None
        return {"request_id": data["request_id"], "status": "queued"}

    async def cancel(self, data: Data, _client: Client | None) -> Data:
        self._asked.append({"completion:cancel": data})
        request = data["request_id"]
        if request not in self._queued:
            return {"error": f"Unknown request_id: {request}", "code": "not_found"}
        del self._queued[request]
        return {"request_id": request, "status": "cancelled"}

    async def publish(self, data: Data, _client: Client | None) -> Data:
        self._asked.append({"message:publish": data})
        if data["message"].get("content") == f"{REFUSE} all":
            return {"error": "messaging could not append", "code": "io_error", "errno": "ENOSPC"}
        return {"status": "queued", "to": data["message"].get("to"), "notified": []}

    async def asked(self, _data: Data, _client: Client | None) -> list[Data]:
        asked, self._asked = self._asked, []
        return asked


def neighbours() -> tuple[Event, ...]:
    """`completion:async`, `completion:cancel`, `message:publish` and `notes:list`, as new."""
    return _Neighbours().events()


def _agent(event: str, agent: Any = None, **more: Any) -> Step:
    named: Mapping[str, Any] = {} if agent is None else {"agent_id": agent}
    return Step(f"agent:{event}", {**named, **more})


def _send(agent: str, content: str, **more: Any) -> Step:
    return _agent("send_message", agent, message={"content": content}, **more)


_NOTES = Step("notes:list")
_LIST = _agent("list")
_COLLECT = Step("checkpoint:collect")
_CONFIG = {
    "model": "claude-cli/opus",
    "allowed_tools": ["Read"],
    "disallowed_tools": ["Bash"],
    "max_turns": 3,
    "mcp_config_path": "var/mcp.json",
    "sandbox_dir": "coder",
}

CASES = (
    Case(
        "agents come and go",
        (
            _agent("spawn", "coder", prompt="hello", profile="dev", capabilities=["python"], config=_CONFIG),
            _agent("spawn", "tester", task="test", session_id=_SESSION, agent_type="qa", metadata={"a": 1}),
            _agent("spawn", originator_agent_id="coder"),
            _agent("spawn", "coder", prompt="again"),
            _agent("spawn", "refused", prompt=REFUSE),
            _agent("register", "outside", profile="ide", capabilities=["python"], info={"agent_type": "ide"}),
            _agent("register", "outside", info={"capabilities": ["rust"]}),
            _agent("register", "coder"),
            _LIST,
            _agent("list", status="busy"),
            _agent("list_constructs"),
            _agent("list_constructs", originator_id="coder"),
            _agent("list_constructs", originator_agent_id="tester"),
            _agent("get_capabilities"),
            _agent("get_capabilities", "coder"),
            _agent("discover_peers", "coder"),
            _agent("discover_peers", "tester", capabilities=["python"], agent_type="agent"),
            _NOTES,
            _agent("restart", "coder"),
            _agent("restart", "outside"),
            _agent("terminate", "coder"),
            _agent("terminate", "coder"),
            _agent("terminate", "tester", force=True),
            _agent("unregister", "outside"),
            _agent("unregister", "outside"),
            _NOTES,
            _LIST,
        ),
    ),
    Case(
        "messages to agents",
        (
            _agent("spawn", "coder", capabilities=["python"]),
            _agent("spawn", "tester", capabilities=["python", "qa"]),
            _agent("register", "outside", capabilities=["qa"]),
            _send("coder", "/help"),
            _send("coder", "hi", sender="tester"),
            _agent("send_message", "coder", message={"prompt": "words"}, **{"from": "me"}),
            _agent("send_message", "coder", message={"n": [1, "é"]}),
            _send("outside", "on the bus alone"),
            _send("outside", "wait", wait_for_response=True),
            _send("coder", REFUSE),
            _send("coder", f"{REFUSE} all"),
            _send("tester", "late", wait_for_response=True, timeout=0.01),
            _NOTES,
            _agent("broadcast", message={"content": "to all"}, sender="tester"),
            _agent("broadcast", message={"content": REFUSE}, exclude_agents=["tester"]),
            _agent("broadcast", message={"content": f"{REFUSE} all"}),
            _agent("broadcast", message={"content": "nobody"}, agent_types=["none"]),
            _agent("route_task", task="build", required_capabilities=["python"]),
            _agent("route_task", task={"content": "check"}, capabilities=["qa"], exclude=["outside"]),
            _agent("route_task", task="cook", required_capabilities=["cooking"]),
            _NOTES,
            _LIST,
        ),
    ),
    Case(
        "requests about agents refused",
        (
            _agent("spawn", "coder"),
            _agent("spawn", 5),
            _agent("spawn", "x" * 1001),
            _agent("spawn", "a", config="opus"),
            _agent("spawn", "a", config={"max_turns": 0}),
            _agent("spawn", "a", config={"allowed_tools": "Read"}),
            _agent("spawn", "a", prompt=["hello"]),
            *(_agent(event) for event in ("terminate", "restart", "register", "unregister")),
            *(_agent(event, "ghost") for event in ("terminate", "restart", "unregister", "get_capabilities")),
            _agent("terminate", "coder", force="yes"),
            _agent("discover_peers"),
            _agent("send_message", "coder"),
            _agent("send_message", "ghost", message={"content": "hi"}),
            _agent("send_message", "coder", message="hi"),
            _send("coder", "hi", timeout=0),
            _agent("broadcast"),
            _agent("route_task"),
            _agent("route_task", task=5),
            _LIST,
            _NOTES,
        ),
    ),
    Case(
        "a checkpoint of agents",
        (
            _agent("spawn", "coder", prompt="hello", session_id=_SESSION, config=_CONFIG),
            _agent("register", "outside"),
            _COLLECT,
            Step(
                "checkpoint:restore",
                {
                    "agent_state": {
                        "agents": {
                            "bare": {},
                            "full": {"profile": "p", "options": {"max_turns": 2}, "session_id": _SESSION},
                            "out": {"external": True},
                        }
                    }
                },
            ),
            _LIST,
            _send("full", "go on"),
            Step("checkpoint:restore", {"agents": {"bad": {"options": {"max_turns": "two"}}}}),
            Step("checkpoint:restore", {"agents": {"bad": "text"}}),
            _NOTES,
            _COLLECT,
            Step("@restart"),
            _LIST,
        ),
    ),
)
