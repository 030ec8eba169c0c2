"""`status`: what is desired, in force and acknowledged, from the daemon or from the files alone."""

import fcntl
import json
import signal

import pytest

from ksi_daemon import settings
from ksi_daemon.flags import Stage
from ksi_migrate import ask, situation, status
from ksi_migrate.exits import Exit
from ksi_migrate.flagfile import set_ceiling
from tests.daemon import running, write_flags
from tests.operate import migrate
from tests.situations import part, seen
from tests.strange_server import answering


@pytest.fixture
def root(tmp_path):
    """A root with the project's flags.yaml, on which no daemon has run."""
    write_flags(tmp_path)
    return tmp_path


def test_status_of_a_new_root_is_well(root):
    """Without a daemon the files alone are shown, and a stopped daemon is no failure."""
    ended = migrate("status", "--json", "--root", root)

    assert ended.code == 0
    assert ended.document["daemon"] == {"running": False, "answers": False, "pid": None, "generation": None}
    assert ended.document["flags"] == {"path": str(root / "flags.yaml"), "valid": True, "errors": []}
    assert set(ended.stages().values()) == {"sync"}
    assert not (root / "var").exists()


def test_status_of_a_running_daemon(root):
    """A daemon that has read the files as they are is asked, and its own account is shown."""
    write_flags(root, messaging="async")
    with running(root) as daemon:
        ended = migrate("status", "--json", "--root", root)

    assert (ended.code, ended.document["daemon"]["pid"]) == (0, daemon.pid)
    assert ended.stages()["messaging"] == ended.stages("acknowledged")["messaging"] == "async"
    assert ended.document["problems"] == []


def test_status_without_a_daemon_keeps_its_last_word(root):
    """After the daemon's end state.json says what was acknowledged, flags.yaml what the next start does."""
    with running(root) as daemon:
        daemon.stop()
    write_flags(root, completion="async")
    ended = migrate("status", "--json", "--root", root)

    assert ended.code == 0
    assert (ended.stages()["completion"], ended.stages("acknowledged")["completion"]) == ("async", "sync")


def test_status_shows_refused_flags(root):
    """An invalid flags.yaml is a disagreement, with file, line and reason."""
    with running(root):
        text = (root / "flags.yaml").read_text()
        (root / "flags.yaml").write_text(text.replace("messaging: sync", "messaging: off"))
        ended = migrate("status", "--json", "--root", root)

    assert ended.code == 1
    assert ended.document["flags"]["valid"] is False
    assert "stage of messaging must be sync or async" in ended.document["problems"][0]


def test_status_without_a_daemon_and_flags(tmp_path):
    """In a directory that is no root everything is at sync, and the missing file is named."""
    ended = migrate("status", "--json", "--root", tmp_path)

    assert ended.code == 1
    assert "is missing" in ended.document["problems"][0]
    assert ended.stages("desired")["messaging"] is None


def test_status_of_a_wedged_daemon_is_exit_3(root):
    """A daemon that holds the root and does not answer is told apart from one that is down."""
    with running(root) as daemon:
        daemon.process.send_signal(signal.SIGSTOP)
        ended = migrate("status", "--json", "--root", root)
        people = migrate("status", "--root", root)
        daemon.process.send_signal(signal.SIGCONT)

    told = ended.document["daemon"]
    assert ended.code == people.code == 3
    assert (told["running"], told["answers"], told["pid"]) == (True, False, daemon.pid)
    assert f"running, pid {daemon.pid}, does not answer" in people.out
    assert "does not answer" in ended.document["problems"][0]


def test_status_for_people_says_what_is_wrong(root):
    """Without --json the same is a table, and each problem a line."""
    (root / "flags.yaml").unlink()
    ended = migrate("status", "--root", root)

    assert (ended.code, ended.err) == (1, "")
    assert "daemon: not running" in ended.out
    assert "! " in ended.out
    assert "is missing" in ended.out


def test_ceiling_is_no_disagreement(root):
    """A ceiling holds a component down although flags.yaml wants more, and that is shown as what it is."""
    write_flags(root, messaging="async")
    place = settings.load(root)
    set_ceiling(place.migrate_dir, {"messaging": Stage.SYNC}, reason="it hung", who="ada")
    report = status.run(place)

    row = report.document()["components"][0]
    assert report.exit_code == Exit.DONE
    assert (row["desired"], row["effective"], row["ceiling"]) == ("async", "sync", "sync")
    assert row["reason"] == "ceiling by ada: it hung"


@pytest.mark.parametrize("name", ["ceilings.json", "state.json"])
def test_damaged_stage_files_are_told(root, name):
    """A damaged file is a problem, and damaged ceilings let nothing rise."""
    write_flags(root, messaging="async")
    (root / "var/migrate").mkdir(parents=True)
    (root / "var/migrate" / name).write_text("")
    report = status.run(settings.load(root))

    assert report.exit_code == Exit.FINDING
    assert name in report.problems[0]
    assert report.situation.part("messaging").effective == ("sync" if name[0] == "c" else "async")


def test_refused_flags_fall_back_to_what_was_acknowledged(root):
    """Without usable flags the next start holds the last acknowledged stages, and so says status."""
    write_flags(root, messaging="async")
    with running(root) as daemon:
        daemon.stop()
    (root / "flags.yaml").unlink()
    found = situation.look(settings.load(root)).part("messaging")

    assert (found.effective, found.reason) == (Stage.ASYNC, "last acknowledged: flags.yaml is refused")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"refused": "disk"}, "messaging was refused: disk"),
        (
            {"flipping": {"to": "sync", "waits_for": "3 calls"}},
            "messaging is changing to sync and waits for 3 calls",
        ),
        (
            {"flipping": {"to": "sync", "waits_for": None}},
            "messaging is changing to sync and waits for nothing",
        ),
        ({"desired": Stage.ASYNC}, "messaging is at sync, not at async"),
        ({"acknowledged": None}, "messaging is at sync, but that is not recorded; is the disk full?"),
    ],
)
def test_each_disagreement_has_its_words(change, said):
    """Whatever does not agree is said, once."""
    assert list(status.problems(seen(part("messaging", **change)))) == [said]


def test_stale_reading_is_a_problem():
    """A daemon that has not read the files as they are is not in agreement with them."""
    assert "has not read" in next(status.problems(seen(part("messaging"), current=False)))


def test_one_who_speaks_no_json_is_no_daemon(root):
    """Something else on the socket is told as such, not as a crash."""
    with answering(root / "var/run/daemon.sock", b"hello\n"):
        heard = ask.hear(settings.load(root), 2.0)
        nudged = ask.nudge(settings.load(root), 2.0)

    assert (heard.status, heard.running, nudged) == (None, False, False)
    assert "speaks no JSON" in heard.why


def test_daemon_that_is_full_is_running(root):
    """An error instead of stages, as from a daemon with too many connections, still shows that one runs."""
    with answering(root / "var/run/daemon.sock", b'{"error": "1000 connections are open"}\n'):
        heard = ask.hear(settings.load(root), 2.0)

    assert (heard.status, heard.running) == (None, True)
    assert "1000 connections are open" in heard.why


def test_lock_alone_means_running(root):
    """A daemon that starts, and has no socket yet, is running already."""
    lock = root / "var/run/daemon.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = migrate("status", "--json", "--root", root)

    assert (ended.code, json.loads(ended.out)["daemon"]["running"]) == (3, True)
