"""Queues as their users have them: priorities, private queues, drains, bounds, cancelling, prerequisites."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from harness import Background
from rushlight import Rush, RushWorker
from rushlight.errors import UnknownKey, WaitTimeout

Wait = Callable[..., None]


def serve(worker):
    """Do what tasks say until told to leave or nothing is left."""
    import os
    import threading
    from pathlib import Path

    while not worker.terminated and not worker.should_stop_when_idle:
        task = worker.pop_task(timeout=60)
        if task is None:
            continue
        if task.xs.get("touch"):
            Path(task.xs["touch"]).touch()
        while task.xs.get("until") and not Path(task.xs["until"]).exists():
            threading.Event().wait(0.01)
        if task.xs.get("fail"):
            worker.fail_task(task.key, "told to")
        else:
            worker.finish_task(task.key, {"pid": os.getpid()})


def start(rush: Rush, n: int = 1, **options: Any) -> list[str]:
    """Workers that serve, running."""
    ids = rush.start_workers(serve, n, **options)
    rush.wait_for_workers(worker_ids=ids, timeout=60)
    return ids


def pid_of(rush: Rush, worker_id: str) -> int:
    """The process of a worker."""
    return next(info.pid for info in rush.fetch_workers(as_="tasks") if info.worker_id == worker_id)


def done(rush: Rush, keys: list[str]) -> None:
    """All of these tasks are finished."""
    result = rush.wait_for_tasks(keys, timeout=60)
    assert ("done", sorted(keys)) == (result.reason, sorted(result.done))


# --- order ------------------------------------------------------------------------------------------


def test_priorities_decide_the_order(rush: Rush) -> None:
    """One worker does the urgent ones first and the idle ones last, first in first out among equals."""
    keys = rush.push_tasks([{"x": i} for i in range(7)], priority=[0, -3, 2, 0, 2, 10, None])
    start(rush)
    done(rush, keys)
    order = [keys.index(key) for key in rush.keys("finished")]
    assert [5, 2, 4, 0, 3, 6, 1] == order


def test_numbers_may_be_numpys(rush: Rush, worker: RushWorker) -> None:
    """Also those of whole arrays: priorities, limits, retries and seeds of a table's rows."""
    rush.push_tasks(
        [{"x": 0}, {"x": 1}],
        priority=np.array([1, 2]),
        timeout=np.float32(2.5),
        max_retries=np.array([3, 4], dtype=np.int8),
        seeds=np.array([5, 6]),
    )
    tasks = worker.pop_tasks(np.int64(2), timeout=np.float32(1.0))
    assert [(1, 2.5, 6), (0, 2.5, 5)] == [(task.xs["x"], task.timeout, task.seed) for task in tasks]


def test_private_tasks_are_their_workers(rush: Rush) -> None:
    """Each goes to its worker and to nobody else, though others are idle; None is for all."""
    ids = start(rush, 2)
    keys = rush.push_tasks([{"x": i} for i in range(9)], workers=[ids[0], ids[1], None] * 3)
    done(rush, keys)
    workers = [rush.task(key).worker_id for key in keys]
    assert [ids[0]] * 3 == workers[0::3]
    assert [ids[1]] * 3 == workers[1::3]
    assert set(workers[2::3]) <= set(ids)


def test_an_idle_worker_is_woken_for_its_own_task(rush: Rush) -> None:
    """Long before its wait ends, whichever of them it is; workers that wait look for nothing."""
    ids = start(rush, 3)
    for worker_id in (*ids, *reversed(ids)):
        done(rush, rush.push_tasks([{"x": 1}], workers=worker_id))
    assert 2 == min(info.n_finished for info in rush.fetch_workers(as_="tasks"))


