"""What the demo shows and measures: one frame of the live picture, and the figures of one window."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Frame:
    """The demo at one moment, since the last one; None where nothing could be measured.

    `components` are (name, stage in force), or "not built", in roadmap order; `note` says what goes on in
    the phase, and may be empty.
    """

    elapsed_s: float
    phase: str
    rate_per_s: float
    acknowledged: int
    loop_stall_p99_ms: float | None
    loop_stall_max_ms: float | None
    ping_p99_ms: float | None
    components: tuple[tuple[str, str], ...]
    note: str


@dataclass(frozen=True, slots=True)
class Figures:
    """One window under load: acknowledged requests a second, the loop's stall, a ping's p99.

    The stall's p99 is the median over the samples of the window, its maximum and the ping's p99 are those of
    the whole window. None where the daemon gave no answer.
    """

    stages: Mapping[str, str]
    durability: str
    seconds: float
    rate_per_s: float
    loop_stall_p99_ms: float | None
    loop_stall_max_ms: float | None
    ping_p99_ms: float | None

    def document(self) -> dict[str, Any]:
        """As it stands in the `--json` document."""
        return asdict(self)


def p99(values: list[float]) -> float | None:
    """The least value that 99 % do not exceed; None without values."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * 99 // 100) - 1)] if ordered else None
