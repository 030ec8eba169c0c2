"""Configuration on both sides: the replies and errors of the KSI contract, 3.5, and what they leave."""

from __future__ import annotations

import json

import pytest

from ksi_daemon.config import AREA
from ksi_daemon.router import Event
from tests.configs import BACKUPS, FILE, ask, below, dumped, get, kept, lay, put, root_of
from tests.rooms import SIDES, room

COMPOSITION = {"config_type": "composition"}
NO_OBJECT = "Value must be dict when setting entire config"
NO_FLAG = "create_backup must be true or false, not str"
OUTSIDE = "File path outside allowed directory: ../x"


@pytest.fixture(params=SIDES)
async def config(request, tmp_path):
    """The room on either side."""
    async with room(AREA, request.param, tmp_path) as made:
        yield made


async def test_a_value_is_set_and_shown(config):
    """The reply of each, with the absolute path; the file has the bytes of PyYAML, 0600."""
    path = str(root_of(config) / FILE)
    first = await put(config, "daemon.log_level", "DEBUG")
    second = await put(config, "daemon.x.y", [1, {"b": "é"}])

    assert first == {"status": "set", "key": "daemon.log_level", "config_type": "daemon", "file_path": path}
    assert second["backup"] == "ksi_daemon.yaml_20250712_170640"
    assert (
        config.path.read_bytes() == b'daemon:\n  log_level: DEBUG\n  x:\n    y:\n    - 1\n    - b: "\\xE9"\n'
    )
    assert config.path.stat().st_mode & 0o7777 == 0o600
    assert await get(config, "daemon.x") == {
        "key": "daemon.x",
        "value": {"y": [1, {"b": "é"}]},
        "config_type": "daemon",
        "file_path": path,
        "format": "yaml",
    }


async def test_a_stored_file_keeps_its_mode(config):
    """What the operator gave others stays given."""
    lay(root_of(config), {FILE: b"a: 1\n"})
    config.path.chmod(0o640)
    await put(config, "a", 2)

    assert config.path.stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize(
    ("data", "error", "code"),
    [
        ({}, "Key is required", "missing_parameter"),
        ({"key": ""}, "Key is required", "missing_parameter"),
        ({"key": 5}, "key must be a string, not int", "invalid_parameter"),
        ({"key": "a", "config_type": "x"}, "Unknown config type: x", "invalid_parameter"),
        ({"key": "a", "file_path": "../x"}, "File path outside allowed directory: ../x", "path_refused"),
        (
            {"key": "a", "config_type": "schema"},
            "No default file for config type schema, file_path required",
            "missing_parameter",
        ),
        ({"key": "a"}, "Configuration file does not exist", "not_found"),
        ({"key": "a", "file_path": "no/such.yaml"}, "Configuration file does not exist", "not_found"),
        ({"key": "b", "file_path": "good.yaml"}, "Key not found: b", "not_found"),
        ({"key": "a.b", "file_path": "good.yaml"}, "Key not found: a.b", "not_found"),
        ({"key": "list.0", "file_path": "good.yaml"}, "Key not found: list.0", "not_found"),
    ],
)
async def test_a_get_is_refused(config, data, error, code):
    """With the original's text and a code."""
    lay(root_of(config), {"good.yaml": b"a: 1\nlist: [1]\n"})

    assert await ask(config, "get", **data) == {"error": error, "code": code}


@pytest.mark.parametrize(
    ("key", "value", "more", "error", "code"),
    [
        (None, 1, {}, "Key is required", "missing_parameter"),
        ("a", None, {}, "Value is required", "missing_parameter"),
        ("*", [1], {}, NO_OBJECT, "invalid_parameter"),
        ("*", 1, {**COMPOSITION, "file_path": "new/x.yaml"}, NO_OBJECT, "invalid_parameter"),
        ("a.b", 1, {}, "Cannot set key in non-dict value", "invalid_parameter"),
        ("a.b.c", 1, {}, "Cannot set nested key in non-dict value at b", "invalid_parameter"),
        ("a", 1, {"file_path": "empty.yaml"}, "Cannot set key in non-dict value", "invalid_parameter"),
        ("a", 1, {"create_backup": "no"}, NO_FLAG, "invalid_parameter"),
        ("a", 1, {**COMPOSITION, "file_path": "../x"}, OUTSIDE, "path_refused"),
    ],
)
async def test_a_set_is_refused_and_leaves_nothing(config, key, value, more, error, code):
    """No change, no backup, no directory: the key is checked before anything is written."""
    lay(root_of(config), {FILE: b"a: 1\n", "empty.yaml": b""})
    (root_of(config) / "var/migrate/locks").mkdir(parents=True)
    before = sorted(root_of(config).rglob("*"))

    assert await put(config, key, value, **more) == {"error": error, "code": code}
    assert [path for path in sorted(root_of(config).rglob("*")) if path.parent.name != "locks"] == before


