"""The daemon's own log lines: one a record, whoever sent what is in them, and never waited for."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from ksi_daemon import logs
from ksi_daemon.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = "a\nb\r\x1b[31mc\u2028d\0é"


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def logged(tmp_path: Path, how: Any, *calls: Any, level: Any = "INFO") -> str:
    """What `calls` log in that format."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    writer = logs.configure(Settings(root=tmp_path, log_format=how, log_level=level), fd)
    for call in calls:
        call(structlog.get_logger("test"))
    writer.close()
    os.close(fd)
    return path.read_text(encoding="utf-8")


def test_a_json_record_is_one_object(tmp_path: Path) -> None:
    """Event, level and an ISO timestamp in UTC; hostile text is a value like another."""
    text = logged(tmp_path, "json", lambda log: log.info("hello", x=HOSTILE))

    (line,) = text.split("\n")[:-1]
    record = json.loads(line)
    assert (record["event"], record["level"], record["x"]) == ("hello", "info", HOSTILE)
    assert record["timestamp"].endswith("Z")


def test_a_console_record_is_one_line_without_control_characters(tmp_path: Path) -> None:
    """Newlines and escape sequences of a client are shown, not obeyed; letters stay."""
    text = logged(tmp_path, "console", lambda log: log.info(HOSTILE, x=HOSTILE))

    assert text.count("\n") == 1
    assert all(character.isprintable() for character in text[:-1])
    assert text.count(r"a\nb\r\x1b[31mc\u2028d\x00é") == 2


def fail(log: Any) -> None:
    """Log an exception whose message is hostile."""
    try:
        int(HOSTILE)
    except ValueError:
        log.exception("failed")


@pytest.mark.parametrize("how", ["json", "console"])
def test_a_traceback_is_logged_and_cannot_steer_a_terminal(tmp_path: Path, how: str) -> None:
    """JSON keeps it on the record's line; on the console it has its own lines, and nothing else does."""
    text = logged(tmp_path, how, fail)

    assert "Traceback" in text
    assert "\x1b" not in text
    assert (text.count("\n") == 1) is (how == "json")


def test_levels_below_the_setting_are_left_out(tmp_path: Path) -> None:
    """With WARNING an info record is not written."""
    text = logged(
        tmp_path, "json", lambda log: log.info("no"), lambda log: log.warning("yes"), level="WARNING"
    )

    assert [json.loads(line)["event"] for line in text.splitlines()] == ["yes"]


def test_nobody_waits_for_a_reader_that_does_not_read() -> None:
    """With the pipe full, lines are dropped and counted instead, and close gives up after its timeout."""
    reading, writing = os.pipe()
    writer = logs.Writer(writing)
    began = time.monotonic()
    for _ in range(logs.KEPT * 2):
        writer.msg("x" * 200)
    writer.close(0.1)
    writer.close(0.1)

    took = time.monotonic() - began

    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.extend(iter(lambda: os.read(reading, 1 << 20), b"")))
    reader.start()
    writer._lines.put(None)
    writer._thread.join()
    os.close(writing)
    reader.join()
    os.close(reading)
    assert took < 2
    assert b" log lines dropped: nobody reads them fast enough\n" in b"".join(found)


def test_a_reader_that_is_gone_is_no_fault() -> None:
    """A closed pipe costs the lines, not the daemon; close still ends."""
    reading, writing = os.pipe()
    os.close(reading)
    writer = logs.Writer(writing)
    for _ in range(10):
        writer.msg("x")

    writer.close()

    os.close(writing)
    assert not writer._thread.is_alive()


def test_a_burst_is_written_in_order_and_whole() -> None:
    """Many lines at once come out as they went in, and the last ones before close are there."""
    reading, writing = os.pipe()
    writer = logs.Writer(writing)
    found: list[bytes] = []

    def read() -> None:
        while piece := os.read(reading, 1 << 16):
            found.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(3000):
        writer.msg(str(n))
    writer.close(10)
    os.close(writing)
    reader.join()
    os.close(reading)

    assert b"".join(found).split() == [b"%d" % n for n in range(3000)]


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("1", False)])
def test_a_terminal_gets_colours_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_color: str | None, coloured: bool
) -> None:
    """Colours go to a terminal only, and not when NO_COLOR is set."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    ours, theirs = os.openpty()
    writer = logs.configure(Settings(root=tmp_path), theirs)
    structlog.get_logger("test").info("hello")
    writer.close()
    text = os.read(ours, 4096)
    os.close(ours)
    os.close(theirs)

    assert b"hello" in text
    assert (b"\x1b[" in text) is coloured
