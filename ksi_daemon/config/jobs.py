"""What a worker process does for configuration: the five operations, with documents that it keeps.

A file over `LARGE` is not for a worker that others wait for: the answer is `ELSEWHERE`, and nothing was done.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.config import core, files, work
from ksi_daemon.config.backups import Shelf
from ksi_daemon.config.cache import Cache, Cached
from ksi_daemon.errors import KsiError

if TYPE_CHECKING:
    from ksi_daemon.config.core import Place, Target
    from ksi_daemon.worker import Jobs, Turn

LARGE: Final = 256 * 1024
"""Bytes of a file from which on it takes a tenth of a second and more to parse."""

ELSEWHERE: Final = "elsewhere"
"""The answer of a worker that is not for files so large."""

COMMITTING: Final = "committing"
"""The word of a job that begins to change what others can see."""

_CACHE: Final = Cache()
_SHELF: Final = Shelf()


def get(turn: Turn, place: Place, any_size: bool, target: Target, key: str) -> core.Found | str:
    """See the contract."""
    return work.get(_by(turn, place), target, key) if any_size or _small(target) else ELSEWHERE


def put(turn: Turn, place: Place, any_size: bool, target: Target, *rest: Any) -> core.Written | str:
    """See the contract."""
    return work.put(_by(turn, place), target, *rest) if any_size or _small(target) else ELSEWHERE


def validate(  # noqa: D103 - see the contract
    turn: Turn, place: Place, any_size: bool, target: Target, schema: Target | None
) -> core.Checked | str:
    return work.validate(_by(turn, place), target, schema) if any_size or _small(target) else ELSEWHERE


def backup(turn: Turn, place: Place, _any_size: bool, target: Target, *rest: Any) -> core.Kept:
    """See the contract. A copy is no trouble at any size."""
    return work.backup(_by(turn, place), target, *rest)


def rollback(turn: Turn, place: Place, _any_size: bool, target: Target, *rest: Any) -> core.RolledBack:
    """See the contract. A copy is no trouble at any size."""
    return work.rollback(_by(turn, place), target, *rest)


def _by(turn: Turn, place: Place) -> work.Worker:
    return work.Worker(place, Cached(_CACHE, turn.check), _SHELF, turn.check, lambda: turn.tell(COMMITTING))


def _small(target: Target) -> bool:
    """What cannot be found out is told by the work itself."""
    with suppress(KsiError, OSError), files.spot(target) as found:
        return found.stat().st_size <= LARGE
    return True


JOBS: Jobs = {"get": get, "put": put, "validate": validate, "backup": backup, "rollback": rollback}
