"""Backups: copies with a record each, never two of a name, bounded in number. Blocks."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ksi_daemon.beneath import Spot
from ksi_daemon.config import core, files, records
from ksi_daemon.config.errors import BackupMissing
from ksi_daemon.errors import OutcomeUnknown
from ksi_daemon.linefile import private_directory, write_all
from ksi_daemon.replace import prepared, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ksi_daemon.config.core import Place
    from ksi_daemon.config.records import Record

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LARGEST: Final = 64 * 1024
_SHELF: Final = "backups"
_Version = tuple[int, int, int, int]


class Copy(NamedTuple):
    """What is to be kept: the bytes of a file and its times, under a name if that is free."""

    path: str
    data: bytes
    which: os.stat_result
    name: str
    before: bool = False


class Shelf:
    """The directory of all backups. What was read of a record is kept as long as its file is the same."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Version, Record | None]] = {}

    def of(self, place: Place, path: str) -> list[Record]:
        """The backups of one file, oldest first. Raises `OSError`."""
        try:
            with _folder(place) as fd:
                return self._mine(fd, path)[0]
        except FileNotFoundError:
            return []

    @contextmanager
    def keep(
        self, place: Place, copy: Copy, now: float, pulse: Callable[[], None], sparing: str = ""
    ) -> Iterator[Record]:
        """Make a backup; if what is done with it fails, it is gone again. Then the oldest are removed.

        The one named `sparing` stays. Raises `OSError`, `ComponentBusy`.
        """
        private_directory(Path(place.backups))
        with _folder(place) as fd:
            record, others = self._put(place, fd, copy, now, pulse)
            try:
                yield record
            except (
                OutcomeUnknown
            ):  # the new content stands, so what it took the place of is still worth keeping
                raise
            except BaseException:
                _remove(fd, record.name)
                raise
            self._prune(place, fd, [*others, record], sparing)

    def tidy(self, place: Place, path: str) -> None:
        """Remove what a crash has left of the file's backups; its lock has to be held."""
        sweep(place.backups, files.prefix(path))

    def named(self, place: Place, path: str, name: str) -> Record:
        """The backup of that name, if it is the file's. Raises `BackupMissing`, `OSError`."""
        with suppress(FileNotFoundError), _folder(place) as fd:
            mine, names = self._mine(fd, path)
            if name in names:
                found = self._known.get(name + core.META)
                if found is None or found[1] is None:
                    raise BackupMissing(f"Backup metadata not found: {name}")
                if found[1].original != path:
                    raise BackupMissing(f"Backup is of another file: {name}")
                return next(record for record in mine if record.name == name)
        raise BackupMissing(f"Backup file not found: {name}")

    def data(self, place: Place, name: str) -> tuple[bytes, os.stat_result]:
        """The bytes and the times of a backup. Raises `BackupMissing`, `TooLarge`, `OSError`."""
        try:
            with _folder(place) as fd, open(Spot(fd, name, place.backups).open(), "rb", buffering=0) as file:
                which = os.fstat(file.fileno())
                return files.read_all(file.fileno(), which, place.most_bytes), which
        except FileNotFoundError as error:
            raise BackupMissing(f"Backup file not found: {name}") from error

    @contextmanager
    def mark(self, place: Place, record: Record, serial: int) -> Iterator[Callable[[], None]]:
        """Note a rollback to a backup: written now, in force when what this gives is called.

        Raises `OSError`.
        """
        fields = {**record.fields, "rolled_back": serial}
        with (
            _folder(place) as fd,
            prepared(
                record.name + core.META,
                lambda meta: write_all(meta, _encoded(fields)),
                durability=place.durability,
                prefix=files.prefix(record.original),
                dir_fd=fd,
            ) as put,
        ):
            yield put

    def _put(
        self, place: Place, fd: int, copy: Copy, now: float, pulse: Callable[[], None]
    ) -> tuple[Record, list[Record]]:
        def write(to: int) -> None:
            write_all(to, copy.data)
            os.utime(to, ns=(copy.which.st_atime_ns, copy.which.st_mtime_ns))

        options: dict[str, Any] = {
            "durability": place.durability,
            "prefix": files.prefix(copy.path),
            "dir_fd": fd,
        }
        with prepared(copy.name, write, **options) as put_copy, files.locked(place, _SHELF, pulse):
            others, names = self._mine(fd, copy.path)
            record = _new(place, copy, records.free(copy.name, names), now, others)
            meta = _encoded(record.fields)
            with prepared(record.name + core.META, lambda to: write_all(to, meta), **options) as put_meta:
                try:
                    put_copy(record.name)
                    put_meta()
                except BaseException:
                    _remove(fd, record.name)
                    raise
        return record, others

    def _mine(self, fd: int, path: str) -> tuple[list[Record], set[str]]:
        """The backups of one file, and the names of all files."""
        names: set[str] = set()
        found: dict[str, tuple[_Version, Record | None]] = {}
        with os.scandir(fd) as entries:
            for entry in entries:
                names.add(entry.name)
                if entry.name.endswith(core.META):
                    with suppress(FileNotFoundError):
                        found[entry.name] = self._read(fd, entry)
        self._known = found
        records = (record for _, record in found.values() if record is not None)
        mine = [record for record in records if record.original == path and record.name in names]
        return sorted(mine, key=lambda record: record.age), names

    def _read(self, fd: int, entry: os.DirEntry[str]) -> tuple[_Version, Record | None]:
        which = entry.stat(follow_symlinks=False)
        version = (which.st_ino, which.st_size, which.st_mtime_ns, which.st_ctime_ns)
        known = self._known.get(entry.name)
        if known is not None and known[0] == version:
            return known
        try:
            with open(os.open(entry.name, _READ, dir_fd=fd), "rb", buffering=0) as file:
                data = file.read(_LARGEST) or b""
        except OSError:
            return version, None
        return version, records.record_of(entry.name.removesuffix(core.META), data)

    def _prune(self, place: Place, fd: int, mine: list[Record], sparing: str) -> None:
        """Remove the oldest beyond the limit, but never the one that the way back hangs on."""
        hangs_on = records.latest(mine)
        spare = [record for record in mine if record is not hangs_on and record.name != sparing]
        for record in spare[: max(0, len(mine) - place.keep)]:
            _remove(fd, record.name)


def _new(place: Place, copy: Copy, name: str, now: float, others: list[Record]) -> Record:
    way = records.step_back(others)
    fields = {
        "original_path": copy.path,
        "backup_name": name,
        "backup_path": backup_path(place, name),
        "timestamp": core.stamp(now),
        "size": len(copy.data),
        "serial": records.next_serial(others),
        "previous": way and way.name,
        "before": copy.before,
    }
    found = records.record_of(name, _encoded(fields))
    assert found is not None  # noqa: S101 - it was made just now
    return found


def backup_path(place: Place, name: str) -> str:
    """Where a backup lies, relative to the root if it lies there."""
    path = os.path.join(place.backups, name)
    return os.path.relpath(path, place.root) if path.startswith(place.root.rstrip("/") + "/") else path


def _encoded(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, indent=2).encode()


@contextmanager
def _folder(place: Place) -> Iterator[int]:
    fd = os.open(place.backups, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


def _remove(fd: int, name: str) -> None:
    """The record first: a crash in between leaves a copy without one, never the other way round."""
    for one in (name + core.META, name):
        with suppress(OSError):
            os.unlink(one, dir_fd=fd)
