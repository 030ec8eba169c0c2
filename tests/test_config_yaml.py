"""YAML by two parsers: where the C ones are used they say what the Python ones say, to the byte."""

from __future__ import annotations

import math
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ksi_daemon.config import documents, quick, values
from ksi_daemon.config.errors import NotUnderstood, TooLarge, Unusable
from tests.configs import AS_IT_IS, BACKED_UP, dumped, encoded, opened, outcome, site_of, target
from tests.rooms import SIDES

PIECES = [
    *(
        "a",
        "key: ",
        "k2: ",
        "b c",
        "1",
        "1.5",
        "- ",
        "-",
        ": ",
        ":",
        "? ",
        "#",
        " # c",
        "'",
        '"',
        "\\",
        "|",
        ">",
    ),
    *(
        "|-\n  x\n   y\n",
        ">\n  x\n\n  y\n",
        "&a ",
        "*a",
        "!t ",
        "!!str ",
        "[",
        "]",
        "{",
        "}",
        "[]",
        "{}",
        ",",
        "%",
    ),
    *(
        "@",
        "`",
        "~",
        "null",
        "yes",
        "2025-07-12",
        "---\n",
        "...\n",
        "<<: ",
        "=",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\n  ",
    ),
    *(
        "\n- ",
        "\n  - ",
        "\nk: ",
        "\n  k: ",
        "x" * 130,
        "word " * 30,
        "\t",
        "\r\n",
        "é",
        "\x00",
        "\x85",
        "\ufeff",
    ),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=24).map("".join)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=40),
    st.text(alphabet="ab :-#'\"01.,?!|>&*[]{}%@`~\n", max_size=120),
    st.sampled_from(
        ["", "yes", "No", "null", "~", "1e3", "1:30", "0x1f", "2025-07-12", "=", "<<", "x " * 70]
    ),
)
KEYS = st.one_of(st.text(max_size=12), st.text(alphabet="ab :-#'?", min_size=1, max_size=140))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)


def parsed(parse, data):
    """The document with its types, or the error."""
    try:
        return repr(parse(data, "yaml", "/x.yaml", documents.nothing))
    except (NotUnderstood, TooLarge) as error:
        return str(error), error.code


def plainly(data):
    """What PyYAML's own safe loader makes of a text file, or the words of its error."""
    try:
        return repr(yaml.safe_load(data.decode()))
    except yaml.YAMLError as error:
        return re.sub(
            r'(?s)"<unicode string>"(, line \d+, column \d+):\n.*?\^(?=\n|$)', r'"/x.yaml"\1', str(error)
        )


@settings(max_examples=250)
@given(TEXTS)
def test_any_text_is_read_alike(text):
    """The same document or the same words, whichever parser read it."""
    data = text.encode()

    assert parsed(quick.parse, data) == parsed(documents.parse, data)


@settings(max_examples=100)
@given(DOCUMENTS)
def test_any_document_is_written_alike(document):
    """The bytes are PyYAML's, in pure Python; what is written reads back as it was."""
    data = quick.dump(document, "yaml", documents.nothing)

    assert data == documents.dump(document, "yaml") == dumped(document)
    assert repr(quick.parse(data, "yaml", "x", documents.nothing)) == repr(documents.parse(data, "yaml", "x"))
    if quick.writable(document) and quick.readable(data):
        assert repr(quick.parse(data, "yaml", "x", documents.nothing)) == repr(document)


@settings(max_examples=60)
@given(DOCUMENTS)
def test_our_loader_is_the_safe_loader(document):
    """Counting levels and merges changes nothing of what it reads."""
    data = dumped(document)

    assert parsed(documents.parse, data) == plainly(data)


@pytest.mark.parametrize(
    "text", ["a: [1\n", "a: b: c\n", "a: 'x\n", "\ta: 1\n", "a: &x\nb: *y\n", "- a\nb: c\n"]
)
def test_the_words_of_an_error(text):
    """PyYAML's for a file, with its path."""
    found = parsed(documents.parse, text.encode())

    assert found == (f"YAML parsing error: {plainly(text.encode())}", "config_invalid")
    assert parsed(quick.parse, text.encode()) == found


def test_the_quick_parser_is_used():
    """For what people write by hand and what we write ourselves."""
    by_hand = (
        b"# the daemon\nname: x   # a comment\nlist:\n- a: 1\n  b: 'two words'\nempty: []\ntext: |\n  a\n"
    )

    assert quick.readable(by_hand)
    assert quick.readable(dumped({"a": {"b": [1, 2.5, None, "x" * 200, "a b " * 40, {}]}}))
    assert quick.writable({"a": {"b": [1, 2.5, None, "x" * 200, "a b " * 40, {}]}})


NOT_QUICK = [
    *("a: é\n", "a:\tb\n", "a: 1\r\n", "a: &x b\n", "*x\n", "a: !t b\n", "%YAML 1.1\n"),
    *("a: [1]\n", "a: {b: 1}\n", "a: [[]]\n", "a: |#\n b\n", " " * 70 + "a: 1\n", "a:\n" + "- " * 40 + "a\n"),
]


@pytest.mark.parametrize("text", NOT_QUICK)
def test_the_quick_parser_is_not_used(text):
    """For what the two parsers are known to see differently, and what could be deep."""
    assert not quick.readable(text.encode())


