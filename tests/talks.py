"""Logs of conversations to lay down, and the room on either side, asked as a client asks it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import Any

from ksi_daemon import wire
from ksi_daemon.conversation import AREA
from ksi_daemon.router import Router
from tests.rooms import room

AT = "2025-07-12T10:00:{:02d}Z"


def said(kind, at, content=None, **more):
    """One entry of the older format; `at` is a second or a whole stamp."""
    stamp = AT.format(at) if type(at) is int else at
    return {"type": kind, "timestamp": stamp, "content": content, **more}


def answer(at, result):
    """One entry as this daemon writes it."""
    stamp = AT.format(at) if type(at) is int else at
    ksi = {"provider": "claude-cli", "request_id": "r", "timestamp": stamp, "duration_ms": 1}
    return {"ksi": ksi, "response": {"type": "result", "result": result, "usage": {}}}


def lines(*entries):
    """A line each; bytes as they are."""
    return b"".join((one if type(one) is bytes else json.dumps(one).encode()) + b"\n" for one in entries)


def folder_of(root):
    """Where the logs lie; made if it is not there."""
    folder = root / "var/logs/responses"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def lay(root, **logs):
    """Logs by session: entries or bytes. Gives their directory."""
    folder = folder_of(root)
    for session, content in logs.items():
        data = content if type(content) is bytes else lines(*content)
        (folder / f"{session}.jsonl").write_bytes(data)
    return folder


class Talks:
    """The room; `ask` gives the `data` of a reply as a client reads it."""

    def __init__(self, made):
        self.room = made
        self.root = made.site.settings.root
        self.service = made.service
        self.backend = made.backend
        self.side = made.side
        self._router = Router()
        self._router.add(made.service.events())

    async def ask(self, event, client=None, **data) -> Any:
        """One request of the room's namespace."""
        results = await self._router.emit(f"conversation:{event}", data, client)
        return json.loads(wire.reply(event, results, None, 0.0))["data"]

    def later(self, seconds=61):
        """Let time pass: the cache becomes stale."""
        self.room.now += seconds

    async def sessions(self, **data):
        """The ids of a listing."""
        return [row["session_id"] for row in (await self.ask("list", **data))["conversations"]]


@asynccontextmanager
async def talks(side, root):
    """The room on one side, under the loop guard."""
    async with room(AREA, side, root) as made:
        yield Talks(made)
