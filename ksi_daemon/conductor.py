"""Brings each component to the stage that flags.yaml and the ceilings ask for, and says what is in force."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon import wire
from ksi_daemon.errors import KsiError
from ksi_daemon.flags import Flags, Stage
from ksi_daemon.recorder import Recorder
from ksi_daemon.registry import AREAS
from ksi_daemon.router import Client, Data, Event
from ksi_daemon.stages import Ceilings, InForce, StagesInvalid, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ksi_daemon.settings import Settings
    from ksi_daemon.site import Site
    from ksi_daemon.switch import Switch
    from ksi_daemon.watch import FlagsWatch, Seen

log = structlog.get_logger("ksi.migration")

RETIRED = "retired: it has no other side"
"""Why a component is at async whatever flags.yaml and the ceilings say."""


def utc_now() -> str:
    """ISO 8601 with seconds, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Conductor:
    """One follower a component, so that one stuck flip holds up no other; all is recorded in order."""

    def __init__(
        self, switches: Mapping[str, Switch], sites: Mapping[str, Site], watch: FlagsWatch, settings: Settings
    ) -> None:
        self._switches = switches
        self._sites = sites
        self._watch = watch
        self._settings = settings
        self._seen: Seen | None = None
        self._flags: Flags | None = None
        self._in_force: dict[str, InForce] = {}
        self._generation = 0
        self._refused: dict[str, str] = {}
        self._wanted: dict[str, tuple[Stage, str]] = {}
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._watching: asyncio.Task[None] | None = None
        self._recorder = Recorder(settings)
        self._listeners: dict[int, Client] = {}

    def events(self) -> tuple[Event, ...]:
        """What clients may ask and hear of the migration."""
        return (
            Event("migration:status", self.status, "Show the stage of every component, and why"),
            Event("migration:subscribe", self.subscribe, "Send migration:changed frames to this connection"),
            Event("migration:unsubscribe", self.unsubscribe, "Send no more migration:changed frames"),
            Event("migration:reload", self.reload, "Read flags.yaml now", triggers=("migration:changed",)),
        )

    async def start(self) -> None:
        """Open every component at its stage: of valid flags, else the last acknowledged, else sync."""
        last = await self._recorder.last()
        self._generation = last.generation if last else 0
        self._seen = await anext(self._watch)
        self._note_flags()
        for name, (stage, reason) in self._targets().items():
            await self._open(name, stage, reason)
        self._wanted = self._targets()
        self._recorder.record(self._state)
        self._watching = asyncio.create_task(self._watch_on())

    async def stop(self) -> None:
        """End watching and following; what was recorded is on the disk."""
        await self._watch.close()
        tasks = [task for task in (self._watching, *self._followers.values()) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        await self._recorder.close()

    async def status(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """Desired, effective and acknowledged stage of each component; shapes in docs/commands.md."""
        seen = self._seen
        flags_error = str(seen.flags) if seen and isinstance(seen.flags, KsiError) else None
        ceilings_error = str(seen.ceilings) if seen and isinstance(seen.ceilings, KsiError) else None
        return {
            "pid": os.getpid(),
            "generation": self._generation,
            "digest": seen.digest if seen else None,
            "settled": self._settled(),
            "flags": {
                "path": str(self._settings.flags_path),
                "valid": flags_error is None,
                "errors": [flags_error] if flags_error else [],
            },
            "ceilings": {
                "valid": ceilings_error is None,
                "errors": [ceilings_error] if ceilings_error else [],
            },
            "components": [self._component(area.name, area) for area in AREAS],
        }

    async def subscribe(self, _data: Data, client: Client | None) -> dict[str, Any]:
        """Frames go only to connections that ask: the original sends none, and old clients choke on them."""
        if client is not None and id(client) not in self._listeners:
            self._listeners[id(client)] = client
            client.on_close(lambda: self._forget(client))
        return {"status": "subscribed"}

    async def unsubscribe(self, _data: Data, client: Client | None) -> dict[str, Any]:
        """Harmless for one who is not subscribed."""
        self._forget(client)
        return {"status": "unsubscribed"}

    async def reload(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """As SIGHUP does; the answer does not wait for the reading."""
        self._watch.nudge()
        return {"status": "reading"}

    def _forget(self, client: Client | None) -> None:
        self._listeners.pop(id(client), None)

    def _component(self, name: str, area: Any) -> dict[str, Any]:
        flip = self._switches[name].flipping() if name in self._switches else None
        in_force = self._in_force.get(name)
        acknowledged = self._recorder.acknowledged.get(name)
        ceiling = self._ceilings().components.get(name)
        return {
            "name": name,
            "title": area.title,
            "kind": area.kind,
            "phase": area.week,
            "built": area.built,
            "desired": self._flags.components[name] if self._flags else None,
            "effective": in_force.stage if in_force else Stage.SYNC,
            "acknowledged": acknowledged.stage if acknowledged else None,
            "ceiling": ceiling.stage if ceiling else None,
            "reason": in_force.reason if in_force else "not built yet",
            "since": in_force.since if in_force else None,
            "durability": self._flags.durability.get(name) if self._flags else None,
            "refused": self._refused.get(name),
            "flipping": {"to": flip.to, "for_s": flip.for_s, "waits_for": flip.waits_for} if flip else None,
            "pending": self._switches[name].pending() if name in self._switches else None,
        }

    def _settled(self) -> bool:
        moving = any(not task.done() for task in self._followers.values())
        return not moving and self._recorder.settled

    # reading what is wanted

    async def _watch_on(self) -> None:
        async for seen in self._watch:
            self._seen = seen
            self._note_flags()
            self._refused.clear()
            self._wanted = self._targets()
            self._follow()
            self._recorder.record(self._state)

    def _note_flags(self) -> None:
        """Keep the last good flags; say what is wrong with others."""
        seen = self._seen
        if seen is not None and isinstance(seen.flags, Flags):
            self._flags = seen.flags
            for name, durability in self._flags.durability.items():
                if name in self._sites:
                    self._sites[name].durability = durability
        elif seen is not None:
            log.error("flags refused", error=str(seen.flags))

    def _ceilings(self) -> Ceilings:
        found = self._seen.ceilings if self._seen else None
        return found if isinstance(found, Ceilings) else Ceilings()

    def _targets(self) -> dict[str, tuple[Stage, str]]:
        """Where each built component should be, and why. Nothing rises while the ceilings cannot be read."""
        targets = {}
        retired = {area.name for area in AREAS if area.retired}
        for name in self._switches:
            if name in retired:
                targets[name] = Stage.ASYNC, RETIRED
                continue
            stage, reason = self._desired(name)
            ceiling = self._ceilings().components.get(name)
            if ceiling is not None and ceiling.stage < stage:
                stage, reason = ceiling.stage, f"ceiling by {ceiling.who}: {ceiling.reason}"
            if self._seen is not None and isinstance(self._seen.ceilings, StagesInvalid):
                stage = min(stage, self._present(name))
            targets[name] = stage, reason
        return targets

    def _desired(self, name: str) -> tuple[Stage, str]:
        if self._flags is not None:
            return self._flags.components[name], "flags.yaml"
        if name in self._recorder.acknowledged:
            return self._recorder.acknowledged[name].stage, "last acknowledged: flags.yaml is refused"
        return Stage.SYNC, "flags.yaml is refused"

    def _present(self, name: str) -> Stage:
        known = self._in_force.get(name) or self._recorder.acknowledged.get(name)
        return known.stage if known else Stage.SYNC

    # going there

    async def _open(self, name: str, stage: Stage, reason: str) -> None:
        """At a start: a component that cannot open its async side begins at sync, and says why."""
        switch = self._switches[name]
        before = self._recorder.acknowledged.get(name)
        try:
            await switch.open(stage)
        except KsiError as error:
            log.warning("component not opened", component=name, stage=stage, error=str(error))
            self._refused[name] = str(error)
            await switch.open_closed()
            stage, reason = switch.stage, f"could not open: {error}"
        if stage == (before.stage if before else Stage.SYNC):
            self._in_force[name] = InForce(stage, before.since if before else utc_now(), reason)
        else:
            self._changed(name, before.stage if before else Stage.SYNC, stage, reason, 0.0)

    def _follow(self) -> None:
        """Set a follower on every component that is not where it should be: rollbacks last first."""
        for name in reversed(self._wanted):
            task = self._followers.get(name)
            if (task is None or task.done()) and self._wanted[name][0] != self._switches[name].stage:
                self._followers[name] = asyncio.create_task(self._bring(name))
            elif self._wanted[name][0] == self._in_force[name].stage:
                self._in_force[name] = InForce(
                    self._wanted[name][0], self._in_force[name].since, self._wanted[name][1]
                )

    async def _bring(self, name: str) -> None:
        switch = self._switches[name]
        while self._wanted[name][0] != switch.stage and name not in self._refused:
            stage, reason = self._wanted[name]
            before, began = switch.stage, time.monotonic()
            try:
                await switch.flip(stage)
            except Exception as error:  # noqa: BLE001 - a fault of ours, too: a dead follower tells nobody
                why = str(error) if isinstance(error, KsiError) else f"{type(error).__name__}: {error}"
                log.warning("flip refused", component=name, to=stage, error=why)
                self._refused[name] = why
                self._note(name, before, stage, why, began, action="refused")
            else:
                self._changed(name, before, stage, reason, began)

    def _changed(self, name: str, before: Stage, stage: Stage, reason: str, began: float) -> None:
        self._generation += 1
        self._in_force[name] = InForce(stage, utc_now(), reason)
        log.info("stage in force", component=name, stage=stage, was=before, reason=reason)
        why = reason if began else f"at start: {reason}"
        entry = self._note(name, before, stage, why, began, action="flip")
        frame = wire.encode({"event": "migration:changed", "data": entry})
        for client in list(self._listeners.values()):
            client.send(frame)

    # recording it

    def _note(
        self, name: str, before: Stage, stage: Stage, why: str, began: float, *, action: str
    ) -> dict[str, Any]:
        entry = {
            "at": utc_now(),
            "who": f"daemon {os.getpid()}",
            "action": action,
            "component": name,
            "from": before,
            "to": stage,
            "why": why,
            "generation": self._generation,
            "duration_ms": round((time.monotonic() - began) * 1000, 1) if began else 0.0,
        }
        self._recorder.record(self._state, entry)
        return entry

    def _state(self) -> State:
        digest = self._seen.digest if self._seen else ""
        return State(self._generation, digest, os.getpid(), utc_now(), dict(self._in_force))
