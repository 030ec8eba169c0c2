"""Which calls may block: the guard's tables."""

from __future__ import annotations

AUDITED = (
    "open",
    "os.chmod",
    "os.chown",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.getxattr",
    "os.link",
    "os.listdir",
    "os.listxattr",
    "os.lockf",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.removexattr",
    "os.rename",
    "os.rmdir",
    "os.scandir",
    "os.setxattr",
    "os.spawn",
    "os.symlink",
    "os.system",
    "os.truncate",
    "os.utime",
    "fcntl.flock",
    "fcntl.lockf",
    "mmap.__new__",
    "pty.spawn",
    "socket.getaddrinfo",
    "socket.gethostbyaddr",
    "socket.gethostbyname",
    "socket.getnameinfo",
    "sqlite3.connect",
    "subprocess.Popen",
)
"""Audit events of calls that may wait for a disk, a lock, a child or a name server. `open` is os.open too,
`os.rename` os.replace, `os.remove` os.unlink, `os.truncate` os.ftruncate."""

LEFT_TO_AUDIT = (
    "os.rename",
    "os.replace",
    "os.remove",
    "os.unlink",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.listdir",
)
"""Patches of blockbuster that would only record what the audit hook records."""

PLAIN_CALLS = (
    "os.fdatasync",
    "os.fsync",
    "os.lstat",
    "os.pread",
    "os.preadv",
    "os.pwrite",
    "os.pwritev",
    "os.readv",
    "os.sync",
    "os.writev",
)
FILE_METHODS = (
    "io.FileIO.read",
    "io.FileIO.readall",
    "io.FileIO.readinto",
    "io.FileIO.write",
    "io.BufferedWriter.flush",
    "io.BufferedReader.readline",
    "io.BufferedReader.readinto",
    "io.TextIOWrapper.readline",
    "io.TextIOWrapper.flush",
)
"""Calls and methods that neither an audit event nor blockbuster knows; os.waitpid is one more."""
