"""The controller without workers, and that it has the signatures of the one with them."""

from __future__ import annotations

import inspect
import os
import random
import sys
import warnings
from typing import Any

import pytest

from rushlight import Controller, InlineController, Rush


def verbs(kind: type) -> dict[str, Any]:
    """The public methods and properties of a class."""
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_")}


def test_signatures_are_those_of_a_controller() -> None:
    """Every verb of a controller is there, takes the same, and is a method or a property like it."""
    ours, theirs = verbs(InlineController), verbs(Controller)
    assert set(theirs) == set(ours)
    for name, value in theirs.items():
        if callable(value):
            assert [*inspect.signature(value).parameters] == [*inspect.signature(ours[name]).parameters], name
            defaults = [parameter.default for parameter in inspect.signature(value).parameters.values()]
            same = [parameter.default for parameter in inspect.signature(ours[name]).parameters.values()]
            assert defaults == same, name
        else:
            assert type(value) is type(ours[name]), name
    made, inline = inspect.signature(Controller).parameters, inspect.signature(InlineController).parameters
    assert {n: p.default for n, p in made.items()} == {n: p.default for n, p in inline.items()}


def test_calls_are_made_at_once() -> None:
    """A future is done when it is returned; results are collected in the order of submission."""
    with InlineController("here") as controller:
        futures = controller.walk(pow, [1, 2, 3], [2, 2, 2])
        assert [1, 4, 9] == [future.result(0) for future in futures]
        assert (3, False) == (len(controller), controller.empty)
        first = controller.pop()
        assert first is not None
        assert ("success", 1, os.getpid(), "here") == (first.status, first.value, first.pid, first.controller)
        assert [4, 9] == [result.value for result in controller.collect()]
        assert (3, 3) == (controller.summary().tasks, controller.summary().success)
        assert controller.pop() is None
        assert controller.wait()
        assert not controller.wait("one")


def test_its_table_of_workers_has_the_columns_of_all(rush: Rush) -> None:
    """And no row."""
    with InlineController() as controller:
        assert rush.worker_info.schema == controller.workers().schema


def test_an_error_is_the_one_that_was_raised() -> None:
    """The very object, with its traceback, for a debugger to look into."""
    raised = KeyError("here")

    def fail() -> None:
        print("a word")
        warnings.warn("careful", stacklevel=1)
        raise raised

    with warnings.catch_warnings(), InlineController() as controller:
        warnings.simplefilter("ignore")
        warnings.resetwarnings()
        warnings.showwarning = lambda *_, **__: None
        future = controller.options(max_retries=1, name="x").submit(fail)
        assert raised is future.exception(0)
        with pytest.raises(ValueError, match="in use"):
            controller.push("x", fail)
        (result,) = controller.collect()
        assert ("error", 2, "a word\n") == (result.status, result.attempt, result.stdout)
        assert ("UserWarning: careful",) == result.warnings
        assert raised is result.exception
        assert 1 == controller.summary().error


def test_resets_and_seeds_are_kept() -> None:
    """What is put back after a call in a worker is put back here, and seeds give the same numbers."""

    def stray() -> float:
        os.environ["RUSHLIGHT_TEST_STRAY"] = "1"
        os.chdir("/")
        return random.random()

    place, state = os.getcwd(), random.getstate()
    numbers = []
    for _ in range(2):
        with InlineController(reset=["environment", "directory"], seed=5) as controller:
            numbers.append([future.result() for future in controller.walk(lambda _: stray(), range(3))])
    assert numbers[0] == numbers[1]
    assert 3 == len(set(numbers[0]))
    assert (place, state) == (os.getcwd(), random.getstate())
    assert "RUSHLIGHT_TEST_STRAY" not in os.environ
    assert sys.stdout is not None


def test_after_shutdown_no_call_is_made() -> None:
    """Like any executor."""
    controller = InlineController()
    controller.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        controller.submit(pow, 2, 2)
