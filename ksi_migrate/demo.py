"""`ksi-migrate demo`: a whole migration of a real daemon under load, and a count of what came through."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from ksi_daemon import registry
from ksi_migrate import demo_agents
from ksi_migrate.demo_count import Count, Counted, count_log
from ksi_migrate.demo_files import BUILT
from ksi_migrate.demo_load import KINDS, Load
from ksi_migrate.demo_meter import Meter
from ksi_migrate.demo_scratch import DaemonFailed, daemon, scratch
from ksi_migrate.demo_script import FAST, FULL, Script, Steps
from ksi_migrate.exits import Exit, document
from ksi_migrate.refusals import Retired

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping

    from ksi_migrate.demo_agents import Agents
    from ksi_migrate.demo_files import FileWork
    from ksi_migrate.demo_frame import Figures, Frame
    from ksi_migrate.demo_load import Ledger
    from ksi_migrate.demo_scratch import Scratch
    from ksi_migrate.demo_script import Step

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""End the demo as Ctrl-C does: with nothing left behind."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was done, what the same load met before and after, and what stands on the disk.

    `figures` by window: before and after, each with `durability: os`, and the same with `fsync`; `agents`:
    before and after; `files` too. `kept` is the scratch directory, left for a look when there are problems.
    """

    steps: tuple[Step, ...]
    figures: Mapping[str, Figures]
    agents: Mapping[str, Agents]
    files: Mapping[str, FileWork]
    counted: tuple[Counted, ...]
    problems: tuple[str, ...]
    kept: str | None

    @property
    def exit_code(self) -> Exit:
        """A finding when anything is off."""
        return Exit.FINDING if self.problems else Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` body; shapes in docs/commands.md."""
        measured = {name: figures.document() for name, figures in self.figures.items()}
        total = reduce(add, (one.count for one in self.counted), Count())
        files = [
            {"component": one.component, "path": str(one.path), **asdict(one.count)} for one in self.counted
        ]
        return document(
            "demo",
            ok=not self.problems,
            steps=[asdict(step) for step in self.steps],
            before=measured.get("before"),
            after=measured.get("after"),
            fsync={"before": measured.get("before_fsync"), "after": measured.get("after_fsync")},
            agents=_both(self.agents),
            files=_both(self.files),
            counted={**asdict(total), "files": files},
            problems=list(self.problems),
            kept=self.kept,
        )


def _both(found: Mapping[str, Agents] | Mapping[str, FileWork]) -> dict[str, Any]:
    """Before and after; None where the demo did not come."""
    return {when: found[when].document() if when in found else None for when in ("before", "after")}


def run(*, fast: bool, show: Callable[[Frame], None]) -> Report:
    """Migrate a daemon of our own in a scratch directory, some four minutes long, `fast` a quarter of that.

    Ctrl-C and SIGTERM stop the daemon, remove the directory and raise `KeyboardInterrupt`. Raises `Refused`
    where the temporary directory is of no use, and `Retired` when a component cannot be shown going up.
    """
    if one_sided := [area.name for area in registry.BUILT if area.retired]:
        raise Retired(
            f"the demo is a whole migration, and {', '.join(one_sided)} is retired",
            "an earlier release shows it",
        )
    steps = Steps()
    with _ended_by_signals(), scratch() as place:
        script = Script(place, steps, FAST if fast else FULL)
        ledgers = (*_with_daemon(place, script, show), *demo_agents.ledgers(script.answered))
        counted = (*_count(place, ledgers, steps), *_count_files(script))
        problems = (*steps.problems, *(problem for one in counted for problem in one.problems))
        place.keep = bool(problems)
        kept = str(place.root) if place.keep else None
        agents, files = dict(script.agents), dict(script.files)
        return Report(tuple(steps.done), dict(script.figures), agents, files, counted, problems, kept)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Make the other ways of ending a command like Ctrl-C."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_daemon(place: Scratch, script: Script, show: Callable[[Frame], None]) -> tuple[Ledger, ...]:
    """Start a daemon, play the script on it, stop it; the clients' accounts, none if it did not start."""
    began = time.monotonic()
    if BUILT:
        script.work.lay()
    try:
        with daemon(place) as process:
            script.steps.note("start", began, f"daemon {process.pid} in {place.root}")
            return asyncio.run(_under_load(place, script, show, process))
    except DaemonFailed as error:
        script.steps.fail("start", began, str(error))
        return ()


async def _under_load(
    place: Scratch, script: Script, show: Callable[[Frame], None], process: subprocess.Popen[bytes]
) -> tuple[Ledger, ...]:
    """Play the script while the load goes on, then end the load and stop the daemon."""
    load = Load(place.settings.socket_path)
    meter = Meter(place.settings.socket_path, load, show, script.tempo.sample_s)
    async with asyncio.TaskGroup() as group:
        loading = group.create_task(load.run())
        measuring = group.create_task(meter.run())
        await script.play(meter)
        meter.say("end", "the load ends, every request gets its reply")
        load.stop()
        await loading
        measuring.cancel()
        await script.stop(process)
    return load.ledgers()


def _count(place: Scratch, ledgers: tuple[Ledger, ...], steps: Steps) -> Iterator[Counted]:
    """Each kind's log, read whole once the daemon is gone."""
    for kind in KINDS:
        began = time.monotonic()
        counted = count_log(kind.component, kind.path(place.settings), ledgers, kind.identity)
        _note(counted, steps, began)
        yield counted


def _count_files(script: Script) -> Iterator[Counted]:
    """The configuration files, where there are any."""
    if BUILT:
        began = time.monotonic()
        counted = script.work.count()
        _note(counted, script.steps, began)
        yield counted


def _note(counted: Counted, steps: Steps, began: float) -> None:
    count, problems = counted.count, counted.problems
    told = f"{count.acknowledged} acknowledged, {count.on_disk} on disk, {len(problems)} problems"
    steps.note(f"count {counted.component}", began, told, ok=not problems)
