"""What lies below the operations of our client: the same trips by hand, on a plain socket, with less in them.

From the bottom: pings; calls of a script that does nothing, with the keys and arguments of ours; the fewest
commands that move a record from container to container, as a script; and our own calls, byte by byte. What is
above the last is our client; between the last two is what our other promises cost.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import hiredis
from kit import XS, YS, Server
from raw import PING, RawSocket

from rushlight import RushWorker
from rushlight._ext_write import encode
from rushlight._keys import Keys
from rushlight._member import Member
from rushlight._names import new_key
from rushlight._scripts import Scripts, load
from rushlight._stems import Stems
from rushlight._store_tasks import NIL, head_of

INPUTS, RESULTS = encode(XS), encode(YS) + NIL
#: The names of the floors, from the bottom, as the tables have them.
PINGS, CALLS, FEWEST, OURS = "pings", "calls of an empty script", "fewest commands", "our calls by hand"


class Calls(Protocol):
    """Packed commands for one task at a time."""

    def begin(self, key: str) -> bytes: ...
    def finish(self, key: str) -> bytes: ...
    def step(self, key: str, new: str) -> bytes: ...
    def claim(self) -> bytes: ...
    def finish_claim(self, key: str) -> bytes: ...


class Pings:
    """A ping for each."""

    def begin(self, *_: str) -> bytes:
        return PING

    finish = step = claim = finish_claim = begin


class Ours:
    """What our client sends for a worker, with these scripts."""

    def __init__(self, member: Member, scripts: Scripts) -> None:
        self._stems = Stems(scripts, member._arguments(), member._worker, member._first)
        self._numbers = itertools.count(1)

    def begin(self, key: str) -> bytes:
        return self._stems.begin(key.encode(), head_of(key, INPUTS))

    def finish(self, key: str) -> bytes:
        return self._stems.finish(key.encode(), RESULTS)

    def step(self, key: str, new: str) -> bytes:
        return self._stems.step(key.encode(), RESULTS, new.encode(), head_of(new, INPUTS))

    def claim(self) -> bytes:
        return self._stems.claim(next(self._numbers))

    def finish_claim(self, key: str) -> bytes:
        return self._stems.finish_claim(key.encode(), RESULTS, next(self._numbers))


class EmptyScripts(Scripts):
    """Ours, each exchanged for one that does nothing, of this digest."""

    def __init__(self, keys: Keys, empty: str) -> None:
        super().__init__(keys)
        self._empty = empty.encode()

    def stem(self, name: str, args: Any, more: int) -> bytes:
        ours = load(name.partition(":")[0]).sha
        return super().stem(name, args, more).replace(ours.encode(), self._empty)


_CREATE = (
    "if redis.call('HSETNX', {index}, {new}, '') == 1 "
    "then redis.call('HSET', {running}, {new}, {record}) end "
)
_FINISH = "if redis.call('HDEL', {running}, {key}) == 1 then redis.call('RPUSH', {finished}, {result}) end "
_TAKE = (
    "local key = redis.call('LPOP', {queue}) local value = redis.call('HGET', {queued}, key) "
    "redis.call('HDEL', {queued}, key) redis.call('HSET', {running}, key, value) "
)


class Fewest:
    """Scripts that do nothing but move records, and take a key once: without fences, numbers, times, tallies,
    places, and claims that may be sent twice. The client sends whole records."""

    def __init__(self, socket: RawSocket, network: str) -> None:
        self._socket, self._network = socket, f"{network}-fewest"
        self._begin = self._load(_CREATE + "return 1", ("index", "running"), ("new", "record"))
        self._finish = self._load(_FINISH + "return 1", ("running", "finished"), ("key", "result"))
        self._step = self._load(
            _FINISH + _CREATE + "return 1",
            ("index", "running", "finished"),
            ("key", "result", "new", "record"),
        )
        self._claim = self._load(_TAKE + "return value", ("queue", "queued", "running"), ())
        self._finish_claim = self._load(
            _FINISH.replace("{key}", "{old}") + _TAKE + "return value",
            ("queue", "queued", "running", "finished"),
            ("old", "result"),
        )

    def _load(self, code: str, keys: tuple[str, ...], args: tuple[str, ...]) -> Callable[..., bytes]:
        """The script's calls, packed from a ready beginning as ours are."""
        names = {name: f"KEYS[{i}]" for i, name in enumerate(keys, 1)}
        names |= {name: f"ARGV[{i}]" for i, name in enumerate(args, 1)}
        sha = load_script(self._socket, code.format(**names))
        spelled = [self.key(name) for name in keys]
        count, _, rest = hiredis.pack_command(("EVALSHA", sha, len(keys), *spelled)).partition(b"\r\n")
        stem = b"*%d\r\n%b" % (int(count[1:]) + len(args), rest)
        form = stem + b"$%d\r\n%b\r\n" * len(args)

        def call(*values: bytes) -> bytes:
            return form % tuple(part for value in values for part in (len(value), value))

        return call

    def key(self, name: str) -> str:
        return f"rl:{{{self._network}}}:{name}"

    def record(self, key: str) -> bytes:
        """Of the size of ours while it runs."""
        return b"\xb4brave-otter-3f2a91c0\x01%b%b" % (head_of(key, INPUTS), bytes(21))

    def begin(self, key: str) -> bytes:
        return self._begin(key.encode(), self.record(key))

    def finish(self, key: str) -> bytes:
        return self._finish(key.encode(), b"\x9c%b%b%b" % (self.record(key), bytes(9), RESULTS))

    def step(self, key: str, new: str) -> bytes:
        result = b"\x9c%b%b%b" % (self.record(key), bytes(9), RESULTS)
        return self._step(key.encode(), result, new.encode(), self.record(new))

    def claim(self) -> bytes:
        return self._claim()

    def finish_claim(self, key: str) -> bytes:
        return self._finish_claim(key.encode(), b"\x9c%b%b%b" % (self.record(key), bytes(9), RESULTS))

    def queue(self, n: int) -> None:
        """Queues so many tasks."""
        for _ in range(n):
            key = new_key()
            self._socket.post(hiredis.pack_command(("RPUSH", self.key("queue"), key)))
            self._socket.post(hiredis.pack_command(("HSET", self.key("queued"), key, self.record(key))))
        self._socket.settle()

    def clear(self) -> None:
        names = ("index", "running", "finished", "queue", "queued")
        self._socket.ask(hiredis.pack_command(("DEL", *map(self.key, names))))


