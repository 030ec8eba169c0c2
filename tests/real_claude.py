"""The real `claude` command: at pinned versions, outside the tracked files, and run without a network.

`python -m tests.real_claude` installs what is missing (`make claude`). Nothing of it is ever committed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.plugins import skips

PACKAGE = "@anthropic-ai/claude-code"
PINNED = {
    "1.0.51": "annBc4ez7nDPbp+di6bjIQGiAdmdVln4k3gAYioym2MxOEl3py5s7SsoR+dNSmfgfIHUdKBTbtXnXD5rkmO5aA==",
    "2.1.112": "9FUgJ0EOvILyhIqxFKNVliebiUjL68dwpEW3eGSSe0vkVDJ1c5qMDNWc22gW3zkD7zRAqtfQPSGv0t4vMM2DPA==",
}
"""Version → SHA-512 of its archive. The first answers each turn under a new session id, the second never."""

OLD, NEW = PINNED

REPO = Path(__file__).parent.parent
DUMMY = "dummy-not-a-key"
NOWHERE = "http://127.0.0.1:9"
PROXIES = {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1"}
"""Without a proxy 2.x looks its maker's host up at each start, whatever else is turned off. 1.0.51
does not, and would go to the loopback through it."""

QUIET = ("DISABLE_TELEMETRY", "DISABLE_ERROR_REPORTING", "DISABLE_AUTOUPDATER")
"""What the daemon passes on only because `KSI_CLAUDE_ENV` names it."""


class NotInstalled(Exception):
    """One version cannot be had, and why."""


def cache() -> Path:
    """Where the versions lie: `KSI_CLAUDE_CACHE`, else below `build/`."""
    return Path(os.environ.get("KSI_CLAUDE_CACHE") or REPO / "build/claude").absolute()


def program(version: str) -> Path:
    """The command of an installed version. Raises `NotInstalled`."""
    found = cache() / version / "node_modules/.bin/claude"
    if shutil.which("node") is None:
        raise NotInstalled("the real claude command needs node, which is not on PATH")
    if not found.exists():
        raise NotInstalled(f"claude {version} is not installed: `make claude` does that, with npm")
    return found


def environment(version: str, url: str, home: Path) -> dict[str, str]:
    """All that it gets: a home in the test's scratch, a dummy for a key, no retries, no way but to `url`."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.pathsep.join([str(Path(shutil.which("node") or "").parent), "/usr/bin", "/bin"]),
        "HOME": str(home),
        "TMPDIR": str(home),
        "ANTHROPIC_API_KEY": DUMMY,
        "ANTHROPIC_BASE_URL": url,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
        **dict.fromkeys(QUIET, "1"),
        **({} if version == OLD else PROXIES),
    }


def install(version: str) -> None:
    """Put one version into the cache, whole or not at all. Raises `NotInstalled`."""
    place = cache() / version
    if place.exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalled("npm is not on PATH")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{version}-", dir=place.parent) as beside:
        _npm(npm, Path(beside, "new"), version)
        _check(Path(beside, "new"), version)
        try:
            Path(beside, "new").rename(place)
        except OSError:
            if not place.exists():  # another run was as far a moment earlier
                raise


def _npm(npm: str, place: Path, version: str) -> None:
    place.mkdir()
    words = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--omit=optional"]
    line = [npm, "install", "--prefix", str(place), *words, f"{PACKAGE}@{version}"]
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        raise NotInstalled(f"npm ended with exit code {done.returncode}: {done.stderr.strip()}")


def _check(place: Path, version: str) -> None:
    lock = json.loads((place / "node_modules/.package-lock.json").read_text(encoding="utf-8"))
    found = lock["packages"][f"node_modules/{PACKAGE}"]["integrity"].removeprefix("sha512-")
    if found != PINNED[version]:
        raise NotInstalled(f"claude {version} has the checksum {found}, not the pinned {PINNED[version]}")


def main() -> int:
    """Install every pinned version at once; in CI one that cannot be had is an error."""
    with ThreadPoolExecutor(len(PINNED)) as pool:
        failures = [error for error in pool.map(_failure, PINNED) if error]
    for error in failures:
        sys.stderr.write(f"the real claude command is not there for the tests: {error}\n")
    return 1 if failures and skips.is_on(os.environ.get("CI")) else 0


def _failure(version: str) -> str:
    try:
        install(version)
    except NotInstalled as error:
        return str(error)
    return ""


if __name__ == "__main__":
    sys.exit(main())
