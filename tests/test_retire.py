"""`retire`: what can be deleted after the hold, and the check that a flag does not stay for ever."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ksi_daemon import registry
from ksi_daemon.area import Planned
from ksi_migrate import leftovers, retire
from tests.operate import migrate
from tests.proofs import NAMES, NOW, ago, asked, flip, lay

BUILT = tuple(area.name for area in registry.BUILT)
REPO = Path(__file__).parents[1]


def looked(place, *names, **more):
    """Each component's row at `NOW`, with the default hold."""
    found = retire.run(names, place, **{"hold_days": 14, "now": NOW, **more})
    return {one.name: one for one in found.components}


def recent(**back):
    """A time before the real now."""
    return (datetime.now(UTC) - timedelta(**back)).isoformat(timespec="seconds")


@pytest.mark.parametrize(
    ("entries", "retirable", "why"),
    [
        ([flip("agent", at=ago(days=14))], True, "at async for 14 days without a rollback"),
        ([flip("agent", at=ago(days=13, hours=23))], False, "held for 14 days"),
        ([flip("agent", at=ago(days=-1))], False, "held for 14 days"),
        ([flip("agent"), asked("rollback", "agent", "sync")], False, "not at async"),
        ([flip("agent"), flip("agent", "sync"), flip("agent", at=ago(days=2))], False, "held for 14 days"),
        ([flip("messaging")], False, "not at async"),
        ([flip("agent", at="then")], False, "since then, which is no time"),
    ],
)
def test_the_hold(tmp_path, entries, retirable, why):
    """Counted from the last flip to async that no rollback has followed."""
    found = looked(lay(tmp_path, entries), "agent")["agent"]

    assert (found.retirable, found.why) == (retirable, why)
    assert bool(found.rest.delete) == retirable


def test_the_acknowledged_stage_wins(tmp_path):
    """A state.json beside the journal that has another stage keeps the component."""
    place = lay(tmp_path, [flip("agent")], ["agent"])
    text = (place / "state.json").read_text()
    assert looked(place)["agent"].retirable

    (place / "state.json").write_text(text.replace('"async"', '"sync"'))
    assert looked(place)["agent"].why == "at sync"


@pytest.mark.parametrize("name", [name for name in BUILT if any(REPO.glob(f"tests/test_{name}*.py"))])
def test_what_is_listed_is_there(tmp_path, name):
    """The sync side as a file, and lines that really name it: in the room and in its tests."""
    found = looked(lay(tmp_path, [flip(name)]), name)[name]

    assert found.rest.delete == (f"ksi_daemon/{name}/sync.py",)
    for one in found.rest.edit:
        assert (REPO / one.path).read_text().splitlines()[one.line - 1].strip() == one.text
    room = [one.text for one in found.rest.edit if one.path == f"ksi_daemon/{name}/__init__.py"]
    assert [text.partition(" ")[0].partition("=")[0] for text in room] == ["from", "sync"]
    assert any("SIDES" in one.text and one.path.startswith(f"tests/test_{name}") for one in found.rest.edit)


def test_the_switch_goes_with_the_last(tmp_path, monkeypatch):
    """Only when every component of the registry is built, and each is retirable or has one side already."""
    place = lay(tmp_path, map(flip, BUILT))
    monkeypatch.setattr(retire, "AREAS", registry.BUILT)
    last = retire.run(["agent"], place, hold_days=14, now=NOW)
    monkeypatch.setattr(retire, "AREAS", (*registry.BUILT, Planned("later", "later", "read", 4)))
    planned = retire.run(["agent"], place, hold_days=14, now=NOW)
    lay(place, [asked("rollback", "messaging", "sync")])
    monkeypatch.setattr(retire, "AREAS", registry.BUILT)
    held_up = retire.run(["agent"], place, hold_days=14, now=NOW)

    assert last.switch.delete == ("ksi_daemon/switch.py",)
    assert {one.path for one in last.switch.edit} == {"ksi_daemon/app.py", "ksi_daemon/area.py"}
    assert planned.switch == held_up.switch == leftovers.NOTHING
    assert (last.notes, planned.notes) == ([], [retire.TOGETHER])


