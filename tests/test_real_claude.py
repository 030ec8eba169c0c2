"""The real `claude` command behind a real daemon, on both sides; the API that it talks to is on the loopback.

Three cases exist on the async side alone, because on the sync side the loop stands still for a whole turn:
turns at the same time, the cancel of a running turn, and the end of the whole process tree at the deadline.
Their tests show what the sync side does instead.
"""

import os
import re
import select
import signal
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pytest

from tests import messages_api, real_claude
from tests.command import children_of, processes, wait_until
from tests.conftest import soaking
from tests.daemon import lines_of, running, write_flags
from tests.rooms import SIDES

pytestmark = [pytest.mark.soak, pytest.mark.unmeasured]

PLACES = [
    (version, side)
    for version in real_claude.PINNED
    for side in SIDES
    if soaking() or (version == real_claude.NEW) == (side == "async")
]
"""Each run takes a core for a second: the gate tries each version on one side, `make soak` on both."""

STRANGER = "00000000-0000-4000-8000-000000000000"
SLEEP = f"61.{os.getpid()}1"
"""Seconds for which a tool sleeps: no other process of the machine does so for exactly as long."""

ENDS = {"completion:result", "completion:error", "completion:cancelled"}


class Place:
    """A daemon with the real command, and the API that it talks to."""

    def __init__(self, version, side, root, api):
        self.version = version
        self.side = side
        self.root = root
        self.api = api
        self.program = real_claude.program(version)
        self._stack = ExitStack()
        write_flags(root, claude_cli=side, completion=side)

    def start(self):
        """Start the daemon."""
        env: dict = {**real_claude.environment(self.version, self.api.url, self.root / "home")}
        own = {"KSI_CLAUDE_BIN": str(self.program), "KSI_CLAUDE_ENV": ",".join(real_claude.QUIET)}
        own |= {"KSI_COMPLETION_RETRIES": "0", "KSI_CLAUDE_GRACE": "1"}
        self.daemon = self._stack.enter_context(running(self.root, **{**env, **own}))

    def stop(self):
        """Stop it as an operator would."""
        with self._stack:
            assert self.daemon.stop() == 0

    @contextmanager
    def client(self):
        """A connection that hears every frame."""
        with self.daemon.wire() as wire:
            yield Client(wire)

    def complete(self, prompt, **data):
        """One completion from its request to its last frame."""
        with self.client() as client:
            return client.end(client.ask(prompt, **data))

    def children(self):
        """The daemon's; sync: without what a command left behind dead, which it takes up now and then."""
        return children_of(self.daemon.pid, zombies=self.side == "async")


class Client:
    """A client of the daemon that asks for completions."""

    def __init__(self, wire):
        self.wire = wire
        self.ends = {}

    def ask(self, prompt, **data):
        """Queue a completion; its id, which is sent along so that no frame is missed."""
        name = data.pop("request_id", None) or f"request-{os.urandom(4).hex()}"
        self.wire.send({"event": "completion:async", "data": {"prompt": prompt, "request_id": name, **data}})
        return name

    def end(self, name):
        """The data of the frame that ends a request."""
        while name not in self.ends:
            frame = self.wire.frame()
            assert frame is not None, "the daemon hung up"
            if frame["event"] in ENDS:
                self.ends[frame["data"]["request_id"]] = {"event": frame["event"], **frame["data"]}
        return self.ends[name]


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def place(request, tmp_path_factory):
    """A daemon whose rooms are on one side, for all tests of a pinned version, which is there."""
    version, side = request.param
    try:
        real_claude.program(version)
    except real_claude.NotInstalled as error:
        pytest.skip(str(error))
    with messages_api.serving() as api, clean_environment():
        made = Place(version, side, tmp_path_factory.mktemp("root"), api)
        made.start()
        yield made
        made.stop()
        assert {request.headers["x-api-key"] for request in api.turns} == {real_claude.DUMMY}


@contextmanager
def clean_environment():
    """The tests' own environment without what the daemon would pass on to the command."""
    mine = re.compile(r"(?i)anthropic_|claude|.*_proxy$")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if mine.match(name):
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def nothing_left(place):
    """After each test no answer is held back, and the daemon has no child; async: not even a zombie."""
    yield
    place.api.release()
    wait_until(lambda: not place.children())


def test_turn(place):
    """A completion is answered, its answer and tokens are logged, and its agent goes on in its session."""
    end = place.complete("hello", agent_id="greeter")
    place.complete("again", agent_id="greeter")

    assert place.api.turns[-1].texts == ["hello", "you said hello", "again"]
    response = end["result"]["response"]
    assert (end["event"], response["result"]) == ("completion:result", "you said hello")
    root = place.root
    line = lines_of(root / "var/logs/responses" / f"{response['session_id']}.jsonl")[0]
    assert line["response"] == response
    usage = lines_of(root / "var/logs/daemon/tool_usage.jsonl")[-1]
    assert (usage["input_tokens"], usage["output_tokens"]) == (11, 7)


