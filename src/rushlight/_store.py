"""Every round trip to the server, as a verb. The only door to the data of a network.

``Store`` puts the families together: tasks, reads, roster, boards, the server itself. ``_member`` holds what
one worker writes.
"""

from __future__ import annotations

import select
from dataclasses import dataclass

import msgspec

from ._store_boards import BoardVerbs
from ._store_calls import CallVerbs
from ._store_roster import RosterVerbs
from ._store_server import ServerVerbs
from ._wire import Link, command


class Store(RosterVerbs, CallVerbs, BoardVerbs, ServerVerbs):
    """One network on one server; see ``StoreBase`` for its contract."""

    def listen(self, after: str | None = None) -> OrderListener:
        """Orders given from now on, or after one that was read, on a connection of their own."""
        return OrderListener(self, after)


@dataclass(frozen=True, slots=True)
class Order:
    """A word to supervisors. ``kill``: these workers end for good. ``replace``: the life of the one worker
    that the token names ends, and a new process takes its place. ``reload``: these workers leave after the
    task at hand and begin again with the start arguments ``spec``."""

    op: str
    worker_ids: tuple[str, ...]
    token: str = ""
    spec: str = ""


class OrderListener:
    """Waits for orders without blocking its thread: select on ``fileno()``, then ``read()``.

    Raises StoreUnavailable when the connection breaks; make another listener then, and look after the
    workers once, for what was missed.
    """

    #: Seconds after which the server answers empty-handed, so that a dead connection is noticed.
    BLOCK = 20.0

    def __init__(self, store: Store, after: str | None = None) -> None:
        self._key = store.keys["orders"]
        self.cursor = store.last_order() if after is None else after
        self._link = Link(store.config, store.link.whereabouts, checked=True)
        self._descriptor = self._ask()

    def _ask(self) -> int:
        parts = ("XREAD", "BLOCK", int(self.BLOCK * 1000), "STREAMS", self._key, self.cursor)
        return self._link.send(command(*parts))

    def fileno(self) -> int:
        return self._descriptor

    def read(self) -> list[Order]:
        """The orders that have come; empty when there are none yet. Does not block."""
        orders: list[Order] = []
        while select.select([self._descriptor], [], [], 0)[0]:
            replies = self._link.receive()
            if not replies:
                continue
            for _key, entries in replies[0] or ():
                for identity, fields in entries:
                    self.cursor = identity.decode()
                    said = msgspec.msgpack.decode(fields[1])
                    orders.append(
                        Order(
                            said["op"], tuple(said["worker_ids"]), said.get("token", ""), said.get("spec", "")
                        )
                    )
            self._descriptor = self._ask()
        return orders

    def close(self) -> None:
        self._link.close()
