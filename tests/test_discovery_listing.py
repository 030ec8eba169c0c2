"""Events described on both sides: every style, every filter, help, modules, and what is refused."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from ksi_daemon.discovery.describe import LEGEND
from tests.discovery_trees import searched
from tests.rooms import SIDES

MODULE = "ksi_daemon.discovery.exercise"
STARTED = {"module": MODULE, "handler": "_answer", "async": True, "summary": "Tell of a start"}
PARAMETERS = {
    "name": {"type": "str", "required": True, "description": "who"},
    "kind": {
        "type": "Literal['a', 'b']",
        "required": False,
        "description": "which",
        "default": "a",
        "allowed_values": ["a", "b"],
    },
    "count": {
        "type": "int",
        "required": False,
        "description": "how many",
        "default": 1,
        "min_value": 1,
        "max_value": 9,
    },
    "tags": {"type": "list[str]", "required": False, "description": "words", "default": []},
}
TRIGGERS = ["app:none", "app:stopped"]
ROWS = [
    ["name", "str", True, None, "who"],
    ["kind", "Literal['a', 'b']", False, "a", "which"],
    ["count", "int", False, 1, "how many"],
    ["tags", "list[str]", False, [], "words"],
]
TOOL = {
    "name": "app:started",
    "description": "Tell of a start",
    "inputSchema": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "who"},
            "kind": {"type": "string", "description": "which", "default": "a", "enum": ["a", "b"]},
            "count": {"type": "integer", "description": "how many", "default": 1},
            "tags": {"type": "string", "description": "words", "default": []},
        },
        "required": ["name"],
    },
}
SHORT = {"m": "discovery.exercise", "h": "_answer", "s": "Tell of a start"}
NAMES = ["app:started", "app:stopped", "app:none", "plain", "app:*"]


@pytest.fixture(params=SIDES)
async def made(request, tmp_path):
    """The room over the tree that parity uses, at either side."""
    async with searched(tmp_path, request.param) as found:
        await found.send("discovery:search", pattern="x")  # so that either side was called
        yield found


STYLES: tuple[tuple[Any, dict[str, Any], dict[str, Any]], ...] = (
    ("verbose", STARTED, {"parameters": PARAMETERS, "triggers": TRIGGERS}),
    ("no such style", STARTED, {"parameters": PARAMETERS, "triggers": TRIGGERS}),
    (None, STARTED, {"parameters": PARAMETERS, "triggers": TRIGGERS}),
    ("compact", SHORT, {"p": ROWS, "t": TRIGGERS}),
    ("ultra_compact", SHORT, {"p": [1, [0, "a"], [0, 1], [0, []]], "t": TRIGGERS}),
    ("mcp", TOOL, {}),
)


async def test_every_style_has_the_shape_of_the_contract(made):
    """Parameters only with `detail`; an unknown style is verbose; the first handler describes."""
    for style, plain, more in STYLES:
        short = await made.send("system:discover", format_style=style)
        long = await made.send("system:discover", format_style=style, detail=True, event="app:started")

        assert short["events"]["app:started"] == plain
        assert long["events"] == {"app:started": {**plain, **more}}
        assert ("_legend" in short) == (style == "ultra_compact")
        assert long.get("_legend", LEGEND) == LEGEND
        assert (short["total"], short["namespaces"]) == (11, ["app", "discovery", "module", "system"])


async def test_short_styles_leave_out_what_is_empty(made):
    """No `t` without triggers; an event without documentation is said to be handled by its function."""
    found = (await made.send("system:discover", detail=True, format_style="compact"))["events"]

    assert found["app:none"] == {
        "m": "discovery.exercise",
        "h": "_answer",
        "s": "Handle _answer",
        "p": [["free", "Any", False, None, "anything"]],
    }
    tool = (await made.send("system:help", event="app:none", format_style="mcp"))["inputSchema"]
    assert tool == {
        "type": "object",
        "properties": {"free": {"type": "object", "description": "anything"}},
        "required": [],
    }


FILTERS: tuple[tuple[dict[str, Any], list[str]], ...] = (
    ({"namespace": "app"}, NAMES[:3] + NAMES[4:]),
    ({"namespace": "none"}, []),
    ({"event": "app:st*"}, ["app:started", "app:stopped"]),
    ({"event": "*:no?e"}, ["app:none"]),
    ({"event": "APP:*"}, []),
    ({"module": "searching"}, ["discovery:search"]),
    ({"module": MODULE}, NAMES),
    ({"module": "exercise", "namespace": "app", "event": "*ed"}, ["app:started", "app:stopped"]),
    ({"module": "exercise", "namespace": "system"}, []),
    ({"namespace": "app", "health": False, "event": None}, NAMES[:3] + NAMES[4:]),
)


async def test_filters_combine(made):
    """Namespace, shell-style pattern, module by its full name or last part; in registration order."""
    for filters, expected in FILTERS:
        found = await made.send("system:discover", **filters)

        assert list(found["events"]) == expected
        assert found["total"] == len(expected)
        assert found["namespaces"] == sorted({name.partition(":")[0] for name in expected if ":" in name})


async def test_verbose_help_is_the_description_with_examples_and_usage(made):
    """No `event` key; `usage` is a command that a shell takes, with JSON that the daemon takes."""
    found = await made.send("system:help", event="app:started")
    words = shlex.split(found["usage"]["command"])

    assert list(found) == [*STARTED, "parameters", "triggers", "examples", "usage"]
    assert {key: found[key] for key in STARTED} == STARTED
    assert [example["description"] for example in found["examples"]] == ["From again.py", "From emits.py"]
    assert (words[0], words[2:]) == ("echo", ["|", "nc", "-U", "var/run/daemon.sock"])
    assert json.loads(words[1]) == {"event": "app:started", "data": {"name": "<str>"}}


async def test_help_without_examples_shows_the_usage_instead(made):
    """The same object, as the only example."""
    found = await made.send("system:help", event="plain")

    assert found["examples"] == [found["usage"]]


async def test_the_other_styles_of_help(made):
    """Compact with its usage, mcp alone; help has no `ultra_compact`, so that is verbose."""
    shown = {}
    for style in ("compact", "mcp", "ultra_compact"):
        found = await made.send("system:help", event="app:started", format_style=style)
        shown[style] = found
        assert ("usage" in found, "examples" in found) == (style != "mcp", style == "ultra_compact")

    assert shown["compact"].pop("usage")["command"].startswith("echo ")
    assert shown["compact"] == {**SHORT, "p": ROWS, "t": TRIGGERS}
    assert shown["mcp"] == TOOL
    assert shown["ultra_compact"]["parameters"] == PARAMETERS


ERRORS: tuple[tuple[str, dict[str, Any], str, str], ...] = (
    ("system:help", {}, "event parameter required", "missing_parameter"),
    ("system:help", {"event": "no:such"}, "Event not found: no:such", "not_found"),
    ("system:help", {"event": 1}, "event must be a string, not int", "invalid_parameter"),
    ("module:inspect", {}, "Missing module_name parameter", "missing_parameter"),
    ("module:inspect", {"module_name": "no"}, "Module not found: no", "not_found"),
    ("module:inspect", {"module_name": 1}, "module_name must be a string, not int", "invalid_parameter"),
    (
        "system:discover",
        {"event": "[" * 201},
        "event must be a text of at most 200 characters, not str",
        "invalid_parameter",
    ),
    (
        "system:discover",
        {"event": ["a"]},
        "event must be a text of at most 200 characters, not list",
        "invalid_parameter",
    ),
)


async def test_errors_have_the_originals_texts(made):
    """With a code; a pattern of a MiB is refused, since compiling it would take the loop for minutes."""
    for event, data, text, code in ERRORS:
        assert await made.send(event, **data) == {"error": text, "code": code}


async def test_modules_are_listed_with_their_handlers(made):
    """Every module of a handler is there, and what it handles can be asked for."""
    found = await made.send("module:list")
    inspected = await made.send("module:inspect", module_name=MODULE)

    assert found["count"] == len(found["modules"]) == 3
    assert {"name": MODULE, "handlers": 6, "services": 1, "tasks": 0} in found["modules"]
    handlers = inspected["module"].pop("handlers")
    assert [handler["event"] for handler in handlers] == ["app:started", "app:started", *NAMES[1:]]
    assert handlers[0] == {
        "event": "app:started",
        "function": "_answer",
        "priority": 50,
        "async": True,
        "filter": None,
    }
    assert inspected["module"] == {
        "name": MODULE,
        "services": [],
        "background_tasks": [],
        "running_tasks": [],
        "stats": {},
    }


async def test_module_events_keeps_patterns_apart(made):
    """Direct events by name with all their handlers; a wildcard is no name."""
    found = await made.send("module:events")
    handler = {"function": "_answer", "priority": 50, "async": True, "module": MODULE}

    assert found["events"]["app:started"] == [handler, handler]
    assert found["patterns"] == [{**handler, "pattern": "app:*"}]
    assert (found["total_events"], found["total_patterns"]) == (10, 1)


async def test_it_keeps_nothing_in_memory(made):
    """What was found belongs to the side that found it."""
    assert made.service.memory() == {}
