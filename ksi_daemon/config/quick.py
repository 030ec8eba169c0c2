"""The C loader and dumper of PyYAML (libyaml), used only where they say exactly what the Python ones say.

Where that is was found by comparing the two on millions of generated texts and documents, and is held by a
test that goes on comparing: printable ASCII, no aliases, tags or flow collections for the loader; short keys
for the dumper. Whatever the C loader refuses is read again by the Python one, whose words the error has.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from ksi_daemon.config import documents, values

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.config.core import Format

LONGEST_KEY: Final = 100
"""Characters; the two dumpers disagree from 123 on about what is a simple key."""

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", None)
_DUMPER: Final[Any] = getattr(yaml, "CSafeDumper", None)

_STRANGE: Final = re.compile(
    rb"[^\n\x20-\x7e]"  # tabs, carriage returns, control characters, anything that is not ASCII
    rb"|(?:^|[ \n])[&*!%]"  # anchors, aliases, tags, directives
    rb"|[|>][-+0-9]*#"  # libyaml takes what follows for a comment
    rb"|\n[ ?:-]{64}"  # so many levels that its recursion could matter
)
_FLOW: Final = re.compile(rb"[\[{]")
_PLAIN: Final = re.compile(r"[\x20-\x7e]*")
_KEY: Final = re.compile(rf"[\x20-\x7e]{{1,{LONGEST_KEY}}}")


def parse(data: bytes, form: Format, name: str, pulse: Callable[[], None]) -> Any:
    """As `documents.parse`, sooner."""
    if form == "yaml" and _LOADER is not None and _few(data) and readable(data):
        try:
            return _load(data, pulse)
        except Exception:  # noqa: BLE001, S110 - whatever it is, the Python loader says it better
            pass
    return documents.parse(data, form, name, pulse)


def _few(data: bytes) -> bool:
    """Whether there cannot be more values than are allowed: the C loader does not count them."""
    return data.count(b"\n") + data.count(b"- ") + data.count(b":") + data.count(b"?") < values.MOST_NODES


def readable(data: bytes) -> bool:
    """Whether the C loader reads this text as the Python one does, or refuses it."""
    if _STRANGE.search(data) or data.startswith(b" " * 64):
        return False
    return not _FLOW.search(data.replace(b"[]", b"").replace(b"{}", b""))


def dump(document: Any, form: Format, pulse: Callable[[], None]) -> bytes:
    """As `documents.dump`, sooner."""
    if form != "yaml" or _DUMPER is None or not writable(document):
        return documents.dump(document, form, pulse)
    text = io.BytesIO()
    options: Any = {"default_flow_style": False, "sort_keys": False, "encoding": "utf-8"}
    yaml.dump(document, text, Dumper=_dumper(pulse), **options)
    return text.getvalue()


def _load(data: bytes, pulse: Callable[[], None]) -> Any:
    loader = _LOADER(data)
    _watched(loader, "construct_object", pulse)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _dumper(pulse: Callable[[], None]) -> Any:
    def make(*args: Any, **options: Any) -> Any:
        dumper = _DUMPER(*args, **options)
        _watched(dumper, "represent_data", pulse)
        return dumper

    return make


def _watched(one: Any, method: str, pulse: Callable[[], None]) -> None:
    """Have the one call the pulse each time it calls this method of its own."""
    real = getattr(one, method)

    def call(*args: Any, **options: Any) -> Any:
        pulse()
        return real(*args, **options)

    setattr(one, method, call)


def writable(document: Any) -> bool:
    """Whether the C dumper writes this document as the Python one does, and it reads back as what it is."""
    return bool(document) and isinstance(document, dict | list) and _writable(document, set())


def _writable(value: Any, seen: set[int]) -> bool:
    kind = type(value)
    if kind is str:
        return _PLAIN.fullmatch(value) is not None
    if kind is dict:
        return (
            _once(value, seen)
            and all(type(key) is str and _KEY.fullmatch(key) for key in value)
            and all(_writable(member, seen) for member in value.values())
        )
    if kind is list:
        return _once(value, seen) and all(_writable(member, seen) for member in value)
    return value is None or kind in {bool, int, float}


def _once(value: Any, seen: set[int]) -> bool:
    """What stands in two places is dumped as an alias."""
    if id(value) in seen:
        return False
    seen.add(id(value))
    return True
