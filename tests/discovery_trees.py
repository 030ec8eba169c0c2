"""Source trees to describe and search, and programs that stand where `rg` is looked for."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ksi_daemon.discovery import AREA
from ksi_daemon.discovery.exercise import SOURCES
from ksi_daemon.discovery.places import find_rg
from tests.rooms import room

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

RG = find_rg(None, "/")
"""The real one of this environment."""

COUNTS = f'#!/bin/sh\necho run >> "${{0%/*}}/runs"\nexec {RG} "$@"\n'
"""`rg`, and a line in `bin/runs` each time."""

ONE = '{"type":"match","data":{"path":{"text":"./a.py"},"lines":{"text":"needle\\n"},"line_number":1,'
ONE += '"submatches":[{"match":{"text":"needle"},"start":0,"end":6}]}}'
"""A message of `rg`."""

HANGS = f"#!/bin/sh\nprintf '%s\\n' '{ONE}'\necho $$ > \"${{0%/*}}/pid\"\nexec sleep 60\n"
"""It tells of one match, and never ends."""


def lay(root: Path, files: Mapping[str, bytes | str], program: str | None = None) -> None:
    """Write files, and a program as `bin/rg`."""
    made: dict[str, bytes | str] = dict(files)
    if program is not None:
        made["bin/rg"] = program
    for name, content in made.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if program is not None:
        (root / "bin/rg").chmod(0o700)


def in_tree(files: Mapping[str, bytes | str]) -> dict[str, bytes | str]:
    """The files below `src`, which is the tree then: what a test keeps beside it changes nothing in it."""
    return {f"src/{name}": content for name, content in files.items()}


def area_with(**settings: Any) -> Any:
    """The room, with settings; its program is `bin/rg` if the test lays one down."""
    return replace(AREA, exercise=replace(AREA.exercise, programs={}, settings=settings))


@asynccontextmanager
async def searched(
    root: Path,
    side: str,
    files: Mapping[str, bytes | str] = SOURCES,
    program: str | None = None,
    *,
    settled: bool = True,
    **settings: Any,
) -> AsyncIterator[Any]:
    """The room over a tree in `src`; `settled`: its last change is long enough ago to tell another one."""
    lay(root, in_tree(files), program)
    (root / "src").mkdir(exist_ok=True)
    if settled:
        time.sleep(0.12)  # before the guard
    given = {"discovery_tree": "src", **({"discovery_rg": "bin/rg"} if program else {}), **settings}
    async with room(area_with(**given), side, root) as made:
        yield made


def runs(root: Path) -> int:
    """How often `COUNTS` was run."""
    path = root / "bin/runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


async def appears(path: Path) -> None:
    """Wait until the file is there, with something in it."""
    while not path.exists() or not path.stat().st_size:
        await asyncio.sleep(0.005)


def vanish(root: Path) -> None:
    """Take away the tree and the program: nothing can be found any more, only known."""
    shutil.rmtree(root / "src")
    (root / "bin/rg").unlink()
