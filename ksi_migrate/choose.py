"""Which components a command is about: names, a phase, or all; a wrong name gets a suggestion."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ksi_daemon.registry import AREAS
from ksi_migrate.exits import CommandError, Exit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class WrongUsage(CommandError):
    """The command line itself is wrong; nothing was looked at and nothing was changed."""

    code = "usage"
    exit = Exit.USAGE


NAMES = tuple(area.name for area in AREAS)
PHASES = tuple(sorted({area.week for area in AREAS}))


def components(
    names: Sequence[str], phase: int | None = None, *, everything: bool = False
) -> tuple[str, ...]:
    """The chosen components in roadmap order, each once. Raises `WrongUsage` unless chosen in one way."""
    if bool(names) + (phase is not None) + everything != 1:
        raise WrongUsage("say which components, in one way", "names, or --phase N, or for a rollback --all")
    if everything:
        return NAMES
    return of_phase(phase) if phase is not None else some(names)


def some(names: Iterable[str]) -> tuple[str, ...]:
    """The named components in roadmap order, each once; none when none is named. Raises `WrongUsage`."""
    wanted = [known(name) for name in names]
    return tuple(name for name in NAMES if name in wanted)


def of_phase(phase: int) -> tuple[str, ...]:
    """The components of one week of the roadmap. Raises `WrongUsage` for a week that it does not have."""
    if phase not in PHASES:
        weeks = ", ".join(map(str, PHASES))
        raise WrongUsage(f"there is no phase {phase}", f"the roadmap has the phases {weeks}")
    return tuple(area.name for area in AREAS if area.week == phase)


def known(name: str) -> str:
    """The name itself when a component has it. Raises `WrongUsage` with the nearest that exists."""
    if name in NAMES:
        return name
    near = difflib.get_close_matches(name.lower().replace("-", "_"), NAMES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"components: {', '.join(NAMES)}"
    raise WrongUsage(f"there is no component {name!r}", hint)


def completions(incomplete: str) -> list[tuple[str, str]]:
    """Names that begin so, with their titles, for the shell."""
    return [(area.name, area.title) for area in AREAS if area.name.startswith(incomplete)]