def test_resumed_turns(place):
    """A session goes on, whichever of its ids is named, and the API is told all that was said before."""
    first = place.complete("one")["result"]["response"]["session_id"]
    second = place.complete("two", session_id=first)["result"]["response"]["session_id"]
    place.complete("three", session_id=first)

    assert (second == first) == (place.version == real_claude.NEW)
    assert place.api.turns[-1].texts == ["one", "you said one", "two", "you said two", "three"]


def test_injection(place):
    """An injected message is part of the session that goes on."""
    session = place.complete("one")["result"]["response"]["session_id"]
    reply = place.daemon.ask("claude_cli:inject", session_id=session, message="psst")

    assert reply["status"] == "injected"
    assert place.api.turns[-1].texts == ["one", "you said one", "psst"]


def test_unknown_session(place):
    """A session that the command does not know is an error with the command's own text."""
    end = place.complete("hello", session_id=STRANGER)

    assert (end["event"], end["code"]) == ("completion:error", "unknown_session")
    assert end["error"] == f"No conversation found with session ID: {STRANGER}"


@pytest.mark.parametrize(("status", "retryable"), [(401, False), (429, True), (500, True)])
def test_api_error(place, status, retryable):
    """An error of the API keeps the command's own text and says whether trying again helps."""
    end = place.complete(f"[[fail {status} made up]]")

    assert (end["event"], end["code"]) == ("completion:error", "api_error")
    assert (end["api_status"], end["retryable"]) == (status, retryable)
    assert re.search(rf"API Error: .*{status}.*made up", end["error"])


def test_turns_used_up(place):
    """`max_turns` reached: 1.0.51 answers without a `result`; 2.x calls it an error, named in `errors`."""
    few = {"ksi": {"permissions": {"allowed_tools": ["Bash"]}, "max_turns": 1}}
    end = place.complete("[[turns]]", extra_body=few)

    if place.version == real_claude.OLD:
        response = end["result"]["response"]
        assert (response["subtype"], "result" in response) == ("error_max_turns", False)
    else:
        said = "Reached maximum number of turns (1)"
        assert ("api_error", said, False) == (end["code"], end["error"], end["retryable"])


def test_large_reply(place):
    """A reply of 200 kB arrives whole."""
    end = place.complete("[[big 200000]]")

    assert end["result"]["response"]["result"] == "x" * 200_000


def test_five_agents_at_once(place):
    """Async: five turns are under way together: no answer is given before all have asked. Sync: in turn."""
    before = len(place.api.turns)
    if place.side == "async":
        place.api.hold(5)
    with place.client() as client:
        names = [client.ask(f"I am {n}", agent_id=f"agent-{n}") for n in range(5)]
        texts = [client.end(name)["result"]["response"]["result"] for name in names]

    assert texts == [f"you said I am {n}" for n in range(5)]
    turns = sorted(place.api.turns[before:], key=lambda turn: turn.came)
    together = all(turn.answered > turns[-1].came for turn in turns)
    apart = all(one.answered < other.came for one, other in pairwise(turns))
    assert (together, apart) == (place.side == "async", place.side == "sync")


def test_cancel(place):
    """Async: a running turn ends with all that it started. Sync: the cancel comes when the turn is over."""
    before, mark = len(place.api.turns), f"sleep {SLEEP}"
    tools = {"ksi": {"permissions": {"allowed_tools": ["Bash"]}}}
    with place.client() as client, place.daemon.wire() as other:
        if place.side == "sync":
            place.api.hold(99)
        name = client.ask(f"[[tool {SLEEP}]]" if place.side == "async" else "hello", extra_body=tools)
        place.api.wait_for(before + 1)
        if place.side == "async":
            wait_until(lambda: processes(mark))
        other.send({"event": "completion:cancel", "data": {"request_id": name}})
        place.api.release()
        end = client.end(name)

    assert end["event"] == ("completion:cancelled" if place.side == "async" else "completion:result")
    wait_until(lambda: not processes(mark))


def test_deadline(place):
    """A turn past its deadline ends with an error of its own; async: with all that it started."""
    mark = f"sleep {SLEEP}"
    data = {"prompt": f"[[tool {SLEEP}]]", "allowed_tools": ["Bash"]}
    for seconds in (3, 10, 30):  # a busy machine needs long until the tool has begun
        with place.daemon.wire() as wire:
            wire.send({"event": "claude_cli:turn", "data": {**data, "timeout": seconds}})
            begun = wait_until(lambda: processes(mark) or select.select([wire.socket], [], [], 0)[0])
            reply = wire.frame()["data"]
        if isinstance(begun[0], int):
            break
    alive = processes(mark)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)

    assert (reply["code"], reply.get("retryable", False)) == ("turn_timeout", False)
    assert bool(alive) == (place.side == "sync")


def test_resumed_after_a_restart(place):
    """A session goes on after a restart of the daemon: where it began is remembered."""
    session = place.complete("one")["result"]["response"]["session_id"]
    place.stop()
    place.start()
    place.complete("two", session_id=session)

    assert place.api.turns[-1].texts == ["one", "you said one", "two"]