async def test_false_is_a_value_and_a_backup_can_be_left_out(config):
    """`value` false is accepted; with `create_backup` false nothing is kept."""
    await put(config, "a", 1)
    reply = await put(config, "a", value=False, create_backup=False)

    assert "backup" not in reply
    assert (await get(config, "a"))["value"] is False
    assert kept(root_of(config)) == {}


async def test_everything_can_be_set_at_once(config):
    """`*` takes an object, also over a file that holds none."""
    lay(root_of(config), {FILE: b""})
    await put(config, "*", {"all": {"new": 1}})

    assert (await get(config))["value"] == {"all": {"new": 1}}


async def test_every_type_has_its_place(config):
    """Directory, default file and format of the five types; JSON where the file says so."""
    root = root_of(config)
    lay(root, {"var/lib/compositions/fragments/text.md": "# é\r\n".encode()})
    placed = {}
    for kind, path in (
        ("daemon", "x.json"),
        ("composition", "x.yaml"),
        ("fragment", "x.md"),
        ("schema", "x.json"),
        ("capabilities", None),
    ):
        named = {} if path is None else {"file_path": path}
        reply = await put(config, "a.b", "é", config_type=kind, **named)
        placed[kind] = reply["file_path"].removeprefix(f"{root}/")
        assert (await get(config, config_type=kind, **named))["format"] == {"fragment": "mixed"}.get(
            kind, "json" if path and path.endswith(".json") else "yaml"
        )

    assert placed == {
        "daemon": "x.json",
        "composition": "var/lib/compositions/x.yaml",
        "fragment": "var/lib/compositions/fragments/x.md",
        "schema": "var/lib/schemas/x.json",
        "capabilities": "var/lib/capabilities/ksi_capabilities.yaml",
    }
    assert (root / placed["fragment"]).read_text() == "{'a': {'b': 'é'}}"
    assert (root / placed["daemon"]).read_text() == json.dumps({"a": {"b": "é"}}, indent=2)
    text = await get(config, config_type="fragment", file_path="text.md")
    assert (text["value"], text["format"]) == ("# é\n", "mixed")
    refused = await put(config, "a", 1, config_type="fragment", file_path="text.md")
    assert refused["error"] == "Cannot set key in non-dict value"


async def test_what_json_cannot_carry_is_answered_as_text(config):
    """Dates, bytes, sets, numbers and keys: one rule on both sides, never silence."""
    lay(
        root_of(config),
        {
            FILE: b"day: 2025-07-12\ntime: 2025-07-12T17:06:40.5Z\nset: !!set {b, a}\n"
            b"bytes: !!binary aGVsbG8=\nnan: [.nan, .inf, -.inf]\nbig: 99999999999999999999\n"
            b"1: x\ntrue: y\n2025-07-12: z\n~: n\n1.5: f\n"
            b'pairs: !!pairs [a: 1]\nlone: "\\ud800"\n'
        },
    )

    assert (await get(config))["value"] == {
        "day": "2025-07-12",
        "time": "2025-07-12T17:06:40.500000+00:00",
        "set": ["a", "b"],
        "bytes": "aGVsbG8=",
        "nan": [".nan", ".inf", "-.inf"],
        "big": "99999999999999999999",
        "1": "y",
        "2025-07-12": "z",
        "null": "n",
        "1.5": "f",
        "pairs": [["a", 1]],
        "lone": "\\ud800",
    }


