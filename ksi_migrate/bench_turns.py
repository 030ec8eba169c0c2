"""Agents that each take one turn of a command that waits: how long until the last of them has its answer."""

from __future__ import annotations

import resource
import shutil
import subprocess
import time
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from ksi_migrate.bench_cases import rotated
from ksi_migrate.bench_columns import COLUMNS, REFERENCE
from ksi_migrate.bench_figures import Case, Round, case_of
from ksi_migrate.bench_place import settings_of
from ksi_migrate.bench_proof import Broken
from ksi_migrate.bench_room import Room, Unanswered, served, together
from ksi_migrate.bench_rounds import observed, round_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_migrate.idle import IdleHeartbeat

AGENTS: Final = (1, 5, 10, 20)
"""One by itself is what the others are compared with."""

WAITS_S: Final = 1.0
"""Seconds that the command waits, as for a model's answer."""

MOST_ROUNDS: Final = 3
BLOCKED_S: Final = 10.0
"""Seconds that a column which takes the sum may wait in all rounds of a case but the first."""

PROGRAM: Final = "stand-in"
STAND_IN: Final = """\
#!/bin/sh
# The bench's stand-in for the claude command: the first line of the prompt becomes the session.
read -r session
cat > /dev/null
sleep {waits}
printf '{{"type": "result", "subtype": "success", "is_error": false, "result": "done",'
printf ' "session_id": "%s", "usage": {{"input_tokens": 10, "output_tokens": 3}}}}\\n' "$session"
"""
ARGV: Final = ("-p", "--output-format", "json", "--model", "claude-sonnet-4-20250514")


@dataclass(slots=True)
class Single:
    """How long one turn by itself takes with the original's calls, once that was measured (seconds)."""

    wall_s: float | None = None


