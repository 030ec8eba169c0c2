"""The index, in this process: what is read again and what is not, and when it is not believed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ksi_daemon import filetimes
from ksi_daemon.conversation import counted, scan
from ksi_daemon.conversation.core import Tally
from ksi_daemon.conversation.logfile import BLOCK, Seen, blocks
from ksi_daemon.linesplitter import LARGEST_LINE
from ksi_daemon.worker import Turn
from tests.talks import folder_of, lay, lines, said

GOOD = said("user", 0, "x" * 7000)
OLD = time.time() - 3600


class Keeper:
    """The jobs of a refresh as one daemon's workers do them, and what they tell it."""

    def __init__(self, root):
        self.folder = str(folder_of(root))
        self.path = str(root / "var/cache/conversations.json")
        self.known = ""
        self.rows: dict[str, tuple] = {}
        self.bytes = self.files = 0

    def refresh(self):
        """Messages by session, after one refresh; `bytes` and `files` are what it read."""
        turn = Turn()
        plan = scan.refresh(turn, self.folder, self.path, self.known)
        parts = [word for word in turn.told if isinstance(word, scan.Part)]
        reads = [plan.rest, *(scan.read(turn, self.folder, part.todo) for part in parts)]
        if plan.whole:
            self.rows.clear()
        for session in (*plan.gone, *(session for read in reads for session in read.missing)):
            self.rows.pop(session, None)
        words = [word for word in turn.told if not isinstance(word, scan.Part)]
        self.rows.update((row[0], row) for word in words for row in word)
        self.bytes, self.files = sum(one.size for one in reads), sum(one.files for one in reads)
        self.known = plan.base
        for one in reads:
            self.known = scan.settle(turn, self.folder, self.path, self.known, plan.gone, one.found)
        return {session: row[3] for session, row in sorted(self.rows.items())}

    def keep(self):
        """Save the index."""
        return scan.keep(Turn(), self.folder, self.path)

    def restart(self):
        """Another process, which knows only what was saved."""
        scan._indexes.clear()
        self.known = ""
        self.rows.clear()


@pytest.fixture
def keeper(tmp_path):
    """An index over two logs that nobody touches any more: a large one, and a small one."""
    folder = lay(tmp_path, a=[GOOD] * 10, b=[GOOD] * 2)
    for path in folder.iterdir():
        os.utime(path, (OLD, OLD))
    yield settled(Keeper(tmp_path))
    scan._indexes.clear()


def settled(made):
    """After one refresh, long enough after the last change of any file."""
    time.sleep(filetimes.TICK_NS / 1e9)
    made.refresh()
    return made


def path_of(keeper, session="a"):
    """A session's log."""
    return os.path.join(keeper.folder, f"{session}.jsonl")


def append(keeper, *entries, session="a"):
    """Add lines to a log."""
    with open(path_of(keeper, session), "ab") as file:
        file.write(lines(*entries))


def test_unchanged_logs_are_not_read_again(keeper):
    """Nor is anything told."""
    keeper.rows.clear()
    found = keeper.refresh()

    assert (found, keeper.files, keeper.bytes) == ({}, 0, 0)


def test_a_log_that_grew_is_read_from_where_it_ended(keeper):
    """Only its new bytes; only its row is told."""
    append(keeper, GOOD, GOOD)
    keeper.rows.clear()
    found = keeper.refresh()

    assert (found, keeper.files, keeper.bytes) == ({"a": 12}, 1, len(lines(GOOD, GOOD)))


def test_a_small_log_that_grew_is_read_again(keeper):
    """All of it: that costs less than to find out whether its beginning can be trusted."""
    append(keeper, GOOD, session="b")
    keeper.rows.clear()
    found = keeper.refresh()

    assert 3 * len(lines(GOOD)) < counted.SMALL
    assert (found, keeper.files, keeper.bytes) == ({"b": 3}, 1, len(lines(GOOD, GOOD, GOOD)))


def test_it_goes_on_where_the_last_whole_line_ended(keeper):
    """Half a line is read again when the rest has come."""
    half = lines(GOOD)[:50]
    with open(path_of(keeper), "ab") as file:
        file.write(half)
    torn = keeper.refresh()
    skipped = keeper.rows["a"][9]
    with open(path_of(keeper), "ab") as file:
        file.write(lines(GOOD)[50:])
    whole = keeper.refresh()

    assert (torn["a"], skipped, whole["a"], keeper.rows["a"][9]) == (10, 1, 11, 0)
    assert keeper.bytes == len(lines(GOOD))


def test_what_is_gone_is_told(keeper):
    """And what is new."""
    os.unlink(path_of(keeper))
    lay_path = os.path.join(keeper.folder, "c.jsonl")
    with open(lay_path, "wb") as file:
        file.write(lines(GOOD))

    assert keeper.refresh() == {"b": 2, "c": 1}


