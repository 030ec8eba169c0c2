"""The stand-in for the `claude` command is true to what was measured of the real one, row by row."""

import json
import os
import signal
import subprocess
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import standin
from tests.command import ASKED, Command, children_of, wait_until

FIELDS = {
    "type",
    "subtype",
    "is_error",
    "duration_ms",
    "duration_api_ms",
    "num_turns",
    "result",
    "session_id",
}
FIELDS |= {"total_cost_usd", "usage"}
OLD, NEW = standin.VERSIONS
STRANGER = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(params=standin.VERSIONS)
def version(request):
    """Whose manners the stand-in has."""
    return request.param


@pytest.fixture
def command(version, tmp_path):
    """The stand-in, at home in the test's scratch."""
    program = standin.place(tmp_path / "bin/claude", version, journal=tmp_path / "journal")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home")}
    return Command(program, env, tmp_path / "work")


def journal(command):
    """What its turns wrote down."""
    return standin.journal_of(command.cwd.parent / "journal")


def is_alive(pid):
    """Whether the process runs."""
    line = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return line.stdout.strip()[:1] not in {"", "Z"}


OUTCOMES = [
    # row, message, options, exit code, version → what stdout and stderr hold
    ("id that looks like an option", "hi", ("--resume", "--version"), 0, "(Claude Code)\n", ""),
    (
        "id that looks like an option",
        "hi",
        ("--resume=--version",),
        1,
        "",
        'Provided value "--version" is not a',
    ),
    ("id that is no UUID", "hi", ("--resume=nope",), 1, "", 'Provided value "nope" is not a'),
    (
        "unknown session",
        "hi",
        (f"--resume={STRANGER}",),
        1,
        "",
        f"No conversation found with session ID: {STRANGER}",
    ),
    ("unknown option", "hi", ("--nosuch=1",), 1, "", "error: unknown option '--nosuch=1'"),
    ("no message", "", (), 1, "", "Error: Input must be provided either through stdin"),
    (
        "a configuration that is missing",
        "hi",
        ("--mcp-config=/nowhere",),
        1,
        "",
        "config file not found: /nowhere",
    ),
    ("API failure", "[[fail 500 broken]]", (), 1, "API Error: 500 {", ""),
    ("API failure", "[[fail 401 who]]", (), 1, "API Error: 401 {", ""),
    ("API failure", "[[fail 429 slow down]]", (), 1, "slow down", ""),
    ("fault: ends at once", "[[exit 3]]", (), 3, "", ""),
    ("fault: empty answer", "[[exit 0]]", (), 0, "", ""),
    ("fault: no JSON", "[[garbage]]", (), 0, "no JSON", ""),
    ("fault: text on stderr", "[[stderr out of luck]]", (), 1, "", "out of luck"),
    ("fault: killed", "[[die]]", (), -9, "", ""),
]


@pytest.mark.parametrize(("row", "prompt", "words", "code", "out", "err"), OUTCOMES)
def test_outcome(command, row, prompt, words, code, out, err):  # noqa: PLR0917 -- a row of the table
    """Exit code, and which text is on which stream, are as measured."""
    run = command.turn(prompt, *words)

    assert (code, bool(out), bool(err)) == (run.code, bool(run.out), bool(run.err)), row
    said = run.answer["result"] if run.out.startswith(b"{") else run.out.decode()
    assert out in said
    assert err in run.err.decode()


def test_success(command, version):
    """Row "success": exit code 0 and one JSON object, which has more fields in the new versions."""
    run = command.turn("hello")

    assert (run.code, run.err) == (0, b"")
    assert run.answer.keys() >= FIELDS
    assert (run.answer["result"], run.answer["is_error"]) == ("you said hello", False)
    assert ("modelUsage" in run.answer) == (version == NEW)
    assert str(uuid.UUID(run.session)) == run.session


def test_result_can_be_missing(command, version):
    """Row "success": a turn that used up its turns has no `result`; only new versions call it an error."""
    run = command.turn("[[turns]]")

    assert "result" not in run.answer
    assert run.answer["subtype"] == "error_max_turns"
    assert ((0, False) if version == OLD else (1, True)) == (run.code, run.answer["is_error"])


def test_resume(command, version):
    """Row "--resume": the history is there; old versions answer under a new id each time, new ones never."""
    first = command.turn("one")
    second = command.turn("two", f"--resume={first.session}")
    third = command.turn("three", f"--resume={second.session}")

    assert (3 if version == OLD else 1) == len({first.session, second.session, third.session})
    texts = [record["texts"] for record in journal(command) if record["at"] == "begin"]
    assert texts[-1] == ["one", "you said one", "two", "you said two", "three"]


