"""The project tells the truth about itself: version, README, documents, and what its files may name."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

import ksi_daemon
from ksi_daemon.__main__ import app as daemon_app
from ksi_daemon.registry import AREAS
from ksi_migrate.cli import app as migrate_app

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
APPS = {"ksi-daemon": get_command(daemon_app), "ksi-migrate": get_command(migrate_app)}
FENCE = re.compile(r"^```(?:console|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|farm)/|/tmp/(?:pv|brief)\b")
FIRST_SCREEN = 25


def committed_files(folder: Path = ROOT) -> Iterator[Path]:
    """Every file that `.gitignore` does not leave out; by walking, so that no git is needed."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    ignored = [".git", *(line for line in lines if line and not line.startswith("#"))]
    for path in sorted(folder.iterdir()):
        if any(fnmatchcase(path.name, pattern) for pattern in ignored):
            continue
        if path.is_dir():
            yield from committed_files(path)
        else:
            yield path


DOCUMENTS = [path for path in committed_files() if path.suffix == ".md"]


def commands(text: str) -> list[str]:
    """What fenced `console` and `sh` blocks run of our commands, without prompt and comment."""
    lines = (line.removeprefix("$ ") for block in FENCE.findall(text) for line in block.splitlines())
    plain = (re.split(r"\s#\s", line)[0].strip() for line in lines)
    return [line for line in plain if line.split(" ")[0] in {*APPS, "make"}]


def makefile() -> str:
    """The Makefile's text."""
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def options(command: Any) -> dict[str, bool]:
    """Every spelling of every option that a command of Typer takes, with whether a value follows it."""
    declared = {
        name: not getattr(param, "is_flag", False)
        for param in command.params
        for name in (*param.opts, *param.secondary_opts)
    }
    return {"--help": False, **declared}


def fault_in_cli(words: list[str]) -> str | None:
    """What a line of ksi-daemon or ksi-migrate names that does not exist, or None."""
    command: Any = APPS[words[0]]
    rest = iter(words[1:])
    for word in rest:
        if word.startswith("-"):
            name, has_value, _ = word.partition("=")
            if name not in options(command):
                return f"no option {name}"
            if options(command)[name] and not has_value:
                next(rest, None)
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return f"no command {word}"
            command = command.commands[word]
    return None


def fault_in_make(words: list[str]) -> str | None:
    """What a line of make names that the Makefile does not have, or None."""
    for word in words[1:]:
        name, is_variable, _ = word.partition("=")
        if is_variable and f"$({name})" not in makefile() and f"filter-out 0,$({name})" not in makefile():
            return f"no variable {name}"
        if not is_variable and not re.search(rf"^{re.escape(word)}:", makefile(), re.MULTILINE):
            return f"no target {word}"
    return None


def fault(line: str) -> str | None:
    """What a command line names that does not exist; only the part before a pipe or a redirection counts."""
    words = shlex.split(re.split(r"\s[|<>&]", line)[0])
    return fault_in_make(words) if words[0] == "make" else fault_in_cli(words)


def heading_anchors(text: str) -> set[str]:
    """The anchors that a Markdown page offers: its headings in lower case, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    """The relative links of a page that lead to no file, or to no heading of it."""
    broken = []
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (
            anchor and anchor not in heading_anchors(target.read_text(encoding="utf-8"))
        ):
            broken.append(link)
    return broken


def project() -> dict[str, Any]:
    """The `project` table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def test_version_stands_in_one_place() -> None:
    """Only pyproject.toml writes the version down; the package asks the installed metadata for it."""
    number = project()["version"]
    sources = [path for name in ("ksi_daemon", "ksi_migrate") for path in committed_files(ROOT / name)]

    holders = [path.name for path in sources if f'"{number}"' in path.read_text(encoding="utf-8")]

    assert holders == []
    assert version("ksi-migrate") == ksi_daemon.__version__


