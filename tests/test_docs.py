"""The documents' tables are the code: commands, events, codes, settings, components, deviations."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

import ksi_daemon
import ksi_migrate
from ksi_daemon import errors, settings
from ksi_daemon.__main__ import app as daemon_app
from ksi_daemon.registry import AREAS
from ksi_migrate.cli import app as migrate_app
from ksi_migrate.exits import Exit
from tests.line_client import daemon

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
APPS = {"ksi-daemon": get_command(daemon_app), "ksi-migrate": get_command(migrate_app)}
ROOTLESS = {"ksi-migrate flags schema", "ksi-migrate demo"}


def page(name: str) -> str:
    """A document's text."""
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands below a heading, down to the next heading of its own rank or a higher one."""
    rank = heading.count("#")
    _, found, rest = f"\n{text}".partition(f"\n{heading}\n")
    assert found, f"there is no heading {heading!r}"
    return re.split(rf"\n#{{1,{rank}}} ", rest)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of every table, without the head."""
    found = []
    for table in re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE):
        lines = [line for line in table.splitlines() if line]
        found += [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return found


def names(cell: str) -> list[str]:
    """The words in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by the words that call it."""
    for name, app in APPS.items():
        group: Any = app
        for word, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from ((f"{name} {word} {inner}", one) for inner, one in command.commands.items())
            else:
                yield f"{name} {word}", command


def declared(command: Any) -> set[str]:
    """The options and arguments of a command, as its help spells them."""
    found: set[str] = set()
    for param in command.params:
        if param.param_type_name == "argument":
            name = param.metavar or param.name.upper()
            found.add(name if param.required or name.startswith("[") else f"[{name}]")
        else:
            found |= {*param.opts, *param.secondary_opts}
    return found - {"--help", "-h"}


def test_every_command_is_documented() -> None:
    """commands.md has a heading for each command of both programs, and for nothing else."""
    text = page("commands.md")
    headings = re.findall(r"^### (ksi-(?:daemon|migrate) .+)$", text, re.MULTILINE)

    assert sorted(headings) == sorted(name for name, _ in commands())


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: value if type(value) is str else ""
)
def test_every_option_is_documented(name: str, command: Any) -> None:
    """The table of a command names its options and arguments, and no other."""
    common = {"--root"} if name.startswith("ksi-daemon") else {"--root", "--json"}
    stands = {word for row in rows(section(page("commands.md"), f"### {name}")) for word in names(row[0])}

    assert stands | (common - {"--root"} if name in ROOTLESS else common) == declared(command)


def test_commands_without_a_root_are_named() -> None:
    """commands.md says which commands take no `--root`."""
    text = section(page("commands.md"), "## ksi-migrate")

    assert all(f"`{name}`" in text.split("###")[0] for name in ROOTLESS)


def test_exit_codes() -> None:
    """The table of exit codes is the enumeration."""
    stands = [(int(row[0]), names(row[1])[0]) for row in rows(section(page("commands.md"), "## Exit codes"))]

    assert stands == [(code.value, code.name) for code in Exit]


def codes_of_both_packages() -> set[str]:
    """The code of each error class that any module of the two packages defines."""
    for package in (ksi_daemon, ksi_migrate):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found, todo = set(), [errors.KsiError]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__.startswith(("ksi_daemon", "ksi_migrate")):
            found.add(kind.code)
    return found


def test_codes_of_replies() -> None:
    """The table of reply codes is `errors.CODES`, word for word and in its order."""
    text = section(page("commands.md"), "## Error codes").split("Codes of commands")[0]

    assert [(names(row[0])[0], row[1]) for row in rows(text)] == list(errors.CODES.items())


def test_codes_of_commands() -> None:
    """Every other code that an error class has, and `fault`, stands in the table of command codes."""
    text = section(page("commands.md"), "## Error codes").split("Codes of commands")[1]
    stands = [names(row[0])[0] for row in rows(text)]

    assert sorted(stands) == sorted((codes_of_both_packages() | {"fault"}) - errors.CODES.keys())


async def test_every_event_is_documented(tmp_path: Path) -> None:
    """The events table is what a daemon discovers of itself: names, parameters, and which are required."""
    stands = {}
    for cells in rows(section(page("commands.md"), "## Events")):
        required = [words[0] for words in map(names, re.findall(r"\*\*[^*]+\*\*", cells[1]))]
        stands[names(cells[0])[0]] = {name: name in required for name in names(cells[1])}

    async with daemon(tmp_path) as bench_:
        found = (await (await bench_.client()).ask("system:discover", detail=True))["events"]

    assert stands == {
        event: {name: param["required"] for name, param in shown["parameters"].items()}
        for event, shown in found.items()
    }


def test_every_setting_is_documented() -> None:
    """The tables of settings.md are the fields of `Settings` with their defaults, or a dash."""
    stands = {names(row[0])[0]: "".join(names(row[1])) for row in rows(page("settings.md"))}
    fields = settings.Settings.model_fields

    assert stands == {
        f"KSI_{name.upper()}": str(field.default).lower()
        if field.annotation is bool
        else str(field.default or "")
        for name, field in fields.items()
        if name != "root"
    }


def test_design_lists_the_registry() -> None:
    """The table of components in design.md is the registry: names, titles, kinds, weeks, what is built."""
    text = section(page("design.md"), "## Rooms and plumbing")
    stands = [cells[:5] for cells in rows(text) if len(cells) == 6]

    assert stands == [
        [f"`{area.name}`", area.title, area.kind, str(area.week), "yes" if area.built else "no"]
        for area in AREAS
    ]


def test_design_names_every_module() -> None:
    """Each plumbing module of the daemon has its line in design.md, and no line names one that is gone."""
    text = section(page("design.md"), "## Rooms and plumbing").split("The plumbing of the daemon:")[1]
    stands = {name for cells in rows(text) for name in names(cells[0])}
    files = {path.stem for path in Path(ksi_daemon.__path__[0]).glob("*.py")}

    assert stands == files - {"__init__"}


def functions_in(path: Path) -> set[str]:
    """The names of the test functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_")}


def missing_tests(cells: Sequence[str]) -> list[str]:
    """The tests named in the cells, as `tests/file.py::name`, that are not there; an empty cell counts."""
    gone = []
    for cell in cells:
        for name in names(cell) or [f"no test in {cell!r}"]:
            file, _, function = name.partition("::")
            path = ROOT / file
            if not path.is_file() or function not in functions_in(path):
                gone.append(name)
    return gone


def test_every_deviation_has_its_test() -> None:
    """Each row of deviations.md names a test that exists."""
    table = rows(page("deviations.md"))

    assert [len(cells) for cells in table if len(cells) != 4] == []
    assert missing_tests([cells[-1] for cells in table]) == []
    assert len(table) > 40


def test_every_limit_has_its_test() -> None:
    """Each limit in settings.md that is not a path or a switch names a test that exists."""
    text = section(page("settings.md"), "## Limits and switches")
    limits = [cells[3] for cells in rows(text) if cells[1].strip("`").replace(".", "").isdigit()]

    assert missing_tests(limits) == []
    assert len(limits) == 23


def test_a_missing_test_would_be_found() -> None:
    """The checks above see a test that is gone, a file that is gone, and a cell without a test."""
    gone = ["tests/test_docs.py::test_no_such", "tests/none.py::test_x"]

    assert missing_tests([f"`{name}`" for name in gone]) == gone
    assert missing_tests([""]) == ["no test in ''"]
    assert missing_tests(["`tests/test_docs.py::test_exit_codes`"]) == []
