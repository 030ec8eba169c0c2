"""Exports on both sides: their bytes, their names, and that none is ever torn or replaced."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import time

import pytest

from ksi_daemon.conversation import exporting, jobs
from ksi_daemon.conversation.core import Order
from ksi_daemon.lane import CancelledTooLate
from ksi_daemon.worker import Turn
from tests.rooms import SIDES
from tests.talks import answer, folder_of, lay, said, talks

NAME = "conversation_talk_2025-07-12_{}-06-40"


@pytest.fixture(autouse=True)
def zone(monkeypatch):
    """Local time is two hours ahead; workers are made with it."""
    monkeypatch.setenv("TZ", "Etc/GMT-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(params=SIDES)
async def room(request, tmp_path):
    """The room with one conversation."""
    lay(
        tmp_path,
        talk=[
            said("user", 0, "Hello ☃"),
            said("DIRECT_MESSAGE", "2025-07-12T10:00:01", "psst", **{"from": "a", "to": "b"}),
            answer("2025-07-12T10:00:02+05:00", "two\nlines"),
            said("claude", "whenever", ["a", 1]),
        ],
    )
    async with talks(request.param, tmp_path) as made:
        yield made


def stored(room, found):
    """The bytes of an export."""
    return (room.root / found["export_path"]).read_bytes()


async def test_markdown(room):
    """Title, times, then each message with its head, its content and a rule; no blank lines."""
    found = await room.ask("export", session_id="talk")
    text = stored(room, found).decode()

    assert list(found) == ["export_path", "filename", "format", "message_count", "size_bytes"]
    assert (found["format"], found["message_count"], found["size_bytes"]) == (
        "markdown",
        4,
        len(text.encode()),
    )
    assert found["export_path"] == f"var/state/exports/{found['filename']}"
    assert found["filename"] == f"{NAME.format('19')}.md"
    head, *rest = text.splitlines()
    assert head == "# Conversation Export: talk"
    assert rest[0].startswith("*Exported on 2025-07-12 ")
    assert rest[1:3] == ["*Total messages: 4*", "---"]
    assert [line for line in rest[3:] if not line.startswith("### ")] == [
        *("Hello ☃", "---", "psst", "---", "two", "lines", "---", '["a", 1]', "---")
    ]
    heads = [line.partition(" - ")[2] for line in rest if line.startswith("### ")]
    assert heads == ["You", "a → b", "Claude", "Claude"]
    assert text.endswith("---\n")


def test_local_times_take_what_has_no_zone_as_utc():
    """What is no time stays as it is."""
    assert exporting.local("2025-07-12T10:00:01") == "2025-07-12 12:00:01"
    assert exporting.local("2025-07-12T10:00:02+05:00") == "2025-07-12 07:00:02"
    assert exporting.local("whenever") == "whenever"
    assert exporting.local("0001-01-01T00:00:00+14:00") == "0001-01-01T00:00:00+14:00"
    assert exporting.local(None) == "unknown time"


async def test_json(room):
    """An indent of two, nothing escaped, no newline at the end; `to` only where there is one."""
    found = await room.ask("export", session_id="talk", format="json")
    data = stored(room, found)
    whole = json.loads(data)

    assert found["filename"] == f"{NAME.format('19')}.json"
    assert data.startswith(b'{\n  "session_id": "talk",\n  "exported_at": "2025-07-12 ')
    assert data.endswith(b"}\n  ]\n}")
    assert "☃".encode() in data
    assert whole["exported_at_iso"] == "2025-07-12T17:06:40.001000+00:00"
    assert whole["total_messages"] == 4
    assert list(whole["messages"][0]) == ["timestamp", "display_time", "sender", "content", "type"]
    assert whole["messages"][1]["to"] == "b"


async def test_files_and_directories_are_private(room):
    """The parents are made, 0700; the file is 0600; nothing else is left."""
    found = await room.ask("export", session_id="talk")
    folder = room.root / "var/state/exports"

    assert stat.S_IMODE((room.root / found["export_path"]).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert os.listdir(folder) == [found["filename"]]


async def test_exports_of_one_second_are_numbered(room):
    """In the order of the requests, each whole; other formats have numbers of their own."""
    asked = [room.ask("export", session_id="talk", format=form) for form in ("markdown", "markdown", "json")]
    found = await asyncio.gather(*asked)
    room.later(1)
    next_one = await room.ask("export", session_id="talk")

    base = NAME.format("19")
    assert [one["filename"] for one in found] == [f"{base}.md", f"{base}_2.md", f"{base}.json"]
    assert stored(room, found[0]) == stored(room, found[1])
    assert next_one["filename"].endswith("-41.md")


async def test_no_file_is_replaced(room):
    """A name that is taken, by a link even, is passed over."""
    folder = room.root / "var/state/exports"
    folder.mkdir(parents=True)
    base = NAME.format("19")
    (folder / f"{base}.md").write_bytes(b"mine")
    (folder / f"{base}_2.md").symlink_to(room.root / "elsewhere")
    found = await room.ask("export", session_id="talk")

    assert found["filename"] == f"{base}_3.md"
    assert (folder / f"{base}.md").read_bytes() == b"mine"
    assert not (room.root / "elsewhere").exists()


async def test_a_long_session_id_fits_into_a_file_name(room):
    """It is cut in the name, at a character; the content has all of it."""
    session = "é" * 120
    lay(room.root, **{session: [said("user", 0, "x")]})
    found = await room.ask("export", session_id=session)

    assert len(found["filename"].encode()) < 255
    assert stored(room, found).decode().startswith(f"# Conversation Export: {session}\n")


async def test_a_directory_that_cannot_be_written_is_told(room):
    """The error has the system's word; nothing is left, and the next export works."""
    place = room.root / "var/state"
    place.mkdir()
    (place / "exports").write_bytes(b"")
    refused = await room.ask("export", session_id="talk")
    (place / "exports").unlink()
    found = await room.ask("export", session_id="talk")

    assert (refused["code"], refused["error"].startswith("Export failed: ")) == ("io_error", True)
    assert len(stored(room, found)) == found["size_bytes"]


