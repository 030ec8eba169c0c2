"""Text to document and back, as the original does it: PyYAML's safe loader and dumper, `json`, or as it is.

Beside that no document is nested too deeply to be handled, merges without bound, or raises what is not ours.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Final

import yaml

from ksi_daemon.config import values
from ksi_daemon.config.errors import NotUnderstood, TooLarge, Unusable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksi_daemon.config.core import Format

_FAULTS: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What PyYAML's constructors raise besides its own errors: for `2001-99-99`, `!!int ""`, `!!timestamp x`."""

_MERGE: Final = "tag:yaml.org,2002:merge"


def nothing() -> None:
    """The pulse of whoever needs none."""


class _Named(io.TextIOWrapper):
    """The text of bytes, with the file's name for PyYAML's marks; PyYAML reads it in small pieces."""

    def __init__(self, data: bytes, name: str, pulse: Callable[[], None]) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._path = name
        self._pulse = pulse

    def read(self, size: int | None = -1, /) -> str:
        """Show that it goes on: one scalar may be as long as the file."""
        self._pulse()
        return super().read(size)

    @property
    def name(self) -> str:
        """The path."""
        return self._path


class Loader(yaml.SafeLoader):
    """The safe loader, which counts levels, values and merged keys, and shows that it goes on."""

    pulse: Callable[[], None] = staticmethod(nothing)
    _level = 0
    _nodes = 0
    _merged = 0

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._flattening: set[int] = set()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse what would need more stack than there is, or far more memory than its file is large."""
        self.pulse()
        self._level += 1
        self._nodes += 1
        if self._nodes > values.MOST_NODES:
            raise values.too_many()
        if self._level > values.DEEPEST + 1:  # a scalar is no level of its own
            raise values.too_deep()
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Show that it goes on."""
        self.pulse()
        return super().construct_object(node, deep=deep)

    def flatten_mapping(self, node: Any) -> None:
        """Count what merge keys copy before they do: they may multiply with each level of aliases."""
        if id(node) in self._flattening:  # it merges itself
            return
        self._flattening.add(id(node))
        for key, value in node.value:
            if key.tag == _MERGE:
                self._count_merged([value] if isinstance(value, yaml.MappingNode) else value.value)
        super().flatten_mapping(node)
        self._flattening.discard(id(node))

    def _count_merged(self, nodes: Any) -> None:
        for node in nodes:
            if isinstance(node, yaml.MappingNode):
                self.flatten_mapping(node)
                self._merged += len(node.value)
                if self._merged > values.MOST_NODES:
                    raise TooLarge(f"merge keys copy more than {values.MOST_NODES} keys")


class Dumper(yaml.SafeDumper):
    """The safe dumper, which shows that it goes on."""

    pulse: Callable[[], None] = staticmethod(nothing)

    def represent_data(self, data: Any) -> Any:
        """Show that it goes on."""
        self.pulse()
        return super().represent_data(data)

    def serialize_node(self, node: Any, parent: Any, index: Any) -> None:
        """Show that it goes on."""
        self.pulse()
        super().serialize_node(node, parent, index)


def _pulsing(pulse: Callable[[], None]) -> Any:
    def make(*args: Any, **options: Any) -> Dumper:
        dumper = Dumper(*args, **options)
        dumper.pulse = pulse
        return dumper

    return make


def parse(data: bytes, form: Format, name: str, pulse: Callable[[], None] = nothing) -> Any:
    """The document of a file's bytes. Raises `NotUnderstood`, `TooLarge`."""
    try:
        return _parse(_Named(data, name, pulse), form, pulse)
    except yaml.YAMLError as error:
        raise NotUnderstood(f"YAML parsing error: {error}") from error
    except json.JSONDecodeError as error:
        raise NotUnderstood(f"JSON parsing error: {error}") from error
    except RecursionError:
        raise values.too_deep() from None
    except _FAULTS as error:
        raise NotUnderstood(f"Failed to load config: {_told(error)}") from error


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _parse(text: _Named, form: Format, pulse: Callable[[], None]) -> Any:
    if form == "mixed":
        return text.read()
    if form == "json":
        return json.load(text)
    loader = Loader(text)
    loader.pulse = pulse
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def dump(document: Any, form: Format, pulse: Callable[[], None] = nothing) -> bytes:
    """The bytes of a document. Raises `Unusable` for what the format cannot say."""
    text = io.StringIO()
    try:
        if form == "mixed":
            text.write(str(document))
        elif form == "json":
            json.dump(document, text, indent=2)
        else:
            yaml.dump(document, text, Dumper=_pulsing(pulse), default_flow_style=False, sort_keys=False)
        return text.getvalue().encode()
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise Unusable(f"Set failed: {error}") from error
