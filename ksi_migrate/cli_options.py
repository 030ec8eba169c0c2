"""Options that several commands of `ksi-migrate` share, and how each of them ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ksi_migrate import choose, ending

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[COMPONENT]...", help="Components by name.", autocompletion=choose.completions),
]
Phase = Annotated[int | None, typer.Option("--phase", help="All components of one week of the roadmap.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Root = Annotated[
    Path | None,
    typer.Option("--root", help="The daemon's root; default: KSI_HOME, else the working directory."),
]


Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown on standard output.")]


def end_with(command: str, work: ending.Work, json: bool, markdown: bool = False) -> NoReturn:
    """Do the work, print what came of it, and leave with its exit code."""
    chosen = _both if json and markdown else work
    raise typer.Exit(ending.end(command, chosen, as_json=json, as_markdown=markdown))


def _both() -> ending.Report:
    raise choose.WrongUsage("--json and --markdown are two documents", "ask for one of them")
