"""The parts of discovery by themselves: patterns, output, cache, shared work, the tree on the disk."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksi_daemon.discovery import core, jobs, output, tree
from ksi_daemon.discovery.cache import MOST_BYTES, MOST_SEARCHES, SHARE, Cache
from ksi_daemon.discovery.clients import Clients
from ksi_daemon.discovery.core import Example, Found, Match, Query
from ksi_daemon.discovery.failures import ClientGone, RgFailed, RgMissing, TreeTooLarge
from ksi_daemon.discovery.frames import SLICE, Frames
from ksi_daemon.discovery.places import find_rg
from ksi_daemon.discovery.shared import Shared
from ksi_daemon.discovery.tree import Look
from ksi_daemon.errors import ComponentClosed, NotFound
from ksi_daemon.worker import Stopped, Turn
from tests.discovery_trees import RG, lay
from tests.rooms import Peer

ANY = Query("x", 10, 1000)


def go_on():
    """Always."""


def message(kind, **data):
    """One line of rg's."""
    return json.dumps({"type": kind, "data": data}).encode() + b"\n"


def hit(path="./a", line=1, text="x\n", kind="match"):
    """A line that matches, or one beside it."""
    return message(
        kind,
        path={"text": path},
        lines={"text": text},
        line_number=line,
        submatches=[{"match": {"text": "x"}, "start": text.find("x"), "end": 1}],
    )


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r<>"), min_size=1, max_size=20))
@settings(max_examples=30)
def test_an_escaped_text_matches_itself_alone(text):
    """In rg's own syntax, whatever it is."""
    arguments = ["--no-config", "--only-matching", "--multiline", "-e", core.escaped(text), "--", "-"]
    done = subprocess.run([RG, *arguments], input=f"<{text}>\n".encode(), capture_output=True, check=True)

    assert done.stdout.decode().rstrip("\n") == text


def test_globs_of_our_own_come_last():
    """No glob before them can bring back what they leave out; the pattern stands alone behind `-e`."""
    query = Query("--pre=x", 10, 100, fixed=True, ignore_case=True, glob="--pre=y", context=2)
    found = core.argv_of(query, 5, "var")

    globs = [option for option in found if option.startswith("--glob=")]
    assert globs == ["--glob=--pre=y", "--glob=!/var", "--glob=!.*", "--glob=!__pycache__"]
    assert found[-4:] == ("-e", "--pre=x", "--", ".")
    assert {"--fixed-strings", "--ignore-case", "--context=2", "--max-count=11", "--sort=path"} <= {*found}


@given(st.lists(st.integers(1, 60), max_size=8), st.integers(0, 2), st.integers(1, 5))
def test_output_in_any_pieces_is_the_same(cuts, context, most):
    """However rg's output is cut up, the same matches come, each once."""
    lines = [hit(line=1), hit(line=2, kind="context"), hit(line=3), message("end", path={"text": "./a"})]
    whole = b"".join([message("begin", path={"text": "./a"}), *lines, hit("./b"), message("summary")])
    query = Query("x", most, 1000, context=context)

    def found(pieces):
        matches = output.Matches(query)
        told = [match for piece in pieces if not matches.full for match in matches.feed(piece)]
        return told, matches.found(0, b"")

    at, pieces = 0, []
    for cut in cuts:
        pieces.append(whole[at : at + cut])
        at += cut
    told, cut_up = found([*pieces, whole[at:]])

    assert cut_up == found([whole])[1]
    assert tuple(told) == cut_up.matches


def test_what_is_no_message_is_passed_over():
    """Rubbish between rg's lines costs only itself."""
    matches = output.Matches(ANY)
    assert matches.feed(b"no JSON\n\n" + hit() + message("summary")) == (Match("a", 1, 1, "x"),)
    assert matches.found(0, b"").whole


def test_what_was_open_at_a_cut_is_not_lost():
    """A match whose following lines had not come when rg was killed."""
    matches = output.Matches(Query("x", 10, 1000, context=3))

    assert matches.feed(hit() + hit(line=2, kind="context", text="y\n")) == ()
    assert matches.cut_off("time") == Found((Match("a", 1, 1, "x", (), ("y",)),), "time")


