"""Where things lie and how much is allowed: arguments, environment, `.env`, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from ksi_daemon import settings
from ksi_daemon.errors import SettingInvalid


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("KSI_"):
            monkeypatch.delenv(name)


def test_the_root_is_the_argument_then_ksi_home_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each comes before the next, and the root is absolute."""
    monkeypatch.chdir(tmp_path)
    here = settings.load().root
    monkeypatch.setenv("KSI_HOME", "home")
    home = settings.load().root
    given = settings.load("given").root

    assert (here, home, given) == (tmp_path, tmp_path / "home", tmp_path / "given")


def test_paths_lie_below_the_root(tmp_path: Path) -> None:
    """The original's places, whatever the working directory; what is ours beside them."""
    found = settings.load(tmp_path)

    assert found.socket_path == tmp_path / "var/run/daemon.sock"
    assert found.daemon_pid_file == tmp_path / "var/run/ksi_daemon.pid"
    assert found.response_log_dir == tmp_path / "var/logs/responses"
    assert (found.lock_path, found.migrate_dir, found.cache_dir) == (
        tmp_path / "var/run/daemon.lock",
        tmp_path / "var/migrate",
        tmp_path / "var/cache",
    )


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` in the root is read; a variable that is set comes first; names and words may have any case."""
    (tmp_path / ".env").write_text("KSI_LOG_LEVEL=debug\nKSI_MAX_CONNECTIONS=5\nOTHER=x\nKSI_FUTURE=1\n")
    monkeypatch.setenv("ksi_max_connections", "6")
    monkeypatch.setenv("KSI_LOG_FORMAT", "JSON")

    found = settings.load(tmp_path)

    assert (found.log_level, found.max_connections, found.log_format) == ("DEBUG", 6, "json")


def test_absolute_and_untidy_paths_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absolute path stays, a relative one is tidied."""
    monkeypatch.setenv("KSI_SOCKET_PATH", "/run/ksi.sock")
    monkeypatch.setenv("KSI_LOG_DIR", "a/../b/./c")

    found = settings.load(tmp_path)

    assert (found.socket_path, found.log_dir) == (Path("/run/ksi.sock"), tmp_path / "b/c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KSI_MAX_CONNECTIONS", "0"),
        ("KSI_MAX_CONNECTIONS", "many"),
        ("KSI_REQUEST_TIMEOUT", "-1"),
        ("KSI_LOG_LEVEL", "loud"),
        ("KSI_LOG_FORMAT", "xml"),
        ("KSI_MEASURE_LOOP", "perhaps"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The error has the variable and its value."""
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingInvalid) as raised:
        settings.load(tmp_path)

    assert str(raised.value).lower().startswith(f"{name}='{value}' is not usable: give ".lower())


def test_a_word_must_be_a_word(tmp_path: Path) -> None:
    """A level that is no text, as only code can give it, is refused too."""
    with pytest.raises(ValidationError, match="log_level"):
        settings.Settings(root=tmp_path, log_level=5)  # type: ignore[arg-type]  # the fault under test
