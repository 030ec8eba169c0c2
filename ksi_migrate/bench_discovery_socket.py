"""Discovery through the socket of a real daemon: examples mined and code searched, a ping beside it."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon import client
from ksi_migrate.bench_cases import rotated
from ksi_migrate.bench_columns import STAGES
from ksi_migrate.bench_daemon import running
from ksi_migrate.bench_figures import Case, Round, case_of
from ksi_migrate.bench_memory import known_peak_mib
from ksi_migrate.bench_ping import Pings
from ksi_migrate.bench_room import Unanswered
from ksi_migrate.bench_socket import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.area import Area
    from ksi_migrate.bench_daemon import Running
    from ksi_migrate.bench_source import Source
    from ksi_migrate.idle import IdleHeartbeat

CLIENTS: Final = 4
SEARCHES: Final = 20
PATIENCE_S: Final = 120.0
MOST_ROUNDS: Final = 3
BAR: Final = "a ping's p99 under 10 ms; loop stall of at most 5 ms"


@dataclass(frozen=True, slots=True)
class ThroughSocket:
    """One case: a detailed discovery that mines, then twenty searches by four clients."""

    area: Area
    root: Path
    source: Source

    @property
    def name(self) -> str:
        """As the document names it."""
        return f"through the socket, a ping beside it, {self.source.files:,} files"

    def steps(self, asked: int) -> int:
        """How often `measure` tells that it goes on."""
        return min(asked, MOST_ROUNDS)

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """All rounds of async, one of sync. Raises `Unanswered`, `DaemonFailed`, `LoadFailed`, `IdleLost`."""
        self.source.make()
        found: dict[str, list[Round]] = {"reference": [], **{column: [] for column in STAGES}}
        for number in range(self.steps(asked)):
            tell(f"{self.area.name}: {self.name}")
            for column in rotated(tuple(STAGES), number):
                if number and column != "async":
                    continue
                await idle.read()
                one = await asyncio.to_thread(self._round, column)
                found[column].append(one(await idle.read()))
        note = "reference: the original is not here; sync: 1 round, since it takes seconds"
        return replace(case_of(self.name, CLIENTS, found, note), bar=BAR)

    def _round(self, column: str) -> Callable[[Any], Round]:
        """A new daemon, loaded and pinged; the round lacks only what the idle process saw meanwhile."""
        more = {"KSI_DISCOVERY_TREE": str(self.source.root), "KSI_MEASURE_LOOP": "true"}
        with running(self.root, column, more) as daemon:
            with Child("bench_ping", str(daemon.socket), "0") as ping:
                ping.hear("ready")
                client.ask(daemon.socket, "system:loop")
                ping.go()
                begun = time.perf_counter()
                self._load(daemon)
                seconds = time.perf_counter() - begun
                pings = Pings(**json.loads(ping.last()))
            stall = client.ask(daemon.socket, "system:loop")["data"]
            peak = known_peak_mib(Path(f"/proc/{daemon.pid}/status")) or 0.0
        shutil.rmtree(self.root)
        return lambda idle: Round(
            calls=1 + SEARCHES,
            seconds=seconds,
            latency_p50_ms=pings.p50_ms,
            latency_p99_ms=pings.p99_ms,
            stall_p99_ms=stall["loop_stall_p99_ms"],
            stall_max_ms=stall["loop_stall_max_ms"],
            idle_max_ms=idle.max_ms,
            beats=round(seconds * 1e3),
            cpu_s=0.0,
            rss_peak_mib=peak,
            more={**_waits(pings, seconds), "wall_s": seconds},
        )

    def _load(self, daemon: Running) -> None:
        self._ask(daemon, "system:discover", {"detail": True})
        wrong: list[BaseException] = []

        def search(first: int) -> None:
            try:
                for at in range(first, SEARCHES, CLIENTS):
                    self._ask(daemon, "discovery:search", {"pattern": f"Do step {at} of module"})
            except BaseException as error:  # noqa: BLE001 - raised again where the round can end
                wrong.append(error)

        clients = [threading.Thread(target=search, args=(number,)) for number in range(CLIENTS)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        if wrong:
            raise wrong[0]

    def _ask(self, daemon: Running, event: str, data: dict[str, Any]) -> None:
        found = client.ask(daemon.socket, event, data, PATIENCE_S).get("data")
        if not isinstance(found, dict) or "error" in found:
            raise Unanswered(f"{self.area.name}, {self.name}", event, found)


def _waits(pings: Pings, seconds: float) -> dict[str, float]:
    """How many pings, and how long they waited; where none came back, all the time."""
    p50, p99 = (seconds * 1e3 if one is None else one for one in (pings.p50_ms, pings.p99_ms))
    return {"pings": float(pings.count), "ping_p50_ms": p50, "ping_p99_ms": p99}
