"""Short tasks, several at once in a worker's hands: nobody sees it, whatever happens to the worker."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rushlight import Rush, RushWorker, worker_loop
from rushlight._journal import Journal
from rushlight._pace import MOST

Wait = Callable[..., None]
CRASHED = "Worker has crashed or was killed"


def note(path: str, x: int = 0, how: str = "") -> Any:
    """Write down that the task has been run; then do what it says."""
    with open(path, "a") as file:
        file.write(f"{x}\n")
    if how == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "wait":
        open(f"{path}.go").close()
    elif how == "fail":
        raise ValueError(f"no {x}")
    return "y" * x if how == "large" else x


def noted(path: Path) -> list[int]:
    """The tasks that were run."""
    return [int(line) for line in path.read_text().split()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """What the tasks write to; beside it is a pipe that those read which wait."""
    os.mkfifo(tmp_path / "noted.go")
    return tmp_path / "noted"


def push(rush: Rush, path: Path, n: int, **special: dict[int, str]) -> list[str]:
    """N short tasks; of some it is said how they are special."""
    hows = special.get("hows", {})
    return rush.push_tasks([{"path": str(path), "x": i, "how": hows.get(i, "")} for i in range(n)])


def test_short_tasks_are_taken_by_the_dozen(rush: Rush, path: Path, worker: RushWorker) -> None:
    """In their order, each once, in far fewer trips than tasks; their results are all there."""
    keys = push(rush, path, 500)
    rush.push_tasks([], terminate_workers=True)
    worker._journal = Journal()
    trips = worker._store.link.trips
    worker_loop(note, seeded=False)(worker)
    assert worker._store.link.trips - trips < 500 / 4
    assert list(range(500)) == noted(path)
    assert keys == rush.keys("finished")


def test_a_worker_of_its_own_takes_one_at_a_time(rush: Rush, path: Path, worker: RushWorker) -> None:
    """Nobody could say which it had begun, should it die."""
    push(rush, path, 20)
    rush.push_tasks([], terminate_workers=True)
    trips = worker._store.link.trips
    worker_loop(note, seeded=False)(worker)
    assert 20 <= worker._store.link.trips - trips <= 22


def test_a_crash_fails_its_own_task_only(rush: Rush, path: Path) -> None:
    """Of a hundred short tasks three kill their worker: these fail, all others are run once, first try."""
    bad = {31: "crash", 47: "crash", 80: "crash"}
    keys = push(rush, path, 100, hows=bad)
    rush.start_workers(worker_loop(note, seeded=False), 1, max_restarts=3)
    result = rush.wait_for_tasks(keys, timeout=60)
    assert [keys[i] for i in bad] == result.failed
    assert {CRASHED} == {(rush.task(key).condition or {})["message"] for key in result.failed}
    tasks = rush.fetch_finished_tasks(as_="tasks")
    assert {1} == {task.attempt for task in tasks}
    assert [i for i in range(100) if i not in bad] == sorted(task.ys["y"] for task in tasks if task.ys)
    assert dict.fromkeys(range(100), 1) == Counter(noted(path))


def test_a_crash_from_outside_fails_one_task_at_most(rush: Rush, path: Path, wait_until: Wait) -> None:
    """A worker killed in the midst of short tasks; the other does the rest, nothing is run twice."""
    keys = push(rush, path, 3000)
    rush.start_workers(worker_loop(note, seeded=False), 2)
    rush.wait_for_workers(2)
    wait_until(lambda: rush.n_finished_tasks > 300)
    os.kill(rush.worker_info["pid"][0], signal.SIGKILL)
    result = rush.wait_for_tasks(keys, timeout=60)
    assert len(result.failed) <= 1
    assert 3000 == len(result.failed) + len(result.done)
    assert {1} == set(Counter(noted(path)).values())


def test_a_long_task_holds_up_nobody(rush: Rush, path: Path) -> None:
    """What its worker had in hand is done by the other, and what it had done is told."""
    keys = push(rush, path, 400, hows={150: "wait"})
    rush.start_workers(worker_loop(note, seeded=False), 2)
    others = [key for i, key in enumerate(keys) if i != 150]
    assert rush.wait_for_tasks(others, timeout=60)
    assert "running" == rush.task(keys[150]).state
    Path(f"{path}.go").write_text("")
    assert rush.wait_for_tasks(keys, timeout=60)
    assert dict.fromkeys(range(400), 1) == Counter(noted(path))


def test_tasks_that_grow_long_are_left_to_others(rush: Rush, worker: RushWorker) -> None:
    """Of a hundred taken at once, as those before were short, soon all but one are in the queue again."""
    running: list[int] = []

    def grow(x: int) -> None:
        if x >= 300:
            threading.Event().wait(0.003)
            running.append(rush.n_running_tasks)
            if x == 320:
                rush.empty_queue()

    rush.push_tasks([{"x": x} for x in range(1000)])
    rush.push_tasks([], terminate_workers=True)
    worker._journal = Journal()
    worker_loop(grow, seeded=False)(worker)
    assert max(running) > 20
    assert max(running[6:]) <= 2


def test_a_long_task_can_be_cancelled(rush: Rush, path: Path, wait_until: Wait) -> None:
    """Its worker is replaced; all others are run, once."""
    keys = push(rush, path, 200, hows={100: "wait"})
    (name,) = rush.start_workers(worker_loop(note, seeded=False), 1)
    wait_until(lambda: 100 in noted(path) if path.exists() else False)
    assert keys[100:101] == rush.cancel_tasks(keys[100:101])
    result = rush.wait_for_tasks(keys, timeout=60)
    assert keys[100:101] == result.failed
    assert [name] == rush.running_worker_ids
    assert dict.fromkeys(range(200), 1) == Counter(noted(path))


def test_a_worker_that_is_asked_to_leave_leaves_nothing_behind(
    rush: Rush, path: Path, wait_until: Wait
) -> None:
    """No task is running afterwards, none has failed, and none is lost."""
    push(rush, path, 3000)
    rush.start_workers(worker_loop(note, seeded=False), 1)
    wait_until(lambda: rush.n_finished_tasks > 100)
    rush.stop_workers("terminate")
    wait_until(lambda: not rush.running_worker_ids)
    counts = rush.counts()
    assert (0, 0) == (counts.running, counts.failed)
    assert 3000 == counts.queued + counts.finished
    assert counts.finished == len(noted(path))


def test_failures_and_large_results_among_short_tasks(rush: Rush, path: Path) -> None:
    """Each has its own."""
    hows = dict.fromkeys(range(40, 200, 7), "fail") | dict.fromkeys(range(45, 200, 11), "large")
    xs = {i: 100_000 if i % 2 else 700_000 for i, how in hows.items() if how == "large"}
    keys = rush.push_tasks(
        [{"path": str(path), "x": xs.get(i, i), "how": hows.get(i, "")} for i in range(200)]
    )
    rush.start_workers(worker_loop(note, seeded=False), 1)
    result = rush.wait_for_tasks(keys, timeout=60)
    assert [keys[i] for i, how in sorted(hows.items()) if how == "fail"] == result.failed
    table = rush.fetch_finished_tasks(as_="dicts")
    assert keys != [] and {len(row["y"]) for row in table if isinstance(row["y"], str)} == {100_000, 700_000}


def test_a_reset_of_the_tasks_in_between(rush: Rush, path: Path, wait_until: Wait) -> None:
    """The worker goes on with what is queued afterwards."""
    push(rush, path, 2000)
    rush.start_workers(worker_loop(note, seeded=False), 1)
    wait_until(lambda: rush.n_finished_tasks > 100)
    rush.reset(workers=False)
    assert rush.wait_for_tasks(push(rush, path, MOST * 3), timeout=60)
    assert MOST * 3 == rush.n_finished_tasks
