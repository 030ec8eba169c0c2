"""Events to handlers: wildcards, handlers of one event together, errors as results, unknown names."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from ksi_daemon import router
from ksi_daemon.errors import InvalidParameter, KsiError, MissingParameter, NotFound
from ksi_daemon.router import Event, Router


def answering(result: Any) -> Any:
    """A handler that returns `result`, or raises it."""

    async def handler(_data: Any, _client: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    return handler


def routed(*events: tuple[str, Any], verbosity: str = "medium") -> Router:
    """A router with a handler for each pair of event and result."""
    found = Router(verbosity)
    found.add(Event(name, answering(result), "a summary") for name, result in events)
    return found


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "a:b:c", True),
        ("*", "plain", True),
        ("a:*", "a:b", True),
        ("a:*", "a:b:c", False),
        ("*:b", "a:b", True),
        ("a:*:c", "a:b:c", True),
        ("a:b*", "a:bc", False),
        ("a:b*", "a:b*", True),
        ("*:*", "a", False),
    ],
)
def test_a_wildcard_is_a_whole_part(pattern: str, name: str, expected: bool) -> None:
    """`*` stands for everything or for one whole part; the number of parts is equal."""
    assert router.matches(pattern, name) is expected


async def test_patterns_answer_after_direct_handlers() -> None:
    """A pattern's handlers run for every matching event, and their results come last."""
    found = routed(("a:*", "wild"), ("a:b", "direct"), ("*", "any"))

    assert await found.emit("a:b", {}) == ["direct", "wild", "any"]
    assert await found.emit("a:c", {}) == ["wild", "any"]
    assert await found.emit("x", {}) == ["any"]
    assert [event.name for event in found.patterns()] == ["a:*", "*"]
    assert [event.name for event in found.events()] == ["a:b", "a:*", "*"]


async def test_handlers_of_one_event_run_together() -> None:
    """Each waits for the other, so only together can they end; results keep the registration order."""
    met = asyncio.Barrier(2)

    async def first(_data: Any, _client: Any) -> Any:
        await met.wait()
        await asyncio.sleep(0.01)
        return 1

    async def second(_data: Any, _client: Any) -> Any:
        await met.wait()
        return 2

    found = Router()
    found.add([Event("e", first, ""), Event("e", second, "")])

    assert await asyncio.wait_for(found.emit("e", {}), 5) == [1, 2]


@pytest.mark.parametrize(
    ("results", "expected"),
    [((None,), []), ((1,), [1]), ((None, 2, None), [2]), ((False, 0, ""), [False, 0, ""])],
)
async def test_only_none_is_left_out(results: tuple[Any, ...], expected: list[Any]) -> None:
    """None means no answer; other empty values are answers."""
    found = routed(*(("e", result) for result in results))

    assert await found.emit("e", {}) == expected


async def test_one_handler_that_fails_is_left_out() -> None:
    """When another answers its result stands; when all fail the first error does."""
    some = routed(("e", NotFound("first")), ("e", "fine"))
    none = routed(("e", NotFound("first")), ("e", ValueError("second")))

    assert await some.emit("e", {}) == ["fine"]
    assert await none.emit("e", {}) == [{"error": "first", "code": "not_found"}]


async def test_a_handler_without_an_answer_has_not_failed() -> None:
    """An error counts only when all handlers fail; one that returns None has not."""
    found = routed(("e", NotFound("first")), ("e", None))

    assert await found.emit("e", {}) == []


@pytest.mark.parametrize(
    ("verbosity", "details"),
    [("minimal", None), ("medium", None), ("verbose", {"help": "Use: help e"})],
)
async def test_an_unexpected_exception_names_its_class(verbosity: str, details: Any) -> None:
    """The text is the real fault, with its class; only `verbose` adds help."""
    found = routed(("e", AttributeError("'str' object has no attribute 'get'")), verbosity=verbosity)

    (error,) = await found.emit("e", {})

    assert error["error"] == "AttributeError: 'str' object has no attribute 'get'"
    assert (error["status"], error["code"], error.get("details")) == ("error", "handler_failed", details)


async def test_an_unknown_event_gets_suggestions() -> None:
    """Up to three similar names and the namespaces, as the original told."""
    found = routed(("system:health", 1), ("system:help", 1), ("message:publish", 1), ("plain", 1))

    assert await found.emit("system:healht", {}) == [
        {
            "status": "error",
            "error": "Unknown event: system:healht",
            "code": "unknown_event",
            "details": {"similar": ["system:health", "system:help"], "namespaces": ["message", "system"]},
        }
    ]


@pytest.mark.parametrize(("verbosity", "keys"), [("minimal", set()), ("medium", {"namespaces"})])
async def test_details_are_left_out_when_there_are_none(verbosity: str, keys: set[str]) -> None:
    """Nothing similar is no key; `minimal` leaves the namespaces out too."""
    (error,) = await routed(("system:health", 1), verbosity=verbosity).emit("zzz", {})

    assert set(error.get("details", {})) == keys
    assert ("details" in error) is bool(keys)


async def test_an_unknown_name_of_a_mebibyte_costs_nothing() -> None:
    """No similar names are looked for: that would hold the loop up for every client."""
    found = routed(*((f"system:event{n}", 1) for n in range(50)))
    name = "abcdefghij" * 100_000
    began = time.perf_counter()

    (error,) = await found.emit(name, {})

    assert time.perf_counter() - began < 0.05
    assert error["error"] == f"Unknown event: {name}"


def test_an_event_knows_its_handler() -> None:
    """Module and function are the handler's; an object that is called has its class's name."""

    class Answer:
        async def __call__(self, _data: Any, _client: Any) -> Any:
            return None

    assert Event("e", answering(1), "").function == "handler"
    assert Event("e", answering(1), "").module == __name__
    assert Event("e", Answer(), "").function == "Answer"


@pytest.mark.parametrize(
    ("call", "value", "expected"),
    [
        (router.text, "x", "x"),
        (router.texts, ["a", "b"], ["a", "b"]),
        (router.texts, None, []),
        (router.obj, {"k": 1}, {"k": 1}),
    ],
)
def test_parameters_of_the_right_type_are_taken(call: Any, value: Any, expected: Any) -> None:
    """A string, a list of strings (absent is empty) and an object come back as they are."""
    assert call({"name": value}, "name") == expected


def test_absent_optional_parameters_are_empty() -> None:
    """A list or an object that is not given is empty."""
    assert (router.texts({}, "name"), router.obj({}, "name")) == ([], {})


@pytest.mark.parametrize(
    ("call", "value", "error", "text"),
    [
        (router.text, None, MissingParameter, "name required"),
        (router.text, "", MissingParameter, "name required"),
        (router.text, 5, InvalidParameter, "name must be a string, not int"),
        (router.texts, "ab", InvalidParameter, "name must be a list of strings, not str"),
        (router.texts, [1], InvalidParameter, "name must be a list of strings, not list"),
        (router.obj, None, InvalidParameter, "name must be an object, not NoneType"),
        (router.obj, [], InvalidParameter, "name must be an object, not list"),
    ],
)
def test_other_parameters_are_refused_by_name(
    call: Any, value: Any, error: type[KsiError], text: str
) -> None:
    """The message says which parameter, what it must be and what it was."""
    with pytest.raises(error, match=f"^{text}$"):
        call({"name": value}, "name")
