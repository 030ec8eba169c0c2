"""Bytes on the wire and in append logs: one encoder, one decoder, strict about what JSON cannot say."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from ksi_daemon.errors import InvalidJson, InvalidRequest, KsiError, Unserialisable

_ONLY_DIGITS = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_LONG_NUMBER = b"0" * 19
"""Only such a run of digits can hold an integer beyond 64 bits, which orjson would round to a float."""

_OPTIONS = orjson.OPT_APPEND_NEWLINE


def utc_stamp(now: float) -> str:
    """Epoch seconds as `2025-07-12T20:00:00.123456Z`; no fraction when there are no microseconds."""
    microseconds = round(now * 1_000_000)
    second, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(second)}.{fraction:06d}Z" if fraction else f"{_second(second)}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]


def encode(value: Any) -> bytes:
    """One line of compact UTF-8 JSON. Sets become sorted lists. Raises `Unserialisable`."""
    try:
        return orjson.dumps(value, _plain, _OPTIONS)
    except orjson.JSONEncodeError as error:
        raise Unserialisable(f"not representable as JSON: {error}") from error


def decode(line: bytes) -> Any:
    """The value of one line. Raises `InvalidJson`; integers keep their value or are refused."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(str(error)) from None
    if _LONG_NUMBER in line.translate(_ONLY_DIGITS):
        _check_integers(line)
    return value


def decode_request(line: bytes) -> dict[str, Any]:
    """A line as a request object. Raises `InvalidJson`, `InvalidRequest`."""
    value = decode(line)
    if type(value) is not dict:
        raise InvalidRequest(f"a request is a JSON object, not {json_type(value)}")
    if not value.get("event"):
        raise InvalidRequest("Missing event name")
    _check_echo(value)
    return value


def reply(event: str, results: list[Any], correlation_id: Any, timestamp: float) -> bytes:
    """The reply to a request (the KSI contract, 1.4): one result as itself, several or none as an array."""
    return encode(
        {
            "event": event,
            "data": results[0] if len(results) == 1 else results,
            "count": len(results),
            "correlation_id": correlation_id,
            "timestamp": timestamp,
        }
    )


def framing_error(error: KsiError) -> bytes:
    """Error shape 1: the request is not known."""
    return encode({"error": str(error), **error.fields()})


def request_error(event: Any, error: KsiError, correlation_id: Any, timestamp: float) -> bytes:
    """Error shape 2: the request is known, but no handler answered it."""
    shape = {"event": event, "error": str(error), "correlation_id": correlation_id, "timestamp": timestamp}
    return encode({**shape, **error.fields()})


def json_type(value: object) -> str:
    """What JSON calls the type of a decoded value, for error messages."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _plain(value: object) -> list[Any]:
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"type {type(value).__name__}")


def _check_echo(request: dict[str, Any]) -> None:
    """What a reply repeats must fit into one: the encoder nests less deeply than the decoder."""
    for name in ("event", "correlation_id"):
        if isinstance(request.get(name), dict | list):
            try:
                encode(request[name])
            except Unserialisable:
                raise InvalidRequest(f"{name} is nested too deeply to be repeated in a reply") from None


def _check_integers(line: bytes) -> None:
    """Read again with integers of any size, and see whether they can be written: 10 ms for a MiB."""
    try:
        orjson.dumps(json.loads(line))
    except RecursionError:
        raise InvalidJson("nested too deeply") from None
    except orjson.JSONEncodeError as error:
        beyond = "64-bit" in str(error)
        raise InvalidJson("integer beyond 64 bits" if beyond else "nested too deeply") from None
    except ValueError as error:
        raise InvalidJson(str(error)) from None
