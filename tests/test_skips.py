"""The gate on skipped tests: what it fails, what it lets pass, and what it says."""

from __future__ import annotations

import pytest

from tests.plugins import skips

SUITE = """
    import pytest

    def test_runs():
        pass

    @pytest.mark.skip(reason="no such disk here")
    def test_by_mark():
        pass

    def test_by_call():
        pytest.skip("no such kernel here")

    @pytest.mark.xfail(reason="not mended yet")
    def test_expected_to_fail():
        assert False
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A small project in CI: one test that runs, two that skip, one that is expected to fail."""
    monkeypatch.setenv("CI", "true")
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    pytester.makepyfile(SUITE)
    return pytester


def allow(suite: pytest.Pytester, *lines: str) -> None:
    """Give the small project a list of allowed skips."""
    suite.mkdir("tests").joinpath("allowed-skips.txt").write_text("\n".join(lines), encoding="utf-8")


def run(suite: pytest.Pytester) -> pytest.RunResult:
    """Run the small project with the plugin, in this process."""
    return suite.runpytest_inprocess(plugins=[skips])


def test_unlisted_skips_fail(suite: pytest.Pytester) -> None:
    """In CI every skip and xfail without an allowed reason fails (a mark: as an error of setup)."""
    result = run(suite)

    result.assert_outcomes(passed=1, failed=2, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_message_names_the_reason_and_the_list(suite: pytest.Pytester) -> None:
    """A failed skip says which reason was not allowed and where it could be."""
    result = run(suite)

    result.stdout.fnmatch_lines(
        ["skipped in CI without leave: no such disk here", "*or add its reason to tests/allowed-skips.txt"]
    )


def test_listed_skips_pass(suite: pytest.Pytester) -> None:
    """A reason that a pattern matches stays a skip, and the run succeeds."""
    allow(suite, "# machines differ", "no such * here", "xfail: not mended yet")

    result = run(suite)

    result.assert_outcomes(passed=1, skipped=2, xfailed=1)
    assert result.ret == pytest.ExitCode.OK


def test_a_pattern_matches_the_whole_reason(suite: pytest.Pytester) -> None:
    """Part of a reason on the list allows nothing."""
    allow(suite, "no such disk", "xfail: not mended yet")

    result = run(suite)

    result.assert_outcomes(passed=1, failed=1, errors=1, xfailed=1)


def test_outside_ci_a_skip_is_a_skip(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a developer's machine nothing changes."""
    monkeypatch.delenv("CI")

    result = run(suite)

    result.assert_outcomes(passed=1, skipped=2, xfailed=1)
    assert result.ret == pytest.ExitCode.OK


def test_a_module_that_skips_itself_fails(suite: pytest.Pytester) -> None:
    """`importorskip` at the top of a module is a skip too; it counts as an error of collection."""
    allow(suite, "no such * here", "xfail: not mended yet")
    suite.makepyfile(test_absent="import pytest\n\npytest.importorskip('no_such_module_anywhere')")

    result = run(suite)

    result.assert_outcomes(errors=1)
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_this_project_has_the_gate(pytestconfig: pytest.Config) -> None:
    """The plugin is loaded for these very tests, not only for the small project above."""
    assert pytestconfig.pluginmanager.is_registered(skips)


def test_comments_and_empty_lines_are_no_patterns() -> None:
    """Only lines with text that is not a comment allow anything."""
    assert skips.allowed_patterns("# why\n\n  one *  \n#two\nthree") == ("one *", "three")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, False), ("", False), ("0", False), ("False", False), ("true", True), ("1", True)],
)
def test_what_counts_as_on(value: str | None, expected: bool) -> None:
    """Only an unset or empty variable, `0` and `false` mean no."""
    assert skips.is_on(value) is expected
