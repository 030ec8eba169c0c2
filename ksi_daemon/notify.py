"""Readiness for a service manager: `sd_notify(3)` in one datagram, where NOTIFY_SOCKET asks for it."""

import contextlib
import os
import socket


def tell(state: str) -> bool:
    """Send one state, such as `READY=1`; False when nobody asked or nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):  # a name in Linux's abstract namespace
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)  # noqa: FBT003 - its only form
        out.sendto(state.encode(), address)
        return True
    return False
