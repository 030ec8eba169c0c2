"""`plan`: the roadmap, what is next on it, and every gate with its reason."""

from unittest import mock

import pytest

from ksi_daemon import registry
from ksi_daemon.flags import Stage
from ksi_migrate import evidence, gates, plan
from ksi_migrate.evidence import Evidence
from tests.daemon import write_flags
from tests.operate import migrate
from tests.situations import part, seen


@pytest.fixture
def root(tmp_path):
    """A root with the project's flags.yaml, on which no daemon has run."""
    write_flags(tmp_path)
    return tmp_path


def test_plan_of_a_new_root(root):
    """Week 1 is next, what is built besides is later, and nothing is written."""
    ended = migrate("plan", "--json", "--root", root)
    phases = ended.document["phases"]

    assert ended.code == 0
    assert [phase["state"] for phase in phases] == ["next", "later", "later", "later"]
    assert ended.document["next"] == "ksi-migrate enable --phase 1"
    assert {gate["name"]: gate["open"] for gate in phases[0]["gates"]} == {
        "built": True,
        "flags": True,
        "earlier phases": True,
        "parity": False,
    }
    assert "both sides exist" in phases[3]["gates"][0]["why"]
    assert not (root / "var").exists()


def test_plan_of_one_phase_and_for_people(root):
    """--phase shows one week; a week that the roadmap does not have is wrong usage."""
    ended = migrate("plan", "--phase", 2, "--root", root)

    assert ended.code == 0
    assert "week 2" in ended.out
    assert "week 1" not in ended.out
    assert "closed" in ended.out
    assert migrate("plan", "--phase", 9, "--root", root).code == 2


def test_plan_when_week_1_is_done(root):
    """A week with everything at async is done, and the week after it is next."""
    write_flags(root, messaging="async", completion="async")
    ended = migrate("plan", "--json", "--root", root)

    assert [phase["state"] for phase in ended.document["phases"][:2]] == ["done", "next"]
    assert ended.document["next"] == "ksi-migrate enable --phase 2"


def test_plan_when_everything_is_done(root):
    """Nothing is next."""
    built = [area.name for area in registry.BUILT]
    write_flags(root, **dict.fromkeys(built, "async"))
    ended = migrate("plan", "--json", "--root", root)

    assert ended.document["phases"][1]["state"] == "done"
    assert ended.document["next"] is None
    assert "next:" not in migrate("plan", "--root", root).out


def test_weeks_after_the_next_one_are_later():
    """Only one built week is next at a time."""
    phases = plan.roadmap(seen(part("messaging"), part("agent", phase=2)), {})

    assert [phase.state for phase in phases] == ["next", "later"]
    assert plan._state((part("messaging", effective=Stage.ASYNC),), waiting=False) == "done"


def test_parity_gate_says_what_it_found():
    """Passed, differing, not run and nothing to run are four different words."""
    good, bad = (Evidence("messaging", ok=ok, cases=9, at="2026-01-01") for ok in (True, False))

    assert gates.parity(["messaging"], {"messaging": good}).why == "passed 9 cases, last at 2026-01-01"
    assert gates.parity(["messaging"], {"messaging": bad}).why == "the sides differ: messaging"
    assert gates.parity(["messaging"], {}).why == "not run yet: messaging; enable runs it"
    assert gates.parity([], {}).why == "nothing to compare yet"


def test_evidence_is_kept_where_there_is_a_migration(root):
    """A parity run leaves its verdict in a root with var/migrate, and nothing anywhere else."""
    found = [{"name": "messaging", "ok": True, "cases": 3}]
    place = root / "var/migrate"

    assert evidence.keep(place, found) == ()
    assert evidence.load(place, "messaging") is None
    place.mkdir(parents=True)
    evidence.keep(place, found)
    assert evidence.load(place, "messaging") == Evidence("messaging", ok=True, cases=3, at=mock.ANY)
    (place / "evidence/parity-messaging.json").write_text("{}")
    assert evidence.load(place, "messaging") is None
