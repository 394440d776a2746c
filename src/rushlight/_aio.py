"""The asyncio face: the same methods, awaitable, run in threads. Owns no logic of its own.

Giving up an await returns at once. The thread behind a wait is woken and ends; a call that writes is not
interrupted: it is done or not, as if its reply had been lost.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from . import _cancel, _inputs
from ._logs import LogReader
from ._reader import TaskReader
from ._records import Task
from ._roster import WorkerReader

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

P = ParamSpec("P")
T = TypeVar("T")

#: Threads for calls that do not wait; they share one connection, so more would not be faster.
_SHORT = 4


class Threads:
    """Where the calls of one object run: short ones share a few threads, each that waits has its own, so that
    no number of waits keeps the call from running that would end them. Fork-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._short: ThreadPoolExecutor | None = None
        self._owner = 0
        #: Calls that were given up, and whose effect is not undone yet.
        self._ending: set[Future[None]] = set()

    async def run(self, call: Callable[[], T], *, waits: bool, undo: Callable[[], None] | None = None) -> T:
        """What the call returns. ``undo`` is called where it was given up and then succeeded all the same."""
        # Here, as every worker imports this module and hardly any awaits.
        import asyncio

        token = _cancel.CancelToken()
        context = contextvars.copy_context()
        context.run(_cancel.current.set, token)
        future: Future[T] = (self._alone if waits else self._shared)(functools.partial(context.run, call))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            token.cancel()
            if undo is not None:
                self._undo_later(future, undo)
            raise

    def _undo_later(self, future: Future[Any], undo: Callable[[], None]) -> None:
        ending: Future[None] = Future()
        # Running, so that nobody who waits for it can cancel it.
        ending.set_running_or_notify_cancel()
        self._ending.add(ending)

        def end(done: Future[Any]) -> None:
            if not done.cancelled() and done.exception() is None:
                undo()
            self._ending.discard(ending)
            ending.set_result(None)

        future.add_done_callback(end)

    async def undone(self) -> None:
        """Waits until all that was given up so far is undone: moments."""
        import asyncio

        for ending in tuple(self._ending):
            await asyncio.wrap_future(ending)

    def _shared(self, call: Callable[[], T]) -> Future[T]:
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._short is None or self._owner != os.getpid():
                self._short = ThreadPoolExecutor(_SHORT, thread_name_prefix="rushlight-aio")
                self._owner = os.getpid()
            return self._short.submit(call)

    def _alone(self, call: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        # A daemon: a wait that nobody awaits any more does not keep the interpreter from ending.
        threading.Thread(target=_fulfil, args=(future, call), name="rushlight-aio-wait", daemon=True).start()
        return future

    def close(self) -> None:
        """Lets the threads go when they are done; the next call makes others."""
        with self._lock:
            pool, self._short = self._short, None
        if pool is not None and self._owner == os.getpid():
            pool.shutdown(wait=False)


def _fulfil(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def awaitable(
    method: Callable[Concatenate[Any, P], T], *, waits: bool = False
) -> Callable[Concatenate[AsyncReader, P], Coroutine[Any, Any, T]]:
    """The method as a coroutine function with the same signature. ``waits``: it may block for long."""

    @functools.wraps(method)
    async def call(self: AsyncReader, /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound: Callable[P, T] = getattr(self._face, method.__name__)
        return await self._threads.run(functools.partial(bound, *args, **kwargs), waits=waits)

    return call


class AsyncReader:
    """What can be read of a network, awaitable. Signatures, results and errors are those of the methods of
    the same name; any number of them may be awaited at once, in any event loop."""

    def __init__(self, face: TaskReader, threads: Threads) -> None:
        self._face = face
        self._threads = threads

    def __repr__(self) -> str:
        return f"{self._face!r}.aio"

    fetch_tasks = awaitable(TaskReader.fetch_tasks)
    fetch_queued_tasks = awaitable(TaskReader.fetch_queued_tasks)
    fetch_running_tasks = awaitable(TaskReader.fetch_running_tasks)
    fetch_finished_tasks = awaitable(TaskReader.fetch_finished_tasks)
    fetch_failed_tasks = awaitable(TaskReader.fetch_failed_tasks)
    task = awaitable(TaskReader.task)
    states = awaitable(TaskReader.states)
    keys = awaitable(TaskReader.keys)
    counts = awaitable(TaskReader.counts)
    wait_for_tasks = awaitable(TaskReader.wait_for_tasks, waits=True)
    fetch_workers = awaitable(WorkerReader.fetch_workers)
    fetch_worker_usage = awaitable(WorkerReader.fetch_worker_usage)
    detect_lost_workers = awaitable(WorkerReader.detect_lost_workers)
    server_info = awaitable(WorkerReader.server_info)
    read_log = awaitable(LogReader.read_log)
    print_log = awaitable(LogReader.print_log)

    async def fetch_new_tasks(
        self,
        timeout: float = 0.0,  # noqa: ASYNC109 - it is the method's own
        *,
        fields: Sequence[str] | None = None,
        as_: str = "polars",
    ) -> Any:
        """See ``Rush.fetch_new_tasks``. What an await that was given up would have returned is new to the
        next one."""
        await self._threads.undone()
        face = self._face
        call = functools.partial(face.fetch_new_tasks, timeout, fields=fields, as_=as_)
        return await self._threads.run(call, waits=True, undo=functools.partial(face._unsee, face._seen))

    async def stream(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> AsyncIterator[Task]:
        """See ``Rush.stream``. Leaving the loop, or giving it up, loses no task: a later one goes on."""
        limit = _inputs.seconds(timeout, "timeout", none=True)
        face = self._face
        while await self._threads.run(functools.partial(face._await_streamed, limit), waits=True):
            while (task := face._take_streamed()) is not None:
                yield task
