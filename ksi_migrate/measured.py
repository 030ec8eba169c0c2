"""What bench measured, kept: `var/migrate/evidence/bench-<component>-<time>.json`, the last few of each.

What went through the socket is kept as if it were a component of that name.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError

from ksi_daemon.conductor import utc_now
from ksi_daemon.flags import LIMIT, FlagsInvalid, read
from ksi_daemon.linefile import private_directory
from ksi_daemon.replace import replace_file
from ksi_migrate.bench_report import FEWEST_ROUNDS, Report, few_pings, few_rounds
from ksi_migrate.exits import told
from ksi_migrate.origin import Origin, here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOCKET: Final = "socket"
VERSION: Final = 1
KEPT: Final = 5
"""Runs of each component; an older one still counts for a case that the newer ones did not measure."""


@dataclass(frozen=True, slots=True)
class Run:
    """The cases of one component that one run measured, as the `bench` document has them; `at` is UTC."""

    component: str
    at: str
    rounds: int
    origin: Origin
    cases: tuple[dict[str, Any], ...]
    version: int = VERSION


_SHAPE = TypeAdapter(Run)


def keep(migrate_dir: Path, found: Report, rounds: int) -> tuple[str, ...]:
    """Keep the cases with enough rounds, in a root that has been migrated; what is not kept is told."""
    if not migrate_dir.is_dir():
        return (f"figures not kept as evidence: there is no {migrate_dir}, no daemon has run here",)
    if rounds < FEWEST_ROUNDS:
        return ()  # the document has its doubts already
    try:
        return tuple(why for run in runs_of(found, rounds) if (why := _store(migrate_dir / "evidence", run)))
    except OSError as error:
        return (f"figures not kept as evidence: {told(error)}",)


def runs_of(found: Report, rounds: int) -> Iterator[Run]:
    """One for each component of which any case can be judged by, and one for the socket.

    The socket's stages are kept together or not at all, since they are compared.
    """
    at, origin = utc_now(), here()
    for component in found.components:
        cases = tuple(case.document() for case in component.cases if not any(few_rounds(case)))
        if cases:
            yield Run(component.name, at, rounds, origin, cases)
    if found.socket and not any(why for case in found.socket for why in few_pings(case)):
        yield Run(SOCKET, at, rounds, origin, tuple(case.document() for case in found.socket))


def load(migrate_dir: Path) -> tuple[Run, ...]:
    """All that is kept, newest first; what cannot be read as such is passed over."""
    names = sorted((migrate_dir / "evidence").glob("bench-*.json"), key=_time, reverse=True)
    return tuple(run for path in names if (run := _read(path)) is not None)


def _store(folder: Path, run: Run) -> str:
    """Put it beside the others and let go of the oldest; why not, or nothing."""
    data = orjson.dumps(asdict(run), option=orjson.OPT_APPEND_NEWLINE)
    if len(data) > LIMIT:
        return f"figures of {run.component} not kept as evidence: {len(data):,} bytes are too many"
    private_directory(folder)
    replace_file(folder / f"bench-{run.component}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.json", data)
    for old in sorted(folder.glob(f"bench-{run.component}-[0-9]*.json"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return ""


def _read(path: Path) -> Run | None:
    try:
        found = _SHAPE.validate_json(read(path), strict=True)
    except (FlagsInvalid, ValidationError):
        return None
    return found if found.version == VERSION else None


def _time(path: Path) -> str:
    return path.stem.rpartition("-")[2]
