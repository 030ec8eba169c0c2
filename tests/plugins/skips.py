"""In CI a skipped or xfailed test fails, unless its reason is on the list of allowed skips."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

LIST = Path("tests", "allowed-skips.txt")
"""Below pytest's root: one pattern a line, `*` and `?` as in a shell; `#` begins a line of comment."""


def allowed_patterns(text: str) -> tuple[str, ...]:
    """The patterns of the list, in its order, each to be matched against a whole reason."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def is_on(value: str | None) -> bool:
    """Whether a variable of the environment says yes: set, and none of empty, `0` and `false`."""
    return (value or "").lower() not in {"", "0", "false"}


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why the test did not run: the text given to skip, or to xfail."""
    if hasattr(report, "wasxfail"):
        return f"xfail: {report.wasxfail.removeprefix('reason: ')}"
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


class SkipGate:
    """Turns a skip that no pattern allows into a failure, so that pytest's summary counts it as one."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.patterns = patterns

    def judge(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Change the outcome of `report` where it is a skip without leave."""
        if report.outcome != "skipped":
            return
        reason = reason_of(report)
        if any(fnmatchcase(reason, pattern) for pattern in self.patterns):
            return
        if hasattr(report, "wasxfail"):  # pytest shows what has it as an xfail, whatever its outcome
            del report.wasxfail
        report.outcome = "failed"
        report.longrepr = f"skipped in CI without leave: {reason}\nlet it run, or add its reason to {LIST}"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Judge a test's report after every other plugin has had its say."""
        report = yield
        self.judge(report)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Judge a module that skipped itself while it was imported."""
        report = yield
        self.judge(report)
        return report


def pytest_configure(config: pytest.Config) -> None:
    """Put the gate up where the environment says CI; without a list every skip fails."""
    if not is_on(os.environ.get("CI")):
        return
    path = config.rootpath / LIST
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    config.pluginmanager.register(SkipGate(allowed_patterns(text)), "skip-gate")
