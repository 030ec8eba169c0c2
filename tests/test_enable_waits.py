"""`enable` and those it waits for: the operator, another ksi-migrate, and the daemon."""

import os
import pty
import select
import subprocess
from dataclasses import replace

import pytest

from ksi_daemon import settings
from ksi_daemon.flags import Stage
from ksi_migrate import acknowledge, enable, flagfile, gates, situation
from ksi_migrate.progress import QUIET
from ksi_migrate.step import Order, Step
from tests.daemon import PATIENCE, environment, running, write_flags
from tests.operate import PROGRAM, migrate
from tests.situations import part, seen

FORCED = ("--force", "--reason", "a test")


@pytest.fixture
def root(tmp_path):
    """A root with the project's flags.yaml, on which no daemon has run."""
    write_flags(tmp_path)
    return tmp_path


def test_no_wait_leaves_it_to_the_daemon(root):
    """--no-wait edits, nudges the daemon, and returns at once."""
    with running(root):
        ended = migrate("enable", "messaging", "--no-wait", "--json", "--root", root, *FORCED)
        later = acknowledge.wait(settings.load(root), ["messaging"], Stage.ASYNC, PATIENCE, QUIET)

    assert (ended.code, ended.document["applied"]) == (0, False)
    assert "not waited for" in ended.document["components"][0]["reason"]
    assert not later.waiting


def test_refusal_that_cannot_be_put_back_is_told(root):
    """When flags.yaml cannot be edited any more, the report says what it still says."""
    step = Step(situation.look(settings.load(root)), ("messaging",), Order())
    (root / "flags.yaml").write_text("version: 2\n")
    enable._put_back(settings.load(root), step, {"messaging": "disk"})

    assert step.notes[0].startswith("flags.yaml still says async for messaging: ")


def test_earlier_phase_closes_the_gate():
    """A built component of an earlier week that is not at async closes it; unbuilt ones do not."""
    first, second = part("messaging"), part("agent", phase=2)

    assert not gates.earlier([first, second], 2).open
    assert gates.earlier([replace(first, effective=Stage.ASYNC), second], 2).open
    assert gates.earlier([replace(first, built=False), second], 2).open


def test_lock_of_another_is_exit_6(root):
    """While another ksi-migrate holds the lock, an upward step ends with exit 6."""
    with flagfile._locked(root / "var/migrate/lock", 1.0):
        ended = migrate("enable", "messaging", "--json", "--root", root, *FORCED)

    assert (ended.code, ended.document["error"]["code"]) == (6, "lock_held")


def test_stale_refusal_is_not_believed_at_once():
    """A refusal counts only once the daemon had time to read again, and never on the way down."""
    refused = seen(part("messaging", refused="disk", desired=Stage.ASYNC))
    judge = acknowledge.judge

    assert judge(refused, ["messaging"], Stage.ASYNC, believe=False).waiting
    assert judge(refused, ["messaging"], Stage.ASYNC, believe=True).refused == {"messaging": "disk"}
    assert not judge(refused, ["messaging"], Stage.SYNC, believe=True).refused


def rising(**change):
    """A component whose flags say async, and which is not there yet."""
    return part("messaging", desired=Stage.ASYNC, **change)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (seen(part("messaging"), answers=False, running=False), "the daemon is not running"),
        (seen(rising(flipping={"waits_for": "2 calls"})), "messaging waits for 2 calls"),
        (seen(part("messaging", effective=Stage.ASYNC), current=False), "the daemon has not read the change"),
        (
            seen(rising(effective=Stage.ASYNC)),
            "messaging is at async, but that is not recorded yet",
        ),
        (seen(rising()), "messaging is still at sync"),
    ],
)
def test_each_wait_says_what_for(found, said):
    """What is still to come is said in words."""
    outcome = acknowledge.judge(found, ["messaging"], Stage.ASYNC, believe=True)

    assert outcome.waiting["messaging"].startswith(said)


def test_flags_that_the_daemon_refuses_are_a_refusal():
    """A daemon of another release may refuse what we find valid; that is its word."""
    found = seen(part("messaging"), flags_errors=("flags.yaml: no",))

    assert acknowledge.judge(found, ["messaging"], Stage.ASYNC, believe=True).refused == {
        "messaging": "flags.yaml: no"
    }


def test_daemon_that_ends_meanwhile_is_no_failure():
    """What is written then waits for the next start: nothing was refused, nothing is late."""
    step = Step(seen(part("messaging")), ("messaging",), Order())
    gone = seen(part("messaging"), answers=False, running=False)
    outcome = acknowledge.judge(gone, ["messaging"], Stage.ASYNC, believe=True)

    assert enable._error(step, outcome) is None
    assert enable._how("messaging", step, outcome) == (False, "the daemon is not running")


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 4), (b"y\n", 0)])
def test_on_a_terminal_it_asks(root, answer, code):
    """A real terminal is asked; no is exit 4, yes goes on."""
    leader, follower = pty.openpty()
    words = [*PROGRAM, "enable", "messaging", "--root", str(root), *FORCED]
    with subprocess.Popen(
        words, stdin=follower, stderr=follower, stdout=subprocess.PIPE, env=environment(TERM="xterm")
    ) as command:
        os.close(follower)
        shown = b""
        while b"[y/N]" not in shown:
            assert select.select([leader], [], [], PATIENCE)[0]
            shown += os.read(leader, 4096)
        os.write(leader, answer)
        command.communicate(timeout=PATIENCE)
    os.close(leader)

    assert code == command.returncode
    assert "messaging: sync → async".encode() in shown
