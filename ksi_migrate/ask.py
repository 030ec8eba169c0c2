"""What the daemon says of the migration, and whether there is one: bounded questions that never hang."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksi_daemon import client, process

if TYPE_CHECKING:
    from ksi_daemon.settings import Settings

PATIENCE = 2.0
"""Seconds for one question; a daemon on its sync side may stand still that long for a disk."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A daemon's answer to `migration:status`, or why there is none."""

    running: bool
    pid: int | None
    status: dict[str, Any] | None
    why: str


def hear(settings: Settings, timeout: float = PATIENCE) -> Heard:
    """Ask for the stages. A daemon is running when it holds the root's lock or answers on the socket."""
    pid = process.holder(settings)
    try:
        reply = client.ask(settings.socket_path, "migration:status", timeout=timeout)
    except client.Unreachable as error:
        return Heard(pid is not None, pid or None, None, _silent(settings, error))
    data = reply.get("data")
    if isinstance(data, dict) and isinstance(data.get("components"), list):
        return Heard(True, data.get("pid"), data, "")  # noqa: FBT003 - it answers, so it runs
    why = f"the daemon gave no stages: {reply.get('error') or data}"
    return Heard(True, pid or None, None, why)  # noqa: FBT003 - something answers


def nudge(settings: Settings, timeout: float = PATIENCE) -> bool:
    """Ask the daemon to read flags.yaml now; False when it did not say that it would."""
    with contextlib.suppress(client.Unreachable):
        reply = client.ask(settings.socket_path, "migration:reload", timeout=timeout)
        return isinstance(reply.get("data"), dict) and "error" not in reply["data"]
    return False


def _silent(settings: Settings, error: client.Unreachable) -> str:
    cause = error.__cause__
    strerror = getattr(cause, "strerror", None)
    reason = strerror.lower() if strerror else str(cause)  # our own words may name paths and variables
    return f"the daemon does not answer on {settings.socket_path}: {reason}"
