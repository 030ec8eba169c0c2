"""The parts that parity is made of, each on its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from ksi_daemon.exercise import ACTIONS
from ksi_daemon.registry import BUILT
from ksi_migrate.paritycheck import actions, given, junit, settle, tree
from ksi_migrate.paritycheck.clients import Listener, Listeners
from ksi_migrate.paritycheck.clock import CALL, REQUEST, START, Clock
from ksi_migrate.paritycheck.contrast import MOST, Mismatch, compare, narrow, windows
from ksi_migrate.paritycheck.given import copy_tree
from ksi_migrate.paritycheck.readers import _judged
from ksi_migrate.paritycheck.scratch import Scratch
from ksi_migrate.paritycheck.settings import Isolated
from ksi_migrate.paritycheck.struck import Struck
from ksi_migrate.paritycheck.trial import Outcome, Trial

PAGE = os.sysconf("SC_PAGE_SIZE")


def look(root, mask=lambda content: content):
    """One look at a root."""
    return tree.Tree(root, mask).look()


def test_a_tree_holds_types_modes_and_bytes(tmp_path):
    """Files, directories, links and special files are told apart; modes are compared."""
    (tmp_path / "var").mkdir(mode=0o700)
    (tmp_path / "var/a").write_bytes(b"content")
    (tmp_path / "var/a").chmod(0o640)
    (tmp_path / "var/link").symlink_to("a")
    os.mkfifo(tmp_path / "var/fifo", 0o600)

    found = look(tmp_path)

    assert found["var/a"] == {"type": "file", "mode": "0o640", "bytes": b"content"}
    assert found["var"] == {"type": "directory", "mode": "0o700"}
    assert (found["var/link"]["type"], found["var/link"]["target"]) == ("link", "a")
    assert found["var/fifo"] == {"type": "special", "mode": "0o600"}


def test_only_our_own_places_are_left_out_of_a_tree(tmp_path):
    """`var/migrate`, `var/cache` and torn tails are not compared; everything else is, leftovers too."""
    for name in ("var/migrate/x", "var/cache/y", "var/log.jsonl.torn-0-ab", "var/left.tmp", "var/db/migrate"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert list(look(tmp_path)) == ["var", "var/db", "var/db/migrate", "var/left.tmp"]


def test_large_files_are_told_by_digest(tmp_path):
    """A change in one shows, and the scratch path in a file does not."""
    log = tmp_path / "log"
    log.write_bytes(b"x" * (tree.LARGE + 1))
    eye = tree.Tree(tmp_path, lambda content: content.replace(b"secret", b"<root>"))
    first = eye.look()

    again = eye.look()
    with log.open("ab") as file:
        file.write(b"y")
    (tmp_path / "small").write_bytes(b"in secret")
    changed = eye.look()

    assert first["log"] == again["log"] != changed["log"]
    assert changed["log"]["size"] == tree.LARGE + 2
    assert changed["small"]["bytes"] == b"in <root>"


def test_two_looks_at_the_same_are_one(tmp_path):
    """So that many looks at a large tree take the memory of one."""
    (tmp_path / "a").write_bytes(b"a")
    eye = tree.Tree(tmp_path, lambda content: content)
    first, second = eye.look(), eye.look()
    (tmp_path / "b").touch()

    assert first is second
    assert list(eye.look()) == ["a", "b"]


def test_a_file_that_was_left_alone_is_read_once(tmp_path, monkeypatch):
    """Until its inode tells of a change; one that was changed a moment ago is read each time."""
    (tmp_path / "old").write_bytes(b"a")
    eye = tree.Tree(tmp_path, lambda content: content)
    read: list[str] = []
    real = eye._read

    def noted(path):
        read.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(eye, "_read", noted)
    monkeypatch.setattr(tree, "SETTLED_NS", 0)
    eye.look()
    monkeypatch.setattr(tree, "SETTLED_NS", 3_600_000_000_000)
    (tmp_path / "new").write_bytes(b"b")
    for _ in range(2):
        eye.look()
    (tmp_path / "old").write_bytes(b"c")
    seen = eye.look()

    assert sorted(read) == ["new", "new", "new", "old", "old"]
    assert seen["old"]["bytes"] == b"c"


def test_a_file_that_cannot_be_read_is_told_by_its_error(tmp_path, monkeypatch):
    """A tree with an unreadable file is still a tree."""
    (tmp_path / "log").write_bytes(b"x")
    eye = tree.Tree(tmp_path, lambda content: content)
    monkeypatch.setattr(eye, "_mask", lambda _content: (_ for _ in ()).throw(PermissionError(13, "no")))

    assert eye.look()["log"]["unreadable"] == "EACCES"


def test_the_first_differing_part_is_named():
    """A mismatch in nested values is narrowed down to its path, and to the text around it."""
    left = {"a": 1, "b": [{"c": b"x" * 300 + b"left"}]}
    right = {"a": 1, "b": [{"c": b"x" * 300 + b"right"}]}

    (found,) = compare("case", [("same", 1), ("what", left)], [("same", 1), ("what", right)])

    assert found.what == "what b 0 c"
    assert (found.sync, found.candidate) == ("…" + "x" * 40 + "left", "…" + "x" * 40 + "right")


def test_absence_is_a_difference_too():
    """A missing key, a shorter list and a missing end are each shown."""
    assert windows(*narrow({"a": 1}, {})[1:])[1] == "(nothing)"
    assert narrow([1, 2], [1])[0] == ["1"]
    (end,) = compare("case", [("one", 1), ("two", 2)], [("one", 1)])
    assert (end.what, end.sync, end.candidate) == ("two", "2", "(nothing)")
    (more,) = compare("case", [("one", 1)], [("one", 1), ("two", 2)])
    assert (more.what, more.sync, more.candidate) == ("two", "(nothing)", "2")


def test_only_the_first_few_mismatches_of_a_case_are_told():
    """What follows from the first difference does not fill the report."""
    sights = [(str(number), number) for number in range(10)]

    assert len(compare("case", sights, [(what, -1) for what, _ in sights])) == MOST


def test_long_texts_are_cut_on_both_ends():
    """No mismatch fills the screen."""
    left, right = windows("a" * 1000 + "b" + "c" * 1000, "a" * 1000 + "d" + "c" * 1000)

    assert len(left) == len(right) == 162
    assert left.startswith("…a")
    assert left.endswith("c…")


def test_time_passes_with_requests():
    """The clock's answers in a request do not depend on how often an earlier one asked."""
    clock = Clock()
    busy = [clock(), clock(), clock()]

    clock.next_request()

    assert busy == [START + CALL, START + 2 * CALL, START + 3 * CALL]
    assert clock() == START + REQUEST + CALL


