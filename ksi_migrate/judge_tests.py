"""The rows that only tests can fill: from a JUnit file and a coverage report of this machine. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ksi_daemon.registry import BUILT
from ksi_migrate.claims import COVERED, QUALITIES
from ksi_migrate.figures import plain
from ksi_migrate.judge import Row, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ksi_migrate.claims import Covered, Quality
    from ksi_migrate.held import Held
    from ksi_migrate.quality import Share, Suite

GIVE_JUNIT = "give --junit the JUnit file of a test run on this machine"
GIVE_COVERAGE = "give --coverage the coverage json or xml of the same run"


def rows(held: Held, suite: Suite | None, covered: Mapping[str, Share] | None) -> Iterator[Row]:
    """Each quality, then coverage; not measured where the file is missing or comes from elsewhere."""
    why = _foreign(held, suite)
    for quality in QUALITIES:
        yield _told(quality, why) if suite is None or why else _quality(quality, held, suite)
    if covered is None:
        yield _told(COVERED, GIVE_COVERAGE)
    else:  # a coverage report does not say where it was made; the run that it belongs to does
        yield _told(COVERED, why) if suite is None or why else _coverage(COVERED, held, suite, covered)


def _foreign(held: Held, suite: Suite | None) -> str:
    if suite is None:
        return GIVE_JUNIT
    if suite.node is None:
        return "the JUnit file does not say on which machine it was made"
    return "" if suite.node == held.here.node else f"the tests were run on another machine, {suite.node}"


def _told(claim: Quality | Covered, why: str) -> Row:
    return Row(claim.name, claim.source, claim.claimed, claim.how, "not measured", why)


def _quality(quality: Quality, held: Held, suite: Suite) -> Row:
    counts = suite.matching(quality.tests)
    differ = [name for name, found in held.parity.items() if not found.ok]
    if not counts["passed"] + counts["failed"]:
        return _told(quality, f"no test of the JUnit file that matches was run ({counts['skipped']} skipped)")
    words = [f"{counts[ended]:,} {ended}" for ended in ("passed", "failed", "skipped")]
    words += [f"parity differs: {', '.join(differ)}"] if differ else [_parity(held)]
    good = not counts["failed"] and not differ
    return _row(quality, held, suite, "pass" if good else "fail", ", ".join(words), counts["failed"])


def _parity(held: Held) -> str:
    cases = sum(found.cases for found in held.parity.values())
    return f"parity agrees in {cases:,} cases" if held.parity else "no parity on record"


def _coverage(claim: Covered, held: Held, suite: Suite, covered: Mapping[str, Share]) -> Row:
    """Every built component's file has to be there: one that was never imported is not in the report."""
    wanted = {area.name: f"{area.name}/{claim.file}" for area in BUILT}
    found = {
        name: share
        for name, file in wanted.items()
        for path, share in covered.items()
        if f"/{path}".endswith(f"/{file}")
    }
    if missing := [file for name, file in wanted.items() if name not in found]:
        return _told(claim, f"the report lacks {', '.join(missing)}")
    if not all(share.branches for share in found.values()):
        return _told(claim, "the report has lines only; measure with branch coverage")
    total, run = (sum(getattr(share, key) for share in found.values()) for key in ("of", "covered"))
    gaps = [
        f"{wanted[name]} {share.of - share.covered}"
        for name, share in found.items()
        if share.of > share.covered
    ]
    said = f"{plain(100 * run / total if total else 0)} % of {total:,} lines and branches"
    said += f"; not run: {', '.join(gaps)}" if gaps else ""
    return _row(claim, held, suite, "fail" if gaps or not total else "pass", said, total - run)


def _row(
    claim: Quality | Covered, held: Held, suite: Suite, verdict: Verdict, said: str, measured: float
) -> Row:
    unit = "failed" if claim is not COVERED else "not run"
    return Row(
        claim.name,
        claim.source,
        claim.claimed,
        claim.how,
        verdict,
        said,
        bar=0,
        measured=measured,
        unit=unit,
        at=suite.at,
        machine=held.here.machine,
        release=None,
    )
