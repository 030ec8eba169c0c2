"""The rows that only tests can fill: what counts in a JUnit file and a coverage report, and what does not."""

from __future__ import annotations

import json

import pytest

from ksi_daemon.registry import BUILT
from ksi_migrate import judge_tests, quality
from ksi_migrate.choose import WrongUsage
from ksi_migrate.paritycheck import junit as parity_junit
from ksi_migrate.paritycheck.trial import Outcome
from tests.operate import migrate
from tests.proofs import HERE, agreed, held

NAMES = [area.name for area in BUILT]
PASSED = (
    ("tests.test_switch", "test_calls_are_interleaved", ""),
    ("tests.test_linefile", "test_a_torn_tail_is_mended", ""),
    ("tests.test_limits", "test_an_error_has_a_code", ""),
    ("tests.test_limits", "test_another_error", "<skipped/>"),
)


def junit(path, cases=PASSED, *, node=HERE.node):
    """A JUnit file as pytest writes it."""
    where = f' hostname="{node}"' if node else ""
    inner = "".join(
        f'<testcase classname="{owner}" name="{name}">{how}</testcase>' for owner, name, how in cases
    )
    path.write_text(
        f'<testsuites><testsuite timestamp="2025-07-12T10:00:00+00:00"{where}>{inner}</testsuite>'
        "</testsuites>"
    )
    return path


def coverage(path, lacking=0, *, names=NAMES, branches=True):
    """A report of coverage json with every aio.py; the first lacks so many branches."""
    files = {}
    for number, name in enumerate(names):
        summary = {"covered_lines": 90, "num_statements": 90}
        if branches:
            summary |= {"covered_branches": 10 - (lacking if number == 0 else 0), "num_branches": 10}
        files[f"ksi_daemon/{name}/aio.py"] = {"summary": summary}
    path.write_text(json.dumps({"files": files}))
    return path


def cobertura(path, covered="100% (2/2)"):
    """The same as coverage xml, whose file names are relative to the package."""
    line = (
        f'<line number="1" hits="1" branch="true" condition-coverage="{covered}"/><line number="2" hits="1"/>'
    )
    classes = "".join(f'<class filename="{name}/aio.py"><lines>{line}</lines></class>' for name in NAMES)
    path.write_text(f'<coverage branches-valid="{2 * len(NAMES)}"><classes>{classes}</classes></coverage>')
    return path


def rows(suite=None, covered=None, *, parity=None):
    """The rows by name."""
    return {row.name: row for row in judge_tests.rows(held(parity=parity), suite, covered)}


def verdicts(found):
    """Each row's verdict."""
    return [row.verdict for row in found.values()]


def test_without_files_nothing_is_measured():
    """Each row says which file to give."""
    found = rows()

    assert verdicts(found) == ["not measured"] * 4
    assert "--junit" in found["race conditions"].said
    assert "--coverage" in found["test coverage"].said


def test_passed_tests_fill_the_rows(tmp_path):
    """Counts of passed, failed and skipped stand in the row, and what parity found."""
    found = rows(
        quality.junit(junit(tmp_path / "j.xml")),
        quality.coverage(coverage(tmp_path / "c")),
        parity=agreed("agent"),
    )

    assert verdicts(found) == ["pass"] * 4
    assert found["error handling"].said == "1 passed, 0 failed, 1 skipped, parity agrees in 20 cases"
    assert found["test coverage"].said == f"100 % of {100 * len(NAMES)} lines and branches"
    assert found["race conditions"].at == "2025-07-12T10:00:00+00:00"


def test_a_word_counts_from_its_beginning(tmp_path):
    """Tests of tracers are none of races."""
    cases = (("tests.test_tracers", "test_skilled_border", ""),)
    found = rows(quality.junit(junit(tmp_path / "j.xml", cases)))

    assert verdicts(found) == ["not measured"] * 4


@pytest.mark.parametrize("how", ["<failure/>", "<error/>"])
def test_a_failed_test_fails_its_row_only(tmp_path, how):
    """One failure or error is enough for its own row."""
    cases = (*PASSED, ("tests.test_x", "test_kill_at_any_moment", how))
    found = rows(quality.junit(junit(tmp_path / "j.xml", cases)))

    assert verdicts(found) == ["pass", "fail", "pass", "not measured"]


