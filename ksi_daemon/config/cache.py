"""Documents that need not be parsed again: kept by a worker as long as their file is what it was. Blocks."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon import filetimes
from ksi_daemon.config import files, quick, values
from ksi_daemon.config.errors import NoFile, failed
from ksi_daemon.config.work import Loaded

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from ksi_daemon.beneath import Spot
    from ksi_daemon.config.core import Format, Place

MOST: Final = 64
"""Documents kept."""

MOST_BYTES: Final = 8 * 1024 * 1024
"""Bytes of the files whose documents are kept; a document takes ten to twenty times as much."""

_Version = tuple[int, int, int, int, int]


@dataclass(slots=True)
class _Entry:
    """A document, the digest of the bytes that it came from, and which file had them; None is not known."""

    document: Any
    finite: bool
    digest: bytes
    size: int
    version: _Version | None


class Cache:
    """The documents of one worker, the one not used for longest goes first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, Format], _Entry] = OrderedDict()

    def get(self, key: tuple[str, Format]) -> _Entry | None:
        """What is kept, now used last."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def keep(self, key: tuple[str, Format], entry: _Entry) -> None:
        """Keep it, and let others go for it."""
        self.drop(key)
        if entry.size <= MOST_BYTES:
            self._entries[key] = entry
        while len(self._entries) > MOST or sum(one.size for one in self._entries.values()) > MOST_BYTES:
            self._entries.popitem(last=False)

    def drop(self, key: tuple[str, Format]) -> None:
        """Forget it."""
        self._entries.pop(key, None)


class Cached:
    """A worker's way with documents: from the cache, else by the quick loader; dumped by the quick dumper."""

    def __init__(self, cache: Cache, pulse: Callable[[], None]) -> None:
        self._cache = cache
        self._pulse = pulse

    def load(self, place: Place, found: Spot, form: Format) -> Loaded:
        """The document to look at; nothing is read when the file is what it was."""
        entry = self._cache.get((found.path, form))
        if entry is not None and entry.version is not None and entry.version == _version_there(place, found):
            return Loaded(entry.document, entry.finite)
        loaded, _ = self._read(place, found, form)
        return loaded

    def take(self, place: Place, found: Spot, form: Format) -> Loaded:
        """The document to change: no longer in the cache, since a change may fail half-way."""
        loaded, _ = self._read(place, found, form)
        self._cache.drop((found.path, form))
        return loaded

    def dump(self, document: Any, form: Format) -> bytes:
        """The bytes of a document."""
        return quick.dump(document, form, self._pulse)

    def wrote(self, found: Spot, document: Any, data: bytes) -> None:
        """Keep it only where it is sure that it reads back as itself; the next look compares the content."""
        form: Format = "yaml"
        if quick.readable(data) and quick.writable(document):
            entry = _Entry(document, finite=True, digest=_digest(data), size=len(data), version=None)
            self._cache.keep((found.path, form), entry)

    def _read(self, place: Place, found: Spot, form: Format) -> tuple[Loaded, _Entry]:
        key = (found.path, form)
        began = time.time_ns()
        data, which = files.read(place, found)
        digest, entry = _digest(data), self._cache.get(key)
        if entry is None or entry.digest != digest:
            document = quick.parse(data, form, found.path, self._pulse)
            entry = _Entry(document, values.weigh(document, place.most_bytes), digest, len(data), None)
            self._cache.keep(key, entry)
        settled = filetimes.settled(which.st_mtime_ns, which.st_ctime_ns, began)
        entry.version = _version(which) if settled else None  # until then its content is compared
        return Loaded(entry.document, entry.finite, data, which), entry


def _version(which: os.stat_result) -> _Version:
    return (which.st_dev, which.st_ino, which.st_size, which.st_mtime_ns, which.st_ctime_ns)


def _version_there(place: Place, found: Spot) -> _Version:
    try:
        return _version(found.stat())
    except FileNotFoundError as error:
        raise NoFile from error
    except OSError as error:
        raise failed(place.component, files.LOADING, f"read {found.path}", error) from error


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
