"""The three columns over configuration files: the room on either side, and the original's calls."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from ksi_daemon import wire
from ksi_migrate.bench_columns import REFERENCE
from ksi_migrate.bench_documents import BACKUPS, KEPT, key_of, value_of
from ksi_migrate.bench_place import settings_of
from ksi_migrate.bench_room import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_daemon.site import Durability
    from ksi_migrate.bench_documents import Files
    from ksi_migrate.bench_room import Room


PATIENCE_S: Final = 60.0
"""How long a set may wait for those before it: what a slow disk makes of it is measured, not refused."""


@dataclass(slots=True)
class Configs:
    """An open column over the files; sets are acknowledged when they are in the file."""

    where: str
    files: Files
    room: Room | None = None
    backups: list[Any] | None = None

    async def set(self, number: int) -> None:
        """The set of this number."""
        if self.room is None:
            Original(self.files).set(number)
            return
        data = {"key": key_of(number), "value": value_of(number), **self._file(number)}
        reply = await self.room.ask("config:set", data)
        wire.encode(reply)
        if self.backups is not None:
            self.backups.append(reply.get("backup"))

    async def get(self, number: int) -> bytes:
        """The reply for the `name` in the file of this number, as it goes over the wire."""
        if self.room is None:
            return json.dumps({"key": "name", "value": Original(self.files).get(number)}).encode()
        return wire.encode(await self.room.ask("config:get", {"key": "name", **self._file(number)}))

    def _file(self, number: int) -> dict[str, str]:
        return {"config_type": "composition", "file_path": self.files.path(number).name}


@asynccontextmanager
async def opened(
    area: Area, column: str, files: Files, where: str, durability: Durability = "os"
) -> AsyncIterator[Configs]:
    """A column on files as they were in the beginning."""
    files.lay()
    if column == REFERENCE:
        yield Configs(where, files)
        return
    settings = settings_of(files.root, call_timeout=PATIENCE_S)
    async with served(area, column, settings, where, durability) as room:
        one = Configs(where, files, room, [])
        await one.get(0)  # now its workers are up
        yield one


class Original:
    """The original's calls for one set and one get: everything loaded, copied and written each time."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._backups = files.root / BACKUPS / "config"

    def set(self, number: int) -> None:
        """Load, back up, change, write."""
        path = self._files.path(number)
        with open(path, encoding="utf-8") as file:
            data = yaml.safe_load(file)
        self._back_up(path)
        data.setdefault(KEPT, {})[f"key_{number:03d}"] = value_of(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump(data, file, default_flow_style=False, sort_keys=False)

    def get(self, number: int) -> Any:
        """Load and look."""
        with open(self._files.path(number), encoding="utf-8") as file:
            return yaml.safe_load(file)["name"]

    def _back_up(self, path: Path) -> None:
        self._backups.mkdir(parents=True, exist_ok=True)
        name = f"{path.name}_{time.strftime('%Y%m%d_%H%M%S')}"
        shutil.copy2(path, self._backups / name)
        meta = {
            "original_path": str(path),
            "backup_name": name,
            "backup_path": os.path.join(BACKUPS, "config", name),
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "size": path.stat().st_size,
        }
        with open(self._backups / f"{name}.meta", "w", encoding="utf-8") as file:
            json.dump(meta, file, indent=2)
