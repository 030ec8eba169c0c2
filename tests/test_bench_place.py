"""Bench's scratch directory: on a disk, private, gone at the end, and never the real daemon's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ksi_migrate import mounts
from ksi_migrate.bench_place import InMemory, NoScratch, scratch, settings_of
from ksi_migrate.exits import Exit

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own directory counts as a disk, wherever it lies."""
    monkeypatch.setattr(mounts, "kind", lambda _path: "ext4")


def test_it_is_removed_with_all_that_is_in_it(tmp_path: Path, disk: None):
    """It is private to its user and there only for the length of the block."""
    with scratch(tmp_path) as place:
        (place / "deep").mkdir()
        (place / "deep" / "file").touch()
        mode = place.stat().st_mode & 0o777

    assert mode == 0o700
    assert list((tmp_path / "var/tmp").iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_nothing(tmp_path: Path, disk: None, error: type[BaseException]):
    """Also Ctrl-C removes it."""
    with pytest.raises(error), scratch(tmp_path):
        raise error

    assert list((tmp_path / "var/tmp").iterdir()) == []


def test_memory_is_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On tmpfs bench is inconclusive, says so and leaves nothing."""
    monkeypatch.setattr(mounts, "kind", lambda _path: "tmpfs")

    with pytest.raises(InMemory, match="lies on tmpfs") as raised, scratch(tmp_path):
        pass

    assert raised.value.exit is Exit.INCONCLUSIVE
    assert list((tmp_path / "var/tmp").iterdir()) == []


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path):
    """The error says where, and what to do."""
    (tmp_path / "var").touch()

    with pytest.raises(NoScratch, match="no scratch directory in") as raised, scratch(tmp_path):
        pass

    assert "--root" in raised.value.hint


def test_settings_are_those_of_the_scratch_root_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A `KSI_RESPONSE_LOG_DIR` of the real daemon, set or in `.env`, does not lead bench to its logs."""
    monkeypatch.setenv("KSI_RESPONSE_LOG_DIR", "/elsewhere")
    (tmp_path / ".env").write_text("KSI_DAEMON_LOG_DIR=/elsewhere\n")

    settings = settings_of(tmp_path)

    assert settings.response_log_dir == tmp_path / "var/logs/responses"
    assert settings.daemon_log_dir == tmp_path / "var/logs/daemon"
