"""Ready-made loops for queues: ``worker_loop`` and ``isolated_loop``, whose tasks have a process each."""

from __future__ import annotations

import logging
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import loop_functions
import psutil
import pytest
from loop_functions import act

from rushlight import Rush, RushWorker, Task, isolated_loop, worker_loop
from rushlight.errors import ConfigError

Wait = Callable[..., None]
both = pytest.mark.parametrize("make", [worker_loop, isolated_loop])
CRASHED = "Worker has crashed or was killed"


def runs(*pids: int | str) -> bool:
    """Whether any of the processes is there, and not only waits to be buried by init."""
    for pid in map(int, pids):
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def done(rush: Rush, keys: list[str], seconds: float = 30) -> list[Task]:
    """The tasks, once they are finished or failed."""
    assert "done" == rush.wait_for_tasks(keys, timeout=seconds).reason
    return [rush.task(key) for key in keys]


def run(rush: Rush, loop: Callable[..., Any], *xss: dict[str, Any], **options: Any) -> list[Task]:
    """The tasks, done by one worker of the loop, which is still there afterwards."""
    keys = rush.push_tasks(xss)
    ids = rush.start_workers(loop, 1, **options)
    tasks = done(rush, keys)
    assert ids == rush.running_worker_ids
    return tasks


# --- both loops -----------------------------------------------------------------------------------


@both
def test_a_function_becomes_a_loop(rush: Rush, make: Any) -> None:
    """Tasks of the queue are done in their order: inputs by name, results by name."""
    tasks = run(rush, make(act), *({"x": i} for i in range(5)))
    assert list(range(5)) == [(task.ys or {})["y"] for task in tasks]
    assert [task.key for task in tasks] == rush.keys("finished")


@both
def test_results_that_are_no_mapping_are_named_y(rush: Rush, make: Any) -> None:
    """A number, nothing, a list: each is one result."""
    tasks = run(rush, make(act), {"how": "number", "x": 2}, {"how": "none"}, {"how": "list", "x": 1})
    assert [{"y": 2}, {"y": None}, {"y": [1, 1]}] == [task.ys for task in tasks]


@both
def test_constants_go_into_every_call(rush: Rush, make: Any) -> None:
    """Given to the loop, or to ``start_workers``, which has the last word; inputs have other names."""
    (task,) = run(rush, make(act, offset=10), {"x": 1})
    assert 11 == (task.ys or {})["y"]
    rush.reset()
    (task,) = run(rush, make(act, offset=10), {"x": 1}, kwargs={"offset": 20})
    assert 21 == (task.ys or {})["y"]
    rush.reset()
    (task,) = run(rush, make(act, offset=10), {"offset": 1})
    assert "TypeError" == (task.condition or {})["type"]
    assert "offset" in (task.condition or {})["message"]


@both
def test_an_error_fails_its_task_and_no_other(rush: Rush, make: Any) -> None:
    """With type, message and the traceback of the function alone; the loop goes on, nothing is retried."""
    tasks = run(
        rush,
        make(act),
        {"how": "fail", "x": 7},
        {"how": "exit politely"},
        {"how": "cursed"},
        {"unknown": 1},
        {"x": 1},
    )
    assert ["failed"] * 4 + ["finished"] == [task.state for task in tasks]
    conditions = [task.condition or {} for task in tasks[:4]]
    assert ["ValueError", "SystemExit", "Cursed", "TypeError"] == [said["type"] for said in conditions]
    assert "bad x: 7" == conditions[0]["message"]
    assert "enough" == conditions[1]["message"]
    assert conditions[2]["message"].startswith("Cursed")
    trace = conditions[0]["traceback"]
    assert 'raise ValueError(f"bad x: {x}")' in trace
    assert "rushlight" not in trace
    assert [1] * 5 == [task.attempt for task in tasks]


@both
def test_a_result_that_cannot_be_stored_fails_its_task(rush: Rush, make: Any) -> None:
    """The error names the place in the result."""
    tasks = run(rush, make(act), {"how": "generator"}, {"how": "names"}, {"x": 1})
    assert ["failed", "failed", "finished"] == [task.state for task in tasks]
    assert "EncodeError" == (tasks[0].condition or {})["type"]
    assert "y" in (tasks[0].condition or {})["message"]
    assert "ConfigError" == (tasks[1].condition or {})["type"]


