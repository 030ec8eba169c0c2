"""The steps with which the room is tried on either side; the way back, and what is hostile, lie beside."""

from __future__ import annotations

import json
from typing import Any

from ksi_daemon.config import exercise_backups, exercise_hostile
from ksi_daemon.exercise import Case, Exercise, Step

_FILE = "ksi_daemon.yaml"


def _set(key: str, value: Any, **more: Any) -> Step:
    return Step("config:set", {"key": key, "value": value, **more})


def _get(key: str = "*", **more: Any) -> Step:
    return Step("config:get", {"key": key, **more})


def _backup(**more: Any) -> Step:
    return Step("config:backup", {"config_type": "daemon", **more})


def _back(**more: Any) -> Step:
    return Step("config:rollback", {"config_type": "daemon", **more})


def _validate(**more: Any) -> Step:
    return Step("config:validate", more)


_STORED = b"""\
# the daemon
daemon:
  log_level: INFO   # not yet
  'quoted': "yes"
  numbers: [1, 2.5, 0x1f, 1e3, 1:30, 10000000000000000000000]
  dates: {day: 2025-07-12, time: 2025-07-12T17:06:40.5Z}
  none: ~
list:
- a
- {b: c}
1: a number
true: a truth
text: |
  two
  lines
"""
_UTF8 = "name: na\u00efve \u2603 \U0001f600\nother: \u00e9\n".encode()
_ODD = b"""\
set: !!set {b, a}
bytes: !!binary aGVsbG8=
nan: .nan
inf: [.inf, -.inf]
pairs: !!pairs [a: 1, a: 2]
omap: !!omap [a: 1, b: 2]
base: &base {a: 1, b: 2}
merged: {<<: *base, b: 3}
again: *base
? [a, b]
: 1
"""
_ALIASED = b"base: &base {a: 1, b: 2}\nmerged: {<<: *base, b: 3}\nagain: *base\n"
_COMPOSITION = b"name: x\ntype: y\ncomponents: []\n"
_SCHEMA = json.dumps({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}})

