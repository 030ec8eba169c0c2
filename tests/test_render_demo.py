"""What the demo's live panel, its lines and its summary say."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from ksi_migrate import render_demo
from ksi_migrate.demo_frame import Frame

FRAME = Frame(
    elapsed_s=12.34,
    phase="enable messaging",
    rate_per_s=2197.4,
    acknowledged=25611,
    loop_stall_p99_ms=4.58,
    loop_stall_max_ms=6.36,
    ping_p99_ms=None,
    components=(("messaging", "async"), ("claude_cli", "not built")),
    note="ksi-migrate enable messaging \x1b[2J",
)
WINDOW = {"rate_per_s": 2000.0, "loop_stall_p99_ms": 20.0, "loop_stall_max_ms": 40.0, "ping_p99_ms": 30.0}
COUNT = dict.fromkeys(("lost", "doubled", "out_of_order", "torn", "foreign", "refused", "not_undone"), 0)


def document(**more: Any) -> dict[str, Any]:
    """A finished demo."""
    count = {"acknowledged": 1234567, "on_disk": 1234567, **COUNT}
    return {
        "ok": True,
        "steps": [{"name": "start", "ok": True, "seconds": 0.56, "detail": "daemon 7"}],
        "before": WINDOW,
        "after": {**WINDOW, "loop_stall_p99_ms": 4.0},
        "fsync": {"before": {**WINDOW, "rate_per_s": 1000.0}, "after": None},
        "agents": {
            "before": {"agents": 5, "turn_s": 1.0, "seconds": 5.2, "loop_stall_max_ms": 5100.0},
            "after": None,
        },
        "files": {"before": None, "after": None},
        "counted": {**count, "files": [{"component": "messaging", **count}]},
        "problems": [],
        "kept": None,
        **more,
    }


def text(*parts: Any) -> str:
    """As a terminal without colours shows it."""
    out = io.StringIO()
    console = Console(file=out, width=140)
    for part in parts:
        console.print(part)
    return out.getvalue()


def test_work_on_files_is_compared():
    """Both sides of it stand side by side; without any there is no table."""
    work = {"conversations": 300, "lines": 60_000, "sets": 10, "seconds": 2.5, "loop_stall_max_ms": 900.0}
    shown = text(*render_demo.summary(document(files={"before": work, "after": {**work, "seconds": 0.5}})))

    assert "300 conversations of 60,000 lines, 10 keys set" in shown
    assert "5× better" in shown
    assert "keys set" not in text(*render_demo.summary(document()))


def test_the_live_panel_shows_phase_figures_and_stages():
    """All of the frame is in the panel, a dash for what is not known, and nothing commands the terminal."""
    shown = text(render_demo.live(FRAME))

    for part in (
        "12.3 s",
        "enable messaging",
        "2,200/s",
        "25,611",
        "4.58",
        "6.36",
        "–",
        "async",
        "not built",
    ):
        assert part in shown
    assert "\x1b" not in shown


def test_a_frame_is_one_line_for_a_pipe():
    """Off a terminal a frame is one line, with the stages of what is built."""
    shown = render_demo.line(FRAME)

    assert shown.startswith(
        " 12.3 s  enable messaging: rate 2,200/s, acknowledged 25,611, loop stall p99 4.58"
    )
    assert shown.endswith("; messaging=async")
    assert "\n" not in shown


def test_the_summary_compares_and_counts():
    """Before and after stand side by side with their ratio; a window that was not reached is a dash."""
    shown = text(*render_demo.summary(document()))

    assert "5× better" in shown
    assert "1,000/s" in shown
    assert "5 agents, a turn of 1 s each" in shown
    assert "5.2\N{NO-BREAK SPACE}s" in shown
    assert "every one of 1,234,567 acknowledged records is on disk once, whole and in order" in shown
    assert "!" not in shown


def test_the_summary_of_a_demo_gone_wrong_names_each_problem_and_the_place():
    """Problems, and the directory that was kept, are there; the good word is not."""
    steps = [{"name": "parity", "ok": False, "seconds": 1.0, "detail": "exit code 1"}]
    wrong = document(ok=False, steps=steps, problems=["one is lost"], kept="/scratch/demo")

    shown = text(*render_demo.summary(wrong))

    for part in ("error", "! one is lost", "kept for a look: /scratch/demo", "1 problem\n"):
        assert part in shown
    assert "every one of" not in shown