@both
def test_large_results_arrive(rush: Rush, make: Any) -> None:
    """Beyond what a pipe or a record holds."""
    (task,) = run(rush, make(act), {"how": "large"})
    assert bytes(5_000_000) == (task.ys or {})["y"]


@both
def test_a_draining_network_lets_the_loop_end(rush: Rush, make: Any, wait_until: Wait) -> None:
    """``push_tasks(terminate_workers=True)``: all tasks are done, then the workers leave by themselves."""
    rush.start_workers(make(act), 2)
    rush.push_tasks([{"x": i} for i in range(20)], terminate_workers=True)
    wait_until(lambda: len(rush.terminated_worker_ids) == 2)
    assert 20 == rush.n_finished_tasks


@both
def test_terminate_waits_for_the_task_at_hand(
    rush: Rush, make: Any, tmp_path: Path, wait_until: Wait
) -> None:
    """The task that runs is finished, the next one stays in the queue."""
    path = str(tmp_path / "go")
    keys = rush.push_tasks([{"how": "wait for", "path": path}, {"x": 1}])
    rush.start_workers(make(act), 1)
    wait_until(Path(path + ".started").exists)
    rush.stop_workers("terminate")
    Path(path).touch()
    wait_until(lambda: rush.terminated_worker_ids)
    assert ["finished", "queued"] == rush.states(keys)


@both
def test_an_idle_worker_leaves_at_once_when_asked(rush: Rush, make: Any, wait_until: Wait) -> None:
    """It waits for tasks, and is woken."""
    ids = rush.start_workers(make(act), 2)
    rush.wait_for_workers(2)
    rush.stop_workers("terminate")
    wait_until(lambda: rush.terminated_worker_ids == sorted(ids), 4)


@both
def test_a_reset_of_tasks_does_not_end_the_loop(
    rush: Rush, make: Any, tmp_path: Path, wait_until: Wait
) -> None:
    """The result of a task that is no more is dropped; the worker takes what comes next."""
    path = str(tmp_path / "go")
    rush.push_tasks([{"how": "wait for", "path": path}])
    rush.start_workers(make(act), 1)
    wait_until(Path(path + ".started").exists)
    rush.reset(workers=False)
    Path(path).touch()
    (task,) = done(rush, rush.push_tasks([{"x": 3}]))
    assert 3 == (task.ys or {})["y"]
    assert 1 == rush.n_tasks


@both
def test_seeds_are_the_tasks(rush: Rush, make: Any) -> None:
    """Whatever the loop and the worker, a task draws the same numbers, and each task its own."""
    tasks = run(rush, make(act), *[{"how": "random"}] * 3, seed=11)
    numbers = [(task.ys or {})["y"] for task in tasks]
    assert 3 == len(set(numbers))
    for task, number in zip(tasks, numbers, strict=True):
        with rush.seeded(task):
            assert number == act(**task.xs)["y"]


@both
def test_a_loop_travels(make: Any) -> None:
    """It is pickled with its function and constants, and says what it is."""
    loop = make(lambda x, c: x + c, c=4)
    twin = cloudpickle.loads(cloudpickle.dumps(loop))
    assert ({"c": 4}, 5) == (twin.constants, twin.__wrapped__(1, 4))
    assert "act" in repr(make(act))
    assert act is pickle.loads(pickle.dumps(make(act))).__wrapped__


@both
def test_globals_reach_the_function(rush: Rush, make: Any) -> None:
    """``start_workers(globals=)`` defines names for the function inside the loop."""

    def use(x):
        return x * factor  # noqa: F821 - defined in the worker

    (task,) = run(rush, make(use), {"x": 3}, globals={"factor": 7})
    assert {"y": 21} == task.ys


@both
def test_it_works_as_a_decorator(rush: Rush, make: Any) -> None:
    """The name of the function then is the loop."""

    @make
    def double(x):
        return 2 * x

    (task,) = run(rush, double, {"x": 4})
    assert {"y": 8} == task.ys


@both
@pytest.mark.parametrize("fn", [None, 3, "act"])
def test_what_is_no_function_is_refused(make: Any, fn: Any) -> None:
    """When the loop is made, not when a worker runs it."""
    with pytest.raises(ConfigError, match="fn must be"):
        make(fn)


