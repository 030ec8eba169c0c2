"""The heartbeat: what one stop of the loop weighs, what an idle loop shows, and what reading takes away."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksi_daemon.heartbeat import Heartbeat, Lateness, Stall


def middle(late: int) -> int:
    """The middle of the bucket that holds `late` µs: exact up to 9 bits, beyond that the 9 highest count."""
    width = 1 << max(0, late.bit_length() - 9)
    return late // width * width + width // 2


def figures(late_us: list[int]) -> Stall:
    """The histogram's answer for timers that ran so many µs late."""
    lateness = Lateness()
    for late in late_us:
        lateness.note((late + 0.5) / 1e6)
    return lateness.take()


def test_one_stop_weighs_as_the_beats_it_swallowed() -> None:
    """One stop of 50 ms among 49 beats in time: p50 near 0, p99 near 50 (no coordinated omission)."""
    stall = figures([50_100] + [0] * 49)

    assert stall.beats == 51 + 49
    assert stall.p50_ms == pytest.approx(0.1, abs=0.1)
    assert stall.p99_ms == pytest.approx(49.1, abs=0.1)
    assert stall.max_ms == pytest.approx(50.1, abs=0.001)


@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=30))
def test_figures_agree_with_the_expansion_written_out(late_us: list[int]) -> None:
    """Percentiles and their number of beats are those of the full list of beats, written out one by one."""
    beats = sorted(left for late in late_us for left in range(middle(late), -1, -1_000))
    stall = figures(late_us)

    expected = [min(beats[-(-p * len(beats) // 100) - 1] / 1e3, stall.max_ms) for p in (50, 99)]
    assert [stall.p50_ms, stall.p99_ms] == pytest.approx(expected, abs=1e-9)
    assert stall.beats == len(beats)
    assert stall.max_ms == pytest.approx((max(late_us) + 0.5) / 1e3)


@given(st.integers(0, 10**10))
def test_a_bucket_moves_no_figure_by_more_than_a_fifth_of_a_per_cent(late: int) -> None:
    """What a lateness is taken for lies within 0.2 % of it, or half a µs."""
    assert abs(middle(late) - late) <= max(0.5, late * 0.002)


@given(st.lists(st.integers(0, 511), min_size=1))
def test_small_lateness_is_exact_to_a_microsecond(late_us: list[int]) -> None:
    """Below 0.5 ms the percentiles are those of the beats themselves."""
    beats = sorted(late_us)

    p99 = beats[max(0, -(-99 * len(beats) // 100) - 1)]
    assert figures(late_us).p99_ms == pytest.approx(p99 / 1e3, abs=1e-9)


def test_percentiles_do_not_exceed_the_maximum() -> None:
    """The middle of a wide bucket is never reported above the latest beat seen."""
    stall = figures([65_536])

    assert stall.p99_ms <= stall.max_ms


def test_a_stop_longer_than_the_last_bucket_keeps_its_maximum() -> None:
    """A machine asleep for a day breaks nothing: the maximum is exact, the percentiles end at four hours."""
    stall = figures([86_400_000_000])

    assert stall.max_ms == pytest.approx(86_400_000)
    assert stall.beats > 14_000_000


def test_no_beats_is_no_evidence() -> None:
    """An empty record has zero beats, so that nobody takes its zeros for a quiet loop."""
    assert Lateness().take() == Stall(0.0, 0.0, 0.0, 0)


def test_early_timers_count_as_in_time() -> None:
    """A clock's last digit may make a timer run early; that is a beat in time."""
    lateness = Lateness()
    lateness.note(-1e-9)

    assert lateness.take() == Stall(0.0, 0.0, 0.0, 1)


async def test_a_blocked_loop_shows_the_length_of_the_stop() -> None:
    """time.sleep(0.05) on the loop is seen as a maximum of about 50 ms and about 50 beats."""
    heart = Heartbeat()
    heart.start()
    await asyncio.sleep(0.01)
    time.sleep(0.05)
    await asyncio.sleep(0.01)
    heart.stop()

    stall = heart.read()
    assert stall.max_ms >= 48
    assert stall.beats >= 50


async def test_reading_right_after_a_stop_sees_it() -> None:
    """A beat still overdue when the figures are read counts, and only in that interval."""
    heart = Heartbeat()
    heart.start()
    time.sleep(0.2)
    first = heart.read()
    await asyncio.sleep(0.005)
    second = heart.read()
    heart.stop()

    assert first.max_ms >= 198
    assert second.beats > 0
    assert second.max_ms < first.max_ms


async def test_stopping_right_after_a_stop_of_the_loop_keeps_it() -> None:
    """What is overdue when the heartbeat ends is part of the record."""
    heart = Heartbeat()
    heart.start()
    time.sleep(0.02)
    heart.stop()

    assert heart.read().max_ms >= 18


async def test_beats_come_every_millisecond() -> None:
    """In 200 ms the record speaks for about 200 beats, however busy the machine is: swallowed ones count."""
    heart = Heartbeat()
    heart.start()
    begin = time.monotonic()
    await asyncio.sleep(0.2)
    stall = heart.read()
    elapsed_ms = (time.monotonic() - begin) * 1e3
    heart.stop()

    assert 0.5 * elapsed_ms <= stall.beats <= elapsed_ms + 2


async def test_stopped_is_silent_and_twice_is_harmless() -> None:
    """After stop nothing is noted; starting or stopping twice changes nothing; a start begins empty."""
    heart = Heartbeat()
    heart.stop()
    heart.start()
    heart.start()
    time.sleep(0.01)
    heart.stop()
    heart.stop()
    beats = heart.read().beats
    await asyncio.sleep(0.005)

    assert beats >= 9
    assert heart.read() == Stall(0.0, 0.0, 0.0, 0)
    heart.start()
    heart.stop()
    assert heart.read().beats <= 1


async def test_a_restart_forgets_what_was_not_read() -> None:
    """Figures of an earlier run do not leak into the next."""
    heart = Heartbeat()
    heart.start()
    time.sleep(0.1)
    heart.stop()
    heart.start()
    heart.stop()

    assert heart.read().max_ms < 100