def test_an_exit_code_that_means_nothing_is_a_failure():
    """Whatever it has printed."""
    matches = output.Matches(ANY)
    matches.feed(message("summary"))

    with pytest.raises(RgFailed, match="exit code 3: odd"):
        matches.found(3, b"rg: odd\n")


def test_a_cache_looks_again_in_time():
    """After the pause, which is longer where a look takes long."""
    cache = Cache(2.0)
    assert cache.due(0.0)
    cache.looked(Look(b"1", b"1", 0.001), 0.0)
    assert (cache.due(1.9), cache.due(2.0)) == (False, True)
    cache.looked(Look(b"1", b"1", 1.0), 2.0)
    assert (cache.due(2.0 + SHARE - 0.1), cache.due(2.0 + SHARE)) == (False, True)
    cache.clear()
    assert cache.due(2.0)


@pytest.mark.parametrize(
    ("seen", "kept"),
    [
        (Look(b"1", b"1", 0.0), (True, True)),
        (Look(b"2", b"1", 0.0), (True, False)),
        (Look(b"", b"1", 0.0), (True, False)),
        (Look(b"2", b"2", 0.0), (False, False)),
        (Look(b"", b"", 0.0), (False, False)),
    ],
)
def test_a_change_makes_a_cache_forget(seen, kept):
    """Of a Python file everything, of another one the searches; one that may hide another counts as one."""
    cache = Cache(2.0)
    cache.looked(Look(b"1", b"1", 0.0), 0.0)
    cache.keep_examples({"e": ()}, cache.mined_epoch)
    cache.keep_search(ANY, Found(), cache.searched_epoch)
    cache.looked(seen, 30.0)

    assert (cache.examples("ef") == {"e": ()}, cache.search(ANY) is not None) == kept
    cache.keep_search(ANY, Found(), cache.searched_epoch)
    cache.looked(Look(b"", b"", 0.0), 40.0)
    assert cache.search(ANY) is None


def test_what_was_found_in_an_earlier_tree_is_not_kept():
    """The tree changed while it was looked for."""
    cache = Cache(2.0)
    mined, searched = cache.mined_epoch, cache.searched_epoch
    cache.looked(Look(b"1", b"1", 0.0), 0.0)
    cache.keep_examples({"e": (Example("a", 1, 0, b"{}"),)}, mined)
    cache.keep_search(ANY, Found(), searched)

    assert (cache.examples("e"), cache.search(ANY)) == ({}, None)


@pytest.mark.parametrize("found", [Found(stopped="time"), Found(trouble="denied")])
def test_a_part_is_not_kept(found):
    """Another time there may be more."""
    cache = Cache(2.0)
    cache.keep_search(ANY, found, cache.searched_epoch)

    assert cache.search(ANY) is None


def test_a_cache_is_bounded():
    """In number and in bytes; the one that was not used for longest gives way."""
    cache = Cache(2.0)
    queries = [Query(str(number), 1, 1) for number in range(MOST_SEARCHES + 1)]
    for query in queries:
        cache.keep_search(query, Found(size=1), cache.searched_epoch)
        cache.keep_search(query, Found(size=1), cache.searched_epoch)
        cache.search(queries[0])
    assert [query.pattern for query in queries if cache.search(query) is None] == ["1"]
    cache.keep_search(ANY, Found(size=MOST_BYTES), cache.searched_epoch)
    assert [query for query in (*queries, ANY) if cache.search(query)] == [ANY]


