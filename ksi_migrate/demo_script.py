"""What the demo does to its daemon, act by act, through the same commands that an operator uses."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksi_daemon.registry import AREAS
from ksi_migrate.demo_agents import seen, take_turns
from ksi_migrate.demo_command import StepFailed, ksi_daemon, ksi_migrate
from ksi_migrate.demo_files import BUILT, CONFIG, Amount, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from ksi_migrate.demo_agents import Agents
    from ksi_migrate.demo_files import FileWork
    from ksi_migrate.demo_frame import Figures
    from ksi_migrate.demo_meter import Meter, Sample
    from ksi_migrate.demo_scratch import Scratch

PHASES = {
    week: tuple(area.name for area in AREAS if area.week == week and area.built)
    for week in sorted({area.week for area in AREAS if area.built})
}
"""The built components of each week that has any."""
FORCED = ("--force", "--reason", "the short demo leaves the parity of this week out")
BESIDE_S = 0.1
"""Seconds of the turn that an agent takes while files are worked on."""
ROLLED_BACK = "messaging"
"""The component that goes down and up again: the one with most of the load."""
SETTLE_S = 10.0
EXIT_S = 10.0


MANY = Amount(sessions=500, lines=400, sets=40, files=10, bytes_each=20_000)
FEW = Amount(sessions=300, lines=200, sets=10, files=5, bytes_each=10_000)


@dataclass(frozen=True, slots=True)
class Tempo:
    """Seconds of each measured window, of each sample, and between the acts.

    `parity_apart`: run parity by itself too, and not only as the gate of each `enable`. `agents` take one
    turn of `turn_s` seconds each, at either side. `files` are refreshed and set, at either side. Parity of
    the weeks in `forced` is passed over, with a reason, where there is no time for it.
    """

    window_s: float
    sample_s: float
    pause_s: float
    parity_apart: bool
    agents: int = 5
    turn_s: float = 1.0
    files: Amount = MANY
    forced: tuple[int, ...] = ()


FULL = Tempo(window_s=5.0, sample_s=0.5, pause_s=2.0, parity_apart=True)
FAST = Tempo(
    window_s=1.0, sample_s=0.25, pause_s=0.0, parity_apart=False, turn_s=0.4, files=FEW, forced=(2, 3, 4)
)
"""Half a second has 500 beats of the daemon's heart, so that its p99 is not just its worst."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the demo did, and what came of it."""

    name: str
    ok: bool
    seconds: float
    detail: str


class Steps:
    """Everything done so far; a failed step is a problem."""

    def __init__(self) -> None:
        self.done: list[Step] = []
        self.problems: list[str] = []

    def note(self, name: str, began: float, detail: str, *, ok: bool = True) -> None:
        """Add a step that began at `began` (monotonic seconds) and ends now."""
        self.done.append(Step(name, ok, round(time.monotonic() - began, 3), detail))

    def fail(self, name: str, began: float, detail: str) -> None:
        """Add a step that did not do what it should."""
        self.note(name, began, detail, ok=False)
        self.problems.append(f"{name}: {detail}")


