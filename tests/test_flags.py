"""flags.yaml is read whole and strictly, and its scalars are changed in place."""

import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ksi_daemon.flags import LIMIT, Flags, FlagsInvalid, Stage, parse, read, schema, set_scalars
from ksi_daemon.flagtext import decode, reading, scan
from tests.flagset import AREAS, VALID, Row

ROOT = Path(__file__).parents[1]


def refusal(data: bytes) -> FlagsInvalid:
    """The error with which the bytes are refused."""
    with pytest.raises(FlagsInvalid) as caught:
        parse(data, areas=AREAS)
    return caught.value


def changed(old: str, new: str) -> bytes:
    """The valid file with one piece of text replaced."""
    assert VALID.count(old.encode()) == 1
    return VALID.replace(old.encode(), new.encode())


def test_valid_file():
    """A valid file gives every component its stage, and every append and replace component a durability."""
    flags = parse(VALID, areas=AREAS)

    expected = Flags(
        1,
        {"messaging": "fsync", "completion": "os", "agent": "os"},
        {
            "messaging": Stage.ASYNC,
            "completion": Stage.SYNC,
            "claude_cli": Stage.SYNC,
            "agent": Stage.SYNC,
            "conversation": Stage.SYNC,
        },
    )
    assert expected == flags
    assert all(type(stage) is Stage for stage in flags.components.values())


def test_shipped_file():
    """The flags.yaml of the repository is valid for the registry, and everything in it is sync."""
    flags = parse(read(ROOT / "flags.yaml"))

    assert {Stage.SYNC} == set(flags.components.values())
    assert {"os"} == set(flags.durability.values())


def test_schema_file():
    """flags.schema.json is what the model says."""
    assert json.dumps(schema(), indent=2) + "\n" == (ROOT / "flags.schema.json").read_text()


def test_schema_accepts_what_parse_accepts():
    """The schema names each component once, requires them all, and allows the stages that parse takes."""
    document = schema(AREAS)
    components = document["$defs"]["Components"]

    assert [area.name for area in AREAS] == components["required"] == list(components["properties"])
    assert components["properties"]["messaging"]["enum"] == ["sync", "async"]
    assert components["properties"]["agent"]["const"] == "sync"
    assert not components["additionalProperties"]
    assert list(document["$defs"]["Durability"]["properties"]) == ["messaging", "completion", "agent"]


def test_stages_compare_by_rank():
    """Stages order as sync, shadow, canary, async, also against the bare word, whatever the letters say."""
    stages = [Stage.SYNC, Stage.SHADOW, Stage.CANARY, Stage.ASYNC]

    assert stages == sorted([stages[2], stages[0], stages[3], stages[1]])
    assert [stage.rank for stage in stages] == [0, 1, 2, 3]
    assert Stage.ASYNC > "sync"
    assert Stage.ASYNC >= Stage.ASYNC
    assert Stage.SYNC <= "shadow"
    assert not Stage.SYNC >= Stage.SHADOW
    assert not Stage.ASYNC <= Stage.CANARY


@pytest.mark.parametrize(
    "text", [VALID, VALID.replace(b"\n", b"\r\n"), b"---\n" + VALID], ids=["lf", "crlf", "---"]
)
def test_every_prefix_is_refused(text):
    """No file that was cut short is valid, whichever byte it ends at."""
    whole = text.rstrip()

    accepted = [end for end in range(len(whole)) if _valid(whole[:end])]

    assert accepted == []
    assert _valid(whole)


def test_every_prefix_of_the_shipped_file_is_refused():
    """No flags.yaml of ours that was cut short is valid."""
    whole = read(ROOT / "flags.yaml").rstrip()

    accepted = []
    for end in range(len(whole)):
        try:
            parse(whole[:end])
        except FlagsInvalid:
            continue
        accepted.append(end)

    assert accepted == []


def _valid(data: bytes) -> bool:
    try:
        parse(data, areas=AREAS)
    except FlagsInvalid:
        return False
    return True