async def test_a_file_is_validated(config):
    """Syntax, then what a composition needs; a file that cannot be loaded is not valid."""
    root = root_of(config)
    lay(root, {FILE: b"a: 1\n", "bad.yaml": b"a: [\n", "var/lib/compositions/x.yaml": b"name: x\n"})
    lay(root, {"var/lib/compositions/whole.yaml": b"name: x\ntype: y\ncomponents: []\n"})
    more = {"syntax_valid": True, "config_type": "daemon", "format": "yaml"}

    assert await ask(config, "validate") == {"valid": True, "file_path": str(root / FILE), **more}
    bad = await ask(config, "validate", file_path="bad.yaml")
    assert (bad["valid"], bad["syntax_valid"], bad["code"]) == (False, False, "config_invalid")
    assert bad["error"].startswith("YAML parsing error: while parsing a flow node")
    assert bad["file_path"] == str(root / "bad.yaml")
    missing = await ask(config, "validate", file_path="no/such.yaml")
    assert (missing["valid"], missing["error"]) == (False, "Configuration file does not exist")
    short = await ask(config, "validate", config_type="composition", file_path="x.yaml")
    assert short["composition_valid"] is False
    assert short["composition_errors"] == ["Missing required fields: ['type', 'components']"]
    whole = await ask(config, "validate", config_type="composition", file_path="whole.yaml")
    assert (whole["composition_valid"], "composition_errors" in whole) == (True, False)


async def test_a_named_schema_is_applied(config):
    """`schema_path` when it holds; the faults, the first as `schema_error`, when it does not."""
    root = root_of(config)
    lay(root, {FILE: b"name: 5\nday: 2025-07-12\n"})
    rules = {"properties": {"name": {"type": "string"}, "day": {"type": "string"}}, "required": ["more"]}
    lay(
        root,
        {"var/lib/schemas/s.json": json.dumps(rules).encode(), "var/lib/schemas/t.yaml": b"type: object\n"},
    )
    holds = await ask(config, "validate", schema_path="t.yaml")
    broken = await ask(config, "validate", schema_path="s.json")

    assert (holds["valid"], holds["schema_valid"]) == (True, True)
    assert holds["schema_path"] == str(root / "var/lib/schemas/t.yaml")
    assert (broken["valid"], broken["syntax_valid"], broken["schema_valid"]) == (False, True, False)
    assert broken["schema_errors"] == [
        "$.name: 5 is not of type 'string'",
        "$: 'more' is a required property",
    ]
    assert broken["schema_error"] == broken["schema_errors"][0]
    assert "schema_path" not in broken


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        ("none.json", "Schema cannot be loaded: Configuration file does not exist"),
        ("../x.json", "Schema cannot be loaded: File path outside allowed directory: ../x.json"),
        ("broken.json", "Schema cannot be loaded: JSON parsing error: "),
        ("wrong.json", "Schema is not valid: 5 is not valid under any of the given schemas"),
        ("list.json", "Schema is not valid: [] is not of type 'object', 'boolean'"),
        ("remote.json", "Schema refers to what is not in it: Unresolvable: http://127.0.0.1:9/s.json"),
        ("round.json", "Schema cannot be applied: it refers to itself without end"),
        ("pattern.json", "Schema is not valid: '(' is not a 'regex'"),
    ],
)
async def test_a_schema_that_cannot_be_used(config, schema, error):
    """Is said to be at fault, and nothing is fetched for it."""
    lay(
        root_of(config),
        {
            FILE: b"a: x\n",
            "var/lib/schemas/broken.json": b"{",
            "var/lib/schemas/wrong.json": b'{"type": 5}',
            "var/lib/schemas/list.json": b"[]",
            "var/lib/schemas/remote.json": b'{"$ref": "http://127.0.0.1:9/s.json"}',
            "var/lib/schemas/round.json": b'{"$ref": "#"}',
            "var/lib/schemas/pattern.json": b'{"properties": {"a": {"pattern": "("}}}',
        },
    )
    found = await ask(config, "validate", schema_path=schema)

    assert (found["valid"], found["syntax_valid"], found["schema_valid"]) == (False, True, False)
    assert found["schema_error"].startswith(error)


async def test_a_schema_that_takes_for_ever_ends(tmp_path, monkeypatch):
    """On the async side: it costs its caller `KSI_CALL_TIMEOUT` and a worker, and nobody else anything."""
    monkeypatch.setenv("KSI_CALL_TIMEOUT", "0.5")
    schema = b'{"properties": {"a": {"pattern": "^(a+)+$"}}}'
    lay(tmp_path, {FILE: b"a: " + b"a" * 40 + b"!\n", "var/lib/schemas/ever.json": schema})
    async with room(AREA, "async", tmp_path) as config:
        reply = await ask(config, "validate", config_type="daemon", schema_path="ever.json")
        again = await get(config, "a")

    assert reply["code"] == "component_busy"
    assert again["value"].endswith("a!")