async def test_shared_work_raises_for_everybody():
    """And the next one begins anew."""
    shared, begun = Shared("discovery"), 0

    async def work(_say):
        nonlocal begun
        begun += 1
        await asyncio.sleep(0.01)
        raise NotFound("no")

    calls = [shared.run("k", work) for _ in range(3)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [NotFound] * 3
    with pytest.raises(NotFound):
        await shared.run("k", work)
    assert (begun, shared.count()) == (2, 0)
    await shared.close(1)


async def test_who_leaves_twice_waits_no_longer():
    """Work that does not end at once when cancelled still has its owner."""
    shared, let_go = Shared("discovery"), asyncio.Event()

    async def stubborn(_say):
        try:
            await asyncio.sleep(60)
        finally:
            await let_go.wait()

    caller = asyncio.ensure_future(shared.run("k", stubborn))
    await asyncio.sleep(0.01)
    for _ in range(2):
        caller.cancel()
        await asyncio.sleep(0.01)
    assert (caller.cancelled(), shared.count()) == (True, 1)
    second = asyncio.ensure_future(shared.run("k", stubborn))
    await asyncio.sleep(0.01)
    assert shared.count() == 2
    let_go.set()
    await shared.close(1)
    with pytest.raises(ComponentClosed):
        await second
    assert shared.count() == 0


async def test_work_for_a_client_ends_with_it():
    """Asked only once to tell; work for nobody, or for another, goes on."""
    clients, peer = Clients(), Peer()

    async def work(seconds):
        await asyncio.sleep(seconds)
        return seconds

    assert [await clients.serve(client, work(0)) for client in (None, peer, peer)] == [0, 0, 0]
    assert len(peer._calls) == 1
    long = asyncio.ensure_future(clients.serve(peer, work(60)))
    other = asyncio.ensure_future(clients.serve(Peer(), work(0.05)))
    await asyncio.sleep(0.01)
    peer.hang_up()
    with pytest.raises(ClientGone):
        await long
    assert await other == 0.05


async def test_work_for_a_client_ends_with_its_request():
    """Cancelled, it has ended before its caller has, however it ends; nobody asks for that."""
    ended = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)
            raise NotFound("no")

    request = asyncio.ensure_future(Clients().serve(Peer(), work()))
    await asyncio.sleep(0.01)
    request.cancel()
    await asyncio.wait([request])

    assert (request.cancelled(), ended) == (True, [True])


def test_a_look_sees_names_and_no_content(tmp_path):
    """What is hidden, generated or left out does not count; what cannot be read counts as empty."""
    lay(
        tmp_path,
        {"a/b.py": "x", "var/v": "x", ".git/c": "x", "__pycache__/d": "x", ".e": "x", ".ignore": "x"},
    )
    files = [path for path, _ in tree._files(str(tmp_path), "var", go_on)]

    assert files == [".ignore", "a/b.py"]
    assert tree._listed(str(tmp_path / "gone"), must=False) == []
    with pytest.raises(FileNotFoundError):
        tree._listed(str(tmp_path / "gone"), must=True)


def test_a_look_can_be_ended(tmp_path):
    """By whoever does not want it any more, and by its time."""

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        tree.look(str(tmp_path), "", 1.0, stop)
    with pytest.raises(TreeTooLarge):
        tree.look(str(tmp_path), "", -1.0, go_on)
    with pytest.raises(FileNotFoundError):
        tree.look(str(tmp_path / "gone"), "", 1.0, go_on)


def test_a_file_that_goes_during_a_look_is_passed_over(tmp_path, monkeypatch):
    """Between its listing and the question for its size."""
    lay(tmp_path, {"a": "x"})

    class Gone:
        name = "a"

        def stat(self, *, follow_symlinks):
            raise FileNotFoundError(follow_symlinks)

    class Listing:
        def __enter__(self):
            return [Gone()]

        def __exit__(self, *_error):
            pass

    monkeypatch.setattr(os, "scandir", lambda _folder: Listing())
    assert tree._listed(str(tmp_path), must=True) == []


