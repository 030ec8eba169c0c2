"""Rounds become medians, spreads and ratios; a log becomes proof; memory has a peak of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ksi_migrate import bench_memory
from ksi_migrate.bench_cases import rotated
from ksi_migrate.bench_figures import Round, case_of, percentile
from ksi_migrate.bench_proof import Broken, check, check_count, check_sequences

if TYPE_CHECKING:
    from pathlib import Path

WRITTEN = ([b"a0\n", b"a1\n"], [b"b0\n", b"b1\n"])


def one(rate: float, stall: float = 2.0, idle: float = 0.5, latency: float | None = 1.0) -> Round:
    """A round of one second."""
    return Round(int(rate), 1.0, latency, latency, 1.0, stall, idle, 1000, 0.5, 50.0)


def test_figures_are_medians_with_the_extremes_beside_them():
    """A side's figures are its rounds' medians; CPU is for 10,000 calls; the idle stall is taken off."""
    rounds = {
        "reference": [],
        "sync": [one(100), one(200), one(900)],
        "async": [one(1000), one(1000), one(900, 9.0, 9.5, None)],
    }

    case = case_of("100 callers", 100, rounds)

    assert case.reference is None
    assert (case.sync.throughput_per_s, case.sync.spread.throughput_min) == (200, 100)
    assert case.sync.cpu_s == 25.0
    assert case.sync.loop_stall_max_less_idle_ms == 1.5
    assert case.candidate.spread.loop_stall_max_max_ms == 9.0
    assert case.candidate.latency_p50_ms == 1.0
    assert (case.ratio.throughput, case.ratio.throughput_min, case.ratio.throughput_max) == (5.0, 1.0, 10.0)
    assert (case.ratio.loop_stall_max, case.ratio.vs_reference) == (1.0, None)


def test_figures_of_a_case_alone_have_medians_and_ratios():
    """Each column's median stands under the figure's name; less is better; what a column lacks is null."""
    rounds = {
        "reference": [],
        "sync": [replace(one(10), more={"wall_s": wall, "own_s": 1.0}) for wall in (8.0, 9.0, 12.0)],
        "async": [replace(one(90), more={"wall_s": 3.0})],
    }

    document = case_of("20 agents", 20, rounds, "sync has more rounds").document()

    assert document["more"]["wall_s"] == {"reference": None, "sync": 9.0, "async": 3.0, "ratio": 3.0}
    assert document["more"]["own_s"] == {"reference": None, "sync": 1.0, "async": None, "ratio": None}
    assert (document["rounds"], document["sync"]["rounds"], document["note"]) == (
        1,
        3,
        "sync has more rounds",
    )


def test_rounds_that_have_no_partner_are_compared_with_all():
    """With fewer rounds in one column the least and the greatest ratio are of every pair."""
    rounds = {"reference": [], "sync": [one(10), one(20)], "async": [one(100)]}

    ratio = case_of("c", 1, rounds).ratio

    assert (ratio.throughput_min, ratio.throughput_max) == (5.0, 10.0)


def test_a_ratio_that_is_not_defined_is_null():
    """Without any stall on the async side nothing can be divided by it; a reference gives a ratio."""
    rounds = {"reference": [one(50)], "sync": [one(40)], "async": [one(400, 0.0, latency=None)]}

    case = case_of("1 caller", 1, rounds)
    document = case.document()

    assert document["ratio"]["loop_stall_max"] is None
    assert document["ratio"]["vs_reference"] == 8.0
    assert document["ratio"]["sync_vs_reference"] == 0.8
    assert document["async"]["latency_p99_ms"] is None
    assert "candidate" not in document


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100), (0, 1)])
def test_percentile_is_a_value_that_occurred(percent: int, expected: int):
    """Of 1 to 100 the 99th percentile is 99; of nothing there is none."""
    assert percentile(list(range(100, 0, -1)), percent) == expected
    assert percentile([], percent) is None


def test_each_column_begins_in_turn():
    """Over as many rounds as columns each is first once."""
    columns = ("reference", "sync", "async")

    assert {rotated(columns, number)[0] for number in range(3)} == set(columns)
    assert sorted(rotated(columns, 4)) == sorted(columns)


def test_an_interleaved_log_is_proof():
    """Callers may interleave in any way as long as each one's lines keep their order."""
    check("here", b"b0\na0\na1\nb1\n", WRITTEN)
    check_count("here", b"1\n2\n", 2)
    check_sequences("here", [("x", 0), ("y", 0), ("x", 1)], {"x": 2, "y": 1})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a0\na1\nb0\n", "1 of 4 acknowledged lines are not in the log"),
        (b"a1\na0\nb0\nb1\n", "caller 0 has its line 1 where its line 0 belongs"),
        (b"a0\na0\na1\nb0\nb1\n", "caller 0 has its line 0 where its line 1 belongs"),
        (b"a0\na1\nb0\nb1\nc0\n", "line 5 of the log was written by nobody"),
        (b"a0\na1\nb0\nb1", "written by nobody"),
    ],
)
def test_a_log_that_lost_doubled_or_swapped_lines_is_a_finding(content: bytes, words: str):
    """Lost, swapped, doubled, foreign and torn lines are each caught, with the place."""
    with pytest.raises(Broken, match=words):
        check("here", content, WRITTEN)


@pytest.mark.parametrize("content", [b"1\n", b"1\n1\n", b"1\n2", b"1\n2\n3\n"])
def test_a_reference_that_did_not_write_every_line_is_a_finding(content: bytes):
    """Fewer, equal, torn or more lines than records are no proof."""
    with pytest.raises(Broken):
        check_count("here", content, 2)


@pytest.mark.parametrize(
    "records", [[("x", 0)], [("x", 1), ("x", 0)], [("x", 0), ("x", 1), ("x", 2)], [("z", 0)]]
)
def test_a_sequence_that_differs_from_what_was_acknowledged_is_a_finding(records: list[tuple[str, int]]):
    """A sender's numbers run from 0 to its last acknowledged one; anybody else's are foreign."""
    with pytest.raises(Broken):
        check_sequences("here", records, {"x": 2})


def test_a_peak_can_be_forgotten():
    """Memory that was given back before is in no later peak, where the system can reset it."""
    held = bytearray(64 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    high = bench_memory.peak_mib()
    del held

    forgotten = bench_memory.forget_peak()

    assert bench_memory.peak_mib() < high - 32 if forgotten else bench_memory.peak_mib() >= high


def test_a_system_without_proc_gives_the_peak_of_the_whole_process(tmp_path: Path):
    """As on macOS: nothing can be reset, and getrusage(2) answers."""
    (tmp_path / "empty").touch()

    assert not bench_memory.forget_peak(tmp_path / "no" / "file")
    assert bench_memory.peak_mib(tmp_path / "none") > 1
    assert bench_memory.peak_mib(tmp_path / "empty") > 1
