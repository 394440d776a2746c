"""How long a socket waits."""

from __future__ import annotations

import socket
import struct
from typing import Any


def set_timeout(sock: Any, seconds: float) -> None:
    """How long the socket waits for bytes to come, or to go. A plain one has the kernel see to it, as
    ``settimeout`` would cost a poll per call; it raises BlockingIOError then."""
    if type(sock) is not socket.socket:
        sock.settimeout(seconds)
        return
    if sock.gettimeout() is not None:
        sock.settimeout(None)
    whole = int(seconds)
    value = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
