"""Readiness told to a service manager, on a real datagram socket."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from ksi_daemon import notify

if TYPE_CHECKING:
    from pathlib import Path


def test_a_state_is_one_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told arrives as it is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))

        told = notify.tell("READY=1")

        assert (told, manager.recv(100)) == (True, b"READY=1")


@pytest.mark.skipif(sys.platform != "linux", reason="abstract socket names are Linux's")
def test_an_abstract_name_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`@name` is a name in the abstract namespace."""
    name = f"ksi-{tmp_path.name}-{id(tmp_path)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")

        told = notify.tell("STOPPING=1")

        assert (told, manager.recv(100)) == (True, b"STOPPING=1")


@pytest.mark.parametrize("address", [None, "", "/nowhere/at/all"])
def test_nobody_listening_is_no_fault(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    """Without the variable, or with nobody there, nothing is told and nothing raised."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)

    assert notify.tell("READY=1") is False
