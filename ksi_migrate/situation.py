"""What is wanted, allowed and in force: from the daemon if it answers, else from the files alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksi_daemon import flags as flagfiles
from ksi_daemon import stages
from ksi_daemon.conductor import RETIRED
from ksi_daemon.flags import Flags, FlagsInvalid, Stage
from ksi_daemon.registry import AREAS
from ksi_daemon.stages import Ceiling, Ceilings, StagesInvalid, State
from ksi_migrate import ask

if TYPE_CHECKING:
    from ksi_daemon.settings import Settings
    from ksi_migrate.ask import Heard


@dataclass(frozen=True, slots=True)
class Part:
    """One component. `effective` is the stage in force, or without a daemon the one it would start with."""

    name: str
    title: str
    kind: str
    phase: int
    built: bool
    desired: Stage | None
    effective: Stage
    acknowledged: Stage | None
    ceiling: Stage | None
    reason: str
    since: str | None
    refused: str | None = None
    flipping: dict[str, Any] | None = None
    pending: str | None = None

    @property
    def wanted(self) -> Stage | None:
        """What is desired, or the ceiling where that is lower; None while flags.yaml is not usable."""
        if self.desired is None or self.ceiling is None:
            return self.desired
        return min(self.desired, self.ceiling)


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything at one moment. `current`: the daemon has read the files as they are now."""

    running: bool
    answers: bool
    pid: int | None
    why_silent: str
    generation: int | None
    flags_path: str
    flags_errors: tuple[str, ...]
    stage_errors: tuple[str, ...]
    settled: bool
    current: bool
    parts: tuple[Part, ...]

    def part(self, name: str) -> Part:
        """The component of that name."""
        return next(part for part in self.parts if part.name == name)


@dataclass(frozen=True, slots=True)
class Files:
    """The three files as they stand; an error takes the place of what cannot be used."""

    flags: Flags | FlagsInvalid
    ceilings: Ceilings | StagesInvalid
    state: State | StagesInvalid | None
    digest: str


def look(settings: Settings, timeout: float = ask.PATIENCE) -> Situation:
    """See what is, within about `timeout` seconds whatever the daemon does. Never raises for a file."""
    heard = ask.hear(settings, timeout)
    files = read_files(settings)
    return (
        from_files(settings, files, heard)
        if heard.status is None
        else from_daemon(files, heard, heard.status)
    )


def read_files(settings: Settings) -> Files:
    """Read flags, ceilings and the daemon's last acknowledgement; missing or damaged ones as their error."""
    flags_bytes, flags = _flags(settings)
    ceilings_bytes, ceilings = _ceilings(settings)
    try:
        state: State | StagesInvalid | None = stages.load_state(settings.migrate_dir)
    except StagesInvalid as error:
        state = error
    return Files(flags, ceilings, state, stages.digest(flags_bytes, ceilings_bytes))


def _flags(settings: Settings) -> tuple[bytes, Flags | FlagsInvalid]:
    data = b""
    try:
        data = flagfiles.read(settings.flags_path)
        return data, flagfiles.parse(data, path=settings.flags_path)
    except FlagsInvalid as error:
        return data, error


def _ceilings(settings: Settings) -> tuple[bytes, Ceilings | StagesInvalid]:
    path, data = settings.migrate_dir / stages.CEILINGS, None
    try:
        data = stages.bytes_of(path)
        return data or b"", stages.parse_ceilings(data, path)
    except StagesInvalid as error:
        return data or b"", error


def from_daemon(files: Files, heard: Heard, status: dict[str, Any]) -> Situation:
    """The daemon's own account; only whether it is up to date is judged here."""
    return Situation(
        running=True,
        answers=True,
        pid=heard.pid,
        why_silent="",
        generation=status["generation"],
        flags_path=status["flags"]["path"],
        flags_errors=tuple(status["flags"]["errors"]),
        stage_errors=tuple(status["ceilings"]["errors"]),
        settled=status["settled"],
        current=status["digest"] == files.digest,
        parts=tuple(_told(row) for row in status["components"]),
    )


def _told(row: dict[str, Any]) -> Part:
    keys = ("name", "title", "kind", "phase", "built", "reason", "since", "refused", "flipping")
    stage: dict[str, Any] = {
        key: Stage(row[key]) if row[key] else None for key in ("desired", "acknowledged", "ceiling")
    }
    plain = {**{key: row[key] for key in keys}, "pending": row.get("pending")}
    return Part(**plain, **stage, effective=Stage(row["effective"]))


def from_files(settings: Settings, files: Files, heard: Heard) -> Situation:
    """What the next start will make of the files, or, of a daemon that does not answer, its last word."""
    state = files.state if isinstance(files.state, State) else None
    return Situation(
        running=heard.running,
        answers=False,
        pid=heard.pid,
        why_silent=heard.why if heard.running else "",
        generation=state.generation if state else None,
        flags_path=str(settings.flags_path),
        flags_errors=(str(files.flags),) if isinstance(files.flags, FlagsInvalid) else (),
        stage_errors=tuple(
            str(one) for one in (files.ceilings, files.state) if isinstance(one, StagesInvalid)
        ),
        settled=not heard.running,
        current=not heard.running,
        parts=tuple(_expected(area, files, state, silent=heard.running) for area in AREAS),
    )


def _expected(area: Any, files: Files, state: State | None, *, silent: bool) -> Part:
    known = state.components.get(area.name) if state else None
    caps = files.ceilings.components if isinstance(files.ceilings, Ceilings) else {}
    cap = caps.get(area.name)
    acknowledged = known.stage if known else None
    desired = files.flags.components[area.name] if isinstance(files.flags, Flags) else None
    stage, reason = acknowledged or Stage.SYNC, "last acknowledged: the daemon does not answer"
    if not silent:
        stage, reason = _at_start(area, files, desired, acknowledged, cap)
    return Part(
        name=area.name,
        title=area.title,
        kind=area.kind,
        phase=area.week,
        built=area.built,
        desired=desired,
        effective=stage,
        acknowledged=acknowledged,
        ceiling=cap.stage if cap else None,
        reason=reason,
        since=known.since if known and stage == acknowledged else None,
    )


def _at_start(
    area: Any, files: Files, desired: Stage | None, acknowledged: Stage | None, cap: Ceiling | None
) -> tuple[Stage, str]:
    """The stage at which a daemon would start, and why, by its own rules (docs/design.md, flags.yaml)."""
    if not area.built:
        return Stage.SYNC, "not built yet"
    if area.retired:
        return Stage.ASYNC, RETIRED
    stage, reason = desired or acknowledged or Stage.SYNC, "flags.yaml"
    if desired is None:
        reason = "last acknowledged: flags.yaml is refused" if acknowledged else "flags.yaml is refused"
    if cap is not None and cap.stage < stage:
        stage, reason = cap.stage, f"ceiling by {cap.who}: {cap.reason}"
    if isinstance(files.ceilings, StagesInvalid):
        stage = min(stage, acknowledged or Stage.SYNC)
    return stage, reason
