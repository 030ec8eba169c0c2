"""The five operations on a configuration file, whole: what a side does inline, or has a worker do. Blocks."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import orjson

from ksi_daemon.config import backups, core, documents, files, records, schemas, values
from ksi_daemon.config.errors import (
    BackupMissing,
    Failed,
    NoFile,
    NotUnderstood,
    ReplyTooLarge,
    TooLarge,
    Unknown,
    failed,
)
from ksi_daemon.linefile import write_all
from ksi_daemon.replace import prepared, sweep, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ksi_daemon.beneath import Spot
    from ksi_daemon.config.core import Format, Place, Target

SAVING, BACKING_UP, ROLLING_BACK = "Failed to save config", "Backup failed", "Rollback failed"
"""The original's words for the steps that can fail."""


MOST_KEPT: Final = 256 * 1024 * 1024
"""Bytes of a file that a rollback still replaces: it is copied, not parsed."""


class Loaded(NamedTuple):
    """A document, and whether JSON can carry all its numbers; for a change also its bytes and its file."""

    document: Any
    finite: bool
    data: bytes = b""
    which: os.stat_result | None = None


class Codec(Protocol):
    """How a side comes from a file to a document and back."""

    def load(self, place: Place, found: Spot, form: Format) -> Loaded:
        """The document to look at. Raises `NoFile`, `NotUnderstood`, `TooLarge`, `Failed`."""

    def take(self, place: Place, found: Spot, form: Format) -> Loaded:
        """The document to change, with its bytes; nobody else has it. Raises as `load`."""

    def dump(self, document: Any, form: Format) -> bytes:
        """The bytes of a document. Raises `Unusable`."""

    def wrote(self, found: Spot, document: Any, data: bytes) -> None:
        """The file now holds this document."""


class Plain:
    """The original's calls: everything is read and parsed each time."""

    def __init__(self, pulse: Callable[[], None] = documents.nothing) -> None:
        self._pulse = pulse

    def load(self, place: Place, found: Spot, form: Format) -> Loaded:
        """Read, parse and weigh."""
        return self.take(place, found, form)

    def take(self, place: Place, found: Spot, form: Format) -> Loaded:
        """Read, parse and weigh."""
        data, which = files.read(place, found)
        document = documents.parse(data, form, found.path, self._pulse)
        return Loaded(document, values.weigh(document, place.most_bytes), data, which)

    def dump(self, document: Any, form: Format) -> bytes:
        """With the dumpers of the standard library and of PyYAML."""
        return documents.dump(document, form, self._pulse)

    def wrote(self, found: Spot, document: Any, data: bytes) -> None:
        """Nothing is kept."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Who does an operation: its place, its way with documents, its shelf, and whom it tells."""

    place: Place
    codec: Codec
    shelf: backups.Shelf
    pulse: Callable[[], None] = documents.nothing
    """Called now and then while an operation goes on."""
    committing: Callable[[], None] = documents.nothing
    """Called once, just before the first change that others can see."""


def get(by: Worker, target: Target, key: str) -> core.Found:
    """The value at a key."""
    with files.existing(by.place, target) as found:
        loaded = by.codec.load(by.place, found, target.format)
        value = values.as_json(core.look_up(loaded.document, key), finite=loaded.finite)
        if len(value) > by.place.most_reply:
            raise ReplyTooLarge(by.place.most_reply)
        return core.Found(value, found.path)


def put(by: Worker, target: Target, key: str, value: bytes, backup: bool, now: float) -> core.Written:
    """Load, check, change, write beside, back up, put in place: what can fail fails before it is seen."""
    _would_fit(target, key, value)
    with _writing(by, target, SAVING) as found:
        loaded = _present(by, found, target.format)
        document = core.put(loaded.document, key, orjson.loads(value))
        values.weigh(document, by.place.most_bytes)
        data = by.codec.dump(document, target.format)
        if len(data) > by.place.most_bytes:
            raise TooLarge(
                f"configuration would be over {by.place.most_bytes} bytes; see KSI_CONFIG_MAX_BYTES"
            )
        kept = ""
        with ExitStack() as stack:
            place_it = stack.enter_context(_prepared(by.place, SAVING, found, data, loaded.which))
            by.committing()
            if backup and loaded.which is not None:
                name = core.backup_name(found.name, now)
                copy = backups.Copy(found.path, loaded.data, loaded.which, name)
                kept = stack.enter_context(_keeping(by, copy, now)).name
            place_it()
        by.codec.wrote(found, document, data)
        return core.Written(found.path, kept)


def validate(by: Worker, target: Target, schema: Target | None) -> core.Checked:
    """What is wrong with a file: with its syntax, with its form, by a schema."""
    with files.existing(by.place, target) as found:
        try:
            document = by.codec.load(by.place, found, target.format).document
        except (NoFile, NotUnderstood, TooLarge) as error:
            return core.Checked(found.path, str(error), error.code)
        shape = core.missing_fields(document) if target.type == "composition" else ()
        if schema is None:
            return core.Checked(found.path, composition_errors=shape)
        schema_path, wrong = schemas.check(by.place, by.codec, schema, document)
        return core.Checked(found.path, "", "", schema_path, wrong, shape)