@both
def test_a_loop_is_not_its_function(make: Any) -> None:
    """Called with anything but a worker it says what it is, and where the function is."""
    loop = make(act)
    with pytest.raises(ConfigError, match=r"act is a worker loop.*got 3.*act\.__wrapped__"):
        loop(3)
    assert loop.__wrapped__ is act


@both
def test_a_coroutine_is_refused(make: Any) -> None:
    """Nobody would await it."""

    async def later(x):
        return x

    with pytest.raises(ConfigError, match="fn must be"):
        make(later)


@both
def test_a_loop_runs_in_a_process_of_the_users(rush: Rush, worker: RushWorker, make: Any) -> None:
    """For a debugger or an MPI rank: call it with a worker. It leaves the process as it found it."""
    rush.push_tasks([{"x": 1}, {"how": "fail"}], terminate_workers=True)
    handler, state = signal.getsignal(signal.SIGTERM), loop_functions.random.getstate()
    descriptors = psutil.Process().num_fds()
    make(act)(worker)
    assert (1, 1) == (rush.n_finished_tasks, rush.n_failed_tasks)
    assert handler == signal.getsignal(signal.SIGTERM)
    assert state == loop_functions.random.getstate()
    # The worker may have opened a second connection, to wait on.
    assert psutil.Process().num_fds() <= descriptors + 1
    assert [] == psutil.Process().children()


def test_a_task_costs_one_round_trip(rush: Rush, worker: RushWorker) -> None:
    """Finishing one and taking the next are one."""
    rush.push_tasks([{"x": i} for i in range(50)], terminate_workers=True)
    before = worker._store.link.trips
    worker_loop(act)(worker)
    assert worker._store.link.trips - before <= 50 + 5


# --- a process of its own -------------------------------------------------------------------------


def test_each_task_has_a_fresh_process(rush: Rush) -> None:
    """None sees what another has left in memory; all are children of one worker, which goes on."""
    tasks = run(rush, isolated_loop(act), *[{"how": "count"}] * 4)
    results = [task.ys or {} for task in tasks]
    assert [1] * 4 == [ys["calls"] for ys in results]
    assert 4 == len({ys["pid"] for ys in results})
    (info,) = rush.fetch_workers(as_="tasks")
    assert {info.pid} == {ys["parent"] for ys in results}
    assert not runs(*(ys["pid"] for ys in results))


def test_a_process_that_dies_fails_its_task_alone(rush: Rush) -> None:
    """A crash of native code, ``os._exit``, SIGKILL: how it ended and its last words are in the condition."""
    tasks = run(
        rush, isolated_loop(act), {"how": "crash"}, {"how": "exit"}, {"how": "kill"}, {"how": "", "x": 1}
    )
    crash, gone, killed = (task.condition or {} for task in tasks[:3])
    assert [CRASHED] * 3 == [said["message"] for said in (crash, gone, killed)]
    assert (signal.SIGSEGV, 3, signal.SIGKILL) == (crash["signal"], gone["exit_code"], killed["signal"])
    assert "about to crash" in crash["stderr"]
    assert "so long" == gone["stderr"]
    assert "killed by SIGKILL" == killed["reason"]
    assert "finished" == tasks[3].state


@pytest.mark.parametrize(("limit", "said"), [(1, "1"), (1.0, "1"), (0.5, "0.5")])
@pytest.mark.parametrize("where", ["loop", "task"])
def test_a_task_that_takes_too_long_is_ended(
    rush: Rush, tmp_path: Path, limit: float, said: str, where: str
) -> None:
    """By the loop's limit, or the task's own: with all it has started; its worker stays and goes on."""
    path = tmp_path / "pids"
    loop = isolated_loop(act, timeout=limit) if where == "loop" else isolated_loop(act, timeout=60)
    own = {"timeout": [limit, None]} if where == "task" else {}
    keys = rush.push_tasks([{"how": "hang", "path": str(path)}, {"x": 1}], **own)
    ids = rush.start_workers(loop, 1)
    late, next_one = done(rush, keys)
    condition = late.condition or {}
    assert f"Task timed out after {said} seconds" == condition["message"]
    assert ("TaskTimeout", limit) == (condition["type"], condition["timeout"])
    assert "finished" == next_one.state
    assert late.worker_id == next_one.worker_id
    assert ids == rush.running_worker_ids
    assert not runs(*path.read_text(encoding="utf-8").split())


