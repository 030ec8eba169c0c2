"""The KSI daemon: agents over a Unix socket, each I/O area with a sync and an async side."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ksi-migrate")
except PackageNotFoundError:  # run from a bare source tree
    __version__ = "0.0.0"
