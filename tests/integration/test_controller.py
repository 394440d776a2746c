"""The controller as its users have it: real workers, the public interface only."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from rushlight import Controller, Rush
from rushlight.errors import TaskCancelled, WorkerCrashed

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


def test_after_shutdown_no_call_is_taken(network: str) -> None:
    """``shutdown`` waits for what was submitted, and ends the workers."""
    controller = Controller(network, max_workers=1)
    futures = [controller.submit(square, x) for x in range(5)]
    controller.shutdown()
    assert [True] * 5 == [future.done() for future in futures]
    with pytest.raises(RuntimeError, match="after shutdown"):
        controller.submit(square, 1)
    with Rush(network) as rush:
        assert [] == rush.running_worker_ids
