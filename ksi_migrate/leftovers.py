"""Where the source still chooses between two sides: files to delete, and lines to edit. Reads only."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ksi_daemon

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SWITCH: Final = "switch.py"
SWITCHED: Final = {
    "app.py": re.compile(r"switch|Switch|onductor|_watch\b|FlagsWatch|SIGHUP"),
    "area.py": re.compile(r"^\s*sync:"),
}
"""What names the switch, or follows flags on its behalf, in the files that are left."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line that has to change; `path` is relative to the source tree."""

    path: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What can be deleted whole, and what has to be edited."""

    delete: tuple[str, ...] = ()
    edit: tuple[Line, ...] = ()

    def document(self) -> dict[str, Any]:
        """As it stands in the `--json` document."""
        return {"delete": list(self.delete), "edit": [asdict(one) for one in self.edit]}


NOTHING: Final = Leftovers()


def source() -> Path:
    """The tree that holds the package that runs, and in a checkout its tests."""
    return Path(ksi_daemon.__file__).parent.parent


def two_sided(tree: Path, name: str) -> bool:
    """Whether the component still has its sync side."""
    return (tree / "ksi_daemon" / name / "sync.py").exists()


def of_component(tree: Path, name: str) -> Leftovers:
    """The sync side, what imports it or declares it, and the tests that are run on both sides."""
    room = tree / "ksi_daemon" / name
    names = re.compile(rf"ksi_daemon\.{name}\.sync\b|ksi_daemon\.{name} import .*\bsync\b|^\s*sync=(?!None)")
    tests = re.compile(rf"ksi_daemon\.{name}\.sync\b|ksi_daemon\.{name} import .*\bsync\b")
    own = re.compile(rf"{tests.pattern}|\bSIDES\b(?!.*import)")
    edit = list(_lines(tree, [room / "__init__.py"], names))
    for path in sorted((tree / "tests").rglob("*.py")):
        edit += _lines(tree, [path], own if path.name.startswith(f"test_{name}") else tests)
    sides = [room / "sync.py"] if two_sided(tree, name) else []
    return Leftovers(tuple(str(path.relative_to(tree)) for path in sides), tuple(edit))


def of_switch(tree: Path) -> Leftovers:
    """The switch, and where it is named; it goes with the last component."""
    package = tree / "ksi_daemon"
    if not (package / SWITCH).exists():
        return NOTHING
    edit = [line for name, named in SWITCHED.items() for line in _lines(tree, [package / name], named)]
    return Leftovers((f"ksi_daemon/{SWITCH}",), tuple(edit))


def _lines(tree: Path, paths: Iterable[Path], pattern: re.Pattern[str]) -> Iterator[Line]:
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            continue
        where = str(path.relative_to(tree))
        for number, line in enumerate(text.splitlines(), start=1):
            if pattern.search(line) and "import SIDES" not in line:
                yield Line(where, number, line.strip())
