"""The controllers of a network beside this one: who is there, and whose turn it is to change the number of
workers.

Each counts what the others launch. That two do not launch for the same calls, or let go the same surplus
twice, is the turn's business: it is short, on the server, and ends by itself where its holder is killed.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ._names import random_token
from ._store import Store
from ._store_calls import Collecting
from .launchers.local import process_start

#: Seconds a turn may take, and for which those who were there are believed to be.
_TURN: Final = 5.0
_BELIEF: Final = 2.0


@dataclass(slots=True)
class Turn:
    """The time from a look to what is done about it. ``name`` tells it from all others."""

    store: Store
    name: str
    held: bool

    def __bool__(self) -> bool:
        return self.held

    def end(self) -> None:
        """What there is to be known is noted: the next may look. Idempotent."""
        if self.held:
            self.held = False
            self.store.lead(self.name, 0.0)


class Peers:
    """This controller, by its ``token``, among others."""

    def __init__(self, store: Store, token: str) -> None:
        self.token = token
        self._store = store
        self._there: frozenset[str] = frozenset()
        self._asked = -math.inf

    def there(self, *, belief: float = _BELIEF) -> frozenset[str]:
        """The tokens of the others that are there, as of ``belief`` seconds ago at most."""
        if time.monotonic() >= self._asked + belief:
            now, found = self._store.collectors()
            others = (one for one in found if one.token != self.token)
            self._there = frozenset(one.token for one in others if not is_gone(one, now))
            self._asked = time.monotonic()
        return self._there

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """A turn, or what is false where another controller has it."""
        name = f"{self.token}:{random_token()}"
        turn = Turn(self._store, name, self._store.lead(name, _TURN))
        try:
            yield turn
        finally:
            turn.end()


def process_name(pid: int) -> str:
    """What tells this process from every other."""
    return f"{socket.gethostname()}:{pid}:{process_start(pid)}"


def is_gone(collector: Collecting, now: float) -> bool:
    """Whether a collector will never say that it has handed out what it holds."""
    host, pid, _start = collector.process.rsplit(":", 2)
    if host == socket.gethostname() and os.path.isdir("/proc/self"):
        return process_name(int(pid)) != collector.process
    return collector.is_silent(now)
