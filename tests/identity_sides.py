"""The identity store on either side, as coroutines, and identities to put into it."""

from __future__ import annotations

import importlib
import json
from contextlib import asynccontextmanager

from ksi_daemon import settings
from ksi_daemon.agent.aio import AsyncIdentities
from ksi_daemon.errors import KsiError
from ksi_daemon.lane import CancelledTooLate
from ksi_daemon.site import Site
from tests.rooms import Inline


def site_of(root, durability="os", clock=None):
    """A place for the identities below `root`; the clock stands still at a time that file names show."""
    return Site("agent", settings.load(root), durability, clock or (lambda: 1752340000.0))


def made(side, site):
    """A store that is not open yet."""
    if side == "async":
        return AsyncIdentities(site)
    return Inline(importlib.import_module("ksi_daemon.agent.sync").SyncIdentities(site))


@asynccontextmanager
async def opened(side, site):
    """An open store, closed at the end."""
    store = made(side, site)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def identity(number, size=40):
    """One identity, as the daemon makes them."""
    return {"agent_id": f"agent-{number}", "name": "Zoë", "n": number, "notes": "x" * size}


def many(count, size=40):
    """So many identities by id."""
    return {f"agent-{number}": identity(number, size) for number in range(count)}


def stored(identities):
    """The bytes that the file must have."""
    return json.dumps(identities, indent=2).encode()


def planted(site, data):
    """Lay these bytes down in the file's place."""
    path = site.settings.identity_storage_path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def beside(site):
    """The names of all files in the directory of the identities."""
    folder = site.settings.identity_storage_path.parent
    return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []


async def outcome(call):
    """None, or the class of the error that came; a cancelled one shows what its write came to."""
    try:
        await call
    except CancelledTooLate as late:
        return CancelledTooLate, type(late.error)
    except KsiError as error:
        return type(error)
    return None
