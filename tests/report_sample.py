"""A bench document of the documented shape, with fast and slow sides and figures that are null."""

from __future__ import annotations

from typing import Any

FIGURES = (
    "throughput_per_s",
    "latency_p50_ms",
    "latency_p99_ms",
    "loop_stall_p99_ms",
    "loop_stall_max_ms",
    "cpu_s",
    "rss_peak_mib",
)
NOTHING = dict.fromkeys(FIGURES)


def side(*figures: float, spread: bool = True) -> dict[str, Any]:
    """One side of a case: figures in the order of FIGURES, and a spread around the throughput."""
    values: dict[str, Any] = dict(zip(FIGURES, figures, strict=True))
    if spread:
        values["spread"] = {"throughput_min": figures[0] * 0.91, "throughput_max": figures[0] * 1.07}
    return values


def case(
    name: str, callers: int, sides: tuple[dict, dict, dict], ratio: tuple[Any, Any, Any]
) -> dict[str, Any]:
    """One case: reference, sync and async, and the ratios as bench gives them."""
    names = ("throughput", "loop_stall_max", "vs_reference")
    columns = dict(zip(("reference", "sync", "async"), sides, strict=True))
    return {
        "name": name,
        "callers": callers,
        "rounds": 7,
        **columns,
        "ratio": dict(zip(names, ratio, strict=True)),
    }


def document() -> dict[str, Any]:
    """Give a new document each time, so that a test may change it."""
    many = (
        side(3890, 24.1, 41.2, 30.3, 48.2, 1.9, 48.3),
        side(3512, 26.3, 44.8, 31.2, 51.7, 2.1, 48.9),
        side(23417, 4.1, 8.7, 0.83, 1.42, 0.7, 52.6),
    )
    one = (
        side(4210, 0.21, 0.4, 0.4, 12.1, 0.4, 47.9),
        side(3975, 0.23, 0.45, 0.42, 12.6, 0.4, 48.1),
        side(2464, 0.38, 0.71, 0.2, 0.9, 0.5, 50.2),
    )
    synced = (
        side(188, 530, 560, 520, 590, 0.3, 48.0),
        side(181, 545, 581, 540, 602, 0.3, 48.4, spread=False),
        NOTHING,
    )
    return {
        "schema_version": 1,
        "command": "bench",
        "ok": True,
        "components": [
            {
                "name": "messaging",
                "cases": [
                    case("append, 100 callers", 100, many, (6.67, 36.4, 6.02)),
                    case("append, one caller", 1, one, (0.62, 14.0, 0.585)),
                ],
            },
            {"name": "claude_cli", "cases": [turns(agents) for agents in (1, 5, 20)], "switch_cost": None},
            {"name": "conversation", "cases": [refreshed()], "switch_cost": None},
            {
                "name": "completion",
                "cases": [case("record usage, fsync for each line", 100, synced, (None, None, None))],
            },
        ],
        "machine": {
            "python": "3.11.2",
            "platform": "Linux-6.1-x86_64",
            "cores": 2,
            "at": "2025-07-12 10:00 UTC",
            "idle_loop_stall_max_ms": 0.31,
        },
        "socket": {
            "cases": [socket_case("async", 123_456.7, 6.2, 154.3), socket_case("sync", 2930, 86.2, None)]
        },
    }


def turns(agents: int) -> dict[str, Any]:
    """One case of so many agents, a turn of a second each, with the figures that only it has."""
    slow, quick = 1.01 * agents, 1.01 + 0.01 * agents
    ours = {
        "reference": None if agents == 1 else slow,
        "sync": 1.02 * slow,
        "async": quick,
        "ratio": 1.02 * slow / quick,
    }
    sides = (
        side(0.99, 1010, 1e3 * slow, 990, 1e3 * slow, 8.1, 45.3),
        side(0.97, 1030, 1e3 * slow, 995, 1e3 * slow, 30.2, 45.4),
        side(agents / quick, 1010, 1020, 1.9, 6.1, 70.5, 45.9),
    )
    found = case(f"{agents} agents, 1 s each", agents, sides, (slow / quick, 1e3 * slow / 6.1, slow / quick))
    note = "reference and sync: 1 round, since each takes 20 s" if agents == 20 else ""
    return {**found, "more": {"wall_s": ours, "not_known_to_the_page": ours}, "note": note}


def refreshed() -> dict[str, Any]:
    """One case at three sizes, with what is asked of it; no reference was measured at the last."""
    sides = (
        side(3.1, 310, 330, 310, 330, 3100, 60.2),
        side(2.9, 350, 360, 340, 360, 3400, 61.0),
        side(150, 6.4, 9.1, 0.9, 2.3, 120, 140.5),
    )
    points = [
        {"at": 20, "reference": 3.1, "sync": 3.4, "async": 4.2},
        {"at": 200, "reference": 31.0, "sync": 33.6, "async": 4.9},
        {"at": 2000, "reference": None, "sync": 352.0, "async": 6.4},
    ]
    found = case("nothing changed, 2,000 sessions", 1, sides, (55.0, 156.5, 50.1))
    call = {"reference": 310.0, "sync": 352.0, "async": 6.4, "ratio": 55.0}
    growth = {"across": "sessions", "points": points}
    return {**found, "more": {"call_ms": call}, "bar": "at least 15 times faster", "growth": growth}


def socket_case(stage: str, publishes: float, ping: float, times: float | None) -> dict[str, Any]:
    """One case through the socket, beside the figures quoted for the original."""
    return {
        "name": "publish, pipelined",
        "connections": 4,
        "publishes_per_s": publishes,
        "ping_p50_ms": 0.8,
        "ping_p99_ms": ping,
        "original_publishes_per_s": 800,
        "original_ping_p99_ms": 270,
        "stage": stage,
        "times_original": times,
    }
