"""Tasks that run too long: ended from outside, whatever they are doing, and nobody else with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import message, settled
from rushlight import Rush, RushWorker

Wait = Callable[..., None]


def work(worker, hoard=0):
    """Sleep as the task says: in Python, or in native code that keeps the GIL; without, finish at once."""
    import ctypes
    import os
    import threading
    from pathlib import Path

    while not worker.terminated:
        if hoard:
            tasks = worker.pop_tasks(hoard, timeout=60)
        else:
            tasks = [task for task in [worker.pop_task(timeout=60)] if task is not None]
        for task in tasks:
            if task.xs.get("touch"):
                Path(task.xs["touch"]).touch()
            if task.attempt > task.xs.get("attempts", 99):
                pass
            elif task.xs.get("how") == "python":
                threading.Event().wait(600)
            elif task.xs.get("how") == "native":
                ctypes.PyDLL(None).sleep(600)
            elif task.xs.get("how") == "busy":
                while True:
                    pass
            worker.finish_task(task.key, {"pid": os.getpid()})


def start(rush: Rush, n: int = 1, loop: Callable[..., None] = work, **options: Any) -> dict[str, int]:
    """Workers that are running, and their processes."""
    ids = rush.start_workers(loop, n, **options)
    rush.wait_for_workers(worker_ids=ids, timeout=60)
    return {worker_id: pid for worker_id, pid in pids(rush).items() if worker_id in ids}


def pids(rush: Rush) -> dict[str, int]:
    """The process of each worker."""
    return {info.worker_id: info.pid for info in rush.fetch_workers(as_="tasks")}


@pytest.mark.parametrize(
    ("how", "limit", "said"),
    [("python", 0.5, "0.5"), ("native", 1, "1"), ("native", 1.0, "1"), ("busy", 0.25, "0.25")],
)
def test_a_task_that_runs_too_long_is_ended(
    rush: Rush, wait_until: Wait, how: str, limit: float, said: str
) -> None:
    """In Python or in native code that holds the GIL: its worker is replaced under its id, others stay as
    they are, and what is queued behind it is done."""
    before = start(rush, 2)
    late = rush.push_tasks([{"how": how}], timeout=limit)
    (task,) = settled(rush, late)
    assert f"Task timed out after {said} seconds" == message(task)
    assert ("TaskTimeout", limit) == ((task.condition or {})["type"], (task.condition or {})["timeout"])
    victim = task.worker_id
    assert victim is not None
    # One for each worker, so that both have to be there.
    after = settled(rush, rush.push_tasks([{"x": 1}] * 2, workers=list(before), timeout=60))
    assert list(before) == [task.worker_id for task in after]
    assert pids(rush) == {task.worker_id: (task.ys or {})["pid"] for task in after}
    assert [victim] == [worker_id for worker_id, pid in pids(rush).items() if pid != before[worker_id]]
    wait_until(lambda: not psutil.pid_exists(before[victim]))
    assert sorted(before) == sorted(rush.running_worker_ids)


def test_in_time_is_in_time(rush: Rush, wait_until: Wait) -> None:
    """A limit that is kept ends nobody, also when it runs out afterwards."""
    before = start(rush)
    keys = rush.push_tasks([{"x": 1}] * 5, timeout=0.5)
    assert ["finished"] * 5 == [task.state for task in settled(rush, keys)]
    (late,) = settled(rush, rush.push_tasks([{"how": "python"}], timeout=1))
    assert "failed" == late.state
    assert ["finished"] * 5 == [str(state) for state in rush.states(keys)]
    wait_until(lambda: list(before) == rush.running_worker_ids)


def test_a_task_that_ran_too_long_is_tried_again(rush: Rush) -> None:
    """Up to its limit, with the reason there to see; a worker that was replaced so often goes on."""
    before = start(rush)
    once, always = rush.push_tasks(
        [{"how": "python", "attempts": 1}, {"how": "native"}], timeout=0.4, max_retries=1
    )
    tasks = settled(rush, [once, always])
    assert [("finished", 2), ("failed", 2)] == [(task.state, task.attempt) for task in tasks]
    assert "Task timed out after 0.4 seconds" == message(tasks[1])
    (last,) = settled(rush, rush.push_tasks([{"x": 1}]))
    assert list(before) == [last.worker_id]


def test_several_taken_at_once(rush: Rush) -> None:
    """The one that is late has timed out; those its worker had not begun go with its process, to be tried
    again where both they and the worker allow it."""
    start(rush, 1, kwargs={"hoard": 3}, on_lost="requeue")
    late, again, lost = rush.push_tasks(
        [{"how": "python"}, {"x": 1}, {"x": 1}], timeout=[0.4, None, None], max_retries=[0, 1, 0]
    )
    tasks = settled(rush, [late, again, lost])
    assert ["failed", "finished", "failed"] == [task.state for task in tasks]
    assert 2 == tasks[1].attempt
    assert ["Task timed out after 0.4 seconds", "Worker was killed"] == [message(tasks[0]), message(tasks[2])]


def test_a_plain_worker_is_not_killed(rush: Rush, worker: RushWorker) -> None:
    """Its task is decided by its lease thread, without anybody else; its late result is refused, and it goes
    on."""
    (key,) = rush.push_tasks([{"x": 1}], timeout=0.2)
    task = worker.pop_task(timeout=60)
    assert task is not None
    stream = worker.wait_for_tasks([key], timeout=60)
    assert ([key], "done") == (stream.failed, stream.reason)
    assert "Task timed out after 0.2 seconds" == message(rush.task(key))
    assert not worker.finish_task(key, {"y": 1})
    (key,) = rush.push_tasks([{"x": 2}], timeout=60)
    task = worker.pop_task(timeout=60)
    assert task is not None
    assert worker.finish_task(key, {"y": 1})
    assert [worker.worker_id] == rush.running_worker_ids


def test_anybody_ends_what_is_late(rush: Rush, network: str) -> None:
    """A worker without a lease thread or a supervisor: whoever waits for the task finds that it is late."""
    with RushWorker(network, heartbeat=False, lease=600) as silent:
        (key,) = rush.push_tasks([{"x": 1}], timeout=0.1)
        assert silent.pop_task(timeout=60) is not None
        (task,) = settled(rush, [key])
        assert "Task timed out after 0.1 seconds" == message(task)


def test_a_supervisor_that_is_gone_leaves_its_limits_to_others(
    rush: Rush, tmp_path: Path, wait_until: Wait
) -> None:
    """Frozen, it cannot replace anybody: the task is decided all the same; let go, it does."""
    before = start(rush, 1, lease=60)
    (worker_id,) = before
    supervisor = psutil.Process(before[worker_id]).parent()
    assert supervisor is not None
    started = tmp_path / "started"
    (key,) = rush.push_tasks([{"how": "native", "touch": str(started)}], timeout=1)
    wait_until(started.exists)
    os.kill(supervisor.pid, signal.SIGSTOP)
    try:
        (task,) = settled(rush, [key])
        assert "Task timed out after 1 seconds" == message(task)
        behind = rush.push_tasks([{"x": 1}], workers=worker_id)
        assert 1 == rush.n_queued_tasks
        assert psutil.pid_exists(before[worker_id])
    finally:
        os.kill(supervisor.pid, signal.SIGCONT)
    (task,) = settled(rush, behind)
    assert worker_id == task.worker_id
    assert before[worker_id] != (task.ys or {})["pid"]


def test_a_reset_in_the_middle(
    rush: Rush, tmp_path: Path, processes: Callable[[str], list[Any]], wait_until: Wait
) -> None:
    """Nothing is left, and nobody comes back."""
    started = tmp_path / "started"
    start(rush)
    rush.push_tasks([{"how": "native", "touch": str(started)}], timeout=0.4)
    wait_until(started.exists)
    rush.reset()
    wait_until(lambda: not processes(rush.network))
    assert 0 == rush.counts().total
    start(rush)
    (task,) = settled(rush, rush.push_tasks([{"x": 1}], timeout=60))
    assert "finished" == task.state


def test_a_reset_of_tasks_forgets_limits(rush: Rush, tmp_path: Path, wait_until: Wait) -> None:
    """A task that is gone is late for nobody: its worker keeps its process and goes on."""
    started, go = tmp_path / "started", tmp_path / "go"

    def wait(worker):
        from pathlib import Path
        from threading import Event

        while not worker.terminated:
            task = worker.pop_task(timeout=60)
            if task is not None and "touch" in task.xs:
                Path(task.xs["touch"]).touch()
                while not Path(task.xs["go"]).exists():
                    Event().wait(0.01)
            if task is not None:
                worker.finish_task(task.key, {})

    before = start(rush, 1, wait)
    rush.push_tasks([{"touch": str(started), "go": str(go)}], timeout=1)
    wait_until(started.exists)
    rush.reset(workers=False)
    # Another limit runs out after the first would have.
    with RushWorker(rush.network) as plain:
        (key,) = rush.push_tasks([{"x": 1}], timeout=1.2)
        assert plain.pop_task(timeout=60) is not None
        settled(rush, [key])
    go.touch()
    (task,) = settled(rush, rush.push_tasks([{"x": 2}]))
    assert "finished" == task.state
    assert before == {worker_id: pids(rush)[worker_id] for worker_id in before}
    assert 2 == rush.counts().total


def test_limits_and_restarts_are_counted_apart(rush: Rush) -> None:
    """A worker that is replaced for its task's sake has used none of its ``max_restarts``."""
    before = start(rush, 1, max_restarts=1)
    for _ in range(3):
        (task,) = settled(rush, rush.push_tasks([{"how": "native"}], timeout=0.2))
        assert "Task timed out after 0.2 seconds" == message(task)
    (task,) = settled(rush, rush.push_tasks([{"x": 1}]))
    assert list(before) == [task.worker_id]
    assert [] == rush.lost_worker_ids
