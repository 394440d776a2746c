"""One network on one server, as tests of the store stand on it: stores, members, tasks, accounts."""

from __future__ import annotations

from typing import Any, Self

import redis

from harness import Account, Server, account, keys_of
from rushlight import Rush
from rushlight._connect import StoreConfig
from rushlight._member import Member, Verdict
from rushlight._names import random_name, random_token
from rushlight._records import WorkerState
from rushlight._store import Store
from rushlight._store_roster import WorkerCard
from rushlight._store_tasks import Encoded
from rushlight._wire import Link


class Ground:
    """One network on one server: stores, members, tasks, and a plain client to see what is there."""

    def __init__(self, server: Server, network: str) -> None:
        self.server, self.network = server, network
        self.url = server.url
        self.raw: redis.Redis = server.client()
        self._stores: list[Store] = []
        self.store = self.another()

    def another(self, **settings: Any) -> Store:
        """A store of its own connection; ``settings`` are StoreConfig's."""
        self._stores.append(Store(StoreConfig.find(self.url, **settings), self.network))
        return self._stores[-1]

    def card(self, worker_id: str | None = None, **kwargs: Any) -> WorkerCard:
        """A new life of a worker."""
        return WorkerCard(worker_id or random_name(), random_token(), 1, "host", **kwargs)

    def member(self, worker_id: str | None = None, *, lease: float = 600.0, **kwargs: Any) -> Member:
        """A running worker with a connection of its own."""
        member = Member(self.another(), self.card(worker_id, **kwargs), lease)
        member.join(WorkerState.RUNNING)
        return member

    def encode(self, n: int = 1, retries: int = 0, **xs: Any) -> Encoded:
        """N tasks, encoded; ``i`` is their place."""
        options = [{"r": retries} if retries else None] * n
        return self.store.encode_tasks([{"i": i, **xs} for i in range(n)], [None] * n, options)

    def push(self, n: int = 1, retries: int = 0) -> list[str]:
        """Queues n tasks."""
        batch = self.encode(n, retries)
        self.store.push(batch)
        return batch.keys

    def begin(self, member: Member, n: int = 1) -> list[str]:
        """Creates n tasks running on the member."""
        batch = self.encode(n)
        member.begin(batch)
        return batch.keys

    def payload(self, **ys: Any) -> bytes:
        """Results as a script takes them."""
        return self.store.encode_results([ys], [None], {})[0]

    def condition(self, message: str = "no") -> bytes:
        return self.store.encode_condition({"message": message})

    def finishing(self, key: str, attempt: int = 1, **ys: Any) -> Verdict:
        return Verdict(key, attempt, "f", self.payload(**ys))

    def failing(self, key: str, attempt: int = 1, message: str = "no") -> Verdict:
        return Verdict(key, attempt, "x", self.condition(message))

    def finish(self, member: Member, key: str, attempt: int = 1, **ys: Any) -> bool:
        return member.settle([self.finishing(key, attempt, **ys)], {})[0]

    def fail(self, member: Member, key: str, attempt: int = 1, message: str = "no") -> bool:
        return member.settle([self.failing(key, attempt, message)], {})[0]

    def taken(self, values: list[bytes]) -> list[str]:
        """The keys of claimed records."""
        return [row[3] for row in self.store.running_rows(values)]

    def claim(self, member: Member, n: int = 1, timeout: float = 0.0) -> list[str]:
        return self.taken(member.claim(n, timeout))

    def expire(self, *members: Member) -> None:
        """Lets leases have run out long ago."""
        for member in members:
            self.raw.zadd(f"rl:{{{self.network}}}:leases", {member.card.worker_id: 1})

    def account(self) -> Account:
        found = account(self.raw, self.network)
        found.states()
        return found

    def states(self) -> dict[str, str]:
        """The state of every task, after the proof that the books agree."""
        return account(self.raw, self.network).states()

    def key(self, name: str) -> str:
        return f"rl:{{{self.network}}}:{name}"

    def disconnect(self) -> None:
        for store in self._stores:
            store.close()
        self.raw.close()

    def close(self) -> None:
        """Resets the network and looks whether a key is left."""
        for store in self._stores:
            store.close()
        with Rush(self.network, self.url) as rush:
            rush.reset()
        left = keys_of(self.raw, self.network)
        self.raw.close()
        self._stores.clear()
        assert [] == left


class Tape:
    """Everything a store or member sends, to be sent again as it was."""

    def __init__(self, owner: Store | Member) -> None:
        link: Link = getattr(owner, "store", owner).link
        self._link = link
        self.sent: list[tuple[bytes, int]] = []
        self._send = link._exchange
        link._exchange = self._exchange  # type: ignore[method-assign]

    def _exchange(self, commands: bytes, n: int, wait: float | None) -> list[Any]:
        self.sent.append((commands, n))
        return self._send(commands, n, wait)

    def play(self, at: int = -1) -> list[Any]:
        """Sends one of them again, from another connection; its replies."""
        commands, n = self.sent[at]
        late = Link(self._link.config)
        try:
            return late.call_many(commands, n)
        finally:
            late.close()


class Stats:
    """Counts the commands a server carries out in a block, of every client; ``INFO`` itself is left out."""

    def __init__(self, raw: redis.Redis) -> None:
        self._raw = raw
        self.calls: dict[str, int] = {}

    def _now(self) -> dict[str, int]:
        stats = self._raw.info("commandstats")
        return {
            name.removeprefix("cmdstat_").lower(): int(figures["calls"])
            for name, figures in stats.items()
            if not name.startswith(("cmdstat_info", "cmdstat_config", "cmdstat_client"))
        }

    def __enter__(self) -> Self:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        found = {name: n - self._before.get(name, 0) for name, n in self._now().items()}
        self.calls = {name: n for name, n in found.items() if n}


def blocked(ground: Ground) -> int:
    """Clients the server keeps waiting."""
    return int(ground.raw.info("clients")["blocked_clients"])


def hold_to_be_gone(store: Store, token: str) -> None:
    """Takes back what a collector holds, as one does who finds it gone."""
    while True:
        (found,) = (one for one in store.collectors()[1] if one.token == token)
        # Unless it was heard just now.
        if store.uncollect(found, store.given_to(found)):
            return


def lose_reply(owner: Any) -> None:
    """The next call of a store or member is carried out, but its reply never arrives."""
    link = getattr(owner, "store", owner).link
    exchange = link._exchange

    def without_reply(commands: bytes, n: int, wait: float | None) -> list[Any]:
        link._exchange = exchange
        exchange(commands, n, wait)
        raise ConnectionError("the reply is lost")

    link._exchange = without_reply


def new_tasks(*keys: str) -> Encoded:
    """Tasks under keys of the test's choice, as small as they can be."""
    heads = [b"\xc0" + bytes([0xA0 + len(key)]) + key.encode() + b"\x80\xc0" for key in keys]
    return Encoded(list(keys), heads, {})
