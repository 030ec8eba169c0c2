"""The daemon: rooms, switches, router and transport put together, started, drained and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon import notify
from ksi_daemon.conductor import Conductor
from ksi_daemon.heartbeat import Heartbeat
from ksi_daemon.hub import Hub
from ksi_daemon.linefile import private_directory
from ksi_daemon.registry import BUILT
from ksi_daemon.router import Client, Data, Event, Router
from ksi_daemon.site import Site
from ksi_daemon.switch import Switch
from ksi_daemon.system import System
from ksi_daemon.transport import Server, frame
from ksi_daemon.watch import FlagsWatch

if TYPE_CHECKING:
    import socket

    from ksi_daemon.area import Service
    from ksi_daemon.settings import Settings

log = structlog.get_logger("ksi.daemon")

LAST_LINES = 0.5
"""Seconds in which clients may read their last lines."""

LAST_REPLIES = 0.1
"""Seconds for the replies of those whose write was given up."""

TORN_NOTHING = 1.0
"""Seconds that a second signal leaves for the write that is under way."""


class Daemon:
    """One daemon on one root; `serve` runs it on the current loop until it is told to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._router = Router(settings.error_verbosity)
        overlap: frozenset[str] = frozenset().union(*(area.overlap for area in BUILT))
        self._server = Server(self._router, settings, overlap)
        hub = Hub(self._router, self._server.broadcast)
        self._sites = {area.name: Site(area.name, settings, hub=hub) for area in BUILT}
        self._switches = {area.name: Switch(area, self._sites[area.name]) for area in BUILT}
        self._services: list[Service] = [
            area.service(self._switches[area.name], self._sites[area.name]) for area in BUILT
        ]
        private_directory(settings.migrate_dir)  # what does not exist yet cannot be watched
        self._watch = FlagsWatch(settings.flags_path, settings.migrate_dir, events=settings.file_events)
        self._conductor = Conductor(self._switches, self._sites, self._watch, settings)
        self._heartbeat = Heartbeat()

    async def serve(self, bound: socket.socket) -> bool:
        """Serve a bound socket; True when everything accepted was answered and written before the end."""
        self._register()
        self._listen_to_signals()
        if self._settings.measure_loop:
            self._heartbeat.start()
        await self._start_unless_stopped(bound)
        await self._stop.wait()
        clean = await self._end()
        self._heartbeat.stop()
        return clean

    def stop(self) -> None:
        """Begin the stop; a second call ends it at once."""
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()

    def _register(self) -> None:
        system = System(self._router, self._stop.set, lambda: len(asyncio.all_tasks()))
        self._router.add(system.events())
        for service in self._services:
            self._router.add(service.events())
        self._router.add(self._conductor.events())
        self._router.add(
            (Event("system:loop", self._loop_stall, "Show the loop stall since the last question"),)
        )

    async def _start_unless_stopped(self, bound: socket.socket) -> None:
        """A stop that comes during the start does not wait for a long history to be read."""
        start = asyncio.create_task(self._start(bound))
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait([start, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self._stop.is_set() and not start.done():
            start.cancel()
            await asyncio.wait([start], timeout=TORN_NOTHING)
        else:
            await start

    async def _start(self, bound: socket.socket) -> None:
        log.info("starting", root=str(self._settings.root), pid=os.getpid())
        await self._conductor.start()
        for service in self._services:
            await service.start()
        await self._router.emit("system:startup", {})
        await self._server.listen(bound)
        await self._router.emit("system:ready", {})
        log.info("ready", socket=str(self._settings.socket_path))
        notify.tell("READY=1")

    async def _end(self) -> bool:
        log.info("stopping")
        notify.tell("STOPPING=1")
        self._server.broadcast(_farewell("system:shutdown_notification", reason="daemon_shutdown"))
        orderly = asyncio.create_task(self._wind_down())
        hurry = asyncio.create_task(self._at_once.wait())
        await asyncio.wait([orderly, hurry], return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if orderly.done():
            return orderly.result()
        log.warning("stopping at once")
        orderly.cancel()
        await asyncio.wait([orderly, *self._closing()], timeout=TORN_NOTHING)
        return False

    async def _wind_down(self) -> bool:
        """Answer what was accepted; stop the services, each before those that it asks; close the sides."""
        limit = self._settings.stop_timeout
        answered = await self._server.drain(limit * 0.6)
        for service in reversed(self._services):
            await service.stop()
        done, late = await asyncio.wait(self._closing(), timeout=limit * 0.4)
        await self._conductor.stop()
        for task in late:
            task.cancel()  # and so whoever waits for a dead disk is told
        if late:
            await self._server.drain(LAST_REPLIES)
        services = [area.name for area in BUILT]
        reason = "daemon_shutdown_complete"
        self._server.broadcast(_farewell("system:shutdown_complete", reason=reason, services=services))
        await self._server.close(LAST_LINES)
        flushed = not late and all(task.exception() is None for task in done)
        log.info("stopped", answered=answered, flushed=flushed)
        return answered and flushed

    def _closing(self) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(switch.close()) for switch in self._switches.values()]

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._watch.nudge)

    async def _loop_stall(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """Milliseconds since the last question; needs KSI_MEASURE_LOOP."""
        if not self._settings.measure_loop:
            return {"measured": False}
        stall = self._heartbeat.read()
        return {
            "measured": True,
            "loop_stall_p99_ms": stall.p99_ms,
            "loop_stall_max_ms": stall.max_ms,
            "connections": self._server.connections(),
        }


def _farewell(event: str, **data: object) -> bytes:
    now = asyncio.get_running_loop().time()
    return frame(event, {**data, "timestamp": now})
