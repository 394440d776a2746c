"""A plain socket and hiredis, nothing else: what a round trip costs before any library is there."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import hiredis

from rushlight._sockets import CHUNK, adaptive

PING = hiredis.pack_command(("PING",))
#: Commands that may be without an answer before half of the answers are waited for: as our client does it.
MOST_OWED = 128


class RawSocket:
    """Blocking, with one connection to a server. Errors of the server are raised."""

    def __init__(self, address: str | tuple[str, int], *, looks: bool = False) -> None:
        """``looks``: it waits as ours do, adaptively."""
        self._socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self._socket.connect(address)
        if not isinstance(address, str):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader(notEnoughData=False)
        self._receive = adaptive(self._socket) if looks else partial(self._socket.recv, CHUNK)
        self._owed = 0

    def ping(self) -> None:
        """One PING and its reply."""
        self.ask(PING)

    def two_pings(self) -> None:
        """Two of them, one after the other."""
        self.ask(PING)
        self.ask(PING)

    def ask(self, command: bytes) -> Any:
        """One packed command and its reply."""
        self._socket.sendall(command)
        while True:
            self._reader.feed(self._receive())
            reply = self._reader.gets()
            if reply is not False:
                return _sound(reply)

    def ask_for_much(self, command: bytes) -> None:
        """The same where the reply may be large."""
        self._socket.sendall(command)
        while self._reader.gets() is False:
            self._reader.feed(self._socket.recv(1 << 20))

    def post(self, command: bytes) -> None:
        """One packed command whose reply is read later, with others."""
        self._socket.sendall(command)
        self._owed += 1
        if self._owed > MOST_OWED:
            self.settle(MOST_OWED // 2)

    def settle(self, leave: int = 0) -> None:
        """Reads replies to posts until so many are left."""
        while self._owed > leave:
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._receive())
            else:
                _sound(reply)
                self._owed -= 1

    def close(self) -> None:
        self._socket.close()


def _sound(reply: Any) -> Any:
    if isinstance(reply, hiredis.ReplyError):
        raise reply
    return reply