def test_others_wait_in_vain(rush: Rush, worker: RushWorker, network: str) -> None:
    """A private task is not there for others; counts include it."""
    with RushWorker(network) as other:
        keys = rush.push_tasks([{"x": 1}], workers=worker.worker_id)
        assert other.pop_task(timeout=0.1) is None
        assert 1 == rush.n_queued_tasks
        task = worker.pop_task(timeout=0.1)
        assert task is not None and keys == [task.key]
        assert 0 == rush.n_queued_tasks


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_private_queue_without_its_worker_is_everybodys(rush: Rush, tmp_path: Path, how: str) -> None:
    """Killed, or asked to leave: what it has not begun is done by others."""
    ids = start(rush, 2)
    blocker = rush.push_tasks(
        [{"touch": str(tmp_path / "started"), "until": str(tmp_path / "go")}], workers=ids[0]
    )
    keys = rush.push_tasks([{"x": 1}] * 3, workers=ids[0])
    for _ in rush.stream(timeout=0.2):
        pytest.fail("something was done")
    rush.stop_workers(how, [ids[0]])
    (tmp_path / "go").touch()
    done(rush, keys)
    assert {ids[1]} == {rush.task(key).worker_id for key in keys}
    rush.wait_for_tasks(blocker, timeout=60)
    assert ("failed" if how == "kill" else "finished") == rush.task(blocker[0]).state


def test_tasks_for_strangers_are_everybodys(rush: Rush, worker: RushWorker, network: str) -> None:
    """An id nobody has, or had, is no error."""
    with RushWorker(network, worker_id="was here"):
        pass
    keys = rush.push_tasks([{"x": 1}, {"x": 2}], workers=["never heard of", "was here"])
    assert keys == [task.key for task in worker.pop_tasks(5)]


def test_popped_tasks_carry_their_options(rush: Rush, worker: RushWorker) -> None:
    """Inputs, seed, limit and attempt are there without another question."""
    rush.push_tasks([{"x": 1}], xs_extra={"tag": "a"}, seeds=[42], timeout=30, max_retries=2, priority=3)
    task = worker.pop_task()
    assert task is not None
    assert ({"x": 1}, {"tag": "a"}, 42, 30.0, 1) == (
        task.xs,
        task.xs_extra,
        task.seed,
        task.timeout,
        task.attempt,
    )


def test_a_wait_ends_with_a_task_that_nobody_can_do(rush: Rush) -> None:
    """The only worker dies with one of two tasks: one has failed, the other stays queued, the wait ends."""

    def die(worker):
        import os

        if worker.pop_task(timeout=60) is not None:
            os._exit(7)

    keys = rush.push_tasks([{"x": 1}, {"x": 2}])
    rush.start_workers(die)
    result = rush.wait_for_tasks(keys, timeout=60)
    assert ("no_workers", keys[:1], keys[1:]) == (result.reason, result.failed, result.pending)
    assert (1, 1) == (rush.n_queued_tasks, rush.n_failed_tasks)


def test_workers_alone_reach_their_number(rush: Rush) -> None:
    """Without a manager's word: each makes and finishes tasks until all together have a hundred."""

    def produce(worker):
        while worker.n_finished_tasks < 100:
            worker.finish_task(worker.push_running_task({"x": 1}), {"y": 2})

    ids = rush.start_workers(produce, 2)
    for _ in rush.stream(timeout=60):
        if rush.n_finished_tasks >= 100:
            break
    rush.wait_for_workers(worker_ids=ids, timeout=60)
    assert 100 <= rush.n_finished_tasks <= 101


# --- draining ---------------------------------------------------------------------------------------


def test_a_drained_network_is_left(rush: Rush, wait_until: Wait) -> None:
    """With private, delayed and waiting tasks: all are done, then all workers leave."""
    ids = start(rush, 2)
    first = rush.push_tasks([{"x": 1}])
    keys = first + rush.push_tasks([{"x": 2}] * 3, after=first, workers=[*ids, None])
    failing = rush.push_tasks([{"fail": True}], max_retries=2, backoff=0.05)
    keys += rush.push_tasks([{"x": 3}], priority=-1, terminate_workers=True)
    done(rush, keys)
    assert failing == rush.wait_for_tasks(failing, timeout=60).failed
    assert 3 == rush.task(failing[0]).attempt
    wait_until(lambda: sorted(rush.terminated_worker_ids) == sorted(ids))


def test_idle_is_told_with_the_last_task(rush: Rush, worker: RushWorker) -> None:
    """``should_stop_when_idle`` is false while a task is queued anywhere, true once none is."""
    rush.push_tasks([{"x": 1}], terminate_workers=True)
    rush.push_tasks([{"x": 2}], workers=worker.worker_id)
    assert not worker.should_stop_when_idle
    for idle in (False, True):
        task = worker.pop_task(timeout=0)
        assert task is not None
        assert worker.finish_task(task.key, {"y": 1})
        assert idle == worker.should_stop_when_idle


# --- a bounded queue --------------------------------------------------------------------------------


