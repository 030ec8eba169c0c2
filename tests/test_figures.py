"""Numbers as people read them."""

from __future__ import annotations

import pytest

from ksi_migrate import figures


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (figures.rate(23417.3), "23,400/s"),
        (figures.rate(0.62), "0.62/s"),
        (figures.rate(1_234_567), "1.23M/s"),
        (figures.rate(None), "–"),
        (figures.rate(999.6), "1,000/s"),
        (figures.milliseconds(0.8), "0.8\xa0ms"),
        (figures.milliseconds(12_340), "12.3\xa0s"),
        (figures.milliseconds(0), "0\xa0ms"),
        (figures.milliseconds(0.0004), "< 0.01\xa0ms"),
        (figures.milliseconds(-0.0004), "0\xa0ms"),
        (figures.seconds(1.239), "1.24\xa0s"),
        (figures.mebibytes(48.31), "48.3\xa0MiB"),
        (figures.times(6.674), "6.7×"),
        (figures.times(317.2), "317×"),
        (figures.times(None), "–"),
        (figures.better(6.674), "6.7× better"),
        (figures.better(0.62), "1.6× worse"),
        (figures.better(1.01), "about the same"),
        (figures.better(0), "–"),
        (figures.short(20_000), "20k"),
        (figures.short(1_500_000), "1.5M"),
        (figures.short(0.1), "0.1"),
    ],
)
def test_numbers_are_written_for_people(written: str, expected: str) -> None:
    """About three figures, thousands set apart, the unit at the number."""
    assert written == expected
