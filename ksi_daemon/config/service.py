"""Configuration as events: what they ask for, what they answer, whom they tell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import orjson

from ksi_daemon.config import core, values
from ksi_daemon.config.errors import NoFile, Required
from ksi_daemon.config.runtime import RuntimeConfig
from ksi_daemon.errors import InvalidParameter
from ksi_daemon.router import Client, Data, Event, Param

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ksi_daemon.config.contract import ConfigFiles
    from ksi_daemon.config.core import Checked, Target
    from ksi_daemon.site import Site

RELOADED: Final[dict[str, str]] = {
    "daemon": "daemon:config_reload",
    "modules": "modules:reload",
    "compositions": "composition:reload",
}
"""The parts that can be reloaded, and the event that each is told by."""

_TYPE = Param("config_type", "str", "daemon, composition, fragment, schema or capabilities", default="daemon")
_TYPE_NEEDED = Param(
    "config_type", "str", "daemon, composition, fragment, schema or capabilities", required=True
)
_FILE = Param("file_path", "str", "the file, relative to the type's directory; some types have a default")
_KEY = Param("key", "str", "a key, dots between levels; * for all", required=True)
_NAME = "the backup's name; without one"


class ConfigService:
    """Reads and changes configuration files; keeps the runtime settings."""

    def __init__(self, config_files: ConfigFiles, site: Site) -> None:
        self._files = config_files
        self._site = site
        self._runtime = RuntimeConfig(site.settings)

    def events(self) -> Sequence[Event]:
        """The events of configuration, then those of the runtime settings."""
        value = Param("value", "Any", "the new value", required=True)
        keep = Param("create_backup", "bool", "whether to make a backup first", default=True)
        schema = Param("schema_path", "str", "a JSON Schema, relative to the directory of schemas")
        name = Param("backup_name", "str", f"{_NAME}, the file's name and the time")
        which = Param("backup_name", "str", f"{_NAME}, one step back")
        component = Param("component", "str", "daemon, modules, compositions or all", default="all")
        return (
            Event("config:get", self.get, "Show a value of a configuration file", (_KEY, _TYPE, _FILE)),
            Event(
                "config:set",
                self.set,
                "Set a value in a configuration file",
                (_KEY, value, _TYPE, _FILE, keep),
                ("config:changed",),
            ),
            Event("config:validate", self.validate, "Check a configuration file", (_TYPE, _FILE, schema)),
            Event(
                "config:reload",
                self.reload,
                "Tell others to read their configuration again",
                (component,),
                tuple(RELOADED.values()),
            ),
            Event("config:backup", self.backup, "Copy a configuration file", (_TYPE_NEEDED, _FILE, name)),
            Event(
                "config:rollback",
                self.rollback,
                "Bring a backup back",
                (_TYPE_NEEDED, _FILE, which),
                ("config:rolled_back",),
            ),
            *self._runtime.events(),
        )

    async def start(self) -> None:
        """Files are read when they are asked for."""

    async def stop(self) -> None:
        """Nothing runs between two requests."""

    def memory(self) -> dict[str, Any]:
        """The runtime settings; of files nothing is kept."""
        return {"runtime_config": self._runtime.memory()}

    async def get(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """The value at a key. Raises `Required`, and what the contract says."""
        key = _key(data)
        target = self._target(data)
        found = await self._files.get(target, key)
        return {
            "key": key,
            "value": orjson.Fragment(found.value),
            "config_type": target.type,
            "file_path": found.file_path,
            "format": target.format,
        }

    async def set(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Set a key, then tell whoever listens. Raises `Required`, and what the contract says."""
        key, value = _key(data), data.get("value")
        if value is None:
            raise Required("Value is required")
        backup = _flag(data, "create_backup", default=True)
        target = self._target(data)
        written = await self._files.put(target, key, _encoded(value), backup, self._site.clock())
        told = {"config_type": target.type, "file_path": written.file_path, "key": key, "value": value}
        await self._site.hub.emit("config:changed", told)
        made = {"backup": written.backup} if written.backup else {}
        return {
            "status": "set",
            "key": key,
            "config_type": target.type,
            "file_path": written.file_path,
            **made,
        }

    async def validate(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """What is wrong with a file, by its syntax, its form and a schema."""
        target, schema_path = self._target(data), _text(data, "schema_path")
        schema = core.target(self._site.settings, "schema", schema_path) if schema_path else None
        try:
            found = await self._files.validate(target, schema)
        except NoFile as error:
            path = os.path.join(target.base, target.path)
            return _unloadable(core.Checked(path, str(error), error.code))
        if found.error:
            return _unloadable(found)
        return {
            "valid": not found.schema_errors,
            "syntax_valid": True,
            "file_path": found.file_path,
            "config_type": target.type,
            "format": target.format,
            **(_schema(found) if schema is not None else {}),
            **(_composition(found) if target.type == "composition" else {}),
        }

    async def reload(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Tell the named part, or all, that its configuration may have changed."""
        component = _text(data, "component") or "all"
        parts = list(RELOADED) if component == "all" else [part for part in RELOADED if part == component]
        for part in parts:
            await self._site.hub.emit(RELOADED[part], {})
        return {"status": "reloaded", "component": component, "reloaded_components": parts}

    async def backup(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Copy a file to the backups."""
        target, name = self._named(data)
        kept = await self._files.backup(target, name, self._site.clock())
        return {"status": "backup_created", "backup_name": kept.backup_name, "backup_path": kept.backup_path}

    async def rollback(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Bring a backup back, then tell whoever listens."""
        target, name = self._named(data)
        done = await self._files.rollback(target, name, self._site.clock())
        told = {"config_type": target.type, "file_path": done.file_path, "backup_name": done.backup_name}
        await self._site.hub.emit("config:rolled_back", told)
        kept = {"current_backup": done.current_backup} if done.current_backup else {}
        return {
            "status": "rolled_back",
            "config_type": target.type,
            "file_path": done.file_path,
            "backup_name": done.backup_name,
            "backup_timestamp": done.backup_timestamp,
            **kept,
        }

    def _named(self, data: Data) -> tuple[Target, str]:
        """File and backup of a request that has to name its type."""
        if not _text(data, "config_type"):
            raise Required("config_type is required")
        name = _text(data, "backup_name")
        return self._target(data), core.checked_name(name) if name else ""

    def _target(self, data: Data) -> Target:
        kind = _text(data, "config_type") or "daemon"
        return core.target(self._site.settings, kind, _text(data, "file_path"))


def _unloadable(found: Checked) -> dict[str, Any]:
    return {
        "valid": False,
        "syntax_valid": False,
        "error": found.error,
        "code": found.code,
        "file_path": found.file_path,
    }


def _schema(found: Checked) -> dict[str, Any]:
    """`schema_path` if the schema holds; the first fault, and all that are told, if it does not."""
    if not found.schema_errors:
        return {"schema_valid": True, "schema_path": found.schema_path}
    errors = list(found.schema_errors)
    return {"schema_valid": False, "schema_error": errors[0], "schema_errors": errors}


def _composition(found: Checked) -> dict[str, Any]:
    errors = list(found.composition_errors)
    return {"composition_valid": not errors, **({"composition_errors": errors} if errors else {})}


def _key(data: Data) -> str:
    key = _text(data, "key")
    if not key:
        raise Required("Key is required")
    return key


def _text(data: Data, name: str) -> str:
    """An optional string; absent, null and empty are the same. Raises `InvalidParameter`."""
    value = data.get(name)
    if value is not None and type(value) is not str:
        raise InvalidParameter(name, "a string", value)
    return value or ""


def _flag(data: Data, name: str, *, default: bool) -> bool:
    value = data.get(name, default)
    if type(value) is not bool:
        raise InvalidParameter(name, "true or false", value)
    return value


def _encoded(value: Any) -> bytes:
    """The value as it crosses to whoever writes it. Raises `TooLarge`."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:  # from the wire it is JSON, so only its depth can be wrong
        raise values.too_deep() from error