WORDS = [
    ("off", "stage of agent2 must be sync or async, not 'off', which YAML reads as the bool false"),
    ("yes", "stage of agent2 must be sync or async, not 'yes', which YAML reads as the bool true"),
    ("1:30", "stage of agent2 must be sync or async, not '1:30', which YAML reads as the int 90"),
    ("1e3", "stage of agent2 must be sync or async, not '1e3'"),
    ("1.5e+3", "stage of agent2 must be sync or async, not '1.5e+3', which YAML reads as the float 1500.0"),
    ("7", "stage of agent2 must be sync or async, not '7'"),
    ("0b_", "stage of agent2 must be sync or async, not '0b_', which YAML reads as a broken int"),
    (
        "2024-13-99",
        "stage of agent2 must be sync or async, not '2024-13-99', which YAML reads as a timestamp",
    ),
    ("~", "stage of agent2 must be sync or async, not '~', which YAML reads as a null"),
    ("", "stage of agent2 must be sync or async, not '', which YAML reads as a null"),
    ("<<", "stage of agent2 must be sync or async, not '<<', which YAML reads as a merge"),
    ("'off'", "stage of agent2 must be sync or async, not 'off'"),
    ("Async", "stage of agent2 must be sync or async, not 'Async'"),
    ("a sync", "stage of agent2 must be sync or async, not 'a sync'"),
    ('"sync "', "stage of agent2 must be sync or async, not 'sync '"),
    ("shadow", "the stage shadow of agent2 is reserved but not built yet; use sync or async"),
    ("'canary'", "the stage canary of agent2 is reserved but not built yet; use sync or async"),
    ('"\\uD800\\e[2J"', "stage of agent2 must be sync or async, not '\\ud800\\x1b[2J'"),
    ("x" * 100, f"stage of agent2 must be sync or async, not '{'x' * 57}...'"),
    (
        "9" * 5000,
        f"stage of agent2 must be sync or async, not '{'9' * 57}...', which YAML reads as a broken int",
    ),
]


@pytest.mark.parametrize(("word", "reason"), WORDS, ids=[word[:12] or "empty" for word, _ in WORDS])
def test_other_words_are_no_stage(word, reason):
    """Anything but a stage is refused with its line, what was read, and what YAML makes of it."""
    data = f"version: 1\ncomponents:\n  agent2: {word}\n".encode()

    with pytest.raises(FlagsInvalid) as caught:
        parse(data, areas=[Row("agent2", "replace", built=True)], path="some/flags.yaml")

    assert (3, reason) == (caught.value.line, caught.value.reason)
    assert f"some/flags.yaml:3: {reason}" == str(caught.value)
    assert caught.value.fields() == {"code": "flags_invalid"}


