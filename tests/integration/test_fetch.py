"""Tables: columns, forms, names that collide, values of all sorts, and that they never change."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from rushlight import Rush, RushWorker, Task, TaskState
from rushlight.errors import ConfigError, UnknownKey

FORMS = {"polars": pl.DataFrame, "pandas": pd.DataFrame, "arrow": pa.Table, "dicts": list, "tasks": list}


def rows_of(table: Any) -> list[dict[str, Any]]:
    """The rows of a table in any form but tasks."""
    if isinstance(table, pl.DataFrame):
        return table.to_dicts()
    if isinstance(table, pd.DataFrame):
        return table.to_dict("records")
    return table.to_pylist() if isinstance(table, pa.Table) else table


@pytest.fixture
def one_of_each(rush: Rush, worker: RushWorker) -> Rush:
    """A network with a queued, a running, a finished and a failed task: x is 0, 1, 2, 3."""
    _running, finished, failed = worker.push_running_tasks([{"x": 1}, {"x": 2}, {"x": 3}])
    rush.push_tasks([{"x": 0}])
    worker.finish_task(finished, {"y": 4})
    worker.fail_task(failed, ValueError("odd"))
    return rush


@pytest.mark.parametrize("form", FORMS)
def test_every_fetch_gives_every_form(one_of_each: Rush, form: str) -> None:
    """Five forms, the same rows in the same order, whatever is fetched."""
    rush = one_of_each
    fetches = {
        rush.fetch_tasks: [0, 1, 2, 3],
        rush.fetch_queued_tasks: [0],
        rush.fetch_running_tasks: [1],
        rush.fetch_finished_tasks: [2],
        rush.fetch_new_tasks: [2],
        rush.fetch_failed_tasks: [3],
    }
    for fetch, xs in fetches.items():
        table = fetch(as_=form)
        assert isinstance(table, FORMS[form])
        if form == "tasks":
            assert all(isinstance(task, Task) for task in table)
            assert xs == [task.xs["x"] for task in table]
        else:
            assert xs == [row["x"] for row in rows_of(table)]


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_network_has_tables(rush: Rush, form: str) -> None:
    """Nothing to show is shown as an empty table, with the columns every task has."""
    table = rush.fetch_finished_tasks(as_=form)
    assert isinstance(table, FORMS[form])
    assert 0 == len(table)
    always = ["key", "worker_id", "created_at", "started_at", "finished_at"]
    assert always == rush.fetch_finished_tasks().columns
    assert isinstance(rush.fetch_workers(as_=form), FORMS[form])


def test_columns_come_in_the_order_of_the_contract(rush: Rush, worker: RushWorker) -> None:
    """Key, inputs, results, extras, who and when; for failures what happened."""
    done, bad = worker.push_running_tasks([{"b": 1, "a": 2}, {"b": 1, "a": 2}], xs_extra={"xe": 3})
    worker.finish_task(done, {"y": 4}, ys_extra={"ye": 5})
    worker.fail_task(bad, "no")
    when = ["worker_id", "created_at", "started_at", "finished_at"]
    assert ["key", "b", "a", "y", "xe", "ye", *when] == rush.fetch_finished_tasks().columns
    assert ["key", "b", "a", "xe", *when, "condition", "condition_type", "traceback"] == (
        rush.fetch_failed_tasks().columns
    )
    assert "state" in rush.fetch_tasks().columns


def test_colliding_names_get_suffixes(rush: Rush, worker: RushWorker) -> None:
    """The same name in inputs, results and extras: all four are there, each with where it is from."""
    key = worker.push_running_task({"v": 1, "key": "mine"}, xs_extra={"v": 2})
    worker.finish_task(key, {"v": 3}, ys_extra={"v": 4})
    (row,) = rush.fetch_finished_tasks(as_="dicts")
    assert (1, 3, 2, 4) == (row["v_xs"], row["v_ys"], row["v_xs_extra"], row["v_ys_extra"])
    assert (key, "mine") == (row["key"], row["key_xs"])
    assert "v" not in row


def test_missing_is_null(rush: Rush) -> None:
    """Tasks need not have the same names: what a task lacks is null."""
    rush.push_finished_tasks([{"a": 1}, {"b": 2}], [{"y": 1}, {"z": 2}])
    assert [(1, None, 1, None), (None, 2, None, 2)] == rush.fetch_finished_tasks(
        fields=["a", "b", "y", "z"]
    ).rows()


def test_a_list_stays_one_cell(rush: Rush) -> None:
    """Lists and arrays, in inputs, results and extras, are values like any."""
    rush.push_finished_tasks(
        [{"v": [1, 2]}, {"v": [3]}],
        [{"w": np.arange(3)}, {"w": np.arange(2)}],
        xs_extra=[{"e": [[1], [2, 3]]}, {"e": []}],
    )
    table = rush.fetch_finished_tasks()
    assert 2 == table.height
    assert [[1, 2], [3]] == table["v"].to_list()
    assert [[[1], [2, 3]], []] == table["e"].to_list()
    assert [[0, 1, 2], [0, 1]] == [list(row["w"]) for row in rush.fetch_finished_tasks(as_="dicts")]


def test_mixed_types_share_a_column(rush: Rush) -> None:
    """Nothing forbids a text beside a number; rows as dicts have them unchanged."""
    values = [1, "two", 3.5, None, [4], {"five": 5}]
    rush.push_finished_tasks([{"x": i} for i in range(6)], [{"y": value} for value in values])
    assert values == [row["y"] for row in rush.fetch_finished_tasks(as_="dicts")]
    assert values == [task.ys["y"] for task in rush.fetch_finished_tasks(as_="tasks")]
    for form in ("polars", "pandas", "arrow"):
        assert 6 == len(rush.fetch_finished_tasks(as_=form))


def test_only_the_fields_asked_for(one_of_each: Rush) -> None:
    """``fields`` chooses columns, in its order; of names nobody has, nulls or nothing, never an error."""
    table = one_of_each.fetch_finished_tasks(fields=["y", "x"])
    assert (["y", "x"], [(4, 2)]) == (table.columns, table.rows())
    assert [("queued", 0)] == one_of_each.fetch_tasks(["queued"], fields=["state", "x"]).rows()
    assert [{"y": 4}] == one_of_each.fetch_new_tasks(fields=["y"], as_="dicts")


def test_the_table_grows_with_the_tasks(rush: Rush) -> None:
    """10, again 10, then 20 rows: what was read is not read twice, and none is missing."""
    first = rush.push_finished_tasks([{"x": i} for i in range(10)], [{"y": i} for i in range(10)])
    assert [10, 10] == [rush.fetch_finished_tasks().height for _ in range(2)]
    second = rush.push_finished_tasks([{"x": i} for i in range(10)], [{"y": i} for i in range(10)])
    assert first + second == rush.fetch_finished_tasks()["key"].to_list()


@pytest.mark.parametrize("form", FORMS)
def test_a_held_table_never_changes(rush: Rush, form: str) -> None:
    """Later tasks, and changes somebody makes to one copy, are not seen in another."""
    rush.push_finished_tasks([{"x": 1}], [{"y": [1]}])
    held = rush.fetch_finished_tasks(as_=form)
    spoiled = rush.fetch_finished_tasks(as_=form)
    if form == "pandas":
        spoiled.loc[0, "x"] = 99
    elif form == "polars":
        spoiled[0, "x"] = 99
    elif form == "dicts":
        spoiled[0]["x"] = 99
        spoiled[0]["y"].append(99)
    elif form == "tasks":
        spoiled[0].ys["y"].append(99)
    rush.push_finished_tasks([{"x": 2}], [{"y": [2]}])
    new = rush.fetch_finished_tasks(as_=form)
    assert (1, 2) == (len(held), len(new))
    if form == "tasks":
        assert ([{"y": [1]}], [{"y": [1]}, {"y": [2]}]) == ([t.ys for t in held], [t.ys for t in new])
    else:
        assert ([1], [1, 2]) == ([r["x"] for r in rows_of(held)], [r["x"] for r in rows_of(new)])
        assert [[1], [2]] == [list(r["y"]) for r in rows_of(new)]


def test_a_task_is_frozen(rush: Rush) -> None:
    """``Task`` is a record of what was, not a handle."""
    (key,) = rush.push_tasks([{"x": 1}])
    with pytest.raises(AttributeError):
        rush.task(key).state = TaskState.FINISHED


def test_finished_tasks_come_in_the_order_of_their_end(rush: Rush, worker: RushWorker) -> None:
    """Completion order in tables and keys, creation order in ``keys()``."""
    keys = worker.push_running_tasks([{"x": i} for i in range(4)])
    for i in (2, 0, 3, 1):
        worker.finish_task(keys[i], {"y": i})
    assert [2, 0, 3, 1] == rush.fetch_finished_tasks()["y"].to_list()
    assert [keys[i] for i in (2, 0, 3, 1)] == rush.keys("finished")
    assert keys == rush.keys()


def test_one_task_by_its_key(one_of_each: Rush) -> None:
    """``task`` in each state, with what the state has."""
    rush = one_of_each
    for state in TaskState:
        (key,) = rush.keys(state)
        task = rush.task(key)
        assert (key, state) == (task.key, task.state)
        assert (state is TaskState.FINISHED) == (task.ys is not None)
        assert (state is TaskState.FAILED) == (task.condition is not None)
        assert (state is TaskState.QUEUED) == (task.worker_id is None)
        assert task.created_at > 1e9
    with pytest.raises(UnknownKey, match="nobody") as caught:
        rush.task("nobody")
    assert ["nobody"] == caught.value.keys
    assert isinstance(caught.value, KeyError)


def test_states_of_known_and_unknown_keys(one_of_each: Rush) -> None:
    """In the order asked, None for what the network does not have, twice the same twice."""
    keys = [one_of_each.keys(state)[0] for state in TaskState]
    assert [*TaskState, None, TaskState.QUEUED] == one_of_each.states([*keys, "nobody", keys[0]])


def test_states_are_text(one_of_each: Rush) -> None:
    """``TaskState`` is a str: it compares with one and prints as one."""
    (state,) = one_of_each.states(one_of_each.keys("failed"))
    assert "failed" == state == f"{state}"
    assert isinstance(state, str)


def test_large_values_come_back_whole(rush: Rush) -> None:
    """What is above the spill size is stored apart and read when looked at."""
    array = np.random.default_rng(1).normal(size=(300, 400))
    (key,) = rush.push_finished_tasks([{"x": "a" * 100_000}], [{"model": array, "y": 1}])
    assert [1] == rush.fetch_finished_tasks(fields=["y"])["y"].to_list()
    task = rush.task(key)
    assert "a" * 100_000 == task.xs["x"]
    assert np.array_equal(array, task.ys["model"])
    (row,) = rush.fetch_finished_tasks(as_="dicts")
    assert np.array_equal(array, row["model"])


def test_new_tasks_wake_who_waits_for_them(rush: Rush, worker: RushWorker) -> None:
    """``fetch_new_tasks(timeout)`` returns with the first result, and empty when none comes in time."""
    assert rush.fetch_new_tasks(timeout=0.1).is_empty()
    key = worker.push_running_task({"x": 1})
    found: list[pl.DataFrame] = []
    waiting = threading.Thread(target=lambda: found.append(rush.fetch_new_tasks(timeout=60)))
    waiting.start()
    worker.finish_task(key, {"y": 1})
    waiting.join(30)
    assert [1] == found[0]["y"].to_list()
    assert rush.fetch_new_tasks(timeout=0.1).is_empty()


def test_failures_are_no_new_results(rush: Rush, worker: RushWorker) -> None:
    """A wait for results is not ended by a failure."""
    worker.fail_task(worker.push_running_task({"x": 1}))
    assert rush.fetch_new_tasks(timeout=0.2).is_empty()


def test_a_stream_gives_every_end_once(rush: Rush, worker: RushWorker) -> None:
    """Finished and failed tasks as they happen; a second stream goes on where the first stopped."""
    keys = worker.push_running_tasks([{"x": i} for i in range(4)])
    worker.finish_task(keys[0], {"y": 0})
    worker.fail_task(keys[1], "no")
    seen = [(task.key, task.state) for task in rush.stream(timeout=0.2)]
    assert [(keys[0], "finished"), (keys[1], "failed")] == seen
    finisher = threading.Thread(target=lambda: worker.finish_tasks(keys[2:], [{"y": 2}, {"y": 3}]))
    finisher.start()
    assert keys[2:] == [task.key for task in rush.stream(timeout=2)]
    finisher.join()


def test_a_stream_that_is_left_early_loses_nothing(rush: Rush, worker: RushWorker) -> None:
    """Whoever takes one task and leaves gets the others from the next stream."""
    keys = worker.push_running_tasks([{"x": i} for i in range(3)])
    worker.finish_tasks(keys, [{"y": i} for i in range(3)])
    seen = [next(rush.stream(timeout=5)).key]
    seen += [task.key for task in rush.stream(timeout=0.2)]
    assert keys == seen


@pytest.mark.parametrize("bad", ["csv", None, 3])
def test_a_form_nobody_has_is_refused(rush: Rush, bad: object) -> None:
    """The error names the form and those there are."""
    for fetch in (rush.fetch_tasks, rush.fetch_finished_tasks, rush.fetch_queued_tasks, rush.fetch_new_tasks):
        with pytest.raises(ConfigError, match=r"polars.*tasks"):
            fetch(as_=bad)