_CASES = (
    # The first case goes before many a trial, so it is short and only writes
    Case("set", (_set("daemon.log_level", "DEBUG"), _set("daemon.x.y", [1, {"b": "\u00e9"}]))),
    Case(
        "a stored file",
        (
            _get(),
            _get("daemon.log_level"),
            _get("daemon.dates"),
            _get("daemon.numbers"),
            _get("list.0"),
            _get("1"),
            _get("nothing"),
            _get("daemon.log_level.deeper"),
            _set("daemon.log_level", "ERROR"),
            _set("new.deep.key", {"a": [1, 2.5, None, True, "x", {}]}),
            _set("list", "no list any more"),
            _set("text.key", 1),
            _set("text.key.deeper", 1),
            _get(),
            _set("*", {"all": "new"}),
            _set("*", ["no", "object"]),
            _get(),
            Step("@restart"),
            _get("all"),
        ),
        files={_FILE: _STORED},
    ),
    Case(
        "values of every kind",
        (
            _set("text", "na\u00efve \u2603 \u2028 \x00 \x1b \n \x7f " + "word " * 40),
            _set(
                "words",
                ["yes", "no", "null", "~", "1", "1.5", "1e3", "2025-07-12", "", " ", "a: b", "- a", "#"],
            ),
            _set("numbers", [18446744073709551615, -9223372036854775808, 5e-324, 1e300, 1e16, -0.0, 1.0]),
            _set("none", [False, True, 0, "", [], {}]),
            _set("nested", {"": {"": [[], [[]], {}, [{}]]}}),
            _set("k" * 130, {"a b": 1, "c:d": 2, "-": 3, "\u00e9": 4}),
            _get(),
            _get("numbers"),
            _validate(),
            _set("false", value=False, create_backup=False),
            _get("k" * 130),
        ),
    ),
    Case(
        "what JSON cannot carry",
        (
            _get(file_path="utf8.yaml"),
            _set("more", 1, file_path="utf8.yaml"),
            _get(file_path="odd.yaml"),
            _get(file_path="aliased.yaml"),
            _set("base.a", 5, file_path="aliased.yaml"),
            _set("merged.c", 6, file_path="aliased.yaml"),
            _get(file_path="aliased.yaml"),
        ),
        files={
            "utf8.yaml": _UTF8,
            "odd.yaml": _ODD.replace(b"? [a, b]\n: 1\n", b""),
            "aliased.yaml": _ALIASED,
        },
    ),
    Case(
        "every type",
        (
            _get(config_type="capabilities"),
            _set("a.b", 1, config_type="capabilities"),
            _get(config_type="capabilities", key="a"),
            *(_get(config_type=kind) for kind in ("composition", "fragment", "schema", "nonsense")),
            _set("name", "x", config_type="composition", file_path="deep/er/x.yaml"),
            _validate(config_type="composition", file_path="deep/er/x.yaml"),
            _validate(config_type="composition", file_path="whole.yaml"),
            _validate(config_type="composition", file_path="list.yaml"),
            _get(config_type="fragment", file_path="text.md"),
            _get(config_type="fragment", file_path="text.md", key="a"),
            _set("a.b", 1, config_type="fragment", file_path="text.md"),
            _set("a.b", 1, config_type="fragment", file_path="new.md"),
            _set("*", {"a": {"b": 1}}, config_type="fragment", file_path="text.md"),
            _get(config_type="fragment", file_path="text.md"),
            _set("a.b", "\u00e9", config_type="schema", file_path="new.json"),
            _get("a", config_type="schema", file_path="new.json"),
            _validate(config_type="schema", file_path="new.json"),
            _get(file_path="logging.yaml"),
            _get(file_path="no/such/logging.yaml"),
        ),
        files={
            "var/lib/compositions/whole.yaml": _COMPOSITION,
            "var/lib/compositions/list.yaml": b"- name\n",
            "var/lib/compositions/fragments/text.md": "# fragm\u00ebnt\r\n: {\n".encode(),
        },
    ),
    Case(
        "schemas",
        (
            _set("name", "x"),
            _validate(schema_path="s.json"),
            _set("name", 5),
            _validate(schema_path="s.json"),
            _validate(schema_path="s.yaml"),
            *(
                _validate(schema_path=name)
                for name in (
                    "none.json",
                    "broken.json",
                    "wrong.json",
                    "remote.json",
                    "round.json",
                    "../x",
                    "list.json",
                )
            ),
            _validate(file_path="none.yaml", schema_path="s.json"),
            _validate(file_path="no/such/none.yaml"),
        ),
        files={
            "var/lib/schemas/s.json": _SCHEMA.encode(),
            "var/lib/schemas/s.yaml": b"type: object\nproperties:\n  name: {type: integer}\n",
            "var/lib/schemas/broken.json": b"{",
            "var/lib/schemas/wrong.json": b'{"type": 5}',
            "var/lib/schemas/list.json": b"[]",
            "var/lib/schemas/remote.json": b'{"$ref": "http://127.0.0.1:9/schema.json"}',
            "var/lib/schemas/round.json": b'{"$ref": "#"}',
        },
    ),
    Case(
        "the file in trouble",
        (
            _set("a", 1),
            Step("@block"),
            _get(),
            _set("a", 2),
            _validate(),
            _backup(),
            _back(),
            Step("@unblock"),
            _set("a", 3),
            Step("@tear"),
            _get(),
            _set("a", 4),
            Step("@rotate"),
            _get(),
            _set("a", 5),
            Step("@remove"),
            _set("b", 6),
            _get(),
        ),
    ),
    Case(
        "runtime settings",
        (
            Step("runtime:config:get"),
            Step("runtime:config:query"),
            *(
                Step("runtime:config:set", {"key": key, "value": value})
                for key, value in (
                    ("log_level", "DEBUG"),
                    ("log_level", "LOUD"),
                    ("error_verbosity", "verbose"),
                    ("completion_timeout_default", 60),
                    ("completion_timeout_default", 59),
                    ("completion_timeout_default", True),
                    ("nonsense", 1),
                )
            ),
            *(
                Step(f"runtime:config:{what}", {"key": key})
                for what in ("get", "query", "reset")
                for key in ("log_level", "nonsense")
            ),
            Step("runtime:config:get"),
            Step("runtime:config:reset"),
            Step("runtime:config:get", {"key": "error_verbosity"}),
            *(Step("config:reload", {"component": part}) for part in ("daemon", "all", "nonsense", None)),
        ),
    ),
)

EXERCISE = Exercise(
    files=(_FILE,),
    cases=(*_CASES, *exercise_backups.CASES, *exercise_hostile.CASES),
    writes=(_set("daemon.name", "first"), _set("daemon.name", "second, and longer")),
)