def test_a_bounded_push_follows_the_workers(rush: Rush) -> None:
    """Hundreds of tasks through a queue of five, from two managers at once."""
    start(rush, 2)
    with Rush(rush.network) as other:
        calls = [
            Background(manager.push_tasks, [{"x": i} for i in range(150)], max_queued=5)
            for manager in (rush, other)
        ]
        keys = [key for call in calls for key in call.result()]
    done(rush, keys)
    assert 300 == len(set(keys)) == rush.n_finished_tasks


def test_a_full_queue_without_workers_is_told(rush: Rush) -> None:
    """The error says how many are queued and which."""
    with pytest.raises(WaitTimeout, match=r"2 of 5 task\(s\) are queued") as caught:
        rush.push_tasks([{"x": 1}] * 5, max_queued=2, queue_timeout=0.05)
    assert rush.keys("queued") == caught.value.fields["keys"]


# --- cancelling -------------------------------------------------------------------------------------


def test_a_running_task_is_interrupted(rush: Rush, tmp_path: Path, wait_until: Wait) -> None:
    """It fails at once; its worker is there again with a new process, others keep theirs, the next task is
    done."""
    ids = start(rush, 2)
    pids = {worker_id: pid_of(rush, worker_id) for worker_id in ids}
    started = tmp_path / "started"
    (key,) = rush.push_tasks([{"touch": str(started), "until": str(tmp_path / "never")}])
    wait_until(started.exists)
    victim = rush.task(key).worker_id
    assert victim is not None
    behind = rush.push_tasks([{"x": 1}], workers=victim)
    assert [key] == rush.cancel_tasks([key])
    assert ("failed", "Cancelled") == (rush.task(key).state, (rush.task(key).condition or {})["message"])
    done(rush, behind)
    after = rush.task(behind[0])
    assert victim == after.worker_id
    assert pids[victim] != (after.ys or {})["pid"] == pid_of(rush, victim)
    wait_until(lambda: not psutil.pid_exists(pids[victim]))
    other = next(worker_id for worker_id in ids if worker_id != victim)
    assert pids[other] == pid_of(rush, other)
    assert sorted(ids) == sorted(rush.running_worker_ids)


def test_cancelling_wakes_those_who_wait(rush: Rush, worker: RushWorker, network: str) -> None:
    """For a queued and for a running task, in a plain worker: its result is refused, and it goes on."""
    running, queued = rush.push_tasks([{"x": 1}, {"x": 2}])
    task = worker.pop_task()
    assert task is not None and running == task.key
    call = Background(rush.wait_for_tasks, [running, queued], 60)
    with Rush(network) as other:
        assert [running, queued] == other.cancel_tasks([running, queued])
    result = call.result()
    assert ("done", [running, queued]) == (result.reason, result.failed)
    assert not worker.finish_task(running, {"y": 1})
    more = rush.push_tasks([{"x": 3}])
    task = worker.pop_task()
    assert task is not None and more == [task.key]
    assert worker.finish_task(task.key, {"y": 1})


def test_cancelling_what_is_over_or_unknown(rush: Rush, worker: RushWorker) -> None:
    """A final state stands; an unknown key is an error that changes nothing."""
    finished = rush.push_finished_tasks([{"x": 1}], [{"y": 1}])
    queued = rush.push_tasks([{"x": 1}])
    with pytest.raises(UnknownKey, match="nonsense"):
        rush.cancel_tasks([*queued, "nonsense"])
    assert [] == rush.cancel_tasks(finished)
    assert ["finished", "queued"] == [str(state) for state in rush.states([*finished, *queued])]


def test_many_cancellations_leave_a_worker_that_works(rush: Rush, tmp_path: Path, wait_until: Wait) -> None:
    """Again and again, at any moment of a task's life: the id stays, no process is left."""
    (worker_id,) = start(rush)
    keys = []
    for i in range(8):
        started = tmp_path / f"started-{i}"
        keys += rush.push_tasks([{"touch": str(started), "until": str(tmp_path / "never")}])
        if i % 2:
            wait_until(started.exists)
        else:
            wait_until(lambda: rush.n_running_tasks == 1)
        rush.cancel_tasks(keys[-1:])
    done(rush, rush.push_tasks([{"x": 1}]))
    assert 8 == rush.n_failed_tasks
    assert [worker_id] == rush.running_worker_ids


