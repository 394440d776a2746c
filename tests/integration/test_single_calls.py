"""One call at a time: who reads its end, in how many trips, and that nobody else is forgotten over it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Background, wait_until
from rushlight import Controller, Rush

PATIENCE = 60.0


def square(x: int) -> int:
    """A call that takes no time."""
    return x * x


def after(path: str, x: int) -> int:
    """A call that ends once this file is there."""
    while not Path(path).exists():
        threading.Event().wait(0.005)
    return x


@pytest.fixture
def controller(network: str) -> Iterator[Controller]:
    """One worker, which is up."""
    with Controller(network, max_workers=1, min_workers=1) as found:
        assert 4 == found.submit(square, 2).result(PATIENCE)
        yield found


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that is not there yet."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def reading(controller: Controller) -> bool:
    """Whether a thread that wants a result waits for its end at the server."""
    return controller._feed._leading is not None


def used(controller: Controller) -> dict[str, int]:
    """Trips of this process, and the commands that the server has carried out."""
    stores = (controller._sender._store, controller._feed._store)
    links = [link for store in stores for link in (store.link, *store._idle)]
    found = {"trips": sum(link.trips for link in links)}
    with Rush(controller.network) as rush:
        asked = rush._store.link.call(b"*2\r\n$4\r\nINFO\r\n$12\r\ncommandstats\r\n").decode()
    for line in asked.splitlines():
        name, _, figures = line.removeprefix("cmdstat_").partition(":calls=")
        if name in ("evalsha", "xread", "blpop"):
            found[name] = int(figures.partition(",")[0])
    return found


def test_a_warm_call_costs_few_trips(controller: Controller) -> None:
    """The call and the wait for its end; for the worker one, with the result, and the wait for the next."""
    for i in range(20):
        assert i * i == controller.submit(square, i).result(PATIENCE)
    before, n = used(controller), 200
    for i in range(n):
        assert i * i == controller.submit(square, i).result(PATIENCE)
    per_call = {name: (m - before[name]) / n for name, m in used(controller).items()}
    # Push, result, claim; besides, the background looks after workers and leases.
    assert per_call["evalsha"] < 4
    assert per_call["trips"] < 2.5
    assert per_call["xread"] < 1.3
    assert per_call["blpop"] < 1.3


def test_an_error_is_waited_for_once(controller: Controller) -> None:
    """The thread that wants the result leaves a call that failed to the background, which does not wait for
    another event: none may come for seconds."""
    before = used(controller)
    for _ in range(3):
        with pytest.raises(TypeError):
            controller.submit(square, "no number").result(PATIENCE)
    # Besides, the background may look while nobody waits.
    assert used(controller)["xread"] - before["xread"] <= 3 + 1


def test_a_result_that_nobody_asks_for_comes_all_the_same(controller: Controller) -> None:
    """A future that is only held ends, as do calls whose futures nobody holds."""
    future = controller.submit(square, 3)
    wait_until(lambda: not future.pending)
    assert 9 == future.result()
    controller.submit(square, 4)
    wait_until(lambda: not controller._feed.outstanding)


def test_asking_again_and_again_hears_of_the_end(controller: Controller) -> None:
    """``done`` becomes true, and a callback is called, without anybody waiting for the result."""
    future = controller.submit(square, 3)
    wait_until(future.done, 10)
    called = threading.Event()
    controller.submit(square, 4).add_done_callback(lambda _: called.set())
    assert called.wait(PATIENCE)
    assert 25 == asyncio.run(asyncio.wait_for(_awaited(controller), PATIENCE))


async def _awaited(controller: Controller) -> int:
    return await asyncio.wrap_future(controller.submit(square, 5))


def test_who_waits_beside_a_reader_is_not_forgotten(
    controller: Controller, gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thread reads for a result and another waits for it, the background may do chores: it reads on
    for both once the end has come."""
    feed, looked = controller._feed, threading.Event()
    due = feed._chores.due
    monkeypatch.setattr(feed._chores, "due", lambda: bool(looked.set()) or due())
    future = controller.submit(after, str(gate), 1)
    first = Background(future.result, PATIENCE)
    wait_until(lambda: reading(controller))
    second = Background(future.result, PATIENCE)
    wait_until(lambda: feed._heeded)
    looked.clear()
    assert looked.wait(PATIENCE)
    assert feed._heeded
    gate.touch()
    assert [1, 1] == [first.result(PATIENCE), second.result(PATIENCE)]


