"""Loops for central queues: a worker takes what a manager pushed, calls a function, and settles the task.

Owns what such a loop does with a task and its errors. A loop travels to its workers by cloudpickle.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from . import _inputs, _seeds
from ._isolated import Ended, Isolation
from ._records import Task
from ._store import Store
from ._store_ends import CRASHED
from ._store_tasks import NIL
from ._turns import Turns
from ._worker import RushWorker
from .errors import ConfigError

#: Seconds others leave an isolated task beyond its limit, which its own worker enforces.
_GRACE = 5.0


def worker_loop(fn: Callable[..., Any], /, *, seeded: bool = True, **constants: Any) -> Loop:
    """A loop for ``start_workers`` that takes tasks from the queue: ``ys = fn(**xs, **constants)`` for each.

    A result that is a mapping becomes the task's results as it is, any other becomes ``{"y": result}``. An
    exception, also SystemExit, fails the task with its type, message and traceback, and the loop goes on; so
    does a result that cannot be stored, or that the server has no room for. Each task runs under its own
    seed (see ``worker.seeded``); ``seeded=False`` leaves random numbers alone, which saves some twenty
    microseconds a task. Leaves when it is asked to, or when the network drains and the queue is empty.
    ``start_workers(kwargs=...)`` adds to the constants.

    One round trip per task while there are tasks; where they take less than two milliseconds, workers under a
    supervisor take several at once, up to 128, and send the results together.
    """
    return Loop(_function(fn), constants, seeded=seeded)


def isolated_loop(
    fn: Callable[..., Any], /, *, timeout: float | None = None, **constants: Any
) -> IsolatedLoop:
    """Like ``worker_loop``, with a fresh process for each task: a copy of the worker that has loaded ``fn``
    and not run it.

    A process that crashes, exits or is killed fails its task with ``Worker has crashed or was killed``, and
    ``exit_code`` or ``signal`` and the last lines of ``stderr`` in the condition; the worker goes on with the
    next. ``timeout``: seconds a task may run, where it was pushed without a limit of its own; then its
    process is killed and the task fails ``Task timed out after N seconds``. Nothing a task started
    outlives it.
    """
    limit = _inputs.seconds(timeout, "timeout", none=True, least=1e-3)
    return IsolatedLoop(_function(fn), constants, limit)


class Loop:
    """What ``worker_loop`` returns: a worker loop, to be called with a worker."""

    def __init__(self, fn: Callable[..., Any], constants: Mapping[str, Any], *, seeded: bool = True) -> None:
        self.seeded = seeded
        # Also where ``globals=`` of start_workers looks for the function they are for.
        self.__wrapped__ = fn
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        self.constants = dict(constants)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.__name__}>"

    @property
    def __signature__(self) -> inspect.Signature:
        # Not that of the function inside.
        kinds = inspect.Parameter
        return inspect.Signature(
            [kinds("worker", kinds.POSITIONAL_ONLY), kinds("constants", kinds.VAR_KEYWORD)]
        )

    def _check(self, worker: object) -> None:
        if not isinstance(worker, RushWorker):
            name = self.__name__
            raise ConfigError(
                f"{name} is a worker loop, which start_workers calls with a worker, got {worker!r:.60}: "
                f"the function inside is {name}.__wrapped__"
            )

    def __call__(self, worker: RushWorker, /, **constants: Any) -> None:
        self._check(worker)
        fixed = self.constants | constants
        fn, store, seeded = self.__wrapped__, worker._store, self.seeded

        def run(task: Task) -> Settled:
            if seeded:
                _seeds.put(worker._seed_of(task))
            try:
                return _finished(store, fn(**task.xs, **fixed))
            except (Exception, SystemExit) as error:
                return _failed(store, error)

        before = _seeds.state() if seeded else None
        try:
            _work_off(worker, run, ahead=True)
        finally:
            if before is not None:
                _seeds.restore(before)


class IsolatedLoop(Loop):
    """What ``isolated_loop`` returns."""

    def __init__(
        self, fn: Callable[..., Any], constants: Mapping[str, Any], timeout: float | None = None
    ) -> None:
        super().__init__(fn, constants)
        self.timeout = timeout

    def __call__(self, worker: RushWorker, /, **constants: Any) -> None:
        self._check(worker)
        fixed = self.constants | constants
        # Also loads NumPy, where there is one, once for all processes.
        before = _seeds.state()
        grace, worker._limit_grace = worker._limit_grace, _GRACE
        try:
            with Isolation() as isolation:
                # Each of them is a process: never short.
                _work_off(worker, lambda task: self._run_apart(isolation, worker, task, fixed), ahead=False)
        finally:
            worker._limit_grace = grace
            _seeds.restore(before)

    def _run_apart(
        self, isolation: Isolation, worker: RushWorker, task: Task, constants: Mapping[str, Any]
    ) -> Settled:
        store, seed = worker._store, worker._seed_of(task)

        def call() -> bytes:
            _seeds.put(seed)
            try:
                settled = _finished(store, self.__wrapped__(**task.xs, **constants))
            except BaseException as error:
                settled = _failed(store, error)
            return msgspec.msgpack.encode(settled)

        limit = task.timeout if task.timeout is not None else self.timeout
        return _judged(store, isolation.run(call, limit), limit)


#: What became of a task, encoded: f (finished) or x (failed), its payload, and large values beside.
Settled = tuple[str, bytes, dict[str, bytes]]


def _function(fn: object) -> Callable[..., Any]:
    if not callable(fn) or inspect.iscoroutinefunction(fn):
        raise ConfigError(f"fn must be a plain function of a task's inputs, got {fn!r}")
    return fn


def _work_off(worker: RushWorker, run: Callable[[Task], Settled], *, ahead: bool) -> None:
    """Takes tasks and runs them, until the worker is to leave."""
    with Turns(worker, ahead=ahead) as turns:
        while (task := turns.take()) is not None:
            turns.settle(*run(task))


def _finished(store: Store, result: Any) -> Settled:
    plain = store.codec.encode_plain(result if type(result) is dict else {"y": result})
    if plain is not None:
        return "f", plain + NIL, {}
    ys = _inputs.one_task(result, "the result") if isinstance(result, Mapping) else {"y": result}
    spilled: dict[str, bytes] = {}
    payload = store.encode_results([ys], [None], spilled)[0]
    return "f", payload, spilled


def _failed(store: Store, error: BaseException) -> Settled:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "x", store.encode_condition(_told(error.with_traceback(trace))), {}


def _told(error: BaseException) -> dict[str, Any]:
    """The condition of an error, also of one whose own text cannot be had."""
    try:
        return _inputs.condition(error)
    except Exception as second:
        text = f"{type(error).__name__} (its text cannot be had: {type(second).__name__})"
        return {"message": text, "type": type(error).__qualname__}


def _judged(store: Store, ended: Ended, limit: float | None) -> Settled:
    if ended.answer is not None:
        told: Settled = msgspec.msgpack.decode(ended.answer, type=Settled)
        return told
    if ended.timed_out:
        said = {
            "message": f"Task timed out after {limit:.14g} seconds",
            "type": "TaskTimeout",
            "timeout": limit,
        }
    else:
        said = {
            "message": CRASHED,
            "type": "WorkerCrashed",
            "exit_code": ended.status.exit_code,
            "signal": ended.status.signal,
            "reason": ended.status.text,
        }
    if ended.stderr:
        said["stderr"] = ended.stderr
    return "x", store.encode_condition({k: v for k, v in said.items() if v is not None}), {}
