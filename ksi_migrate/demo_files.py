"""The demo's conversations and configuration files: laid down, worked on under load, and counted."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
import yaml

from ksi_daemon.registry import AREAS
from ksi_migrate.bench_documents import Files, name_of
from ksi_migrate.bench_sessions import Sessions
from ksi_migrate.demo_command import StepFailed
from ksi_migrate.demo_count import Count, Counted

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_migrate.demo_frame import Figures

PATIENCE_S: Final = 60.0
LINE_LIMIT: Final = 16 * 1024 * 1024
CONFIG: Final = "config"
ROOMS: Final = ("conversation", CONFIG)
BUILT: Final = all(area.built for area in AREAS if area.name in ROOMS)
KEPT: Final = "demo"
"""The key below which all that the demo sets lies."""

BETWEEN_S: Final = 0.05
"""Between two sets while a component changes sides."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of it: conversations of so many lines; sets over so many files of so many bytes."""

    sessions: int
    lines: int
    sets: int
    files: int
    bytes_each: int


@dataclass(frozen=True, slots=True)
class FileWork:
    """One refresh of all conversations and some sets at once: how long, and what others saw meanwhile."""

    conversations: int
    lines: int
    sets: int
    seconds: float
    stages: dict[str, str]
    loop_stall_max_ms: float | None
    ping_p99_ms: float | None

    def document(self) -> dict[str, Any]:
        """As it stands in the `--json` document."""
        return asdict(self)


class Work:
    """All of it on one root. Each set has a key of its own, so that every one can be found in the end."""

    def __init__(self, root: Path, amount: Amount) -> None:
        self._sessions = Sessions(root, amount.sessions, amount.lines, 300)
        self._files = Files(root, amount.files, amount.bytes_each)
        self._amount = amount
        self._acknowledged: set[int] = set()
        self._asked = 0

    def lay(self) -> None:
        """Make all files; before the daemon starts."""
        self._files.lay()
        self._sessions.make()

    async def refresh(self, socket: Path) -> None:
        """Have all conversations read; each is then listed with all its lines. Raises `StepFailed`."""
        await request(socket, "conversation:refresh", {})
        reply = await request(socket, "conversation:list", {"limit": 10 * self._amount.sessions})
        found = {row["session_id"]: row["message_count"] for row in reply["conversations"]}
        wanted = {row["session_id"]: row["message_count"] for row in self._sessions.rows()}
        if wrong := sorted(name for name in wanted if found.get(name) != wanted[name]):
            told = f"{wrong[0]} with {found.get(wrong[0])} lines, not {wanted[wrong[0]]}"
            raise StepFailed(f"of {len(wanted)} conversations {len(wrong)} are listed wrongly: {told}")

    async def set_many(self, socket: Path) -> None:
        """As many sets as there are to be, at once. Raises `StepFailed`."""
        await asyncio.gather(*(self._set(socket) for _ in range(self._amount.sets)))

    async def set_until(self, socket: Path, over: asyncio.Event) -> int:
        """One set after the other until then, while a flip goes on; how many. Raises `StepFailed`."""
        before = self._asked
        while not over.is_set():
            await self._set(socket)
            await asyncio.sleep(BETWEEN_S)
        return self._asked - before

    async def _set(self, socket: Path) -> None:
        number, self._asked = self._asked, self._asked + 1
        data = {
            "key": f"{KEPT}.{key_of(number)}",
            "value": number,
            "config_type": "composition",
            "file_path": self._files.path(number).name,
        }
        await request(socket, "config:set", data)
        self._acknowledged.add(number)

    def done(self, seconds: float, figures: Figures) -> FileWork:
        """What it took, and what the rest of the load met meanwhile."""
        amount, stages = self._amount, {name: figures.stages.get(name, "") for name in ROOMS}
        stall, ping = figures.loop_stall_max_ms, figures.ping_p99_ms
        return FileWork(
            amount.sessions, amount.sessions * amount.lines, amount.sets, seconds, stages, stall, ping
        )

    def count(self) -> Counted:
        """Every key that was set against what the files hold; only when the daemon has stopped."""
        found: set[int] = set()
        torn: list[str] = []
        strange: list[str] = []
        for at in range(self._amount.files):
            name, kept = name_of(at), self._kept(at)
            if kept is None:
                torn.append(name)
                continue
            for key, value in kept.items():
                mine = value in range(at, self._asked, self._amount.files) and key == key_of(value)
                (found.add(value) if mine else strange.append(f"{name}: {key}"))
        lost = sorted(self._acknowledged - found)
        count = Count(
            len(self._acknowledged),
            len(found) + len(strange),
            len(lost),
            torn=len(torn),
            foreign=len(strange),
        )
        problems = [f"{name} is not what it was before the sets" for name in torn]
        problems += [f"a set that was acknowledged is in no file: {key_of(number)}" for number in lost]
        problems += [f"a key that nobody set: {what}" for what in strange]
        return Counted(CONFIG, self._files.folder, count, tuple(problems))

    def _kept(self, at: int) -> dict[str, Any] | None:
        """What was set in a file; None when the rest of it is not what it was, or it is no YAML."""
        try:
            found = yaml.safe_load(self._files.path(at).read_bytes())
            kept = found.pop(KEPT, {})
        except (OSError, yaml.YAMLError, AttributeError):
            return None
        return kept if found == self._files.documents[at] and isinstance(kept, dict) else None


def key_of(number: int) -> str:
    """The key of a set, below `KEPT`."""
    return f"key_{number}"


async def request(socket: Path, event: str, data: dict[str, Any]) -> dict[str, Any]:
    """The data of one reply, on a connection of its own. Raises `StepFailed` for an error or none at all."""
    line = orjson.dumps({"event": event, "data": data, "correlation_id": event}) + b"\n"
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(socket, limit=LINE_LIMIT)
            try:
                writer.write(line)
                return await _data(reader, event)
            finally:
                writer.close()
    except TimeoutError:
        raise StepFailed(f"{event} had no answer within {PATIENCE_S:g} s") from None
    except OSError as error:
        raise StepFailed(f"the daemon hung up on {event}: {error}") from None


async def _data(reader: asyncio.StreamReader, event: str) -> dict[str, Any]:
    """The data of the reply; frames that were not asked for are passed over."""
    while line := await reader.readline():
        frame = orjson.loads(line)
        if frame.get("correlation_id") != event:
            continue
        data = frame.get("data")
        error = frame.get("error") or (data.get("error") if isinstance(data, dict) else f"{data}")
        if error:
            raise StepFailed(f"{event}: {error}")
        found: dict[str, Any] = frame["data"]
        return found
    raise StepFailed(f"the daemon hung up on {event}")