def test_only_regular_files_of_the_tree_are_opened(tmp_path):
    """No link on the way, no FIFO (which would wait for its other end), nothing too large."""
    lay(tmp_path, {"t/a/b.py": "12345", "out/o.py": "no"})
    top = tmp_path / "t"
    (top / "link.py").symlink_to(tmp_path / "out/o.py")
    (top / "folder").symlink_to(tmp_path / "out")
    os.mkfifo(top / "fifo.py")
    found = {
        path: tree.read(str(top), path, 5)
        for path in ("./a/b.py", "./link.py", "./folder/o.py", "./fifo.py", "./a", "./none.py", "../out/o.py")
    }

    assert found.pop("./a/b.py") == b"12345"
    assert tree.read(str(top), "./a/b.py", 4) is None
    assert tree.read(str(tmp_path / "none"), "./a/b.py", 5) is None
    assert found == {**dict.fromkeys(found), "../out/o.py": None}


def test_the_jobs_of_a_worker(tmp_path):
    """A look, and the first two examples of each event in some files, in plain values."""
    lay(
        tmp_path,
        {"a.py": 'emit_event("e", {"n": 1})\nemit_event("e", {"n": 2})\nemit_event("e", {"n": 3})\n'},
    )
    turn = Turn()

    files, python, took = jobs.look(turn, str(tmp_path), "", 1.0)
    assert (files, python, took > 0) == (b"", b"", True)  # it is too young
    assert jobs.examples(turn, str(tmp_path), [("./a.py", ("e",)), ("./b.py", ("e",))], 100) == [
        ("e", ("./a.py", 1, 0, b'{"n":1}')),
        ("e", ("./a.py", 2, 0, b'{"n":2}')),
    ]


def test_rg_is_found_in_absolute_places_only(tmp_path, monkeypatch):
    """The configured one, or none; else by PATH."""
    lay(tmp_path, {"p/rg": "", "q/rg/x": "", "r/rg": ""})
    (tmp_path / "r/rg").chmod(0o700)
    monkeypatch.setattr("sys.executable", str(tmp_path / "nowhere/python"))
    monkeypatch.setenv("PATH", os.pathsep.join(["r", *(str(tmp_path / name) for name in "pqr")]))
    monkeypatch.chdir(tmp_path)

    assert find_rg(None, "/") == str(tmp_path / "r/rg")
    assert find_rg("r/rg", str(tmp_path)) == str(tmp_path / "r/rg")
    with pytest.raises(RgMissing, match="p/rg"):
        find_rg("p/rg", str(tmp_path))
    monkeypatch.delenv("PATH")
    with pytest.raises(RgMissing, match="beside the interpreter"):
        find_rg(None, "/")


async def test_a_large_example_is_none(tmp_path):
    """A page of data helps nobody."""
    source = f'emit_event("e", {{"n": "{"x" * 9000}"}})\nemit_event("e", {{"n": 1}})\n'
    lay(tmp_path, {"a.py": source + f'emit_event("e", {"{" + "0: 1" + "}"})\n' + deep(30)})
    rows = jobs.examples(Turn(), str(tmp_path), [("./a.py", ("e",))], 100_000)

    assert [row[1][3] for row in rows] == [b'{"n":1}', b"{}"]


def deep(levels):
    """A call whose data is nested too deep to be shown whole."""
    return f'emit_event("e", {"{" + chr(34) + "d" + chr(34) + ": "}{"[" * levels}{"]" * levels}{"}"})\n'


async def test_frames_go_out_a_few_at_a_time_and_as_they_are_read():
    """Others have their turn in between; who does not read is waited for; what was ended sends no more."""
    peer, turns = Peer(), 0
    frames = Frames(peer, lambda match: json.dumps(match.line).encode())
    for number in range(100):
        frames.add(Match("a", number, 1, ""))
    while len(peer.frames) < 100:
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 100 // SLICE
    await frames.sent()
    peer.reads.clear()
    frames.add(Match("a", 100, 1, ""))
    await asyncio.sleep(0.01)
    assert peer.frames == list(range(100))
    frames.end()
    with pytest.raises(asyncio.CancelledError):
        await frames.sent()


async def test_frames_that_never_came_are_no_trouble():
    """A search that finds nothing."""
    frames = Frames(Peer(), lambda match: match.text.encode())
    await frames.sent()
    frames.end()