def replaced(path):
    """Another file of the same size and times."""
    found = os.stat(path)
    other = f"{path}.new"
    with open(other, "wb") as file:
        file.write(
            lines(*[said("user", 0, "y" * 200)] * 9) + b"{" + b"-" * (found.st_size - 9 * 272 - 2) + b"\n"
        )
    os.truncate(other, found.st_size)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    os.rename(other, path)


def rewritten(path):
    """The same file, the same size and modification time, other bytes."""
    found = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"!")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def shortened(path):
    """Cut to fewer lines."""
    os.truncate(path, len(lines(GOOD)) * 3)


def begun_anew(path):
    """Cut and written again, longer than before."""
    with open(path, "wb") as file:
        file.write(lines(*[said("human", 1, "z" * 200)] * 20))


@pytest.mark.parametrize(
    ("change", "messages"), [(replaced, None), (rewritten, 9), (shortened, 3), (begun_anew, 20)]
)
def test_what_is_another_log_is_read_whole(keeper, change, messages):
    """Inode, size, both times and the ends of what was read must all be as they were."""
    change(path_of(keeper))
    found = keeper.refresh()

    assert keeper.bytes == os.path.getsize(path_of(keeper))
    if messages is not None:
        assert found["a"] == messages


def test_a_large_log_with_another_beginning_is_read_whole(tmp_path):
    """It has grown, but not from what was counted."""
    lay(tmp_path, a=[GOOD] * 2000)
    made = settled(Keeper(tmp_path))
    with open(path_of(made), "r+b") as file:
        file.write(b"!")
    append(made, GOOD)
    found = made.refresh()

    assert (found["a"], made.bytes) == (2000, os.path.getsize(path_of(made)))


def test_a_log_that_may_have_changed_unseen_is_looked_at_again(tmp_path):
    """Its times are so young that another write could have left them as they are."""
    lay(tmp_path, a=[GOOD], big=[GOOD] * 12)
    made = Keeper(tmp_path)
    made.refresh()
    again = made.refresh()

    assert (again, made.files) == ({"a": 1, "big": 12}, 2)
    assert made.bytes == len(lines(GOOD))
    time.sleep(filetimes.TICK_NS / 1e9)
    made.refresh()
    made.refresh()
    assert made.files == 0


def test_whole_seconds_are_waited_for_longer():
    """A file system that keeps no parts of a second may hide a change for as long."""
    second = 1_752_340_000_000_000_000
    coarse = Seen(1, 1, 1, second, second)
    fine = Seen(1, 1, 1, second + 5, second)

    assert not counted._is_settled(coarse, second + 2_000_000_000)
    assert counted._is_settled(coarse, second + 3_000_000_000)
    assert counted._is_settled(fine, second + 100_000_000)


def test_the_index_survives_a_restart(keeper):
    """It is saved when there is something new, and then all is told and nothing read."""
    saved = [keeper.keep(), keeper.keep()]
    keeper.restart()
    append(keeper, GOOD)
    found = keeper.refresh()

    assert saved == [True, False]
    assert (found, keeper.files, keeper.bytes) == ({"a": 11, "b": 2}, 1, len(lines(GOOD)))
    assert os.stat(keeper.path).st_mode & 0o777 == 0o600


def changed_head(keeper, **fields):
    """The saved index with another head."""
    with open(keeper.path, "rb") as file:
        head, body = file.read().split(b"\n", 1)
    with open(keeper.path, "wb") as file:
        file.write(json.dumps({**json.loads(head), **fields}).encode() + b"\n" + body)


def odd_rows(keeper):
    """A saved index whose digest is right and whose rows are not."""
    index = scan._indexes[keeper.folder]
    body = b'[["a", 1, 2]]'
    with open(keeper.path, "wb") as file:
        file.write(json.dumps(index._head(body)).encode() + b"\n" + body)


def directory(keeper):
    """A directory in the index's place."""
    os.unlink(keeper.path)
    os.mkdir(keeper.path)


def link(keeper):
    """A link to the index in its place."""
    os.rename(keeper.path, f"{keeper.path}.x")
    os.symlink(f"{keeper.path}.x", keeper.path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda keeper: os.truncate(keeper.path, 100),
        lambda keeper: Path(keeper.path).write_bytes(b""),
        lambda keeper: Path(keeper.path).write_bytes(Path(keeper.path).read_bytes() + b"x"),
        lambda keeper: changed_head(keeper, version=0),
        lambda keeper: changed_head(keeper, folder="/elsewhere"),
        odd_rows,
        directory,
        link,
    ],
)
def test_an_index_that_is_odd_counts_for_nothing(keeper, spoil):
    """Cut, empty, longer, of another version or directory, with odd rows, a directory, a link."""
    keeper.keep()
    spoil(keeper)
    keeper.restart()

    assert keeper.refresh() == {"a": 10, "b": 2}
    assert keeper.files == 2


