"""The asyncio face: the same methods, awaited side by side, and given up at any time."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from harness import Server
from rushlight import Rush, RushWorker
from rushlight._manager import AsyncRush
from rushlight._server import find_binary
from rushlight.errors import ConfigError, RushlightError, StoreUnavailable, UnknownKey

#: What has no coroutine function: it makes no round trip, is an iterator, or is there under another name.
NOT_AWAITABLE = {"changes", "close", "follow_log", "ids_of_workers", "leaderboard", "read_archive", "seeded"}


def waiting_threads() -> list[str]:
    """The threads in which awaited calls run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rushlight-aio-wait")]


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that no event tells of."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.005)


def methods_of(kind: type) -> dict[str, Callable[..., Any]]:
    """Its public methods, inherited ones too."""
    names = (name for name in dir(kind) if not name.startswith("_"))
    found = {name: inspect.getattr_static(kind, name) for name in names}
    return {name: found[name] for name in found if inspect.isfunction(found[name])}


# --- the same methods -------------------------------------------------------------------------------


def test_every_method_is_there_with_its_own_signature() -> None:
    """What a manager can do can be awaited, with the same arguments and the same documentation."""
    theirs, ours = methods_of(Rush), methods_of(AsyncRush)
    assert set() == theirs.keys() - ours.keys() - NOT_AWAITABLE
    assert set() == ours.keys() - theirs.keys()
    for name, method in ours.items():
        assert inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
        shown, meant = inspect.signature(method), inspect.signature(theirs[name])
        assert [*meant.parameters.values()] == [*shown.parameters.values()], name
        if name != "stream":
            assert meant.return_annotation == shown.return_annotation, name
        assert method.__doc__


def test_a_study_runs_in_an_event_loop(rush: Rush, worker: RushWorker) -> None:
    """Queue, wait, read: each call gives its thread of control to others meanwhile."""

    async def work() -> None:
        while (task := await asyncio.to_thread(worker.pop_task, 0.5)) is not None:
            worker.finish_task(task.key, {"y": task.xs["x"] ** 2})

    async def study() -> None:
        keys = await rush.aio.push_tasks([{"x": x} for x in range(5)])
        working = asyncio.create_task(work())
        done = await rush.aio.wait_for_tasks(keys, timeout=30)
        assert keys == done.done
        table = await rush.aio.fetch_finished_tasks(fields=["x", "y"])
        assert [(x, x * x) for x in range(5)] == table.rows()
        assert 5 == (await rush.aio.counts()).finished
        assert keys == await rush.aio.keys("finished")
        assert {"y": 16} == (await rush.aio.task(keys[4])).ys
        assert 5 == (await rush.aio.fetch_new_tasks()).height
        assert [worker.worker_id] == [w["worker_id"] for w in await rush.aio.fetch_workers(as_="dicts")]
        await working

    asyncio.run(study())


def test_a_worker_reads_in_an_event_loop_too(worker: RushWorker) -> None:
    """Everything that reads; what it writes belongs to its own thread."""
    key = worker.push_running_task({"x": 1})
    assert {"x": 1} == asyncio.run(worker.aio.task(key)).xs
    assert not hasattr(worker.aio, "push_tasks")


def test_errors_arrive_as_they_are(rush: Rush) -> None:
    """With their class, text and fields."""
    with pytest.raises(UnknownKey) as caught:
        asyncio.run(rush.aio.task("nobody"))
    assert ["nobody"] == caught.value.fields["keys"]
    with pytest.raises(ConfigError, match="xss"):
        asyncio.run(rush.aio.push_tasks(5))  # type: ignore[arg-type]