@dataclass(frozen=True, slots=True)
class Turns:
    """One case: so many agents, a turn each."""

    area: Area
    root: Path
    agents: int
    single: Single = field(default_factory=Single)

    @property
    def name(self) -> str:
        """As the document names it."""
        agents = "1 agent" if self.agents == 1 else f"{self.agents} agents"
        return f"{agents}, {WAITS_S:g} s each"

    def rounds(self, column: str, asked: int) -> int:
        """How many rounds of a column: few of those that wait for one turn after the other."""
        most = min(asked, MOST_ROUNDS)
        return most if column == "async" else max(1, min(most, int(BLOCKED_S / (self.agents * WAITS_S))))

    def steps(self, asked: int) -> int:
        """How often `measure` tells that it goes on."""
        return self.rounds("async", asked)

    async def measure(self, asked: int, idle: IdleHeartbeat, tell: Callable[[str], None]) -> Case:
        """All rounds. Raises `Unanswered`, `Broken`, `IdleLost`."""
        found: dict[str, list[Round]] = {column: [] for column in COLUMNS}
        for number in range(self.steps(asked)):
            tell(f"{self.area.name}: {self.name}")
            for column in rotated(COLUMNS, number):
                if number < self.rounds(column, asked):
                    found[column].append(await self.round(column, idle))
        if self.agents == 1:
            self.single.wall_s = median(one.seconds for one in found[REFERENCE])
        compared = {column: [self._compared(one) for one in rounds] for column, rounds in found.items()}
        return case_of(self.name, self.agents, compared, self.note(asked))

    async def round(self, column: str, idle: IdleHeartbeat) -> Round:
        """One round of one column, in a place of its own."""
        self.root.mkdir(parents=True)
        program = self.root / PROGRAM
        program.write_text(STAND_IN.format(waits=f"{WAITS_S:g}"), encoding="utf-8")
        program.chmod(0o700)
        try:
            return await (self._reference(idle) if column == REFERENCE else self._served(column, idle))
        finally:
            shutil.rmtree(self.root)

    async def _served(self, column: str, idle: IdleHeartbeat) -> Round:
        settings = settings_of(self.root, claude_bin=str(self.root / PROGRAM), claude_parallel=max(AGENTS))
        async with served(self.area, column, settings, self._where(column)) as room:

            async def ask(agent: int) -> None:
                prompt = f"{_session(agent)}\nWhat do you think?"
                data = {"request_id": f"bench-{agent}", "agent_id": f"agent_{agent}", "prompt": prompt}
                self._check(column, agent, await room.ask("claude_cli:turn", data))

            found = await self._observed(column, idle, ask)
            await self._check_remembered(column, room)
            return found

    async def _reference(self, idle: IdleHeartbeat) -> Round:
        command = [str(self.root / PROGRAM), *ARGV]

        async def ask(agent: int) -> None:
            place = self.root / f"var/sandbox/agents/agent_{agent}"
            place.mkdir(parents=True, exist_ok=True)
            prompt = f"{_session(agent)}\nWhat do you think?".encode()
            ended = subprocess.run(command, input=prompt, capture_output=True, cwd=place, check=False)  # noqa: ASYNC221 - that it blocks is what is measured
            if ended.returncode or _session(agent).encode() not in ended.stdout:
                said = (ended.stderr or ended.stdout).decode(errors="replace").strip()
                answer = {"error": said or "it said nothing", "code": f"exit code {ended.returncode}"}
                raise Unanswered(self._where(REFERENCE), PROGRAM, answer)

        return await self._observed(REFERENCE, idle, ask)

    async def _observed(
        self, column: str, idle: IdleHeartbeat, ask: Callable[[int], Awaitable[None]]
    ) -> Round:
        """All agents at once; how long each waits, and what the commands themselves cost."""
        begun, waited = time.perf_counter(), []

        async def turn(agent: int) -> None:
            await ask(agent)
            waited.append(1e3 * (time.perf_counter() - begun))

        async def all_turns() -> None:
            nonlocal begun
            begun = time.perf_counter()
            await together(turn(agent) for agent in range(self.agents))

        spent = _commands_cpu_s()
        taken = await observed(idle, self._where(column), all_turns())
        more = {"wall_s": taken.seconds, "commands_cpu_s": _commands_cpu_s() - spent}
        return replace(round_of(taken, self.agents, waited), more=more)

    def _check(self, column: str, agent: int, answer: dict[str, Any]) -> None:
        session = (answer.get("session_id"), (answer.get("response") or {}).get("result"))
        if session != (_session(agent), "done"):
            raise Broken(
                self._where(column), f"agent {agent} was given an answer that is not its own: {answer}"
            )

    async def _check_remembered(self, column: str, room: Room) -> None:
        places = [await room.side.recall(_session(agent)) for agent in range(self.agents)]
        if not all(places) or len(set(places)) != self.agents:
            raise Broken(self._where(column), f"the sessions' directories are remembered as {places}")

    def _compared(self, one: Round) -> Round:
        if self.single.wall_s is None:
            return one
        return replace(one, more={**one.more, "times_single_turn": one.seconds / self.single.wall_s})

    def note(self, asked: int) -> str:
        """Why some columns have fewer rounds; empty where none has."""
        blocked = self.rounds("sync", asked)
        if blocked == self.rounds("async", asked):
            return ""
        rounds = "1 round" if blocked == 1 else f"{blocked} rounds"
        return f"reference and sync: {rounds}, since each takes {self.agents * WAITS_S:g} s"

    def _where(self, column: str) -> str:
        return f"{self.area.name}, {self.name}, {column}"


def parts(area: Area, place: Path) -> Iterator[Turns]:
    """All cases of the room, one agent first."""
    single = Single()
    for agents in AGENTS:
        yield Turns(area, place / area.name, agents, single)


def _session(agent: int) -> str:
    return f"00000000-0000-4000-8000-{agent:012x}"


def _commands_cpu_s() -> float:
    """Processor seconds of all children that were reaped so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