def test_others_hear_of_a_call_somebody_reads_for(controller: Controller, gate: Path) -> None:
    """While a thread reads for a result, another that waits for the same future, by any means, gets it too,
    as does one with a call of its own, and one that collects."""
    future = controller.submit(after, str(gate), 1)
    first = Background(future.result, PATIENCE)
    wait_until(lambda: reading(controller))
    others = [
        Background(future.result, PATIENCE),
        Background(lambda: next(concurrent.futures.as_completed([future], PATIENCE)).result()),
        Background(lambda: concurrent.futures.wait([future], PATIENCE).done.pop().result()),
    ]
    own = controller.submit(square, 5)
    all_ended = Background(controller.wait, "all", PATIENCE)
    gate.touch()
    assert [1, 1, 1, 1] == [waiting.result(PATIENCE) for waiting in (first, *others)]
    assert 25 == own.result(PATIENCE)
    assert all_ended.result(PATIENCE)
    assert {1, 25} <= {result.value for result in controller.collect()}


def test_who_reads_for_a_result_hears_that_its_call_is_taken_back(controller: Controller, gate: Path) -> None:
    """Cancelled by another thread, or by the end of the controller."""
    for end in (lambda f: f.cancel(), lambda f: controller.cancel(f.name), lambda _: controller.terminate()):
        future = controller.submit(after, str(gate), 1)
        waiting = Background(future.exception, PATIENCE)
        wait_until(lambda: reading(controller))
        end(future)
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result(PATIENCE)
        wait_until(lambda: controller._feed._closed or not controller._feed._under_way())


def test_a_wait_for_a_result_ends_in_time(controller: Controller, gate: Path) -> None:
    """It raises TimeoutError, and the result is there later."""
    future = controller.submit(after, str(gate), 1)
    for timeout in (0, 0.05, 0.05):
        with pytest.raises(TimeoutError):
            future.result(timeout)
    gate.touch()
    assert 1 == future.result(PATIENCE)


def test_an_interrupted_wait_loses_nothing(controller: Controller, gate: Path) -> None:
    """Ctrl-C in the thread that reads for a result ends its wait alone; the result is there later, and calls
    go on."""
    future = controller.submit(after, str(gate), 1)

    main = threading.get_ident()

    def interrupt() -> None:
        wait_until(lambda: reading(controller))
        signal.pthread_kill(main, signal.SIGINT)

    pressing = Background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        future.result(PATIENCE)
    pressing.result(PATIENCE)
    assert not reading(controller)
    gate.touch()
    assert 1 == future.result(PATIENCE)
    assert 36 == controller.submit(square, 6).result(PATIENCE)


def test_a_reset_is_heard_by_who_reads_for_a_result(controller: Controller, gate: Path) -> None:
    """Its call is gone, and he is told."""
    future = controller.submit(after, str(gate), 1)
    waiting = Background(future.exception, PATIENCE)
    wait_until(lambda: reading(controller) and future.running())
    with Rush(controller.network) as rush:
        rush.reset(workers=False)
    assert "reset" in str(waiting.result(PATIENCE))
    gate.touch()
    assert 49 == controller.submit(square, 7).result(PATIENCE)


def test_several_threads_with_a_call_each(controller: Controller) -> None:
    """Each gets the results of its own calls, whoever reads."""

    def calls(base: int) -> bool:
        return all(
            (base + i) ** 2 == controller.submit(square, base + i).result(PATIENCE) for i in range(100)
        )

    threads = [Background(calls, base) for base in (0, 1000, 2000)]
    assert [True, True, True] == [thread.result(PATIENCE) for thread in threads]
