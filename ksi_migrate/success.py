"""`ksi-migrate report`: what the analysis promised, and what of it was measured here.

Not in `report.py`, which draws the page of `bench --report`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ksi_daemon.replace import replace_file
from ksi_migrate import held, judge, judge_tests, quality, success_page
from ksi_migrate.claims import CLAIMS, SOURCES
from ksi_migrate.exits import Exit, Refused, document, told

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_migrate.judge import Row, Verdict
    from ksi_migrate.origin import Origin


@dataclass(frozen=True, slots=True)
class SuccessReport:
    """One row for each claim, in the order of the analysis, and the machine for which they hold."""

    rows: tuple[Row, ...]
    here: Origin

    def count(self, verdict: Verdict) -> int:
        """How many rows came out so."""
        return sum(row.verdict == verdict for row in self.rows)

    @property
    def exit_code(self) -> Exit:
        """1 when a claim was measured and does not hold, 5 when nothing was measured, else 0."""
        if self.count("fail"):
            return Exit.FINDING
        return Exit.DONE if self.count("pass") else Exit.INCONCLUSIVE

    def document(self) -> dict[str, Any]:
        """The `--json` body; shapes in docs/commands.md."""
        return document(
            "report",
            ok=self.exit_code is Exit.DONE,
            machine=asdict(self.here),
            rows=[row.document() for row in self.rows],
            passed=self.count("pass"),
            failed=self.count("fail"),
            not_measured=self.count("not measured"),
        )


def run(
    migrate_dir: Path,
    *,
    junit: Path | None = None,
    coverage: Path | None = None,
    html: Path | None = None,
) -> SuccessReport:
    """Judge every claim by the evidence in `migrate_dir`; `html` is where the page goes, written whole.

    Raises `NotAReport`, `JournalUnreadable`, `Refused` when the page cannot be written. Writes nothing else.
    """
    found = held.gather(migrate_dir)
    suite = None if junit is None else quality.junit(junit)
    covered = None if coverage is None else quality.coverage(coverage)
    measured = (judge.judge(claim, found) for claim in CLAIMS)
    rows = (*measured, *judge_tests.rows(found, suite, covered))
    report = SuccessReport(tuple(sorted(rows, key=lambda row: SOURCES.index(row.source))), found.here)
    if html is not None:
        _write(html, report)
    return report


def _write(path: Path, report: SuccessReport) -> None:
    try:
        replace_file(path, success_page.render(report.document()).encode("utf-8"))
    except OSError as error:
        raise Refused(
            f"{path} could not be written: {told(error)}", "give --html a path that can be written"
        ) from error
