"""`kill -9` at every system call of a save: the old file or the new, and the next open removes the rest."""

from __future__ import annotations

import signal
from itertools import count

import pytest

from tests.faults import python
from tests.identity_sides import beside, many, opened, planted, site_of, stored
from tests.rooms import SIDES

OLD, NEW = many(3), many(100, 200)
pytestmark = pytest.mark.unmeasured
TEMP = ".identities.0123456789abcdef.tmp"

SAVE = """
import asyncio, secrets, sys
from pathlib import Path
from tests.identity_sides import many, opened, site_of
secrets.token_hex = lambda _count: "0123456789abcdef"  # so that strace can be told which file to look at
async def main(root, side):
    async with opened(side, site_of(root, "fsync")) as store:
        await store.save(many(100, 200), ["agent-0"])
asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""

CALLS = ["/stat", "/^open", "/^writev?$", "/^fchmod", "/^fsync", "/^close$", "/^rename"]
"""What a save asks of its file, its temporary one and their directory; strace counts each by itself."""


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("call", CALLS)
async def test_killed_at_a_system_call(tmp_path, side, call):
    """The first one … the last: the file is whole, what is left is swept, a stranger's dotfile stays."""
    found, left = [], set()
    for number in count(1):
        site = site_of(tmp_path / str(number), "fsync")
        path = planted(site, stored(OLD))
        path.with_name(".stranger.tmp").touch()
        looks = [part for one in (path, path.with_name(TEMP), path.parent) for part in ("-P", str(one))]
        kill = ("-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}")
        done = python(SAVE, tmp_path / str(number), side, strace=(*looks, *kill))
        found.append(path.read_bytes())
        left.update(beside(site))

        async with opened(side, site) as store:
            assert beside(site) == [".stranger.tmp", "identities.json"]
            held = await store.load()
            await store.save({**held, "last": 1}, ["last"])
        assert path.read_bytes() == stored({**held, "last": 1})
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr

    assert len(found) > 1
    assert found == sorted(found, key=[stored(OLD), stored(NEW)].index)
    assert found[-1] == stored(NEW)
    assert TEMP in left or call in {"/stat", "/^open"}  # which come before it is there, or behind it
