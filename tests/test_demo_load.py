"""The demo's clients: paced, pipelined, and exact about what was acknowledged, whatever the daemon does."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING

import orjson
import pytest

from ksi_migrate import demo_load
from ksi_migrate.demo_count import count_log
from ksi_migrate.demo_frame import Frame, p99
from ksi_migrate.demo_load import KINDS, Load
from ksi_migrate.demo_meter import Meter, ask
from ksi_migrate.demo_scratch import daemon, scratch

if TYPE_CHECKING:
    from collections.abc import Callable

ONE = dataclasses.replace(KINDS[0], clients=1)


@pytest.fixture
def place():
    """A scratch root of the demo's own, with its flags."""
    with scratch() as found:
        yield found


@contextlib.asynccontextmanager
async def answering(place, answer: Callable[[dict], bytes | None]):
    """A server that answers each request with what `answer` makes of it, and hangs up on None."""

    async def serve(reader, writer):
        with contextlib.closing(writer):
            while line := await reader.readline():
                frame = answer(orjson.loads(line))
                if frame is None:
                    return
                writer.write(frame)

    path = place.settings.socket_path
    path.parent.mkdir(parents=True)
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield path
    finally:
        server.close()


def reply(request: dict, **more: object) -> bytes:
    """A good reply, or what `more` makes of it."""
    frame = {"event": request["event"], "data": {}, "correlation_id": request["correlation_id"], **more}
    return orjson.dumps(frame) + b"\n"


async def some(load: Load, wanted: int) -> None:
    """Wait until so many are acknowledged."""
    async with asyncio.timeout(20):
        while load.acknowledged < wanted:
            await asyncio.sleep(0.01)


async def test_every_acknowledged_record_of_a_real_daemon_is_on_disk(place):
    """A load that is stopped in good order has no open ends: all sent are acknowledged, all are on disk."""
    with daemon(place):
        load = Load(place.settings.socket_path)
        running = asyncio.create_task(load.run())
        await some(load, 300)
        load.stop()
        await running

    ledgers = load.ledgers()
    counted = [count_log(kind.component, kind.path(place.settings), ledgers, kind.identity) for kind in KINDS]

    assert [one.problems for one in counted] == [(), ()]
    assert sum(one.count.acknowledged for one in counted) == load.acknowledged >= 300
    assert all(ledger.acknowledged == frozenset(range(ledger.sent)) for ledger in ledgers)
    assert load.take_pings()
    assert not load.take_pings()


async def test_a_daemon_that_is_killed_breaks_no_promise(place):
    """After kill -9 each client knows that it was cut off, and all that it was promised is on disk."""
    with daemon(place) as process:
        load = Load(place.settings.socket_path)
        running = asyncio.create_task(load.run())
        await some(load, 300)
        process.kill()
        await running

    ledgers = load.ledgers()
    counted = count_log("messaging", ONE.path(place.settings), ledgers, ONE.identity)

    assert all("unanswered" in ledger.lost for ledger in ledgers)
    assert counted.count.acknowledged > 0
    assert (counted.count.lost, counted.count.doubled, counted.count.out_of_order) == (0, 0, 0)


async def test_without_a_daemon_every_client_says_so(place):
    """A socket that is not there ends the load at once, with a reason for each client."""
    load = Load(place.settings.socket_path)

    await load.run()

    assert all("No such file" in ledger.lost for ledger in load.ledgers())


async def test_error_replies_are_refusals_not_acknowledgements(place):
    """An error at the top level and one in the data both count as refused, with their code and text."""

    def answer(request: dict) -> bytes:
        number = request["correlation_id"]
        if number == 0:
            return reply(request, data={"error": "no room", "code": "io_error"})
        return reply(request, error="stopping") if number == 1 else reply(request)

    async with answering(place, answer) as path:
        load = Load(path, (ONE,))
        running = asyncio.create_task(load.run())
        await some(load, 10)
        load.stop()
        await running
    [ledger] = load.ledgers()

    assert ledger.refused == {0: "io_error: no room", 1: "error: stopping"}
    assert ledger.acknowledged == frozenset(range(2, ledger.sent))


