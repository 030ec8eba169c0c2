"""Turns and injections: taken in the order of their sessions, run, judged, and their sessions remembered."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ksi_daemon.claude_cli import core, request
from ksi_daemon.claude_cli.core import Turn
from ksi_daemon.claude_cli.order import Order
from ksi_daemon.claude_cli.rate import Rate
from ksi_daemon.claude_cli.sessions import Chains, Directories
from ksi_daemon.errors import MissingParameter
from ksi_daemon.router import Client, Data, Event

if TYPE_CHECKING:
    from ksi_daemon.claude_cli.contract import ClaudeCli
    from ksi_daemon.claude_cli.order import Place
    from ksi_daemon.site import Site

INJECTIONS = 5
PER = 60.0
"""A session takes `INJECTIONS` in `PER` seconds (the KSI contract, 3.7 a)."""

PATIENCE = 0.2
"""Seconds that a stop leaves commands to end when asked, and then to be gone when killed."""


class ClaudeTurns:
    """The service of the room. It knows no process: only turns, and how they ended."""

    def __init__(self, claude: ClaudeCli, site: Site) -> None:
        self._claude = claude
        self._site = site
        self._settings = site.settings
        self._order = Order(site.settings.claude_parallel)
        self._chains = Chains()
        self._directories = Directories(claude, site.settings.sandbox_dir)
        self._injections = Rate(INJECTIONS, PER)

    def events(self) -> tuple[Event, ...]:
        """A turn, an injection, and what is under way."""
        return (
            Event("claude_cli:turn", self.turn, "Run the claude command for one turn", request.TURN),
            Event("claude_cli:inject", self.inject, "Tell a running session something", request.INJECT),
            Event("claude_cli:status", self.status, "Show the turns that run and wait"),
        )

    async def start(self) -> None:
        """Nothing: what was remembered is read when a session is named."""

    async def stop(self) -> None:
        """End all turns, those that wait and those that run, with `ShuttingDown`."""
        await self._order.stop(PATIENCE)

    def memory(self) -> dict[str, Any]:
        """The chains of ids, and the directories of sessions."""
        return {"chains": self._chains.memory(), "directories": self._directories.memory()}

    async def turn(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Answered when the turn is over. Raises what is wrong with the request or came of the turn."""
        asked = request.turn_asked(data, self._settings)
        name = self._site.new_id()
        request_id = asked.request_id or name
        key = self._chains.key(asked.session) if asked.session else name
        label = {"kind": "turn", "request_id": request_id, "session_id": asked.session or None}
        async with self._order.place(key, label) as place:
            turn = await self._planned(asked, name, request_id)
            answer, duration_ms = await self._run(place, turn)
            await self._remember(asked.session, answer.session, turn.cwd)
        return {
            "status": "completed",
            "request_id": request_id,
            "session_id": answer.session,
            "response": answer.response,
            "duration_ms": duration_ms,
        }

    async def inject(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Tell a session something, in its order. Raises `RateLimited` and what a turn raises."""
        asked = request.injection_asked(data)
        key = self._chains.key(asked.session)
        self._injections.take(key, self._site.clock())
        name = self._site.new_id()
        label = {"kind": "injection", "session_id": asked.session}
        async with self._order.place(key, label) as place:
            turn = await self._planned_injection(asked, name)
            ended = await place.run(lambda: self._claude.turn(turn))
        output = core.judge_injection(ended)
        return {"status": "injected", "session_id": asked.session, "output": output}

    async def status(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """The turns that run and wait, and for how many seconds each has."""
        now = asyncio.get_running_loop().time()
        running, waiting = (
            [{**place.label, "for_s": round(now - place.since, 3)} for place in places]
            for places in (self._order.running, self._order.waiting)
        )
        return {"running": running, "waiting": waiting}

    async def _planned(self, asked: request.Asked, name: str, request_id: str) -> Turn:
        """The turn as it is now that its time has come: its session may go on under a newer id."""
        options, cwd = asked.options, ""
        if asked.session:
            options = replace(options, session=self._chains.newest(asked.session))
            cwd = await self._directories.find(options.session)
        cwd = cwd or asked.directory(self._settings.sandbox_dir, request_id)
        return Turn(
            name=name,
            argv=core.argv(options),
            prompt=asked.prompt,
            cwd=cwd,
            deadline_s=asked.deadline_s,
            make_cwd=self._directories.inside(cwd),
            config=options.mcp_config,
        )

    async def _planned_injection(self, asked: request.Injection, name: str) -> Turn:
        newest = self._chains.newest(asked.session)
        cwd = asked.cwd or await self._directories.find(newest)
        if not cwd:
            raise MissingParameter("cwd")
        return Turn(
            name=name,
            argv=core.argv_of_injection(newest),
            prompt=asked.message,
            cwd=cwd,
            deadline_s=self._settings.claude_progress_timeout,
            make_cwd=not asked.cwd and self._directories.inside(cwd),
        )

    async def _run(self, place: Place, turn: Turn) -> tuple[core.Answer, int]:
        """The answer, and how many milliseconds the command took for it."""
        began = self._site.clock()
        ended = await place.run(lambda: self._claude.turn(turn))
        answer = core.judge(ended)
        return answer, int((self._site.clock() - began) * 1000)

    async def _remember(self, asked: str, answered: str | None, cwd: str) -> None:
        if answered is None:
            return
        if asked:
            self._chains.follow(asked, answered)
        await self._directories.keep(answered, cwd)