SAME = ["shared"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        "x",
        1,
        {"a": "é"},
        {"a": "x\ny"},
        {"": 1},
        {1: "a"},
        {"k" * 101: 1},
        {"a": SAME, "b": SAME},
        {"a": (1,)},
    ],
)
def test_the_quick_dumper_is_not_used(document):
    """For scalars alone, text beyond ASCII, empty, long or other keys, and what stands in two places."""
    assert not quick.writable(document)
    assert quick.dump(document, "yaml", documents.nothing) == dumped(document)


def test_without_the_c_library(monkeypatch):
    """Everything goes through pure Python."""
    monkeypatch.setattr(quick, "_LOADER", None)
    monkeypatch.setattr(quick, "_DUMPER", None)

    assert quick.parse(b"a: 1\n", "yaml", "x", documents.nothing) == {"a": 1}
    assert quick.dump({"a": 1}, "yaml", documents.nothing) == b"a: 1\n"


def test_a_long_parse_shows_that_it_goes_on():
    """The pulse is called again and again, by both parsers and both dumpers."""
    document = {f"k{number}": [number, "x"] for number in range(50)}
    data = dumped(document)
    beats: list[int] = []
    for work in (
        lambda beat: quick.parse(data, "yaml", "x", beat),
        lambda beat: documents.parse(data, "yaml", "x", beat),
        lambda beat: quick.dump(document, "yaml", beat),
        lambda beat: documents.dump(document, "yaml", beat),
    ):
        work(lambda: beats.append(1))
        assert len(beats) > 150
        beats.clear()


def test_what_a_format_cannot_say():
    """Is refused with the original's words."""
    for form in ("json", "yaml"):
        with pytest.raises(Unusable, match="Set failed: "):
            documents.dump({"a": object()}, form)


@given(VALUES)
def test_json_of_any_value(value):
    """Both ways to it agree, and nothing is lost that JSON has."""
    quickly, slowly = values.as_json(value, finite=True), values.as_json(value, finite=False)

    assert quickly == slowly == encoded(values.plain(value))


def test_numbers_that_are_none():
    """NaN and the infinities are noticed, wherever they stand, and told as YAML writes them."""
    for number, text in ((math.nan, ".nan"), (math.inf, ".inf"), (-math.inf, "-.inf")):
        document = {"a": [{"b": number}]}
        assert not values.weigh(document, 1_000)
        assert values.as_json(document, finite=False) == encoded({"a": [{"b": text}]})
    assert values.weigh({"a": [1.5]}, 1_000)
    assert values.plain(10**5000) == hex(10**5000)


def set_in(document, key, value):
    """A reference of its own: the document with the value; None where an object is needed and none is there.

    Dots descend (contract 3.5); what is missing on the way is made.
    """
    first, dot, rest = key.partition(".")
    if not isinstance(document, dict):
        return None
    if not dot:
        return {**document, first: value}
    below = set_in(document.get(first, {}), rest, value)
    return None if below is None else {**document, first: below}


DATED = """
born: 2025-07-12
at: 2025-07-12T10:00:00+02:00
naive: 2025-07-12 10:00:00
huge: 123456789012345678901234567890
none:
nested: {a: {b: [1, 2025-07-13]}}
1: a number for a key
"""
"""What YAML knows and JSON does not."""


@settings(max_examples=6)
@given(st.lists(st.tuples(st.sampled_from(["a", "a.b", "nested.a.c", "nested", "born.x", "none.y"]), VALUES)))
async def test_sets_leave_what_a_plain_reference_has(tmp_path_factory, changes):
    """With dates, naive and aware times and huge numbers beside: every other value stays what it was."""
    changes, root = changes[:4], tmp_path_factory.mktemp("dated")
    for side in SIDES:
        place = root / side
        place.mkdir()
        (place / "x.yaml").write_text(DATED)
        wanted = yaml.safe_load(DATED)
        async with opened(side, site_of(place)) as files:
            for key, value in changes:
                after = set_in(wanted, key, value)
                found = await outcome(
                    files.put(target(site_of(place), "x.yaml"), key, encoded(value), AS_IT_IS, 0.0)
                )
                assert (after is None) == (type(found) is tuple), (key, value, found)
                wanted = wanted if after is None else after
                assert repr(yaml.safe_load((place / "x.yaml").read_bytes())) == repr(wanted)


@pytest.mark.parametrize("form", ["x.yaml", "x.json"])
@settings(max_examples=6)
@given(document=DOCUMENTS, changes=st.lists(st.tuples(st.text("ab.", max_size=5), VALUES), max_size=4))
async def test_both_sides_and_a_plain_reference(tmp_path_factory, form, document, changes):
    """The same values, errors and bytes after every change: both sides, and PyYAML or `json` alone."""
    root = tmp_path_factory.mktemp("reference")
    seen = []
    for side in SIDES:
        place = root / side
        place.mkdir()
        site = site_of(place)
        path = target(site, form)
        async with opened(side, site) as files:
            course = [await outcome(files.put(path, "*", encoded(document), AS_IT_IS, 0.0))]
            course.append((place / form).read_bytes())
            for key, value in changes:
                course.append(await outcome(files.put(path, key or "a", encoded(value), BACKED_UP, 0.0)))
                course.append((place / form).read_bytes())
                course.append(await outcome(files.get(path, "*")))
                course.append(await outcome(files.get(path, key or "a")))
            seen.append([str(one).replace(str(place), "") for one in course])

    assert all(course == seen[0] for course in seen)
    left = (root / SIDES[-1] / form).read_bytes()
    reference = yaml.safe_load(left) if form.endswith("yaml") else documents.parse(left, "json", "x")
    assert left == documents.dump(reference, "yaml" if form.endswith("yaml") else "json")
