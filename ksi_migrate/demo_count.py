"""The final count: what the clients were promised against what stands in the logs, record by record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ksi_migrate.demo_load import Identity, Ledger

SHOWN = 3
"""How many numbers of one client a problem names."""


@dataclass(frozen=True, slots=True)
class Count:
    """Records by what became of them; all but the first two must be zero.

    `lost`: acknowledged and not on disk. `doubled`: there once more, acknowledged or not. `out_of_order`:
    after a later one of the same client. `torn`: not a whole line of JSON, or cut off and kept beside the
    log. `foreign`: sent by nobody. `refused`: answered with an error. `not_undone`: refused and yet on disk.
    """

    acknowledged: int = 0
    on_disk: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    torn: int = 0
    foreign: int = 0
    refused: int = 0
    not_undone: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(Count)))


@dataclass(frozen=True, slots=True)
class Counted:
    """One component's log: its count, and each thing that is off in words."""

    component: str
    path: Path
    count: Count
    problems: tuple[str, ...]


@dataclass(slots=True)
class Found:
    """What one log holds: the numbers of each client in the order of the lines, and what is no record."""

    numbers: dict[str, list[int]] = field(default_factory=dict)
    torn: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def take(self, place: str, line: bytes, identity: Callable[[dict[str, Any]], Identity]) -> None:
        """Put one line where it belongs."""
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            self.torn.append(place)
            return
        try:
            client, number = identity(record)
        except (KeyError, TypeError, ValueError):
            self.foreign.append(place)
        else:
            self.numbers.setdefault(client, []).append(number)


def count_log(
    component: str, path: Path, ledgers: Iterable[Ledger], identity: Callable[[dict[str, Any]], Identity]
) -> Counted:
    """Compare one log with the accounts of the clients that wrote to it. A missing log is an empty one."""
    found = read(path, identity)
    accounts = [ledger for ledger in ledgers if ledger.component == component]
    count, problems = Count(torn=len(found.torn)), [f"{path.name} is torn: {place}" for place in found.torn]
    for ledger in accounts:
        one, wrong = _compare(ledger, found.numbers.pop(ledger.client, []))
        count += one
        problems += wrong
    strangers = [f"records of {client!r}" for client in found.numbers]
    foreign = len(found.foreign) + sum(map(len, found.numbers.values()))
    count += Count(on_disk=foreign, foreign=foreign)
    problems += [f"{path.name} holds what nobody sent: {what}" for what in (*found.foreign, *strangers)]
    return Counted(component, path, count, tuple(problems))


def read(path: Path, identity: Callable[[dict[str, Any]], Identity]) -> Found:
    """Every line of a log. A last one without its newline is torn, and so is what was cut off and kept."""
    found = Found()
    *lines, rest = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate(lines, 1):
        found.take(f"line {number}", line, identity)
    if rest:
        found.torn.append(f"line {len(lines) + 1} has no end")
    found.torn += [f"kept {torn.name}" for torn in sorted(path.parent.glob(f"{path.name}.torn-*"))]
    return found


def _compare(ledger: Ledger, numbers: list[int]) -> tuple[Count, list[str]]:
    """One client's account against its records, in the order in which they stand on the disk."""
    times = Counter(numbers)
    wrong = {
        "lost": sorted(ledger.acknowledged - times.keys()),
        "doubled": sorted(Counter({number: seen - 1 for number, seen in times.items()}).elements()),
        "out_of_order": list(_late(numbers)),
        "foreign": sorted(number for number in times if not 0 <= number < ledger.sent),
        "refused": sorted(ledger.refused),
        "not_undone": sorted(ledger.refused.keys() & times.keys()),
    }
    count = Count(
        len(ledger.acknowledged), len(numbers), **{name: len(these) for name, these in wrong.items()}
    )
    problems = [_problem(ledger, name, these) for name, these in wrong.items() if these]
    if ledger.lost:
        problems.append(f"{ledger.client} lost its connection: {ledger.lost}")
    return count, problems


def _late(numbers: Iterable[int]) -> Iterator[int]:
    """Each number that stands for the first time after a greater one."""
    seen: set[int] = set()
    highest = -1
    for number in numbers:
        if number < highest and number not in seen:
            yield number
        highest = max(highest, number)
        seen.add(number)


def _problem(ledger: Ledger, name: str, numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN])) + (" …" if len(numbers) > SHOWN else "")
    why = f" ({ledger.refused[numbers[0]]})" if name == "refused" else ""
    return f"{ledger.client}: {len(numbers)} {name.replace('_', ' ')}: {shown}{why}"
