"""Configuration on either side: the room, one side alone, and what lies beside."""

from __future__ import annotations

import importlib
import json
import os
from contextlib import asynccontextmanager

import orjson
import yaml

from ksi_daemon import settings, wire
from ksi_daemon.config import core
from ksi_daemon.config.aio import AsyncConfigFiles
from ksi_daemon.errors import KsiError
from ksi_daemon.site import Site
from tests.rooms import START, Inline

FILE = "ksi_daemon.yaml"
BACKED_UP, AS_IT_IS = True, False
"""Whether a set makes a backup first."""
BACKUPS = "var/tmp/backups/config"


async def ask(room, what, **data):
    """The reply to `config:<what>`, as a client reads it."""
    return json.loads(wire.encode(await room.send(f"config:{what}", **data)))


async def put(room, key, value, **more):
    """The reply to a set."""
    return await ask(room, "set", key=key, value=value, **more)


async def get(room, key="*", **more):
    """The reply to a get."""
    return await ask(room, "get", key=key, **more)


def root_of(room):
    """Where the room's files lie."""
    return room.site.settings.root


def lay(root, files):
    """Put these files down: path → bytes."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def below(root, folder="."):
    """The files below a directory by path, but for our own under `var/migrate`."""
    found = {}
    for path in sorted((root / folder).rglob("*")):
        name = str(path.relative_to(root))
        if path.is_file() and not path.is_symlink() and not name.startswith("var/migrate/"):
            found[name] = path.read_bytes()
    return found


def kept(root):
    """The backups: name → bytes; each has its record."""
    found = below(root, BACKUPS)
    names = {os.path.basename(name): data for name, data in found.items()}
    assert {name for name in names if not name.endswith(".meta")} == {
        name.removesuffix(".meta") for name in names if name.endswith(".meta")
    }
    return {name: data for name, data in names.items() if not name.endswith(".meta")}


def dumped(document):
    """The bytes that PyYAML writes, in pure Python."""
    return yaml.safe_dump(document, default_flow_style=False, sort_keys=False).encode()


def site_of(root, durability="os", clock=lambda: START, **changes):
    """A place below `root`."""
    given = settings.load(root)
    return Site("config", given.model_copy(update=changes), durability, clock)


def made(side, site):
    """A side that is not open yet."""
    if side == "async":
        return AsyncConfigFiles(site)
    return Inline(importlib.import_module("ksi_daemon.config.sync").SyncConfigFiles(site))


@asynccontextmanager
async def opened(side, site):
    """An open side, closed at the end."""
    one = made(side, site)
    await one.open()
    try:
        yield one
    finally:
        await one.close()


def target(site, path=FILE, kind="daemon"):
    """The file as a request names it."""
    return core.target(site.settings, kind, path)


async def outcome(call):
    """What the call returns, or the error's text and code."""
    try:
        return await call
    except KsiError as error:
        return str(error), error.code


def encoded(value):
    """A value as it crosses the contract."""
    return orjson.dumps(value)
