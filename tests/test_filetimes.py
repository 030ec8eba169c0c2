"""When a file's times can be trusted."""

from __future__ import annotations

import pytest

from ksi_daemon.filetimes import COARSE_NS, TICK_NS, settled

THEN = 10**18


@pytest.mark.parametrize(
    ("modified", "changed", "after"),
    [(THEN, THEN, COARSE_NS), (THEN + 1, THEN, TICK_NS), (THEN, THEN + 1, TICK_NS)],
)
def test_a_change_soon_after_the_last_need_not_show(modified: int, changed: int, after: int) -> None:
    """For two seconds and more where both times are whole seconds: that file system may keep no others."""
    latest = max(modified, changed)

    assert not settled(modified, changed, latest + after)
    assert settled(modified, changed, latest + after + 1)