def test_context_variables_are_those_of_the_caller(rush: Rush, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan in force, a logging context: a call sees what was set where it is awaited."""
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark")
    seen: list[str] = []
    counts = rush.counts

    def looking() -> Any:
        seen.append(mark.get())
        return counts()

    looking.__name__ = "counts"
    monkeypatch.setattr(rush, "counts", looking)

    async def call(value: str) -> None:
        mark.set(value)
        await rush.aio.counts()

    async def both() -> None:
        await asyncio.gather(call("a"), call("b"))

    asyncio.run(both())
    assert ["a", "b"] == sorted(seen)


# --- side by side -----------------------------------------------------------------------------------


def test_many_waits_keep_nothing_from_running(rush: Rush, worker: RushWorker) -> None:
    """A hundred waits for tasks that only later calls of the same object bring about."""

    async def study() -> None:
        keys = await rush.aio.push_tasks([{"i": i} for i in range(100)])
        waits = [asyncio.create_task(rush.aio.wait_for_tasks([key], timeout=60)) for key in keys]
        await until(lambda: len(waiting_threads()) == 100)
        assert 100 == (await rush.aio.counts()).queued
        late = await rush.aio.push_tasks([{"i": 100}])
        waits.append(asyncio.create_task(rush.aio.wait_for_tasks(late, timeout=60)))

        def work() -> None:
            for _ in range(101):
                task = worker.pop_task()
                assert task is not None
                worker.finish_task(task.key, {"y": 0})

        working = asyncio.create_task(asyncio.to_thread(work))
        results = await asyncio.gather(*waits)
        await working
        assert ["done"] * 101 == [result.reason for result in results]

    asyncio.run(study())


def test_waiting_connections_are_not_hoarded(rush: Rush, network: str) -> None:
    """After many waits at once only a few connections stay open for the next."""

    async def study() -> None:
        await asyncio.gather(*(rush.aio.fetch_new_tasks(0.3) for _ in range(20)))

    asyncio.run(study())
    assert len(rush._store._idle) <= 4


# --- given up ---------------------------------------------------------------------------------------


async def give_up(rush: Rush, waiting: asyncio.Task[Any]) -> None:
    """Cancels it once its thread blocks at the server."""
    await until(lambda: rush.server_info()["blocked_clients"])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("what", ["wait_for_tasks", "fetch_new_tasks", "wait_for_workers", "stream"])
def test_a_wait_that_is_given_up_leaves_no_thread_behind(
    rush: Rush, worker: RushWorker, what: str, wait_until: Callable[..., None]
) -> None:
    """The await returns at once, and the thread is woken instead of sleeping out its time."""

    async def first(stream: AsyncIterator[Any]) -> Any:
        return await anext(stream)

    async def study() -> None:
        keys = rush.push_tasks([{}])
        calls: dict[str, Callable[[], Any]] = {
            "wait_for_tasks": lambda: rush.aio.wait_for_tasks(keys),
            "fetch_new_tasks": lambda: rush.aio.fetch_new_tasks(60.0),
            "wait_for_workers": lambda: rush.aio.wait_for_workers(50, timeout=60),
            "stream": lambda: first(rush.aio.stream()),
        }
        await give_up(rush, asyncio.create_task(calls[what]()))
        assert (await rush.aio.counts()).queued == 1

    asyncio.run(study())
    wait_until(lambda: not waiting_threads(), 2)


def test_a_hundred_waits_are_given_up_together(
    rush: Rush, worker: RushWorker, wait_until: Callable[..., None]
) -> None:
    """As at the end of ``asyncio.run``, or when a task group fails."""

    async def study() -> None:
        keys = rush.push_tasks([{}])
        async with asyncio.timeout(None) as limit:
            waits = [asyncio.create_task(rush.aio.wait_for_tasks(keys)) for _ in range(100)]
            await until(lambda: len(waiting_threads()) == 100)
            limit.reschedule(asyncio.get_running_loop().time())
            await asyncio.gather(*waits)

    with pytest.raises(TimeoutError):
        asyncio.run(study())
    wait_until(lambda: not waiting_threads(), 5)
    assert 1 == rush.n_queued_tasks


def test_what_a_given_up_fetch_would_have_returned_is_new_to_the_next(rush: Rush) -> None:
    """Whether the tasks came before or after it was given up."""

    async def study() -> None:
        for n in range(1, 20):
            waiting = asyncio.create_task(rush.aio.fetch_new_tasks(30.0))
            await asyncio.sleep(0.002 * (n % 4))
            rush.push_finished_tasks([{"n": n}], [{"y": n}])
            await asyncio.sleep(0.0005 * (n % 7))
            waiting.cancel()
            found = []
            try:
                found = (await waiting)["n"].to_list()
            except asyncio.CancelledError:
                while not found:
                    found = (await rush.aio.fetch_new_tasks(5.0))["n"].to_list()
            assert [n] == found
            await until(lambda: not waiting_threads())

    asyncio.run(study())


def test_a_stream_loses_nothing_to_those_who_leave_it(rush: Rush) -> None:
    """Left in the middle of a batch, given up while it waits, and gone on with by a plain iterator."""

    async def study() -> list[int]:
        found = []
        rush.push_finished_tasks([{"n": n} for n in range(4)], [{}] * 4)
        async for task in rush.aio.stream(timeout=5.0):
            found.append(task.xs["n"])
            if len(found) == 2:
                break
        async for task in rush.aio.stream(timeout=0.0):
            found.append(task.xs["n"])
        stream = rush.aio.stream()

        async def more() -> None:
            async for task in stream:
                found.append(task.xs["n"])

        await give_up(rush, asyncio.create_task(more()))
        rush.push_failed_tasks([{"n": 4}])
        found += [task.xs["n"] for task in rush.stream(timeout=0.0)]
        return found

    assert [0, 1, 2, 3, 4] == asyncio.run(study())


def test_waits_end_while_the_server_is_away(home: Any, wait_until: Callable[..., None]) -> None:
    """A wait that tries to reach a server again can be given up as well."""
    server = Server(find_binary())
    try:
        rush = Rush("away", server.url, patience=60.0)

        async def study() -> None:
            waiting = asyncio.create_task(rush.aio.fetch_new_tasks(60.0))
            await until(lambda: server.client().info("clients")["blocked_clients"])
            server.kill()
            await until(lambda: rush._store.link.trips >= 2 and not os.path.exists(f"/proc/{server.pid}"))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        asyncio.run(study())
        wait_until(lambda: not waiting_threads(), 5)
        rush.close()
        with pytest.raises(StoreUnavailable):
            asyncio.run(Rush("away", server.url, connect_timeout=0.2).aio.counts())
    finally:
        server.close()


def test_an_object_can_be_used_from_several_event_loops_and_after_close(rush: Rush) -> None:
    """Nothing is bound to a loop; ``close`` lets the threads go, the next call makes others."""

    async def count() -> int:
        return (await rush.aio.counts()).total

    assert [0, 0] == [asyncio.run(count()), asyncio.run(count())]
    rush.close()
    assert 0 == asyncio.run(count())
    rush.close()


def test_a_signal_to_give_up_is_no_error() -> None:
    """User code that catches errors does not catch it by mistake."""
    from rushlight._cancel import Interrupted

    assert not issubclass(Interrupted, Exception)
    assert not issubclass(Interrupted, RushlightError)
