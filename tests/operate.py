"""An operator at the command line: `ksi-migrate` in this process or in one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any
from unittest import mock

from ksi_migrate import cli
from tests.daemon import PATIENCE, environment

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = [sys.executable, "-c", "from ksi_migrate.cli import main; main()"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout; fails when there is more or less."""
        return json.loads(self.out)

    def stages(self, key: str = "effective") -> dict[str, Any]:
        """One column of the components."""
        return {row["name"]: row[key] for row in self.document["components"]}


def migrate(*words: object) -> Ended:
    """The command in this process, off a terminal."""
    out, err = StringIO(), StringIO()
    argv = ["ksi-migrate", *map(str, words)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as ended:
            return Ended(int(ended.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("main always exits")


def migrate_apart(*words: object, before: Callable[[], None] | None = None, **env: str) -> Ended:
    """The command in a process of its own; `before` runs in it first, and then it is not measured."""
    variables = environment(**env)
    if before is not None:  # what `before` takes away, coverage may need for its own file
        variables = {key: value for key, value in variables.items() if not key.startswith("COV")}
    done = subprocess.run(
        [*PROGRAM, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=variables,
        timeout=PATIENCE * 2,
        preexec_fn=before,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
