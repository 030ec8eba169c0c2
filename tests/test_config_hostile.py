"""Configuration files that are made to do harm: each one is an answer or an error, the same on both sides."""

from __future__ import annotations

import pytest

from ksi_daemon.config import AREA, documents, quick, values
from ksi_daemon.config.errors import TooLarge
from ksi_daemon.config.exercise_hostile import HOSTILE, _bomb, _merge_bomb
from tests.configs import FILE, ask, below, get, lay, put, root_of
from tests.rooms import SIDES, room

ANSWERED = {
    "empty.yaml": None,
    "comment.yaml": None,
    "scalar.yaml": "just text",
    "list.yaml": ["a"],
    "twice.yaml": {"a": 2},
    "twice.json": {"a": 2},
    "bom.yaml": {"a": 1},
    "crlf.yaml": {"a": 1, "b": 2},
    "surrogate.yaml": {"a": "\\ud800"},
    "nan.json": {"a": [".nan", ".inf"], "b": ".inf"},
    "hundred.yaml": ...,
    "merge.yaml": ...,
}
"""What those hold that can be read; `...` for too much to write down."""

LARGE = {"flow.yaml", "block.yaml", "dashes.yaml", "braces.yaml", "hundred_and_one.yaml", "bomb.yaml"} | {
    "itself.yaml",
    "deep.json",
    "deepish.json",
}
"""Those that are refused for their depth or for what they unfold to."""

DEEPER = {
    "flow.yaml": b"[" * 100_000,
    "dashes.yaml": b"- " * 100_000 + b"a\n",
    "braces.yaml": b"{a: " * 100_000,
}
"""As those of parity, but deeper than any stack."""

BEGINS = ("YAML parsing error: ", "JSON parsing error: ", "Failed to load config: ")


@pytest.fixture(params=SIDES)
async def config(request, tmp_path):
    """The room on either side, with all of them."""
    lay(tmp_path, HOSTILE | DEEPER)
    async with room(AREA, request.param, tmp_path) as made:
        yield made


async def test_each_is_an_answer_or_an_error(config):
    """Never silence, never a crash; an error has its text and its code, and a set leaves the file alone."""
    before = below(root_of(config))
    for name in HOSTILE:
        found = await get(config, file_path=name)
        checked = await ask(config, "validate", file_path=name)
        if name in ANSWERED:
            assert ANSWERED[name] in (..., found["value"]), name
            assert checked["valid"] is True
            continue
        code = "config_too_large" if name in LARGE else "config_invalid"
        assert (found["code"], checked["code"]) == (code, code), name
        assert checked["error"] == found["error"]
        assert code == "config_too_large" or found["error"].startswith(BEGINS), name
        assert (await put(config, "b", 2, file_path=name))["error"] == found["error"]
    assert below(root_of(config)) == before


async def test_texts_of_a_few(config):
    """As PyYAML and `json` say them, with the file's path; what its constructors raise is named."""
    root = root_of(config)
    wanted = {
        "tag.yaml": "YAML parsing error: could not determine a constructor for the tag "
        f"'tag:yaml.org,2002:python/object/apply:os.system'\n  in \"{root}/tag.yaml\", line 1, column 4",
        "month.yaml": "Failed to load config: month must be in 1..12",
        "int.yaml": "Failed to load config: IndexError: string index out of range",
        "flow.yaml": "configuration is nested more than 100 levels deep",
        "broken.json": "JSON parsing error: Expecting value: line 1 column 7 (char 6)",
    }

    assert {name: (await get(config, file_path=name))["error"] for name in wanted} == wanted


@pytest.mark.parametrize("side", SIDES)
async def test_the_limit_of_a_file(side, tmp_path, monkeypatch):
    """One byte more than KSI_CONFIG_MAX_BYTES is refused, to read and to write; the limit itself is not."""
    monkeypatch.setenv("KSI_CONFIG_MAX_BYTES", "1000")
    lay(tmp_path, {FILE: b"a: " + b"x" * 996 + b"\n", "more.yaml": b"a: " + b"x" * 997 + b"\n"})
    async with room(AREA, side, tmp_path) as config:
        assert len((await get(config, "a"))["value"]) == 996
        error = {
            "code": "config_too_large",
            "error": "configuration file is over 1000 bytes; see KSI_CONFIG_MAX_BYTES",
        }
        for what, more in (("get", {"key": "a"}), ("set", {"key": "a", "value": 1}), ("backup", {})):
            reply = await ask(config, what, config_type="daemon", file_path="more.yaml", **more)
            assert {**reply, "component": ...} == {**error, "component": ...}
        refused = await put(config, "b", "more")

    assert (
        refused["error"] == "configuration unfolds to 5 values and 1002 characters; at most 1000000 and 1000"
    )
    assert len((tmp_path / FILE).read_bytes()) == 1000