async def test_a_listener_that_hung_up_gets_nothing_and_tells_once():
    """After `hang_up` sending fails, and whoever asked to be told has been told once."""
    told = []
    listener = Listener()
    listener.on_close(lambda: told.append("gone"))

    before = listener.send(b"1")
    listener.hang_up()
    listener.hang_up()

    await listener.writable()
    assert [before, listener.send(b"2")] == [True, False]
    assert (told, listener.take()) == (["gone"], [b"1"])


def test_frames_of_a_client_that_left_are_still_told():
    """What a client got before it hung up is seen; the name then stands for a new connection."""
    listeners = Listeners()
    old = listeners.get("one")
    old.send(b"1")

    listeners.hang_up("one")
    listeners.hang_up("nobody")
    listeners.get("one").send(b"2")

    assert old is not listeners.get("one")
    assert listeners.take() == {"one": [b"1", b"2"]}
    assert listeners.take() == {}


def test_every_action_is_harmless_where_there_is_nothing(tmp_path):
    """Actions on a missing file change nothing but what they are to put there."""
    path = tmp_path / "var/log"

    for act in (actions.tear, actions.rotate, actions.unblock):
        act(path)
    actions.block(path)
    for act in (actions.block, actions.remove, actions.tear, actions.rotate, actions.unblock):
        act(path)

    assert list((tmp_path / "var").iterdir()) == []
    assert ACTIONS - {"@restart", "@connect", "@hangup"} == set(actions.ON_FILE)


