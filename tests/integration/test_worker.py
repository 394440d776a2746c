"""A worker in this process: registering, creating, taking, settling, leaving."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import threading

import pytest
import redis

from rushlight import Counts, Rush, RushWorker, TaskState, WorkerState
from rushlight.errors import ConfigError, StaleTaskWarning, TaskError, UnknownKey, WorkerLost

INFO = [
    *("worker_id", "pid", "hostname", "state", "launcher", "heartbeat", "started_at", "current_task"),
    *("n_finished", "n_failed", "exit_code", "reason"),
]
ALL = list(TaskState)


def counts(rush: Rush) -> tuple[int, int, int, int]:
    """Queued, running, finished, failed."""
    now = rush.counts()
    return now.queued, now.running, now.finished, now.failed


# --- registering ----------------------------------------------------------------------------------


def test_construction_registers_a_worker_under_a_random_id(rush: Rush, network: str) -> None:
    """Whoever makes a worker is a running member of the network, at once and under an id of its own."""
    with RushWorker(network) as one, RushWorker(network) as two:
        assert one.worker_id != two.worker_id
        assert sorted([one.worker_id, two.worker_id]) == rush.worker_ids == rush.running_worker_ids


def test_a_worker_keeps_the_id_it_is_given(rush: Rush, network: str) -> None:
    """An id can be chosen; a second live worker cannot have it."""
    with RushWorker(network, worker_id="rank-0"):
        assert ["rank-0"] == rush.running_worker_ids
        with pytest.raises(ConfigError, match="rank-0"):
            RushWorker(network, worker_id="rank-0")
        assert ["rank-0"] == rush.running_worker_ids


def test_a_new_network_counts_nothing(worker: RushWorker) -> None:
    """Right after construction there is one worker and no task."""
    assert Counts() == worker.counts()
    assert [] == worker.keys()
    assert 1 == worker.n_workers == worker.n_running_workers


def test_a_worker_sees_itself_in_the_table(worker: RushWorker) -> None:
    """One row: its id, its process, its host, running, and a lease that was just renewed."""
    table = worker.worker_info
    assert INFO == table.columns
    (row,) = table.to_dicts()
    assert (worker.worker_id, os.getpid(), socket.gethostname()) == (
        row["worker_id"],
        row["pid"],
        row["hostname"],
    )
    assert ("running", None, 0, 0) == (row["state"], row["current_task"], row["n_finished"], row["n_failed"])
    assert row["heartbeat"] >= row["started_at"] > 1e9


def test_a_lease_outlasts_silence(rush: Rush, network: str) -> None:
    """A worker that says nothing is still a member after many times its lease: a thread speaks for it."""
    with RushWorker(network, lease=0.3) as worker:
        assert rush.fetch_new_tasks(timeout=1.5).is_empty()
        assert [] == rush.detect_lost_workers()
        assert [worker.worker_id] == rush.running_worker_ids


def test_leaving_gives_back_the_lease_at_once(rush: Rush, network: str) -> None:
    """After ``set_terminated`` a worker is terminated, has no lease, and is never reported lost."""
    worker = RushWorker(network)
    worker.set_terminated()
    assert ([], [worker.worker_id]) == (rush.running_worker_ids, rush.terminated_worker_ids)
    assert rush.worker_info["heartbeat"].to_list() == [None]
    assert [] == rush.detect_lost_workers()
    worker.set_terminated()
    worker.close()
    worker.close()


@pytest.mark.parametrize("lease", [0, -1, float("nan"), "long", None, True])
def test_a_lease_that_cannot_be_is_refused(network: str, server: redis.Redis, lease: object) -> None:
    """Zero, negative and no number at all: said before anything is registered."""
    with pytest.raises(ConfigError, match="lease"):
        RushWorker(network, lease=lease)
    assert 0 == server.dbsize()


@pytest.mark.parametrize("lease", [0.5, 1e5])
def test_fractional_and_huge_leases_work(rush: Rush, network: str, lease: float) -> None:
    """Any positive number of seconds is a lease."""
    with RushWorker(network, lease=lease):
        assert 1 == rush.n_running_workers


@pytest.mark.parametrize("worker_id", ["", "two\nlines", 7, b"bytes"])
def test_an_id_that_cannot_be_is_refused(network: str, server: redis.Redis, worker_id: object) -> None:
    """Ids are printable text."""
    with pytest.raises(ConfigError, match="worker_id"):
        RushWorker(network, worker_id=worker_id)
    assert 0 == server.dbsize()


def test_held_tasks_fail_when_their_worker_leaves(rush: Rush, network: str) -> None:
    """Nothing stays running on a worker that has gone."""
    with RushWorker(network) as worker:
        key = worker.push_running_task({"x": 1})
    assert "Task failed" == rush.task(key).condition["message"]
    assert (0, 0, 0, 1) == counts(rush)


def test_a_worker_that_has_left_cannot_create(network: str) -> None:
    """It may read, but no longer write."""
    worker = RushWorker(network)
    worker.set_terminated()
    assert worker.terminated
    with pytest.raises(WorkerLost, match=worker.worker_id):
        worker.push_running_task({"x": 1})
    assert 0 == worker.n_tasks
    worker.close()


# --- the life of tasks ----------------------------------------------------------------------------


def test_a_popped_task_runs_on_its_worker(rush: Rush, worker: RushWorker) -> None:
    """Taking a task moves it to running, under the worker's name."""
    (key,) = rush.push_tasks([{"x1": 1, "x2": 2}], xs_extra={"origin": "grid"})
    task = worker.pop_task()
    assert (key, {"x1": 1, "x2": 2}, {"origin": "grid"}, 1) == (
        task.key,
        task.xs,
        task.xs_extra,
        task.attempt,
    )
    assert (TaskState.RUNNING, worker.worker_id) == (task.state, task.worker_id)
    assert (0, 1, 0, 0) == counts(rush)
    assert [worker.worker_id] == rush.fetch_running_tasks()["worker_id"].to_list()
    assert [key] == rush.worker_info["current_task"].to_list()


