"""The real `claude` command is installed whole and as pinned, or not at all."""

import json
import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests import real_claude
from tests.plugins import skips

OLD, NEW = real_claude.PINNED

NPM = """\
#!/bin/sh
echo "$@" >> {calls}
while [ "$1" != --prefix ]; do shift; done
mkdir -p "$2/node_modules/.bin" && touch "$2/node_modules/.bin/claude"
cp {lock} "$2/node_modules/.package-lock.json"
exit {code}
"""


class Npm:
    """A program in place of npm that lays down what a lock file says was installed."""

    def __init__(self, place):
        self.place = place
        self.calls = place / "calls"
        place.mkdir()

    def make(self, integrity, code=0):
        """Have it install an archive with that checksum, and end so."""
        package = {"integrity": f"sha512-{integrity}"}
        lock = self.place / "lock"
        lock.write_text(json.dumps({"packages": {f"node_modules/{real_claude.PACKAGE}": package}}))
        program = self.place / "npm"
        program.write_text(NPM.format(calls=self.calls, lock=lock, code=code))
        program.chmod(0o755)

    def count(self):
        """How often it was called."""
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """The program on PATH, and an empty cache."""
    made = Npm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.place}:/usr/bin:/bin")
    monkeypatch.setenv("KSI_CLAUDE_CACHE", str(tmp_path / "cache"))
    return made


def test_installed_once(npm):
    """A version that is there is not asked for again, and nothing lies beside it."""
    npm.make(real_claude.PINNED[NEW])
    real_claude.install(NEW)
    real_claude.install(NEW)

    assert npm.count() == 1
    assert os.listdir(real_claude.cache()) == [NEW]
    assert Path(real_claude.cache(), NEW, "node_modules/.bin/claude").exists()


@pytest.mark.parametrize(("integrity", "code"), [("b3RoZXI=", 0), (real_claude.PINNED[NEW], 1)])
def test_nothing_left_of_a_failure(npm, integrity, code):
    """An archive with another checksum, or a failure of npm, leaves nothing in the cache."""
    npm.make(integrity, code)

    with pytest.raises(real_claude.NotInstalled):
        real_claude.install(NEW)
    assert os.listdir(real_claude.cache()) == []


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_failure_counts_in_ci(npm, monkeypatch, capsys, ci, code):
    """What cannot be installed is said; it is an error in CI alone."""
    npm.make("b3RoZXI=")
    monkeypatch.setenv("CI", ci)

    assert real_claude.main() == code
    assert f"claude {OLD} has the checksum" in capsys.readouterr().err


def test_skipped_with_a_reason(npm):
    """A version that is not there is named, with what to do about it; in CI no such skip is allowed."""
    (npm.place / "node").touch(0o755)

    with pytest.raises(
        real_claude.NotInstalled, match=r"is not installed: `make claude` does that"
    ) as raised:
        real_claude.program(OLD)
    patterns = skips.allowed_patterns(Path(real_claude.REPO, skips.LIST).read_text(encoding="utf-8"))
    assert [pattern for pattern in patterns if fnmatchcase(str(raised.value), pattern)] == []
