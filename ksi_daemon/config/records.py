"""Records of backups, and the way back that they tell: pure.

A record is the original's (the KSI contract, 3.5) with fields of ours. `serial` counts what happened to one
file; `previous` names the backup that was one step back when this one was made; `rolled_back` is the serial
of the last rollback to it; `before` marks what a rollback copies first (`pre_rollback_…`). So the way back is
known from the disk alone. From the latest that happened, a backup made or a rollback, it goes to that backup,
or to the one before the one that was rolled back to. What a rollback copied can be named, but is no step of
the way.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ksi_daemon.config import core


class Record(NamedTuple):
    """One backup, as its record tells of it; `fields` is all that stands there."""

    name: str
    original: str
    timestamp: str
    serial: int
    previous: str | None
    before: bool
    """Whether it is the copy that a rollback made."""
    rolled_back: int
    fields: dict[str, Any]

    @property
    def age(self) -> tuple[int, str]:
        """What sorts the backups of one file, oldest first; the original's own come before ours."""
        return self.serial, self.timestamp


def record_of(name: str, data: bytes) -> Record | None:
    """A record from its bytes; None if it is none."""
    try:
        fields = json.loads(data)
        serial, rolled_back = fields.get("serial", 0), fields.get("rolled_back", 0)
        before = fields.get("before", name.startswith(core.BEFORE))
        known = (str(fields["original_path"]), str(fields["timestamp"]), int(serial))
        previous = fields.get("previous")
        return Record(
            name,
            *known,
            previous if type(previous) is str else None,
            before is True,
            int(rolled_back),
            fields,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def latest(mine: list[Record]) -> Record | None:
    """The backup that was made or rolled back to last; what rollbacks copied does not count as made."""
    happened = [
        (max(record.rolled_back, 0 if record.before else record.serial), record.age) for record in mine
    ]
    steps = [
        (when, record) for when, record in zip(happened, mine, strict=True) if when[0] or not record.before
    ]
    return max(steps, key=lambda step: step[0])[1] if steps else None


def step_back(mine: list[Record]) -> Record | None:
    """The backup that a rollback without a name goes to; None at the end of the way."""
    last = latest(mine)
    if last is None or not last.rolled_back > (0 if last.before else last.serial):
        return last
    return previous(mine, last)


def previous(mine: list[Record], record: Record) -> Record | None:
    """The backup one step further back, if it is still there."""
    older = [other for other in mine if other.age < record.age and not other.before]
    if not record.serial:
        return older[-1] if older else None
    return next((other for other in older if other.name == record.previous), None)


def next_serial(mine: list[Record]) -> int:
    """The number of what happens next to a file."""
    return 1 + max((max(record.serial, record.rolled_back) for record in mine), default=0)


def free(name: str, names: set[str]) -> str:
    """The name, with a number behind it if it is taken, or its record's is."""
    number, found = 0, name
    while found in names or found + core.META in names:
        number += 1
        found = core.fitting("", name, f"-{number}")
    return found
