"""The command line of `ksi-migrate`: every command and option. Only `cli*.py` know Typer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ksi_daemon import settings
from ksi_daemon.flags import Stage
from ksi_migrate import (
    checks,
    choose,
    cli_proof,
    doctor,
    enable,
    ending,
    evidence,
    flags,
    journal,
    log,
    plan,
    render,
    rollback,
    status,
)
from ksi_migrate.cli_options import Json, Names, Phase, Root, end_with
from ksi_migrate.exits import Exit
from ksi_migrate.step import Means, Order

INTERRUPTED = 130
DEFAULT_SEED = 20250712
"""What parity leaves to chance is the same in every run, unless another seed is asked for."""

app = typer.Typer(
    name="ksi-migrate",
    help="Move a running KSI daemon from blocking to asynchronous I/O, one component at a time, and back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
flags_app = typer.Typer(
    help="Check flags.yaml, for CI, or print its schema, for editors.", no_args_is_help=True
)
app.add_typer(flags_app, name="flags")
cli_proof.declare(app)


@app.command("status")
def show_status(root: Root = None, json: Json = False) -> None:
    """Show each component's stage: desired, in force, acknowledged, and why.

    Works from the files alone when no daemon runs. Exit 0 when all agree, 1 when not, 3 when a daemon runs
    and does not answer.
    """
    end_with("status", lambda: status.run(settings.load(root)), json)


@app.command("plan")
def show_plan(phase: Phase = None, root: Root = None, json: Json = False) -> None:
    """Lay out the four-week roadmap, with each gate open or closed and why."""
    end_with("plan", lambda: plan.run(settings.load(root), phase), json)


@app.command("enable")
def enable_components(  # noqa: PLR0917 - Typer passes options by name
    names: Names = None,
    phase: Phase = None,
    to: Annotated[
        Stage, typer.Option(help="Go to this stage; shadow and canary are not built yet.")
    ] = Stage.ASYNC,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Pass the gates, change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Pass over parity and earlier phases.")] = False,
    reason: Annotated[str, typer.Option(help="Why; goes into the journal, and --force needs it.")] = "",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for the daemon.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    root: Root = None,
    json: Json = False,
) -> None:
    """Move components up: through the gates, into flags.yaml, until the daemon has them in force.

    Asks first on a terminal, unless --yes; off a terminal it goes ahead, for scripts. Without a daemon it
    edits flags.yaml and says so. What the daemon refuses is put back. Twice is harmless.
    """

    def work() -> ending.Report:
        order = Order(to, dry_run, force, journal.clean(reason), not no_wait)
        chosen = choose.components(names or [], phase)
        with render.Spinner() as spinner:
            means = Means(
                parity=lambda some: _parity(some, spinner),
                confirm=lambda question: yes or _agreed(question, spinner),
                progress=spinner,
            )
            return enable.run(settings.load(root), chosen, order, means)

    end_with("enable", work, json)


def _agreed(question: str, spinner: render.Spinner) -> bool:
    """The operator's answer; off a terminal there is nobody to ask, and the command itself is the answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    spinner.pause()
    return typer.confirm(question, err=True)


def _parity(
    names: Sequence[str],
    spinner: render.Spinner,
    *,
    data: Path | None = None,
    seed: int = DEFAULT_SEED,
    junit: Path | None = None,
    prove: bool = False,
) -> ending.Report:
    from ksi_migrate import parity  # noqa: PLC0415 - the other commands start without it

    return parity.run(names, data=data, seed=seed, junit=junit, progress=spinner, prove=prove)


@app.command("rollback")
def roll_back(
    names: Names = None,
    phase: Phase = None,
    everything: Annotated[bool, typer.Option("--all", help="Every component.")] = False,
    reason: Annotated[str, typer.Option(help="Why; goes into the journal.")] = "",
    root: Root = None,
    json: Json = False,
) -> None:
    """Send components back to sync, last one first. Always accepted; never asks.

    Works with the daemon down or wedged and with flags.yaml broken: then a ceiling is set. Exit 0 when it is
    in force, or recorded while no daemon runs; 3 when it is recorded and not yet in force; 1 when it could
    not be recorded.
    """

    def work() -> ending.Report:
        chosen = choose.components(names or [], phase, everything=everything)
        with render.Spinner() as spinner:
            place = settings.load(root)
            return rollback.run(place, chosen, reason=journal.clean(reason), progress=spinner)

    end_with("rollback", work, json)