class Hand:
    """The operations of a worker by these calls; ``send``: how each goes."""

    def __init__(self, calls: Calls, send: Callable[[bytes], Any]) -> None:
        self._calls, self._send = calls, send
        self.hold()

    def hold(self) -> None:
        """Creates the task that the next operation finishes."""
        self._held = new_key()
        self._send(self._calls.begin(self._held))

    def create_finish(self) -> None:
        key = new_key()
        self._send(self._calls.begin(key))
        self._send(self._calls.finish(key))

    def step(self) -> None:
        new = new_key()
        self._send(self._calls.step(self._held, new))
        self._held = new

    def pop_finish(self) -> None:
        self._send(self._calls.finish(key_of(self._send(self._calls.claim()))))

    def finish_and_pop(self) -> None:
        self._held = key_of(self._send(self._calls.finish_claim(self._held)))


def key_of(reply: Any) -> str:
    """The key in a running record: a short text behind the worker's id, which is one too, an attempt of one
    byte and no options. Any key where nothing was taken."""
    if type(reply) is not bytes or len(reply) < 30:
        return "c8xftebqgpfb-100000"
    at = reply[0] - 0xA0 + 3
    return reply[at + 1 : at + 1 + reply[at] - 0xA0].decode()


def load_script(socket: RawSocket, code: str) -> str:
    """Its digest."""
    return socket.ask(hiredis.pack_command(("SCRIPT", "LOAD", code))).decode()


@contextlib.contextmanager
def below(server: Server, network: str, *, looks: bool) -> Iterator[Floors]:
    """The floors below the operations in a network; ``looks``: they wait adaptively."""
    with RushWorker(network, heartbeat=False, lease=3600.0) as worker:
        socket = RawSocket(server.address, looks=looks)
        floors = Floors(socket, worker)
        try:
            yield floors
        finally:
            floors.fewest.clear()
            socket.close()


class Floors:
    """All of them, on one socket, for one worker of their own."""

    def __init__(self, socket: RawSocket, worker: RushWorker) -> None:
        member, empty = worker._member, load_script(socket, "return 1")
        self.fewest = Fewest(socket, worker.network)
        self._socket = socket
        self._calls: dict[str, Calls] = {
            PINGS: Pings(),
            CALLS: Ours(member, EmptyScripts(member.store.keys, empty)),
            FEWEST: self.fewest,
            OURS: Ours(member, member.store.scripts),
        }

    def of(self, verb: str, *, behind: bool = False) -> dict[str, Callable[[], None]]:
        """One operation on each floor, by name; ``behind``: replies are read later, or by ``settle``."""
        send = self._socket.post if behind else self._socket.ask
        return {name: getattr(Hand(calls, send), verb) for name, calls in self._calls.items()}

    def settle(self) -> None:
        self._socket.settle()
