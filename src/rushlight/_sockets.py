"""How a socket waits: for how long, and whether it sleeps meanwhile."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

#: Bytes read at once.
CHUNK = 1 << 16
#: Seconds an adaptive wait looks before it sleeps: long enough for a near server that has to be woken itself,
#: has cold caches then, and answers somebody else on this core first.
_LOOKING = 400e-6
#: Waits that are slept through after one that was looked for in vain: at first, at most, and what each look
#: that paid leaves of them. So one in a hundred in vain costs little, and one in twenty nearly ends looking.
_REST, _MOST_REST, _EASE = 16.0, 4096.0, 0.98


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


def shut(sock: Any) -> None:
    """Ends the connection of a socket, if there is one: whoever waits on it goes on, and the other side hears
    of it even where a forked process has a copy."""
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def adaptive(sock: Any) -> Callable[[], bytes]:
    """``sock.recv`` that looks again and again before it sleeps, as being woken costs more than a whole
    answer of a near server. Between two looks it lets others run. Where the answer did not come in time, the
    server is far away, or others want this core and keep it for milliseconds: it sleeps through the next
    waits, through more the more time that took, and through twice as many each time. Only for plain sockets;
    others get their ``recv``."""
    if type(sock) is not socket.socket:
        return lambda: sock.recv(CHUNK)
    receive, let_others_run, clock = sock.recv, os.sched_yield, time.perf_counter
    at_once, asleep, rest = int(socket.MSG_DONTWAIT), 0, _REST

    def look() -> bytes:
        nonlocal asleep, rest
        if asleep:
            asleep -= 1
            return receive(CHUNK)
        start = clock()
        end = start + _LOOKING
        data = None
        while data is None:
            try:
                data = receive(CHUNK, at_once)
            except BlockingIOError:
                if clock() > end:
                    break
                let_others_run()
        now = clock()
        if now > end:
            lost = (now - start) / _LOOKING
            asleep, rest = int(min(lost * rest, _MOST_REST)), min(2 * rest, _MOST_REST)
        elif rest > _REST:
            rest = max(_REST, _EASE * rest)
        return receive(CHUNK) if data is None else data

    return look
