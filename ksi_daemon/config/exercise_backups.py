"""Steps that make backups, and that go back through them."""

from __future__ import annotations

import json
from typing import Any

from ksi_daemon.exercise import Case, Step

_FILE = "ksi_daemon.yaml"
_BACKUPS = "var/tmp/backups/config/"


def _set(key: str, value: Any, **more: Any) -> Step:
    return Step("config:set", {"key": key, "value": value, **more})


def _get(key: str = "*", **more: Any) -> Step:
    return Step("config:get", {"key": key, **more})


def _backup(**more: Any) -> Step:
    return Step("config:backup", {"config_type": "daemon", **more})


def _back(**more: Any) -> Step:
    return Step("config:rollback", {"config_type": "daemon", **more})


_OLD_RECORD = {
    "original_path": "<elsewhere>",
    "backup_name": "old",
    "backup_path": _BACKUPS + "old",
    "timestamp": "2025-07-01T00:00:00",
    "size": 4,
}

CASES = (
    Case(
        "backups",
        (
            _backup(),
            _set("a", 1),
            _backup(),
            _backup(),
            _backup(backup_name="mine"),
            _backup(backup_name="mine"),
            *(
                _backup(backup_name=name)
                for name in ("../x", "a/b", ".", "..", ".x", "x.meta", "x" * 251, "nul\x00")
            ),
            _backup(file_path="none.yaml"),
            _backup(file_path="no/such/none.yaml"),
            Step("config:backup", {"file_path": _FILE}),
            _backup(config_type="composition"),
            _backup(file_path="same/ksi_daemon.yaml"),
            _backup(file_path="n" * 250),
            _set("a", 2),
        ),
        files={"same/ksi_daemon.yaml": b"other: 1\n", "n" * 250: b"long: name\n"},
    ),
    Case(
        "rollbacks",
        (
            _back(),
            Step("config:rollback"),
            *(_set("n", number) for number in range(1, 5)),
            _back(),
            _get(),
            _back(),
            _get(),
            Step("@restart"),
            _set("n", 7),
            _back(),
            _get(),
            _back(),
            _back(),
            _get(),
            _back(backup_name="ksi_daemon.yaml_20250712_170641"),
            _back(backup_name="none"),
            _back(backup_name="lonely"),
            _back(backup_name="old"),
            _back(backup_name="../mine"),
            _backup(backup_name="mine"),
            _set("n", 8),
            _back(backup_name="mine"),
            _back(backup_name="pre_rollback_mine"),
            _get(),
            _back(file_path="other.yaml", backup_name="mine"),
            Step("@remove"),
            _back(),
            _get(),
        ),
        files={
            _BACKUPS + "lonely": b"a: 1\n",
            _BACKUPS + "old": b"a: 1",
            _BACKUPS + "old.meta": json.dumps(_OLD_RECORD).encode(),
        },
    ),
)
