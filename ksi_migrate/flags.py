"""`ksi-migrate flags`: validate a flags file, for CI, and print its JSON schema, for editors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ksi_daemon import flags
from ksi_migrate.exits import Exit, document

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class FlagsReport:
    """Whether one file is valid; `errors` say file, line, reason."""

    path: str
    errors: tuple[str, ...]
    components: dict[str, str]

    @property
    def exit_code(self) -> Exit:
        """1 for an invalid file."""
        return Exit.FINDING if self.errors else Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` body; shapes in docs/commands.md."""
        valid = not self.errors
        body = {"path": self.path, "valid": valid, "errors": list(self.errors), "components": self.components}
        return document("flags validate", ok=valid, **body)


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """The schema of flags.yaml for the components of this release."""

    schema: dict[str, Any]
    exit_code: Exit = Exit.DONE

    def document(self) -> dict[str, Any]:
        """The `--json` body; without `--json` the schema alone is printed."""
        return document("flags schema", ok=True, schema=self.schema)


def validate(path: Path) -> FlagsReport:
    """Read and check a file as the daemon does. Writes nothing."""
    try:
        found = flags.parse(flags.read(path), path=path)
    except flags.FlagsInvalid as error:
        return FlagsReport(str(path), (str(error),), {})
    return FlagsReport(str(path), (), {name: str(stage) for name, stage in found.components.items()})


def schema() -> SchemaReport:
    """The JSON schema (draft 2020-12) that flags.schema.json holds."""
    return SchemaReport(flags.schema())
