"""The controller as its users have it: real workers, the public interface only."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import random
import threading
import time
import warnings
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from rushlight import Controller, Rush, RushWorker, to_frame
from rushlight.errors import ConfigError, EncodeError, TaskCancelled, WorkerCrashed

PATIENCE = 60.0


def square(x: int) -> int:
    """A call that takes no time."""
    return x * x


@pytest.fixture
def controller(network: str) -> Iterator[Controller]:
    """A controller of two workers on a network of the test's own."""
    with Controller(network, max_workers=2) as found:
        yield found


def test_a_call_is_a_future(controller: Controller) -> None:
    """A submitted call returns a future at once, and the future the value."""
    future = controller.submit(square, 7)
    assert isinstance(future, concurrent.futures.Future)
    assert 49 == future.result(PATIENCE)


def test_values_come_in_the_order_of_the_items(controller: Controller) -> None:
    """``map`` yields values in the order of its items, in chunks as well."""
    assert [x * x for x in range(50)] == list(controller.map(square, range(50)))
    assert [x * x for x in range(50)] == list(controller.map(square, range(50), chunksize=7))


def test_an_error_is_raised_as_it_was(controller: Controller) -> None:
    """A future raises the error of the call, of its own type, with the remote traceback as a note."""

    def fail() -> None:
        raise KeyError("not here")

    with pytest.raises(KeyError, match="not here") as caught:
        controller.submit(fail).result(PATIENCE)
    assert "in fail" in caught.value.__notes__[0]


class Demanding(Exception):
    """Cannot be made from its ``args``, and has something that cannot be pickled."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(what)
        self.code = code
        self.lock = threading.Lock()


def test_an_error_that_pickles_badly_is_of_its_type_too(controller: Controller) -> None:
    """It is made again without its constructor, of what can be pickled."""

    def fail() -> None:
        raise Demanding("no", 7)

    with pytest.raises(Demanding, match="no") as caught:
        controller.submit(fail).result(PATIENCE)
    assert {"code": 7, "__notes__": caught.value.__notes__} == vars(caught.value)
    assert "in fail" in caught.value.__notes__[0]


def test_a_controller_stays_where_it_is(controller: Controller) -> None:
    """It cannot be pickled, nor be in a call; the error says what to do instead."""
    with pytest.raises(TypeError, match=f"elsewhere make Controller\\('{controller.network}'\\)"):
        pickle.dumps(controller)
    with pytest.raises(EncodeError, match=r"<closure controller> cannot be.*elsewhere make Controller"):
        controller.submit(lambda: controller.network)


def test_a_future_is_no_argument(controller: Controller) -> None:
    """The error says where it stood, and what to pass instead."""
    future = controller.submit(square, 2)
    with pytest.raises(EncodeError, match=r"\[1\]\[0\] cannot be.*pass on its result"):
        controller.submit(max, 1, [future])


def test_a_frame_is_made_of_results() -> None:
    """Of nothing else."""
    with pytest.raises(ConfigError, match="TaskResult, got 3"):
        to_frame([3])  # type: ignore[list-item]


def test_results_tell_what_happened(controller: Controller) -> None:
    """A result tells its call's value, what it printed and warned of, where it ran and for how long."""

    def talk() -> str:
        print("a word")
        warnings.warn("careful", stacklevel=1)
        return "done"

    controller.push("talk", talk)
    result = controller.pop(PATIENCE)
    assert result is not None
    assert ("talk", "success", "done") == (result.name, result.status, result.value)
    assert "a word\n" == result.stdout
    assert ("UserWarning: careful",) == result.warnings
    (info,) = [row for row in Rush(controller.network).worker_info.to_dicts() if row["n_finished"]]
    assert (info["worker_id"], info["hostname"], info["pid"]) == (
        result.worker_id,
        result.hostname,
        result.pid,
    )
    assert result.seconds is not None
    assert (1, None, controller.network) == (result.attempt, result.exception, result.controller)


def test_each_result_is_collected_once(controller: Controller) -> None:
    """What one collector has handed out, no other does."""
    futures = [controller.submit(square, x) for x in range(40)]
    with Controller(controller.network, max_workers=2) as other:
        assert controller.wait(timeout=PATIENCE)
        first = [controller.pop() for _ in range(10)]
        rest = other.collect()
        assert controller.pop() is None
        names = [result.name for result in [*first, *rest] if result is not None]
    assert sorted(future.name for future in futures) == sorted(names)


def test_a_crash_is_tried_elsewhere_and_then_told(network: str) -> None:
    """A call that crashes its worker is tried on others, so often and no more, and others do not suffer."""
    with Controller(network, max_workers=2, max_crashes=1) as controller:
        poison = controller.submit(os._exit, 7)
        others = [controller.submit(square, x) for x in range(20)]
        error = poison.exception(PATIENCE)
        assert isinstance(error, WorkerCrashed)
        assert (7, None, 2) == (error.exit_code, error.signal, error.attempts)
        assert error.hostname
        assert [x * x for x in range(20)] == [other.result(PATIENCE) for other in others]


