"""What an operator met on a bad night, and a stranger on a narrow terminal: each was wrong once."""

import shutil
import signal
import threading

import pytest

from ksi_daemon import client, settings
from ksi_daemon.client import Unreachable
from ksi_daemon.errors import KsiError
from ksi_daemon.flags import Stage
from ksi_daemon.stages import Ceiling, Ceilings, InForce, State, load_ceilings, save_ceilings, save_state
from ksi_migrate import (
    acknowledge,
    ask,
    checks,
    demo_command,
    demo_scratch,
    enable,
    flagfile,
    gates,
    render,
    status,
    tables,
)
from ksi_migrate.exits import Exit, told
from ksi_migrate.step import Means, Order
from tests.daemon import running, write_flags
from tests.operate import migrate
from tests.situations import part, seen


@pytest.fixture
def root(tmp_path):
    """A root whose flags.yaml has week 1 at async."""
    write_flags(tmp_path, messaging="async", completion="async")
    return tmp_path


def damage(root):
    """Ceilings that nobody can read, beside a daemon's last word: completion at async."""
    place = root / "var/migrate"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    save_state(place, State(1, "", 1, "", {"completion": InForce(Stage.ASYNC, "", "")}))
    (place / "ceilings.json").write_text("{")
    return place


@pytest.mark.parametrize("flags", ["good", "broken"])
def test_a_rollback_mends_damaged_ceilings(root, flags):
    """With flags.yaml editable or not the file is whole afterwards, nothing rises, and a note says so."""
    place = damage(root)
    if flags == "broken":
        (root / "flags.yaml").write_text("version: 2\n")

    ended = migrate("rollback", "messaging", "--json", "--root", root)

    caps = {name: cap.stage for name, cap in load_ceilings(place).components.items()}
    assert ended.code == 0
    assert (caps["messaging"], caps["completion"], caps["agent"]) == ("sync", "async", "sync")
    assert any("made anew" in note for note in ended.document["notes"])
    assert migrate("status", "--json", "--root", root).code == (0 if flags == "good" else 1)


def test_a_running_daemon_takes_mended_ceilings_up(root):
    """After the rollback nothing holds the next enable up, which lifts the ceiling that mended the file."""
    with running(root):
        (root / "var/migrate/ceilings.json").write_text("{")
        back = migrate("rollback", "messaging", "--json", "--root", root)
        status = migrate("status", "--json", "--root", root)
        ended = migrate("enable", "messaging", "--force", "--reason", "t", "--json", "--root", root)

    assert (back.code, back.document["applied"], status.document["problems"]) == (0, True, [])
    assert status.stages() | {"messaging": "sync", "completion": "async"} == status.stages()
    assert (ended.code, ended.document["applied"]) == (0, True)


def test_damaged_ceilings_that_cannot_be_mended_are_told(root, monkeypatch):
    """The rollback stands in flags.yaml all the same: exit 0, and a note says what was not done."""
    damage(root)
    monkeypatch.setattr("ksi_migrate.flagfile.save_ceilings", _no_space)

    ended = migrate("rollback", "messaging", "--json", "--root", root)

    assert (ended.code, ended.document["notes"][-1]) == (0, "ceiling not set: no space left on device")
    assert "  messaging: sync\n" in (root / "flags.yaml").read_text()


def _no_space(*_args):
    raise OSError(28, "No space left on device")


def test_healthy_ceilings_are_left_alone_by_a_rollback(root):
    """A rollback that stands in flags.yaml makes no ceilings file."""
    migrate("rollback", "messaging", "--root", root)

    assert not (root / "var/migrate/ceilings.json").exists()


def test_an_enable_overtaken_by_an_edit_ends_at_once_and_leaves_it(tmp_path):
    """Flags edited by hand while the daemon stands still: exit 4, `overtaken`, and the edit stands."""
    write_flags(tmp_path)
    place, reports = settings.load(tmp_path), []
    waiting = threading.Event()
    means = Means(_unused, lambda _question: True, Told(waiting))
    order = Order(force=True, reason="t", deadline=20.0)
    with running(tmp_path) as daemon:
        before = flagfile.edit

        def edit_then_stop(*args, **more):
            daemon.process.send_signal(signal.SIGSTOP)
            return before(*args, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flagfile, "edit", edit_then_stop)
            worker = threading.Thread(
                target=lambda: reports.append(enable.run(place, ["messaging"], order, means))
            )
            worker.start()
            assert waiting.wait(20)
        write_flags(tmp_path)
        daemon.process.send_signal(signal.SIGCONT)
        worker.join(20)

    document = reports[0].document()
    assert (reports[0].exit_code, document["error"]["code"]) == (Exit.REFUSED, "overtaken")
    assert document["components"][0]["reason"] == "messaging was set to sync by somebody else meanwhile"
    assert "  messaging: sync\n" in (tmp_path / "flags.yaml").read_text()


class Told:
    """Progress that only says that there is some."""

    def __init__(self, waiting):
        self._waiting = waiting

    def step(self, _text, _done, _total):
        """The command waits for the daemon now."""
        self._waiting.set()


def _unused(_names):
    raise AssertionError("forced past parity")


