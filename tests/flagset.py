"""Components and a valid flags.yaml that do not change with the roadmap, for the tests of the flags."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A component as the flags see it."""

    name: str
    kind: str
    built: bool
    title: str = "a title"
    retired: bool = False


AREAS = (
    Row("messaging", "append", built=True),
    Row("completion", "append", built=True),
    Row("claude_cli", "process", built=False),
    Row("agent", "replace", built=False),
    Row("conversation", "read", built=False),
)
VALID = b"""\
# yaml-language-server: $schema=flags.schema.json
version: 1   # the layout
durability:
  messaging: fsync  # on the disk
components:
  messaging: async  # since Monday
  'completion': "sync"
  claude_cli: sync
  agent: sync

  # week 3
  conversation: sync
"""