def test_nothing_to_pop_is_none(worker: RushWorker) -> None:
    """An empty queue gives None, an empty list for many; with no time, at once."""
    assert worker.pop_task(timeout=0) is None
    assert worker.pop_task(timeout=0.05) is None
    assert [] == worker.pop_tasks(3, timeout=0)


def test_a_pop_is_woken_by_the_push(rush: Rush, worker: RushWorker) -> None:
    """A worker that waits for a task has it as soon as it is there, not when its time is over."""
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(worker.pop_task(timeout=60)))
    waiting.start()
    keys = rush.push_tasks([{"x": 1}])
    waiting.join(30)
    assert keys == [task.key for task in found]


def test_tasks_are_taken_in_the_order_they_came(rush: Rush, worker: RushWorker) -> None:
    """The queue is first in, first out, for single takes and for many."""
    keys = rush.push_tasks([{"x": x} for x in range(3)]) + rush.push_tasks([{"x": x} for x in range(3, 6)])
    taken = [worker.pop_task(), *worker.pop_tasks(2), *worker.pop_tasks(100)]
    assert keys == [task.key for task in taken]


def test_a_task_goes_to_one_worker(rush: Rush, network: str) -> None:
    """However many workers take, each task is taken once."""
    keys = rush.push_tasks([{"x": x} for x in range(40)])
    with RushWorker(network) as one, RushWorker(network) as two:
        taken: list[list[str]] = [[], []]

        def take(worker: RushWorker, mine: list[str]) -> None:
            while (task := worker.pop_task(timeout=0)) is not None:
                mine.append(task.key)

        threads = [threading.Thread(target=take, args=pair) for pair in zip((one, two), taken, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(keys) == sorted(taken[0] + taken[1])


def test_a_finished_task_has_inputs_results_worker_and_times(rush: Rush, worker: RushWorker) -> None:
    """The columns of a finished task, and its counts."""
    rush.push_tasks([{"x1": 1, "x2": 2}])
    task = worker.pop_task()
    assert worker.finish_task(task.key, {"y": 3})
    assert (0, 0, 1, 0) == counts(rush)
    table = rush.fetch_finished_tasks()
    assert ["key", "x1", "x2", "y", "worker_id", "created_at", "started_at", "finished_at"] == table.columns
    (row,) = table.to_dicts()
    assert (task.key, 3, worker.worker_id) == (row["key"], row["y"], row["worker_id"])
    assert row["created_at"] <= row["started_at"] <= row["finished_at"]


def test_a_failed_task_has_its_condition(rush: Rush, worker: RushWorker) -> None:
    """Counts and message of a failure."""
    rush.push_tasks([{"x": 1}])
    assert worker.fail_task(worker.pop_task().key, "sick")
    assert (0, 0, 0, 1) == counts(rush)
    (row,) = rush.fetch_failed_tasks(as_="dicts")
    assert ("sick", None, None) == (row["condition"], row["condition_type"], row["traceback"])


def test_a_failure_without_words_is_task_failed(rush: Rush, worker: RushWorker) -> None:
    """The default message."""
    worker.fail_task(worker.push_running_task({"x": 1}))
    assert ["Task failed"] == rush.fetch_failed_tasks()["condition"].to_list()


def test_a_condition_may_be_a_dict(rush: Rush, worker: RushWorker) -> None:
    """What else is known of a failure stays with it."""
    key = worker.push_running_task({"x": 1})
    worker.fail_task(key, {"message": "diverged", "step": 17})
    condition = rush.task(key).condition
    assert ("diverged", 17) == (condition["message"], condition["step"])


def test_four_tasks_in_four_states(rush: Rush, worker: RushWorker) -> None:
    """Step by step: the states are disjoint, and together always all tasks."""
    rush.push_tasks([{"x": x} for x in range(4)])
    expected = [(4, 0, 0, 0)]
    worker.pop_task()
    worker.pop_task()
    worker.pop_task()
    for action, expect in (
        (lambda: None, (1, 3, 0, 0)),
        (lambda: worker.finish_task(rush.keys("running")[0], {"y": 1}), (1, 2, 1, 0)),
        (lambda: worker.fail_task(rush.keys("running")[0]), (1, 1, 1, 1)),
    ):
        action()
        expected.append(expect)
        by_state = [rush.keys(state) for state in ALL]
        assert expect == tuple(map(len, by_state)) == counts(rush)
        assert 4 == len({key for keys in by_state for key in keys}) == rush.n_tasks
        assert sorted(rush.keys()) == sorted(rush.fetch_tasks()["key"])
        assert list(expect) == [rush.fetch_tasks([state]).height for state in ALL]


def test_states_come_with_the_table(rush: Rush, worker: RushWorker) -> None:
    """``fetch_tasks`` has the column ``state``; of the states asked for, each row has its own."""
    key = rush.push_tasks([{"x": 1}])[0]
    for state, move in (
        ("queued", lambda: None),
        ("running", worker.pop_task),
        ("finished", lambda: worker.finish_task(key, {"y": 1})),
    ):
        move()
        assert [(key, state)] == rush.fetch_tasks(fields=["key", "state"]).rows()
        assert [state] == rush.fetch_tasks([state], fields=["state"])["state"].to_list()
        others = [str(other) for other in ALL if other != state]
        assert rush.fetch_tasks(others).is_empty()
        for other in others:
            assert rush.fetch_tasks([other]).is_empty()


def test_states_of_one_table_have_an_order(rush: Rush, worker: RushWorker) -> None:
    """Queued, running, finished, failed."""
    finished, failed, _running = worker.push_running_tasks([{"x": 1}, {"x": 2}, {"x": 3}])
    worker.fail_task(failed)
    worker.finish_task(finished, {"y": 1})
    rush.push_tasks([{"x": 4}])
    assert ["queued", "running", "finished", "failed"] == rush.fetch_tasks()["state"].to_list()
    assert ["finished", "failed"] == rush.fetch_tasks(["failed", "finished"])["state"].to_list()


def test_creating_no_tasks_is_nothing(rush: Rush, worker: RushWorker) -> None:
    """Empty batches are allowed everywhere and write nothing."""
    assert [] == worker.push_running_tasks([])
    assert [] == worker.finish_tasks([], [])
    assert [] == worker.fail_tasks([])
    assert 0 == rush.n_tasks


def test_batches_are_settled_at_once(rush: Rush, worker: RushWorker) -> None:
    """Many tasks are finished and failed in one call, each with its own result or the same reason."""
    keys = worker.push_running_tasks([{"x": x} for x in range(6)])
    assert [True, True] == worker.finish_tasks(keys[:2], [{"y": 0}, {"y": 1}], ys_extra={"batch": 7})
    assert [True, True, True] == worker.fail_tasks(keys[2:5], "all of them")
    assert [True] == worker.fail_tasks(keys[5:], ["this one"])
    assert [(0, 0, 7), (1, 1, 7)] == rush.fetch_finished_tasks(fields=["x", "y", "batch"]).rows()
    assert ["all of them"] * 3 + ["this one"] == rush.fetch_failed_tasks()["condition"].to_list()


def test_too_few_conditions_change_nothing(rush: Rush, worker: RushWorker) -> None:
    """Two reasons for three tasks: refused, and all three still run."""
    keys = worker.push_running_tasks([{"x": 1}, {"x": 2}, {"x": 3}])
    with pytest.raises(ConfigError, match=r"2 item.* 3"):
        worker.fail_tasks(keys, ["a", "b"])
    with pytest.raises(ConfigError, match=r"1 item.* 3"):
        worker.finish_tasks(keys, [{"y": 1}])
    with pytest.raises(ConfigError, match=r"ys_extra"):
        worker.finish_tasks(keys, [{"y": 1}] * 3, ys_extra=[{}, {}])
    assert (0, 3, 0, 0) == counts(rush)


def test_a_batch_with_an_unknown_key_changes_nothing(rush: Rush, worker: RushWorker) -> None:
    """A key nobody has seen is an error that names it, and the others stay as they were."""
    key = worker.push_running_task({"x": 1})
    with pytest.raises(UnknownKey, match="no-such-task"):
        worker.finish_tasks([key, "no-such-task"], [{"y": 1}, {"y": 2}])
    with pytest.raises(UnknownKey, match="no-such-task"):
        worker.fail_tasks([key, "no-such-task"])
    assert (0, 1, 0, 0) == counts(rush)


def test_a_late_result_is_told_and_logged(
    rush: Rush, worker: RushWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two decisions the second gets False, and a warning in the log; the first one stands."""
    key = worker.push_running_task({"x": 1})
    with caplog.at_level(logging.WARNING):
        worker.fail_task(key, "first")
        assert not worker.finish_task(key, {"y": 1})
    assert any(
        isinstance(record.msg, StaleTaskWarning) and key in str(record.msg) for record in caplog.records
    )
    assert TaskState.FAILED is rush.task(key).state
    assert rush.task(key).ys is None


def test_a_task_is_its_workers_alone(rush: Rush, worker: RushWorker, network: str) -> None:
    """What runs on one worker no other worker can settle."""
    key = worker.push_running_task({"x": 1})
    with RushWorker(network) as other:
        assert not other.finish_task(key, {"y": "stolen"})
        assert not other.fail_task(key)
    assert [TaskState.RUNNING] == rush.states([key])
    assert worker.finish_task(key, {"y": "mine"})


def test_saying_it_again_is_true_again(worker: RushWorker) -> None:
    """A resent result is no stale result: the writer who decided hears True both times."""
    key = worker.push_running_task({"x": 1})
    assert [True, True] == [worker.finish_task(key, {"y": 1}) for _ in range(2)]


def test_a_task_removed_from_the_queue_is_not_taken(rush: Rush, worker: RushWorker) -> None:
    """Between queue and worker there is no gap in which a task could be both removed and taken."""
    (key,) = rush.push_tasks([{"x": 1}])
    assert [key] == rush.empty_queue()
    assert worker.pop_task(timeout=0) is None
    assert "Removed from queue" == rush.task(key).condition["message"]
    assert not worker.finish_task(key, {"y": 1})


def test_new_results_are_new_once(rush: Rush, worker: RushWorker) -> None:
    """What ``fetch_new_tasks`` gave it does not give again; each object has its own place."""
    said = []
    for ys in ([1], [], [2], [], [3, 4], []):
        keys = worker.push_running_tasks([{"x": y} for y in ys])
        worker.finish_tasks(keys, [{"y": y} for y in ys])
        said.append([row["y"] for row in rush.fetch_new_tasks(as_="dicts")])
    assert [[1], [], [2], [], [3, 4], []] == said
    assert [1, 2, 3, 4] == worker.fetch_new_tasks()["y"].to_list()


# --- one trip for two things ----------------------------------------------------------------------


def test_a_step_finishes_one_task_and_creates_the_next(rush: Rush, worker: RushWorker) -> None:
    """The loop of a search that makes its own tasks."""
    first = worker.push_running_task({"x": 1})
    second = worker.step(finish=(first, {"y": 1}), push={"x": 2})
    assert ["finished", "running"] == rush.states([first, second])
    assert {"x": 2} == rush.task(second).xs


def test_a_step_with_a_late_result_goes_on(rush: Rush, worker: RushWorker) -> None:
    """The result is discarded, the next task is created all the same."""
    first = worker.push_running_task({"x": 1})
    worker.fail_task(first, "decided")
    second = worker.step(finish=(first, {"y": 1}), push={"x": 2})
    assert ["failed", "running"] == rush.states([first, second])


def test_finish_and_pop_takes_the_next(rush: Rush, worker: RushWorker) -> None:
    """The loop of a worker on a queue; None once nothing is left."""
    keys = rush.push_tasks([{"x": 1}, {"x": 2}])
    task = worker.pop_task()
    after = worker.finish_and_pop(task.key, {"y": 1})
    assert keys == [task.key, after.key]
    assert worker.finish_and_pop(after.key, {"y": 2}, timeout=0.05) is None
    assert (0, 0, 2, 0) == counts(rush)


def test_a_worker_stays_where_it_is(worker: RushWorker) -> None:
    """It cannot be pickled; the error says what to do instead."""
    with pytest.raises(TypeError, match=f"elsewhere make RushWorker\\('{worker.network}'\\)"):
        pickle.dumps(worker)


def test_a_block_may_fail_its_task_or_settle_twice(rush: Rush, worker: RushWorker) -> None:
    """``fail`` needs no exception; settling a task twice is the block's mistake."""
    with worker.task({"x": 1}, xs_extra={"seed": 4}) as task:
        task.fail("not today")
        with pytest.raises(TaskError, match=task.key):
            task.finish({"y": 1})
    (row,) = rush.fetch_failed_tasks(as_="dicts")
    assert ("not today", 4) == (row["condition"], row["seed"])


def test_an_error_after_the_result_changes_nothing(rush: Rush, worker: RushWorker) -> None:
    """A task that is finished stays so, and the error still reaches the loop."""
    with pytest.raises(KeyError), worker.task({"x": 1}) as task:
        task.finish({"y": 1}, ys_extra={"took": 2})
        raise KeyError("later")
    assert (0, 0, 1, 0) == counts(rush)
    assert [2] == rush.fetch_finished_tasks()["took"].to_list()


# --- being told -----------------------------------------------------------------------------------


def test_a_worker_hears_that_it_should_leave(rush: Rush, worker: RushWorker) -> None:
    """``terminated`` becomes true with the next reply; what it holds it may still finish."""
    key = worker.push_running_task({"x": 1})
    assert not worker.terminated
    rush.stop_workers("terminate", [worker.worker_id])
    assert worker.pop_task(timeout=30) is None
    assert worker.terminated
    assert worker.finish_task(key, {"y": 1})
    assert (0, 0, 1, 0) == counts(rush)


def test_a_worker_told_to_leave_is_given_no_more(rush: Rush, worker: RushWorker) -> None:
    """Tasks go to those who stay."""
    rush.stop_workers("terminate")
    keys = rush.push_tasks([{"x": 1}])
    assert worker.pop_task(timeout=0) is None
    assert keys == rush.keys("queued")


def test_a_killed_worker_may_not_write(rush: Rush, network: str) -> None:
    """Its tasks have failed; its late results are refused, and it cannot create any more."""
    with RushWorker(network) as worker:
        key = worker.push_running_task({"x": 1})
        rush.stop_workers("kill")
        assert not worker.finish_task(key, {"y": 1})
        assert worker.terminated
        with pytest.raises(WorkerLost, match="killed"):
            worker.push_running_task({"x": 2})
        assert worker.pop_task(timeout=30) is None
    assert ["Worker was killed"] == rush.fetch_failed_tasks()["condition"].to_list()
    assert [worker.worker_id] == rush.killed_worker_ids


def test_a_silent_worker_is_lost_and_fenced(rush: Rush, network: str) -> None:
    """Without a heartbeat the lease runs out: the worker is lost, once, and cannot overwrite that."""
    with RushWorker(network, heartbeat=False, lease=0.3) as worker:
        key = worker.push_running_task({"x": 1})
        assert [key] == rush.wait_for_tasks([key], timeout=30).failed
        assert [worker.worker_id] == rush.lost_worker_ids
        assert [] == rush.detect_lost_workers()
        assert not worker.finish_task(key, {"y": 1})
    (row,) = rush.fetch_failed_tasks(as_="dicts")
    assert row["condition"].startswith("Worker has crashed or was killed")


def test_a_lost_worker_that_is_not_dead_comes_back(rush: Rush, network: str) -> None:
    """With its next call it is a member again, under its id, and may do new tasks."""
    with RushWorker(network, heartbeat=False, lease=0.3) as worker:
        held = worker.push_running_task({"x": 1})
        rush.wait_for_tasks([held], timeout=30)
        assert [worker.worker_id] == rush.lost_worker_ids
        key = worker.push_running_task({"x": 2})
        assert [worker.worker_id] == rush.running_worker_ids
        assert worker.finish_task(key, {"y": 2})
        assert not worker.finish_task(held, {"y": 1})
        assert not worker.terminated


def test_a_lost_worker_whose_id_is_taken_stays_away(rush: Rush, network: str) -> None:
    """Two workers never go by one id."""
    first = RushWorker(network, worker_id="one", heartbeat=False, lease=0.3)
    held = first.push_running_task({"x": 1})
    rush.wait_for_tasks([held], timeout=30)
    with RushWorker(network, worker_id="one") as second:
        with pytest.raises(WorkerLost):
            first.push_running_task({"x": 2})
        assert first.terminated
        assert second.finish_task(second.push_running_task({"x": 3}), {"y": 3})
    first.close()


def test_draining_tells_idle_workers(rush: Rush, worker: RushWorker) -> None:
    """``terminate_workers``: false while there are tasks, true once the queue is empty."""
    rush.push_tasks([{"x": 1}], terminate_workers=True)
    assert not worker.should_stop_when_idle
    key = worker.pop_task().key
    worker.finish_task(key, {"y": 1})
    assert worker.pop_task(timeout=30) is None
    assert worker.should_stop_when_idle
    assert not worker.terminated


def test_a_worker_survives_a_reset_of_the_tasks(rush: Rush, worker: RushWorker) -> None:
    """``reset(workers=False)`` takes its task away; it goes on with new ones."""
    key = worker.push_running_task({"x": 1})
    rush.reset(workers=False)
    assert not worker.finish_task(key, {"y": 1})
    assert not worker.terminated
    new = worker.push_running_task({"x": 2})
    assert worker.finish_task(new, {"y": 2})
    assert [2] == rush.fetch_finished_tasks()["y"].to_list()
    assert WorkerState.RUNNING == rush.fetch_workers(as_="tasks")[0].state


def test_a_step_survives_a_reset_of_the_tasks(rush: Rush, worker: RushWorker) -> None:
    """The task it finishes is gone; the next is created, and the queue goes on."""
    key = worker.push_running_task({"x": 1})
    rush.reset(workers=False)
    key = worker.step(finish=(key, {"y": 1}), push={"x": 2})
    assert ["running"] == rush.states([key])
    rush.reset(workers=False)
    rush.push_tasks([{"x": 3}])
    task = worker.finish_and_pop(key, {"y": 2}, timeout=30)
    assert task is not None
    assert {"x": 3} == task.xs


def test_a_worker_of_a_reset_network_cannot_return(rush: Rush, network: str, server: redis.Redis) -> None:
    """After ``reset`` nothing it says is written: the network stays empty."""
    with RushWorker(network) as worker:
        key = worker.push_running_task({"x": 1})
        rush.reset()
        assert not worker.finish_task(key, {"y": 1})
        with pytest.raises(WorkerLost):
            worker.push_running_task({"x": 2})
        assert worker.terminated
        assert worker.pop_task(timeout=0) is None
    assert 0 == server.dbsize()


# --- without waiting for replies ------------------------------------------------------------------


def test_writing_behind_writes_all_of_it(rush: Rush, worker: RushWorker) -> None:
    """Sent at once, checked later: in the end, and for every reader within, everything is there."""
    with worker.write_behind():
        for i in range(300):
            key = worker.push_running_task({"x": i})
            assert worker.finish_task(key, {"y": i})
        assert 300 == worker.n_finished_tasks
        late = worker.push_running_task({"x": 300})
    assert (0, 1, 300, 0) == counts(rush)
    assert worker.finish_task(late, {"y": 300})
    assert list(range(301)) == rush.fetch_finished_tasks()["y"].to_list()


def test_an_error_written_behind_surfaces_by_the_end(rush: Rush, worker: RushWorker) -> None:
    """A task nobody has: the call may not know, the end of the block does; the rest was written."""
    key = worker.push_running_task({"x": 1})
    with pytest.raises(UnknownKey, match="ghost"), worker.write_behind():
        worker.finish_task("ghost", {"y": 1})
        worker.finish_task(key, {"y": 2})
    assert (0, 0, 1, 0) == counts(rush)
    assert worker.finish_task(worker.push_running_task({"x": 2}), {"y": 3})


def test_a_late_result_written_behind_is_logged(
    rush: Rush, worker: RushWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can be told False any more, so the log tells."""
    key = worker.push_running_task({"x": 1})
    worker.fail_task(key, "first")
    with caplog.at_level(logging.WARNING), worker.write_behind():
        worker.finish_task(key, {"y": 1})
    (record,) = [record for record in caplog.records if isinstance(record.msg, StaleTaskWarning)]
    assert key in str(record.msg)
    assert [TaskState.FAILED] == rush.states([key])


def test_a_worker_killed_while_writing_behind_hears_of_it(rush: Rush, network: str) -> None:
    """No later than at the end of the block, and nothing was written after the kill."""
    with RushWorker(network) as worker:
        with pytest.raises(WorkerLost, match=worker.worker_id), worker.write_behind():
            worker.push_running_task({"x": 1})
            assert 1 == worker.n_running_tasks
            rush.stop_workers("kill")
            for i in range(300):
                worker.push_running_task({"x": i})
        assert (0, 0, 0, 1) == counts(rush)


def test_an_error_in_the_block_loses_no_write(rush: Rush, worker: RushWorker) -> None:
    """What was sent before it is written; the worker goes on as usual."""
    with pytest.raises(ZeroDivisionError), worker.write_behind():
        worker.finish_task(worker.push_running_task({"x": 1}), {"y": 1})
        raise ZeroDivisionError
    assert (0, 0, 1, 0) == counts(rush)
    assert worker.finish_task(worker.push_running_task({"x": 2}), {"y": 2})