def test_session_files(command, tmp_path):
    """Row "session files": below HOME by working directory, chained, and found from there alone."""
    other = tmp_path / "other"
    other.mkdir()
    first = command.turn("one")

    folder = "".join(letter if letter.isalnum() else "-" for letter in str(command.cwd.resolve()))
    path = tmp_path / "home/.claude/projects" / folder / f"{first.session}.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [None, records[0]["uuid"]] == [record["parentUuid"] for record in records]
    lost = command.turn("two", f"--resume={first.session}", cwd=other)
    assert (1, f"No conversation found with session ID: {first.session}\n") == (lost.code, lost.err.decode())


@pytest.mark.parametrize(
    ("prompt", "old", "new"),
    [
        ("/help", None, "/help isn't available in this environment."),
        ("/nosuch", "you said /nosuch", "Unknown command: /nosuch"),
    ],
)
def test_message_that_is_a_command(command, version, prompt, old, new):
    """Row "message text": a leading `/` runs a command of the client's own."""
    expected = old if version == OLD else new
    run = command.turn(prompt)

    assert run.code == 0
    assert expected == (run.answer["result"] if run.out else None)


def test_message_that_attaches_a_file(command, tmp_path):
    """Row "message text": `@/path` gives the file to the model."""
    (tmp_path / "secret").write_text("the secret")
    command.turn(f"@{tmp_path}/secret what is it")

    assert "the secret" in journal(command)[0]["texts"][-1]


def test_same_session_at_once(command, version):
    """Row "same session, at once": all end well, but new versions lose turns from the history."""
    first = command.turn("one")
    again = f"--resume={first.session}"
    with ThreadPoolExecutor(5) as pool:
        runs = list(pool.map(lambda n: command.turn(f"[[wait 0.2]]at once {n}", again), range(5)))
    last = command.turn("last", f"--resume={runs[-1].session}")

    assert [run.code for run in [*runs, last]] == [0] * 6
    texts = [record["texts"] for record in journal(command) if record["at"] == "begin"][-1]
    assert sum("you said at once" in text for text in texts) < 5


def test_retry_after_a_kill(command, version):
    """Row "retry after a kill": new versions send the message twice, old ones do not."""
    first = command.turn("one")
    again = f"--resume={first.session}"
    command.turn("[[die]]two", again)
    command.turn("two", again)

    texts = journal(command)[-2]["texts"]
    assert (1 if version == OLD else 2) == sum("two" in text for text in texts)


def test_api_failure(command):
    """Row "API failure": exit code 1, `is_error` beside the subtype "success", and stderr is empty."""
    run = command.turn("[[fail 529 overloaded]]")

    assert (run.code, run.err) == (1, b"")
    assert (run.answer["is_error"], run.answer["subtype"]) == (True, "success")
    assert {0} == set(run.answer["usage"].values())


def test_failures_are_tried_again(command, tmp_path):
    """Row "401, 429": it is tried again first, as `CLAUDE_CODE_MAX_RETRIES` says."""
    command.env["CLAUDE_CODE_MAX_RETRIES"] = "1"
    command.turn("[[fail 429 slow down]]")

    began, ended = journal(command)
    assert ended["time"] - began["time"] >= 0.5


SIGNALS = [
    ("SIGTERM", signal.SIGTERM, 143, 143),
    ("SIGINT while waiting", signal.SIGINT, 0, 0),
    ("SIGHUP", signal.SIGHUP, -1, 129),
    ("SIGKILL", signal.SIGKILL, -9, -9),
]


@pytest.mark.parametrize(("row", "number", "old", "new"), SIGNALS)
def test_signals(command, version, row, number, old, new):
    """Rows "SIGTERM" and "SIGINT": 143 is a termination; an interrupt gives exit code 0 and no answer."""
    with command.start("[[hang]]", *ASKED) as started:
        wait_until(lambda: journal(command))
        started.process.send_signal(number)
        run = started.end()

    assert (old if version == OLD else new, b"") == (run.code, run.err), row
    if number == signal.SIGINT and version == NEW:
        assert (run.answer["subtype"], "result" in run.answer) == ("error_during_execution", False)
    else:
        assert run.out == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_children(command, number):
    """Row "children": a tool runs in a session of its own and outlives the command."""
    with command.start("[[tool 60]]", *ASKED) as started:
        (tool,) = wait_until(lambda: children_of(started.pid))
        wait_until(lambda: os.getsid(tool) == tool)
        started.process.send_signal(number)
        started.end()
        alive = is_alive(tool)
        os.killpg(tool, signal.SIGKILL)

    assert alive
    wait_until(lambda: not is_alive(tool))


def test_large_replies(command):
    """Row "large replies": whole in a file, cut on a pipe, with exit code 0 both times."""
    whole = command.turn("[[big 200000]]")
    line = [command.program, *ASKED]
    piped = subprocess.run(
        line, input=b"[[big 200000]]", capture_output=True, env=command.env, cwd=command.cwd, check=True
    )

    assert len(whole.answer["result"]) == 200_000
    assert len(piped.stdout) in {64_000, 65_536}


