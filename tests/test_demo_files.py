"""The demo's work on files: every set is found again in the end, and what goes wrong fails the step."""

from __future__ import annotations

import asyncio
import json

import pytest
import yaml

from ksi_migrate import demo_files
from ksi_migrate.demo_command import StepFailed
from ksi_migrate.demo_count import Count
from ksi_migrate.demo_files import Amount, Work, request
from ksi_migrate.demo_frame import Figures
from ksi_migrate.demo_script import gathered

AMOUNT = Amount(sessions=4, lines=8, sets=6, files=2, bytes_each=500)


@pytest.fixture
def work(tmp_path):
    """A little of it, laid down."""
    found = Work(tmp_path, AMOUNT)
    found.lay()
    return found


async def answering(tmp_path, answer):
    """A server that answers each request with the frames of `answer(request)`, then hangs up."""

    async def serve(reader, writer):
        line = await reader.readline()
        for frame in answer(json.loads(line)):
            writer.write(json.dumps(frame).encode() + b"\n")
        writer.close()

    return await asyncio.start_unix_server(serve, tmp_path / "sock")


def reply(asked, data):
    """The frames of one reply, after one that nobody asked for."""
    return [{"event": "completion:result", "data": {}}, {"correlation_id": asked["event"], "data": data}]


class Daemon:
    """Answers as a daemon does: listings from the work's own account, sets into the files."""

    def __init__(self, work, *, drops=(), lists=None):
        self.work, self.drops, self.lists = work, drops, lists

    def __call__(self, asked):
        """The frames for one request."""
        if asked["event"] == "config:set":
            return reply(asked, self.set(asked["data"]))
        return reply(asked, {"conversations": self.lists or self.work._sessions.rows()})

    def set(self, data):
        """Acknowledged, and in the file unless it is one to drop."""
        path = self.work._files.folder / data["file_path"]
        found = yaml.safe_load(path.read_bytes())
        if data["value"] not in self.drops:
            found.setdefault("demo", {})[data["key"].removeprefix("demo.")] = data["value"]
        path.write_text(yaml.safe_dump(found, sort_keys=False))
        return {"status": "set"}


async def test_all_is_read_set_and_found_again(tmp_path, work):
    """Each conversation is listed with its lines, each key is in its file once, also those of a flip."""
    over = asyncio.Event()
    async with await answering(tmp_path, Daemon(work)):
        await gathered(work.refresh(tmp_path / "sock"), work.set_many(tmp_path / "sock"))
        asyncio.get_running_loop().call_later(0.08, over.set)
        meanwhile = await work.set_until(tmp_path / "sock", over)
    counted = work.count()

    assert meanwhile >= 1
    assert counted.count == Count(acknowledged=6 + meanwhile, on_disk=6 + meanwhile)
    assert (counted.component, counted.problems) == ("config", ())


async def test_a_lost_set_is_counted(tmp_path, work):
    """What was acknowledged and is in no file is a problem with the key's name."""
    async with await answering(tmp_path, Daemon(work, drops={3})):
        await work.set_many(tmp_path / "sock")
    counted = work.count()

    assert counted.count == Count(acknowledged=6, on_disk=5, lost=1)
    assert counted.problems == ("a set that was acknowledged is in no file: key_3",)


@pytest.mark.parametrize("content", [None, "a: [", "text", "name: other\n", "demo: 5\n"])
def test_a_file_that_is_not_what_it_was_is_torn(work, content):
    """Gone, no YAML, no object, or without what was there before."""
    path = work._files.path(0)
    path.unlink() if content is None else path.write_text(content)
    counted = work.count()

    assert counted.count == Count(torn=1)
    assert counted.problems == ("bench_00.yaml is not what it was before the sets",)


def test_what_nobody_set_is_foreign(work):
    """A key of another number, and one below the name of another."""
    path = work._files.path(0)
    path.write_text(path.read_text() + "demo:\n  key_5: 5\n  key_0: 2\n")
    counted = work.count()

    assert counted.count == Count(on_disk=2, foreign=2)
    assert counted.problems[0] == "a key that nobody set: bench_00.yaml: key_5"


async def test_a_conversation_that_is_listed_wrongly_fails_the_step(tmp_path, work):
    """With its name and both figures."""
    lists = [{**row, "message_count": 7} for row in work._sessions.rows()]

    async with await answering(tmp_path, Daemon(work, lists=lists)):
        with pytest.raises(StepFailed, match="4 are listed wrongly: session-000000 with 7 lines, not 8"):
            await work.refresh(tmp_path / "sock")


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([{"correlation_id": "e", "data": {"error": "no room"}}], "e: no room"),
        ([{"correlation_id": "e", "error": "shutting down"}], "e: shutting down"),
        ([{"correlation_id": "e", "data": []}], r"e: \[\]"),
        ([], "hung up on e"),
    ],
)
async def test_an_answer_that_is_none_fails_the_step(tmp_path, frames, text):
    """An error in either place, no result at all, or the end of the connection."""
    async with await answering(tmp_path, lambda _asked: frames):
        with pytest.raises(StepFailed, match=text):
            await request(tmp_path / "sock", "e", {})


async def test_a_daemon_that_is_gone_or_silent_fails_the_step(tmp_path, monkeypatch):
    """Nobody is waited for for ever."""
    over = asyncio.Event()

    async def silent(reader, writer):
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    with pytest.raises(StepFailed, match="hung up on e"):
        await request(tmp_path / "sock", "e", {})
    monkeypatch.setattr(demo_files, "PATIENCE_S", 0.05)
    async with await asyncio.start_unix_server(silent, tmp_path / "sock"):
        with pytest.raises(StepFailed, match=r"e had no answer within 0\.05 s"):
            await request(tmp_path / "sock", "e", {})
        await over.wait()


async def test_the_first_failure_is_what_is_told():
    """Work at once fails as work of one does."""

    async def fail():
        raise StepFailed("no luck")

    with pytest.raises(StepFailed, match="no luck"):
        await gathered(asyncio.sleep(10), fail())


def test_what_others_met_stands_beside_what_it_took(work):
    """In one document."""
    figures = Figures({"conversation": "async", "config": "sync"}, "os", 1.0, 1.0, 2.0, 3.0, 4.0)

    assert work.done(1.5, figures).document() == {
        "conversations": 4,
        "lines": 32,
        "sets": 6,
        "seconds": 1.5,
        "stages": {"conversation": "async", "config": "sync"},
        "loop_stall_max_ms": 3.0,
        "ping_p99_ms": 4.0,
    }
