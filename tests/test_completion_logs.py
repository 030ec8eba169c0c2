"""The sessions' logs on both sides: order, torn tails, failures, and on the async side one writer for all."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from ksi_daemon.completion import AREA, answers, sessionlogs
from ksi_daemon.completion.sessionlogs import SessionLogs
from ksi_daemon.errors import ComponentBusy, ComponentClosed, InvalidParameter, IoFailed, OutcomeUnknown
from tests.completions import log_of, session
from tests.faults import HangingFile, counted, file_size_limit
from tests.rooms import SIDES, room
from tests.threads import new

WRITER = "ksi-completion-writer"


@pytest.fixture(params=SIDES)
async def logs(request, tmp_path):
    """The room on either side; the tests use its side directly."""
    async with room(AREA, request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def candidate(tmp_path):
    """The async side alone."""
    async with room(AREA, "async", tmp_path) as made:
        short = {"call_timeout": 0.3, "stop_timeout": 0.3}
        made.site.settings = made.site.settings.model_copy(update=short)
        yield made.backend


def line(number, text=""):
    """One line."""
    return b'{"n":%d,"t":"%s"}\n' % (number, text.encode())


def numbers(path):
    """The lines that are there."""
    return [json.loads(one)["n"] for one in path.read_bytes().splitlines()]


def threads():
    """The writers that there are."""
    return [one for one in new() if one.name == WRITER]


async def test_each_session_has_a_log_in_the_order_of_the_calls(logs, tmp_path):
    """Private, in whole lines; a hundred callers at once change nothing."""
    await asyncio.gather(*(logs.backend.append_session(session(n % 7), line(n)) for n in range(100)))

    for number in range(7):
        assert numbers(log_of(tmp_path, number)) == list(range(number, 100, 7))
        assert log_of(tmp_path, number).stat().st_mode & 0o777 == 0o600
    assert log_of(tmp_path, 0).parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["", "message_bus", "../tool_usage", session(1) + "/x", session(1) + "\n"])
async def test_what_is_no_uuid_is_no_session(logs, tmp_path, name):
    """So no other file can be written."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidParameter):
        await logs.backend.append_session(name, line(1))

    assert before == sorted(tmp_path.rglob("*"))