@app.command("parity")
def run_parity(  # noqa: PLR0917 - Typer passes options by name
    names: Names = None,
    data: Annotated[Path | None, typer.Option(help="A var/ directory; a copy of it is used.")] = None,
    seed: Annotated[int, typer.Option(help="Where chance starts.")] = DEFAULT_SEED,
    junit: Annotated[Path | None, typer.Option(help="Write the cases to this file, for CI.")] = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Plant faults too, and show what caught each.")
    ] = False,
    root: Root = None,
    json: Json = False,
) -> None:
    """Run both sides of each component over the same steps, in scratch directories, and compare all of it.

    In a root that has been migrated already (it has var/migrate), the verdict is kept for status and plan.
    """

    def work() -> ending.Report:
        chosen = choose.some(names or [])
        with render.Spinner() as spinner:
            report = _parity(chosen, spinner, data=data, seed=seed, junit=junit, prove=prove)
        evidence.keep(settings.load(root).migrate_dir, report.document()["components"], seed)
        return report

    end_with("parity", work, json)


@app.command("bench")
def run_bench(  # noqa: PLR0917 - Typer passes options by name
    names: Names = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each runs all columns in turn.")] = 7,
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    socket: Annotated[
        bool, typer.Option("--socket", help="Through a daemon's socket, with its clients.")
    ] = False,
    stall: Annotated[bool, typer.Option("--stall", help="On a disk that stalls now and then.")] = False,
    root: Root = None,
    json: Json = False,
) -> None:
    """Measure both sides, interleaved in one run: throughput, latency, loop stall, CPU and memory.

    In a root that has been migrated already (it has var/migrate), figures of three rounds and more are kept
    for roadmap and report.
    """

    def work() -> ending.Report:
        from ksi_migrate import bench  # noqa: PLC0415 - the other commands start without it

        chosen, place = choose.some(names or []), settings.load(root)
        with render.Spinner() as spinner:
            return bench.run(
                chosen,
                root=place.root,
                rounds=rounds,
                socket=socket,
                stall=stall,
                report=report,
                evidence=place.migrate_dir,
                progress=spinner,
            )

    end_with("bench", work, json)


@app.command("log")
def show_log(
    limit: Annotated[int, typer.Option(min=0, help="The last so many entries; 0 shows all.")] = 20,
    component: Annotated[
        str | None, typer.Option(help="Only this component.", autocompletion=choose.completions)
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Show the journal: who changed what, when and why, and what the daemon made of it."""

    def work() -> ending.Report:
        only = None if component is None else choose.known(component)
        return log.run(settings.load(root), limit=limit, component=only)

    end_with("log", work, json)


@app.command("doctor")
def examine(root: Root = None, json: Json = False) -> None:
    """Show what this machine and this root lack, and how to mend it. Exit 1 when an error is among it."""
    end_with("doctor", lambda: doctor.run(settings.load(root), checks.LOOKS), json)


@flags_app.command("validate")
def validate_flags(
    file: Annotated[Path | None, typer.Argument(help="Default: the root's flags.yaml.")] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Check a flags file as the daemon does. Exit 1 with file, line and reason when it is invalid."""
    end_with("flags validate", lambda: flags.validate(file or settings.load(root).flags_path), json)


@flags_app.command("schema")
def print_schema(json: Json = False) -> None:
    """Print the JSON schema of flags.yaml."""
    end_with("flags schema", flags.schema, json)


@app.command("demo")
def run_demo(
    fast: Annotated[bool, typer.Option("--fast", help="The short one, for CI.")] = False, json: Json = False
) -> None:
    """Run a whole migration, live, on a scratch directory, with a load on it, and count what came through."""

    def work() -> ending.Report:
        from ksi_migrate import demo  # noqa: PLC0415 - the other commands start without it

        with render.Live() as live:
            return demo.run(fast=fast, show=live.show)

    end_with("demo", work, json)


UsageError = typer.BadParameter.__mro__[1]
"""The parser's own error, which Typer gives no public name."""


def main() -> None:
    """Run `ksi-migrate`. An unexpected exception is one line and exit 70; Ctrl-C is exit 130."""
    command, as_json = ending.asked(sys.argv[1:])
    try:
        code = app(prog_name="ksi-migrate", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if isinstance(error, UsageError):
            code = _wrong_usage(command, error, as_json=as_json)
        elif os.environ.get("KSI_TRACEBACK"):
            raise
        else:
            code = ending.fault(command, error, as_json=as_json)
    sys.exit(code)


def _wrong_usage(command: str, error: Any, *, as_json: bool) -> int:
    if as_json:
        return ending.wrong_usage(command, error.format_message())
    error.show()
    return Exit.USAGE
