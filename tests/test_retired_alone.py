"""One component retired while others have two sides: its sync side deleted, `sync=None` in its place."""

from __future__ import annotations

import json
import sys

import pytest

from ksi_migrate import leftovers
from tests.daemon import running
from tests.project_copy import MIGRATE, PARTS, copy_of, edit, python

pytestmark = pytest.mark.unmeasured
ALONE = "conversation"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project without the sync side of one component, as `ksi-migrate retire` says it is to be done."""
    project = copy_of(tmp_path_factory.mktemp("alone") / "project", *PARTS)
    room = project / "ksi_daemon" / ALONE
    (room / "sync.py").unlink()
    edit(room / "__init__.py", (r"from \S+\.sync import \w+\n", ""), (r"sync=\w+,", "sync=None,"))
    edit(project / "flags.yaml", (rf"(\n  {ALONE}): sync", r"\1: async"))
    return project


def ended(project, *words, code=0):
    """The JSON document of a command on the copy, which must end with that code."""
    done = python(project, "-c", MIGRATE, *words, "--root", str(project), "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_flags_know_only_async(project, tmp_path):
    """Anything else is refused, with the reason."""
    other = tmp_path / "flags.yaml"
    other.write_text((project / "flags.yaml").read_text().replace(f"{ALONE}: async", f"{ALONE}: sync"))

    assert ended(project, "flags", "validate")["ok"]
    [told] = ended(project, "flags", "validate", str(other), code=1)["errors"]
    assert "conversation is retired and must be async, not 'sync'" in str(told)


def test_there_is_nothing_to_compare_or_to_measure(project):
    """Asked for by name it is refused; the others are still compared."""
    for command in ("parity", "bench"):
        error = ended(project, command, ALONE, code=4)["error"]
        assert error["code"] == "retired"
        assert ALONE not in error["hint"]
    assert ended(project, "parity", "messaging")["ok"]


def test_nothing_is_left_to_delete(project):
    """The gate of `retire --check` is open: the flag no longer chooses."""
    assert not leftovers.two_sided(project, ALONE)
    left = leftovers.of_component(project, ALONE)
    assert [line for line in left.edit if not line.path.startswith("tests/")] == []


def test_its_daemon_serves_and_rolls_the_others_back(project):
    """A rollback of everything leaves it out and says so; one of it alone is refused."""
    program = [sys.executable, "-P", "-m", "ksi_daemon", "run", "--root"]
    with running(project, program=program, PYTHONPATH=str(project)) as daemon:
        assert daemon.ask("conversation:list")["conversations"] == []
        before = ended(project, "enable", "messaging", "--force", "--reason", "a test", "--yes")
        alone = ended(project, "rollback", ALONE, code=4)["error"]
        everything = ended(project, "rollback", "--all")
        stages = {row["name"]: row["effective"] for row in ended(project, "status")["components"]}
        assert daemon.ask("conversation:list")["conversations"] == []
        assert daemon.stop() == 0

    assert before["applied"]
    assert alone["code"] == "retired"
    assert f"left at async, since they are retired: {ALONE}" in everything["notes"]
    assert stages.pop(ALONE) == "async"
    assert set(stages.values()) == {"sync"}
