"""What the verbs of a worker's loop cost the server and the wire: bytes, and commands inside of scripts.

Counted, not timed: what is more is noticed here, and what is less moves the bound down.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Self

import pytest

from ground import Ground, Stats
from rushlight import Rush, RushWorker
from rushlight._scripts import NAMES, load

XS, YS = {"x1": 0.1, "x2": 0.2}, {"y": 0.3}
FUNCTION = re.compile(r"(?m)^local function (\w+)")
#: Scripts of a worker's loop begin with the plain case, which makes so many functions.
HOT = {"begin": 2, "settle": 5, "step": 6, "claim": 6, "settle_claim": 7}


class Wire:
    """Bytes a client sends and receives, and the commands the server carries out for it."""

    def __init__(self, ground: Ground, face: RushWorker) -> None:
        self._link = face._store.link
        self._stats = Stats(ground.raw)
        self.sent = self.received = 0

    def __enter__(self) -> Self:
        exchange, received = self._link._exchange, self._link._receive

        def counted(commands: bytes, n: int, wait: float | None) -> list[Any]:
            self.sent += len(commands)
            return exchange(commands, n, wait)

        def receive() -> bytes:
            data: bytes = received()
            self.received += len(data)
            return data

        self._put_back = (exchange, received)
        self._link._exchange, self._link._receive = counted, receive  # type: ignore[method-assign]
        self._stats.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._stats.__exit__(*error)
        self._link._exchange, self._link._receive = self._put_back  # type: ignore[method-assign]

    @property
    def commands(self) -> dict[str, int]:
        """Those inside of scripts."""
        return {name: n for name, n in self._stats.calls.items() if name != "evalsha"}


@pytest.fixture
def worker(ground: Ground) -> Iterator[RushWorker]:
    """One that has met the network, nobody else about; its id and the network's name are as long as usual."""
    with RushWorker(ground.network, ground.url, worker_id="brave-otter-3f2a91c0", heartbeat=False) as worker:
        worker.finish_task(worker.push_running_task(XS), YS)
        yield worker


def test_creating_and_finishing(ground: Ground, worker: RushWorker) -> None:
    """Five and seven commands; the network's keys are most of what is sent, and a digit comes back."""
    with Wire(ground, worker) as wire:
        key = worker.push_running_task(XS)
    assert {"hmget": 1, "time": 1, "hsetnx": 1, "hlen": 1, "hset": 1} == wire.commands
    assert (430, 4) >= (wire.sent, wire.received)
    with Wire(ground, worker) as wire:
        assert worker.finish_task(key, YS)
    finishing = {"hmget": 1, "time": 1, "hget": 1, "hdel": 1, "rpush": 1, "hset": 1, "hincrby": 1}
    assert finishing == wire.commands
    assert (520, 4) >= (wire.sent, wire.received)


def test_a_step(ground: Ground, worker: RushWorker) -> None:
    """What creating and finishing take, but for one look at the worker and the clock each."""
    key = worker.push_running_task(XS)
    with Wire(ground, worker) as wire:
        worker.step(finish=(key, YS), push=XS)
    once = dict.fromkeys(("hmget", "hget", "hdel", "rpush", "hincrby", "hsetnx", "hlen"), 1)
    assert {**once, "hset": 2, "time": 1} == wire.commands
    assert (630, 4) >= (wire.sent, wire.received)


def test_taking(ground: Ground, worker: RushWorker) -> None:
    """A task that was pushed comes with its record, and nothing beside it."""
    with Rush(ground.network, ground.url) as rush:
        rush.push_tasks([XS] * 3)
    record = len(ground.raw.hvals(ground.key("queued"))[0]) + len(worker.worker_id) + 1 + 9
    with Wire(ground, worker) as wire:
        task = worker.pop_task(0)
    assert {"hmget": 1, "time": 1, "lpop": 1, "hget": 1, "hdel": 1, "hset": 2} == wire.commands
    assert (470, record + 7) >= (wire.sent, wire.received)
    assert task is not None
    with Wire(ground, worker) as wire:
        assert worker.finish_and_pop(task.key, YS, 0)
    finishing = {"hmget": 1, "time": 1, "hget": 2, "hdel": 2, "rpush": 1, "hset": 3, "hincrby": 1, "lpop": 1}
    assert finishing == wire.commands
    assert (690, record + 7) >= (wire.sent, wire.received)


@pytest.mark.parametrize(("name", "functions"), HOT.items())
def test_the_plain_case_makes_few_functions(name: str, functions: int) -> None:
    """A function costs at every call of a script: those of the general case stand behind the plain one."""
    plain, general, _ = load(name).body.partition("local function is_live")
    assert general
    assert functions == len(FUNCTION.findall(plain))


@pytest.mark.parametrize("name", NAMES)
def test_a_script_holds_what_it_uses(name: str) -> None:
    """Every function of a script is named somewhere behind its own line."""
    body = load(name).body
    assert [] == [function for function in FUNCTION.findall(body) if body.count(function) < 2]


def test_many_workers_cost_a_call_nothing(ground: Ground, worker: RushWorker) -> None:
    """What all have in common lies in tables from the start, where the server finds a field at once."""
    worker.finish_task(worker.push_running_task(XS), YS)
    for name in ("control", "tallies"):
        assert b"hashtable" == ground.raw.object("encoding", ground.key(name))


def test_queueing_many(ground: Ground) -> None:
    """A dozen commands for a thousand tasks: of their keys, made for this call, the first and the last are
    looked for."""
    with Rush(ground.network, ground.url) as rush:
        rush.push_tasks([XS])
        with Stats(ground.raw) as stats:
            rush.push_tasks([XS] * 1000)
    once = dict.fromkeys(("time", "hlen", "rpush", "exists", "evalsha"), 1)
    assert {**once, "hmget": 2, "hset": 2} == stats.calls


def test_looking_at_many(ground: Ground, worker: RushWorker) -> None:
    """Where they are in larger numbers is not asked task by task."""
    with Rush(ground.network, ground.url) as rush:
        keys = rush.push_tasks([XS] * 1500)
        worker.fail_tasks([task.key for task in worker.pop_tasks(3)][:1])
        with Stats(ground.raw) as stats:
            states = rush.states([*keys, "nobody"])
    assert ["failed", "running", "running", *["queued"] * 1497, None] == states
    assert {"evalsha": 1, "hget": 1, "hlen": 3, "hkeys": 2, "hmget": 2} == stats.calls
