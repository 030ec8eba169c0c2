"""The threads that the running test has started: those of others in its process may hang on purpose."""

from __future__ import annotations

import threading

_before: set[threading.Thread] = set()


def begin() -> None:
    """Note what is there before a test."""
    _before.clear()
    _before.update(threading.enumerate())


def new() -> list[threading.Thread]:
    """Those that came since and live."""
    return [thread for thread in threading.enumerate() if thread not in _before]
