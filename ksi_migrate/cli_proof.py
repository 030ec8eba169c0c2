"""The commands that show what is proven, and change nothing: roadmap, report, retire."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ksi_daemon import settings
from ksi_migrate import choose, ending, retire, roadmap, success
from ksi_migrate.cli_options import Json, Markdown, Names, Root, end_with


def declare(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command("roadmap")(show_roadmap)
    app.command("report")(report_success)
    app.command("retire")(list_leftovers)


def show_roadmap(
    start: Annotated[
        str | None, typer.Option(metavar="DATE", help="First day of week 1: 2025-07-14.")
    ] = None,
    markdown: Markdown = False,
    root: Root = None,
    json: Json = False,
) -> None:
    """Show the analysis's four weeks as a checklist, each box ticked only by evidence that this root holds.

    Stages that the daemon acknowledged, the journal, parity runs and figures of bench are evidence; what none
    of them can prove is shown as such and never ticked.
    """
    end_with("roadmap", lambda: roadmap.run(settings.load(root).migrate_dir, start=start), json, markdown)


def report_success(
    junit: Annotated[
        Path | None, typer.Option(help="A JUnit file of the tests, run on this machine.")
    ] = None,
    coverage: Annotated[Path | None, typer.Option(help="coverage json or xml of the same run.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    markdown: Markdown = False,
    root: Root = None,
    json: Json = False,
) -> None:
    """Hold what the analysis promised against what was measured on this machine: pass, fail, not measured.

    Exit 1 when something was measured and does not hold, 5 when nothing was measured.
    """

    def work() -> ending.Report:
        place = settings.load(root).migrate_dir
        return success.run(place, junit=junit, coverage=coverage, html=html)

    end_with("report", work, json, markdown)


def list_leftovers(
    names: Names = None,
    hold: Annotated[
        int | None, typer.Option(min=0, metavar="DAYS", help="Default: KSI_RETIRE_HOLD_DAYS, 14.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 when a component is overdue; for CI.")
    ] = False,
    evidence_dir: Annotated[
        Path | None, typer.Option("--evidence", help="A directory with an exported journal.jsonl.")
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """List what can be deleted of components that have been at async for long without a rollback.

    Deletes nothing. Exit 5 without a journal.
    """

    def work() -> ending.Report:
        place = settings.load(root)
        days = place.retire_hold_days if hold is None else hold
        chosen = choose.some(names or [])
        return retire.run(chosen, evidence_dir or place.migrate_dir, hold_days=days, check=check)

    end_with("retire", work, json)