def test_concurrency(command):
    """Row "concurrency": five at once each get their own answer, in less than the time of two."""
    with ThreadPoolExecutor(5) as pool:
        runs = list(pool.map(lambda n: command.turn(f"[[wait 0.5]]number {n}"), range(5)))

    assert [f"you said number {n}" for n in range(5)] == [run.answer["result"] for run in runs]
    assert standin.overlapping(journal(command)) > 1


def test_streaming(command):
    """Row "streaming": stream-json prints the beginning, the answer and the result, each on a line."""
    run = command.run("hello", "-p", "--output-format", "stream-json", "--verbose")

    assert [json.loads(line)["type"] for line in run.out.splitlines()] == ["system", "assistant", "result"]


def test_persistent_process(command, version):
    """Row "persistent process": many turns on one stdin; old versions forget the earlier ones."""
    lines = [{"type": "user", "message": {"role": "user", "content": text}} for text in ("one", "two")]
    words = ("-p", "--verbose", "--input-format", "stream-json", "--output-format", "stream-json")
    command.run("".join(json.dumps(line) + "\n" for line in lines), *words)

    texts = [record["texts"] for record in journal(command) if record["at"] == "begin"][-1]
    assert (["two"] if version == OLD else ["one", "you said one", "two"]) == texts


def test_version(command, version):
    """`--version` prints the version that it stands in for."""
    run = command.run("", "--version")

    assert f"{standin.VERSIONS[version]} (Claude Code)\n" == run.out.decode()


def test_injection(command):
    """`--resume=ID --print` goes on with a session and prints the bare answer."""
    first = command.turn("one")

    assert command.run("two", f"--resume={first.session}", "--print").out == b"you said two\n"


@pytest.mark.parametrize("handle", ["stdout", "stderr"])
def test_flood(command, handle):
    """Fault: it floods a stream and then answers."""
    run = command.turn(f"[[flood {handle} 1000000]]done")

    assert len(run.out if handle == "stdout" else run.err) >= 1_000_000


def test_half_json(command):
    """Fault: its JSON breaks off."""
    run = command.turn("[[half]]")

    assert run.out.startswith(b'{"type":"result"')
    with pytest.raises(json.JSONDecodeError):
        json.loads(run.out)


def test_grandchild_that_holds_the_pipe(command):
    """Fault: its output has no end before a grandchild is gone, although it ended well itself."""
    line = [command.program, *ASKED]
    ours, theirs = os.pipe()
    with open(ours, "rb") as pipe, tempfile.TemporaryFile() as stdin:
        stdin.write(b"[[hold 0.5]]")
        stdin.seek(0)
        with subprocess.Popen(line, stdin=stdin, stdout=theirs, env=command.env, cwd=command.cwd) as process:
            os.close(theirs)
        ended = time.monotonic()
        pipe.read()
        held = time.monotonic() - ended

    assert process.returncode == 0
    assert held > 0.2


def test_stopped(command):
    """Fault: it stops itself and ends only by SIGKILL."""
    with command.start("[[stop]]", *ASKED) as started:
        _, status = os.waitpid(started.pid, os.WUNTRACED)
        started.process.send_signal(signal.SIGTERM)
        started.process.kill()
        run = started.end()

    assert os.WIFSTOPPED(status)
    assert run.code == -signal.SIGKILL


def test_stubborn(version, tmp_path):
    """Fault: SIGTERM does not end it."""
    program = standin.place(tmp_path / "claude", version, "[[stubborn]]", journal=tmp_path / "journal")
    command = Command(program, {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, tmp_path / "work")
    with command.start("[[wait 0.3]]still here", *ASKED) as started:
        wait_until(lambda: journal(command))
        started.process.send_signal(signal.SIGTERM)
        run = started.end()

    assert (run.code, run.answer["result"]) == (0, "you said still here")


def test_bad_session_id(command):
    """Fault: it answers under an id that is no UUID."""
    run = command.turn("[[session ../../x]]")

    assert run.session == "../../x"


def test_orders_in_the_program(version, tmp_path):
    """Orders that are placed with it hold for each turn; `deaf` and `exit` come before stdin is read."""
    home = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    deaf = Command(standin.place(tmp_path / "deaf", version, "[[deaf]]"), home, tmp_path)
    ends = Command(standin.place(tmp_path / "ends", version, "[[exit 3]]"), home, tmp_path)

    assert deaf.turn("hello").answer["result"] == "you said nothing, deaf"
    assert ends.turn("").code == 3


def test_what_is_no_order_is_text(command):
    """Brackets that hold no known word are part of the message."""
    assert command.turn("[[1, 2]] [[").answer["result"] == "you said [[1, 2]] [["
