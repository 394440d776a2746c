"""Every round trip to the server, as a verb. The only door to the data of a network.

``Store`` puts the families together: tasks, reads, roster. ``_member`` holds what one worker writes.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ._store_boards import BoardVerbs
from ._store_roster import RosterVerbs
from ._wire import Link, command


class Store(RosterVerbs, BoardVerbs):
    """One network on one server; see ``StoreBase`` for its contract."""

    def info(self) -> dict[str, int | float | str]:
        """What the server says of itself (INFO), numbers as numbers."""
        text: bytes = self.link.call(command("INFO"))
        lines = (line.partition(":") for line in text.decode().splitlines() if not line.startswith("#"))
        return {name: _number(value) for name, _, value in lines if name}

    def snapshots(self) -> list[tuple[int, int]]:
        """When the server writes snapshots: (seconds, changes) pairs. StoreError where it may not be
        asked."""
        found = self.link.call(command("CONFIG", "GET", "save"))
        numbers = [int(word) for word in found[1].decode().split()]
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    def set_snapshots(self, schedule: Sequence[tuple[int, int]]) -> None:
        """Sets when the server writes snapshots; never, where empty. StoreError where that is not allowed."""
        words = " ".join(f"{seconds} {changes}" for seconds, changes in schedule)
        self.link.call(command("CONFIG", "SET", "save", words))

    def save_snapshot(self) -> None:
        """Has the server begin to write a snapshot of all it holds. StoreError where that is not allowed."""
        self.link.call(command("BGSAVE", "SCHEDULE"))

    def listen(self, after: str | None = None) -> OrderListener:
        """Orders given from now on, or after one that was read, on a connection of their own."""
        return OrderListener(self, after)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


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
