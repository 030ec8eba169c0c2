"""The gates before an upward step, each open or closed with its reason; `plan` shows them, `enable` obeys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksi_daemon.flags import Stage
from ksi_migrate.refusals import EarlierPhaseOpen, FlagsUnusable, NotBuilt, OtherFlags, ParityFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ksi_daemon.settings import Settings
    from ksi_migrate.evidence import Evidence
    from ksi_migrate.exits import Refused
    from ksi_migrate.situation import Part, Situation


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition: `why` says what was found, `hint` what opens it, `refusal` what a closed one ends in."""

    name: str
    open: bool
    why: str
    refusal: type[Refused]
    hint: str

    def document(self) -> dict[str, Any]:
        """As it stands in a `--json` document."""
        return {"name": self.name, "open": self.open, "why": self.why}


def built(parts: Sequence[Part]) -> Gate:
    """Both sides exist. No `--force` opens it: there is nothing to change to."""
    missing = [f"{part.name} (week {part.phase})" for part in parts if not part.built]
    why = f"not built yet: {', '.join(missing)}" if missing else "both sides exist"
    return Gate("built", not missing, why, NotBuilt, "it comes with that week's release")


def files(seen: Situation) -> Gate:
    """flags.yaml and the ceilings can be read. No `--force` opens it: there is nothing to edit."""
    errors = (*seen.flags_errors, *seen.stage_errors)
    why = "; ".join(errors) or "flags.yaml is valid"
    hint = "mend it; ksi-migrate flags validate checks it, and a rollback mends ceilings"
    return Gate("flags", not errors, why, FlagsUnusable, hint)


def same_file(settings: Settings, seen: Situation) -> Gate:
    """A running daemon reads the file that would be edited."""
    same = seen.flags_path == str(settings.flags_path)
    if not seen.running:
        why = "no daemon runs that could read another"
    else:
        why = "the daemon reads this file" if same else f"the daemon reads {seen.flags_path}"
    return Gate("same file", same, why, OtherFlags, "set KSI_FLAGS_PATH as the daemon has it")


def earlier(parts: Sequence[Part], phase: int) -> Gate:
    """Every built component of the phases before `phase` is at async."""
    before = [part for part in parts if part.built and part.phase < phase]
    behind = [part.name for part in before if part.effective != Stage.ASYNC]
    why = f"not at async yet: {', '.join(behind)}" if behind else "every earlier phase is done"
    return Gate("earlier phases", not behind, why, EarlierPhaseOpen, "enable those first, or use --force")


def parity(names: Sequence[str], found: Mapping[str, Evidence | None]) -> Gate:
    """Both sides were found to do the same, for each of the components."""
    differ = [name for name in names if (one := found.get(name)) is not None and not one.ok]
    unknown = [name for name in names if found.get(name) is None]
    if differ:
        why = f"the sides differ: {', '.join(differ)}"
    elif unknown:
        why = f"not run yet: {', '.join(unknown)}; enable runs it"
    else:
        why = _passed([one for name in names if (one := found[name])])
    return Gate(
        "parity", not differ and not unknown, why, ParityFailed, "ksi-migrate parity shows the mismatches"
    )


def _passed(found: Sequence[Evidence]) -> str:
    if not found:
        return "nothing to compare yet"
    return f"passed {sum(one.cases for one in found)} cases, last at {max(one.at for one in found)}"
