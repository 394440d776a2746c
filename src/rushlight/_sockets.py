"""How a socket waits: for how long, and whether it sleeps meanwhile."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import Any

#: Bytes read at once.
CHUNK = 1 << 16
#: How often an adaptive wait looks before it sleeps: long enough for a near server that has to be woken
#: itself. After how many waits in vain it begins anew.
_MOST_LOOKS, _REST = 100, 50


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


def adaptive(sock: Any) -> Callable[[], bytes]:
    """``sock.recv`` that looks again and again before it sleeps, as being woken costs more than a whole
    answer of a near server. Between two looks it lets others run. Where looking has been in vain it looks
    less, and soon not at all for a while. Only for plain sockets; others get their ``recv``."""
    if type(sock) is not socket.socket:
        return lambda: sock.recv(CHUNK)
    receive, let_others_run, at_once = sock.recv, os.sched_yield, int(socket.MSG_DONTWAIT)
    looks, rest = _MOST_LOOKS, 0

    def look() -> bytes:
        nonlocal looks, rest
        for _ in range(looks):
            try:
                data = receive(CHUNK, at_once)
            except BlockingIOError:
                let_others_run()
            else:
                looks = min(2 * looks, _MOST_LOOKS)
                return data
        looks //= 2
        rest += 1
        if not looks and rest >= _REST:
            looks, rest = _MOST_LOOKS, 0
        return receive(CHUNK)

    return look