def test_a_worker_asked_to_leave_is_not_brought_back(rush: Rush, tmp_path: Path, wait_until: Wait) -> None:
    """Terminate, then cancel the task it was finishing: it has left, and no new process comes."""
    (worker_id,) = start(rush)
    started = tmp_path / "started"
    keys = rush.push_tasks([{"touch": str(started), "until": str(tmp_path / "never")}])
    wait_until(started.exists)
    pid = pid_of(rush, worker_id)
    rush.stop_workers("terminate")
    rush.cancel_tasks(keys)
    assert [worker_id] == rush.terminated_worker_ids
    wait_until(lambda: not psutil.pid_exists(pid))
    rush.push_tasks([{"x": 1}])
    assert "no_workers" == rush.wait_for_tasks(rush.keys("queued"), timeout=60).reason


# --- prerequisites ----------------------------------------------------------------------------------


def test_a_graph_is_done_in_order(rush: Rush) -> None:
    """On several workers: nobody begins before all it waits for is done."""
    start(rush, 2)
    sources = rush.push_tasks([{"x": i} for i in range(4)])
    middle = rush.push_tasks(
        [{"x": i} for i in range(4)], after=[sources[i : i + 2] for i in (0, 1, 2)] + [None]
    )
    (sink,) = rush.push_tasks([{"x": 0}], after=middle)
    done(rush, [sink])
    times = {key: rush.task(key) for key in (*sources, *middle, sink)}
    for i in range(3):
        for source in sources[i : i + 2]:
            assert (times[source].finished_at or 0) <= (times[middle[i]].started_at or 0)
    assert max(times[key].finished_at or 0 for key in middle) <= (times[sink].started_at or 0)


def test_one_key_is_what_all_wait_for(rush: Rush, worker: RushWorker) -> None:
    """``after`` may be a single key."""
    (first,) = rush.push_tasks([{"x": 0}])
    later = rush.push_tasks([{"x": 1}, {"x": 2}], after=first)
    assert [first] == [task.key for task in worker.pop_tasks(9)]
    worker.finish_task(first, {})
    assert later == [task.key for task in worker.pop_tasks(9)]


def test_a_failure_ends_those_who_wait_for_it(rush: Rush) -> None:
    """Once it has no attempt left; the condition names it, and wait_for_tasks returns."""
    start(rush)
    (first,) = rush.push_tasks([{"fail": True}], max_retries=1, backoff=0.01)
    (second,) = rush.push_tasks([{"x": 1}], after=[first])
    (third,) = rush.push_tasks([{"x": 1}], after=[second])
    result = rush.wait_for_tasks([third, second, first], timeout=60)
    assert [third, second, first] == result.failed
    assert 2 == rush.task(first).attempt
    assert f"Prerequisite failed: {first}" == (rush.task(second).condition or {})["message"]
    assert f"Prerequisite failed: {second}" == (rush.task(third).condition or {})["message"]
    assert {"PrerequisiteFailed"} == {(rush.task(key).condition or {})["type"] for key in (second, third)}


def test_a_push_may_race_with_its_prerequisite(rush: Rush) -> None:
    """It is released whether the other finishes before, while or after it is pushed."""
    start(rush, 2)
    keys: list[str] = []
    for i in range(60):
        keys += rush.push_tasks([{"x": i}], after=keys[-1:])
    done(rush, keys)


def test_many_threads_push_and_cancel(rush: Rush) -> None:
    """Each task ends once: finished, or cancelled."""
    start(rush, 2)
    gone: list[str] = []
    lock = threading.Lock()

    def push(seed: int) -> list[str]:
        mine: list[str] = []
        for i in range(20):
            after = mine[-1:] if i % 4 == seed else None
            mine += rush.push_tasks([{"x": i}], priority=i % 3 - 1, after=after)
            if i % 5 == 4:
                dropped = rush.cancel_tasks(mine[-2:])
                with lock:
                    gone.extend(dropped)
        return mine

    keys = [key for call in [Background(push, seed) for seed in range(4)] for key in call.result()]
    result = rush.wait_for_tasks(keys, timeout=60)
    assert "done" == result.reason
    assert set(gone) <= set(result.failed)
    others = set(result.failed) - set(gone)
    assert {"PrerequisiteFailed"} >= {(rush.task(key).condition or {})["type"] for key in others}
    assert os.getpid() not in {(rush.task(key).ys or {})["pid"] for key in result.done}