MALFORMED = {
    "unknown component": (
        "agent: sync\n",
        "agent: sync\n  agnt: sync\n",
        10,
        "unknown key 'agnt'; known here: messaging",
    ),
    "unknown key": ("version: 1", "verison: 2\nversion: 1", 2, "unknown key 'verison'; known here: version,"),
    "dotted key": ("version: 1", "components.agent: sync\nversion: 1", 2, "unknown key 'components.agent'"),
    "key after components": (
        "  conversation: sync\n",
        "  conversation: sync\nnotes: x\n",
        13,
        "unknown key 'notes'",
    ),
    "repeated component": (
        "agent: sync",
        "agent: sync\n  messaging: sync",
        10,
        "is already given in line 6; keep one",
    ),
    "repeated section": (
        "version: 1 ",
        "components:\nversion: 1 ",
        6,
        "'components' is already given in line 2",
    ),
    "missing component": (
        "  conversation: sync\n",
        "",
        5,
        "add the line `  conversation: sync` under components",
    ),
    "missing version": ("version: 1   # the layout\n", "", 0, "add the line `version: 1`"),
    "version 2": ("version: 1", "version: 2", 2, "version must be the number 1, not '2'"),
    "version as text": ("version: 1", "version: '1'", 2, "version must be the number 1, not the text '1'"),
    "version 0b1": ("version: 1", "version: 0b1", 2, "not '0b1', which YAML reads as the int 1"),
    "version block": (
        "version: 1",
        "version:\n  one: 1\nfoo: 1",
        2,
        "`version` must be one word, not a block",
    ),
    "async unbuilt": (
        "agent: sync",
        "agent: async",
        9,
        "agent is not built yet and must be sync, not 'async'",
    ),
    "shadow unbuilt": (
        "agent: sync",
        "agent: shadow",
        9,
        "agent is not built yet and must be sync, not 'shadow'",
    ),
    "durability word": (
        "fsync",
        "on",
        4,
        "durability of messaging must be os or fsync, not 'on', which YAML reads as",
    ),
    "durability of a reader": (
        "messaging: fsync",
        "conversation: os",
        4,
        "conversation writes no file of its own",
    ),
    "durability unknown": ("messaging: fsync", "messagin: os", 4, "known here: messaging, completion, agent"),
    "durability empty": (
        "  messaging: fsync  # on the disk\n",
        "",
        3,
        "`durability` must hold one `name: value` a line",
    ),
    "flow mapping": ("agent: sync", "agent: {}", 9, "braces are not taken"),
    "flow list": ("agent: sync", "agent: [sync]", 9, "lists are not taken"),
    "block list": ("agent: sync", "agent:\n  - sync", 10, "lists are not taken"),
    "anchor": ("agent: sync", "agent: &a sync", 9, "anchors are not taken; remove &a"),
    "anchored block": ("durability:", "durability: &a", 3, "anchors are not taken; remove &a"),
    "alias": ("agent: sync", "agent: *a", 9, "aliases are not taken; write out what *a stands for"),
    "merge key": ("agent: sync", "agent: sync\n  <<: sync", 10, "unknown key '<<'"),
    "tag": ("agent: sync", "agent: !!str sync", 9, "tags are not taken; remove 'tag:yaml.org,2002:str'"),
    "python tag": ("agent: sync", "agent: !!python/name:os.system sync", 9, "tags are not taken"),
    "folded": ("agent: sync", "agent: >\n    sync", 9, "a word must stand on one line"),
    "two lines": ("agent: sync", "agent: sync\n    sync", 9, "a word must stand on one line"),
    "third level": (
        "agent: sync",
        "agent:\n    stage: sync",
        10,
        "nested too deep below 'agent'; give one value",
    ),
    "mapping as a key": ("agent: sync", "? x: y\n  : sync", 9, "a key must be one word"),
    "second document": (
        "  conversation: sync\n",
        "  conversation: sync\n---\n",
        13,
        "a second document begins here",
    ),
    "directive": ("# yaml", "%YAML 1.1\n---\n# yaml", 1, "% directives are not taken"),
    "tab": ("  agent: sync", "\tagent: sync", 9, "not YAML: found character '\\t'"),
    "unclosed quote": ("agent: sync", "agent: 'sync", 13, "not YAML: found unexpected end of stream"),
    "escape beyond Unicode": ("agent: sync", 'agent: "\\UFFFFFFFF"', 0, "not YAML: "),
    "control character": ("agent: sync", "agent: sync \x07", 9, "has the control character U+0007"),
    "NUL": ("agent: sync", "agent: sync\0", 9, "has the character U+0000; remove it"),
    "line separator": ("since Monday", "since\u2028Monday", 6, "has the character U+2028; remove it"),
}


@pytest.mark.parametrize(("old", "new", "line", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(old, new, line, reason):
    """Whatever is not scalars in two levels of block mappings is refused as a whole, with line and reason."""
    error = refusal(changed(old, new))

    assert line == error.line
    assert reason in error.reason


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"", 0, "is empty"),
        (b"\n# nothing\n", 0, "is empty"),
        (b"--- ~\n", 1, "must hold `version:` and `components:`, not one bare value"),
        (b"sync", 1, "must hold `version:` and `components:`, not one bare value"),
        (b"- a", 1, "lists are not taken"),
        (b"version: 1\n", 0, "`components` is missing; add the line `components:`"),
        (b"\xef\xbb\xbf" + VALID, 1, "has the character U+FEFF"),
        (VALID.decode().encode("utf-16"), 1, "not UTF-8 at byte 0"),
        (VALID + b"# \xff", 13, "not UTF-8 at byte"),
        (VALID + b"#" * LIMIT, 0, "more than 65536 bytes"),
    ],
    ids=["empty", "comments", "null", "word", "list", "version only", "BOM", "UTF-16", "Latin-1", "huge"],
)
def test_other_files(data, line, reason):
    """What is no flags file at all is refused with the reason."""
    error = refusal(data)

    assert line == error.line
    assert reason in error.reason


