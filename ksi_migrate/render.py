"""Everything that `ksi-migrate` prints: documents and errors, as JSON or for people, and progress."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Self

from rich import live
from rich.console import Console

from ksi_migrate import markdown, render_demo, tables, tables_measured, tables_proven
from ksi_migrate.exits import document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.console import RenderableType

    from ksi_migrate.demo_frame import Frame

    Renderer = Callable[[Mapping[str, Any]], Iterator[RenderableType]]

PIPED_WIDTH = 160
"""Columns off a terminal, where nobody says how wide the reader is; COLUMNS says otherwise."""

RENDERERS: dict[str, Renderer] = {
    "status": tables.status,
    "plan": tables.plan,
    "enable": tables.changes,
    "rollback": tables.changes,
    "parity": tables.parity,
    "bench": tables_measured.bench,
    "log": tables.log,
    "doctor": tables.doctor,
    "flags validate": tables.flags,
    "demo": render_demo.summary,
    "roadmap": tables_proven.roadmap,
    "report": tables_proven.report,
    "retire": tables_proven.retire,
}
"""By the document's `command`; `flags schema` is printed as it is."""

MARKDOWN: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "roadmap": markdown.roadmap,
    "report": markdown.report,
}
"""Those that can be pasted into a page."""


def console(*, stderr: bool = False) -> Console:
    """A console on the streams of now; NO_COLOR and TERM=dumb are rich's own business."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def show(found: Mapping[str, Any], *, as_json: bool, as_markdown: bool = False) -> None:
    """Print a document: as JSON or Markdown on stdout, or as tables there and its error on stderr."""
    if as_json:
        _print_json(found)
        return
    if as_markdown:
        print(MARKDOWN[found["command"]](found))
        return
    if "schema" in found:
        _print_json(found["schema"])
        return
    out = console()
    for part in RENDERERS[found["command"]](found):
        out.print(part)
    if "error" in found:
        _print_error(found["error"]["message"], found["error"]["hint"])


def fail(command: str, error: Mapping[str, str], *, as_json: bool) -> None:
    """Print an error that ended a command before it had anything to report."""
    if as_json:
        _print_json(document(command, ok=False, error=dict(error)))
    else:
        _print_error(error["message"], error["hint"])


def _print_json(found: Mapping[str, Any]) -> None:
    print(json.dumps(found, indent=2))


def _print_error(message: str, hint: str) -> None:
    err = console(stderr=True)
    err.print(tables.word(f"error: {message}"), style="red", soft_wrap=True)
    if hint:
        err.print(tables.word(f"hint: {hint}"), soft_wrap=True)


class Spinner:
    """Shows the last step told, on stderr, if that is a terminal; it can make room for a question."""

    def __init__(self) -> None:
        self._status = console(stderr=True).status("") if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.pause()

    def step(self, text: str, done: int, total: int) -> None:
        """One line, replaced at each step."""
        if self._status is not None:
            self._status.start()
            self._status.update(tables.word(f"{done}/{total} {text}"))

    def pause(self) -> None:
        """Leave the terminal alone until the next step."""
        if self._status is not None:
            self._status.stop()


class Live:
    """Shows the demo's frames on stderr: in place on a terminal, elsewhere a line for each phase."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._live = live.Live(console=self._console, transient=True) if sys.stderr.isatty() else None
        self._phase = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, found: Frame) -> None:
        """Show one frame."""
        if self._live is not None:
            self._live.update(render_demo.live(found))
        elif found.phase != self._phase:
            self._console.print(render_demo.line(found), soft_wrap=True)
        self._phase = found.phase