def test_actions_tear_rotate_remove_and_block(tmp_path):
    """Each action does to a file what its name says, rotation with a new number each time."""
    path = tmp_path / "log"
    for number in (1, 2):
        path.write_bytes(b"%d\n" % number)
        actions.rotate(path)
    path.write_bytes(b"3\n")
    actions.tear(path)
    actions.block(path)
    blocked = path.is_dir()
    actions.unblock(path)

    assert blocked
    assert path.read_bytes() == b"3\n" + actions.TORN_TAIL
    assert [(tmp_path / f"log.{number}").read_bytes() for number in (1, 2)] == [b"1\n", b"2\n"]
    actions.remove(path)
    actions.remove(path)
    assert not path.exists()


async def test_settling_waits_for_tasks_and_takes_their_errors():
    """All that runs in the background is waited for, and errors that nobody took are told, once."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("lost")

    def burst() -> None:
        raise KeyError("in a callback")

    with settle.Settling() as settling:
        task = asyncio.create_task(fail())
        asyncio.get_running_loop().call_soon(burst)
        errors = await settling.settle()
        again = await settling.settle()

    assert task.done()
    assert "ValueError('lost')" in errors
    assert any("KeyError('in a callback')" in error for error in errors)
    assert again == []


async def test_settling_waits_only_once_for_a_task_that_lasts(monkeypatch):
    """A task that does not end is left alone after the first time."""
    monkeypatch.setattr(settle, "PATIENCE", 0.01)
    lasting = asyncio.create_task(asyncio.Event().wait())

    with settle.Settling() as settling:
        await settling.settle()
        monkeypatch.setattr(settle, "PATIENCE", 60)
        await settling.settle()

    assert not lasting.done()
    lasting.cancel()


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_coroutine_is_struck_at_the_chosen_await(number):
    """The cancellation comes at exactly that await, and the coroutine sees it as any cancelled task does."""
    reached = []

    async def three() -> str:
        for step in range(3):
            reached.append(step)
            await asyncio.sleep(0)
        return "done"

    struck = Struck(three(), lambda at: at == number)
    task = asyncio.create_task(struck.run())
    await asyncio.wait([task])

    assert task.cancelled()
    assert struck.struck
    assert list(range(number + 1)) == reached


async def test_a_coroutine_that_is_not_struck_goes_through():
    """Beyond the last await nothing happens: the result comes, errors thrown in are the coroutine's."""

    async def tolerant() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "done"

    struck = Struck(tolerant(), lambda at: at == 0)
    survived = await asyncio.create_task(struck.run())
    unstruck = Struck(asyncio.sleep(0, "slept"), lambda at: at == 5)

    assert (survived, await unstruck.run()) == ("done", "slept")
    assert (struck.struck, unstruck.struck) == (True, False)


def _trial(kind: Any) -> Trial:
    """A trial of which only the kind of its room matters."""
    return Trial(replace(BUILT[0], kind=kind), Scratch(Path()))


@pytest.mark.parametrize(
    ("seen", "ok"),
    [
        ([b"", b"a\nb\n"], True),
        ([b"", b"a\n", b"a\nb\n"], True),
        ([b"a\nb", b"a\nb\n"], False),
        ([b"b\n", b"a\nb\n"], False),
        ([b"", b"a\n"], False),
    ],
)
def test_a_reader_may_see_only_what_stood_between_two_calls(seen, ok):
    """Half a line, a wrong line and a missing end are mismatches."""
    found = _judged("case", _trial("append"), [b"", b"a\n", b"a\nb\n"], seen)

    assert ok is not bool(found.mismatches)


@pytest.mark.parametrize(("kind", "ok"), [("append", True), ("replace", False)])
def test_a_growing_file_may_be_seen_at_a_page(kind, ok):
    """The kernel shows one write page by page, on either side; a replaced file has no such excuse."""
    last = b"x" * (2 * PAGE) + b"\n"

    found = _judged("case", _trial(kind), [b"", last], [b"", last[:PAGE], last])

    assert ok is not bool(found.mismatches)