def test_what_is_deleted_is_not_listed(tmp_path):
    """A tree without sync side and switch has nothing left; the component is not overdue."""
    tree = tmp_path / "tree"
    shutil.copytree(REPO / "ksi_daemon/agent", tree / "ksi_daemon/agent")
    (tree / "ksi_daemon/agent/sync.py").unlink()
    (tree / "ksi_daemon/agent/__init__.py").write_text('"""Agents."""\n')
    found = looked(lay(tmp_path / "j", [flip("agent")]), tree=tree, check=True)["agent"]

    assert (found.two_sides, found.overdue, found.rest) == (False, False, leftovers.NOTHING)
    assert leftovers.of_switch(tree) == leftovers.NOTHING


@pytest.mark.parametrize(("since", "code"), [({"days": 20}, 1), ({"days": 3}, 0)])
def test_check_in_ci(tmp_path, since, code):
    """On an exported journal: exit 1 while the flag chooses between two sides after the hold, else 0."""
    lay(tmp_path / "exported", [flip("agent", at=recent(**since))])
    root = tmp_path / "root"
    root.mkdir()
    words = ("retire", "--check", "--evidence", tmp_path / "exported", "--root", root)
    framed, people = migrate(*words, "--json"), migrate(*words)

    assert (framed.code, people.code, framed.document["ok"]) == (code, code, not code)
    if code:
        assert framed.document["error"]["code"] == "overdue"
        assert "at async for 14 days and more, and still two sides: agent" in people.err
        assert "delete  ksi_daemon/agent/sync.py" in people.out
    assert list(root.iterdir()) == []


def test_a_list_is_no_check(tmp_path):
    """Without --check what is overdue is listed and exit 0; nothing is written anywhere."""
    lay(tmp_path / "var/migrate", [flip("agent", at=recent(days=20)), flip("messaging", at=recent(days=2))])
    before = sorted(tmp_path.rglob("*"))
    ended = migrate("retire", "agent", "messaging", "--json", "--root", tmp_path)

    assert ended.code == 0
    assert ended.stages("retirable") == {"messaging": False, "agent": True}
    assert sorted(tmp_path.rglob("*")) == before
    assert "let sync=None stand where the side was" in " ".join(
        migrate("retire", "agent", "--root", tmp_path).out.split()
    )


def test_the_hold_is_a_setting_and_an_option(tmp_path, monkeypatch):
    """KSI_RETIRE_HOLD_DAYS, and --hold before it; 14 without either."""
    lay(tmp_path / "var/migrate", [flip("agent", at=recent(days=20))])

    def hold(*words):
        found = migrate("retire", "agent", *words, "--json", "--root", tmp_path)
        return found.document["hold_days"], found.stages("retirable")["agent"]

    assert hold() == (14, True)
    monkeypatch.setenv("KSI_RETIRE_HOLD_DAYS", "30")
    assert hold() == (30, False)
    assert hold("--hold", 0) == (0, True)
    monkeypatch.setenv("KSI_RETIRE_HOLD_DAYS", "-1")
    assert migrate("retire", "--root", tmp_path).code == 2


@pytest.mark.parametrize("words", [(), ("--check",)], ids=["list", "check"])
@pytest.mark.parametrize("content", [None, b"", b"{torn\n"], ids=["missing", "empty", "damaged"])
def test_without_a_journal_is_exit_5(tmp_path, words, content):
    """Nothing can be said of a journal that is missing, empty, or damaged throughout."""
    if content is not None:
        (tmp_path / "journal.jsonl").write_bytes(content)
    ended = migrate("retire", *words, "--evidence", tmp_path, "--json", "--root", tmp_path)

    assert (ended.code, ended.document["error"]["code"]) == (5, "no_journal")


def test_damage_is_told_and_an_unreadable_journal_is_a_finding(tmp_path):
    """Damaged lines are counted; what is no file is exit 1."""
    place = lay(tmp_path / "var/migrate", map(flip, NAMES))
    with (place / "journal.jsonl").open("ab") as torn:
        torn.write(b"{torn\n")
    assert "1 damaged lines passed over" in migrate("retire", "--root", tmp_path).out

    (place / "journal.jsonl").unlink()
    (place / "journal.jsonl").mkdir()
    assert migrate("retire", "--json", "--root", tmp_path).document["error"]["code"] == "journal_unreadable"
