"""Clients of every room at once, on connections of their own, and what each was promised."""

from __future__ import annotations

import itertools
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import orjson

from ksi_daemon.registry import BUILT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ksi_daemon.exercise import Step
    from tests.daemon import Running

TRANSIENT = frozenset({"io_error", "component_busy", "outcome_unknown", "worker_failed", "queue_full"})
"""Codes with which a room may answer while its disk is full, its workers are killed, or it changes sides."""

NOT_SENT = frozenset({"checkpoint:restore", "system:shutdown"})
"""What would undo the work of others, or end it."""


class Client(threading.Thread):
    """Asks again and again until told to stop; each request must have exactly one reply."""

    def __init__(self, daemon: Running, label: str, seed: int) -> None:
        super().__init__(name=label, daemon=True)
        self.label = label
        self.chance = random.Random(f"{seed} {label}")
        self.failed: list[str] = []
        self.refused = 0
        self.event = ""
        self.asked = 0
        self._daemon = daemon
        self._enough = threading.Event()
        self._numbers = itertools.count()

    def run(self) -> None:
        """Until `stop`; a fault ends it and is kept."""
        try:
            with self._daemon.wire() as self._wire:
                while not self._enough.is_set():
                    self.step()
        except Exception as error:  # noqa: BLE001 - shown by the test
            self.failed.append(f"{self.event}: {error!r}")

    def stop(self) -> None:
        """End after the present step."""
        self._enough.set()
        self.join(60)
        assert not self.is_alive(), self.label

    def step(self) -> None:
        """What it does again and again."""
        raise NotImplementedError

    def ask(self, event: str, /, **data: Any) -> Any:
        """The reply's data; frames that nobody asked for are passed over."""
        wanted = f"{self.label}-{next(self._numbers)}"
        self._wire.send({"event": event, "data": data, "correlation_id": wanted})
        self.asked += 1
        self.event = event
        while (reply := self._wire.frame()) is not None:
            if reply.get("correlation_id") == wanted:
                assert "data" in reply, reply
                return reply["data"]
            self.heard(reply)
        raise ConnectionError("the daemon hung up")

    def heard(self, frame: dict[str, Any]) -> None:
        """A frame that is no reply to this client's question."""

    def well(self, event: str, /, **data: Any) -> Any:
        """The reply's data, or None if the room said that it cannot just now. Any other error is a fault."""
        reply = self.ask(event, **data)
        if isinstance(reply, dict) and "error" in reply:
            assert reply.get("code") in TRANSIENT, (event, reply)
            self.refused += 1
            time.sleep(0.01)
            return None
        return reply


class Publisher(Client):
    """Numbers on the bus; those that were acknowledged."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kept: list[int] = []
        self._next = itertools.count()

    def step(self) -> None:
        """One message."""
        number = next(self._next)
        if self.well("message:publish", agent_id=self.label, event_type="NOTE", message={"n": number}):
            self.kept.append(number)
        time.sleep(0.002)


class Recorder(Publisher):
    """Numbers in the usage log."""

    def step(self) -> None:
        """One record."""
        number = next(self._next)
        usage = {"input_tokens": number, "output_tokens": 1}
        record = {
            "agent_id": self.label,
            "model": "claude-cli/sonnet",
            "request_id": str(number),
            "usage": usage,
        }
        if self.well("completion:record_usage", **record):
            self.kept.append(number)
        time.sleep(0.002)


class Changer(Client):
    """One identity that is changed; the last acknowledged change, and what may have come after it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.last = -1
        self.since: set[int] = set()
        self._next = itertools.count()

    def step(self) -> None:
        """One change."""
        number = next(self._next)
        self.since.add(number)
        if self.well("agent:create_identity", agent_id=self.label, identity={"n": number}):
            self.last, self.since = number, {number}
        time.sleep(0.005)


