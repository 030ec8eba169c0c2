"""Paths in requests for configuration: nothing outside its place is read or written, on either side."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

import pytest

from ksi_daemon.config import AREA
from ksi_daemon.config.exercise_hostile import GUARDED, PATHS
from tests.configs import BACKUPS, FILE, ask, below, get, kept, lay, put, root_of
from tests.rooms import SIDES, room

REFUSED = ("path_refused", "not_found", "io_error")


@pytest.fixture(params=SIDES)
async def config(request, tmp_path):
    """The room on either side, in a directory beside which there is something to protect."""
    root = tmp_path / "root"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/outside.yaml").write_bytes(b"secret: 1\n")
    lay(
        root, {FILE: b"a: 1\n", "a/x.yaml": b"a: 1\n", "flags.yaml": b"version: 1\n", ".env": b"", "b/y": b""}
    )
    async with room(AREA, request.param, root) as made:
        yield made


async def every(config, path, kind="daemon"):
    """What all five operations say to a path."""
    named = {"config_type": kind, "file_path": path}
    return {
        "get": await get(config, **named),
        "set": await put(config, "b", 2, **named),
        "validate": await ask(config, "validate", **named),
        "backup": await ask(config, "backup", **named),
        "rollback": await ask(config, "rollback", **named),
    }


@pytest.mark.parametrize("path", [path for path in PATHS if not path.startswith("~")])
async def test_paths_that_lead_elsewhere(config, path):
    """Each operation refuses each of them, with a code, and changes nothing."""
    before = below(root_of(config))
    replies = await every(config, path)

    assert (await get(config, "a"))["value"] == 1
    assert {what: reply["code"] for what, reply in replies.items() if reply.get("code") not in REFUSED} == {}
    assert below(root_of(config)) == before


@pytest.mark.parametrize("link", ["../out/outside.yaml", "/etc/hostname", "../out", "/", "/proc/self/mem"])
async def test_links_that_lead_elsewhere(config, link):
    """As file and as directory on the way."""
    root = root_of(config)
    (root / "link").symlink_to(link)
    (root / "a/link").symlink_to(os.path.join("..", link) if not link.startswith("/") else link)
    before = below(root.parent)
    for path in ("link", "a/link", "link/outside.yaml", "a/link/outside.yaml", "link/etc/hostname"):
        replies = await every(config, path)
        assert {reply.get("code") for reply in replies.values()} <= {"path_refused", "not_found", "io_error"}
        assert "secret" not in str(replies)

    assert below(root.parent) == before


async def test_links_that_stay_inside_are_followed(config):
    """The file that they lead to is read and written, told by its own path, and the link stays."""
    root = root_of(config)
    (root / "link.yaml").symlink_to("a/x.yaml")
    reply = await put(config, "a", 2, file_path="link.yaml")

    assert reply["file_path"] == str(root / "a/x.yaml")
    assert (root / "link.yaml").is_symlink()
    assert (root / "a/x.yaml").read_bytes() == b"a: 2\n"


async def test_absolute_paths_below_the_base(config):
    """Are accepted; `/base2` is not below `/base`."""
    root = root_of(config)
    lay(root.parent, {"root2/x.yaml": b"a: 1\n"})

    assert (await get(config, "a", file_path=str(root / "a/x.yaml")))["value"] == 1
    assert (await get(config, "a", file_path=f"{root}2/x.yaml"))["code"] == "path_refused"


async def test_a_home_is_a_plain_name(config):
    """`~` and `~root` are literal."""
    await put(config, "a", 1, file_path="~")
    await put(config, "a", 1, file_path="~root/x.yaml")

    assert {"~", "~root/x.yaml"} <= set(below(root_of(config)))


@pytest.mark.parametrize("path", GUARDED)
async def test_what_requests_never_write(config, path):
    """flags.yaml, what is below var/ but var/lib/, .env, temporary files: not set, copied or brought back."""
    before = below(root_of(config))

    assert (await put(config, "a", 2, file_path=path))["code"] == "path_refused"
    for what in ("backup", "rollback"):
        assert (await ask(config, what, config_type="daemon", file_path=path))["code"] == "path_refused"
    assert below(root_of(config)) == before


async def test_what_is_guarded_is_so_behind_links(config):
    """A link to flags.yaml or into var/ is no way around; var/lib is open, and reading is not forbidden."""
    root = root_of(config)
    (root / "var").mkdir(exist_ok=True)
    (root / "link.yaml").symlink_to("flags.yaml")
    (root / "v").symlink_to("var")

    assert (await put(config, "a", 2, file_path="link.yaml"))["code"] == "path_refused"
    assert (await put(config, "a", 2, file_path="v/x.yaml"))["code"] == "path_refused"
    assert (await put(config, "a", 2, file_path="v/lib/x.yaml"))["status"] == "set"
    assert (await get(config, "version", file_path="flags.yaml"))["value"] == 1
    assert (root / "flags.yaml").read_bytes() == b"version: 1\n"


async def test_flags_that_are_a_link_are_guarded(config):
    """The file behind it is what must not change."""
    root = root_of(config)
    (root / "flags.yaml").rename(root / "real.yaml")
    (root / "flags.yaml").symlink_to("real.yaml")

    assert (await put(config, "a", 2, file_path="real.yaml"))["code"] == "path_refused"
    assert (await put(config, "a", 2, file_path="flags.yaml"))["code"] == "path_refused"


@pytest.mark.parametrize(
    "name", ["../x", "a/b", ".", "..", ".x", "x.meta", "x" * 251, "nul\0", "/etc/hostname"]
)
async def test_backup_names_are_plain(config, name):
    """One component, not hidden, not a record, short enough for one; anything else is refused."""
    for what in ("backup", "rollback"):
        reply = await ask(config, what, config_type="daemon", backup_name=name)
        assert reply == {"error": f"Backup name not allowed: {name}", "code": "path_refused"}
    assert kept(root_of(config)) == {}


async def test_backups_that_are_no_files(config):
    """A link or a FIFO among the backups is neither followed nor waited for."""
    root = root_of(config)
    name = (await ask(config, "backup", config_type="daemon"))["backup_name"]
    copy = root / BACKUPS / name
    copy.unlink()
    copy.symlink_to("/etc/hostname")
    linked = await ask(config, "rollback", config_type="daemon", backup_name=name)
    copy.unlink()
    os.mkfifo(copy)
    piped = await ask(config, "rollback", config_type="daemon", backup_name=name)

    assert (linked["code"], linked["errno"]) == ("io_error", "ELOOP")
    assert (piped["code"], piped["errno"]) == ("io_error", "EINVAL")
    assert (root / FILE).read_bytes() == b"a: 1\n"


async def test_files_that_are_none(config):
    """A directory and a FIFO are an error at once, for each operation."""
    root = root_of(config)
    os.mkfifo(root / "fifo")
    for path, number in (("fifo", "EINVAL"), ("a", "EISDIR")):
        replies = await every(config, path)
        assert {reply.get("errno") for what, reply in replies.items() if what != "rollback"} == {number}
        assert "error" in replies["rollback"]


async def test_a_directory_exchanged_for_a_link_meanwhile(config, count):
    """While sets run: each is written inside or refused, never outside."""
    root = root_of(config)
    (root / "d").mkdir()
    (root / "evil").symlink_to("../out")
    done = threading.Event()

    def exchange():
        os.symlink("../out", root / "l")
        os.mkdir(root / "m")
        while not done.is_set():
            for one in "lm":
                with suppress(OSError):
                    os.rename(root / "d", root / "aside")
                    os.rename(root / one, root / "d")
                    os.rename(root / "aside", root / one)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        replies = [
            await put(config, "a", n, file_path="d/x.yaml", create_backup=False)
            for n in range(count(60, 3_000))
        ]
    finally:
        done.set()
        thread.join()

    assert {reply.get("code", "set") for reply in replies} <= {"set", "path_refused", "io_error", "not_found"}
    assert sorted(os.listdir(root.parent / "out")) == ["outside.yaml"]
    assert (root.parent / "out/outside.yaml").read_bytes() == b"secret: 1\n"
