"""A tree of Python files to mine and to search, and what is to be found there."""

from __future__ import annotations

import ast
import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.discovery.places import find_rg
from ksi_daemon.router import Event
from ksi_migrate.bench_proof import Broken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ksi_daemon.router import Client, Data

EVENTS: Final = 75
"""About as many as the daemon has with all seven rooms."""

EMITS: Final = 10
"""Every so many files one emits, three events each."""

FUNCTIONS: Final = 30
_FOLDER: Final = 50


@dataclass(frozen=True, slots=True)
class Source:
    """So many files below `root`, made once; each has `FUNCTIONS` functions of five lines."""

    root: Path
    files: int

    def make(self) -> None:
        """Write it, if it is not there."""
        if self.root.exists():
            return
        for number in range(self.files):
            path = self.root / f"pkg{number // _FOLDER:03}/mod{number:05}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(self._lines(number)), encoding="utf-8")

    def _lines(self, number: int) -> Iterator[str]:
        for at in range(FUNCTIONS):
            yield f'def work_{at}(first, second):\n    """Do step {at} of module {number}."""\n'
            yield f"    found = first + second * {at}\n    return [found, first, second]\n\n"
        if number % EMITS == 0:
            yield "async def tell(bus, value):\n"
            for at in range(3):
                event = name_of(number // EMITS * 3 + at)
                yield f'    await bus.emit_event("{event}", {{"number": {number}, "value": value}})\n'

    def prove(self, where: str, event: int, examples: Sequence[dict[str, Any]]) -> None:
        """Raise `Broken` unless these are the examples of the event of that number."""
        places = [number for number in range(0, self.files, EMITS) if self._tells(number, event)]
        expected = [{"number": number} for number in places[:2]]
        found = [one.get("data") for one in examples]
        if found != expected:
            raise Broken(where, f"{name_of(event)} has the examples {found}, not {expected}")

    def _tells(self, number: int, event: int) -> bool:
        return any((number // EMITS * 3 + at) % EVENTS == event for at in range(3))


def name_of(number: int) -> str:
    """An event's name."""
    return f"bench:event_{number % EVENTS:02}"


async def _answer(data: Data, _client: Client | None) -> Data:
    return data


def neighbours() -> tuple[Event, ...]:
    """The events that others would have registered."""
    return tuple(Event(name_of(number), _answer, "An event of the bench") for number in range(EVENTS))


def mined(tree: Path, event: str) -> list[dict[str, Any]]:
    """What the original did for one event (the KSI contract, 3.6): three runs, each match parsed."""
    found: list[dict[str, Any]] = []
    rg = find_rg(None, str(tree))
    for pattern in (rf'emit_event\("{event}"', rf"emit_event\('{event}'", rf'emit_event\(\s*"{event}"'):
        done = subprocess.run(
            [rg, "--json", "-U", pattern, "."], capture_output=True, text=True, cwd=tree, check=False
        )
        for line in done.stdout.splitlines() if done.returncode == 0 else ():
            message = json.loads(line)
            if message["type"] == "match" and (path := message["data"]["path"]["text"]).endswith(".py"):
                for data in _literals((tree / path).read_text(encoding="utf-8"), event):
                    if all(one["data"] != data for one in found):
                        found.append({"source": path, "type": "emit_event", "data": data})
    return found[:2]


def searched(tree: Path, pattern: str) -> int:
    """How many lines match, by one run of `rg`; the original had no search, so in the order of ours."""
    command = [find_rg(None, str(tree)), "--json", "--sort=path", pattern, "."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tree, check=False)
    return sum(json.loads(line)["type"] == "match" for line in done.stdout.splitlines())


def _literals(source: str, event: str) -> Iterator[dict[str, Any]]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or len(node.args) < 2:  # noqa: PLR2004 - event and data
            continue
        name, first, second = node.func, node.args[0], node.args[1]
        called = name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")
        if called not in {"emit", "emit_event"} or not isinstance(second, ast.Dict):
            continue
        if isinstance(first, ast.Constant) and first.value == event:
            pairs = zip(second.keys, second.values, strict=True)
            yield {
                str(key.value): value.value
                for key, value in pairs
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
            }
