"""One room on one side in a directory of its own: asked, acted upon, and looked at."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any, Self

from ksi_daemon import wire
from ksi_daemon.errors import KsiError, reply_fields
from ksi_daemon.hub import Hub
from ksi_daemon.router import Router
from ksi_daemon.site import Durability, Site
from ksi_daemon.switch import contract_methods
from ksi_migrate.paritycheck.actions import ON_FILE
from ksi_migrate.paritycheck.clients import Listeners
from ksi_migrate.paritycheck.clock import Clock, Ids
from ksi_migrate.paritycheck.seam import Seam
from ksi_migrate.paritycheck.settings import Isolated
from ksi_migrate.paritycheck.settle import Settling
from ksi_migrate.paritycheck.tree import Entry, Tree

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.area import Area, Service
    from ksi_daemon.exercise import Step
    from ksi_migrate.paritycheck.contrast import Seen
    from ksi_migrate.paritycheck.sides import Backend, Make


class Rig:
    """A daemon of one room without sockets. Entering opens the side and starts the service."""

    def __init__(self, area: Area, root: Path, make: Make, durability: Durability = "os") -> None:
        self._area = area
        self._root = os.fsencode(root)
        self._make = make
        self._clock = Clock()
        self._site = Site(area.name, Isolated(root=root, **area.exercise.settings), durability, self._clock)
        self._ids = self._site.new_id = Ids()
        self._neighbours = area.exercise.neighbours()
        self._tree = Tree(root, self.mask)
        self._settling = Settling()
        self._listeners = Listeners()
        self.backend: Backend
        self._seam: Seam
        self._service: Service
        self._router: Router
        self.root = root
        self.main = root / area.exercise.files[0]
        self.opened: Any = None
        self._ended = False

    async def __aenter__(self) -> Self:
        self._settling.__enter__()
        await self._begin()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        try:
            await self.end()
        finally:
            self._settling.__exit__()

    async def end(self) -> None:
        """Stop as the daemon does; a second call does nothing more."""
        if self._ended:
            return
        self._ended = True
        self._listeners.hang_up_all()
        await self._service.stop()
        await self.backend.close()

    async def ask(self, step: Step) -> bytes:
        """The list of results of one event as JSON: values, or errors with code and text."""
        data, client = copy.deepcopy(step.data), self._listeners.get(step.client)
        return self._encoded(await self._router.emit(step.event, data, client))

    async def step(self, step: Step) -> list[Seen]:
        """Do one step; see the reply and the files at that instant, and everything once all is quiet."""
        self.next_request()
        await self.backend.between()
        reply = await (self._act(step) if step.event.startswith("@") else self.ask(step))
        at_once = self.files()
        return [("reply", reply), ("files at the reply", at_once), *await self.look()]

    async def look(self) -> list[Seen]:
        """What is there once all is quiet: contract calls, frames, memory, files, errors nobody took."""
        errors = await self.settle()
        return [
            ("contract calls", [self._masked(call) for call in self._seam.take()]),
            ("frames", self.frames()),
            ("memory", self.memory()),
            ("files", self.files()),
            ("errors in the background", [self._masked(error) for error in errors]),
        ]

    def next_request(self) -> None:
        """Let time pass; ids go on with it."""
        self._clock.next_request()
        self._ids.next_request()

    async def settle(self) -> list[str]:
        """Wait until the service has nothing more to do."""
        return await self._settling.settle()

    def files(self) -> dict[str, Entry]:
        """Everything below the root."""
        return self._tree.look()

    def memory(self) -> bytes:
        """What the service holds."""
        return self._encoded(self._service.memory())

    def frames(self) -> dict[str, list[bytes]]:
        """What each client got since the last question."""
        return {
            name: [self.mask(frame) for frame in frames] for name, frames in self._listeners.take().items()
        }

    def mask(self, content: bytes) -> bytes:
        """The content without this rig's own path, which no two rigs share."""
        return content.replace(self._root, b"<root>")

    def _masked(self, text: str) -> str:
        return text.replace(os.fsdecode(self._root), "<root>")

    def _encoded(self, value: Any) -> bytes:
        try:
            return self.mask(wire.encode(value))
        except KsiError as error:
            return f"not on the wire: {error}".encode()

    async def _begin(self) -> None:
        """Open the side and start the service; one that cannot be opened is used all the same."""
        self.backend = self._make(self._area, self._site)
        self._seam = Seam(self.backend, contract_methods(self._area.contract))
        self._router = Router()
        self._site.hub = Hub(self._router, self._listeners.send_all)
        self._service = self._area.service(self._seam, self._site)
        self._router.add(self._service.events())
        self._router.add(self._neighbours)
        self.opened = "opened"
        try:
            await self.backend.open()
        except KsiError as error:
            self.opened = reply_fields(error)
        await self._service.start()

    async def _act(self, step: Step) -> bytes:
        if step.event == "@restart":
            await self.end()
            self._ended = False
            await self._begin()
            return self._encoded(self.opened)
        if step.event == "@hangup":
            self._listeners.hang_up(step.client)
        elif step.event == "@connect":
            self._listeners.get(step.client)
        else:
            ON_FILE[step.event](self.main)
        return b""