def test_parity_that_differs_fails_every_quality(tmp_path):
    """Green tests do not outweigh sides that were found to differ."""
    found = rows(quality.junit(junit(tmp_path / "j.xml")), parity=agreed("agent", ok=False))

    assert verdicts(found)[:3] == ["fail"] * 3
    assert "parity differs: agent" in found["race conditions"].said


@pytest.mark.parametrize(
    ("node", "said"), [("elsewhere", "another machine, elsewhere"), ("", "does not say on which")]
)
def test_tests_of_another_machine_prove_nothing(tmp_path, node, said):
    """Also the coverage of such a run is not measured."""
    found = rows(
        quality.junit(junit(tmp_path / "j.xml", node=node)), quality.coverage(coverage(tmp_path / "c"))
    )

    assert verdicts(found) == ["not measured"] * 4
    assert all(said in row.said for row in found.values())


def test_coverage_needs_its_run(tmp_path):
    """A coverage report does not say where it was made: it counts with a JUnit file of this machine only."""
    assert rows(None, quality.coverage(coverage(tmp_path / "c")))["test coverage"].verdict == "not measured"


def test_skipped_tests_alone_measure_nothing(tmp_path):
    """A row whose tests were all skipped, or that has none, is not measured."""
    cases = (("tests.test_x", "test_kill", "<skipped/>"),)
    found = rows(quality.junit(junit(tmp_path / "j.xml", cases)))

    assert verdicts(found) == ["not measured"] * 4
    assert "(1 skipped)" in found["file corruption"].said


@pytest.mark.parametrize("make", [coverage, cobertura], ids=["json", "xml"])
def test_incomplete_coverage_fails(tmp_path, make):
    """One branch that was not run fails the row and is named, in both formats."""
    suite = quality.junit(junit(tmp_path / "j.xml"))
    whole = rows(suite, quality.coverage(make(tmp_path / "c")))["test coverage"]
    gap = 1 if make is coverage else "50% (1/2)"
    found = rows(suite, quality.coverage(make(tmp_path / "c", gap)))["test coverage"]

    assert (whole.verdict, found.verdict) == ("pass", "fail")
    assert f"not run: {NAMES[0]}/aio.py 1" in found.said


def test_coverage_of_half_the_rooms_is_none(tmp_path):
    """A file that was never imported is missing from the report: then nothing is complete."""
    suite = quality.junit(junit(tmp_path / "j.xml"))
    half = rows(suite, quality.coverage(coverage(tmp_path / "c", names=NAMES[1:])))["test coverage"]
    lines = rows(suite, quality.coverage(coverage(tmp_path / "c", branches=False)))["test coverage"]

    assert (half.verdict, half.said) == ("not measured", f"the report lacks {NAMES[0]}/aio.py")
    assert "lines only" in lines.said


@pytest.mark.parametrize("text", ["", "<a", "<a/>", "{}", '{"files": {"a": 1}}', "[]"])
def test_what_is_no_report_is_wrong_usage(tmp_path, text):
    """Neither reader takes it, and the error names the file."""
    path = tmp_path / "report"
    path.write_text(text)
    with pytest.raises(WrongUsage, match="report is no JUnit file"):
        quality.junit(path)
    if text != "<a/>":
        with pytest.raises(WrongUsage, match="report is no coverage report"):
            quality.coverage(path)


def test_a_missing_file_is_wrong_usage(tmp_path):
    """Exit 2 with the path, for both."""
    for option in ("--junit", "--coverage"):
        ended = migrate("report", option, tmp_path / "none", "--json", "--root", tmp_path)
        assert (ended.code, ended.document["error"]["code"]) == (2, "usage")
        assert "none" in ended.document["error"]["message"]


def test_paritys_own_file_is_one(tmp_path):
    """`parity --junit` says where and when it was made, so it can fill a row."""
    path = tmp_path / "parity.xml"
    parity_junit.write(path, [("agent", (Outcome("two writes interleaved", ()),)), ("config", ())])
    suite = quality.junit(path)

    assert (suite.node, bool(suite.at)) == (HERE.node, True)
    assert rows(suite)["race conditions"].verdict == "pass"


def test_files_reach_the_report(tmp_path):
    """Both options fill the rows of the command's own document."""
    words = ("--junit", junit(tmp_path / "j.xml"), "--coverage", coverage(tmp_path / "c.json"))
    ended = migrate("report", *words, "--json", "--root", tmp_path)

    assert (ended.code, ended.document["passed"]) == (0, 4)