def test_only_the_daemons_own_word_overtakes():
    """A ceiling counts as well; while the daemon has not read the files, or on the way down, nothing does."""
    capped = part("messaging", desired=Stage.ASYNC, ceiling=Stage.SYNC)
    fresh, old = seen(capped), seen(capped, current=False)

    def judged(found, stage=Stage.ASYNC, *, believe=True):
        outcome = acknowledge.judge(found, ["messaging"], stage, believe=believe)
        return tuple(outcome.overtaken), tuple(outcome.waiting)

    assert judged(fresh) == (("messaging",), ())
    assert judged(fresh, believe=False) == judged(old) == ((), ("messaging",))
    assert judged(seen(part("messaging")), Stage.SYNC) == ((), ())


@pytest.mark.parametrize("stage", ["async", "sync"])
def test_status_fits_80_columns(root, stage, monkeypatch, capsys):
    """No component's name and no stage is cut, also with a long reason; a ceiling stands in the why."""
    monkeypatch.setenv("COLUMNS", "80")
    write_flags(root, messaging=stage)
    place = root / "var/migrate"
    place.mkdir(mode=0o700, parents=True)
    why = "it hung and nobody knew why, so this is rather long"
    caps = Ceilings({"messaging": Ceiling(Stage.SYNC, why, "root", "2025-07-12T20:00:00Z")})
    tables_document = _status(root, place, caps)

    render.show(tables_document, as_json=False)

    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in out
    for name in ("conversation", "claude_cli", "acknowledged"):
        assert any(name in line for line in lines)
    assert "ceiling" in out


def _status(root, place, caps):
    save_ceilings(place, caps)
    return status.run(settings.load(root)).document()


def test_times_break_between_date_and_time():
    """What is no time stays what it is."""
    assert tables.when("2025-07-12T20:00:00Z") == "2025-07-12 20:00:00Z"
    assert tables.when(None) is None


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device"), "no space left on device"),
        (
            OSError(1, "Operation not permitted", "/r/.0f.tmp", None, "/r/flags.yaml"),
            "operation not permitted: /r/flags.yaml",
        ),
        (OSError(13, "Permission denied", "/r/var/.0f.tmp"), "permission denied: /r/var"),
        (OSError(20, "Not a directory", "/r/var"), "not a directory: /r/var"),
        (OSError("odd"), "odd"),
        (KsiError("Ours stays as it is"), "Ours stays as it is"),
    ],
)
def test_errors_name_the_file_that_was_meant(error, text):
    """No errno in brackets and no temp file, which is gone when the operator looks for it."""
    assert told(error) == text


def test_the_gate_claims_no_daemon_that_is_not_there(tmp_path):
    """Without a daemon nobody reads the file yet."""
    place = settings.load(tmp_path)
    gate = gates.same_file(place, seen(running=False, answers=False, flags_path=str(place.flags_path)))

    assert (gate.open, gate.why) == (True, "no daemon runs that could read another")


@pytest.mark.parametrize("failure", [demo_command.StepFailed, demo_scratch.DaemonFailed])
def test_what_goes_wrong_in_the_demo_is_a_finding(failure):
    """Exit 1 with a code of its own, never the 70 of our own fault."""
    assert issubclass(failure, KsiError)
    assert failure.exit == Exit.FINDING
    assert failure.code in {"step_failed", "daemon_failed"}


def test_a_rollback_that_names_nothing_hears_of_all(tmp_path):
    """Who is in a hurry is told of --all."""
    ended = migrate("rollback", "--root", tmp_path)

    assert ended.code == 2
    assert "--all" in ended.err


@pytest.mark.parametrize(
    ("free", "ok", "level"), [(0, False, "error"), (50, False, "warning"), (5000, True, "warning")]
)
def test_doctor_sees_a_full_disk(tmp_path, monkeypatch, free, ok, level):
    """A full disk is an error, since not even a rollback can be recorded; a nearly full one is a warning."""
    usage = shutil.disk_usage(tmp_path)._replace(free=free * checks.MIB)
    monkeypatch.setattr("ksi_migrate.checks.shutil.disk_usage", lambda _path: usage)
    check = checks.disk_space(settings.load(tmp_path))

    assert (check.ok, check.level, check.found) == (ok, level, f"{free:,} MiB free")


def test_doctor_without_a_root_says_which(tmp_path):
    """The space of a root that is not there cannot be known."""
    check = checks.disk_space(settings.load(tmp_path / "gone"))

    assert (check.ok, check.level) == (False, "error")
    assert check.found == f"no such file or directory: {tmp_path / 'gone'}"


@pytest.mark.parametrize("there", [True, False])
def test_a_rollback_in_the_wrong_directory_is_no_rollback(tmp_path, there):
    """Exit 2 and nothing made: exit 0 would tell the operator that the daemon elsewhere was sent back."""
    place = tmp_path if there else tmp_path / "gone"

    ended = migrate("rollback", "--all", "--json", "--root", place)

    assert (ended.code, ended.document["error"]["code"]) == (2, "usage")
    assert "is no daemon's root" in ended.document["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_root_whose_flags_are_gone_is_still_one(root):
    """With var/migrate there a missing flags.yaml holds no rollback up."""
    damage(root)
    (root / "flags.yaml").unlink()

    assert migrate("rollback", "messaging", "--root", root).code == 0


def test_the_reason_of_a_silence_keeps_its_letters(root, monkeypatch):
    """A path and a variable's name are told as they are written."""
    monkeypatch.setenv("KSI_SOCKET_PATH", str(root / ("X" * 200)))

    with pytest.raises(Unreachable) as caught:
        client.ask(settings.load(root).socket_path, "system:health")
    told_why = ask._silent(settings.load(root), caught.value)

    assert "KSI_SOCKET_PATH" in told_why
    assert "XXX: " in told_why
