"""The daemon's own log lines, to standard error, without ever waiting for whoever reads it."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon.linefile import write_all

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from ksi_daemon.settings import Settings

KEPT = 10_000
"""Lines that wait for a slow reader; what comes beyond is dropped and counted."""


BURST = 1000
"""Lines written at once."""


class Writer:
    """A structlog logger whose lines a thread of its own writes to a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: Queue[str | None] = Queue(KEPT)
        self._dropped = 0
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="ksi-log", daemon=True)
        self._thread.start()

    def msg(self, line: str) -> None:
        """Queue one line."""
        try:
            self._lines.put_nowait(line)
        except Full:
            self._dropped += 1

    log = debug = info = warning = warn = error = critical = fatal = exception = failure = msg

    def close(self, timeout: float = 1.0) -> None:
        """Write what is queued; a reader that takes nothing is given up after `timeout` seconds, once."""
        if self._closed:
            return
        self._closed = True
        try:
            self._lines.put(None, timeout=timeout)
        except Full:
            return
        self._thread.join(timeout)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            lines = [line, *self._more()]
            if self._dropped:
                lines.append(f"{self._dropped} log lines dropped: nobody reads them fast enough")
                self._dropped = 0
            try:
                write_all(self._fd, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
            except OSError:
                self._dropped += len(lines)

    def _more(self) -> list[str]:
        """What else is queued, so that a burst costs one write; the end mark is put back."""
        found: list[str] = []
        while len(found) < BURST:
            try:
                line = self._lines.get_nowait()
            except Empty:
                break
            if line is None:
                self._lines.put_nowait(None)
                break
            found.append(line)
        return found


def one_line(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: no value breaks the line or steers the terminal, whoever sent it.

    A traceback keeps its line ends.
    """
    for name, value in fields.items():
        if isinstance(value, str) and not value.isprintable():
            ends = "\n" if name == "exception" else ""
            fields[name] = "".join(c if c.isprintable() or c in ends else _escaped(c) for c in value)
    return fields


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def configure(settings: Settings, fd: int = 2) -> Writer:
    """Send structlog's lines to `fd`, as JSON or for people; the writer is closed at exit."""
    writer = Writer(fd)
    atexit.register(writer.close)
    renderers: list[Any] = [structlog.processors.JSONRenderer()]
    if settings.log_format == "console":
        colors = os.isatty(fd) and "NO_COLOR" not in os.environ
        renderers = [one_line, structlog.dev.ConsoleRenderer(colors=colors)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    return writer