def backup(by: Worker, target: Target, name: str, now: float) -> core.Kept:
    """A copy of the file as it is."""
    with _writing(by, target, BACKING_UP, make=False) as found:
        data, which = files.read(by.place, found, BACKING_UP)
        by.committing()
        wanted = name or core.backup_name(found.name, now)
        with _keeping(by, backups.Copy(found.path, data, which, wanted), now) as record:
            return core.Kept(record.name, backups.backup_path(by.place, record.name))


def rollback(by: Worker, target: Target, name: str, now: float) -> core.RolledBack:
    """Put a backup in the file's place, and keep what was there; without a name go one step back."""
    with (
        _writing(by, target, ROLLING_BACK) as found,
        _told(by.place, ROLLING_BACK, f"roll back {found.path}"),
    ):
        record = _wanted(by, found.path, name)
        data, which = by.shelf.data(by.place, record.name)
        present = _bytes_there(by.place, found)
        serial = records.next_serial(by.shelf.of(by.place, found.path)) + 1  # the copy comes in between
        kept = ""
        with ExitStack() as stack:
            like = present and present[1]
            times = (which.st_atime_ns, which.st_mtime_ns)
            place_it = stack.enter_context(_prepared(by.place, ROLLING_BACK, found, data, like, times))
            note = stack.enter_context(by.shelf.mark(by.place, record, serial))
            by.committing()
            if present is not None:
                before = core.fitting(core.BEFORE, record.name.removeprefix(core.BEFORE), "")
                copy = backups.Copy(found.path, *present, before, before=True)
                kept = stack.enter_context(_keeping(by, copy, now, sparing=record.name)).name
            place_it()
            _noted(by.place, found, note)
        return core.RolledBack(found.path, record.name, record.timestamp, kept)


def _would_fit(target: Target, key: str, value: bytes) -> None:
    """Refuse for a file in a directory that is not there what would be refused once it was made."""
    try:
        with files.spot(target):
            return
    except FileNotFoundError:
        core.put({}, key, orjson.loads(value))
    except OSError:  # told when the file is opened
        return


@contextmanager
def _writing(by: Worker, target: Target, words: str, *, make: bool = True) -> Iterator[Spot]:
    """The spot of a file that may be written, its lock held; directories made for nothing are removed."""
    with ExitStack() as stack:
        with _told(by.place, words, f"open {target.path}"):
            try:
                found = stack.enter_context(files.spot(target, make=make))
            except (FileNotFoundError, NotADirectoryError) as error:
                if make:
                    raise
                raise NoFile from error
            files.guard(by.place, found, target)
            stack.enter_context(files.locked(by.place, found.path, by.pulse))
            sweep(found.fd, files.prefix(found.path))
            by.shelf.tidy(by.place, found.path)
        try:
            yield found
        except BaseException:
            found.unmake()
            raise


@contextmanager
def _told(place: Place, words: str, action: str) -> Iterator[None]:
    """What the operating system says, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise failed(place.component, words, action, error) from error


@contextmanager
def _prepared(
    place: Place,
    words: str,
    found: Spot,
    data: bytes,
    like: os.stat_result | None,
    times: tuple[int, int] | None = None,
) -> Iterator[Callable[[], None]]:
    """The file's new content beside it, with mode and owner of the old one."""

    def write(fd: int) -> None:
        write_all(fd, data)
        if times is not None:
            os.utime(fd, ns=times)

    options: Any = {"durability": place.durability, "like": like, "prefix": files.prefix(found.path)}
    with ExitStack() as stack:
        with _told(place, words, f"write {found.path}"):
            put_it = stack.enter_context(prepared(found.name, write, dir_fd=found.fd, **options))

        def place_it() -> None:
            with _told(place, words, f"replace {found.path}"):
                put_it()
                for folder in found.made if place.durability == "fsync" else ():
                    sync_folder(os.path.dirname(folder))

        yield place_it


@contextmanager
def _keeping(by: Worker, copy: backups.Copy, now: float, sparing: str = "") -> Iterator[records.Record]:
    """A backup that stays only if what follows succeeds."""
    with ExitStack() as stack:
        try:
            record = stack.enter_context(by.shelf.keep(by.place, copy, now, by.pulse, sparing))
        except OSError as error:  # whatever it is, the backup is gone again
            raise Failed(by.place.component, BACKING_UP, f"back up {copy.path}", error) from error
        yield record


def _present(by: Worker, found: Spot, form: Format) -> Loaded:
    """What is there to be changed; a missing file is an empty object."""
    try:
        return by.codec.take(by.place, found, form)
    except NoFile:
        return Loaded({}, finite=True)


def _noted(place: Place, found: Spot, note: Callable[[], None]) -> None:
    """What a failure costs is where the next step leads to; but the file is changed, so it is not undone."""
    try:
        note()
    except OSError as error:
        raise Unknown(place.component, ROLLING_BACK, f"note the rollback of {found.path}", error) from error


def _bytes_there(place: Place, found: Spot) -> tuple[bytes, os.stat_result] | None:
    """What a rollback replaces: it is kept, not parsed, so it may be larger than what can be read."""
    with suppress(NoFile):
        return files.read(place, found, ROLLING_BACK, most=max(place.most_bytes, MOST_KEPT))
    return None


def _wanted(by: Worker, path: str, name: str) -> records.Record:
    if name:
        return by.shelf.named(by.place, path, name)
    found = records.step_back(by.shelf.of(by.place, path))
    if found is None:
        raise BackupMissing("No backups found for this config file")
    return found
