"""Whether a file's times tell of every change of its content: what a cache may trust. Pure."""

from __future__ import annotations

from typing import Final

TICK_NS: Final = 50_000_000
"""For so long after a change another one need not have another time, by the kernel's clock."""

COARSE_NS: Final = 2_500_000_000
"""The same on file systems that keep whole seconds, or every other one."""

_SECOND_NS: Final = 1_000_000_000


def settled(modified: int, changed: int, now: int) -> bool:
    """Whether the last change is so long ago that a further one must show; all three in nanoseconds."""
    coarse = modified % _SECOND_NS == 0 and changed % _SECOND_NS == 0
    return max(modified, changed) + (COARSE_NS if coarse else TICK_NS) < now
