"""Settings for scratch directories: the defaults, whatever the environment says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ksi_daemon.settings import Settings

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings, PydanticBaseSettingsSource


class Isolated(Settings):
    """Reads no `KSI_*`: one could name a directory outside the scratch, and parity would write there."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings passes all five by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the code gives."""
        return (init_settings,)
