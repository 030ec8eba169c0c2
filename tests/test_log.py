"""`log`: the journal of daemon and operator, also when some of its lines are damaged."""

import getpass
import os
from unittest import mock

from ksi_migrate import journal
from tests.daemon import running
from tests.operate import migrate


def filled(root, *components):
    """A journal with one entry for each component."""
    entries = [journal.entry("enable", name, "sync", "async", "why not") for name in components]
    journal.append(root / "var/migrate", entries)
    return root / "var/migrate/journal.jsonl"


def test_log_of_nothing_is_empty(tmp_path):
    """Without a journal there are no entries, and none is made."""
    ended = migrate("log", "--json", "--root", tmp_path)

    assert (ended.code, ended.document["entries"], ended.document["damaged"]) == (0, [], 0)
    assert not (tmp_path / "var").exists()


def test_log_shows_daemon_and_operator(tmp_path):
    """Both write to one journal, in the order in which it happened."""
    with running(tmp_path):
        migrate("enable", "messaging", "--force", "--reason", "x", "--root", tmp_path)
    entries = migrate("log", "--json", "--component", "messaging", "--root", tmp_path).document["entries"]

    assert [(entry["action"], entry["to"]) for entry in entries][-2:] == [
        ("enable", "async"),
        ("flip", "async"),
    ]
    assert entries[-1]["who"].startswith("daemon ")


def test_damaged_lines_are_counted(tmp_path):
    """What is no JSON object is passed over and counted; a torn tail costs only itself."""
    path = filled(tmp_path, "messaging")
    with path.open("ab") as torn:
        torn.write(b'\xff\n[1]\n\n{"at": "20')
    filled(tmp_path, "completion")
    ended = migrate("log", "--json", "--root", tmp_path)

    assert [entry["component"] for entry in ended.document["entries"]] == ["messaging", "completion"]
    assert ended.document["damaged"] == 3
    assert "3 damaged lines passed over" in migrate("log", "--root", tmp_path).out


def test_limit_and_component(tmp_path):
    """The last ones, of one component if asked; 0 shows all."""
    filled(tmp_path, "messaging", "completion", "messaging")

    def shown(*words):
        found = migrate("log", "--json", "--root", tmp_path, *words).document
        return len(found["entries"]), found["total"]

    assert shown("--limit", 1) == (1, 3)
    assert shown("--limit", 0) == (3, 3)
    assert shown("--component", "messaging") == (2, 2)


def test_journal_is_private_and_terminal_safe(tmp_path):
    """The file is 0600; a reason with escape sequences cannot command the terminal."""
    journal.append(
        tmp_path / "var/migrate", [journal.entry("enable", "messaging", None, "async", "\x1b[2J[bold]x")]
    )
    path = tmp_path / "var/migrate/journal.jsonl"
    ended = migrate("log", "--root", tmp_path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert "\x1b" not in ended.out
    assert "[bold]x" in ended.out


def test_unreadable_journal_is_a_finding(tmp_path):
    """Something that is no file in its place is exit 1, with the reason."""
    (tmp_path / "var/migrate/journal.jsonl").mkdir(parents=True)
    ended = migrate("log", "--json", "--root", tmp_path)

    assert (ended.code, ended.document["error"]["code"]) == (1, "journal_unreadable")


def test_user_without_a_name_has_a_number(monkeypatch):
    """A user id that no database knows is told as a number."""
    monkeypatch.setattr(getpass, "getuser", mock.Mock(side_effect=KeyError("uid not found")))

    assert journal.who() == f"uid {os.getuid()}"
