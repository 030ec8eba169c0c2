"""The demo as a whole: a real daemon migrated under load, and nothing left behind however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ksi_daemon import process, settings
from ksi_migrate import demo, demo_command, demo_scratch
from ksi_migrate.demo_command import StepFailed
from ksi_migrate.demo_files import Amount
from ksi_migrate.demo_scratch import DaemonFailed, daemon, scratch
from ksi_migrate.demo_script import PHASES, Script, Tempo
from ksi_migrate.exits import Exit, Refused

if TYPE_CHECKING:
    from ksi_migrate.demo_frame import Frame

ROOT = Path(__file__).parent.parent
RUN = """
from ksi_migrate import demo
from tests.test_demo import BRIEF
demo.FAST = BRIEF
def show(frame):
    print(frame.phase, flush=True)
demo.run(fast=True, show=show)
"""
BRIEF = Tempo(
    window_s=0.1,
    sample_s=0.1,
    pause_s=0.0,
    parity_apart=False,
    agents=2,
    turn_s=0.1,
    files=Amount(sessions=20, lines=10, sets=4, files=2, bytes_each=2000),
    forced=tuple(PHASES),
)
"""Every act, and little of each; parity has tests of its own."""


@pytest.fixture
def temporary(monkeypatch):
    """A temporary directory with a short name and nothing else in it, for this process and its children."""
    path = tempfile.mkdtemp(prefix="kd-")
    monkeypatch.setenv("TMPDIR", path)
    monkeypatch.setattr(tempfile, "tempdir", path)
    yield Path(path)
    shutil.rmtree(path)


def gone(pid: int) -> bool:
    """Whether no such process is left, within a second or two."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.unmeasured
@pytest.mark.timeout(180)
def test_a_fast_demo_migrates_under_load_and_loses_nothing(temporary):
    """Every act succeeds, both sides are measured, each acknowledged record is on disk once, in order."""
    frames: list[Frame] = []

    report = demo.run(fast=True, show=frames.append)

    assert report.problems == ()
    assert report.exit_code == Exit.DONE
    document = json.loads(json.dumps(report.document()))
    names = [step["name"].partition(" ")[0] for step in document["steps"]]
    acts = (
        "start measure measure agents files plan: enable plan: enable plan: enable sets plan: enable "
        "rollback enable measure measure agents files stop count count count"
    )
    assert names == acts.split()
    assert all(step["ok"] for step in document["steps"])
    for name in (name for names in PHASES.values() for name in names):
        assert document["before"]["stages"][name] == "sync"
        assert document["after"]["stages"][name] == "async"
    agents = document["agents"]
    assert [agents[when]["stage"] for when in ("before", "after")] == ["sync", "async"]
    assert agents["before"]["seconds"] >= agents["before"]["agents"] * agents["before"]["turn_s"]
    files = document["files"]
    assert [set(files[when]["stages"].values()) for when in ("before", "after")] == [{"sync"}, {"async"}]
    assert files["before"]["lines"] == 60_000
    durabilities = [figures["durability"] for figures in (*document["fsync"].values(), document["after"])]
    assert durabilities == ["fsync", "fsync", "os"]
    counted = document["counted"]
    assert counted["acknowledged"] == counted["on_disk"] > 1000
    assert all(counted[fault] == 0 for fault in ("lost", "doubled", "out_of_order", "torn", "foreign"))
    assert [file["component"] for file in counted["files"]] == ["messaging", "completion", "config"]
    assert counted["files"][2]["acknowledged"] > 2 * files["before"]["sets"]
    assert {"sync", "async"} == {dict(frame.components)["messaging"] for frame in frames if frame.components}
    assert list(temporary.iterdir()) == []