def test_components_come_last():
    """A valid key below `components` is refused: above it, a file that was cut short could be valid."""
    moved = (
        VALID.replace(b"durability:\n  messaging: fsync  # on the disk\n", b"")
        + b"durability:\n  agent: os\n"
    )

    error = refusal(moved)

    assert (error.line, error.reason) == (11, "`components` must be the last key; move `durability` above it")


def test_reading_of_words():
    """What YAML makes of a word is told without constructing dates or huge numbers."""
    assert reading("sync") == "text"
    assert reading(".inf") == "the float inf"
    assert reading("=") == "a value"


BOMBS = {
    "brackets": b"[" * LIMIT,
    "braces": b"{" * LIMIT,
    "dashes": b"- " * (LIMIT // 2),
    "questions": b"? " * (LIMIT // 2),
    "keys": b"".join(b"a%d: b\n" % number for number in range(6000)),
    "steps": b"".join(b" " * depth + b"a:\n" for depth in range(340)),
    "quotes": b"'" * LIMIT,
    "lines": b"\n" * LIMIT,
    "tag": b"!" * LIMIT,
    "percent": b"%" * LIMIT,
    "laughs": b"a: &a [x]\n" + b"".join(b"b%d: [*a, *a, *a]\n" % number for number in range(3000)),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_in_bounded_time(data):
    """64 KiB of nesting, aliases or keys are refused in CPU time of two seconds at most."""
    began = time.process_time()
    refusal(data)

    assert time.process_time() - began < 2


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text("ab:-?[]{}&*!|>'\"%@`#,\\ \t\n\r\0\x85\u2028é<=~.0123456789_", max_size=120).map(
            lambda text: text.encode()
        ),
        st.tuples(st.integers(0, len(VALID)), st.binary(max_size=6)).map(
            lambda cut: VALID[: cut[0]] + cut[1] + VALID[cut[0] :]
        ),
    )
)
def test_junk_is_refused_or_valid(data):
    """Junk never raises anything but `FlagsInvalid`; what is accepted, YAML reads as the same values."""
    try:
        components = parse(data, areas=AREAS).components
    except FlagsInvalid:
        return
    assert components == yaml.safe_load(data)["components"]


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from([area.name for area in AREAS]), st.sampled_from(list(Stage)), min_size=1),
    st.lists(st.sampled_from(["", "  # a: b", "   # 'x'", "   "]), min_size=len(AREAS), max_size=len(AREAS)),
    st.lists(st.sampled_from(["", "'", '"']), min_size=len(AREAS), max_size=len(AREAS)),
    st.sampled_from(["\n", "\r\n", "\n\n", "\n# é\n"]),
)
def test_set_scalars_changes_only_the_scalars(wanted, comments, quotes, ending):
    """The text is as if written with the new words, whatever its comments, quotes and line endings."""
    rows = list(zip(AREAS, comments, quotes, strict=True))

    def text(stages):
        lines = [f"  {a.name}: {q}{stages.get(a.name, 'sync')}{q}{comment}" for a, comment, q in rows]
        return ending.join(["version: 1", "components:   # all", *lines, ""])

    edited = set_scalars(text({}), {f"components.{name}": stage for name, stage in wanted.items()})

    assert text(wanted) == edited


def test_set_scalars_of_other_places():
    """Version and durability are scalars too; nothing to change gives the same text."""
    text = VALID.decode()

    assert text.replace("fsync", "os") == set_scalars(text, {"durability.messaging": "os"})
    assert text == set_scalars(text, {})
    assert text == set_scalars(text, {"components.completion": "sync"})


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        (
            VALID.decode(),
            {"components.discovery": "sync"},
            "has no line for 'components.discovery'; add it by hand",
        ),
        (VALID.decode(), {"components": "sync"}, "has no line for 'components'"),
        (VALID.decode(), {"components.agent": "sync\n  more: x"}, "would change more than the flags named"),
        (VALID.decode(), {"components.agent": "a # b"}, "would change more than the flags named"),
        (VALID.decode(), {"components.agent": "a b"}, "would change more than the flags named"),
        ("components:\n  agent:\n", {"components.agent": "sync"}, "would change more than the flags named"),
        ("components: [", {"components.agent": "sync"}, "lists are not taken"),
    ],
)
def test_set_scalars_refuses(text, changes, reason):
    """An edit that has no place, or would reach beyond its scalar, is refused."""
    with pytest.raises(FlagsInvalid, match=reason.replace("[", r"\[")):
        set_scalars(text, changes)


