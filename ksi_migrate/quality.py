"""What test reports say of qualities that no benchmark measures: JUnit XML, coverage.py's JSON or XML."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

from ksi_migrate.choose import WrongUsage
from ksi_migrate.exits import told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FAILED: Final = ("failure", "error")
BRANCHES: Final = re.compile(r"\((\d+)/(\d+)\)")
"""Cobertura's `condition-coverage="50% (1/2)"`."""


class NotAReport(WrongUsage):
    """A file that was named as a test report and is none."""

    def __init__(self, path: Path, kind: str, why: str) -> None:
        super().__init__(f"{path} is no {kind}: {why}", "give the file that the test run wrote")


@dataclass(frozen=True, slots=True)
class Suite:
    """A JUnit file: every test as `class::name` with how it ended, and where and when it was run.

    `node` is None where a suite does not say it, or where two disagree.
    """

    tests: tuple[tuple[str, str], ...]
    node: str | None
    at: str | None

    def matching(self, pattern: str) -> dict[str, int]:
        """How many of the tests whose class or name have a word that begins so ended how."""
        counts = {"passed": 0, "failed": 0, "skipped": 0}
        for name, ended in self.tests:
            if re.search(rf"(?<![a-z])(?:{pattern})", name):
                counts[ended] += 1
        return counts


@dataclass(frozen=True, slots=True)
class Share:
    """Of one file how many lines and branches there are, and how many of them were run."""

    covered: int
    of: int
    branches: bool


def junit(path: Path) -> Suite:
    """Read a JUnit file. Raises `NotAReport`."""
    root = _xml(path, "JUnit file")
    suites = [root] if root.tag == "testsuite" else list(root.iter("testsuite"))
    cases = list(root.iter("testcase"))
    if not cases:
        raise NotAReport(path, "JUnit file", "it has no testcase")
    nodes = {suite.get("hostname") for suite in suites if suite.find("testcase") is not None}
    times = [at for suite in suites if (at := suite.get("timestamp"))]
    tests = tuple((f"{case.get('classname')}::{case.get('name')}", _ended(case)) for case in cases)
    return Suite(tests, next(iter(nodes)) if len(nodes) == 1 else None, min(times, default=None))


def _ended(case: ET.Element) -> str:
    if any(case.find(tag) is not None for tag in FAILED):
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


def coverage(path: Path) -> dict[str, Share]:
    """Read `coverage json` or `coverage xml`: each file's share. Raises `NotAReport`."""
    kind = "coverage report"
    try:
        if path.read_bytes().lstrip()[:1] == b"<":
            return dict(_cobertura(_xml(path, kind)))
        return dict(_summaries(json.loads(path.read_bytes())["files"]))
    except OSError as error:
        raise NotAReport(path, kind, told(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotAReport(
            path, kind, "it has neither the shape of coverage json nor of coverage xml"
        ) from error


def _summaries(files: Mapping[str, Any]) -> Iterator[tuple[str, Share]]:
    for name, found in files.items():
        lines = found["summary"]
        branches = "num_branches" in lines
        covered = lines["covered_lines"] + lines.get("covered_branches", 0)
        yield (
            name.replace("\\", "/"),
            Share(covered, lines["num_statements"] + lines.get("num_branches", 0), branches),
        )


def _cobertura(root: ET.Element) -> Iterator[tuple[str, Share]]:
    branches = int(root.get("branches-valid", "0")) > 0
    for found in root.iter("class"):
        lines = [line for line in found.iter("line") if line.get("number")]
        taken = [BRANCHES.search(line.get("condition-coverage", "")) for line in lines]
        ways = [(int(way[1]), int(way[2])) for way in taken if way]
        covered = sum(line.get("hits") != "0" for line in lines) + sum(done for done, _ in ways)
        yield str(found.get("filename")), Share(covered, len(lines) + sum(all_ for _, all_ in ways), branches)


def _xml(path: Path, kind: str) -> ET.Element:
    try:
        return ET.fromstring(path.read_bytes())  # noqa: S314 - the operator's own file; expat bounds entities
    except OSError as error:
        raise NotAReport(path, kind, told(error)) from error
    except ET.ParseError as error:
        raise NotAReport(path, kind, str(error)) from error
