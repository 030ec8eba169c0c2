"""Where things lie and how much is allowed: the `KSI_*` settings, from the environment and `.env`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ksi_daemon.errors import SettingInvalid

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """Every setting as `KSI_<NAME>`; relative paths lie below `root`. Sizes are bytes, times seconds.

    The names and defaults of the first block are the original daemon's; the second block is ours.
    """

    model_config = SettingsConfigDict(env_prefix="KSI_", extra="ignore", frozen=True)

    root: Path
    socket_path: Path = Path("var/run/daemon.sock")
    daemon_pid_file: Path = Path("var/run/ksi_daemon.pid")
    log_dir: Path = Path("var/logs")
    daemon_log_dir: Path = Path("var/logs/daemon")
    response_log_dir: Path = Path("var/logs/responses")
    state_dir: Path = Path("var/state")
    db_dir: Path = Path("var/db")
    daemon_tmp_dir: Path = Path("var/tmp")
    identity_storage_path: Path = Path("var/db/identities.json")
    sandbox_dir: Path = Path("var/sandbox")
    compositions_dir: Path = Path("var/lib/compositions")
    fragments_dir: Path = Path("var/lib/compositions/fragments")
    schemas_dir: Path = Path("var/lib/schemas")
    capabilities_dir: Path = Path("var/lib/capabilities")
    claude_bin: str | None = None
    claude_progress_timeout: Seconds = 300.0
    claude_retry_backoff: Seconds = 30.0
    completion_default_model: str = "claude-cli/claude-sonnet-4-20250514"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["console", "json"] = "console"
    error_verbosity: Literal["minimal", "medium", "verbose"] = "medium"

    flags_path: Path = Path("flags.yaml")
    file_events: bool = True
    max_line_bytes: Positive = 1024 * 1024
    max_connections: Positive = 1000
    max_in_flight: Positive = 1024
    max_unread_bytes: Positive = 16 * 1024 * 1024
    request_timeout: Seconds = 30.0
    call_timeout: Seconds = 10.0
    drain_timeout: Seconds = 5.0
    stop_timeout: Seconds = 4.0
    offline_queue_limit: Positive = 1000
    claude_parallel: Positive = 8
    claude_grace: Seconds = 5.0
    claude_max_output_bytes: Positive = 16 * 1024 * 1024
    claude_env: str = ""
    completion_queue_limit: Positive = 1000
    completion_retries: Annotated[int, Field(ge=0)] = 2
    conversation_refresh_s: Annotated[float, Field(ge=0)] = 0.0
    config_max_bytes: Positive = 8 * 1024 * 1024
    config_backups: Positive = 50
    discovery_tree: Path = Path()
    discovery_rg: str | None = None
    discovery_parallel: Positive = 2
    discovery_timeout: Seconds = 10.0
    discovery_fresh: Seconds = 2.0
    discovery_max_matches: Positive = 1000
    discovery_max_bytes: Positive = 256 * 1024
    discovery_max_file_bytes: Positive = 1024 * 1024
    measure_loop: bool = False
    retire_hold_days: Annotated[int, Field(ge=0)] = 14

    @field_validator("*", mode="after")
    @classmethod
    def _below_root(cls, value: object, info: Any) -> object:
        if isinstance(value, Path) and info.field_name != "root":
            return Path(os.path.normpath(info.data["root"] / value))
        return value

    @field_validator("log_level", "log_format", "error_verbosity", mode="before")
    @classmethod
    def _case(cls, value: object, info: Any) -> object:
        if isinstance(value, str):
            return value.upper() if info.field_name == "log_level" else value.lower()
        return value

    @property
    def lock_path(self) -> Path:
        """Held exclusively by the running daemon of this root (flock)."""
        return self.root / "var/run/daemon.lock"

    @property
    def migrate_dir(self) -> Path:
        """Stages, ceilings and the journal of the migration."""
        return self.root / "var/migrate"

    @property
    def cache_dir(self) -> Path:
        """What can be deleted at any moment."""
        return self.root / "var/cache"


def load(root: Path | str | None = None) -> Settings:
    """The settings of one root: the argument, else `KSI_HOME`, else the working directory.

    `.env` in the root is read too; the environment wins. Raises `SettingInvalid`.
    """
    place = _place(str(root or os.environ.get("KSI_HOME") or "."))
    try:
        return Settings(root=place, _env_file=place / ".env")  # type: ignore[call-arg]  # pydantic-settings adds it
    except UnicodeDecodeError as error:
        raise SettingInvalid(".env", f"{place / '.env'}", f"a file in UTF-8: {error.reason}") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = "KSI_" + "_".join(str(part) for part in first["loc"]).upper()
        raise SettingInvalid(name, str(first.get("input")), first["msg"]) from None


def _place(root: str) -> Path:
    """An absolute path that JSON can name: replies, journal and errors all tell paths."""
    try:
        place = Path(root).expanduser().absolute()
        str(place).encode()
    except (RuntimeError, UnicodeEncodeError):
        wanted = "the path of a directory, in UTF-8, whose ~user exists"
        raise SettingInvalid("KSI_HOME or --root", root, wanted) from None
    return place
