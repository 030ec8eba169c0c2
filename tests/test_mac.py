"""One leg as on a Mac: no file events, no sd_notify, a shorter socket path, fsync by another name."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.daemon import PATIENCE, Running, environment, write_flags

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AS_A_MAC = """
import fcntl, os, sys, sysconfig
sysconfig.get_config_vars()  # reads a file that only Linux's Python has
flushes = []
sys.platform = "darwin"
fcntl.F_FULLFSYNC = 51
plain = fcntl.fcntl
def full(fd, command, *rest):
    if command != fcntl.F_FULLFSYNC:
        return plain(fd, command, *rest)
    flushes.append(fd)
    return os.fsync(fd)
fcntl.fcntl = full
from ksi_daemon import process, settings, transport
assert transport.PATH_LIMIT == 103
code = process.run(settings.load(sys.argv[1]))
print("full flushes:", len(flushes), flush=True)
sys.exit(code)
"""
"""Linux's kernel, but every branch of ours that asks for the platform takes the Mac's side."""


@pytest.fixture
def mac(tmp_path: Path) -> Iterator[Running]:
    """A daemon that believes to be on a Mac."""
    write_flags(tmp_path)
    variables = environment(KSI_FILE_EVENTS="false", KSI_LOG_FORMAT="json")
    with (tmp_path / "stderr.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", AS_A_MAC, str(tmp_path)], env=variables, stdout=log, stderr=log
        )
    daemon = Running(tmp_path, child, variables)
    try:
        daemon.wait_ready()
        yield daemon
    finally:
        child.kill()
        child.wait(PATIENCE)


def test_it_starts_flips_by_poll_and_stops(mac: Running) -> None:
    """Both flips arrive without file events, messages go on disk on either side, and it ends with 0."""
    with mac.wire() as wire, mac.wire() as sender:
        wire.ask("migration:subscribe")
        for n, stage in enumerate(["async", "sync"]):
            sender.ask("message:publish", agent_id="a", event_type="N", message={"n": 2 * n})
            write_flags(mac.root, messaging=stage)
            frame = wire.frame()
            assert frame is not None
            assert (frame["data"]["component"], frame["data"]["to"]) == ("messaging", stage)
            sender.ask("message:publish", agent_id="a", event_type="N", message={"n": 2 * n + 1})
    code = mac.stop()

    assert code == 0, mac.log()
    assert [record["n"] for record in mac.bus()] == [0, 1, 2, 3]


def test_durable_writes_ask_the_drive(mac: Running) -> None:
    """With `fsync` a record is flushed by F_FULLFSYNC, since fsync stops at the drive's cache there."""
    text = (mac.root / "flags.yaml").read_text(encoding="utf-8").replace("messaging: os", "messaging: fsync")
    (mac.root / "flags.yaml").write_text(text, encoding="utf-8")
    while mac.ask("migration:status")["components"][0]["durability"] != "fsync":
        mac.ask("migration:reload")
    mac.ask("message:publish", agent_id="a", event_type="N")
    mac.stop()

    assert int(mac.log().splitlines()[-1].removeprefix("full flushes: ")) >= 1


def test_a_path_that_only_linux_takes_is_refused(tmp_path: Path) -> None:
    """104 bytes are one too many, and the message says how many may be."""
    write_flags(tmp_path)
    path = "/tmp/" + "s" * 99  # never made
    done = subprocess.run(
        [sys.executable, "-c", AS_A_MAC, str(tmp_path)],
        env=environment(KSI_SOCKET_PATH=path),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "104 bytes" in done.stderr
    assert "103; set KSI_SOCKET_PATH to a shorter one" in done.stderr
