"""Steps with paths that lead elsewhere, and with files that are made to do harm."""

from __future__ import annotations

from typing import Any

from ksi_daemon.exercise import Case, Step

_FILE = "ksi_daemon.yaml"
_DEEP = 400  # over the limit, and three frames a level are over the interpreter's own
AT_ONCE = 8


def _bomb(levels: int) -> bytes:
    """Nine aliases of what is above, on each level."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


def _merge_bomb(levels: int) -> bytes:
    lines = ["a0: &a0 {a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7, h: 8}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, levels)]
    return "\n".join(lines).encode()


HOSTILE = {
    "empty.yaml": b"",
    "comment.yaml": b"# nothing\n",
    "scalar.yaml": b"just text\n",
    "list.yaml": b"- a\n",
    "two.yaml": b"a: 1\n---\nb: 2\n",
    "broken.yaml": b"a: [1, 2\nb: }\n",
    "indent.yaml": b"a:\n   b: 1\n  c: 2\n",
    "tab.yaml": b"a:\n\tb: 1\n",
    "tag.yaml": b"a: !!python/object/apply:os.system [id]\n",
    "unknown_tag.yaml": b"a: !mine b\n",
    "flow.yaml": b"[" * _DEEP,
    "block.yaml": b"".join(b" " * n + b"a:\n" for n in range(300)),
    "dashes.yaml": b"- " * _DEEP + b"a\n",
    "braces.yaml": b"{a: " * _DEEP,
    "hundred.yaml": b"[" * 100 + b"]" * 100,
    "hundred_and_one.yaml": b"[" * 101 + b"]" * 101,
    "bomb.yaml": _bomb(9),
    "merge.yaml": _merge_bomb(9),
    "itself.yaml": b"a: &a [*a]\n",
    "twice.yaml": b"a: 1\na: 2\n",
    "latin.yaml": b"a: \xe9\n",
    "nul.yaml": b"a: \x00\n",
    "bell.yaml": b"a: \x07\n",
    "bom.yaml": b"\xef\xbb\xbfa: 1\n",
    "utf16.yaml": "a: 1\n".encode("utf-16"),
    "crlf.yaml": b"a: 1\r\nb: 2\r\n",
    "month.yaml": b"a: 2001-99-99\n",
    "int.yaml": b'a: !!int ""\n',
    "float.yaml": b"a: !!float x\n",
    "stamp.yaml": b"a: !!timestamp x\n",
    "bool.yaml": b"a: !!bool x\n",
    "digits.yaml": b"a: " + b"9" * 5_000 + b"\n",
    "key.yaml": b"? {a: 1}\n: b\n",
    "surrogate.yaml": b'a: "\\ud800"\n',
    "off.yaml": b"a: off\nb: 1e3\nc: 1:30\nd: =\n",
    "anchor.yaml": b"a: *nowhere\n",
    "header.yaml": b"a: |#\n b\n",
    "broken.json": b'{"a": ',
    "bom.json": b"\xef\xbb\xbf{}",
    "deep.json": b"[" * 100_000,
    "deepish.json": b"[" * 101 + b"]" * 101,
    "nan.json": b'{"a": [NaN, Infinity], "b": 1e999}',
    "digits.json": b'{"a": ' + b"9" * 5_000 + b"}",
    "twice.json": b'{"a": 1, "a": 2}',
}
"""File name → content; each is read, set and validated."""

PATHS = (
    "../outside.yaml",
    "a/../../outside.yaml",
    "/etc/hostname",
    "/proc/self/mem",
    "/",
    "..",
    ".",
    "a/",
    "~",
    "~root/x.yaml",
    "nul\x00.yaml",
    "n" * 256,
    "a/" * 3_000 + "x",
    "ksi_daemon.yaml/x.yaml",
)
"""Paths that lead nowhere that a request may go; one is a plain file name that looks like a home."""

GUARDED = (
    "flags.yaml",
    "a/../flags.yaml",
    "var/db/identities.json",
    "var/logs/x.yaml",
    "var/x.yaml",
    "var/lib/../x.yaml",
    "var/migrate/state.json",
    ".env",
    ".config.00000000.0123456789abcdef.tmp",
)
"""Paths that no request writes, but one may read."""


def _step(what: str, path: str, **more: Any) -> Step:
    return Step(f"config:{what}", {"config_type": "daemon", "file_path": path, **more})


def _hostile(first: int) -> Case:
    """Some of the files: each step looks at all of a case's."""
    names = list(HOSTILE)[first : first + AT_ONCE]
    steps = [
        step
        for name in names
        for step in (
            _step("get", name, key="*"),
            _step("set", name, key="b", value=2),
            _step("validate", name),
        )
    ]
    files = {name: HOSTILE[name] for name in names}
    return Case(f"hostile files from {names[0]} on", tuple(steps), files)


CASES = (
    *(_hostile(first) for first in range(0, len(HOSTILE), AT_ONCE)),
    Case(
        "paths that lead elsewhere",
        (
            *(_step("get", path, key="*") for path in PATHS),
            *(_step("set", path, key="a", value=1) for path in PATHS),
            *(_step("backup", path) for path in PATHS),
            *(_step("rollback", path) for path in PATHS),
            *(_step("validate", path) for path in PATHS),
            *(_step("set", path, key="a", value=1) for path in GUARDED),
            *(_step("rollback", path) for path in GUARDED),
            _step("get", "flags.yaml", key="*"),
            _step("set", "var/lib/x.yaml", key="a", value=1),
        ),
        files={_FILE: b"a: 1\n", "flags.yaml": b"version: 1\n", "a/x.yaml": b"a: 1\n"},
    ),
    Case(
        "requests refused",
        (
            Step("config:get"),
            Step("config:get", {"key": 5}),
            Step("config:get", {"key": "a", "config_type": 5}),
            Step("config:get", {"key": "a", "file_path": ["x"]}),
            Step("config:get", {"key": "a"}),
            Step("config:set", {"key": "a"}),
            Step("config:set", {"key": "a", "value": None}),
            Step("config:set", {"key": "", "value": 1}),
            Step("config:set", {"key": "*", "value": 1}),
            Step("config:set", {"key": "a", "value": 1, "create_backup": "yes"}),
            Step("config:set", {"key": "a", "value": 1, "config_type": "composition"}),
            Step(
                "config:set",
                {"key": "*", "value": 1, "config_type": "composition", "file_path": "new/x.yaml"},
            ),
            Step(
                "config:set", {"key": "a", "value": 1, "config_type": "composition", "file_path": "../x.yaml"}
            ),
            Step("config:set", {"key": "a", "value": _DEEP * ["x"]}),
            Step("config:set", {"key": ".".join("a" * 101), "value": 1}),
            Step("config:validate", {"schema_path": 5}),
            Step("config:reload", {"component": 5}),
            Step("config:backup"),
            Step("config:rollback", {"config_type": "nonsense"}),
        ),
    ),
)