def test_a_running_call_can_be_cancelled(controller: Controller) -> None:
    """``cancel`` stops a call that runs; its worker goes on with others."""
    future = controller.submit(time.sleep, 600)
    deadline = time.monotonic() + PATIENCE
    while not future.running():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    assert 9 == controller.submit(square, 3).result(PATIENCE)
    (stopped,) = [result for result in controller.collect() if result.status == "cancel"]
    assert isinstance(stopped.exception, TaskCancelled)


def test_a_name_is_taken_until_its_result_is_collected(controller: Controller) -> None:
    """Two calls cannot have one name at a time."""
    controller.push("one", square, 2)
    with pytest.raises(ValueError, match="in use"):
        controller.push("one", square, 3)
    for n in (2, 3, 4):
        result = controller.pop(PATIENCE)
        assert result is not None
        assert ("one", n * n) == (result.name, result.value)
        controller.push("one", square, n + 1)
    assert ["one"] == [result.name for result in [controller.pop(PATIENCE)] if result is not None]


def test_after_shutdown_no_call_is_taken(network: str) -> None:
    """``shutdown`` waits for what was submitted, and ends the workers."""
    with Controller(network, max_workers=1) as controller:
        futures = [controller.submit(square, x) for x in range(5)]
        controller.shutdown()
        assert [True] * 5 == [future.done() for future in futures]
        with pytest.raises(RuntimeError, match="after shutdown"):
            controller.submit(square, 1)
        with Rush(network) as rush:
            assert [] == rush.running_worker_ids


def test_a_broadcast_reaches_every_worker_once(controller: Controller) -> None:
    """Workers that are there make the call, and so does each that comes later, before anything else."""

    def mark() -> int:
        import builtins

        builtins.marks = getattr(builtins, "marks", 0) + 1  # type: ignore[attr-defined]
        return os.getpid()

    def marks(_: int) -> tuple[int, int]:
        import builtins

        return os.getpid(), builtins.marks  # type: ignore[attr-defined]

    controller.submit(square, 1).result(PATIENCE)
    here = {row["pid"] for row in controller.workers().to_dicts()}
    futures = controller.broadcast(mark)
    assert here == {future.result(PATIENCE) for future in futures}
    controller.launch(1)
    seen = dict(controller.map(marks, range(50)))
    assert {1} == set(seen.values())
    assert {square} != {result.value for result in controller.collect()}
    assert controller.empty


def test_constants_are_uploaded_once(controller: Controller) -> None:
    """A constant stands for its value wherever it is among the arguments."""
    table = controller.constants(table=list(range(1000)))["table"]
    assert 999 == controller.submit(lambda values, i: values[i], table, 999).result(PATIENCE)
    assert [0, 1] == list(controller.map(lambda pair: pair[0][pair[1]], [(table, 0), (table, 1)]))
    again = controller.constants(table=list(range(1000)))["table"]
    assert table.digest == again.digest


def test_a_function_is_sent_as_it_is_now(controller: Controller) -> None:
    """What a function refers to counts as it is when the call is made, not when its like was sent first."""
    things, number = [1], 1

    def total() -> int:
        return sum(things) + number

    assert 2 == controller.submit(total).result(PATIENCE)
    things.append(10)
    assert 12 == controller.submit(total).result(PATIENCE)
    number = 5
    assert 16 == controller.submit(total).result(PATIENCE)


def test_seeds_make_calls_reproducible(network: str) -> None:
    """With a seed each call has numbers of its own, the same in every run; a call may have its own seed."""
    found = []
    for i in range(2):
        name = f"{network}-{i}"
        with Controller(name, max_workers=2, seed=42) as controller:
            futures = controller.walk(lambda _: __import__("random").random(), range(6))
            values = [future.result(PATIENCE) for future in futures]
            own = controller.options(seed=7).submit(lambda: __import__("random").random()).result(PATIENCE)
            found.append([*values, own])
        with Rush(name) as rush:
            rush.reset()
    assert found[0] == found[1]
    assert 7 == len(set(found[0]))


def test_the_calls_of_one_walk_have_seeds_of_their_own(controller: Controller) -> None:
    """A seed given to a walk is that of all its calls together: each has its own, and so again next time."""

    def draw(_: int) -> float:
        return random.random()

    first, again, other = (
        [future.result(PATIENCE) for future in controller.options(seed=seed).walk(draw, range(5))]
        for seed in (7, 7, 8)
    )
    assert first == again
    assert 10 == len({*first, *other})
    single = controller.options(seed=np.random.SeedSequence(7).spawn(2)[1]).submit(draw, 0)
    assert first[1] == single.result(PATIENCE)


