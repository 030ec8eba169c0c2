"""`enable`: gates, the edit of flags.yaml, and the daemon's acknowledgement, refusal or silence."""

import signal
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from ksi_daemon import settings
from ksi_daemon.area import Planned
from ksi_daemon.flags import Stage
from ksi_daemon.registry import AREAS
from ksi_daemon.stages import StagesInvalid, load_ceilings
from ksi_migrate import enable, evidence, flagfile, journal, situation
from ksi_migrate.choose import WrongUsage
from ksi_migrate.exits import Exit, Inconclusive
from ksi_migrate.flagfile import set_ceiling
from ksi_migrate.progress import QUIET
from ksi_migrate.refusals import FlagsUnusable, NotWritable, Reserved
from ksi_migrate.step import Means, Order
from tests.daemon import running, write_flags
from tests.operate import migrate
from tests.situations import part, seen

FORCED = ("--force", "--reason", "a test")
MISMATCH = {"case": "append", "what": "the reply", "sync": "1", "async": "2"}


@pytest.fixture
def root(tmp_path):
    """A root with the project's flags.yaml, on which no daemon has run."""
    write_flags(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Verdict:
    """What a parity run gives back."""

    components: tuple[dict[str, Any], ...]
    exit_code: Exit = Exit.DONE

    def document(self):
        """As parity's own."""
        return {"components": list(self.components)}


def verdict(*names, ok=True, code=Exit.DONE):
    """The same verdict for each name."""
    rows = ({"name": name, "ok": ok, "cases": 9, "mismatches": [] if ok else [MISMATCH]} for name in names)
    return Verdict(tuple(rows), code)


def means(found=None, *, agreed=True):
    """A parity that passes unless told otherwise, and an operator who agrees."""
    return Means(lambda names: found or verdict(*names), lambda _question: agreed, QUIET)


def kept_evidence(root):
    """The evidence for messaging, which must be there."""
    found = evidence.load(root / "var/migrate", "messaging")
    assert found is not None
    return found


def ask_for(root, *names, given=None, **order):
    """Run enable in this process."""
    return enable.run(settings.load(root), names, Order(**order), given or means())


def test_enable_is_in_force_when_it_returns(root):
    """Through parity and flags.yaml to the daemon's acknowledgement; evidence and journal say so."""
    with running(root) as daemon:
        ended = migrate("enable", "--phase", 1, "--json", "--root", root, *FORCED)
        told = {row["name"]: row for row in daemon.ask("migration:status")["components"]}

    assert (ended.code, ended.document["applied"]) == (0, True)
    assert [told[name]["acknowledged"] for name in ("messaging", "completion")] == ["async", "async"]
    assert "  messaging: async\n" in (root / "flags.yaml").read_text()


def test_enable_runs_parity_and_keeps_the_evidence(root):
    """A passed parity opens the gate; its cases and its time are kept, shown and in the journal."""
    report = ask_for(root, "messaging")
    kept = kept_evidence(root)
    entry = journal.read(root / "var/migrate").entries[-1]

    assert report.exit_code == Exit.DONE
    assert (kept.ok, kept.cases) == (True, 9)
    assert entry["parity"] == kept.document()
    assert (entry["action"], entry["from"], entry["to"], entry["forced"]) == (
        "enable",
        "sync",
        "async",
        False,
    )
    assert migrate("status", "--json", "--root", root).stages("last_parity")["messaging"] == {
        "ok": True,
        "at": kept.at,
    }


def test_enable_is_refused_when_parity_fails(root):
    """A mismatch closes the gate with exit 4; flags.yaml stays, the mismatches are in the report."""
    before = (root / "flags.yaml").read_bytes()
    report = ask_for(root, "messaging", given=means(verdict("messaging", ok=False, code=Exit.FINDING)))

    assert (report.exit_code, report.error.code) == (Exit.REFUSED, "parity_failed")
    assert report.document()["parity"][0]["mismatches"] == [MISMATCH]
    assert before == (root / "flags.yaml").read_bytes()
    assert kept_evidence(root).ok is False


@pytest.mark.parametrize("found", [verdict("messaging", code=Exit.INCONCLUSIVE), verdict("completion")])
def test_enable_without_a_verdict_is_inconclusive(root, found):
    """No verdict is no evidence: exit 5, and nothing is changed."""
    with pytest.raises(Inconclusive) as caught:
        ask_for(root, "messaging", given=means(found))

    assert caught.value.exit == 5
    assert not (root / "var").exists()


def test_dry_run_changes_nothing(root):
    """--dry-run passes the gates and leaves no trace."""
    before = (root / "flags.yaml").read_bytes()
    report = ask_for(root, "messaging", dry_run=True)

    assert (report.exit_code, report.document()["dry_run"]) == (Exit.DONE, True)
    assert before == (root / "flags.yaml").read_bytes()
    assert not (root / "var").exists()


def test_enable_twice_does_nothing_the_second_time(root):
    """Without a daemon and with one, the second time is exit 0 and leaves the journal alone."""
    ask_for(root, "messaging")
    again = ask_for(root, "messaging")
    with running(root):
        third = ask_for(root, "messaging")

    assert [report.exit_code for report in (again, third)] == [Exit.DONE, Exit.DONE]
    assert [report.changes[0].applied for report in (again, third)] == [False, True]
    assert all(report.changes[0].reason.startswith("nothing to do") for report in (again, third))
    assert [entry["action"] for entry in journal.read(root / "var/migrate").entries].count("enable") == 1


def test_enable_without_a_daemon_says_so(root):
    """flags.yaml is edited, exit 0, and applied is false."""
    ended = migrate("enable", "messaging", "--json", "--root", root, *FORCED)

    assert (ended.code, ended.document["applied"]) == (0, False)
    assert "no daemon runs" in ended.document["components"][0]["reason"]


def test_enable_lifts_the_ceiling_and_says_so(root):
    """A ceiling of an earlier rollback goes, with a note."""
    write_flags(root, messaging="async")
    place = settings.load(root)
    set_ceiling(place.migrate_dir, {"messaging": Stage.SYNC}, reason="it hung")
    with running(root):
        report = ask_for(root, "messaging")

    assert report.document()["applied"] is True
    assert "the ceiling sync of messaging was lifted" in report.notes
    assert not load_ceilings(place.migrate_dir).components


def test_what_the_daemon_refuses_is_put_back(root):
    """A log that cannot be opened on the async side: exit 4, the reason, and flags.yaml as it is in force."""
    with running(root) as daemon:
        bus = root / "var/logs/responses/message_bus.jsonl"
        bus.unlink(missing_ok=True)
        bus.mkdir(parents=True)
        before = (root / "flags.yaml").read_bytes()
        ended = migrate("enable", "messaging", "--json", "--root", root, *FORCED)
        told = {row["name"]: row for row in daemon.ask("migration:status")["components"]}

    assert (ended.code, ended.document["error"]["code"]) == (4, "flip_refused")
    assert "message_bus.jsonl" in ended.document["error"]["message"]
    assert "flags.yaml says sync for messaging again" in ended.document["notes"]
    assert before == (root / "flags.yaml").read_bytes()
    assert told["messaging"]["effective"] == "sync"
    assert journal.read(root / "var/migrate").entries[-1]["action"] in ("put back", "refused")


def test_wedged_daemon_does_not_acknowledge(root):
    """A stopped process is waited for, then exit 3; what was written stays."""
    with running(root) as daemon:
        daemon.process.send_signal(signal.SIGSTOP)
        report = ask_for(root, "messaging", deadline=0.5)
        daemon.process.send_signal(signal.SIGCONT)

    assert (report.exit_code, report.error.code) == (Exit.UNREACHABLE, "not_acknowledged")
    assert "does not answer" in report.changes[0].reason
    assert "  messaging: async\n" in (root / "flags.yaml").read_text()


def test_unbuilt_component_is_refused_naming_its_week(root, monkeypatch):
    """Exit 4 with the week in which it comes; force does not help."""
    planned = Planned("discovery", "events, help, code search", "read", 4)
    monkeypatch.setattr(situation, "AREAS", (*AREAS[:-1], planned))
    for more in ((), FORCED):
        ended = migrate("enable", "discovery", "--json", "--root", root, *more)

        assert (ended.code, ended.document["error"]["code"]) == (4, "not_built")
        assert "discovery (week 4)" in ended.document["error"]["message"]


def test_invalid_flags_are_refused(root):
    """Nothing is edited in a file that is refused as a whole."""
    (root / "flags.yaml").write_text("version: 1\n")
    report = ask_for(root, "messaging")

    assert (report.exit_code, report.error.code) == (Exit.REFUSED, "flags_invalid")


def test_other_flags_file_of_the_daemon_is_refused(root, monkeypatch):
    """Editing a file that the daemon does not read would never be acknowledged."""
    write_flags(root)
    (root / "other.yaml").write_bytes((root / "flags.yaml").read_bytes())
    with running(root, KSI_FLAGS_PATH="other.yaml"):
        report = ask_for(root, "messaging", force=True, reason="a test")

    assert report.error.code == "other_flags"


def test_force_needs_a_reason_and_goes_into_the_journal(root):
    """--force without --reason is wrong usage; with one the journal has it."""
    assert migrate("enable", "messaging", "--force", "--root", root).code == 2
    ended = migrate("enable", "messaging", "--root", root, *FORCED)
    entry = journal.read(root / "var/migrate").entries[-1]

    assert ended.code == 0
    assert "gates passed over by force: a test" in ended.out
    assert (entry["forced"], entry["why"], entry["parity"]) == (True, "a test", None)


@pytest.mark.parametrize(
    ("to", "error"), [(Stage.SYNC, WrongUsage), (Stage.SHADOW, Reserved), (Stage.CANARY, Reserved)]
)
def test_only_async_can_be_enabled(root, to, error):
    """Down is rollback's; shadow and canary are reserved words."""
    with pytest.raises(error):
        ask_for(root, "messaging", to=to)


def test_earlier_phase_refuses_the_command(root, monkeypatch):
    """With week 1 open, a component of week 2 is refused before parity is run."""
    found = seen(part("messaging"), part("agent", phase=2), flags_path=str(root / "flags.yaml"))
    monkeypatch.setattr(situation, "look", lambda *_: found)
    report = ask_for(root, "agent", given=means(verdict("nobody")))

    assert report.error.code == "earlier_phase_open"
    assert "messaging" in str(report.error)


def test_declined_changes_nothing(root):
    """An operator who says no ends it with exit 4."""
    report = ask_for(root, "messaging", given=means(agreed=False))

    assert (report.exit_code, report.error.code) == (Exit.REFUSED, "declined")
    assert "  messaging: sync\n" in (root / "flags.yaml").read_text()


def test_unwritable_files_are_refused(root):
    """What the operating system forbids is exit 4; evidence and journal that cannot be kept are notes."""
    (root / "var/migrate/lock").mkdir(parents=True)
    (root / "var/migrate/evidence").write_text("in the way")
    (root / "var/migrate/journal.jsonl").mkdir()
    with pytest.raises(NotWritable):
        ask_for(root, "messaging")
    (root / "var/migrate/lock").rmdir()
    report = ask_for(root, "messaging")

    assert report.exit_code == Exit.DONE
    assert [note.partition(":")[0].split(" /")[0] for note in report.notes] == [
        "the evidence of parity could not be kept",
        "not in the journal",
    ]


def test_ceilings_that_break_meanwhile_are_refused(root, monkeypatch):
    """Ceilings that somebody damaged after the gates are told as such, with exit 4."""
    damaged = StagesInvalid(root / "ceilings.json", "is damaged")
    monkeypatch.setattr(flagfile, "clear_ceiling", mock.Mock(side_effect=damaged))
    with pytest.raises(FlagsUnusable):
        ask_for(root, "messaging")
