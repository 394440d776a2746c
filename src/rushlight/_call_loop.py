"""The loop of a controller's workers: takes calls, makes them, sends what came of them.

Owns what surrounds a call (its seed, what it prints and warns of, what is put back after it) and when a
worker has served long enough. Never decides where a call runs, or whether it is tried again.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from . import _seeds, _telemetry
from ._call_scope import Limits, Meter, Reset, Scope, told_of
from ._calls import Objects, call_hook, decode_call, encode_told, encode_value, seal_error
from ._records import Task
from ._store import Store
from ._turns import Turns
from ._worker import RushWorker

#: Bytes of an exception's text, and of its traceback, that are kept.
_MESSAGE, _TRACEBACK = 4096, 65536


class CallLoop:
    """Called with a worker, does calls until the worker is to leave. Picklable."""

    __name__ = "calls"

    def __init__(self, limits: Limits, reset: Reset) -> None:
        self.limits = limits
        self.reset = reset
        #: Numbers of the broadcasts that this worker has made.
        self.heard: set[str] = set()

    def prepare(self, worker: RushWorker, /, *, on_start: Callable[..., Any] | None, **_: Any) -> None:
        """Calls the hook of the worker's start, and makes the calls that are every worker's."""
        if on_start is not None:
            call_hook(on_start, worker)
        objects, store = Objects(worker._store), worker._store
        self.heard = set()
        for number, packed in store.broadcasts().items():
            self.heard.add(number)
            xs = store.codec.decode(packed)
            args, kwargs = decode_call(store, xs)
            objects.function(xs["call"])(*args, **kwargs)
        self.limits.check_memory()

    def __call__(
        self, worker: RushWorker, /, *, seeded: bool = False, on_start: Callable[..., Any] | None = None
    ) -> None:
        del on_start  # has been called
        shift = Shift(worker, self.limits, Scope(self.reset), self.heard, seeded=seeded)
        try:
            shift.work()
        finally:
            shift.scope.close()
            _telemetry.flush()


class Shift:
    """One worker's time at its calls."""

    def __init__(
        self, worker: RushWorker, limits: Limits, scope: Scope, heard: set[str], *, seeded: bool
    ) -> None:
        self.worker = worker
        self.scope = scope
        self.objects = Objects(worker._store)
        self._limits = limits
        self._seeded = seeded
        self._heard = heard
        self._done = 0
        self._began = time.monotonic()
        self._idle_since = self._began

    def work(self) -> None:
        """Takes calls and makes them, until the worker is to leave."""
        with Turns(self.worker, patience=self._patience) as turns:
            while not self._served() and (task := turns.take()) is not None:
                turns.settle(*self._do(task))
                self._done += 1
                self._idle_since = time.monotonic()

    def _patience(self) -> float:
        """Seconds to wait for a call before it leaves."""
        now = time.monotonic()
        left = self._limits.idle_left(now - self._idle_since)
        if left <= 0 and self._limits.kept and self.worker._store.has_controllers():
            self._idle_since = now
            left = self._limits.idle_left(0.0)
        return min(left, self._limits.life_left(now - self._began))

    def _served(self) -> bool:
        now = time.monotonic()
        return self._limits.served(self._done, now - self._began)

    def _do(self, task: Task) -> tuple[str, bytes, dict[str, bytes]]:
        """Makes the call; kind, payload and large values of what came of it."""
        spilled: dict[str, bytes] = {}
        store, xs = self.worker._store, task.xs
        self.scope.open()
        before = None
        meter = Meter()
        try:
            if self._seeded or task.seed is not None:
                before = _seeds.state()
                _seeds.put(self.worker._seed_of(task))
            function = self.objects.function(xs["call"])
            args, kwargs = decode_call(store, xs)
            self.scope.begin(function)
            meter = Meter()
            with _telemetry.span(task, store.network, self.worker.worker_id):
                value = self._call(xs, function, args, kwargs)
            meter.stop()
            payload = encode_value(store, value, spilled, task.key if xs.get("own") else None)
            told = self.scope.end() | meter.told
            return "f", payload + encode_told(told), spilled
        except BaseException as error:
            meter.stop()
            told = self.scope.end() | meter.told
            return "x", _condition(store, error, told), {}
        finally:
            if before is not None:
                _seeds.restore(before)

    def _call(self, xs: Mapping[str, Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if xs.get("many"):
            return [fn(*each) for each in args]
        number = xs.get("broadcast")
        if number is not None:
            if number in self._heard:
                return None
            self._heard.add(number)
        return fn(*args, **kwargs)


def _condition(store: Store, error: BaseException, told: dict[str, Any]) -> bytes:
    trace = error.__traceback__
    while trace is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == _HOME:
        trace = trace.tb_next
    error = error.with_traceback(trace)
    kind = type(error)
    home = kind.__module__
    said = {
        "message": _text(error) or kind.__qualname__,
        "type": kind.__qualname__ if home == "builtins" else f"{home}.{kind.__qualname__}",
        "traceback": _trace(error),
        "pickled": seal_error(store, error),
        **told,
    }
    return msgspec.msgpack.encode({name: value for name, value in said.items() if value is not None})


_HOME = os.path.dirname(__file__)


def _text(error: BaseException) -> str:
    try:
        return told_of(str(error), _MESSAGE)
    except Exception as second:
        return f"<its text cannot be had: {type(second).__name__}>"


def _trace(error: BaseException) -> str:
    try:
        return told_of("".join(traceback.format_exception(error)), _TRACEBACK)
    except Exception:
        return told_of("".join(traceback.format_tb(error.__traceback__)), _TRACEBACK)
