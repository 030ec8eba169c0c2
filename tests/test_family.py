"""The processes of a run in the process table: found, told apart, reaped, and swept up after a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ksi_daemon import family, proctable
from ksi_daemon.children import Overtime, run
from ksi_daemon.family import Family, become_subreaper, reap_adopted, sweep
from ksi_daemon.lane import Lane
from ksi_daemon.proctable import Proc, Process, Ps
from tests.families import ESCAPED, FOREVER, KINDS, OURS, command, left, stop_adopting, zombies

RUNS_A_TURN = """
import asyncio, pathlib, sys
from ksi_daemon import children
from ksi_daemon.lane import Lane
from tests.families import command
async def main():
    place = pathlib.Path(sys.argv[1])
    await children.run(command(place, sys.argv[2], mark=sys.argv[3]), Lane("t"))
asyncio.run(main())
"""


@pytest.fixture
def adopting():
    """This process adopts orphans."""
    assert become_subreaper()
    yield
    stop_adopting()


@pytest.fixture
def start():
    """`start(words, **variables)`: a process of ours, killed at the end."""
    children = []

    def begin(*words, **variables):
        env = {"PATH": os.environ["PATH"], **variables}
        children.append(subprocess.Popen(words, env=env, start_new_session=True))
        return children[-1]

    yield begin
    for child in children:
        child.kill()
        child.wait()


def until(true):
    """Wait for a condition."""
    while not true():
        time.sleep(0.002)


def entry(pid):
    """The process of that pid in the table."""
    return next(process for process in Proc().look() if process.pid == pid)


def test_nobody_takes_the_status_of_anothers_child(adopting, start, monkeypatch):
    """A dead child that its starter has not waited for yet is left, until it is surely an orphan's."""
    monkeypatch.setattr(family, "UNCLAIMED", 600.0)
    child = start("sh", "-c", "exit 7")
    until(lambda: not entry(child.pid).alive)
    reaped = [reap_adopted() for _ in range(3)]

    assert reaped == [0, 0, 0]
    assert child.wait() == 7


def test_the_status_of_a_main_process_is_never_taken(adopting, start, monkeypatch):
    """It is asyncio's, however long its thread takes."""
    monkeypatch.setattr(family, "UNCLAIMED", 0.0)
    reap_adopted()  # what other tests of this process have left
    ours = Family(OURS)
    child = start("sh", "-c", "exit 7", KSI_TURN=OURS)
    ours.started(child.pid)
    until(lambda: not entry(child.pid).alive)  # and not waited for yet
    reaped = reap_adopted()
    ours.press(signal.SIGKILL)
    nothing = ours.press(signal.SIGKILL)
    ours.over()

    assert (reaped, nothing) == (0, [])
    assert child.wait() == 7


def test_adopted_orphans_are_reaped_when_nobody_claims_them(adopting, tmp_path, monkeypatch):
    """Two looks apart; and one that is gone is forgotten."""
    monkeypatch.setattr(family, "UNCLAIMED", 0.05)
    subprocess.run(["sh", "-c", "sleep 0.05 & exit"], check=True)
    until(zombies)
    first = reap_adopted()
    time.sleep(0.06)

    assert (first, reap_adopted(), zombies()) == (0, 1, [])
    assert reap_adopted() == 0
    assert family._unclaimed == {}


def test_who_does_not_adopt_reaps_nothing(start):
    """A dead child is then always somebody's own."""
    child = start("sh", "-c", "exit 7")
    until(lambda: not entry(child.pid).alive)

    assert reap_adopted() == 0
    assert child.wait() == 7


