"""Jobs for the tests of worker processes: well-behaved ones, and every other kind."""

from __future__ import annotations

import os
import pathlib
import time

from ksi_daemon.errors import IoFailed, NotFound

_kept: list[str] = []


def add(turn, one, other):
    """A sum."""
    return one + other


def pid(turn):
    """Which process does it."""
    return os.getpid()


def keep(turn, value):
    """What this process was told to keep, in order."""
    _kept.append(value)
    return list(_kept)


def count(turn, number):
    """A word for each number."""
    for word in range(number):
        turn.tell(word)
    return number


def count_and_die(turn, number):
    """The same, and no end of the job."""
    count(turn, number)
    os._exit(1)


def large(turn, size):
    """So many bytes."""
    return b"x" * size


def read(turn, path):
    """A file's text, or the system's own error."""
    return pathlib.Path(path).read_text()


def refuse(turn):
    """An error of ours."""
    raise NotFound("nothing of that name")


def fail_io(turn):
    """An error of ours that was not made from one text."""
    raise IoFailed("agent", "read it", OSError(28, "No space left on device"))


def fault(turn):
    """What nobody foresaw."""
    raise ZeroDivisionError


def die(turn):
    """No outcome at all."""
    os._exit(1)


def patient(turn, began):
    """Goes on until nobody waits any more; says by a file that it did."""
    pathlib.Path(began).touch()
    try:
        while True:
            turn.check()
            time.sleep(0.001)
    finally:
        pathlib.Path(began).unlink()


def deaf(turn, began):
    """Goes on whoever waits."""
    pathlib.Path(began).touch()
    time.sleep(60)


def slow(turn, seconds, place):
    """Writes a file after a while, without a word."""
    time.sleep(seconds)
    pathlib.Path(place).write_text("done")
    return "done"


def alive(turn, seconds):
    """Says now and then that it goes on."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        turn.tell(None)
        time.sleep(0.02)
    return "over"


JOBS = {
    job.__name__: job
    for job in (
        add,
        pid,
        keep,
        count,
        count_and_die,
        large,
        read,
        refuse,
        fail_io,
        fault,
        die,
        patient,
        deaf,
        slow,
        alive,
    )
}
