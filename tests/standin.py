"""The stand-in for the `claude` command: laid down where a test wants it, and what it wrote down."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).parent.parent
VERSIONS = {"1.0.51": "1.0.51", "2.1": "2.1.112"}
"""Manners that it has: a new session id with each turn, and the same one throughout."""

SHELL = """\
#!/bin/sh
: "${{CLAUDE_CODE_MAX_RETRIES:={retries}}}"
export CLAUDE_CODE_MAX_RETRIES {variables}
exec {interpreter} -I -S -c {code} "$@"
"""


def place(
    path: Path, version: str = "2.1", orders: str = "", *, journal: Path | None = None, retries: int = 0
) -> Path:
    """An executable at `path` with one version's manners, and `path`; any environment will do for it.

    `orders` are directives (`[[wait 1]]`) that hold for each turn. `retries` is how often it tries an API
    that fails, unless `CLAUDE_CODE_MAX_RETRIES` says so.
    """
    variables = {"STANDIN_VERSION": VERSIONS[version], "STANDIN": orders}
    if journal is not None:
        variables["STANDIN_JOURNAL"] = str(journal)
    code = f"import sys; sys.path.insert(0, {str(REPO)!r}); from tests.standin_claude import main; main()"
    text = SHELL.format(
        retries=retries,
        variables=" ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items()),
        interpreter=shlex.quote(sys.executable),
        code=shlex.quote(code),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def journal_of(path: Path) -> list[dict[str, Any]]:
    """What each turn wrote when it began (`at`: "begin") and, unless it was killed, when it ended ("end")."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def overlapping(records: list[dict[str, Any]]) -> int:
    """How many turns at the most were under way at the same time."""
    most = running = 0
    for record in sorted(records, key=lambda record: record["time"]):
        running += 1 if record["at"] == "begin" else -1
        most = max(most, running)
    return most
