"""Threads under coverage and an audit hook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

MANY_AT_ONCE = """
import sys, threading
from coverage import Coverage
from tests import tracers

sys.setswitchinterval(1e-6)
sys.addaudithook(lambda _event, _args: None)
measured = Coverage(data_file=None)
measured.start()
tracers.take_turns()
ran = []
for _ in range(300):
    threads = [threading.Thread(target=ran.append, args=(1,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
measured.stop()
print(len(ran))
"""


def test_no_thread_dies_while_another_installs_its_tracer() -> None:
    """Without turns some of them do, and whoever waits for such a thread waits for ever."""
    done = subprocess.run(
        [sys.executable, "-c", MANY_AT_ONCE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )

    assert (done.stdout, done.stderr) == ("2400\n", "")
