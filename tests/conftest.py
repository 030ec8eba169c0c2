"""What every test gets: hypothesis profiles, the gate on skips, and the counts and seed of long proofs."""

from __future__ import annotations

import gc
import os
import signal
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from coverage import Coverage
from coverage.exceptions import CoverageWarning
from hypothesis import HealthCheck, settings

from ksi_daemon import zygote
from tests import families, threads, tracers
from tests.plugins import skips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEFAULT_SEED = 20250712

SLOW_MACHINES = [HealthCheck.too_slow]  # two shared cores: a slow example says nothing about the code
settings.register_profile("default", deadline=None, suppress_health_check=SLOW_MACHINES)
settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=50, suppress_health_check=SLOW_MACHINES
)
settings.register_profile(
    "brief", deadline=None, derandomize=True, max_examples=5, suppress_health_check=SLOW_MACHINES
)
settings.register_profile("soak", deadline=None, max_examples=2_000, suppress_health_check=SLOW_MACHINES)


def soaking() -> bool:
    """Whether the long proofs run in full (`make soak`)."""
    return skips.is_on(os.environ.get("KSI_SOAK"))


def pytest_configure(config: pytest.Config) -> None:
    """Load the hypothesis profile that the environment asks for, and the plugin that judges skips."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if Coverage.current() is not None:
        tracers.take_turns()
    if config.getoption("numprocesses", None) is None:  # not in the one that starts those that run tests
        _measure_no_children()
    usual = "ci" if skips.is_on(os.environ.get("CI")) else "default"
    settings.load_profile("soak" if soaking() else os.environ.get("KSI_EXAMPLES", usual))
    config.pluginmanager.register(skips, skips.__name__)


def _measure_no_children() -> None:
    """What tests start runs lines that tests of this process run too; unmeasured it is twice as fast."""
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files whose tests may take longest, so that none of them is left alone at the end."""
    longest: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0.0), marker.args[0] if marker else 0.0)
    items.sort(key=lambda item: -longest[item.path])


def pytest_collection_finish() -> None:
    """Keep the cycle collector off what is there by now: a pass over all of it holds a loop for long."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def count() -> Callable[[int, int], int]:
    """`count(short, full)`: how often a long proof repeats; the full number only under `make soak`."""
    return lambda short, full: full if soaking() else short


@pytest.fixture(autouse=True, scope="session")
def _one_zygote() -> Iterator[None]:
    """Keep the process from which workers are forked: each of a thousand rooms would start its own."""
    with zygote.kept():
        yield


@contextmanager
def unmeasured() -> Iterator[None]:
    """Measure no coverage meanwhile."""
    found = Coverage.current()
    if found is None:
        yield
        return
    found.stop()
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CoverageWarning)  # that it did not see what came before
            found.start()


@pytest.fixture(autouse=True)
def _measured_or_not(request: pytest.FixtureRequest) -> Iterator[None]:
    """Spare the tests marked `unmeasured`: they run the same lines a thousand times, and twice as fast so."""
    if request.node.get_closest_marker("unmeasured") is None:
        yield
        return
    with unmeasured():
        yield


@pytest.fixture(autouse=True)
def _others_before() -> None:
    """Let a test tell its own threads and processes from those of others."""
    threads.begin()
    families.begin()


@pytest.fixture(autouse=True)
def _adopts_nobody() -> Iterator[None]:
    """See that no test leaves this process adopting: each orphan of a later one would stay as its zombie."""
    yield
    left = families.adopting()
    if left:
        families.stop_adopting()
    assert not left, "call families.stop_adopting() at the end"


@pytest.fixture
def seed() -> int:
    """Where a test's random numbers start; `KSI_SEED` sets it, so that a failure can be seen again."""
    return int(os.environ.get("KSI_SEED", DEFAULT_SEED))