def test_changelog_has_the_version() -> None:
    """The version in pyproject.toml has its section in the changelog."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert re.search(rf"^## {re.escape(project()['version'])}\b", text, re.MULTILINE)


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_first_screen_holds_the_two_commands(command: str) -> None:
    """A newcomer sees both commands without scrolling."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert command in "\n".join(text.splitlines()[:FIRST_SCREEN])


@pytest.mark.parametrize(
    ("words", "command"), [((), "ksi-migrate demo"), (("FAST=1",), "ksi-migrate demo --fast")]
)
def test_make_demo_is_the_demo(words: tuple[str, ...], command: str) -> None:
    """Its recipe starts the command whose whole run tests/test_demo.py checks."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "demo", *words],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1].strip() == f".venv/bin/{command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documented_commands_exist(document: Path) -> None:
    """Every command, option, target and variable in a fenced block of a document exists."""
    lines = commands(document.read_text(encoding="utf-8"))

    assert [(line, fault(line)) for line in lines if fault(line)] == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("make demo FAST=1", None),
        ("make tset", "no target tset"),
        ("make demo QUICK=1", "no variable QUICK"),
        ("ksi-migrate flags validate", None),
        ("ksi-migrate enable messaging --yes", None),
        ("ksi-migrate enable messaging --surely", "no option --surely"),
        ("ksi-migrate enabel messaging", "no command enabel"),
        ("ksi-daemon send system:health | head", None),
        ("ksi-daemon send message:publish --data - < message.json", None),
        ("ksi-daemon sned system:health", "no command sned"),
    ],
)
def test_a_wrong_command_would_be_found(line: str, expected: str | None) -> None:
    """The check above sees a misspelt command, option, target and variable."""
    assert fault(line) == expected


def test_readme_has_commands_to_check() -> None:
    """The check above reads the README's own blocks: prompts and comments come off."""
    found = commands((ROOT / "README.md").read_text(encoding="utf-8"))

    assert {"make demo", "make test", "ksi-migrate plan"} <= set(found)


def test_readme_lists_the_registry() -> None:
    """The README's table is the registry: its components in its order, with week and whether built."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    rows = re.findall(r"^\| `(\w+)` \| .* \| (\d) \| (yes|no) \|$", text, re.MULTILINE)

    assert rows == [(area.name, str(area.week), "yes" if area.built else "no") for area in AREAS]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document: Path) -> None:
    """Every relative link leads to a file and, where it names one, to a heading in it."""
    assert broken_links(document) == []


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    """The check above sees a missing file and a missing heading, and leaves the web alone."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One thing\n[a](#one-thing) [b](#two) [c](gone.md) [d](https://example.org)\n", encoding="utf-8"
    )

    assert broken_links(page) == ["#two", "gone.md"]


def test_no_file_names_a_path_of_one_machine() -> None:
    """What is committed works anywhere: no file holds a path that exists only where it was written."""
    named = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in committed_files()
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        )
        if MACHINE_PATH.search(line)
    ]

    assert named == []


@pytest.mark.parametrize(
    ("text", "expected"), [("see /{}/x", True), ("home/{}/x", False), ("/{}er/x", False), ("'/{}/'", True)]
)
def test_a_machine_path_would_be_found(text: str, expected: bool) -> None:
    """The check above sees a path from the top of the file system, and no word that only looks like one."""
    assert bool(MACHINE_PATH.search(text.format("work"))) is expected


def test_each_dependency_has_its_reason() -> None:
    """Decision 1 says a sentence for each dependency of pyproject.toml, and the build backend."""
    text = (ROOT / "docs/decisions/0001-dependencies.md").read_text(encoding="utf-8")
    table = project()
    wanted = [*table["dependencies"], *table["optional-dependencies"]["dev"], "hatchling"]

    names = [re.split(r"[<>=~ ]", requirement)[0] for requirement in wanted]

    assert [name for name in names if f"**{name}**" not in text] == []
