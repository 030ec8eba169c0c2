"""Agents that each take one turn, and how long that takes for all of them together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from ksi_migrate.demo_command import StepFailed
from ksi_migrate.demo_load import KINDS, Ledger

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ksi_migrate.demo_frame import Figures

PATIENCE_S = 60.0
LINE_LIMIT = 1024 * 1024
ENDS = {"completion:result", "completion:error", "completion:cancelled"}


@dataclass(frozen=True, slots=True)
class Agents:
    """So many agents took one turn of `turn_s` seconds each, all of them in `seconds`; what others saw."""

    agents: int
    turn_s: float
    seconds: float
    stage: str
    loop_stall_max_ms: float | None
    ping_p99_ms: float | None

    def document(self) -> dict[str, Any]:
        """As it stands in the `--json` document."""
        return asdict(self)


def seen(agents: int, turn_s: float, seconds: float, figures: Figures) -> Agents:
    """What the agents took, and what the rest of the load met meanwhile."""
    stage = figures.stages.get("claude_cli", "")
    return Agents(agents, turn_s, seconds, stage, figures.loop_stall_max_ms, figures.ping_p99_ms)


def ledgers(names: Iterable[str]) -> Iterator[Ledger]:
    """What each agent that was answered was promised: its answer on the bus, and its tokens in the log."""
    for name in names:
        for kind in KINDS:
            yield Ledger(name, kind.component, 1, frozenset({0}), {}, "")


async def take_turns(socket: Path, names: list[str], turn_s: float) -> float:
    """Spawn an agent for each name, with a prompt; the seconds until the last answer is there.

    Raises `StepFailed` when an agent gets no answer, or another than its own.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(socket, limit=LINE_LIMIT)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await _take(reader, writer, names, turn_s)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    except TimeoutError:
        raise StepFailed(f"{len(names)} agents had no answer within {PATIENCE_S:g} s") from None
    except OSError as error:
        raise StepFailed(f"the daemon hung up on the agents: {error}") from None


async def _take(reader: StreamReader, writer: StreamWriter, names: list[str], turn_s: float) -> float:
    began = time.monotonic()
    for name in names:
        data = {"agent_id": name, "prompt": f"sleep:{turn_s} {name}"}
        writer.write(orjson.dumps({"event": "agent:spawn", "data": data, "correlation_id": name}) + b"\n")
    mine: dict[str, str] = {}
    answered: set[str] = set()
    while len(answered) < len(names):
        frame = orjson.loads(await reader.readline() or b'{"error": "the daemon hung up"}')
        if frame.get("correlation_id") in names:
            mine[_spawned(frame)] = frame["correlation_id"]
        elif frame.get("event") in ENDS:
            answered.add(_answered(frame))
        elif "error" in frame:
            raise StepFailed(str(frame["error"]))
    if not answered >= mine.keys():
        raise StepFailed(f"of {len(names)} agents only {len(answered & mine.keys())} were answered")
    return time.monotonic() - began


def _spawned(frame: dict[str, Any]) -> str:
    data = frame.get("data") or {}
    if "error" in data or not data.get("request_id"):
        raise StepFailed(f"an agent was not spawned: {data.get('error', data)}")
    return str(data["request_id"])


def _answered(frame: dict[str, Any]) -> str:
    data = frame["data"]
    if frame["event"] != "completion:result":
        raise StepFailed(f"an agent's turn failed: {data.get('error', frame['event'])}")
    return str(data["request_id"])
