"""Through the socket: a real daemon, a load on four connections, and a ping beside it, all in processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Any, Final, Self

import orjson

from ksi_migrate.bench_daemon import Running, running
from ksi_migrate.bench_load import Outcome, Plan, agent
from ksi_migrate.bench_memory import known_peak_mib
from ksi_migrate.bench_ping import Pings
from ksi_migrate.bench_proof import Broken, check_sequences
from ksi_migrate.exits import Inconclusive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONNECTIONS: Final = 4
WARM_S: Final = 0.5
SECONDS: Final = 2.0
STAGES: Final = ("async", "sync")
LOG: Final = "var/logs/responses/message_bus.jsonl"
ORIGINAL_PUBLISHES: Final = 800
ORIGINAL_PING_P99_MS: Final = 270
FEWEST_PINGS: Final = 100
"""Below it p99 is the maximum."""


class LoadFailed(Inconclusive):
    """The load generator or the pinger broke off."""

    def __init__(self, what: str, said: str) -> None:
        super().__init__(f"{what} broke off", said or "it said nothing")


@dataclass(frozen=True, slots=True)
class SocketRound:
    """One daemon's life: publishes a second, the pings meanwhile, and the most memory that it held."""

    publishes_per_s: float
    pings: Pings
    rss_peak_mib: float | None = None


@dataclass(frozen=True, slots=True)
class SocketCase:
    """One stage's medians over the rounds; the names are those of the document."""

    name: str
    stage: str
    connections: int
    rounds: int
    publishes_per_s: float
    publishes_min: float
    publishes_max: float
    ping_p50_ms: float | None
    ping_p99_ms: float | None
    pings: int
    original_publishes_per_s: int
    original_ping_p99_ms: int
    times_original: float
    rss_peak_mib: float | None

    def document(self) -> dict[str, Any]:
        """The case as JSON."""
        return asdict(self)


def measure(place: Path, rounds: int, tell: Callable[[str], None]) -> tuple[SocketCase, ...]:
    """Each stage `rounds` times in turn, a new daemon every time.

    Raises `Broken`, `DaemonFailed`, `LoadFailed`.
    """
    found: dict[str, list[SocketRound]] = {stage: [] for stage in STAGES}
    for number in range(rounds):
        for stage in STAGES if number % 2 == 0 else STAGES[::-1]:
            tell(f"through the socket: all at {stage}")
            found[stage].append(one_round(place / f"socket-{stage}", stage))
    return tuple(case_of(stage, found[stage]) for stage in STAGES)


def one_round(root: Path, stage: str) -> SocketRound:
    """A daemon on a new root, loaded, pinged, stopped, and its log compared with what it acknowledged."""
    with running(root, stage) as daemon:
        outcome, pings = _load(daemon)
        peak = known_peak_mib(Path(f"/proc/{daemon.pid}/status"))
    where = f"through the socket, {stage}"
    if outcome.wrong:
        raise Broken(where, outcome.wrong)
    records = map(orjson.loads, (root / LOG).read_bytes().splitlines())
    senders = {agent(at): count for at, count in enumerate(outcome.acknowledged)}
    check_sequences(where, ((record["from"], record["number"]) for record in records), senders)
    shutil.rmtree(root)
    return SocketRound(outcome.publishes / outcome.seconds, pings, peak)


def case_of(stage: str, rounds: Sequence[SocketRound]) -> SocketCase:
    """The medians of a stage's rounds."""
    rates = [one.publishes_per_s for one in rounds]
    pings = [one.pings for one in rounds if one.pings.p99_ms is not None]
    rate = median(rates)
    peaks = [one.rss_peak_mib for one in rounds if one.rss_peak_mib is not None]
    return SocketCase(
        name="message:publish, pipelined",
        stage=stage,
        connections=CONNECTIONS,
        rounds=len(rounds),
        publishes_per_s=rate,
        publishes_min=min(rates),
        publishes_max=max(rates),
        ping_p50_ms=median(one.p50_ms or 0.0 for one in pings) if pings else None,
        ping_p99_ms=median(one.p99_ms or 0.0 for one in pings) if pings else None,
        pings=sum(one.count for one in pings),
        original_publishes_per_s=ORIGINAL_PUBLISHES,
        original_ping_p99_ms=ORIGINAL_PING_P99_MS,
        times_original=rate / ORIGINAL_PUBLISHES,
        rss_peak_mib=median(peaks) if peaks else None,
    )


def _load(daemon: Running) -> tuple[Outcome, Pings]:
    """Let both children begin together; the pings end when the load's time does."""
    plan = Plan(str(daemon.socket), CONNECTIONS, WARM_S, SECONDS)
    with ExitStack() as stack:
        load = stack.enter_context(Child("bench_load", json.dumps(asdict(plan))))
        ping = stack.enter_context(Child("bench_ping", str(daemon.socket), str(WARM_S)))
        for child in (load, ping):
            child.hear("ready")
        for child in (load, ping):
            child.go()
        load.hear("over")
        pings = Pings(**json.loads(ping.last()))
        return Outcome(**json.loads(load.last())), pings


class Child:
    """A module of this package as a child that speaks in lines; it ends with its stdin, or is killed."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._name = module
        command = [sys.executable, "-m", f"ksi_migrate.{module}", *arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def __enter__(self) -> Self:
        """Nothing more."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Kill it, and close its pipes."""
        with self._process:
            self._process.kill()

    def hear(self, word: str) -> None:
        """Wait for a line that is `word`. Raises `LoadFailed` at any other."""
        if (line := _pipe(self._process.stdout).readline().rstrip("\n")) != word:
            raise LoadFailed(self._name, f"{line}\n{self._process.communicate()[1]}".strip())

    def go(self) -> None:
        """Give the sign to begin."""
        stdin = _pipe(self._process.stdin)
        stdin.write("go\n")
        stdin.flush()

    def last(self) -> str:
        """Close its stdin and give its last line. Raises `LoadFailed`.

        Not by `communicate`, which passes over what `hear` has read ahead.
        """
        _pipe(self._process.stdin).close()
        said, error = _pipe(self._process.stdout).read(), _pipe(self._process.stderr).read()
        if self._process.wait():
            raise LoadFailed(self._name, error.strip())
        return said


def _pipe(found: IO[str] | None) -> IO[str]:
    assert found is not None  # noqa: S101  (all three are pipes)
    return found