def test_read_follows_a_link_to_a_file(tmp_path):
    """A link to a regular file is as good as the file."""
    (tmp_path / "real.yaml").write_bytes(VALID)
    (tmp_path / "flags.yaml").symlink_to("real.yaml")

    assert read(tmp_path / "flags.yaml") == VALID


def _fifo(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def _sparse(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)


TROUBLE = {
    "missing": (lambda path: None, "is missing"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "is missing"),
    "link to itself": (lambda path: path.symlink_to(path), "cannot be read: too many levels"),
    "directory": (lambda path: path.mkdir(), "is a directory"),
    "FIFO": (_fifo, "is a FIFO"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "link to a FIFO": (lambda path: (_fifo(path.with_name("f")), path.symlink_to("f")), "is a FIFO"),
    "socket": (_socket, "is a socket"),
    "sparse": (_sparse, "more than 65536 bytes"),
    "huge": (lambda path: path.write_bytes(b"#" * (LIMIT + 1)), "more than 65536 bytes"),
}


@pytest.mark.parametrize(("make", "reason"), TROUBLE.values(), ids=TROUBLE)
def test_read_refuses_trouble(tmp_path, monkeypatch, make, reason):
    """What is no small regular file is refused at once, without waiting for a writer or reading for ever."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "flags.yaml"
    make(path)

    with pytest.raises(FlagsInvalid) as caught:
        read(path)

    assert reason in caught.value.reason
    assert ("is missing" in reason) == caught.value.missing


def test_read_takes_the_largest_file(tmp_path):
    """64 KiB are read whole."""
    (tmp_path / "flags.yaml").write_bytes(b"#" * LIMIT)

    assert len(read(tmp_path / "flags.yaml")) == LIMIT


def test_read_of_a_file_that_grows(tmp_path, monkeypatch):
    """A file that outgrows the limit after it was measured is refused, and reading it ends."""
    path = tmp_path / "flags.yaml"
    path.write_bytes(b"#")
    real = os.read

    def grow(fd, size):
        with path.open("ab") as file:
            file.write(b"#" * 50_000)
        return real(fd, size)

    monkeypatch.setattr(os, "read", grow)
    with pytest.raises(FlagsInvalid, match="more than 65536 bytes"):
        read(path)


def test_read_of_a_fifo_put_there_meanwhile(tmp_path, monkeypatch):
    """A FIFO that takes the file's place between the look and the open is refused and does not hang."""
    path = tmp_path / "flags.yaml"
    path.write_bytes(VALID)
    real = os.stat

    def swap(asked, **options):
        found = real(asked, **options)
        if asked == path and stat.S_ISREG(found.st_mode):
            path.unlink()
            os.mkfifo(path)
        return found

    monkeypatch.setattr(os, "stat", swap)
    with pytest.raises(FlagsInvalid, match="is a FIFO"):
        read(path)


def test_read_without_permission(tmp_path):
    """A file that may not be read is refused with the system's reason."""
    path = tmp_path / "flags.yaml"
    path.write_bytes(VALID)
    path.chmod(0)
    code = textwrap.dedent("""
        import os, sys
        from ksi_daemon.flags import FlagsInvalid, read
        os.chdir(sys.argv[1])
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            read("flags.yaml")
        except FlagsInvalid as error:
            print(error)
    """)

    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert done.stdout == "flags.yaml: cannot be read: permission denied\n"


def test_scan_gives_places():
    """A scalar's place includes its quotes, and its line counts from 1."""
    text = decode(VALID, "flags.yaml")
    scalar = scan(text, "flags.yaml").scalars[("components", "completion")]

    assert (text[scalar.start : scalar.end], scalar.line) == ('"sync"', 7)


def test_scan_uses_the_pure_python_loader(monkeypatch):
    """The C loader is never used: some of its releases crash the process on 64 KiB of brackets."""
    loaders = []
    real = yaml.parse

    def spy(text, Loader):  # noqa: N803 - PyYAML's own name
        loaders.append(Loader)
        return real(text, Loader)

    monkeypatch.setattr(yaml, "parse", spy)

    parse(VALID, areas=AREAS)

    assert loaders == [yaml.SafeLoader]