@pytest.mark.unmeasured
@pytest.mark.parametrize(("number", "phase"), [(signal.SIGINT, b"plan"), (signal.SIGTERM, b"measure")])
def test_an_interrupted_demo_leaves_nothing_behind(temporary, number, phase):
    """Ctrl-C and SIGTERM stop the daemon and the command that runs, and remove the scratch directory."""
    child = subprocess.Popen(
        [sys.executable, "-c", RUN], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    while phase not in (line := child.stdout.readline()):
        assert line  # the demo has not ended before
    [root] = temporary.iterdir()
    pid = process.holder(settings.load(root))

    assert pid
    child.send_signal(number)
    _, err = child.communicate(timeout=30)

    assert b"KeyboardInterrupt" in err
    assert child.returncode != 0
    assert gone(pid)
    assert list(temporary.iterdir()) == []


def test_a_demo_gone_wrong_ends_with_1_and_keeps_its_directory(temporary, monkeypatch):
    """A command that fails is a problem; what the load brought in is counted, and the directory stays."""
    monkeypatch.setattr(demo, "FAST", BRIEF)
    monkeypatch.setattr(demo_command, "MIGRATE", ("-c", "import sys; sys.exit('no such luck')"))

    report = demo.run(fast=True, show=lambda _: None)

    assert report.exit_code == Exit.FINDING
    assert report.problems == ("plan: week 1: ksi-migrate plan ended with exit code 1: no such luck",)
    assert [step.name for step in report.steps if not step.ok] == ["plan: week 1"]
    assert "after" not in report.figures
    assert report.counted[0].count.acknowledged == report.counted[0].count.on_disk > 0
    document = report.document()
    assert report.kept
    assert (document["ok"], document["after"], document["kept"]) == (False, None, report.kept)
    assert [Path(report.kept)] == list(temporary.iterdir())


def test_a_log_that_lost_a_line_is_a_finding(temporary, monkeypatch):
    """The whole demo fails when one line of the log disappears before the count."""
    real = demo._count

    def lossy(place, ledgers, steps):
        path = place.settings.response_log_dir / "message_bus.jsonl"
        path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
        return real(place, ledgers, steps)

    async def briefly(self):
        await self._meter.next_sample()
        await self._meter.next_sample()

    monkeypatch.setattr(demo, "FAST", BRIEF)
    monkeypatch.setattr(demo, "_count", lossy)
    monkeypatch.setattr(Script, "_acts", briefly)

    report = demo.run(fast=True, show=lambda _: None)

    assert report.exit_code == Exit.FINDING
    assert report.document()["counted"]["lost"] == 1
    assert [step.ok for step in report.steps] == [True, True, False, True, True]
    assert "1 lost: 0" in report.problems[0]


def test_a_daemon_that_does_not_start_is_a_finding_with_its_last_words(temporary, monkeypatch):
    """Nothing is measured or counted; the problem holds the end of the daemon's log."""
    monkeypatch.setattr(demo_scratch, "initial_flags", lambda: "")
    with scratch() as place, daemon(place):
        pass  # no valid flags: it starts all the same, all at sync

    monkeypatch.setattr(demo_scratch, "SOURCE", temporary)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "executable", "/bin/false")

    report = demo.run(fast=True, show=lambda _: None)

    assert report.exit_code == Exit.FINDING
    assert report.problems == ("start: the daemon ended at its start; its log ends: nothing",)
    assert report.document()["counted"]["on_disk"] == 0


def test_a_daemon_that_never_answers_is_ended(temporary, monkeypatch):
    """After its time it is said not to have started, and is gone; one that ignores SIGTERM is killed."""
    script = temporary / "deaf"
    script.write_text("#!/bin/sh\ntrap '' TERM\necho deaf\nwhile :; do sleep 0.05; done\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(demo_scratch, "READY_S", 0.5)
    monkeypatch.setattr(demo_scratch, "STOP_S", 0.2)

    with (
        scratch() as place,
        pytest.raises(DaemonFailed, match="did not start; its log ends: deaf"),
        daemon(place),
    ):
        pass


def test_a_temporary_directory_with_too_long_a_name_is_refused(temporary, monkeypatch):
    """No socket fits there; the message says what to do, and nothing is left behind."""
    deep = temporary / ("long" * 25)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))

    with pytest.raises(Refused, match="too long for a socket") as refused:
        demo.run(fast=True, show=lambda _: None)

    assert "TMPDIR" in refused.value.hint
    assert list(deep.iterdir()) == []


def test_the_users_own_settings_do_not_lead_the_demo_elsewhere(temporary, monkeypatch):
    """KSI_ variables are the user's daemon's: neither this process nor a child of the demo follows them."""
    monkeypatch.setenv("KSI_SOCKET_PATH", "/nowhere/daemon.sock")

    with scratch() as place:
        assert place.settings.socket_path == place.root / "var/run/daemon.sock"
        assert "KSI_SOCKET_PATH" not in demo_scratch.environment()

    assert os.environ["KSI_SOCKET_PATH"] == "/nowhere/daemon.sock"


async def test_a_command_that_takes_too_long_is_ended(temporary, monkeypatch):
    """Its time over, it is interrupted, then killed with its children, and the step has failed."""
    pid = temporary / "pid"
    deaf = "import os, signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    tell = f"open({str(pid)!r}, 'w').write(str(os.getpid()))"
    monkeypatch.setattr(demo_command, "MIGRATE", ("-c", f"{deaf}; {tell}; time.sleep(60)"))
    monkeypatch.setattr(demo_command, "PATIENCE_S", 2.0)
    monkeypatch.setattr(demo_command, "END_S", 0.2)

    with pytest.raises(StepFailed, match="ksi-migrate plan did not end within 2 s"):
        await demo_command.ksi_migrate(temporary, "plan")

    assert gone(int(pid.read_text()))


async def test_the_error_of_a_command_is_in_its_failure(temporary):
    """A document that says why is preferred to what was printed beside it."""
    with pytest.raises(StepFailed, match=r"ksi-migrate plan ended with exit code 2: there is no phase 9"):
        await demo_command.ksi_migrate(temporary, "plan", "--phase", "9")
