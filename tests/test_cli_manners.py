"""How every command behaves: one document, stable exit codes, usage errors, and our own faults."""

import json
import signal

import pytest

from ksi_daemon.client import Unreachable
from ksi_daemon.errors import KsiError, SettingInvalid
from ksi_daemon.flags import FlagsInvalid
from ksi_daemon.stages import StagesInvalid
from ksi_migrate import choose, cli, ending, log, status
from ksi_migrate.exits import Exit
from tests.daemon import write_flags
from tests.operate import migrate, migrate_apart


@pytest.fixture
def root(tmp_path):
    """A root with the project's flags.yaml, on which no daemon has run."""
    write_flags(tmp_path)
    return tmp_path


def fail(*_, **__):
    """An exception that nobody foresaw."""
    raise KeyError("gone")


COMMANDS = [
    ("status",),
    ("plan",),
    ("enable", "messaging", "--dry-run", "--force", "--reason", "x"),
    ("rollback", "messaging"),
    ("log",),
    ("doctor",),
    ("flags", "validate"),
    ("roadmap",),
    ("report",),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_gives_one_document_and_something_to_read(root, words):
    """--json: one document with its version, command and ok; without it a text, and the same exit code."""
    ended = migrate(*words, "--json", "--root", root)
    people = migrate(*words, "--root", root)

    assert (ended.document["schema_version"], ended.document["ok"]) == (1, ended.code == 0)
    assert ended.document["command"] == " ".join(words[: 2 if words[0] == "flags" else 1])
    assert (ended.err, ended.code) == ("", people.code)
    assert people.out
    assert not people.out.startswith("{")


def test_schema_is_the_one_in_the_repository():
    """`flags schema` prints the schema alone; --json puts it into a document."""
    plain, framed = migrate("flags", "schema"), migrate("flags", "schema", "--json")

    assert json.loads(plain.out) == framed.document["schema"]
    assert json.loads(plain.out)["$schema"].startswith("https://json-schema.org/")


def test_flags_validate_names_file_line_and_reason(tmp_path):
    """An invalid file is exit 1, for CI; a file argument needs no root."""
    path = tmp_path / "my.yaml"
    path.write_text("version: 1\nversion: 1\n")
    ended = migrate("flags", "validate", path)

    assert ended.code == 1
    assert f"{path}:2:" in ended.out.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("enable",), "say which components"),
        (("enable", "messaging", "--phase", "1"), "say which components"),
        (("rollback", "--all", "--phase", "1"), "say which components"),
        (("enable", "mesaging"), "there is no component 'mesaging'"),
        (("log", "--component", "zzz"), "there is no component 'zzz'"),
        (("parity", "zzz"), "there is no component 'zzz'"),
        (("plan", "--phase", "9"), "there is no phase 9"),
        (("frobnicate",), "No such command"),
        (("status", "--nope"), "No such option"),
        (("enable", "messaging", "--to", "sideways"), "sideways"),
    ],
)
def test_wrong_usage_is_exit_2(root, words, said):
    """Wrong usage is exit 2, with one line on stderr or one document."""
    framed, plain = migrate(*words, "--json"), migrate(*words)

    assert (framed.code, plain.code, plain.out) == (2, 2, "")
    assert framed.document["error"]["code"] == "usage"
    assert said in framed.document["error"]["message"]
    assert said in plain.err


def test_wrong_name_gets_a_suggestion():
    """The nearest component is suggested, or all are listed."""
    assert "did you mean claude_cli?" in migrate("rollback", "claude-cli").err
    assert "components: messaging, completion" in migrate("rollback", "zzz").err


def test_shell_completes_component_names():
    """The shell gets the components that begin so."""
    words = "ksi-migrate enable me"
    ended = migrate_apart(_KSI_MIGRATE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="2")

    assert ended.out.split() == ["messaging"]
    assert [name for name, _ in choose.completions("co")] == ["completion", "conversation", "config"]


def test_default_root_is_ksi_home(root, monkeypatch):
    """Without --root it is KSI_HOME, else the working directory."""
    monkeypatch.setenv("KSI_HOME", str(root))
    assert migrate("status", "--json").document["flags"]["path"] == str(root / "flags.yaml")

    monkeypatch.delenv("KSI_HOME")
    monkeypatch.chdir(root)
    assert migrate("status", "--json").document["flags"]["path"] == str(root / "flags.yaml")


def test_unusable_setting_is_wrong_usage(root, monkeypatch):
    """A KSI_* value that cannot be used is told with its name."""
    monkeypatch.setenv("KSI_MAX_CONNECTIONS", "many")
    ended = migrate("status", "--json", "--root", root)

    assert (ended.code, ended.document["error"]["code"]) == (2, "setting_invalid")


def test_our_own_fault_is_exit_70(root, monkeypatch):
    """An unexpected exception is one clear line, or a document, and never exit 1."""
    monkeypatch.setattr(status, "run", fail)
    framed, plain = migrate("status", "--json", "--root", root), migrate("status", "--root", root)

    assert (framed.code, plain.code) == (70, 70)
    assert framed.document["error"] == {
        "code": "fault",
        "message": "KeyError: 'gone'",
        "hint": "this is a fault of ksi-migrate; KSI_TRACEBACK=1 shows where",
    }
    assert plain.err.startswith("error: KeyError: 'gone'\n")


def test_traceback_when_asked_for(root, monkeypatch):
    """KSI_TRACEBACK lets the exception through."""
    monkeypatch.setattr(status, "run", fail)
    monkeypatch.setenv("KSI_TRACEBACK", "1")
    with pytest.raises(KeyError):
        migrate("status", "--root", root)


def test_ctrl_c_is_130(root, monkeypatch):
    """An interrupt ends with the shell's own code for it, and without a traceback."""
    monkeypatch.setattr(log, "run", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    ended = migrate("log", "--root", root)

    assert (ended.code, ended.err) == (130, "")


def test_ctrl_c_outside_a_command_is_130(monkeypatch):
    """Also before the parser has begun."""
    monkeypatch.setattr(cli, "app", lambda **_: signal.raise_signal(signal.SIGINT))

    assert migrate("status").code == 130


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingInvalid("KSI_X", "y", "z"), Exit.USAGE),
        (FlagsInvalid("flags.yaml", 1, "no"), Exit.REFUSED),
        (StagesInvalid("ceilings.json", "no"), Exit.REFUSED),
        (KsiError("nobody foresaw it"), Exit.FAULT),
    ],
)
def test_each_error_has_its_exit_code(error, code):
    """The daemon's own errors end a command with a fixed code and a hint."""
    found, hint = ending.judged(error)

    assert (found, bool(hint)) == (code, True)


def test_unreachable_daemon_is_exit_3(tmp_path):
    """What no command expects of the socket is still exit 3."""
    assert ending.judged(Unreachable(tmp_path, "gone"))[0] == Exit.UNREACHABLE