def test_workers_of_one_batch_draw_different_numbers(network: str) -> None:
    """Without a seed, too: what they draw does not depend on their having one parent."""

    def draw(_: int) -> tuple[int, float, float]:
        threading.Event().wait(0.05)
        return os.getpid(), random.random(), float(np.random.rand())  # noqa: NPY002 - the one of old

    with Controller(network, max_workers=2, max_tasks_per_worker=2) as controller:
        drawn = list(controller.map(draw, range(8)))
    assert len({pid for pid, _, _ in drawn}) > 1
    assert [8, 8] == [len({draw[i] for draw in drawn}) for i in (1, 2)]


def test_waiting_is_for_calls_and_not_for_what_others_do(controller: Controller) -> None:
    """A task of somebody else that never ends keeps no ``wait`` from returning; where there is nothing to
    wait for, all has ended and nothing will come."""
    assert (True, False) == (controller.wait(timeout=0), controller.wait("one", timeout=0))
    with RushWorker(controller.network) as stranger:
        stranger.push_running_task({"x": 1})
        future = controller.submit(time.sleep, 0.2)
        assert not controller.wait(timeout=0)
        assert controller.wait("one", timeout=PATIENCE)
        assert controller.wait(timeout=PATIENCE)
        assert future.done()


def test_workers_are_put_right_between_calls(network: str) -> None:
    """``reset`` puts back globals, environment, directory and warning filters after each call."""

    def stray() -> None:
        globals()["stray_global"] = 1
        os.environ["STRAY"] = "1"
        os.chdir("/")
        warnings.simplefilter("ignore")

    def look() -> tuple[bool, bool, bool, bool]:
        ignored = any(action == "ignore" and message is None for action, message, *_ in warnings.filters[:1])
        return "stray_global" in globals(), "STRAY" in os.environ, os.getcwd() == "/", ignored

    everything = ("globals", "environment", "directory", "warnings")
    with Controller(network, max_workers=1, reset=everything) as controller:
        controller.submit(stray).result(PATIENCE)
        assert (False, False, False, False) == controller.submit(look).result(PATIENCE)
    with pytest.raises(ValueError, match="reset='colour'"):
        Controller(network, reset=["colour"])


def test_workers_are_replaced_in_time(network: str) -> None:
    """A worker leaves after so many calls; the next calls are done by others."""
    with Controller(network, max_workers=1, max_tasks_per_worker=3) as controller:
        pids = [controller.submit(os.getpid).result(PATIENCE) for _ in range(7)]
        assert [3, 3, 1] == [pids.count(pid) for pid in dict.fromkeys(pids)]


def test_what_is_under_way_can_be_bounded(network: str) -> None:
    """With ``max_queued`` a submission waits while so many calls have not ended."""
    with Controller(network, max_workers=1, max_queued=3) as controller:
        seen = []
        for i in range(12):
            controller.submit(square, i)
            seen.append(controller._feed.own)
        assert max(seen) <= 3
        assert controller.wait(timeout=PATIENCE)


def test_the_backlog_is_for_calls_that_wait_for_room(network: str) -> None:
    """Names come out as there is room, first in first out; a controller is saturated with as many uncollected
    calls as workers may be."""
    with Controller(network, max_workers=2) as controller:
        for name in ("a", "b", "c"):
            controller.push_backlog(name)
        assert not controller.saturated
        assert ["a", "b"] == controller.pop_backlog()
        controller.push("a", square, 1)
        controller.push("b", square, 2)
        assert controller.saturated
        assert [] == controller.pop_backlog()
        assert controller.wait(timeout=PATIENCE)
        controller.collect()
        assert ["c"] == controller.pop_backlog()
        assert controller.empty


def test_cancelling_by_name(network: str) -> None:
    """Named calls are taken back, and the others done."""
    with Controller(network, max_workers=1) as controller:
        controller.descale()
        for name in ("a", "b", "c"):
            controller.push(name, square, 2)
        assert ["a", "b"] == controller.cancel(["a", "b"])
        controller.autoscale()
        assert controller.wait(timeout=PATIENCE)
        assert {"a": "cancel", "b": "cancel", "c": "success"} == {
            r.name: r.status for r in controller.collect()
        }
        assert (3, 1, 2) == (
            controller.summary().tasks,
            controller.summary().success,
            controller.summary().cancel,
        )


def test_results_as_a_table(controller: Controller) -> None:
    """``to_frame`` has a row for each result."""
    controller.walk(divmod, [7, 1], [2, 0])
    assert controller.wait(timeout=PATIENCE)
    frame = to_frame(controller.collect()).sort("status")
    assert ["error", "success"] == frame["status"].to_list()
    assert "ZeroDivisionError" in frame["exception"][0]


@pytest.mark.parametrize("how", ["shutdown", "terminate"])
def test_nothing_is_left_of_its_processes(network: str, how: str) -> None:
    """Once a controller has ended, so have the processes it started, also as entries in the process table."""
    before = psutil.Process().children()
    with Controller(network, max_workers=2, max_crashes=0) as controller:
        assert [0, 1, 4] == list(controller.map(square, range(3)))
        with pytest.raises(WorkerCrashed):
            controller.submit(os._exit, 3).result(PATIENCE)
        getattr(controller, how)()
        assert before == psutil.Process().children()
