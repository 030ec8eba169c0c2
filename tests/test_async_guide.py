"""docs/async-guide.md: every block of code in it runs and shows what the text says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs/async-guide.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(found[1], found[2], found.start()) for found in FENCE.finditer(GUIDE.read_text(encoding="utf-8"))]
COMMENT = re.compile(r"#\s*wrong\b")


def heading(start: int) -> str:
    """The heading that a place in the guide stands under."""
    before = GUIDE.read_text(encoding="utf-8")[:start]
    return re.findall(r"^## (.+)$", before, re.MULTILINE)[-1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory; a block may change the umask, which is put back."""
    monkeypatch.chdir(tmp_path)
    umask = os.umask(0o022)
    yield tmp_path
    os.umask(umask)


@pytest.mark.parametrize(
    ("code", "start"),
    [(code, start) for _, code, start in BLOCKS],
    ids=[f"{number} {heading(start)}" for number, (_, _, start) in enumerate(BLOCKS, 1)],
)
def test_a_block_runs(place, code, start):
    """In a directory and a namespace of its own; what it asserts is what the guide claims."""
    line = GUIDE.read_text(encoding="utf-8")[:start].count("\n") + 1

    exec(compile("\n" * line + code, str(GUIDE), "exec"), {"__name__": "guide"})  # lines as in the guide

    assert re.search(r"\bassert\b|AssertionError", code)


def test_every_block_is_python():
    """There is none that the test above would not run, and no fence without its end."""
    assert {language for language, _, _ in BLOCKS} == {"python"}
    assert GUIDE.read_text(encoding="utf-8").count("```") == 2 * len(BLOCKS)
    assert len(BLOCKS) >= 8


def test_wrong_and_right_are_told_apart():
    """Most sections show what is wrong as well as what is right."""
    wrong = [heading(start) for _, code, start in BLOCKS if COMMENT.search(code)]

    assert len(set(wrong)) >= 6


def test_the_guide_has_its_parts():
    """Patterns, pitfalls and a checklist, as the analysis asks of the training."""
    text = GUIDE.read_text(encoding="utf-8")

    assert len(re.findall(r"^- \[ \] ", text, re.MULTILINE)) >= 10
    assert "## Pitfalls" in text