class Setter(Publisher):
    """Keys of one configuration file that it shares with others; those that were acknowledged."""

    def step(self) -> None:
        """One key."""
        number = next(self._next)
        data = {
            "key": f"{self.label}.k{number}",
            "value": number,
            "file_path": "shared.yaml",
            "create_backup": False,
        }
        if self.well("config:set", config_type="daemon", **data):
            self.kept.append(number)
        time.sleep(0.05)


class Talker(Client):
    """Turns of an agent of its own, one after the other; how each ended."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ends: dict[str, str] = {}
        self.queued: list[str] = []

    def step(self) -> None:
        """One turn, to its end."""
        reply = self.well("completion:async", prompt="go", agent_id=self.label)
        if reply:
            self.queued.append(reply["request_id"])
            deadline = time.monotonic() + 60
            while reply["request_id"] not in self.ends:
                assert time.monotonic() < deadline, "a turn did not end"
                frame = self._wire.frame()
                assert frame is not None, "the daemon hung up"
                self.heard(frame)

    def heard(self, frame: dict[str, Any]) -> None:
        """The end of a turn, if it is one."""
        if frame["event"] in ("completion:result", "completion:error", "completion:cancelled"):
            self.ends[frame["data"]["request_id"]] = frame["event"]


class Reader(Client):
    """Conversations listed, counted, searched, shown and exported, while they grow."""

    def step(self) -> None:
        """One question."""
        name = self.chance.choice(("list", "search", "stats", "active", "get", "export", "refresh"))
        data: dict[str, Any] = {"query": "answer"} if name == "search" else {}
        if name in ("get", "export"):
            listed = self.well("conversation:list", limit=5)
            if not listed or not listed["conversations"]:
                return
            data = {"session_id": self.chance.choice(listed["conversations"])["session_id"]}
        self.well(f"conversation:{name}", **data)
        time.sleep(0.02)


class Seeker(Client):
    """Events listed and explained in detail, and code searched."""

    def step(self) -> None:
        """One question."""
        asked: Callable[[], Any] = self.chance.choice(
            (
                lambda: self.well("system:discover", detail=True, namespace="message"),
                lambda: self.well("system:help", event="message:publish"),
                lambda: self.well("discovery:search", pattern="def [a-z]+", max_count=5),
                lambda: self.well("module:list"),
            )
        )
        asked()
        time.sleep(0.05)


class Sweeper(Client):
    """Every request with which parity tries the rooms, in an order of chance; any reply will do.

    First one of each event, so that it is `through` with all of them soon, however slow the daemon is.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.through = False
        self._steps = self._in_disorder()

    def _in_disorder(self) -> Iterator[tuple[str, dict[str, Any]]]:
        steps = [step for area in BUILT for case in area.exercise.cases for step in case.steps]
        plain = [(step.event, step.data) for step in steps if can_be_sent(step)]
        self.chance.shuffle(plain)
        yield from dict(plain).items()
        self.through = True
        while True:
            self.chance.shuffle(plain)
            yield from plain

    def step(self) -> None:
        """One request."""
        event, data = next(self._steps)
        self.ask(event, **data)
        time.sleep(0.005)


def can_be_sent(step: Step) -> bool:
    """Whether a step of parity is a request, one that JSON can carry and that does not end the rest."""
    try:
        orjson.dumps(step.data)
    except orjson.JSONEncodeError:
        return False
    return isinstance(step.data, dict) and step.event[0] != "@" and step.event not in NOT_SENT


class Pinger(Client):
    """Asks whether the daemon is well; the longest that it waited, in seconds."""

    longest = 0.0

    def step(self) -> None:
        """One question."""
        began = time.monotonic()
        assert self.ask("system:health")["status"] == "healthy"
        self.longest = max(self.longest, time.monotonic() - began)
        time.sleep(0.01)


KINDS = (
    Publisher,
    Publisher,
    Recorder,
    Changer,
    Changer,
    Setter,
    Setter,
    Talker,
    Talker,
    Reader,
    Seeker,
    Sweeper,
    Pinger,
)
