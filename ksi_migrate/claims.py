"""The analysis's success metrics and impact table, a row each, with the bench case that measures it.

This table alone knows the names of bench cases; a new case is a line here. Names match as in a shell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ksi_migrate.measured import SOCKET

Source = Literal["success metrics", "impact table"]
SOURCES: Final[tuple[Source, ...]] = ("success metrics", "impact table")
"""In the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Times:
    """Async has to be so many times better than sync; `of` is the figure that is compared."""

    of: str
    least: float


@dataclass(frozen=True, slots=True)
class AtMost:
    """The figure has to stay below so much on the async side."""

    of: str
    most: float
    unit: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What the analysis promises, and how it is measured here. The worst of all matching cases counts."""

    name: str
    source: Source
    claimed: str
    how: str
    component: str
    cases: tuple[str, ...]
    bar: Times | AtMost

    @property
    def command(self) -> str:
        """What measures it."""
        return "ksi-migrate bench " + ("messaging --socket" if self.component == SOCKET else self.component)


@dataclass(frozen=True, slots=True)
class Quality:
    """What only tests can show: those whose class or name match this, as a regular expression."""

    name: str
    source: Source
    claimed: str
    how: str
    tests: str


@dataclass(frozen=True, slots=True)
class Covered:
    """What coverage.py shows: these files, of every component that is built."""

    name: str
    source: Source
    claimed: str
    how: str
    file: str


MANY: Final = "100 callers"
CLAIMS: Final = (
    Claim(
        "message throughput",
        "success metrics",
        "10 times",
        "message:publish through a daemon's socket, 4 connections, acknowledged publishes a second",
        SOCKET,
        ("message:publish, pipelined",),
        Times("publishes_per_s", 10),
    ),
    Claim(
        "cache refresh time",
        "success metrics",
        "half the time",
        "first refresh of all conversations, time for one call",
        "conversation",
        ("first refresh, *",),
        Times("call_ms", 2),
    ),
    Claim(
        "concurrent agents",
        "success metrics",
        "5 and more at once",
        "5, 10 and 20 agents take a turn of 1 s each; all their turns, in turns by themselves (with 4 at once"
        " it would be 2)",
        "claude_cli",
        ("5 agents, *", "10 agents, *", "20 agents, *"),
        AtMost("times_single_turn", 1.5, "turns"),
    ),
    Claim(
        "discovery does not block",
        "success metrics",
        "non-blocking",
        "longest loop stall of any discovery, less that of an idle process",
        "discovery",
        ("*",),
        AtMost("loop_stall_max_less_idle_ms", 5, "ms"),
    ),
    Claim(
        "a ping beside discovery",
        "success metrics",
        "non-blocking",
        "99th percentile of a ping's wait while a daemon mines examples and searches",
        "discovery",
        ("through the socket, a ping beside it, *",),
        AtMost("ping_p99_ms", 10, "ms"),
    ),
    Claim(
        "message logging",
        "impact table",
        "10 to 100 times the throughput",
        "the append alone, 100 callers, durability os",
        "messaging",
        (MANY,),
        Times("throughput_per_s", 10),
    ),
    Claim(
        "message logging, fsync",
        "impact table",
        "10 to 100 times the throughput",
        "the append alone, 100 callers, durability fsync",
        "messaging",
        (f"{MANY}, fsync",),
        Times("throughput_per_s", 10),
    ),
    Claim(
        "cache refresh",
        "impact table",
        "5 to 10 times faster",
        "first refresh of all conversations, time for one call",
        "conversation",
        ("first refresh, *",),
        Times("call_ms", 5),
    ),
    Claim(
        "agent identity blocks",
        "impact table",
        "under 1 ms",
        "time on the loop's own thread for one update, 10,000 identities stored",
        "agent",
        ("1 update at a time, 10,000 stored",),
        AtMost("loop_ms_per_call", 1, "ms"),
    ),
    Claim(
        "agent identity",
        "impact table",
        "50 to 200 times faster",
        "time on the loop's own thread for one update, 10,000 identities stored",
        "agent",
        ("1 update at a time, 10,000 stored",),
        Times("loop_ms_per_call", 50),
    ),
    Claim(
        "config set",
        "impact table",
        "10 to 100 times faster",
        "100 sets at once over 20 files, acknowledged sets a second",
        "config",
        ("100 sets at once, 20 files of 50 kB",),
        Times("throughput_per_s", 10),
    ),
    Claim(
        "config get",
        "impact table",
        "10 to 100 times faster",
        "a get from a file that nobody has changed, time for one call",
        "config",
        ("get from an unchanged file of *",),
        Times("call_ms", 10),
    ),
    Claim(
        "discovery search",
        "impact table",
        "2 to 20 times faster",
        "different searches at once, searches a second",
        "discovery",
        ("*different searches*",),
        Times("throughput_per_s", 2),
    ),
    Claim(
        "token logging",
        "impact table",
        "10 to 50 times the throughput",
        "the append alone, 100 callers, durability os",
        "completion",
        (MANY,),
        Times("throughput_per_s", 10),
    ),
)

QUALITIES: Final = (
    Quality(
        "race conditions",
        "success metrics",
        "none",
        "tests of order, interleaving and flips under load, from --junit",
        r"race|interleav|concurren|order|overtak|flip|at_once|together|stampede|soak",
    ),
    Quality(
        "file corruption",
        "success metrics",
        "none",
        "tests of torn and damaged files, kills and readers meanwhile, from --junit",
        r"torn|tear|kill|corrupt|damage|whole|crash|readers|cut_back",
    ),
    Quality(
        "error handling",
        "success metrics",
        "maintained or improved",
        "tests of errors, refusals, full and hung disks, from --junit",
        r"error|refuse|fail|fault|invalid|full_disk|full_file|timeout|hang|retr(y|ies)",
    ),
)

COVERED: Final = Covered(
    "test coverage",
    "success metrics",
    "complete for async operations",
    "lines and branches of every aio.py, from --coverage",
    "aio.py",
)
