"""What every executor of ``concurrent.futures`` does: CPython's own cases that apply, in our words."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from harness import ended, run_python
from rushlight import Controller
from rushlight.errors import DecodeError, EncodeError, TaskFailed, WorkerCrashed

PATIENCE = 60.0


@pytest.fixture(scope="module")
def executor(shared_home: Any) -> Iterator[Controller]:
    """An executor of two workers for all tests here; the embedded server's home is that of all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUSHLIGHT_HOME", str(shared_home))
        for name in ("RUSHLIGHT_URL", "REDIS_URL", "RUSHLIGHT_SECRET"):
            patch.delenv(name, raising=False)
        with Controller(max_workers=2) as found:
            yield found


def echo(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """What it was called with."""
    return args, kwargs


def wait_for(path: str) -> str:
    """Returns once the file is there."""
    while not os.path.exists(path):
        threading.Event().wait(0.01)
    return path


class Thing:
    """Something that can be watched as it goes."""

    def method(self) -> None:
        """Does nothing."""


def test_submit(executor: Controller) -> None:
    """Arguments arrive by position and by name, also under the names of submit's own."""
    assert 256 == executor.submit(pow, 2, 8).result(PATIENCE)
    assert ((1,), {"self": 2, "fn": 3}) == executor.submit(echo, 1, self=2, fn=3).result(PATIENCE)
    with pytest.raises(TypeError):
        executor.submit(fn=echo, arg=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        executor.submit(arg=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "value",
    [
        (1, (2, [3])), {"a": (1,), 2: None}, {1, 2}, frozenset({3}), 2**80, -(2**70), float("inf"),
        b"\x00\xff", "\ud800", ..., complex(1, 2), range(3), slice(1, 2), bytearray(b"x"), True, None,
        [1, "2", (3,)],
    ],
    ids=repr,
)  # fmt: skip
def test_values_arrive_as_they_are(executor: Controller, value: Any) -> None:
    """An argument and a value are equal to what was sent, and of the same type."""
    ((found,), _) = executor.submit(echo, value).result(PATIENCE)
    assert (type(value), value) == (type(found), found)


def test_map(executor: Controller) -> None:
    """Several iterables; the shortest ends it; nothing of nothing."""
    assert [x**x for x in range(10)] == list(executor.map(pow, range(10), range(10)))
    assert [1, 4] == list(executor.map(pow, [1, 2], [1, 2, 3]))
    assert [] == list(executor.map(pow, [], []))


@pytest.mark.parametrize("chunksize", [1, 6, 50, 5000])
def test_map_in_chunks(executor: Controller, chunksize: int) -> None:
    """Chunks change nothing but the cost."""
    reference = list(map(pow, range(40), range(40)))
    assert reference == list(executor.map(pow, range(40), range(40), chunksize=chunksize))


def test_map_refuses_chunks_of_nothing(executor: Controller) -> None:
    """``chunksize`` is at least 1."""
    with pytest.raises(ValueError, match="chunksize"):
        list(executor.map(pow, range(4), range(4), chunksize=-1))


def test_map_raises_where_the_call_failed(executor: Controller) -> None:
    """Values before the one that failed are there; at its place its error is raised."""
    values = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert (0, 1) == next(values)
    assert (0, 1) == next(values)
    with pytest.raises(ZeroDivisionError):
        next(values)


def test_what_a_map_does_not_want_any_more_is_taken_back_together(executor: Controller) -> None:
    """A map of many items that fails is over at once: not with a round trip for each item that is left."""

    def fail_first(i: int) -> None:
        if i == 0:
            raise ValueError("first")
        threading.Event().wait(0.05)

    link = executor._rush._store.link
    values = executor.map(fail_first, range(2500))
    before = link.trips
    with pytest.raises(ValueError, match="first"):
        next(values)
    assert link.trips - before < 500
    assert executor.wait(timeout=PATIENCE)


def test_map_times_out(executor: Controller) -> None:
    """``timeout`` counts from the call of ``map``; values that came before are there."""
    values = executor.map(time.sleep, [0, 0, 600], timeout=1)
    assert [None, None] == [next(values), next(values)]
    with pytest.raises(TimeoutError):
        next(values)


def test_the_error_modes_of_map(executor: Controller) -> None:
    """An error can also be the value, with a warning or without."""
    found = list(executor.map(divmod, [1, 1], [0, 1], error="return"))
    assert [ZeroDivisionError, tuple] == [type(value) for value in found]
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
        list(executor.map(divmod, [1, 1], [0, 1], error="warn"))


def test_progress_of_map(executor: Controller) -> None:
    """A function hears of every value; True shows a bar."""
    heard: list[tuple[int, int]] = []
    list(executor.map(abs, [-1, -2, -3], progress=lambda done, of: heard.append((done, of))))
    assert [(1, 3), (2, 3), (3, 3)] == heard
    assert [1, 2, 3] == list(executor.map(abs, [-1, -2, -3], progress=True))


def test_tqdm_around_as_completed(executor: Controller) -> None:
    """``tqdm`` shows futures as they complete, like those of any executor."""
    from tqdm import tqdm

    futures = executor.walk(abs, range(20))
    assert set(range(20)) == {f.result() for f in tqdm(cf.as_completed(futures, PATIENCE), total=20)}


def test_no_argument_is_held_after_the_call(executor: Controller) -> None:
    """What a call was given is free once it was sent."""
    thing = Thing()
    gone = threading.Event()
    reference = weakref.ref(thing, lambda _: gone.set())
    executor.submit(thing.method).result(PATIENCE)
    del thing
    gc.collect()
    assert gone.is_set()
    assert reference() is None


def test_values_of_map_are_free_once_taken(executor: Controller) -> None:
    """The iterator of ``map`` holds no value it has given away."""
    for value in executor.map(lambda _: bytearray(10), range(5)):
        assert sys.getrefcount(value) <= 3


@pytest.mark.parametrize("number", [0, -1, 1.5, "2"])
def test_numbers_of_workers_that_cannot_be(number: Any, home: Any) -> None:
    """``max_workers`` is a whole number from 1 on."""
    with pytest.raises(ValueError, match="max_workers"):
        Controller(max_workers=number)


def test_wait_for_the_first(executor: Controller, tmp_path: Any) -> None:
    """``wait`` returns with the first that completes, fails, or is cancelled; then with all."""
    gate = tmp_path / "gate"
    slow = executor.submit(wait_for, str(gate))
    quick = executor.submit(abs, -1)
    done, left = cf.wait([slow, quick], PATIENCE, return_when=cf.FIRST_COMPLETED)
    assert ({quick}, {slow}) == (done, left)
    failing = executor.submit(divmod, 1, 0)
    done, left = cf.wait([slow, failing], PATIENCE, return_when=cf.FIRST_EXCEPTION)
    assert ({failing}, {slow}) == (done, left)
    done, left = cf.wait([slow], 0.05)
    assert (set(), {slow}) == (done, left)
    gate.touch()
    done, left = cf.wait([slow, quick, failing], PATIENCE)
    assert ({slow, quick, failing}, set()) == (done, left)


def test_as_completed(executor: Controller, tmp_path: Any) -> None:
    """Each future once, as they complete; a timeout says how many are missing."""
    gate = tmp_path / "gate"
    slow, quick = executor.submit(wait_for, str(gate)), executor.submit(abs, -1)
    order = cf.as_completed([slow, quick, quick], PATIENCE)
    assert quick is next(order)
    with pytest.raises(TimeoutError, match=r"1 \(of 1\) futures unfinished"):
        list(cf.as_completed([slow], 0))
    gate.touch()
    assert [slow] == list(order)


def test_callbacks(executor: Controller, tmp_path: Any) -> None:
    """Callbacks are called once, with the future, in order, and an error in one harms no other; one that is
    added later is called at once; one whose future nobody holds is called too."""
    gate, heard, last = tmp_path / "gate", [], threading.Event()
    future = executor.submit(wait_for, str(gate))
    future.add_done_callback(lambda f: heard.append(("first", f)))
    future.add_done_callback(lambda f: 1 / 0)
    ruthless = executor.submit(wait_for, str(gate))
    ruthless.add_done_callback(lambda f: sys.exit("by a callback"))
    future.add_done_callback(lambda f: (heard.append(("second", f)), last.set()))
    gate.touch()
    assert last.wait(PATIENCE)
    future.add_done_callback(lambda f: heard.append(("late", f)))
    assert [("first", future), ("second", future), ("late", future)] == heard
    orphan = threading.Event()
    executor.submit(abs, -1).add_done_callback(lambda _: orphan.set())
    assert orphan.wait(PATIENCE)


def test_a_result_can_be_waited_for_in_part(executor: Controller, tmp_path: Any) -> None:
    """``result`` and ``exception`` with a timeout raise TimeoutError, and can be asked again."""
    gate = tmp_path / "gate"
    future = executor.submit(wait_for, str(gate))
    for ask in (future.result, future.exception):
        with pytest.raises(TimeoutError):
            ask(timeout=0.01)
    assert not future.done()
    gate.touch()
    assert str(gate) == future.result(PATIENCE)
    assert future.exception() is None
    assert not future.cancel()


def test_asyncio_awaits_calls(executor: Controller) -> None:
    """``run_in_executor`` and ``wrap_future`` work; an awaiting task that is cancelled cancels the call."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert 8 == await loop.run_in_executor(executor, pow, 2, 3)
        assert 9 == await asyncio.wrap_future(executor.submit(pow, 3, 2))
        assert [1, 2] == await asyncio.gather(*(loop.run_in_executor(executor, abs, -x) for x in (1, 2)))
        future = executor.submit(time.sleep, 600)
        stopped = asyncio.Event()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(stopped.set))
        waiting = asyncio.ensure_future(asyncio.wrap_future(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await stopped.wait()
        assert future.cancelled()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_the_remote_traceback_is_told(executor: Controller) -> None:
    """The error's note has the line that raised it."""

    def fail() -> None:
        raise RuntimeError(123)  # some comment

    error = executor.submit(fail).exception(PATIENCE)
    assert isinstance(error, RuntimeError)
    assert (123,) == error.args
    assert "raise RuntimeError(123)  # some comment" in error.__notes__[0]


def test_errors_that_travel_in_parts(executor: Controller) -> None:
    """One that its args cannot make again, or that has something unpicklable, is made again without."""

    class Picky(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(f"{a} and {b}")

    def fail() -> None:
        raise Picky(1, 2)

    def fail_with_lock() -> None:
        error = ValueError("held")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    for call, name, text in ((fail, "Picky", "1 and 2"), (fail_with_lock, "ValueError", "held")):
        error = executor.submit(call).exception(PATIENCE)
        assert (name, (text,)) == (type(error).__name__, error.args)


def test_errors_that_cannot_travel(executor: Controller) -> None:
    """An error that cannot be pickled at all arrives as a TaskFailed that names it."""

    def fail() -> None:
        raise ValueError("held", threading.Lock())

    error = executor.submit(fail).exception(PATIENCE)
    assert isinstance(error, TaskFailed)
    assert "ValueError: ('held'" in str(error)


def test_values_that_cannot_travel(executor: Controller) -> None:
    """A value that cannot be pickled is the call's error; an argument is refused at once."""
    error = executor.submit(threading.Lock).exception(PATIENCE)
    assert "cannot be stored or sent" in str(error)
    with pytest.raises(EncodeError, match=r"\(args, kwargs\)\[0\]\[0\]"):
        executor.submit(abs, threading.Lock())
    assert 1 == executor.submit(abs, -1).result(PATIENCE)


class Trap:
    """Goes wrong when it is pickled, or when it is unpickled."""

    def __init__(self, when: str, how: str) -> None:
        self.when, self.how = when, how

    def __reduce__(self) -> Any:
        if self.when == "pickled":
            spring(self.how)
        return spring, (self.how,)


def spring(how: str) -> None:
    """What a trap does."""
    if how == "crash":
        os._exit(5)
    raise {"error": ValueError, "exit": SystemExit, "break": KeyboardInterrupt}[how](how)


TRAPS = {
    ("argument", "unpickled", "error"): ValueError,
    ("argument", "unpickled", "exit"): SystemExit,
    ("argument", "unpickled", "crash"): WorkerCrashed,
    ("value", "pickled", "error"): EncodeError,
    ("value", "pickled", "exit"): SystemExit,
    ("value", "pickled", "crash"): WorkerCrashed,
    ("value", "unpickled", "error"): ValueError,
    ("value", "unpickled", "exit"): DecodeError,
    ("error", "unpickled", "exit"): TaskFailed,
}


def test_traps_on_the_way(home: Any) -> None:
    """Whatever goes wrong while a call and its result travel is the call's, and nobody waits for ever."""

    def fall_into(where: str, when: str, how: str) -> Trap:
        if where == "error":
            raise ValueError(Trap(when, how))
        return Trap(when, how)

    with Controller(max_workers=2, max_crashes=0) as executor:
        futures = {
            trap: executor.submit(type, Trap(*trap[1:]))
            if trap[0] == "argument"
            else executor.submit(fall_into, *trap)
            for trap in TRAPS
        }
        others = executor.walk(abs, range(5))
        assert TRAPS == {trap: type(future.exception(PATIENCE)) for trap, future in futures.items()}
        assert list(range(5)) == [other.result(PATIENCE) for other in others]


def test_an_error_that_counts_as_false_is_raised(executor: Controller) -> None:
    """As of Python 3.14 for its own executors."""

    class Nought(Exception):
        def __bool__(self) -> bool:
            return False

    def fail() -> None:
        raise Nought

    future = executor.submit(fail)
    with pytest.raises(Exception, match="Nought") as caught:
        future.result(PATIENCE)
    assert "Nought" == type(caught.value).__name__


def test_calls_that_leave_by_the_back_door(executor: Controller) -> None:
    """SystemExit and KeyboardInterrupt of a call are its errors."""
    for kind in (SystemExit, KeyboardInterrupt, GeneratorExit):

        def leave(kind: type[BaseException] = kind) -> None:
            raise kind("bye")

        assert kind is type(executor.submit(leave).exception(PATIENCE))


def test_shutdown_cancels_what_waits(home: Any, tmp_path: Any) -> None:
    """``shutdown(cancel_futures=True)`` cancels what waits and lets finish what runs."""
    with Controller(max_workers=1) as executor:
        gate = tmp_path / "gate"
        running = executor.submit(wait_for, str(gate))
        deadline = time.monotonic() + PATIENCE
        while not running.running():
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
        waiting = [executor.submit(abs, -x) for x in range(5)]
        closer = threading.Thread(target=lambda: executor.shutdown(cancel_futures=True))
        closer.start()
        done, _ = cf.wait(waiting, PATIENCE)
        assert set(waiting) == done
        gate.touch()
        closer.join(PATIENCE)
        assert [True] * 5 == [future.cancelled() for future in waiting]
        assert str(gate) == running.result()


def test_shutdown_without_waiting(home: Any) -> None:
    """``shutdown(wait=False)`` returns at once, and what was submitted is done all the same."""
    with Controller(max_workers=2) as executor:
        values = executor.map(abs, range(-5, 5))
        executor.shutdown(wait=False)
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.constants(table=1)
        assert [abs(x) for x in range(-5, 5)] == list(values)
        executor.shutdown()


def test_terminate_ends_a_shutdown_that_waits(home: Any, wait_until: Any) -> None:
    """``terminate`` does not wait for calls, also where another thread's ``shutdown`` does."""
    with Controller(max_workers=1) as executor:
        endless = executor.submit(time.sleep, 600)
        wait_until(endless.running)
        executor.shutdown(wait=False)
        executor.terminate()
        assert endless.cancelled()


def test_one_that_nobody_holds_ends_by_itself(home: Any, wait_until: Any) -> None:
    """An executor that is forgotten without ``shutdown`` does what was submitted, then ends its workers and
    its threads."""
    before, others = psutil.Process().children(), threads()
    executor = Controller(max_workers=2)
    values, last = executor.map(abs, range(-5, 5)), executor.submit(time.sleep, 0.2)
    del executor
    assert [abs(x) for x in range(-5, 5)] == list(values)
    assert last.result(PATIENCE) is None
    del values, last

    def ended() -> bool:
        gc.collect()
        return before == psutil.Process().children() and not threads() - others

    wait_until(ended, PATIENCE)


def threads() -> set[threading.Thread]:
    """Those of controllers."""
    names = ("rushlight-feed", "rushlight-sender", "rushlight-scaler", "rushlight-closer")
    return {thread for thread in threading.enumerate() if thread.name in names}


FORKING = """
import os, sys
from rushlight import Controller
if __name__ == "__main__":
    controller = Controller(max_workers=1)
    assert 1 == controller.submit(abs, -1).result()
    future = controller.submit(os.path.exists, "/")
    child = os.fork()
    if child == 0:
        for call in (lambda: controller.submit(abs, -2), future.result, controller.collect, controller.scale):
            try:
                call()
            except RuntimeError as error:
                assert f"belongs to process {os.getppid()}" in str(error), error
            else:
                raise AssertionError(call)
        controller.shutdown()
        with Controller(controller.network, max_workers=1) as own:
            assert 7 == own.submit(abs, -7).result()
        sys.exit()
    assert 0 == os.waitpid(child, 0)[1]
    print(future.result(), controller.submit(abs, -4).result())
"""


def test_a_fork_has_no_part_in_it(home: Any) -> None:
    """In a process that was forked the controller says whose it is, and one can make another; the parent's
    goes on."""
    assert "True 4\n" == ended(run_python(FORKING))


def test_the_end_of_the_interpreter(home: Any) -> None:
    """A program that ends without ``shutdown`` ends once what it submitted is done."""
    code = """
from rushlight import Controller
from rushlight.errors import EncodeError, TaskFailed
if __name__ == "__main__":
    controller = Controller(max_workers=1)
    controller.submit(pow, 2, 5).add_done_callback(lambda future: print("apple", future.result()))
"""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ("apple 32\n", "", 0) == (ended.stdout, ended.stderr, ended.returncode)


def test_a_failing_hook_fails_the_calls(home: Any) -> None:
    """Where ``on_worker_start`` fails in every worker, calls end with an error that says why."""

    def fail() -> None:
        raise ValueError("no licence")

    with Controller(max_workers=1, on_worker_start=fail) as executor:
        error = executor.submit(abs, -1).exception(PATIENCE)
        assert "no licence" in str(error)