async def test_a_torn_tail_is_mended_before_the_first_line(logs, tmp_path):
    """Half a line is cut and kept beside; one that lacks its newline gets it."""
    path = log_of(tmp_path, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(line(1) + line(2)[:5])
    log_of(tmp_path, 2).write_bytes(line(1)[:-1])
    await logs.backend.append_session(session(1), line(3))
    await logs.backend.append_session(session(2), line(3))

    assert (numbers(path), numbers(log_of(tmp_path, 2))) == ([1, 3], [1, 3])
    (torn,) = path.parent.glob("*.torn-*")
    assert torn.read_bytes() == line(2)[:5]


async def test_a_log_that_cannot_be_opened(logs, tmp_path):
    """`io_error` that names it, on both sides alike; when it can be opened again the next line is in it."""
    path = log_of(tmp_path, 1)
    path.mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(IoFailed, match=f"could not open .*{path.name}.*EISDIR"):
            await logs.backend.append_session(session(1), line(1))
    path.rmdir()
    await logs.backend.append_session(session(1), line(2))

    assert numbers(path) == [2]


async def test_a_line_that_is_broken_off_is_cut_back(logs, tmp_path):
    """EFBIG in its middle: nothing of it stays, and later lines are whole."""
    await logs.backend.append_session(session(1), line(1))
    with file_size_limit(64 * 1024), pytest.raises(IoFailed, match=r"could not append .*EFBIG"):
        await logs.backend.append_session(session(1), line(2, "x" * 100_000))
    await logs.backend.append_session(session(1), line(3))

    assert numbers(log_of(tmp_path, 1)) == [1, 3]


async def test_a_log_that_was_rotated_or_removed(logs, tmp_path):
    """It is begun anew."""
    path = log_of(tmp_path, 1)
    await logs.backend.append_session(session(1), line(1))
    path.rename(path.with_suffix(".old"))
    await logs.backend.append_session(session(1), line(2))
    path.unlink()
    await logs.backend.append_session(session(1), line(3))

    assert numbers(path) == [3]


@pytest.mark.parametrize("durability", ["os", "fsync"])
async def test_durability_reaches_the_disk(logs, durability, monkeypatch):
    """With `fsync` each line is on the disk before its caller goes on, with `os` no fsync is made."""
    await logs.backend.append_session(session(1), line(1))
    calls = counted(monkeypatch, "fsync")
    logs.site.durability = durability
    await logs.backend.append_session(session(1), line(2))

    assert (durability == "fsync") == bool(calls)


async def test_more_sessions_than_are_kept_open(logs, tmp_path, monkeypatch):
    """Those that rest longest are closed, and opened again when they get a line."""
    for module in (answers, sessionlogs, sync_side()):
        monkeypatch.setattr(module, "OPEN_LOGS", 3)
    before = descriptors()
    for number in range(30):
        await logs.backend.append_session(session(number % 10), line(number))
    await logs.backend.append(b"{}\n")  # behind the last closing
    opened = descriptors() - before

    assert opened <= (3 if logs.side == "async" else 0)
    assert [numbers(log_of(tmp_path, number)) for number in range(10)] == [
        [number, number + 10, number + 20] for number in range(10)
    ]


def sync_side():
    """The module of the sync side, or, when that is gone, another one that has the same setting."""
    try:
        from ksi_daemon.completion import sync  # noqa: PLC0415
    except ImportError:
        return sessionlogs
    return sync


def descriptors():
    """How many are open; 0 where that cannot be seen."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


# the async side alone


async def test_one_thread_writes_all_logs(candidate):
    """The usage log's and every session's; it ends with the side."""
    await asyncio.gather(
        *(candidate.append_session(session(n), line(n)) for n in range(20)), candidate.append(b"{}\n")
    )
    during = len(threads())
    await candidate.close()
    async with asyncio.timeout(5):  # telling that it ends is a thread's last deed, and takes a moment
        while threads():
            await asyncio.sleep(0.001)
    await candidate.open()

    assert during == 1


async def test_after_the_close_a_line_is_refused(candidate):
    """In a session that was open as in one that was not."""
    await candidate.append_session(session(1), line(1))
    await candidate.close()
    for number in (1, 2):
        with pytest.raises(ComponentClosed):
            await candidate.append_session(session(number), line(2))
    await candidate.open()


async def test_an_open_that_fails_leaves_no_thread(tmp_path):
    """The usage log's error is raised."""
    async with room(AREA, "async", tmp_path) as made:
        await made.backend.close()
        made.path.unlink()
        made.path.mkdir()
        with pytest.raises(IoFailed, match="EISDIR"):
            await made.backend.open()
        while threads():  # it was told to end, and nobody waits for that
            await asyncio.sleep(0.001)
        made.path.rmdir()
        await made.backend.open()

    assert made.path.is_file()


@pytest.fixture
def hanging(monkeypatch, tmp_path):
    """The file of the first session that is opened, on a disk that can hang."""
    made = []

    class File(HangingFile):
        """Told apart by its path."""

        def __init__(self, path, component):
            super().__init__(path, component)
            made.append(self)

        def append(self, data, durability="os"):
            """Open first, as a session's log does."""
            if self._fd < 0:
                super().open()
            super().append(data, durability)

    monkeypatch.setattr(sessionlogs, "_SessionFile", File)
    yield made
    for file in made:
        file.answers.set()


async def stuck(side, hanging):
    """A line of session 1 whose write hangs."""
    await side.append_session(session(1), line(1))
    hanging[0].answers.clear()
    call = asyncio.ensure_future(side.append_session(session(1), line(2)))
    await hanging[0].stuck()
    return call


async def test_what_hangs_is_pending(candidate, hanging):
    """In words, as for the usage log; None when all is written."""
    nothing = candidate.pending()
    call = await stuck(candidate, hanging)
    found = candidate.pending()
    hanging[0].answers.set()
    await call

    assert found is not None
    assert found.startswith("a write of 1 lines, for ")
    assert (nothing, candidate.pending()) == (None, None)


async def test_a_log_with_a_line_on_its_way_is_not_closed(candidate, hanging, monkeypatch, tmp_path):
    """Others are, or more than the limit stay open; every line is written in its place."""
    monkeypatch.setattr(sessionlogs, "OPEN_LOGS", 2)
    call = await stuck(candidate, hanging)
    others = [asyncio.ensure_future(candidate.append_session(session(n), line(n))) for n in range(2, 6)]
    await asyncio.sleep(0)
    many = len(candidate._sessions._logs)
    hanging[0].answers.set()
    await asyncio.gather(call, *others)
    await candidate.append_session(session(9), line(9))
    few = list(candidate._sessions._logs)

    assert (many, len(few), few[-1]) == (5, 2, session(9))
    assert numbers(log_of(tmp_path, 1)) == [1, 2]


async def test_a_log_that_hangs_after_its_callers_were_answered_is_not_closed(
    candidate, hanging, monkeypatch
):
    """Its write may still come, so its file stays as it is."""
    monkeypatch.setattr(sessionlogs, "OPEN_LOGS", 1)
    call = await stuck(candidate, hanging)
    with pytest.raises(OutcomeUnknown):
        await call
    other = asyncio.ensure_future(candidate.append_session(session(2), line(1)))
    await asyncio.sleep(0)
    kept = list(candidate._sessions._logs)
    hanging[0].answers.set()
    await other

    assert kept == [session(1), session(2)]


async def test_closing_on_a_disk_that_hangs(candidate, hanging):
    """The close gives up after KSI_STOP_TIMEOUT; who waits is answered; the thread ends with the hang."""
    call = await stuck(candidate, hanging)
    behind = asyncio.ensure_future(candidate.append_session(session(1), line(3)))
    await candidate.close()
    found = await asyncio.gather(call, behind, return_exceptions=True)
    hanging[0].answers.set()
    for thread in threads():
        while thread.is_alive():
            await asyncio.sleep(0.001)
    await candidate.open()

    assert [type(error) for error in found] == [OutcomeUnknown, ComponentBusy]


async def test_a_cancelled_caller_waits_for_its_line(candidate, hanging, tmp_path):
    """The line that was on its way is written once, and the log counts as busy until then."""
    call = await stuck(candidate, hanging)
    call.cancel()
    await asyncio.sleep(0)
    busy = not candidate._sessions._logs[session(1)].idle
    hanging[0].answers.set()
    await asyncio.gather(call, return_exceptions=True)

    assert (busy, call.cancelled()) == (True, True)
    assert numbers(log_of(tmp_path, 1)) == [1, 2]


async def test_the_logs_close(tmp_path):
    """And say that everything was let go."""
    async with room(AREA, "async", tmp_path) as made:
        logs = SessionLogs(made.site, made.backend._lane)

        await logs.append(session(1), line(1))

        assert await logs.close()