def test_a_copy_holds_no_links_and_leaves_out_what_is_not_data(tmp_path):
    """Links become what they lead to, also in circles; sockets, pipes and the daemon's places do not come."""
    source = tmp_path / "var"
    (source / "run").mkdir(parents=True)
    (source / "logs/run").mkdir(parents=True)
    (source / "logs/loop").symlink_to(source)
    (source / "logs/dangling").symlink_to("nowhere")
    (source / "logs/log").write_bytes(b"x")
    (source / "logs/log").chmod(0o440)
    (source / "logs/link").symlink_to("log")
    os.mkfifo(source / "logs/fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(source / "logs/s"))

        copy_tree(source, tmp_path / "copy")

    found = look(tmp_path / "copy")
    assert list(found) == ["logs", "logs/link", "logs/log", "logs/run"]
    assert found["logs/log"]["mode"] == "0o640"
    assert found["logs/link"]["type"] == "file"


def test_a_root_is_taken_with_its_configuration_and_laid_down_again(tmp_path):
    """Beside var/ come the configuration files, but neither flags nor secrets nor folders; times stay."""
    root = tmp_path / "ksi"
    for name in (
        "var/logs/a.jsonl",
        "var/run/s",
        "ksi_daemon.yaml",
        "extra.json",
        "flags.yaml",
        ".env",
        "src/x.yaml",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    os.utime(root / "ksi_daemon.yaml", ns=(10**18, 10**18))
    copy, place = tmp_path / "copy", tmp_path / "place"

    given.take(root, copy)
    place.mkdir()
    given.lay(copy, place)

    found = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    assert found == ["extra.json", "ksi_daemon.yaml", "var/logs/a.jsonl"]
    assert (place / "ksi_daemon.yaml").stat().st_mtime_ns == 10**18
    assert (place / "ksi_daemon.yaml").read_bytes() == b"ksi_daemon.yaml"


@pytest.mark.parametrize("what", ["root", "var"])
def test_backups_that_were_taken_belong_to_the_files_beside_them(tmp_path, what):
    """Their records name the file in its new place, whatever letters its path has; nothing else is edited."""
    root = tmp_path / "Größe"
    shelf = root / "var/tmp/backups/config"
    shelf.mkdir(parents=True)
    (shelf / "a").write_text(f"{root}/x")
    (shelf / "a.meta").write_text(json.dumps({"original_path": f"{root}/ksi_daemon.yaml"}, indent=2))
    (shelf / "b.meta").write_text(json.dumps({"original_path": f"{root}-2/ksi_daemon.yaml"}, indent=2))
    place = tmp_path / "place"
    place.mkdir()

    given.take(root if what == "root" else root / "var", tmp_path / "copy")
    given.lay(tmp_path / "copy", place)

    shelf = place / "var/tmp/backups/config"
    assert json.loads((shelf / "a.meta").read_text())["original_path"] == f"{place}/ksi_daemon.yaml"
    assert json.loads((shelf / "b.meta").read_text())["original_path"] == f"{root}-2/ksi_daemon.yaml"
    assert (shelf / "a").read_text() == f"{root}/x"


def test_scratch_settings_do_not_read_the_environment(tmp_path, monkeypatch):
    """A `KSI_*` path outside the scratch cannot lead parity there."""
    monkeypatch.setenv("KSI_RESPONSE_LOG_DIR", "/elsewhere")

    assert tmp_path / "var/logs/responses" == Isolated(root=tmp_path).response_log_dir


def test_junit_can_hold_any_text(tmp_path):
    """Characters that XML cannot carry are written as escapes."""
    mismatch = Mismatch("a \x00 case", "what \x1b", "\x00", "\ud800 <&>")

    junit.write(tmp_path / "j.xml", [("room", (Outcome("a \x00 case", (mismatch,)),))])

    case = ET.parse(tmp_path / "j.xml").getroot()[0][0]
    assert case.attrib["name"] == "a \\x00 case"
    assert case[0].text == "sync:  \\x00\nasync: \\xd800 <&>"
