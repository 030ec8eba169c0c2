"""The operator's hand on the stages: edits flags.yaml in place, and sets ceilings where that fails."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from ksi_daemon.errors import KsiError
from ksi_daemon.flags import Component, Flags, FlagsInvalid, Stage, parse, read, set_scalars
from ksi_daemon.flagtext import scan
from ksi_daemon.linefile import sync_to_disk
from ksi_daemon.registry import AREAS
from ksi_daemon.replace import replace_file
from ksi_daemon.stages import Ceiling, Ceilings, StagesInvalid, load_ceilings, load_state, save_ceilings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

PATIENCE: Final = 1.0
"""Seconds to wait for another ksi-migrate's edit to end; an edit takes milliseconds."""
_LOCK: Final = "lock"
_CEILINGS_LOCK: Final = "ceilings.lock"


class LockHeld(KsiError):
    """Another `ksi-migrate` is editing and did not end in time (exit 6)."""

    code = "lock_held"

    def __init__(self, path: Path, holder: str) -> None:
        whose = f"pid {holder}" if holder.isdigit() else "pid unknown"
        super().__init__(f"{path} is held by another ksi-migrate ({whose}); try again when it has ended")


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit of flags.yaml; `changed` names what differs, and is empty when nothing had to be written."""

    before: Flags
    after: Flags
    changed: tuple[str, ...]


def edit(
    flags_path: Path,
    migrate_dir: Path,
    stages: Mapping[str, Stage],
    *,
    areas: Sequence[Component] = AREAS,
    patience: float = PATIENCE,
) -> Edit:
    """Set the stages of the named components in one atomic write; comments, layout, mode and owner stay.

    A link is kept and its target replaced. The lock is let go before this returns, so nobody holds it while
    waiting for the daemon. Raises `FlagsInvalid` (the file before or after would be refused, or somebody else
    saved it meanwhile), `LockHeld`, `OSError`.
    """
    with _locked(migrate_dir / _LOCK, patience):
        data, found = _at_rest(flags_path)
        before = parse(data, areas=areas, path=flags_path)
        changes = {f"components.{name}": str(stage) for name, stage in stages.items()}
        text = set_scalars(data.decode(), changes, flags_path).encode()
        after = parse(text, areas=areas, path=flags_path)
        if text != data:
            if read(flags_path) != data:
                raise FlagsInvalid(flags_path, 0, "was saved by somebody else meanwhile; try again")
            replace_file(os.path.realpath(flags_path), text, like=found)
    changed = tuple(name for name, stage in after.components.items() if stage != before.components[name])
    return Edit(before, after, changed)


def overwrite(flags_path: Path, stages: Mapping[str, Stage], *, areas: Sequence[Component] = AREAS) -> None:
    """Set the stages where no new file has room: in place, each word padded to the old one's length.

    The last resort of a rollback, without lock and rename: each component is one write of a few bytes, and
    the file is valid after each. Raises `FlagsInvalid`, also when a stage has more letters than the one it
    replaces, and `OSError`.
    """
    data = read(flags_path)
    text = data.decode()
    found = scan(text, flags_path).scalars
    edits = []
    for name, stage in stages.items():
        old = found["components", name]
        word = f"{old.quote}{stage}{old.quote}".ljust(old.end - old.start)
        if len(word) > old.end - old.start:
            raise FlagsInvalid(flags_path, old.line, f"has no room for {stage}; edit it by hand")
        edits.append((len(text[: old.start].encode()), word.encode()))
    after = bytearray(data)
    for offset, new in edits:
        after[offset : offset + len(new)] = new
    parse(bytes(after), areas=areas, path=flags_path)
    _write_in_place(os.path.realpath(flags_path), edits)


def _write_in_place(path: str, edits: Sequence[tuple[int, bytes]]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for offset, data in edits:
            os.pwrite(fd, data, offset)
        sync_to_disk(fd)
    finally:
        os.close(fd)


def set_ceiling(
    migrate_dir: Path,
    stages: Mapping[str, Stage],
    *,
    reason: str,
    who: str | None = None,
    areas: Sequence[Component] = AREAS,
    patience: float = PATIENCE,
) -> Ceilings:
    """Cap the named components, whatever flags.yaml says; never refused because of a lock.

    Waits `patience` seconds for another's writing and then goes on without it. Damaged ceilings are replaced:
    every other component is then capped at the stage that the daemon last acknowledged, so nothing goes up.
    """
    with _perhaps_locked(migrate_dir / _CEILINGS_LOCK, patience):
        try:
            known = dict(load_ceilings(migrate_dir).components)
        except StagesInvalid as error:
            known = _salvaged(migrate_dir, areas, error)
        at, whose = _now(), who or _who()
        known |= {name: Ceiling(Stage(stage), reason, whose, at) for name, stage in stages.items()}
        ceilings = Ceilings(known)
        save_ceilings(migrate_dir, ceilings)
    return ceilings


def clear_ceiling(migrate_dir: Path, names: Sequence[str], *, patience: float = PATIENCE) -> Ceilings:
    """Lift the ceilings of the named components; those without one stay so, and no file is made for them.

    Raises `LockHeld`, `StagesInvalid` (a rollback mends the file) and `OSError`.
    """
    with _locked(migrate_dir / _CEILINGS_LOCK, patience):
        known = load_ceilings(migrate_dir)
        left = Ceilings({name: cap for name, cap in known.components.items() if name not in names})
        if left != known:
            save_ceilings(migrate_dir, left)
    return left


def _at_rest(path: Path) -> tuple[bytes, os.stat_result]:
    data = read(path)
    return data, os.stat(path)


def _salvaged(migrate_dir: Path, areas: Sequence[Component], error: StagesInvalid) -> dict[str, Ceiling]:
    try:
        state = load_state(migrate_dir)
    except StagesInvalid:
        state = None  # without it every component is capped at sync, the side that is always there
    in_force = state.components if state else {}
    reason = f"the ceilings were damaged: the file {error.reason.partition(';')[0]}"
    return {
        area.name: Ceiling(
            in_force[area.name].stage if area.name in in_force else Stage.SYNC, reason, _who(), _now()
        )
        for area in areas
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry for this user id (KeyError before Python 3.13)
        return f"uid {os.getuid()}"


@contextlib.contextmanager
def _locked(path: Path, patience: float) -> Iterator[None]:
    fd = _open_lock(path)
    try:
        if not _take(fd, patience):
            raise LockHeld(path, os.pread(fd, 32, 0).decode(errors="replace").strip())
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _perhaps_locked(path: Path, patience: float) -> Iterator[None]:
    fd = _open_lock(path)
    try:
        _take(fd, patience)
        yield
    finally:
        os.close(fd)


def _open_lock(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


def _take(fd: int, patience: float) -> bool:
    """Whether the lock was free within `patience` seconds (flock(2); it ends with the process)."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        else:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
