"""The `ksi-daemon` command: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from ksi_daemon import __main__ as command_line
from ksi_daemon import control, process, settings
from tests.daemon import PATIENCE, REPO, Running, command, environment, running, write_flags

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of every test here; a daemon that holds it at the end is killed."""
    for name in list(os.environ):
        if name.startswith(("KSI_", "NOTIFY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.chdir(tmp_path)
    write_flags(tmp_path)
    yield tmp_path
    pid = process.holder(settings.load(tmp_path))
    if pid:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Running]:
    """A running daemon on the working directory."""
    with running(tmp_path) as found:
        yield found


def call(*words: str, given: str | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command run in this process."""
    result = CliRunner().invoke(command_line.app, words, input=given)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_start_status_and_stop(root: Path) -> None:
    """The way of a day: not running, started, running, stopped, not running."""
    before = call("status")
    started = call("start")
    pid = process.holder(settings.load(root))
    again = call("start")
    up = call("status")
    stopped = call("stop")
    none = call("stop")

    assert before[:2] == (1, "not running\n")
    assert started[0] == 0
    assert (
        f", pid {pid}\nsocket {root}/var/run/daemon.sock\nlog {root}/var/logs/daemon/daemon.log\n"
        in started[1]
    )
    assert again[0] == 0
    assert again[1].startswith(f"already running, pid {pid}\n")
    lines = up[1].splitlines()
    assert (up[0], len(lines)) == (0, 8)
    assert lines[0].startswith(f"running, pid {pid}, up ")
    assert lines[1].split() == ["messaging", "sync"]
    assert stopped[0] == 0
    assert stopped[1].startswith("stopped in ")
    assert none[:2] == (0, "not running\n")


def test_json_is_one_document_each(root: Path) -> None:
    """Every command of this kind has `schema_version`, `command` and `ok`, and its report's fields."""
    found = [call(name, "--json") for name in ("status", "start", "status", "restart", "stop")]

    documents = [json.loads(output) for _, output, _ in found]
    assert [code for code, _, _ in found] == [1, 0, 0, 0, 0]
    assert [(d["schema_version"], d["command"], d["ok"]) for d in documents] == [
        (1, "status", False),
        (1, "start", True),
        (1, "status", True),
        (1, "restart", True),
        (1, "stop", True),
    ]
    assert documents[3]["stopped"]["pid"] == documents[1]["pid"] == documents[2]["pid"]
    assert documents[4]["pid"] == documents[3]["started"]["pid"]


def test_restart_tells_both_steps(root: Path) -> None:
    """What was stopped, then what was started."""
    code, output, _ = call("restart")

    assert code == 0
    assert output.startswith("not running\nstarted in ")


def test_a_failed_start_is_1_with_the_logs_end(root: Path) -> None:
    """The reason is on standard error; with --json the document has its code too."""
    (root / "var/run").mkdir(parents=True)
    (root / "var/run/daemon.sock").write_text("mine")

    plain, machine = call("start"), call("start", "--json")

    assert plain[:2] == (1, "")
    assert "is there and is no socket; move it away" in plain[2]
    document = json.loads(machine[1])
    assert (machine[0], document["ok"], document["error"]["code"]) == (1, False, "not_started")


def test_send_prints_the_replys_data(daemon: Running) -> None:
    """Data comes as an argument or from standard input, and the reply's data is JSON."""
    health = call("send", "system:health")
    argument = call("send", "message:publish", "--data", '{"agent_id": "a", "event_type": "N"}')
    stdin = call("send", "message:publish", "--data", "-", given='{"agent_id": "é", "event_type": "N"}')

    assert (health[0], json.loads(health[1])["status"]) == (0, "healthy")
    assert (argument[0], json.loads(argument[1])["status"]) == (0, "published")
    assert stdin[0] == 0
    assert [record["from"] for record in daemon.bus()] == ["a", "é"]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("nope:x",), 1, "Unknown event: nope:x"),
        (("message:publish",), 1, "agent_id required"),
        (("system:health", "--data", "{oops"), 2, "--data cannot be sent: Invalid JSON"),
        (("system:health", "--data", "[]"), 2, "it is an array; give one JSON object"),
        (("system:health", "--data", "\udcff"), 2, "not valid UTF-8"),
        (("",), 1, "Missing event name"),
        (("event:emit", "--data", '{"event": "x", "delay": 60}', "--timeout", "0.1"), 3, "no daemon answers"),
        (("system:health", "--timeout", "0"), 2, "--timeout"),
        ((), 2, "Missing argument"),
    ],
)
def test_send_says_what_went_wrong(daemon: Running, words: tuple[str, ...], code: int, text: str) -> None:
    """1 when the reply tells an error, 2 when it cannot be sent, 3 when nobody answers in time."""
    found = call("send", *words)

    assert found[0] == code
    assert text in found[1] + found[2]


