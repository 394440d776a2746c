"""Tasks that are tried again: after a failure, a loss, a time limit, or by hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import Background, message, settled
from rushlight import Rush, RushWorker
from rushlight.errors import UnknownKey

Wait = Callable[..., None]


def attempt(worker):
    """Fail, crash or hang the first times, as the task says, then finish."""
    import os
    import signal
    import threading

    while not worker.terminated:
        task = worker.pop_task(timeout=60)
        if task is None:
            continue
        if task.attempt <= task.xs.get("fail", 0):
            worker.fail_task(task.key, f"failure {task.attempt}")
        elif task.attempt <= task.xs.get("die", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        elif task.attempt <= task.xs.get("hang", 0):
            threading.Event().wait(600)
        else:
            worker.finish_task(task.key, {"pid": os.getpid(), "attempt": task.attempt})


def start(rush: Rush, n: int = 1, **options: Any) -> list[str]:
    """Workers that attempt, running."""
    ids = rush.start_workers(attempt, n, **options)
    rush.wait_for_workers(worker_ids=ids, timeout=60)
    return ids


def test_failures_are_tried_again_up_to_the_limit(rush: Rush) -> None:
    """Each task by its own: some make it, one has no attempt left, one never had another."""
    start(rush, 2)
    keys = rush.push_tasks([{"fail": n} for n in (0, 2, 3, 1)], max_retries=[0, 2, 2, 0])
    tasks = settled(rush, keys)
    assert ["finished", "finished", "failed", "failed"] == [task.state for task in tasks]
    assert [1, 3, 3, 1] == [task.attempt for task in tasks]
    assert ["failure 3", "failure 1"] == [message(task) for task in tasks[2:]]
    assert [None, None] == [task.condition for task in tasks[:2]]


def test_pauses_grow(rush: Rush) -> None:
    """With ``backoff`` the second try is later than the first by it, the third by twice as much; others are
    done meanwhile."""
    start(rush)
    (key,) = rush.push_tasks([{"fail": 2}], max_retries=2, backoff=0.2)
    others = rush.push_tasks([{"x": 1}] * 3)
    settled(rush, others)
    (task,) = settled(rush, [key])
    assert 3 == task.attempt
    # The server's clock: nothing is measured here.
    assert (task.started_at or 0) - (task.created_at or 0) >= 0.6
    assert [*others, key] == rush.keys("finished")


@pytest.mark.parametrize("max_restarts", [0, 5])
def test_a_lost_worker_leaves_its_task_to_others(rush: Rush, max_restarts: int) -> None:
    """``on_lost="requeue"``: with others there, or itself started again."""
    start(rush, 3 if max_restarts == 0 else 1, max_restarts=max_restarts, on_lost="requeue")
    (key,) = rush.push_tasks([{"die": 2}], max_retries=2)
    (task,) = settled(rush, [key])
    assert ("finished", 3) == (task.state, task.attempt)


def test_without_the_policy_a_loss_is_final(rush: Rush) -> None:
    """``max_retries`` alone brings nothing back from a lost worker."""
    start(rush, max_restarts=1)
    (key,) = rush.push_tasks([{"die": 1}], max_retries=5)
    (task,) = settled(rush, [key])
    assert ("failed", 1) == (task.state, task.attempt)
    assert "Worker has crashed or was killed" == message(task)
    assert signal.SIGKILL == (task.condition or {})["signal"]


def test_a_poison_task_stops_at_its_limit(rush: Rush) -> None:
    """It kills every worker that takes it, but only so often: the workers come back and do the rest."""
    ids = start(rush, 2, max_restarts=10, on_lost="requeue")
    (poison,) = rush.push_tasks([{"die": 99}], max_retries=3)
    others = rush.push_tasks([{"x": i} for i in range(6)])
    tasks = settled(rush, [poison, *others])
    assert ("failed", 4) == (tasks[0].state, tasks[0].attempt)
    assert ["finished"] * 6 == [task.state for task in tasks[1:]]
    last = settled(rush, rush.push_tasks([{"x": 1}] * 2, workers=ids))
    assert ids == [task.worker_id for task in last]


def test_a_poison_task_and_workers_without_a_second_life(rush: Rush) -> None:
    """No worker is left, and who waits is told so."""
    start(rush, 2, on_lost="requeue")
    (key,) = rush.push_tasks([{"die": 99}], max_retries=9)
    result = rush.wait_for_tasks([key], timeout=60)
    assert ("no_workers", [key]) == (result.reason, result.pending)
    assert ("queued", 3) == (rush.task(key).state, rush.task(key).attempt)
    # A worker without the policy makes its attempt the last.
    start(rush)
    (task,) = settled(rush, [key])
    assert ("failed", 3) == (task.state, task.attempt)


def test_the_last_condition_is_there_while_it_is_tried_again(
    rush: Rush, worker: RushWorker, wait_until: Wait
) -> None:
    """Queued and running again, a task tells why its last attempt ended, and which attempt this is."""
    (key,) = rush.push_tasks([{"fail": 1}], max_retries=1)
    start(rush)
    wait_until(lambda: rush.task(key).state == "finished")
    assert (2, None) == (rush.task(key).attempt, rush.task(key).condition)
    rush.stop_workers("kill", [rush.task(key).worker_id or ""])
    (key,) = rush.push_tasks([{"x": 1}], max_retries=1, backoff=600)
    task = worker.pop_task(timeout=60)
    assert task is not None
    assert worker.fail_task(key, ValueError("as it happens"))
    task = rush.task(key)
    assert ("queued", 2, "as it happens") == (task.state, task.attempt, message(task))
    assert "ValueError" == (task.condition or {})["type"]
    assert worker.pop_task(timeout=0.05) is None


def test_limits_can_be_asked_for_and_ignored(rush: Rush, worker: RushWorker) -> None:
    """``retry_tasks``: what is not failed stays, and so does what has no attempt left, unless ignored."""

    def fail_next() -> None:
        task = worker.pop_task(timeout=60)
        assert task is not None
        assert worker.fail_task(task.key)

    (key,) = rush.push_tasks([{"x": 1}], max_retries=1)
    assert [] == rush.retry_tasks([key])
    fail_next()
    fail_next()
    assert ("failed", 2) == (rush.task(key).state, rush.task(key).attempt)
    assert [] == rush.retry_tasks([key])
    assert [key] == rush.retry_tasks([key], ignore_max_retries=True)
    assert (1, 0) == (rush.n_queued_tasks, rush.n_failed_tasks)
    fail_next()
    assert 3 == rush.task(key).attempt
    two = rush.push_tasks([{"x": 2}, {"x": 3}])
    fail_next()
    fail_next()
    assert two == rush.retry_tasks([key, *two])
    with pytest.raises(UnknownKey, match="nobody"):
        rush.retry_tasks(["nobody", key], ignore_max_retries=True)
    assert "failed" == rush.task(key).state


def test_a_retry_is_new_to_those_who_wait(rush: Rush, worker: RushWorker) -> None:
    """Whoever waits for a retried task waits for its new end; it is in the results once."""
    (key,) = rush.push_tasks([{"x": 1}])
    for finish in (False, True):
        task = worker.pop_task(timeout=60)
        assert task is not None
        call = Background(rush.wait_for_tasks, [key], 60)
        assert worker.finish_task(key, {"y": 1}) if finish else worker.fail_task(key)
        assert [key] == (call.result().done if finish else call.result().failed)
        if not finish:
            assert [key] == rush.retry_tasks([key])
    assert [key] == rush.fetch_new_tasks()["key"].to_list()
    assert (0, 1, 1) == (rush.n_failed_tasks, rush.n_finished_tasks, rush.counts().total)


def test_an_old_attempt_is_refused(rush: Rush, network: str) -> None:
    """A worker that was declared lost and comes back late decides nothing: neither while the task waits, nor
    while another has it, nor when that is done."""
    (key,) = rush.push_tasks([{"x": 1}], max_retries=9, timeout=0.05)
    with RushWorker(network) as slow, RushWorker(network) as quick:
        old = slow.pop_task(timeout=60)
        assert old is not None
        wait = Background(quick.pop_task, 60)
        new = wait.result()
        assert new is not None and (key, 2) == (new.key, new.attempt)
        assert not slow.finish_task(key, {"y": "late"})
        done = quick.finish_task(key, {"y": "in time"})
        # Its own limit may have run out as well: then it is queued once more.
        task = rush.task(key)
        assert done == (task.ys == {"y": "in time"})
        assert not slow.fail_task(key)


def test_a_worker_that_comes_back_has_no_old_tasks(
    rush: Rush, network: str, tmp_path: Path, wait_until: Wait
) -> None:
    """A plain worker whose lease ran out is lost; its next call brings it back, its old result is refused."""
    with RushWorker(network, heartbeat=False, lease=0.1) as worker:
        (key,) = rush.push_tasks([{"x": 1}])
        task = worker.pop_task(timeout=60)
        assert task is not None
        wait_until(lambda: rush.detect_lost_workers() or rush.lost_worker_ids)
        assert "failed" == rush.task(key).state
        assert not worker.finish_task(key, {"y": 1})
        with RushWorker(network, heartbeat=False, lease=600):
            keys = rush.push_tasks([{"x": 2}])
            wait_until(lambda: keys == [t.key for t in worker.pop_tasks(1, timeout=0.1)])
        assert "Worker has crashed or was killed" == message(rush.task(key))
    assert os.getpid() == rush.fetch_workers(as_="tasks")[0].pid