async def test_the_faults_of_a_schema_are_bounded(config):
    """Twenty of them, three hundred characters each; an unknown dialect is read as the newest."""
    rules = {"$schema": "urn:unknown", "additionalProperties": {"type": "integer"}}
    lay(root_of(config), {FILE: dumped({f"k{n}": "x" * 1_000 for n in range(30)})})
    lay(root_of(config), {"var/lib/schemas/s.json": json.dumps(rules).encode()})
    found = await ask(config, "validate", schema_path="s.json")

    assert [len(error) for error in found["schema_errors"]] == [300] * 20


async def test_reload_tells_the_parts(config):
    """Which are three, all of them, or none for a word that nobody knows."""
    found = {part: (await ask(config, "reload", component=part)) for part in ("daemon", "all", "x", None)}

    assert found["daemon"] == {"status": "reloaded", "component": "daemon", "reloaded_components": ["daemon"]}
    assert found["all"]["reloaded_components"] == ["daemon", "modules", "compositions"]
    assert found["x"]["reloaded_components"] == []
    assert found[None] == found["all"]


async def test_changes_are_told_to_whoever_handles_them(config):
    """`config:changed` and `config:rolled_back` reach handlers, and no client gets a frame."""
    told = []

    async def note(data, _client):
        told.append(data)

    config.site.hub._router.add((Event("config:changed", note, ""), Event("config:rolled_back", note, "")))
    await put(config, "a", 1)
    await put(config, "a", 2)
    back = await ask(config, "rollback", config_type="daemon")
    await put(config, "a.b", 3)

    path = {"config_type": "daemon", "file_path": str(root_of(config) / FILE)}
    assert told == [
        {**path, "key": "a", "value": 1},
        {**path, "key": "a", "value": 2},
        {**path, "backup_name": back["backup_name"]},
    ]
    assert config.told == []


async def test_runtime_settings(config):
    """Set, shown, queried and reset, in memory only."""
    send = config.send
    default = await send("runtime:config:get", key="log_level")
    done = await send("runtime:config:set", key="log_level", value="DEBUG")
    refused = [
        await send("runtime:config:set", key=key, value=value)
        for key, value in (("log_level", "LOUD"), ("completion_timeout_default", 59), ("x", 1))
    ]
    query = await send("runtime:config:query", key="completion_timeout_default")

    assert default == {"key": "log_level", "value": "INFO", "source": "default"}
    assert done == {"status": "updated", "key": "log_level", "value": "DEBUG"}
    assert [one["error"] for one in refused] == [
        "Failed to set runtime config: log_level=LOUD",
        "Failed to set runtime config: completion_timeout_default=59",
        "Failed to set runtime config: x=1",
    ]
    assert (query["type"], query["range"], query["current"]) == ("integer", [60, 1800], 300)
    assert (await send("runtime:config:query"))["runtime_config"]["log_level"]["source"] == "runtime"
    assert await send("runtime:config:get") == {"runtime_config": {"log_level": "DEBUG"}}
    assert config.service.memory() == {"runtime_config": {"log_level": "DEBUG"}}
    assert (await send("runtime:config:get", key="x"))["code"] == "invalid_parameter"
    assert (await send("runtime:config:reset", key="log_level"))["status"] == "reset"
    assert (await send("runtime:config:get", key="log_level"))["source"] == "default"
    await send("runtime:config:set", key="error_verbosity", value="minimal")
    assert (await send("runtime:config:reset"))["status"] == "reset"
    assert config.service.memory() == {"runtime_config": {}}
    assert below(root_of(config)) == {}


async def test_a_backup_has_its_record(config):
    """The original's five keys first, the path relative, the time local; the copy has the file's own time."""
    await put(config, "a", 1)
    reply = await ask(config, "backup", config_type="daemon")
    root = root_of(config)
    name = reply["backup_name"]
    record = json.loads((root / BACKUPS / f"{name}.meta").read_bytes())

    assert reply == {"status": "backup_created", "backup_name": name, "backup_path": f"{BACKUPS}/{name}"}
    assert list(record)[:5] == ["original_path", "backup_name", "backup_path", "timestamp", "size"]
    assert record["original_path"] == str(root / FILE)
    assert (record["backup_path"], record["size"]) == (f"{BACKUPS}/{name}", 5)
    assert record["timestamp"].startswith("2025-07-12T")
    copy = root / BACKUPS / name
    assert copy.read_bytes() == b"a: 1\n"
    assert copy.stat().st_mtime_ns == config.path.stat().st_mtime_ns
    assert copy.stat().st_mode & 0o7777 == 0o600