def test_send_without_a_daemon_is_3(root: Path) -> None:
    """The message names the socket and the command that starts one."""
    code, output, error = call("send", "system:health")

    assert (code, output) == (3, "")
    assert (
        f"no daemon answers on {root}/var/run/daemon.sock: no such file or directory; start one with" in error
    )


@pytest.mark.parametrize("how", ["option", "variable"])
def test_the_root_can_be_elsewhere(
    daemon: Running, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """`--root` or KSI_HOME, from any working directory."""
    monkeypatch.chdir(tmp_path_factory.mktemp("w"))
    if how == "variable":
        monkeypatch.setenv("KSI_HOME", str(daemon.root))

    found = call("status", *(["--root", str(daemon.root)] if how == "option" else []))

    assert found[0] == 0


@pytest.mark.parametrize("name", ["run", "start", "stop", "restart", "status", "watch"])
def test_a_root_that_is_not_there_is_wrong_usage(root: Path, name: str) -> None:
    """A misspelt directory is named, and none is made."""
    code, _, error = call(name, "--root", str(root / "no"))

    assert code == 2
    assert f"--root='{root}/no' is not usable: give a directory that exists" in error
    assert not (root / "no").exists()


def test_a_setting_that_cannot_be_used_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable."""
    with monkeypatch.context() as patch:
        patch.setenv("KSI_MAX_CONNECTIONS", "many")
        code, _, error = call("status")

    assert code == 2
    assert "KSI_MAX_CONNECTIONS='many' is not usable" in error


def test_an_error_of_the_system_is_told_without_a_traceback(root: Path) -> None:
    """A root in which nothing can be made is a line with the path and the reason."""
    (root / "var").write_text("in the way")

    code, _, error = call("run")

    assert code == 1
    assert error.startswith("ksi-daemon: ")
    assert f"{root}/var" in error


def test_run_ends_with_the_daemons_code(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process module returns is the exit code."""
    monkeypatch.setattr(process, "run", lambda _settings: 7)

    assert call("run")[0] == 7


def test_run_beside_another_is_1(daemon: Running) -> None:
    """It names the first one's pid."""
    code, _, error = call("run")

    assert code == 1
    assert f"(pid {daemon.pid}); stop it with ksi-daemon stop" in error


def test_watch_prints_each_frame_on_a_line(daemon: Running) -> None:
    """Until the daemon ends; then it says so and ends with 0."""
    child = subprocess.Popen(
        command("watch"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=daemon.root
    )
    assert child.stdout is not None
    while not select.select([child.stdout], [], [], 0.3)[0]:  # flips until it hears of one
        write_flags(daemon.root, messaging="sync" if _stage(daemon) == "async" else "async")
    daemon.stop()
    output, error = child.communicate(timeout=PATIENCE)

    names = [json.loads(line)["event"] for line in output.splitlines()]
    assert names[0] == "migration:changed"
    assert names[-2:] == ["system:shutdown_notification", "system:shutdown_complete"]
    assert (child.returncode, error) == (0, b"ksi-daemon: the daemon has hung up\n")


def _stage(daemon: Running) -> Any:
    return daemon.ask("migration:status")["components"][0]["effective"]


@pytest.mark.parametrize(("seconds", "text"), [(5.9, "5 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")])
def test_an_age_is_told_in_two_units_at_most(seconds: float, text: str) -> None:
    """Seconds, minutes with seconds, hours with minutes."""
    assert command_line._duration(seconds) == text


def test_a_stuck_daemon_is_shown_as_such() -> None:
    """Its pid and the reason, and no stages."""
    stuck = control.Status(running=False, pid=0, uptime=None, version=None, stages={}, problem="it hung up")

    assert command_line._status(stuck) == "does not answer, pid unknown: it hung up"


def test_a_stop_by_signal_is_told() -> None:
    """What ended it stands in the line."""
    assert command_line._stopped(control.Stopped(5, "SIGKILL", 1.0)) == "stopped by SIGKILL in 1.0 s, pid 5"


def test_the_module_and_the_script_are_the_same_command(root: Path) -> None:
    """`python -m ksi_daemon` without words shows the help, plainly when NO_COLOR is set."""
    shown = subprocess.run(command(), env=environment(), capture_output=True, text=True, check=False)

    assert "Run and look after a KSI daemon" in shown.stdout + shown.stderr
    assert "\x1b[" not in shown.stdout + shown.stderr
    assert shown.returncode == 2
