"""Verbs about the server itself: what it says of itself, its clock, its networks, its snapshots.

Nothing here belongs to one network; what an account may not ask raises StoreError.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ._keys import network_of, networks_pattern
from ._store_base import StoreBase, format_of, pairs
from ._wire import command

#: Keys a server looks at per step while it searches for networks.
_SCAN = 1000


@dataclass(frozen=True, slots=True)
class Clock:
    """One look at the server's clock: its time, the time here halfway, and how long the look took."""

    server: float
    here: float
    trip: float


@dataclass(frozen=True, slots=True)
class NetworkFound:
    """A network that lies on the server: its format, tasks and live workers, and for how many seconds nobody
    has read or written what keeps it together (None where the server does not tell)."""

    name: str
    format: int
    tasks: int
    live_workers: int
    idle: int | None


class ServerVerbs(StoreBase):
    """The server below the network."""

    def info(self) -> dict[str, int | float | str]:
        """What the server says of itself (INFO), numbers as numbers."""
        text: bytes = self.link.call(command("INFO"))
        lines = (line.partition(":") for line in text.decode().splitlines() if not line.startswith("#"))
        return {name: _number(value) for name, _, value in lines if name}

    def settings(self, *names: str) -> dict[str, str]:
        """Settings of the server by name. StoreError where they may not be asked."""
        found: list[bytes] = []
        for name in names:
            found += self.link.call(command("CONFIG", "GET", name))
        return {name.decode(): value.decode() for name, value in pairs(found)}

    def clock(self) -> Clock:
        """Asks the server for its time."""
        start, before = time.perf_counter(), time.time()
        seconds, microseconds = self.link.call(command("TIME"))
        trip = time.perf_counter() - start
        return Clock(int(seconds) + int(microseconds) / 1e6, before + trip / 2, trip)

    def networks(self) -> list[NetworkFound]:
        """The networks on this server (of a cluster: on this node), by name. Reads the names of all keys, in
        steps between which others are served."""
        cursor, names = b"0", set[str]()
        while True:
            scan = command("SCAN", cursor, "MATCH", networks_pattern(), "COUNT", _SCAN)
            cursor, keys = self.link.call(scan)
            names |= {network_of(key.decode()) for key in keys}
            if cursor == b"0":
                return [self._network(name) for name in sorted(names)]

    def _network(self, name: str) -> NetworkFound:
        keys = type(self.keys)(name)
        idle = self.link.call(command("OBJECT", "IDLETIME", keys["control"]))
        epoch, tasks, live = self.link.call_many(
            command("HGET", keys["control"], "epoch")
            + command("HLEN", keys["index"])
            + command("ZCARD", keys["leases"]),
            3,
        )
        return NetworkFound(name, format_of((epoch or b"").decode()), tasks, live, idle)

    def snapshots(self) -> list[tuple[int, int]]:
        """When the server writes snapshots: (seconds, changes) pairs. StoreError where it may not be
        asked."""
        numbers = [int(word) for word in self.settings("save")["save"].split()]
        return list(pairs(numbers))

    def set_snapshots(self, schedule: Sequence[tuple[int, int]]) -> None:
        """Sets when the server writes snapshots; never, where empty. StoreError where that is not allowed."""
        words = " ".join(f"{seconds} {changes}" for seconds, changes in schedule)
        self.link.call(command("CONFIG", "SET", "save", words))

    def save_snapshot(self) -> None:
        """Has the server begin to write a snapshot of all it holds. StoreError where that is not allowed."""
        self.link.call(command("BGSAVE", "SCHEDULE"))


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