class Script:
    """One performance on one daemon; `figures`, `agents` and `files` fill with what was measured.

    `answered` are the agents whose turn was answered, by name.
    """

    def __init__(self, place: Scratch, steps: Steps, tempo: Tempo) -> None:
        self._place = place
        self.tempo = tempo
        self._meter: Meter
        self.steps = steps
        self.figures: dict[str, Figures] = {}
        self.agents: dict[str, Agents] = {}
        self.files: dict[str, FileWork] = {}
        self.work = Work(place.root, tempo.files)
        self.answered: list[str] = []

    async def play(self, meter: Meter) -> None:
        """All acts in order. The first that fails ends the play, but not the load and its count."""
        self._meter = meter
        with contextlib.suppress(StepFailed):
            await self._acts()

    async def _acts(self) -> None:
        await self._measure("before_fsync", "fsync")
        await self._measure("before", "os")
        await self._let_agents_work("before")
        await self._work_on_files("before")
        for week, names in PHASES.items():
            await self._ask("plan", f"week {week}", "plan", "--phase", str(week))
            if self.tempo.parity_apart:
                await self._ask("parity", f"both sides of {', '.join(names)}", "parity", *names)
            options = ("--yes", *(FORCED if week in self.tempo.forced else ()))
            await self._while_files_change(names, self._flip("enable", "async", names, *options))
            await self._pause()
        await self._flip("rollback", "sync", (ROLLED_BACK,))
        await self._pause()
        await self._flip("enable", "async", (ROLLED_BACK,), "--yes")
        await self._measure("after_fsync", "fsync")
        await self._measure("after", "os")
        await self._let_agents_work("after")
        await self._work_on_files("after")

    async def stop(self, process: subprocess.Popen[bytes]) -> None:
        """`ksi-daemon stop`, and the daemon's own exit code: 0 when it answered and wrote everything."""
        with contextlib.suppress(StepFailed), self._step("stop", "ksi-daemon stop") as said:
            document = await ksi_daemon(self._place.root, "stop")
            try:
                code = await asyncio.to_thread(process.wait, EXIT_S)
            except subprocess.TimeoutExpired:
                raise StepFailed(f"the daemon still runs {EXIT_S:g} s after its stop") from None
            if code != 0:
                raise StepFailed(f"the daemon ended with exit code {code}; its log is {self._place.log}")
            said.append(f"in {document['seconds']:.1f} s, exit code 0")

    @contextlib.contextmanager
    def _step(self, name: str, note: str) -> Iterator[list[str]]:
        """Tell the meter, time the step, and note what it says or why it failed."""
        self._meter.say(name, note)
        began, said = time.monotonic(), list[str]()
        try:
            yield said
        except StepFailed as error:
            self.steps.fail(name, began, str(error))
            raise
        self.steps.note(name, began, "; ".join(said))

    async def _pause(self) -> None:
        self._meter.say("under load", "")
        await asyncio.sleep(self.tempo.pause_s)

    async def _measure(self, name: str, durability: str) -> None:
        """One window; `durability` is edited in flags.yaml first, and the daemon takes it up by itself."""
        phase = f"measure {name.partition('_')[0]}"
        with self._step(f"{phase}, durability {durability}", "the same load, measured") as said:
            self._place.set_durability(durability)
            await self._until(lambda sample: sample.durability() == durability, f"durability {durability}")
            figures = await self._meter.measure(self.tempo.window_s)
            if figures.loop_stall_p99_ms is None or figures.ping_p99_ms is None:
                raise StepFailed("the daemon gave no figures")
            self.figures[name] = figures
            said.append(f"{figures.rate_per_s:.0f}/s for {figures.seconds:.1f} s")

    async def _let_agents_work(self, name: str) -> None:
        """Each agent takes a turn of a stand-in for the claude command; the load goes on meanwhile."""
        agents, turn_s = self.tempo.agents, self.tempo.turn_s
        names = [f"{name}-{number}" for number in range(agents)]
        with self._step(f"agents {name}", f"{agents} agents, a turn of {turn_s:g} s each") as said:
            turns = take_turns(self._place.settings.socket_path, names, turn_s)
            seconds, figures = await self._meter.during(turns)
            self.answered += names
            self.agents[name] = seen(agents, turn_s, seconds, figures)
            said.append(f"{agents} turns of {turn_s:g} s in {seconds:.1f} s")

    async def _work_on_files(self, name: str) -> None:
        """A refresh of all conversations, sets of configuration and an agent's turn, all at once."""
        if not BUILT:
            return
        amount, socket = self.tempo.files, self._place.settings.socket_path
        words = f"{amount.sessions} conversations read, {amount.sets} keys set, an agent's turn"
        agent = f"{name}-files"
        with self._step(f"files {name}", words) as said:
            began = time.monotonic()
            turn = take_turns(socket, [agent], BESIDE_S)
            work = gathered(self.work.refresh(socket), self.work.set_many(socket), turn)
            _, figures = await self._meter.during(work)
            self.answered.append(agent)
            self.files[name] = self.work.done(time.monotonic() - began, figures)
            said.append(words)

    async def _while_files_change(self, names: tuple[str, ...], flip: Coroutine[Any, Any, None]) -> None:
        """A flip; keys are set in configuration files meanwhile where it concerns those."""
        if not (BUILT and CONFIG in names):
            await flip
            return
        over = asyncio.Event()
        setting = asyncio.create_task(self.work.set_until(self._place.settings.socket_path, over))
        try:
            await flip
        finally:
            over.set()
            await asyncio.gather(setting, return_exceptions=True)
        with self._step("sets during the flip", "each is in its file, or the count at the end tells") as said:
            said.append(f"{setting.result()} keys set meanwhile")

    async def _ask(self, name: str, note: str, *command: str) -> None:
        with self._step(f"{name}: {note}", f"ksi-migrate {' '.join(command)}") as said:
            said.extend(TOLD[name](await ksi_migrate(self._place.root, *command)))

    async def _flip(self, command: str, stage: str, names: tuple[str, ...], *options: str) -> None:
        """Change stages by a command, and see the daemon itself say that they are in force."""
        with self._step(f"{command} {', '.join(names)}", f"ksi-migrate {command} {' '.join(names)}") as said:
            document = await ksi_migrate(self._place.root, command, *names, *options)
            if not document["applied"]:
                raise StepFailed(f"{command} was recorded but is not in force: {document['components']}")
            await self._until(
                lambda sample: all(sample.stages().get(name) == stage for name in names),
                f"{names} at {stage}",
            )
            said.append(f"{stage} in force, generation {document['generation']}")
            said.extend(_cases(document.get("parity", ())))

    async def _until(self, holds: Callable[[Sample], bool], what: str) -> None:
        """Wait until a sample shows it; the daemon takes up a change within a second."""
        try:
            async with asyncio.timeout(SETTLE_S):
                while not holds(await self._meter.next_sample()):
                    pass
        except TimeoutError:
            raise StepFailed(f"the daemon does not say {what} within {SETTLE_S:g} s") from None


async def gathered(*work: Coroutine[Any, Any, Any]) -> None:
    """Wait for all; the first that fails ends the others, and it is what is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except* StepFailed as errors:
        raise errors.exceptions[0] from None


def _plan_told(document: dict[str, Any]) -> Iterator[str]:
    for phase in document["phases"]:
        yield f"week {phase['phase']} is {phase['state']}"
        yield from (f"{gate['name']}: {gate['why']}" for gate in phase["gates"] if not gate["open"])


def _parity_told(document: dict[str, Any]) -> Iterator[str]:
    return _cases(document["components"])


def _cases(components: Iterable[dict[str, Any]]) -> Iterator[str]:
    for component in components:
        yield f"{component['name']} {component['cases']} cases, {len(component['mismatches'])} mismatches"


TOLD = {"plan": _plan_told, "parity": _parity_told}
"""What a command that changes nothing has to say."""
