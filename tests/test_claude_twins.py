"""The stand-in for the `claude` command and the real one do the same when they are asked the same."""

import json
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests import messages_api, real_claude, standin
from tests.command import ASKED, Command, wait_until
from tests.conftest import soaking

pytestmark = [pytest.mark.soak, pytest.mark.unmeasured]
STRANGER = "00000000-0000-4000-8000-000000000000"
FILL = 3
"""Runs at the same time: the real one needs most of a second of a core for each."""


@dataclass(frozen=True)
class Seen:
    """What of a run must be the same: exit code, the text on either stream, and what the JSON says."""

    code: int
    err: str
    out: str | None = None
    subtype: str | None = None
    is_error: bool | None = None
    result: str | None = None
    same_session: bool | None = None


def seen(run, asked=""):
    """A run as it is compared; `asked` is the session that it was to go on with."""
    err = run.err.decode()
    if not run.out.startswith(b"{"):
        return Seen(run.code, err, run.out.decode())
    answer = run.answer
    same = answer["session_id"] == asked
    return Seen(run.code, err, None, answer["subtype"], answer["is_error"], answer.get("result"), same)


CALLS = {
    "success": ("hello", ASKED),
    "plain text": ("hello", ("--print",)),
    "option for an id": ("hello", (*ASKED, "--resume=--version")),
    "unknown session": ("hello", (*ASKED, f"--resume={STRANGER}")),
    "unknown option": ("hello", (*ASKED, "--nosuch=1")),
    "no message": ("", ASKED),
    "unknown command": ("/nosuch", ASKED),
    "missing configuration": ("hello", (*ASKED, "--mcp-config=/nowhere.json")),
    "turns used up": ("[[turns]]", (*ASKED, "--max-turns=1", "--allowedTools=Bash")),
    "400": ("[[fail 400 made up]]", ASKED),
    "401": ("[[fail 401 made up]]", ASKED),
    "429": ("[[fail 429 made up]]", ASKED),
    "500": ("[[fail 500 made up]]", ASKED),
    "large reply": ("[[big 200000]]", (*ASKED, "--model=sonnet", "--disallowedTools=Bash,Read")),
}


@pytest.fixture(scope="module")
def api():
    """What the real command talks to."""
    with messages_api.serving() as served:
        yield served


@pytest.fixture(params=zip(real_claude.PINNED, standin.VERSIONS, strict=True), ids=list(standin.VERSIONS))
def twins(request, api, tmp_path):
    """The real command, and the stand-in with the same version's manners."""
    version, manners = request.param
    env = real_claude.environment(version, api.url, tmp_path / "home")
    try:
        program = real_claude.program(version)
    except real_claude.NotInstalled as error:
        pytest.skip(str(error))
    placed = standin.place(tmp_path / "bin/claude", manners)
    return Command(program, env, tmp_path / "real"), Command(placed, env, tmp_path / "stand-in")


def test_same_outcomes(twins, request):
    """Exit code, streams, texts, `is_error` and the subtype are the same, call for call.

    The gate makes every other call of each version, `make soak` all of both.
    """
    begin, step = (0, 1) if soaking() else (request.node.callspec.indices["twins"], 2)
    calls = dict(list(CALLS.items())[begin::step])

    def both(call):
        prompt, words = call
        return [seen(command.run(prompt, *words)) for command in twins]

    with ThreadPoolExecutor(FILL) as pool:
        found = dict(zip(calls, pool.map(both, calls.values()), strict=True))

    real, imitated = ({name: pair[which] for name, pair in found.items()} for which in (0, 1))
    assert real == imitated


def test_same_sessions(twins, tmp_path):
    """Both go on with a session under the same or under a new id, and only from where it began."""
    other = tmp_path / "other"
    other.mkdir()

    def both(command):
        first = command.turn("one").session
        here = command.turn("two", f"--resume={first}")
        there = command.turn("two", f"--resume={first}", cwd=other)
        return seen(here, first), repr(seen(there)).replace(first, "ID")

    real, imitated = map(both, twins)

    assert real == imitated


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_same_ends(twins, api, number):
    """A signal while the command waits for its answer ends both alike."""
    real, imitated = twins
    api.hold(99)
    before = len(api.turns)
    with real.start("hello", *ASKED) as started:
        api.wait_for(before + 1)
        started.process.send_signal(number)
        found = seen(started.end())
    api.release()
    journal = imitated.cwd / "journal"
    imitated.env["STANDIN_JOURNAL"] = str(journal)
    with imitated.start("[[hang]]", *ASKED) as started:
        wait_until(lambda: standin.journal_of(journal))
        started.process.send_signal(number)
        expected = seen(started.end())

    assert expected == found


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nothing_but_the_loopback(twins, api, tmp_path):
    """The real command opens no connection but to the loopback, and sends no name for anybody to look up."""
    trace = tmp_path / "trace"
    line = ["strace", "-f", "-qq", "-s", "0", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)]
    real = twins[0]
    traced = Command(real.program, real.env, real.cwd)
    done = subprocess.run(
        [*line, str(traced.program), *ASKED],
        input=b"hello",
        capture_output=True,
        env=traced.env,
        cwd=traced.cwd,
        check=True,
    )

    assert json.loads(done.stdout)["result"] == "you said hello"
    contacts = addresses(trace.read_text())
    assert contacts == {"127.0.0.1"}
    assert {request.headers["x-api-key"] for request in api.turns} == {real_claude.DUMMY}


def addresses(trace):
    """The internet addresses in a trace."""
    found = set()
    for line in trace.splitlines():
        for mark in ('inet_addr("', 'inet_pton(AF_INET6, "'):
            if mark in line:
                found.add(line.split(mark)[1].split('"')[0])
    return found


def test_addresses_are_found():
    """The proof above would see a name server, by either family."""
    trace = """\
1 connect(19, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.53")}, 16) = 0
2 connect(19, {sa_family=AF_INET6, inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)}, 28) = 0
3 connect(19, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT
"""

    assert addresses(trace) == {"192.0.2.53", "2001:db8::1"}
