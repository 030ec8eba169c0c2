"""JSON Schema: a configuration as `config:get` shows it, against one of the schemas of its place. Blocks."""

from __future__ import annotations

import re
import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.config import files, values
from ksi_daemon.errors import KsiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ksi_daemon.config.core import Place, Target
    from ksi_daemon.config.work import Codec

MOST: Final = 20
"""Faults that are told of one file."""

WIDTH: Final = 300
"""Characters of one fault: the library quotes the value that is wrong."""


def check(place: Place, codec: Codec, schema: Target, document: Any) -> tuple[str, tuple[str, ...]]:
    """The schema's path and what it finds wrong; no path if it cannot be used, and why in the faults."""
    try:
        with files.existing(place, schema) as found:
            loaded = codec.load(place, found, schema.format)
            path, rules = found.path, values.plain(loaded.document)
    except KsiError as error:
        return "", (_cut(f"Schema cannot be loaded: {error}"),)
    return _applied(path, rules, values.plain(document))


def _applied(path: str, rules: Any, document: Any) -> tuple[str, tuple[str, ...]]:
    # Here, not above: it costs a tenth of a second, and few ask for it.
    import jsonschema  # noqa: PLC0415
    import referencing.exceptions  # noqa: PLC0415
    from jsonschema_specifications import REGISTRY  # noqa: PLC0415

    try:
        kind = _dialect(rules)
        kind.check_schema(rules)
        # This registry has the dialects themselves and nothing that could fetch more.
        faults = _faults(kind(rules, registry=REGISTRY).iter_errors(document))
    except jsonschema.SchemaError as error:
        return "", (_cut(f"Schema is not valid: {error.message}"),)
    except referencing.exceptions.Unresolvable as error:
        return "", (_cut(f"Schema refers to what is not in it: {error}"),)
    except RecursionError:
        return "", ("Schema cannot be applied: it refers to itself without end",)
    except (ValueError, TypeError, AttributeError, ArithmeticError, re.error) as error:
        return "", (_cut(f"Schema cannot be applied: {type(error).__name__}: {error}"),)
    return path, faults


def _dialect(rules: Any) -> Any:
    """The validator that `$schema` names; the newest without one, or for one that nobody knows."""
    import jsonschema  # noqa: PLC0415
    from jsonschema.validators import validator_for  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # says that an unknown one will be an error
        return validator_for(rules, default=jsonschema.Draft202012Validator)


def _faults(errors: Iterator[Any]) -> tuple[str, ...]:
    return tuple(_cut(f"{error.json_path}: {error.message}") for error in islice(errors, MOST))


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