@pytest.mark.parametrize("side", SIDES)
async def test_a_value_too_large_for_a_reply(side, tmp_path, monkeypatch):
    """A text of bytes that JSON writes with six each: refused, since its client would be dropped."""
    monkeypatch.setenv("KSI_MAX_UNREAD_BYTES", "50000")
    lay(tmp_path, {"var/lib/compositions/fragments/x": b"\x00" * 10_000})
    async with room(AREA, side, tmp_path) as config:
        reply = await get(config, config_type="fragment", file_path="x")

    assert reply == {
        "error": "the reply would be larger than 33616 bytes; ask for one key at a time",
        "code": "reply_too_large",
    }


@pytest.mark.parametrize("side", SIDES)
async def test_what_could_not_be_read_again_is_not_written(side, tmp_path):
    """A hundred levels can be set, one more cannot, in value and key together."""
    async with room(AREA, side, tmp_path) as config:
        assert (await put(config, ".".join("a" * 100), 1))["status"] == "set"
        assert (await put(config, "z." + ".".join("a" * 100), 1))["code"] == "config_too_large"
        value: list = []
        for _ in range(400):
            value = [value]
        assert (await put(config, "b", value))["code"] == "config_too_large"
        assert (await get(config, ".".join("a" * 100)))["value"] == 1


def test_bombs_are_weighed_without_unfolding():
    """Nine levels of nine aliases are half a thousand million values, and known to be in no time."""
    document = documents.parse(_bomb(9), "yaml", "x")

    with pytest.raises(TooLarge, match="unfolds to 490329064 values"):
        values.weigh(document, 1 << 30)
    long = documents.parse(b"a: &a " + b"x" * 1_000 + b"\nb: [" + b"*a, " * 50 + b"*a]\n", "yaml", "x")
    with pytest.raises(TooLarge, match="52002 characters"):
        values.weigh(long, 10_000)


@pytest.mark.parametrize("text", [b"[" + b"a," * 3_000 + b"a]", b"- a\n" * 3_000, b"a: {b: 1}\n" * 800])
def test_values_are_counted_before_they_fill_memory(monkeypatch, text):
    """By the loader that composes them; the C loader, which cannot count, is not asked."""
    monkeypatch.setattr(values, "MOST_NODES", 2_000)

    for parse in (documents.parse, quick.parse):
        with pytest.raises(TooLarge, match="more than 2000 values"):
            parse(text, "yaml", "x", documents.nothing)


@pytest.mark.parametrize("side", SIDES)
async def test_a_file_that_grew_too_large_can_be_rolled_back(side, tmp_path, monkeypatch):
    """What cannot be read any more is what a rollback is for; the large one is kept as a backup."""
    monkeypatch.setenv("KSI_CONFIG_MAX_BYTES", "1000")
    lay(tmp_path, {FILE: b"a: 1\n"})
    large = b"a: " + b"x" * 5_000 + b"\n"
    async with room(AREA, side, tmp_path) as config:
        await ask(config, "backup", config_type="daemon", backup_name="good")
        with config.overlooked():
            (tmp_path / FILE).write_bytes(large)
        assert (await get(config, "a"))["code"] == "config_too_large"
        done = await ask(config, "rollback", config_type="daemon", backup_name="good")

        assert (await get(config, "a"))["value"] == 1
    with_it = [one for one in tmp_path.rglob(done["current_backup"]) if one.read_bytes() == large]
    assert len(with_it) == 1


def test_merges_are_counted(monkeypatch):
    """Before they are copied, whatever this PyYAML does about repeated ones."""
    monkeypatch.setattr(values, "MOST_NODES", 1_000)

    with pytest.raises(TooLarge, match="merge keys copy more than 1000 keys"):
        documents.parse(_merge_bomb(40), "yaml", "x")


def test_a_mapping_that_merges_itself():
    """Gets nothing more by it, as with PyYAML."""
    assert documents.parse(b"a: &a {<<: [*a, *a], b: 1}\n", "yaml", "x") == {"a": {"b": 1}}
