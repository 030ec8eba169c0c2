"""What is shown: tables for people, frames and spinner on a terminal, and nothing in colour off it."""

import subprocess
import sys
from typing import Any

import pytest

from ksi_migrate import bench, demo, parity, render
from ksi_migrate.demo_frame import Frame
from ksi_migrate.exits import Exit, document
from ksi_migrate.render_demo import FAULTS
from tests.daemon import PATIENCE, environment, write_flags
from tests.operate import PROGRAM, migrate, migrate_apart


@pytest.fixture
def root(tmp_path):
    """A root with the project's flags.yaml, on which no daemon has run."""
    write_flags(tmp_path)
    return tmp_path


def test_no_colour_and_no_spinner_off_a_terminal(root):
    """Through a pipe there are no escape sequences, and nothing on stderr."""
    ended = migrate_apart("status", "--root", root, FORCE_COLOR="")

    assert "\x1b" not in ended.out
    assert ended.err == ""


def test_terminal_gets_colour_unless_no_color(root):
    """On a terminal NO_COLOR decides."""
    words = [*PROGRAM, "status", "--root", str(root)]
    wrapped = ["import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)", *words]
    env = environment(TERM="xterm-256color")
    shown = {}
    for name in ("NO_COLOR", "UNUSED"):
        chosen = {key: value for key, value in env.items() if key != "NO_COLOR"} | {name: "1"}
        done = subprocess.run(
            [sys.executable, "-c", *wrapped],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=chosen,
            timeout=PATIENCE,
            check=False,
        )
        shown[name] = done.stdout

    assert b"\x1b[33msync" not in shown["NO_COLOR"]
    assert b"\x1b[33msync" in shown["UNUSED"]


class Given:
    """A report with the document and exit code that it was given."""

    def __init__(self, body, code=Exit.DONE):
        self.body, self.exit_code = body, code

    def document(self):
        """As given."""
        return self.body


MISMATCHES = [{"case": f"case {n}", "what": "reply", "sync": "1", "async": "2"} for n in range(7)]
PARITY = document(
    "parity",
    ok=False,
    components=[{"name": "messaging", "ok": False, "cases": 9, "mismatches": MISMATCHES, "inconclusive": []}],
    faults=[{"component": "messaging", "method": "append", "fault": "drop", "caught_by": []}],
)


def test_parity_passes_its_options_on(root, monkeypatch):
    """Each option reaches parity; mismatches and faults are shown, and the verdict is kept in the root."""
    asked: dict[str, Any] = {}

    def run(_names, **more):
        asked.update(more)
        return Given(PARITY, Exit.FINDING)

    monkeypatch.setattr(parity, "run", run)
    (root / "var/migrate").mkdir(parents=True)
    words = ("--data", root, "--seed", 3, "--junit", root / "j.xml", "--prove", "--root", root)
    ended = migrate("parity", "messaging", *words)

    asked.pop("progress")
    assert asked == {"data": root, "seed": 3, "junit": root / "j.xml", "prove": True}
    assert ended.code == 1
    assert "and 2 more; --json shows all" in ended.out
    assert "planted fault" in ended.out
    assert migrate("status", "--json", "--root", root).stages("last_parity")["messaging"]["ok"] is False


def test_parity_without_a_verdict_says_why(monkeypatch):
    """What could not be compared is exit 5, and its reason is shown."""
    row = {"name": "messaging", "ok": True, "cases": 9, "mismatches": [], "inconclusive": ["no disk"]}
    found = Given(document("parity", ok=False, components=[row]), Exit.INCONCLUSIVE)
    monkeypatch.setattr(parity, "run", lambda *_, **__: found)
    ended = migrate("parity")

    assert ended.code == 5
    assert "messaging has no verdict: no disk" in ended.out
    assert "planted fault" not in ended.out


def test_enable_shows_the_mismatches_that_refused_it(root, monkeypatch):
    """Parity is run by enable itself, and what it found stands beside the refusal."""
    monkeypatch.setattr(parity, "run", lambda *_, **__: Given(PARITY, Exit.FINDING))
    ended = migrate("enable", "messaging", "--root", root)

    assert ended.code == 4
    assert ended.err.startswith("error: the sides differ: messaging\nhint: ")
    assert "case 0" in ended.out


SIDE = {"throughput_per_s": 1000.0, "latency_p50_ms": 1.0, "latency_p99_ms": 2.0, "cpu_s": 0.1}
BENCH = document(
    "bench",
    ok=True,
    components=[
        {
            "name": "messaging",
            "cases": [
                {"name": "append", "callers": 100, "sync": SIDE, "async": SIDE, "ratio": {"throughput": 6.7}},
            ],
        }
    ],
    socket={"cases": [{"name": "publish", "stage": "async", "publishes_per_s": 50000.0}]},
    notes=["a note"],
)


