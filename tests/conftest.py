"""What every test gets: hypothesis profiles, the gate on skips, and the counts and seed of long proofs."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from ksi_daemon import zygote
from tests import families, threads
from tests.plugins import skips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEFAULT_SEED = 20250712

SLOW_MACHINES = [HealthCheck.too_slow]  # two shared cores: a slow example says nothing about the code
settings.register_profile("default", deadline=None, suppress_health_check=SLOW_MACHINES)
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=SLOW_MACHINES)
settings.register_profile("soak", deadline=None, max_examples=2_000, suppress_health_check=SLOW_MACHINES)


def soaking() -> bool:
    """Whether the long proofs run in full (`make soak`)."""
    return skips.is_on(os.environ.get("KSI_SOAK"))


def pytest_configure(config: pytest.Config) -> None:
    """Load the hypothesis profile that the environment asks for, and the plugin that judges skips."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.load_profile("soak" if soaking() else "ci" if skips.is_on(os.environ.get("CI")) else "default")
    config.pluginmanager.register(skips, skips.__name__)


@pytest.fixture
def count() -> Callable[[int, int], int]:
    """`count(short, full)`: how often a long proof repeats; the full number only under `make soak`."""
    return lambda short, full: full if soaking() else short


@pytest.fixture(autouse=True, scope="session")
def _one_zygote() -> Iterator[None]:
    """Keep the process from which workers are forked: each of a thousand rooms would start its own."""
    with zygote.kept():
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
