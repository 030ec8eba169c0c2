"""`doctor` on what conversations and configuration files need."""

from __future__ import annotations

import os

import pytest
import yaml

from ksi_daemon import beneath, settings
from ksi_migrate import checks_files


@pytest.fixture
def here(tmp_path):
    """The settings of an empty root."""
    return settings.load(tmp_path)


def test_libyaml_is_told(here, monkeypatch):
    """Its wheels have it; without it files are read in Python, which is a warning and no fault."""
    assert checks_files.libyaml(here).ok is hasattr(yaml, "CSafeLoader")
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    check = checks_files.libyaml(here)

    assert (check.ok, check.level) == (False, "warning")
    assert "pip install" in check.hint


@pytest.mark.parametrize("there", [True, False])
def test_openat2_is_told(here, monkeypatch, there):
    """Either is well: without it the same is done component by component."""
    monkeypatch.setattr(beneath, "_has_openat2", lambda: there)
    check = checks_files.openat2(here)

    assert (check.ok, check.level) == (there, "info")
    assert ("component" in check.found) is not there


def test_directories_may_be_missing(here):
    """The daemon makes them; a root on which no daemon has run is well."""
    assert checks_files.kept_files(here).ok


@pytest.mark.parametrize("place", ["var/cache", "var/state/exports", "var/tmp/backups", "var/state"])
def test_a_file_in_the_way_is_a_warning(here, place):
    """It is named, and so is what cannot be written because of it."""
    path = here.root / place
    path.parent.mkdir(parents=True)
    path.touch()
    check = checks_files.kept_files(here)

    assert (check.ok, check.level) == (False, "warning")
    assert f"{path} is no directory" in check.found


def test_a_directory_that_is_not_writable_is_a_warning(here, monkeypatch):
    """Also when it lies above the one that is missing."""
    monkeypatch.setattr(os, "access", lambda path, _mode: str(path) != str(here.root))

    assert f"{here.root} is not writable" in checks_files.kept_files(here).found
