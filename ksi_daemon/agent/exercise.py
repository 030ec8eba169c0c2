"""The steps with which the room is tried on either side: those of identities; the agents' lie beside."""

from __future__ import annotations

import json
from typing import Any

from ksi_daemon.agent import exercise_agents
from ksi_daemon.exercise import Case, Exercise, Step

_FILE = "var/db/identities.json"


def _create(agent: str | None, **identity: Any) -> Step:
    named = {} if agent is None else {"agent_id": agent}
    return Step("agent:create_identity", {**named, "identity": identity})


def _update(agent: str, **updates: Any) -> Step:
    return Step("agent:update_identity", {"agent_id": agent, "updates": updates})


def _remove(agent: str) -> Step:
    return Step("agent:remove_identity", {"agent_id": agent})


def _get(agent: str) -> Step:
    return Step("agent:get_identity", {"agent_id": agent})


def _restore(**state: Any) -> Step:
    return Step("checkpoint:restore", {"agent_state": state})


_LIST = Step("agent:list_identities")
_COLLECT = Step("checkpoint:collect")
_HOSTILE = ("../x", "a/b", ".", "-rf", "x" * 300, "Coder", "é", "e\u0301", "nul\x00", '"\\\n', "\U0001f600")
_STORED = json.dumps(
    {
        "coder": {"agent_id": "coder", "created_at": "2025-07-01T00:00:00Z", "name": "Cody"},
        "odd": ["no", "object"],
        "none": None,
        "bare": {},
    },
    indent=2,
).encode()

_CASES = (
    Case(
        "created, changed, shown and removed",
        (
            _create("coder", name="Cody", role="developer"),
            _create("tester"),
            _create(None, name="nobody"),
            Step("agent:create_identity"),
            _create("coder", name="Cody the second"),
            _update("coder", role="reviewer", tags=["a", {"b": [1, 2.5, None, True]}]),
            Step("agent:update_identity", {"agent_id": "coder", "identity": {"name": "documented", "by": 1}}),
            Step(
                "agent:update_identity",
                {"agent_id": "coder", "identity": {"by": 2, "more": 3}, "updates": {"by": 4}},
            ),
            Step("agent:update_identity", {"agent_id": "tester"}),
            _get("coder"),
            _LIST,
            _remove("tester"),
            _LIST,
            Step("@restart"),
            _LIST,
            _get("coder"),
        ),
    ),
    Case(
        "given keys win over ours, but for the time of the change",
        (
            _create("forger", agent_id="root", created_at="never", updated_at=0, name=None),
            _update("forger", agent_id="again", updated_at="never"),
            _get("forger"),
            _LIST,
        ),
    ),
    Case(
        "requests for identities refused",
        (
            _create("coder", name="Cody"),
            *(Step(f"agent:{what}_identity") for what in ("update", "remove", "get")),
            *(Step(f"agent:{what}_identity", {"agent_id": "ghost"}) for what in ("update", "remove", "get")),
            *(
                Step(f"agent:{what}_identity", {"agent_id": 5})
                for what in ("create", "update", "remove", "get")
            ),
            Step("agent:create_identity", {"agent_id": "x" * 1001}),
            Step("agent:create_identity", {"agent_id": "coder", "identity": "text"}),
            Step("agent:update_identity", {"agent_id": "coder", "updates": ["text"]}),
            Step("agent:update_identity", {"agent_id": "coder", "identity": 5}),
            _get("coder"),
        ),
    ),
    Case(
        "ids of every kind",
        (
            *(_create(agent, name=agent) for agent in _HOSTILE),
            *(_update(agent, seen=True) for agent in _HOSTILE),
            _LIST,
            Step("@restart"),
            _LIST,
            *(_remove(agent) for agent in _HOSTILE),
            _LIST,
        ),
    ),
    Case(
        "values of every kind",
        (
            _create("text", text="naïve ☃ \u2028 \x00 \x1b[31m \n \x7f", empty="", key={"": {"é": "ö"}}),
            _create("numbers", big=18446744073709551615, small=-9223372036854775808, tiny=5e-324, huge=1e300),
            _create("none", nothing=None, yes=True, no=False, zero=0, minus=-0.0, one=1.0),
            _create("nested", lists=[[], [[]], {}, [{}]], deep={"a": {"b": {"c": {}}}}),
            _create("long", text="x" * 70_000),
            _get("numbers"),
            Step("@restart"),
            _get("text"),
            _get("none"),
        ),
    ),
    Case(
        "a stored file",
        (
            _LIST,
            _get("odd"),
            _update("odd", name="an object now"),
            _update("coder", role="developer"),
            _create("new"),
            _remove("bare"),
            _create("bare", name="last"),
            _COLLECT,
        ),
        files={_FILE: _STORED},
    ),
    Case(
        "a stored file that cannot be understood",
        (
            _LIST,
            _create("coder"),
            Step("@tear"),
            Step("@restart"),
            _LIST,
            _create("tester"),
            Step("@restart"),
            _LIST,
        ),
        files={_FILE: b'{"coder": {"agent_id"'},
    ),
    Case(
        "a stored file that is empty",
        (_LIST, Step("agent:update_identity", {"agent_id": "coder"}), _create("coder")),
        files={_FILE: b""},
    ),
    Case(
        "the file in trouble",
        (
            _create("coder", name="Cody"),
            Step("@block"),
            _create("lost", name="not kept"),
            _update("coder", name="not kept"),
            _remove("coder"),
            _restore(identities={"other": {}}),
            _LIST,
            _get("lost"),
            Step("@unblock"),
            _update("coder", name="kept"),
            Step("@rotate"),
            _create("tester"),
            Step("@remove"),
            _update("tester", name="kept"),
            Step("@restart"),
            _LIST,
        ),
    ),
    Case(
        "a file that cannot be read at start",
        (
            Step("@block"),
            Step("@restart"),
            _LIST,
            _get("coder"),
            _create("tester"),
            _COLLECT,
            _restore(identities={"other": {}}),
            Step("@unblock"),
            _update("coder", role="developer"),
            _LIST,
        ),
        files={_FILE: _STORED},
    ),
    Case(
        "a checkpoint",
        (
            _create("coder", name="Cody"),
            _create("tester", name="Tess"),
            _COLLECT,
            _restore(identities={"tester": {"name": "other"}, "new": {"name": "new"}}),
            _LIST,
            _restore(),
            Step("checkpoint:restore"),
            Step("checkpoint:restore", {"identities": {}}),
            _restore(identities={"coder": "text"}),
            _restore(identities=["coder"]),
            _restore(agents={"coder": 5}, identities={"gone": {}}),
            _LIST,
            Step("checkpoint:restore", {"identities": {"top": {"name": "level"}}}),
            Step("@restart"),
            _COLLECT,
        ),
    ),
)

EXERCISE = Exercise(
    files=(_FILE,),
    cases=(*_CASES, *exercise_agents.CASES),
    writes=(_create("coder", name="first"), _update("coder", name="second, and longer", role="developer")),
    neighbours=exercise_agents.neighbours,
)