def test_a_daemons_own_children_are_no_strays(adopting, start):
    """What it started in its own session, before, or with another mark stays when a run ends."""
    env = {"PATH": os.environ["PATH"]}
    before = start("sleep", "100")
    time.sleep(0.05)
    ours = Family(OURS)
    same_session = subprocess.Popen(["sleep", "100"], env=env)
    marked = start("sleep", "100", KSI_TURN=OURS + "theirs")
    until(lambda: Proc().mark(marked.pid))
    pressed = ours.press(signal.SIGKILL)
    ours.over()
    alive = [entry(child.pid).alive for child in (before, same_session, marked)]
    same_session.kill()
    same_session.wait()

    assert (pressed, alive) == ([], [True, True, True])


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_daemon_left_is_swept_up(tmp_path, start, kind):
    """The turn itself and what descends from it, by the beginning of its mark; a foreign turn stays."""
    foreign = start("sleep", "100", KSI_TURN=OURS + "swep")
    script = f"{KINDS[kind]}\ntouch began; {FOREVER}"
    daemon = subprocess.Popen(
        [sys.executable, "-c", RUNS_A_TURN, str(tmp_path), script, OURS + "swept-1"], cwd=Path.cwd()
    )
    until((tmp_path / "began").exists)
    until(lambda: len(left(tmp_path)) > 2)
    daemon.kill()
    daemon.wait()

    orphans = kind == "no environment, orphaned"
    assert sweep(OURS + "swept-") >= 2
    until(lambda: len(left(tmp_path)) <= orphans)
    assert foreign.poll() is None
    assert sweep(OURS + "swept-") == 0
    for pid in left(tmp_path):
        os.kill(pid, signal.SIGKILL)


def test_a_sweep_spares_itself_and_those_before_it(tmp_path):
    """A turn may have started the daemon that sweeps, by a shell."""
    code = f"from ksi_daemon.family import sweep; print(sweep('{OURS}mine-'))"
    (tmp_path / "empty").touch()
    script = f'{FOREVER} & {sys.executable} -c "{code}"; echo here'
    env = {**os.environ, "KSI_TURN": OURS + "mine-1"}
    done = subprocess.run(
        ["sh", "-c", script, str(tmp_path)], env=env, capture_output=True, text=True, check=True
    )

    assert done.stdout == "1\nhere\n"


def test_a_sweep_ends_though_something_stays(start, monkeypatch):
    """It tries for a while."""
    monkeypatch.setattr(family, "SWEEPING", 0.05)
    monkeypatch.setattr(Proc, "send", lambda *_args: None)
    child = start("sleep", "100", KSI_TURN=OURS + "stays-1")
    until(lambda: Proc().mark(child.pid))

    assert sweep(OURS + "stays-") == 1


@pytest.fixture
def portable(monkeypatch):
    """A system without /proc, pidfds and adoption: only ps."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert isinstance(proctable.table(), Ps)


@pytest.mark.parametrize("kind", KINDS)
async def test_with_ps_alone_a_killed_run_takes_its_tree_along(tmp_path, portable, kind):
    """All that the main process is still an ancestor of, or that is in its group; the rest goes."""
    lane = Lane("ksi-test")
    script = f"{KINDS[kind]}\n{FOREVER}"
    with pytest.raises(Overtime):
        await run(command(tmp_path, script, deadline_s=0.4), lane)
    await lane.close(5)
    gone = left(tmp_path)
    for pid in gone:
        os.kill(pid, signal.SIGKILL)

    assert (len(gone) > 0) == (kind == "double-forked")


async def test_with_ps_alone_a_run_that_ended_takes_its_group_along(tmp_path, portable):
    """Its children in the same group, whose parent is dead by then."""
    lane = Lane("ksi-test")
    done = await run(command(tmp_path, f"{KINDS['child']} echo well"), lane)
    await lane.close(5)

    assert done.stdout == b"well\n"
    assert left(tmp_path) == []


def test_with_ps_alone_nothing_adopts_and_nothing_is_swept(portable):
    """Environments are not to be seen there."""
    assert not become_subreaper()
    assert not Ps().adopts()
    assert not Ps().reap(Process(1, 0, 0, 0, alive=False))
    assert sweep(OURS + "swept-") == 0


async def test_a_daemon_that_got_away_is_found_by_who_adopts(tmp_path, adopting):
    """Here that is us; without adoption it would be left."""
    lane = Lane("ksi-test")
    script = f"{ESCAPED}; while ! pgrep -f 'tail -f {tmp_path}' >/dev/null; do :; done; echo well"
    done = await run(command(tmp_path, script), lane)
    await lane.close(5)

    assert (done.stdout, left(tmp_path), zombies()) == (b"well\n", [], [])
    assert asyncio.all_tasks() == {asyncio.current_task()}
