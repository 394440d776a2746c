"""Somebody has written on the server what is no record: it is told alone, and everything else goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import redis

from rushlight import Controller, RushWorker
from rushlight.errors import DecodeError, TaskFailed
from rushlight.launchers import Handle, HandleState, WorkerCommand

PATIENCE = 60.0
NOW = int(time.time() * 1e6)

Controllers = Callable[..., Controller]


class Nobody:
    """A scheduler whose jobs never start."""

    name = "nobody"

    def launch(self, command: WorkerCommand, n: int) -> list[Handle]:
        return [Handle(self.name, wid, (wid,)) for wid in command.worker_ids]

    def poll(self, handles: list[Handle]) -> list[HandleState]:
        return [HandleState("pending")] * len(handles)

    def terminate(self, handles: list[Handle]) -> None:
        return None

    def log_tail(self, handle: Handle, n: int) -> str:
        return ""


class Forger:
    """Ends calls of a network with bytes of its choice."""

    def __init__(self, raw: redis.Redis, network: str) -> None:
        self._raw = raw
        self._key = f"rl:{{{network}}}:".__add__

    def finish(self, key: str | None, record: bytes) -> None:
        """As scripts do, in one step. ``key=None``: there is no such task."""
        with self._raw.pipeline() as step:
            if key is not None:
                step.hdel(self._key("queued"), key)
                step.hset(self._key("index"), key, self._raw.llen(self._key("finished")))
            step.rpush(self._key("finished"), record)
            step.xadd(self._key("events"), {"e": ""})
            step.execute()

    def fail(self, key: str, record: bytes) -> None:
        with self._raw.pipeline() as step:
            step.hdel(self._key("queued"), key)
            step.hset(self._key("failed"), key, record)
            step.rpush(self._key("failures"), b"\xff\xfe", key)
            step.xadd(self._key("events"), {"e": ""})
            step.execute()


def pack(*parts: Any) -> bytes:
    """One behind the other."""
    return b"".join(map(msgspec.msgpack.encode, parts))


def record(key: str, told: Any = None) -> bytes:
    """One as it should be, but for what is told beside the value."""
    return b"\x9c" + pack(None, 1, None, key, {"call": "f:0"}, None, NOW, 1, NOW, NOW, {"value": 1}, told)


def failed(key: str, condition: Any, at: Any = NOW) -> bytes:
    """What ``failed`` holds of a task."""
    size = len(msgspec.msgpack.encode(condition))
    return pack(at, size, condition, None, 0, None, key, {"call": "f:0"}, None, NOW, 1, 0)


FINISHED: dict[str, Callable[[str], bytes]] = {
    "words": lambda _: b"nonsense",
    "an unused byte": lambda _: b"\xc1",
    "the begin of a record": lambda key: record(key)[:20],
    "two records": lambda key: record(key) * 2,
    "other parts": lambda _: b"\x9c" + pack(*range(12)),
    "no end of lists": lambda _: b"\x91" * 100_000,
}
FAILED: dict[str, Callable[[str], bytes]] = {
    "words": lambda _: b"nonsense",
    "nothing": lambda _: b"",
    "the begin of a record": lambda key: failed(key, {"message": "no"})[:20],
    "another task": lambda _: failed("another", {"message": "no"}),
    "no time": lambda key: failed(key, {"message": "no"}, at="noon"),
    "no condition": lambda key: failed(key, 5),
}


@pytest.fixture
def calls(controllers: Controllers) -> Controller:
    """A controller whose calls wait."""
    return controllers(launcher=Nobody(), max_workers=1)


@pytest.fixture
def forger(server: redis.Redis, network: str) -> Forger:
    """Writes what it likes."""
    return Forger(server, network)


def queued(controller: Controller, *names: str) -> list[Any]:
    """Futures of calls that have reached the server."""
    futures = [controller.push(name, len, name) for name in names]
    controller._sender.flush()
    return futures


def do_next(network: str) -> None:
    """A worker does the next call of the queue, which is ``len``."""
    with RushWorker(network) as hand:
        task = hand.pop_task()
        assert task is not None
        assert hand.finish_tasks([task.key], [{"value": 3}])


def goes_on(controller: Controller, network: str, bad: Any) -> None:
    """Of the forged call the future says so, the others have their value, and each can be collected."""
    (good,) = queued(controller, "good")
    do_next(network)
    assert 3 == good.result(PATIENCE)
    with pytest.raises((DecodeError, TaskFailed), match="task 'bad' cannot be read"):
        bad.result(PATIENCE)
    assert controller.wait(timeout=PATIENCE)
    found = {result.name: result for result in controller.collect()}
    assert {"bad": "error", "good": "success"} == {name: result.status for name, result in found.items()}
    assert "cannot be read" in str(found["bad"].exception)


@pytest.mark.parametrize("kind", FINISHED)
def test_a_result_that_is_none_fails_alone(
    calls: Controller, network: str, forger: Forger, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """In the place of a call's result lies something else: its future, and what is collected, say so."""
    (bad,) = queued(calls, "bad")
    forger.finish("bad", FINISHED[kind]("bad"))
    goes_on(calls, network, bad)
    assert [] == caplog.messages


@pytest.mark.parametrize("kind", FAILED)
def test_a_failure_that_is_none_fails_alone(
    calls: Controller, network: str, forger: Forger, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """In the place of a failed call lies something else, and among the failures keys that are none."""
    (bad,) = queued(calls, "bad")
    forger.fail("bad", FAILED[kind]("bad"))
    goes_on(calls, network, bad)
    assert [] == caplog.messages


def test_what_is_told_of_a_failure_may_be_anything(calls: Controller, network: str, forger: Forger) -> None:
    """A condition that no worker writes is told as one that cannot be read."""
    (bad,) = queued(calls, "bad")
    condition = {"message": 5, "type": ["x"], "traceback": 3, "pickled": 4, "pid": {}, "warnings": 1}
    forger.fail("bad", failed("bad", condition))
    goes_on(calls, network, bad)


@pytest.mark.parametrize("told", [{"warnings": 5}, {"seconds": "long"}, {"traceback": []}])
def test_what_is_told_of_a_result_may_be_anything(
    calls: Controller, network: str, forger: Forger, told: dict[str, Any]
) -> None:
    """It ends neither the collecting of others nor the sums of all."""
    (bad, *_) = queued(calls, "bad")
    forger.finish("bad", record("bad", told))
    assert 1 == bad.result(PATIENCE)
    queued(calls, "good")
    do_next(network)
    assert calls.wait(timeout=PATIENCE)
    assert {"bad", "good"} == {result.name for result in calls.collect()}
    assert 2 == calls.summary().tasks


def test_what_is_no_task_is_passed_over(
    calls: Controller, network: str, forger: Forger, caplog: pytest.LogCaptureFixture
) -> None:
    """Something lies among the results that belongs to nobody: that is said once, and calls go on."""
    for _ in range(2):
        forger.finish(None, b"nonsense")
    (good,) = queued(calls, "good")
    do_next(network)
    assert 3 == good.result(PATIENCE)
    assert ["good"] == [result.name for result in calls.collect()]
    assert calls.pop() is None
    said = [message for message in caplog.messages if "passed over" in message]
    assert {"0", "1"} == {message.split()[4] for message in said}
    assert len(said) == len(caplog.messages)