def test_a_task_within_its_limit_is_finished(rush: Rush) -> None:
    """A limit costs nothing where it is kept; a task's own goes before the loop's."""
    keys = rush.push_tasks([{"x": 1}, {"x": 2}], timeout=[60, None])
    rush.start_workers(isolated_loop(act, timeout=30), 1)
    assert ["finished", "finished"] == [task.state for task in done(rush, keys)]


def test_what_a_task_leaves_behind_is_ended(rush: Rush, wait_until: Wait) -> None:
    """A process it started does not outlive it, and keeps nobody waiting."""
    (task,) = run(rush, isolated_loop(act), {"how": "leave a process"})
    wait_until(lambda: not runs((task.ys or {})["child"]))


@pytest.mark.parametrize("how", ["stop", "signal"])
def test_a_killed_worker_takes_its_task_s_processes_along(
    rush: Rush, tmp_path: Path, wait_until: Wait, how: str
) -> None:
    """Stopped by a manager or killed by the system: neither the task's process nor what it started stays."""
    path = tmp_path / "pids"
    (key,) = rush.push_tasks([{"how": "hang", "path": str(path)}])
    rush.start_workers(isolated_loop(act), 1)
    wait_until(lambda: path.exists() and len(path.read_text(encoding="utf-8").split()) == 2)
    if how == "stop":
        rush.stop_workers("kill")
    else:
        os.kill(rush.fetch_workers(as_="tasks")[0].pid, signal.SIGKILL)
    wait_until(lambda: not runs(*path.read_text(encoding="utf-8").split()))
    wait_until(lambda: rush.states([key]) == ["failed"])


def test_cancelling_ends_the_process(rush: Rush, tmp_path: Path, wait_until: Wait) -> None:
    """``cancel_tasks`` reaches a task in a process of its own, and the next task is done all the same."""
    path = tmp_path / "pids"
    (key,) = rush.push_tasks([{"how": "hang", "path": str(path)}])
    rush.start_workers(isolated_loop(act), 1)
    wait_until(lambda: path.exists() and len(path.read_text(encoding="utf-8").split()) == 2)
    rush.cancel_tasks([key])
    wait_until(lambda: not runs(*path.read_text(encoding="utf-8").split()))
    assert "Cancelled" == (rush.task(key).condition or {})["message"]
    assert "finished" == done(rush, rush.push_tasks([{"x": 1}]))[0].state


def test_what_a_task_prints_and_logs_is_in_the_log(rush: Rush, wait_until: Wait) -> None:
    """Under its worker's name, once, like that of any loop; a flood of it blocks nothing."""
    (task,) = run(rush, isolated_loop(act), {"how": "print", "x": 5}, log_level="warning")

    def messages() -> list[str]:
        return [row["msg"] for row in rush.read_log(as_="dicts") if row["worker_id"] == task.worker_id]

    wait_until(lambda: {"on stdout", "on stderr", "logged 5"} <= set(messages()))
    assert [1, 1, 1] == [messages().count(text) for text in ("on stdout", "on stderr", "logged 5")]


def test_entries_of_the_worker_are_not_sent_again(
    rush: Rush, worker: RushWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """Handlers of ``logging`` in the user's own process are as they were."""
    rush.push_tasks([{"x": 1}], terminate_workers=True)
    handlers = list(logging.getLogger().handlers)
    isolated_loop(act)(worker)
    assert handlers == logging.getLogger().handlers
    assert 1 == rush.n_finished_tasks


@pytest.mark.slow
def test_hundreds_of_processes_leave_nothing(rush: Rush, worker: RushWorker, wait_until: Wait) -> None:
    """No descriptor, no zombie, no process."""
    rush.push_tasks([{"how": how} for how in ["", "exit", "fail", "kill"] * 50], terminate_workers=True)
    worker.counts()
    descriptors = psutil.Process().num_fds()
    isolated_loop(act)(worker)
    assert (50, 150) == (rush.n_finished_tasks, rush.n_failed_tasks)
    assert psutil.Process().num_fds() <= descriptors + 1
    assert [] == psutil.Process().children()


@pytest.mark.parametrize("timeout", [0, -1, "1", True])
def test_what_is_no_limit_is_refused(timeout: Any) -> None:
    """Seconds, more than none."""
    with pytest.raises(ConfigError, match="timeout"):
        isolated_loop(act, timeout=timeout)
