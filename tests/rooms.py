"""One room in a scratch directory on either side: what every behaviour test of a room gets.

It knows no switch, so that it goes on working when the switch and the sync sides are gone. The loop guard
watches each test: the candidate must not trip it, and the control must as soon as it was called.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from ksi_daemon import settings
from ksi_daemon.area import Area
from ksi_daemon.errors import KsiError
from ksi_daemon.hub import Hub
from ksi_daemon.router import Router
from ksi_daemon.settings import Settings
from ksi_daemon.site import Site
from tests.guard import GuardAsleep, expect_trip, loop_guard

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

SIDES = ("sync", "async") if "sync" in Area.__dataclass_fields__ else ("async",)
"""What to run each behaviour test on: both sides, and the candidate alone once the control is gone."""

START = 1752340000.0
"""2025-07-12 17:06:40 UTC, where every room's clock begins; each look at it is a millisecond later."""

LIMITS = {"KSI_CALL_TIMEOUT": "0.3", "KSI_STOP_TIMEOUT": "0.3", "KSI_OFFLINE_QUEUE_LIMIT": "5"}
"""Short enough for a test to wait for, small enough to reach."""


class Inline:
    """The control as coroutines that never wait, as the daemon calls it; counts what may block."""

    def __init__(self, side):
        self._side = side
        self.calls = 0

    def __getattr__(self, name):
        method = getattr(self._side, name)

        async def call(*args):
            self.calls += name not in {"open", "close"}
            return method(*args)

        return call


class Peer:
    """A client as handlers see it: keeps the frames that it was sent, and may be slow or gone."""

    def __init__(self):
        self.frames = []
        self.gone = False
        self.reads = asyncio.Event()
        self.reads.set()
        self._calls = []

    def send(self, frame):
        """Keep the frame; False when it is gone."""
        if not self.gone:
            self.frames.append(json.loads(frame))
        return not self.gone

    async def writable(self):
        """Wait until it reads."""
        await self.reads.wait()

    def on_close(self, call):
        """Call `call` when it hangs up."""
        self._calls.append(call)

    def hang_up(self):
        """Be gone."""
        self.gone = True
        for call in self._calls:
            call()


class Room:
    """A service on one side, at a controlled clock; `told` are the frames that it told every client."""

    def __init__(self, area, side, root):
        self.area = area
        self.side = side
        self.site = Site(area.name, _settings(area, root), clock=self._clock, new_id=self._new_id)
        self.neighbours = area.exercise.neighbours()
        self.told: list[dict[str, Any]] = []
        self.path = root / area.exercise.files[0]
        self.now = START
        self.backend: Any = None
        self.service: Any = None
        self.overlooked: Callable[[], AbstractContextManager[None]] = nullcontext
        self._ticks = itertools.count(1)
        self._ids = itertools.count(1)

    def _clock(self):
        return round(self.now + next(self._ticks) / 1000, 6)

    def _new_id(self):
        return f"{next(self._ids):08x}-0000-4000-8000-000000000000"

    def _tell(self, frame):
        self.told.append(json.loads(frame))

    async def open(self):
        """Begin: the side, then the service; the neighbours of its exercise answer what it asks."""
        router = Router()
        self.site.hub = Hub(router, self._tell)
        self.backend = (
            self.area.aio(self.site) if self.side == "async" else Inline(self.area.control(self.site))
        )
        await self.backend.open()
        self.service = self.area.service(self.backend, self.site)
        router.add(self.service.events())
        router.add(self.neighbours)
        self._handlers = {event.name: event.handler for event in self.service.events()}
        await self.service.start()

    async def close(self):
        """End as the daemon does: the service, then the side."""
        await self.service.stop()
        await self.backend.close()

    async def restart(self):
        """Stop and start on the same files."""
        await self.close()
        await self.open()

    async def send(self, event, /, client=None, **data):
        """The handler's reply, or an error's fields with its text."""
        try:
            return await self._handlers[event](data, client)
        except KsiError as error:
            return {"error": str(error), **error.fields()}

    def lines(self):
        """The log's records; [] without a log. Every line must be whole."""
        return (
            [json.loads(line) for line in self.path.read_bytes().splitlines()] if self.path.is_file() else []
        )


def _settings(area, root):
    """Those of the environment, with what the room's exercise sets; its programs are laid down."""
    for name, content in area.exercise.programs.items():
        program = root / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_bytes(content)
        program.chmod(0o700)
    given = settings.load(root).model_dump()
    return Settings(**{**given, **area.exercise.settings})


@asynccontextmanager
async def room(area, side, root):
    """An open room under the loop guard, closed at the end."""
    made = Room(area, side, root)
    async with AsyncExitStack() as stack:
        if side == "async":
            made.overlooked = stack.enter_context(loop_guard()).paused
        await made.open()
        if side == "sync":  # from here on: its start blocks in any case
            made.overlooked = stack.enter_context(_control(made.backend)).paused
        stack.push_async_callback(made.close)
        yield made


@contextmanager
def _control(backend):
    """The guard on the sync side: it must trip when the side was called."""
    try:
        with expect_trip() as guard:
            yield guard
    except GuardAsleep:
        if backend.calls:
            raise