def test_bench_passes_its_options_on(root, monkeypatch):
    """Each option reaches bench; figures, ratios, socket and notes are shown."""
    asked: dict[str, Any] = {}

    def run(names, **more):
        asked.update(names=names, **more)
        return Given(BENCH)

    monkeypatch.setattr(bench, "run", run)
    ended = migrate(
        "bench", "messaging", "--rounds", 3, "--socket", "--stall", "--report", "x.html", "--root", root
    )

    assert (asked["names"], asked["rounds"], asked["root"]) == (("messaging",), 3, root)
    assert (asked["socket"], asked["stall"], str(asked["report"])) == (True, True, "x.html")
    for word in ("append", "2 ms", "1,000/s", "6.7×", "through the socket", "50,000/s", "· a note"):
        assert word in ended.out


def test_bench_without_a_socket(root, monkeypatch):
    """Without --socket there is no such table, and a side that was not measured has no row."""
    body = {key: value for key, value in BENCH.items() if key != "socket"}
    monkeypatch.setattr(bench, "run", lambda *_, **__: Given(body))
    ended = migrate("bench", "--root", root)

    assert "through the socket" not in ended.out
    assert "reference " not in ended.out.replace("against reference", "")


FRAME = Frame(
    1.0, "enable", 900.0, 12, 0.5, None, 1.0, (("messaging", "async"), ("agent", "not built")), "flip"
)
WINDOW = {"rate_per_s": 900.0, "loop_stall_p99_ms": 1.0, "loop_stall_max_ms": 2.0, "ping_p99_ms": None}
COUNTED = {"acknowledged": 9, "on_disk": 9, **dict.fromkeys(FAULTS, 0)}
DEMO = document(
    "demo",
    ok=False,
    steps=[{"name": "enable", "ok": True, "seconds": 1.0, "detail": "in force"}],
    before=WINDOW,
    after=WINDOW,
    fsync={"before": None, "after": WINDOW},
    agents={
        "before": {
            "agents": 5,
            "turn_s": 1.0,
            "seconds": 5.2,
            "loop_stall_max_ms": 5100.0,
            "ping_p99_ms": None,
        },
        "after": {"agents": 5, "turn_s": 1.0, "seconds": 1.3, "loop_stall_max_ms": 4.0, "ping_p99_ms": 3.0},
    },
    files={"before": None, "after": None},
    counted={**COUNTED, "files": [{"component": "messaging", "path": "x", **COUNTED}]},
    problems=["one is lost"],
    kept="/somewhere",
)


def test_demo_shows_a_line_for_each_phase_and_the_count(monkeypatch):
    """Off a terminal each phase is one line on stderr; the count and what is off come at the end."""

    def run(*, fast, show):
        assert fast is True
        show(FRAME)
        show(FRAME)
        return Given(DEMO, Exit.FINDING)

    monkeypatch.setattr(demo, "run", run)
    monkeypatch.setenv("COLUMNS", "160")
    ended = migrate("demo", "--fast")

    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert "enable: rate 900/s" in ended.err
    assert ended.err.endswith("messaging=async\n")
    for word in (
        "in force",
        "before: sync",
        "on disk",
        "! one is lost",
        "kept for a look: /somewhere",
        "5 agents",
    ):
        assert word in ended.out
    assert "5 agents, a turn of 1 s each" in ended.out


def test_demo_that_went_well_keeps_nothing(monkeypatch):
    """Without a problem there is nothing to inspect."""
    body = {**DEMO, "ok": True, "problems": [], "kept": None}
    monkeypatch.setattr(demo, "run", lambda **_: Given(body))
    ended = migrate("demo")

    assert (ended.code, "kept" in ended.out, "! " in ended.out) == (0, False, False)


def test_terminal_gets_spinner_and_live_frames():
    """On a terminal progress and frames are shown in place, and the cursor is left as it was."""
    script = (
        "from ksi_migrate import render\n"
        "from tests.test_cli_output import FRAME\n"
        "with render.Spinner() as spinner:\n"
        "    spinner.step('comparing', 1, 2)\n"
        "    spinner.pause()\n"
        "with render.Live() as live:\n"
        "    live.show(FRAME)\n"
    )
    wrapped = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    done = subprocess.run(
        [sys.executable, "-c", wrapped, sys.executable, "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(TERM="xterm-256color"),
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert b"1/2 comparing" in done.stdout
    assert b"900/s" in done.stdout
    assert done.stdout.count(b"\x1b[?25l") == done.stdout.count(b"\x1b[?25h")


def test_spinner_is_silent_off_a_terminal(capsys):
    """Nothing is printed, whatever is told."""
    with render.Spinner() as spinner:
        spinner.step("comparing", 1, 2)
        spinner.pause()

    assert capsys.readouterr() == ("", "")
