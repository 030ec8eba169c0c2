"""Whose call it is: whether the stack of a blocking call on the loop's thread makes it the daemon's."""

from __future__ import annotations

import asyncio
import linecache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import blockbuster.blockbuster

import ksi_daemon

if TYPE_CHECKING:
    from types import FrameType

DAEMON = (str(Path(ksi_daemon.__file__).parent),)
"""Where the code under guard lies: what a test itself reads on the loop is not the guard's business."""

CALLERS = ("/exercise.py",)
"""Files of the daemon that stand for its caller: what they do themselves is arrangement, as in a test."""

_ASYNCIO = str(Path(asyncio.__file__).parent)
_PATCH = blockbuster.blockbuster.__file__
_SHOWN = 14


class Site(NamedTuple):
    """One frame: enough to judge and to show it, and nothing that keeps its locals alive."""

    path: str
    line: int
    function: str

    def __str__(self) -> str:
        source = linecache.getline(self.path, self.line).strip()
        return f"{self.path}:{self.line} in {self.function}: {source}"


Stack = tuple[Site, ...]  # innermost first, up to the loop's call of the callback


def _exempt(site: Site) -> bool:
    """What may block: imports, the one start of a child process, threads starting, the tools of the tests."""
    return (
        site.path.startswith("<frozen importlib")
        or (site.function == "create_subprocess_exec" and site.path.startswith(_ASYNCIO))
        or (site.function == "start" and site.path.endswith("/threading.py"))
        or (site.function == "submit" and site.path.endswith("/concurrent/futures/thread.py"))
        or site.path.endswith(("/linecache.py", "<frozen linecache>"))
        or "/coverage/" in site.path
        or "/_pytest/" in site.path  # its handlers capture logs
    )


def callback_of(frame: FrameType | None) -> FrameType | None:
    """The loop's frame that runs the callback in which `frame` is; None outside every callback."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "_run" and code.co_filename.startswith(_ASYNCIO):
            return frame
        frame = frame.f_back
    return None


def stack_of(frame: FrameType | None) -> Stack:
    """The callback's stack at `frame`, without blockbuster's own frames."""
    end, sites = callback_of(frame), []
    while frame is not None and frame is not end:
        if frame.f_code.co_filename != _PATCH:
            sites.append(Site(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return tuple(sites)


def counts(stack: Stack, watched: tuple[str, ...]) -> bool:
    """Whether code below one of the `watched` paths did it, and nothing excuses it.

    A call that asyncio makes itself (looking at a socket's path, say) is asyncio's; one that it makes through
    another module, such as subprocess, is its caller's.
    """
    if not stack or stack[0].path.startswith(_ASYNCIO) or any(map(_exempt, stack)):
        return False
    innermost = next((site.path for site in stack if site.path.startswith(watched)), None)
    return innermost is not None and not innermost.endswith(CALLERS)


def shown(stack: Stack) -> str:
    """The stack as text, innermost last as Python prints it, without its far end when it is long."""
    return "\n".join(f"    {site}" for site in reversed(stack[:_SHOWN]))