async def test_frames_that_were_not_asked_for_are_passed_over(place):
    """A frame without a correlation id settles no request."""
    unasked = orjson.dumps({"event": "system:shutdown_notification", "data": {}}) + b"\n"

    async with answering(place, lambda request: unasked + reply(request)) as path:
        load = Load(path, (ONE,))
        running = asyncio.create_task(load.run())
        await some(load, 10)
        load.stop()
        await running
    [ledger] = load.ledgers()

    assert (frozenset(range(ledger.sent)), "") == (ledger.acknowledged, ledger.lost)


WRONG: dict[str, Callable[[dict], bytes | None]] = {
    "hung up": lambda _: None,
    "should have been answered": lambda request: reply(request, correlation_id=request["correlation_id"] + 1),
    "request None": lambda request: reply(request) * 2,
    "invalid literal": lambda _: b"nonsense\n",
    "no reply within": lambda _: b"",
}


@pytest.mark.parametrize("told", WRONG)
async def test_a_wrong_answer_ends_its_client_with_a_reason(place, told, monkeypatch):
    """A hang-up, a reply out of turn, one too many, no JSON, and silence are each kept in the ledger."""
    monkeypatch.setattr(demo_load, "ANSWER_S", 0.5)
    one_by_one = dataclasses.replace(ONE, window=1)

    async with answering(place, WRONG[told]) as path:
        load = Load(path, (one_by_one,))
        await load.run()
    [ledger] = load.ledgers()

    assert told in ledger.lost


async def test_no_more_than_the_window_is_unanswered(place):
    """A daemon that stands still gets the window's requests and no further one."""
    sent: list[dict] = []
    full = asyncio.Event()

    def swallow(request: dict) -> bytes:
        sent.append(request)
        if len(sent) == ONE.window:
            full.set()
        return b""

    async with answering(place, swallow) as path:
        load = Load(path, (ONE,))
        running = asyncio.create_task(load.run())
        await asyncio.wait_for(full.wait(), 10)
        await asyncio.sleep(0.1)  # long enough for fifty more, were they allowed
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    published = [request for request in sent if request["event"] == "message:publish"]
    assert len(published) <= ONE.window


async def test_the_meter_shows_a_daemon_that_is_gone_without_figures(place):
    """Without a daemon there are frames with dashes, and a window without figures instead of an error."""
    frames: list[Frame] = []
    meter = Meter(place.settings.socket_path, Load(place.settings.socket_path), frames.append, 0.02)
    meter.say("alone", "nobody answers")
    running = asyncio.create_task(meter.run())

    figures = await meter.measure(0.05)
    running.cancel()

    assert (
        figures.loop_stall_p99_ms,
        figures.loop_stall_max_ms,
        figures.ping_p99_ms,
        figures.rate_per_s,
    ) == (None, None, None, 0.0)
    assert (
        frames[0].phase,
        frames[0].note,
        frames[0].loop_stall_p99_ms,
        frames[0].components,
    ) == ("alone", "nobody answers", None, ())


async def test_questions_get_the_data_of_their_own_replies(place):
    """Unasked frames are passed over; an error, or a hang-up before the reply, is an empty answer."""
    unasked = b'{"event":"system:shutdown_notification","data":{}}\n'
    answers = {
        "good": lambda request: unasked + reply(request, data={"here": 1}),
        "bad": lambda request: reply(request, data={"error": "no"}),
        "end": lambda _: None,
    }

    async with answering(place, lambda request: answers[request["event"]](request)) as path:
        found = await ask(path, "good", "bad", "end")

    assert found == [{"here": 1}, {}, {}]


def test_p99_is_the_value_that_one_in_a_hundred_exceeds():
    """Of 1 to 200 it is 198, of one value that value, of none nothing."""
    assert (p99([float(n) for n in range(200, 0, -1)]), p99([5.0]), p99([])) == (198.0, 5.0, None)
