"""A copy of the project that a test may change, and Python run on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[1]
PARTS = ("ksi_daemon", "ksi_migrate", "tests", "flags.yaml", "pyproject.toml")
MIGRATE = "from ksi_migrate.cli import main; main()"


def copy_of(project, *parts):
    """These parts of the project, as they are, in an empty directory."""
    project.mkdir()
    for part in parts:
        source, target = REPO / part, project / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return project


def python(project, *words, timeout=50):
    """Run Python on a copy; unmeasured, since coverage could not find its files afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "KSI_", "CI"))}
    env = {**kept, "PYTHONPATH": str(project), "NO_COLOR": "1", "KSI_EXAMPLES": "brief"}
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=project, env=env, capture_output=True, text=True, timeout=timeout, check=False
    )


def edit(path, *changes):
    """Replace each pattern, which must be there."""
    text = path.read_text()
    for pattern, new in changes:
        text, found = re.subn(pattern, new, text)
        assert found, f"{path} has no {pattern!r} any more: the shape test must follow"
    path.write_text(text)
