"""`ksi-migrate enable`: through the gates, into flags.yaml, and on until the daemon has it in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ksi_daemon.flags import FlagsInvalid, Stage
from ksi_daemon.stages import StagesInvalid
from ksi_migrate import acknowledge, ask, evidence, flagfile, gates, journal, situation
from ksi_migrate.choose import WrongUsage
from ksi_migrate.exits import CommandError, Exit, Inconclusive, NotAcknowledged, told
from ksi_migrate.refusals import Declined, FlagsUnusable, FlipRefused, NotWritable, Overtaken, Reserved
from ksi_migrate.step import Step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ksi_daemon.settings import Settings
    from ksi_migrate.acknowledge import Outcome
    from ksi_migrate.changes import ChangeReport
    from ksi_migrate.progress import Progress
    from ksi_migrate.step import Means, Order


def run(settings: Settings, names: Sequence[str], order: Order, means: Means) -> ChangeReport:
    """Bring the components up to `order.to`. Twice is harmless: what is there already is left alone.

    Raises `WrongUsage`, `LockHeld`, `Inconclusive` and `Refused` before anything is changed; a closed gate, a
    refusal by the daemon (which is put back) and a missing acknowledgement are in the report.
    """
    _check(order)
    step = Step(situation.look(settings), tuple(names), order)
    if done := _nothing_to_do(step):
        return done
    if refused := _gates(settings, step, means):
        return refused
    if order.dry_run:
        return step.nothing_applied("would change")
    if not means.confirm(_question(step)):
        return step.nothing_applied("declined", Declined("declined: nothing was changed"))
    return _change(settings, step, means.progress)


def _check(order: Order) -> None:
    if order.force and not order.reason.strip():
        raise WrongUsage("--force needs a reason", "add --reason TEXT; it goes into the journal")
    if order.to == Stage.SYNC:
        raise WrongUsage("enable does not go down to sync", "use ksi-migrate rollback")
    if order.to != Stage.ASYNC:
        raise Reserved(f"the stage {order.to} is reserved but not built yet", "use --to async")


def _nothing_to_do(step: Step) -> ChangeReport | None:
    """A report when every component is where it should be; without a daemon, when it will be at its start."""
    to = step.order.to
    if step.seen.flags_errors or any(part.wanted != to or part.effective != to for part in step.parts()):
        return None
    in_force = step.seen.answers
    reason = f"nothing to do: at {to}" if in_force else f"nothing to do: {to} at the daemon's next start"
    return step.report(dict.fromkeys(step.names, (in_force, reason)), step.seen.generation)


def _gates(settings: Settings, step: Step, means: Means) -> ChangeReport | None:
    """Pass every gate, or report the first closed one. `--force` goes past the last two."""
    parts, seen = step.parts(), step.seen
    step.gates += [gates.built(parts), gates.files(seen), gates.same_file(settings, seen)]
    if step.order.force:
        step.notes.append(f"gates passed over by force: {step.order.reason}")
        return step.closed()
    step.gates.append(gates.earlier(seen.parts, max(part.phase for part in parts)))
    if refused := step.closed():
        return refused
    _run_parity(settings, step, means)
    return step.closed()


def _run_parity(settings: Settings, step: Step, means: Means) -> None:
    """Run parity, now, for the components; keep what it found, unless this is a dry run."""
    report = means.parity(step.names)
    document = report.document()
    step.parity = tuple(document["components"])
    found = evidence.from_parity(step.parity, document.get("seed"))
    step.found = {one.component: one for one in found}
    if report.exit_code == Exit.INCONCLUSIVE or not set(step.names) <= set(step.found):
        reasons = "; ".join(why for row in step.parity for why in row.get("inconclusive", ())) or "no cases"
        raise Inconclusive(
            f"parity gave no verdict, nothing was changed: {reasons}", "mend that and try again"
        )
    if not step.order.dry_run:
        step.notes += evidence.store_or_say(settings.migrate_dir, found)
    step.gates.append(gates.parity(step.names, step.found))


def _question(step: Step) -> str:
    rows = [f"{part.name}: {part.effective} → {step.order.to}" for part in step.parts()]
    return f"change {', '.join(rows)}?"


def _change(settings: Settings, step: Step, progress: Progress) -> ChangeReport:
    _write(settings, step)
    step.notes += journal.append_or_say(settings.migrate_dir, _entries(step))
    if not step.seen.running:
        return step.nothing_applied("in flags.yaml; no daemon runs, the next start takes it up")
    if not step.order.wait:
        ask.nudge(settings)
        return step.nothing_applied("in flags.yaml; not waited for")
    outcome = acknowledge.wait(settings, step.names, step.order.to, step.order.deadline, progress)
    return _ended(settings, step, outcome)


def _write(settings: Settings, step: Step) -> None:
    """Edit flags.yaml and lift the ceilings; nothing is lifted when the edit is refused."""
    try:
        flagfile.edit(settings.flags_path, settings.migrate_dir, dict.fromkeys(step.names, step.order.to))
        flagfile.clear_ceiling(settings.migrate_dir, step.names)
    except (FlagsInvalid, StagesInvalid) as error:
        raise FlagsUnusable(str(error), "ksi-migrate flags validate checks it") from error
    except OSError as error:
        text = f"cannot write flags.yaml or the ceilings: {told(error)}"
        raise NotWritable(text, "ksi-migrate doctor checks the permissions") from error
    for part in step.parts():
        if part.ceiling is not None:
            step.notes.append(f"the ceiling {part.ceiling} of {part.name} was lifted")


def _entries(step: Step) -> list[dict[str, Any]]:
    why = step.order.reason or "gates passed"
    return [
        journal.entry(
            "enable",
            part.name,
            part.wanted,
            step.order.to,
            why,
            generation=step.seen.generation,
            forced=step.order.force,
            parity=step.found[part.name].document() if part.name in step.found else None,
        )
        for part in step.parts()
    ]


def _ended(settings: Settings, step: Step, outcome: Outcome) -> ChangeReport:
    """Tell how it ended; whatever the daemon refused is put back."""
    if outcome.refused:
        _put_back(settings, step, outcome.refused)
    how = {name: _how(name, step, outcome) for name in step.names}
    return step.report(how, outcome.situation.generation, _error(step, outcome))


def _error(step: Step, outcome: Outcome) -> CommandError | None:
    if outcome.refused:
        text = f"the daemon refused: {'; '.join(outcome.refused.values())}"
        return FlipRefused(text, "mend the cause and enable it again")
    if outcome.overtaken:
        return Overtaken("; ".join(outcome.overtaken.values()), "ksi-migrate log shows who, and why")
    if outcome.waiting and outcome.situation.running:
        text = f"not acknowledged within {step.order.deadline:g} s: {'; '.join(outcome.waiting.values())}"
        return NotAcknowledged(text, "flags.yaml is changed; ksi-migrate status shows when it is in force")
    return None


def _how(name: str, step: Step, outcome: Outcome) -> tuple[bool, str]:
    if name in outcome.refused:
        return False, f"refused: {outcome.refused[name]}"
    if why := outcome.waiting.get(name) or outcome.overtaken.get(name):
        return False, why
    return True, f"{step.order.to} is in force"


def _put_back(settings: Settings, step: Step, refused: Mapping[str, str]) -> None:
    """Set each refused component to what is in force, so that desired and effective agree."""
    back = {name: step.part(name).effective for name in refused}
    try:
        flagfile.edit(settings.flags_path, settings.migrate_dir, back)
    except (FlagsInvalid, flagfile.LockHeld, OSError) as error:
        step.notes.append(f"flags.yaml still says {step.order.to} for {', '.join(back)}: {told(error)}")
        return
    step.notes += [f"flags.yaml says {stage} for {name} again" for name, stage in back.items()]
    rows = [
        journal.entry("put back", name, step.order.to, stage, refused[name], generation=step.seen.generation)
        for name, stage in back.items()
    ]
    step.notes += journal.append_or_say(settings.migrate_dir, rows)
