"""What a task is: inputs, results, and one state at a time. Read from top to bottom."""

from __future__ import annotations

import pytest

from rushlight import Rush, RushWorker, TaskState


def test_a_task_is_queued_then_taken_then_finished(rush: Rush, worker: RushWorker) -> None:
    """A manager queues inputs, a worker takes them and gives results back: a row of a table."""
    (key,) = rush.push_tasks([{"x1": 3, "x2": 4}])
    assert [TaskState.QUEUED] == rush.states([key])

    task = worker.pop_task()
    assert task is not None
    assert (key, {"x1": 3, "x2": 4}) == (task.key, task.xs)
    assert [TaskState.RUNNING] == rush.states([key])

    assert worker.finish_task(key, {"y": 7})
    assert [TaskState.FINISHED] == rush.states([key])
    assert [{"x1": 3, "x2": 4, "y": 7}] == rush.fetch_finished_tasks(fields=["x1", "x2", "y"], as_="dicts")


def test_a_worker_makes_its_own_tasks(rush: Rush, worker: RushWorker) -> None:
    """No manager needs to hand anything out: a worker creates a task that it is already at."""
    key = worker.push_running_task({"x": 1})
    assert [TaskState.RUNNING] == rush.states([key])
    worker.finish_task(key, {"y": 2})
    assert {"y": 2} == rush.task(key).ys


def test_a_task_that_fails_says_why(rush: Rush, worker: RushWorker) -> None:
    """A failed task keeps its inputs and its condition, under the name of the error."""
    key = worker.push_running_task({"x": 0})
    worker.fail_task(key, ZeroDivisionError("x must not be 0"))
    (row,) = rush.fetch_failed_tasks(as_="dicts")
    assert (0, "x must not be 0", "ZeroDivisionError") == (row["x"], row["condition"], row["condition_type"])


def test_a_block_settles_its_task(rush: Rush, worker: RushWorker) -> None:
    """``with worker.task(xs)`` is the shortest way: finish inside it, or it fails by itself."""
    with worker.task({"x": 2}) as task:
        task.finish({"y": 4})
    with pytest.raises(ValueError, match="too hot"), worker.task({"x": 3}):
        raise ValueError("too hot")
    with worker.task({"x": 4}):
        "this block forgets to finish"

    assert [{"x": 2, "y": 4}] == rush.fetch_finished_tasks(fields=["x", "y"], as_="dicts")
    hot, forgotten = rush.fetch_failed_tasks(as_="dicts")
    assert ("too hot", "ValueError") == (hot["condition"], hot["condition_type"])
    assert 'raise ValueError("too hot")' in hot["traceback"]
    assert forgotten["condition"].startswith("Task failed")


def test_the_first_decision_stands(rush: Rush, worker: RushWorker) -> None:
    """A final state is decided once: what comes later is told so, and changes nothing."""
    failed, finished = worker.push_running_tasks([{"x": 1}, {"x": 2}])
    assert worker.fail_task(failed, "no")
    assert not worker.finish_task(failed, {"y": 1})
    assert worker.finish_task(finished, {"y": 2})
    assert not worker.fail_task(finished, "too late")
    assert ["failed", "finished"] == rush.states([failed, finished])
    assert ({"y": 2}, None) == (rush.task(finished).ys, rush.task(finished).condition)


def test_extras_travel_beside_inputs_and_results(rush: Rush, worker: RushWorker) -> None:
    """What is neither input nor result (a time stamp, a fold) goes into extras, and into columns."""
    key = worker.push_running_task({"x": 1}, xs_extra={"proposed_by": "grid"})
    worker.finish_task(key, {"y": 2}, ys_extra={"seconds": 0.5})
    (row,) = rush.fetch_finished_tasks(as_="dicts")
    assert ("grid", 0.5) == (row["proposed_by"], row["seconds"])
    task = rush.task(key)
    assert ({"x": 1}, {"proposed_by": "grid"}) == (task.xs, task.xs_extra)


def test_a_worker_knows_what_everybody_did(network: str, worker: RushWorker) -> None:
    """Everything a manager can read a worker can read too: that is how it decides what to try next."""
    with RushWorker(network) as other:
        other.finish_task(other.push_running_task({"x": 1}), {"y": 10})
    assert [10] == worker.fetch_finished_tasks()["y"].to_list()
    assert 1 == worker.n_finished_tasks
