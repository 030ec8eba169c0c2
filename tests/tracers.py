"""One thread at a time installs its tracer.

CPython 3.11 refuses the second of two threads that do so at once ("Cannot install a trace function while
another trace function is being installed"), and that thread is dead before it has run. With an audit hook
written in Python, such as the loop guard's, the first may lose its turn in the middle, so it happens.
"""

from __future__ import annotations

import sys
import threading
from functools import wraps
from typing import TYPE_CHECKING, Any

from coverage.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Callable

_turn = threading.RLock()


def _in_turn(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def wait_and_call(*args: Any) -> Any:
        with _turn:
            return call(*args)

    return wait_and_call


def take_turns() -> None:
    """From now on, for the life of the process: what a new thread does, and what coverage does in it."""
    sys.settrace = _in_turn(sys.settrace)
    for name in ("_start_tracer", "_installation_trace"):
        setattr(Collector, name, _in_turn(getattr(Collector, name)))
    if (hook := threading.gettrace()) is not None:
        threading.settrace(_in_turn(hook))