def test_another_process_that_has_taken_over_takes_nothing_in(keeper):
    """What was found belongs to an index that is gone; the next scan begins anew."""
    append(keeper, GOOD)
    plan = scan.refresh(Turn(), keeper.folder, keeper.path, keeper.known)
    keeper.restart()
    version = scan.settle(Turn(), keeper.folder, keeper.path, plan.base, (), plan.rest.found)

    assert version == ""
    assert keeper.refresh() == {"a": 11, "b": 2}


def test_a_log_that_vanishes_or_cannot_be_read_while_it_is_read(keeper, monkeypatch):
    """The one is gone, the other is left out, and tried again the next time."""
    append(keeper, GOOD)
    append(keeper, GOOD, session="b")
    real = counted.count

    def count(folder, session, kept, check):
        if session == "b":
            raise PermissionError
        os.unlink(path_of(keeper))
        return real(folder, session, kept, check)

    with monkeypatch.context() as patched:
        patched.setattr(counted, "count", count)
        none = keeper.refresh()

    assert none == {}
    assert keeper.refresh() == {"b": 3}


def test_a_log_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    """It is taken as far as it goes, and read again the next time."""
    lay(tmp_path, a=[GOOD] * 3000)
    made = Keeper(tmp_path)
    real = os.pread

    def pread(fd, size, at):
        if at == BLOCK:
            os.truncate(path_of(made), at)
        return real(fd, size, at)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", pread)
        first = made.refresh()
    second = made.refresh()

    assert 0 < first["a"] <= second["a"] + 1
    assert second["a"] == BLOCK // len(lines(GOOD))


def test_work_is_cut_into_parts(tmp_path, monkeypatch):
    """By bytes and by files; the keeper reads what is left over."""
    lay(tmp_path, **{f"s{number:02}": [GOOD] for number in range(10)}, big=[GOOD] * 10)
    monkeypatch.setattr(scan, "FILES", 4)
    monkeypatch.setattr(scan, "FIRST", len(lines(GOOD)) * 9)
    turn = Turn()
    made = Keeper(tmp_path)
    plan = scan.refresh(turn, made.folder, made.path, "")
    parts = [word.files for word in turn.told if isinstance(word, scan.Part)]
    scan._indexes.clear()

    assert sum(parts) + plan.rest.files == plan.total == 11
    assert max(parts) == 4
    assert len(parts) >= 2


def test_blocks_are_whole_lines(tmp_path):
    """Whatever the size of the pieces: the same lines, and where each block ends."""
    data = lines(*(b"x" * (number % 50) for number in range(200))) + b"tail"
    path = tmp_path / "log"
    path.write_bytes(data)
    with path.open("rb") as file:
        for size in (1, 7, 64, 10_000):
            found = list(blocks(file.fileno(), 0, len(data), lambda: None, size))
            assert b"".join(block for _, block in found) == data
            assert all(data[end - len(block) : end] == block for end, block in found)
            assert all(block.endswith(b"\n") for _, block in found[:-1])


def test_lines_of_the_largest_size(tmp_path, monkeypatch):
    """One of exactly 16 MiB counts, one byte more is damage; what follows counts again."""
    monkeypatch.setattr("ksi_daemon.conversation.logfile.LARGEST_LINE", 100)
    path = tmp_path / "log"
    data = b"a" * 100 + b"\n" + b"b" * 101 + b"\n" + b"c" * 350 + b"\nd\n" + b"e" * 101
    path.write_bytes(data)
    with path.open("rb") as file:
        for size in (1, 30, 64, 99, 100):
            monkeypatch.setattr("ksi_daemon.conversation.logfile.BLOCK", size)
            found = list(blocks(file.fileno(), 0, len(data), lambda: None, size))
            joined = b"".join(block for _, block in found)
            assert joined == b"a" * 100 + b"\n\xff\n\xff\nd\n\xff"
            assert found[-1][0] == len(data)
    assert LARGEST_LINE == 16 * 1024 * 1024


def test_a_tally_goes_on_from_what_it_counted():
    """Names, flags and stamps are kept."""
    tally = Tally()
    tally.add({"timestamp": "2025-07-12", "type": "DIRECT_MESSAGE", "from": "a"})
    later = Tally(tally.counts())
    later.add({"timestamp": "2025-07-13", "type": "human"})

    assert later.counts() == (2, 0, "2025-07-12", "2025-07-13", ("a",), False, True)


def test_participants_are_bounded():
    """A thousand names of a conversation are kept."""
    tally = Tally()
    for number in range(1200):
        tally.add({"timestamp": "2025-07-12", "type": "DIRECT_MESSAGE", "from": f"n{number}"})

    assert len(tally.counts().names) == 1000