async def test_ten_thousand_messages_are_exported_at_most(room):
    """The first ones by their stamps."""
    lay(room.root, long=[said("user", f"2025-07-12T10:00:00.{n:06d}Z", str(n)) for n in range(10_003)])
    found = await room.ask("export", session_id="long", format="json")

    whole = json.loads(stored(room, found))
    assert (found["message_count"], whole["messages"][-1]["content"]) == (10_000, "9999")


async def test_a_cancelled_export_is_whole(tmp_path):
    """Its caller waits for the outcome: the file is there."""
    lay(tmp_path, talk=[said("user", 0, "x" * 100)] * 10)
    async with talks("async", tmp_path) as room:
        order = Order("talk", "markdown", "name", 1752340000.0)
        export = asyncio.create_task(room.backend.export(order))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        export.cancel()
        with pytest.raises(CancelledTooLate):
            await export

        assert (tmp_path / "var/state/exports/name.md").read_bytes().endswith(b"---\n")


# the job itself, in this process


def export(root):
    """The job, as a worker does it."""
    order = Order("talk", "markdown", "name", 1752340000.0)
    return jobs.export(Turn(), str(folder_of(root)), str(root / "exports"), order)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_where_there_are_no_links_the_name_is_kept_first(tmp_path, monkeypatch, number):
    """Some file systems have no hard links: an empty file keeps the name, then the whole one replaces it."""

    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number))

    lay(tmp_path, talk=[said("user", 0, "x")])
    monkeypatch.setattr(os, "link", refuse)

    assert [export(tmp_path).name, export(tmp_path).name] == ["name.md", "name_2.md"]
    assert sorted(os.listdir(tmp_path / "exports")) == ["name.md", "name_2.md"]


@pytest.mark.parametrize("call", ["write", "fchmod", "link"])
def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch, call):
    """Whatever the disk refuses: no file, no temporary one."""

    def refuse(*_args, **_options):
        raise OSError(errno.ENOSPC, "full")

    lay(tmp_path, talk=[said("user", 0, "x")])
    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        with pytest.raises(OSError, match="full"):
            export(tmp_path)

    assert os.listdir(tmp_path / "exports") == []


def test_what_a_crash_left_is_removed_when_it_is_old(tmp_path):
    """Not what may just be written, nor what is not ours."""
    folder = tmp_path / "exports"
    folder.mkdir()
    for name in (".export.old.tmp", ".export.new.tmp", "kept.tmp", ".export.kept"):
        (folder / name).write_bytes(b"")
    os.utime(folder / ".export.old.tmp", (0, 0))
    jobs.clean(Turn(), str(folder))

    assert sorted(os.listdir(folder)) == [".export.kept", ".export.new.tmp", "kept.tmp"]
