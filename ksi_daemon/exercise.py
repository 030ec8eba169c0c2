"""What a room offers to be tried with: the steps that parity, bench and tests run on either side.

Steps are data. A step's `event` is one of the room's events, or an action on the surroundings:
`@restart` (stop and start again), `@tear`, `@rotate`, `@remove`, `@block`, `@unblock` (the room's first
file gets a torn tail, is renamed away, removed, replaced by a directory and put back), `@cover` and
`@uncover` (a file takes the place of the first file's directory, and gives it back), `@connect` and
`@hangup` (the step's client).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ksi_daemon.router import Event

_ON_FILE = frozenset({"@tear", "@rotate", "@remove", "@block", "@unblock", "@cover", "@uncover"})

ACTIONS = frozenset({*_ON_FILE, "@restart", "@connect", "@hangup"})


@dataclass(frozen=True, slots=True)
class Step:
    """One request, sent on behalf of one client, or one action."""

    event: str
    data: Any = field(default_factory=dict)
    client: str = "one"


@dataclass(frozen=True, slots=True)
class Case:
    """Steps in a fresh directory that holds `files` (path below the root → bytes) to begin with."""

    name: str
    steps: tuple[Step, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """What bench measures: one contract call a record, of about `size` bytes.

    `call(backend, line)` does the call on a side, `lines(count)` makes that many different encoded records,
    `reference(path, number)` does once what the original did for one record, with the calls it used.
    """

    name: str
    size: int
    call: str
    lines: Callable[[int], list[bytes]]
    reference: Callable[[Path, int], None]


@dataclass(frozen=True, slots=True)
class Exercise:
    """Everything to try a room with. `files` are the paths below the root that it writes, main one first."""

    files: tuple[str, ...]
    cases: tuple[Case, ...]
    writes: tuple[Step, Step]
    """Two different requests that write; parity interleaves and cancels them."""
    loads: tuple[Load, ...] = ()
    neighbours: Callable[[], tuple[Event, ...]] = tuple
    """Handlers that stand in for the other rooms that this one asks, new ones for each trial: no wall clock,
    no chance, so that both sides meet the same neighbours."""
    programs: Mapping[str, bytes] = field(default_factory=dict)
    """Programs to lay down, executable, before a trial begins: path below the root → content."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from the defaults in a trial: name → value, as `Settings` takes them."""
