"""Workers as processes: started, awaited, stopped, restarted, and what the network knows of them."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from rushlight import Rush, RushWorker, WorkerInfo, WorkerState
from rushlight.errors import ConfigError, UnknownKey, WaitTimeout, WorkerStartError

Wait = Callable[..., None]


def stay(worker):
    """Be a member until told to leave."""
    while not worker.terminated:
        worker.pop_task(timeout=5)


def stay_with_a_task(worker):
    """Hold one running task until told to leave."""
    worker.push_running_task({"x": 1})
    stay(worker)


def serve(worker):
    """Do tasks from the queue until told to leave."""
    while not worker.terminated:
        task = worker.pop_task(timeout=5)
        if task is not None:
            worker.finish_task(task.key, {"y": task.xs.get("x"), "pid": os.getpid()})


def die_with_a_task(worker):
    """Be killed by the system in the middle of a task."""
    worker.push_running_task({"x": 1})
    os.kill(os.getpid(), signal.SIGKILL)


def infos(rush: Rush) -> dict[str, WorkerInfo]:
    """The workers' records by id."""
    return {info.worker_id: info for info in rush.fetch_workers(as_="tasks")}


def ended(worker_id: str, rush: Rush, wait: Wait) -> WorkerInfo:
    """The record of a worker, once its process has been reported to have ended."""
    wait(lambda: infos(rush)[worker_id].state not in ("starting", "running"))
    wait(lambda: not psutil.pid_exists(infos(rush)[worker_id].pid))
    return infos(rush)[worker_id]


# --- starting -------------------------------------------------------------------------------------


def test_started_workers_are_listed_and_running(rush: Rush) -> None:
    """Before: an empty table. After: a row each, with ids as returned and a process each."""
    assert rush.worker_info.is_empty()
    assert [] == rush.worker_ids
    ids = rush.start_workers(stay, 2)
    rush.wait_for_workers(2)
    table = rush.worker_info
    assert set(ids) == set(table["worker_id"]) == set(rush.running_worker_ids)
    assert {"running"} == set(table["state"])
    assert 2 == len({pid for pid in table["pid"] if psutil.pid_exists(pid)})
    assert {"local"} == set(table["launcher"])
    assert {os.uname().nodename} == set(table["hostname"])
    assert (2, 2) == (rush.n_workers, rush.n_running_workers)


def test_a_second_start_adds_workers(rush: Rush) -> None:
    """Workers join those that are there."""
    first = rush.start_workers(stay, 1)
    second = rush.start_workers(stay_with_a_task, 1)
    rush.wait_for_workers(2)
    assert sorted(first + second) == rush.running_worker_ids
    assert 2 == rush.worker_info["pid"].n_unique()


def test_one_worker_is_started_where_no_number_is_given(rush: Rush) -> None:
    """``n_workers`` defaults to the plan's, else one."""
    assert 1 == len(rush.start_workers(stay))


def test_keyword_arguments_reach_the_loop(rush: Rush) -> None:
    """``kwargs`` are the loop's own arguments, of any type that can be pickled."""

    def loop(worker, factor, offset=0):
        with worker.task({"x": 2}) as task:
            task.finish({"y": factor * 2 + offset})

    rush.start_workers(loop, kwargs={"factor": 5, "offset": 1})
    assert [11] == rush.fetch_new_tasks(timeout=30)["y"].to_list()


def test_globals_are_visible_to_the_loop(rush: Rush) -> None:
    """``globals`` defines names the loop looks up."""

    def loop(worker):
        with worker.task({"x": 1}) as task:
            task.finish({"y": answer})  # noqa: F821 - that is the point

    rush.start_workers(loop, globals={"answer": 42})
    assert [42] == rush.fetch_new_tasks(timeout=30)["y"].to_list()


def test_packages_are_imported_first(rush: Rush) -> None:
    """``packages`` are there before the loop begins."""

    def loop(worker):
        import sys

        with worker.task({"x": 1}) as task:
            task.finish({"there": "colorsys" in sys.modules})

    rush.start_workers(loop, packages=["colorsys"])
    assert [True] == rush.fetch_new_tasks(timeout=30)["there"].to_list()


def test_a_loop_may_start_processes_of_its_own(rush: Rush) -> None:
    """A worker is an ordinary process: it may run a pool, and report what that found."""

    def loop(worker):
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        with worker.task({"x": 1}) as task:
            # Closed before the result is told: a pool that is killed leaves its semaphores behind.
            with ProcessPoolExecutor(2, get_context("spawn")) as pool:
                found = list(pool.map(abs, [-1, -2]))
            task.finish({"y": found})

    rush.start_workers(loop)
    assert [[1, 2]] == rush.fetch_new_tasks(timeout=60)["y"].to_list()


def test_starting_leaves_no_file_behind(rush: Rush, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start arguments travel through the server, what is printed through pipes: no file stays."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    rush.start_workers(serve, 2)
    rush.wait_for_tasks(rush.push_tasks([{"x": 1}]), timeout=30)
    assert [] == list(tmp_path.rglob("*"))


def test_a_megabyte_on_stderr_blocks_nobody(rush: Rush) -> None:
    """What a worker prints is read all the time; its task finishes."""

    def loop(worker):
        import sys

        with worker.task({"x": 1}) as task:
            for _ in range(1024):
                sys.stderr.write("e" * 1023 + "\n")
            task.finish({"y": 1})

    rush.start_workers(loop)
    assert 1 == rush.fetch_new_tasks(timeout=60).height


def test_large_arguments_reach_the_loop(rush: Rush) -> None:
    """Start arguments of megabytes need no setting of any kind."""

    def loop(worker, numbers):
        with worker.task({"x": 1}) as task:
            task.finish({"n": len(numbers), "last": numbers[-1]})

    rush.start_workers(loop, kwargs={"numbers": list(range(1_000_000))})
    assert [(1_000_000, 999_999)] == rush.fetch_new_tasks(timeout=60, fields=["n", "last"]).rows()


def test_neighbours_of_a_loop_stay_at_home(rush: Rush, server: redis.Redis) -> None:
    """A loop takes along what it names, not everything that stands around it."""
    neighbour = bytes(8_000_000)

    def loop(worker):
        worker.pop_task(timeout=60)

    rush.start_workers(loop)
    rush.wait_for_workers(1)
    assert len(neighbour) > 1_000_000 > sum(server.memory_usage(key) or 0 for key in server.scan_iter())


def test_two_networks_do_not_mix(rush: Rush, network: str) -> None:
    """Workers, tasks and a reset of one network are nothing to another on the same server."""
    with Rush(f"{network}-b") as other:
        mine = rush.start_workers(stay_with_a_task, 1)
        theirs = other.start_workers(stay_with_a_task, 1)
        rush.wait_for_workers(1)
        other.wait_for_workers(1)
        other.push_tasks([{"x": 1}])
        assert (mine, theirs) == (rush.worker_ids, other.worker_ids)
        assert 0 == rush.n_queued_tasks
        other.reset()
        assert (mine, []) == (rush.running_worker_ids, other.worker_ids)


def test_start_failures_show_their_traceback(rush: Rush) -> None:
    """A missing package ends the wait at once with what the worker said, and stays in the table."""
    (worker_id,) = rush.start_workers(stay, packages=["no_such_package_at_all"])
    with pytest.raises(WorkerStartError, match="no_such_package_at_all") as caught:
        rush.wait_for_workers(1, timeout=60)
    assert (worker_id, 1) == (caught.value.worker_id, caught.value.exit_code)
    assert "ModuleNotFoundError" in caught.value.log_tail
    info = infos(rush)[worker_id]
    assert WorkerState.LOST == info.state
    assert "no_such_package_at_all" in info.reason


def test_a_loop_that_cannot_be_called_so_is_refused(rush: Rush) -> None:
    """Missing arguments are found before a worker starts."""

    def loop(worker, needed):
        worker.push_running_task({"x": needed})

    with pytest.raises(ConfigError, match="needed"):
        rush.start_workers(loop)
    assert [] == rush.worker_ids


def test_an_earlier_failed_start_spoils_no_later_wait(rush: Rush) -> None:
    """Once told, a failed start is history: the next workers are waited for like any."""
    rush.start_workers(stay, packages=["no_such_package_at_all"])
    with pytest.raises(WorkerStartError):
        rush.wait_for_workers(1, timeout=60)
    (good,) = rush.start_workers(stay)
    rush.wait_for_workers(1, timeout=60)
    assert [good] == rush.running_worker_ids


# --- waiting --------------------------------------------------------------------------------------


def test_a_wait_needs_to_know_for_whom(rush: Rush) -> None:
    """A number, ids, or both; never more than there are ids."""
    with pytest.raises(ConfigError, match="worker_ids"):
        rush.wait_for_workers()
    with pytest.raises(ConfigError, match="3"):
        rush.wait_for_workers(3, ["a", "b"])


def test_a_wait_for_those_who_came_returns(rush: Rush, worker: RushWorker) -> None:
    """By number, by id, by both, and with no time at all."""
    rush.wait_for_workers(1, timeout=0)
    rush.wait_for_workers(worker_ids=[worker.worker_id], timeout=0)
    rush.wait_for_workers(1, [worker.worker_id, "ghost"], timeout=0)
    rush.wait_for_workers(0, timeout=0)


def test_a_wait_for_tasks_knows_of_workers_to_come(rush: Rush, wait_until: Wait) -> None:
    """The last workers have left, the next are being started (again): the wait goes on until all is done."""

    def one_task(worker):
        task = worker.pop_task(timeout=30)
        if task is not None:
            worker.finish_task(task.key, {"y": 1})

    keys = rush.push_tasks([{"x": x} for x in range(3)])
    (worker_id,) = rush.start_workers(one_task)
    assert keys[:1] == rush.wait_for_tasks(keys[:1], timeout=60).done
    wait_until(lambda: rush.terminated_worker_ids)
    rush.start_workers(one_task)
    assert keys[1:2] == rush.wait_for_tasks(keys[1:2], timeout=60).done
    wait_until(lambda: 2 == rush.n_terminated_workers)
    rush.restart_workers([worker_id])
    assert keys[2:] == rush.wait_for_tasks(keys[2:], timeout=60).done


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_a_wait_for_those_who_do_not_come_times_out(rush: Rush, worker: RushWorker, timeout: float) -> None:
    """Too many, or an id nobody has: the error says who is missing, and is a TimeoutError."""
    with pytest.raises(WaitTimeout, match="1 of 2") as caught:
        rush.wait_for_workers(2, timeout=timeout)
    assert (timeout, 1) == (caught.value.timeout, caught.value.remaining)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(WaitTimeout, match="ghost"):
        rush.wait_for_workers(worker_ids=[worker.worker_id, "ghost"], timeout=timeout)
    with pytest.raises(WaitTimeout, match="ghost"):
        rush.wait_for_workers(2, [worker.worker_id, "ghost"], timeout=timeout)


# --- stopping -------------------------------------------------------------------------------------


def test_workers_are_asked_to_leave_one_by_one(rush: Rush, wait_until: Wait) -> None:
    """``terminate`` reaches the one it names; the other goes on until its turn."""
    one, two = rush.start_workers(stay, 2)
    rush.wait_for_workers(2)
    assert [one] == rush.stop_workers("terminate", [one])
    assert WorkerState.TERMINATED == ended(one, rush, wait_until).state
    assert [two] == rush.running_worker_ids
    assert psutil.pid_exists(infos(rush)[two].pid)
    rush.stop_workers("terminate")
    info = ended(two, rush, wait_until)
    wait_until(lambda: infos(rush)[two].exit_code is not None)
    assert (WorkerState.TERMINATED, 0) == (info.state, infos(rush)[two].exit_code)
    assert [] == rush.running_worker_ids


def test_workers_are_killed_one_by_one(rush: Rush) -> None:
    """``kill`` returns when the process is gone; the other worker does not notice."""
    one, two = rush.start_workers(stay_with_a_task, 2)
    rush.wait_for_workers(2)
    pids = {name: info.pid for name, info in infos(rush).items()}
    assert [one] == rush.stop_workers("kill", [one])
    assert (False, True) == (psutil.pid_exists(pids[one]), psutil.pid_exists(pids[two]))
    assert ([one], [two]) == (rush.killed_worker_ids, rush.running_worker_ids)
    assert [two] == rush.stop_workers()
    assert not psutil.pid_exists(pids[two])
    assert sorted([one, two]) == rush.killed_worker_ids


def test_any_manager_can_kill(rush: Rush, network: str) -> None:
    """Also one that did not start the workers, and knows nothing of them but the network's name."""
    ids = rush.start_workers(stay, 2)
    rush.wait_for_workers(2)
    with Rush(network) as stranger:
        pids = [info.pid for info in infos(stranger).values()]
        assert sorted(ids) == sorted(stranger.stop_workers("kill"))
    assert [False, False] == [psutil.pid_exists(pid) for pid in pids]


def test_a_kill_of_somebody_unknown_stops_nobody(rush: Rush, worker: RushWorker) -> None:
    """An id the network never had is named, and those named beside it go on."""
    with pytest.raises(UnknownKey, match="ghost"):
        rush.stop_workers("kill", [worker.worker_id, "ghost"])
    assert [worker.worker_id] == rush.running_worker_ids


def test_stopping_nobody_is_nothing(rush: Rush) -> None:
    """No workers, or workers that have ended: an empty list."""
    assert [] == rush.stop_workers()
    (worker_id,) = rush.start_workers(stay)
    rush.wait_for_workers(1)
    rush.stop_workers()
    assert [] == rush.stop_workers("kill", [worker_id])
    assert [worker_id] == rush.killed_worker_ids


def test_closing_the_manager_ends_its_workers(network: str, rush: Rush, wait_until: Wait) -> None:
    """Local workers belong to the manager that started them; their tasks fail, and say why."""
    with Rush(network) as owner:
        owner.start_workers(stay_with_a_task, 2)
        owner.wait_for_workers(2)
        wait_until(lambda: owner.n_running_tasks == 2)
        pids = [info.pid for info in infos(owner).values()]
    assert [False, False] == [psutil.pid_exists(pid) for pid in pids]
    wait_until(lambda: rush.n_failed_tasks == 2)
    assert 0 == rush.n_running_workers


def test_draining_workers_leave_with_the_last_task(rush: Rush, wait_until: Wait) -> None:
    """``terminate_workers``: the queue is done, then everybody goes, by themselves."""

    def loop(worker):
        while not (worker.terminated or worker.should_stop_when_idle):
            task = worker.pop_task(timeout=5)
            if task is not None:
                worker.finish_task(task.key, {"y": 1})

    ids = rush.start_workers(loop, 2)
    rush.wait_for_workers(2)
    rush.push_tasks([{"x": x} for x in range(5)], terminate_workers=True)
    wait_until(lambda: sorted(ids) == rush.terminated_worker_ids)
    assert 5 == rush.n_finished_tasks


# --- dying ----------------------------------------------------------------------------------------


def test_crashes_are_noticed_without_asking(rush: Rush, wait_until: Wait) -> None:
    """Two workers die in their tasks: both lost, both tasks failed, with the signal, nobody asked for it."""
    ids = rush.start_workers(die_with_a_task, 2)
    wait_until(lambda: len(infos(rush)) == 2 and rush.n_failed_tasks == 2)
    assert sorted(ids) == rush.lost_worker_ids
    for task in rush.fetch_tasks(["failed"], as_="tasks"):
        assert task.condition["message"].startswith("Worker has crashed or was killed")
        assert (signal.SIGKILL, task.worker_id in ids) == (task.condition["signal"], True)
    assert {"SIGKILL" in info.reason for info in infos(rush).values()} == {True}
    assert {1} == {info.n_failed for info in infos(rush).values()}


def test_a_crash_comes_with_its_last_words(rush: Rush) -> None:
    """Exit code and the tail of stderr stand in the condition of the task."""

    def loop(worker):
        import sys

        worker.push_running_task({"x": 1})
        print("the reactor is melting", file=sys.stderr, flush=True)
        os._exit(7)

    rush.start_workers(loop)
    task = next(rush.stream(timeout=60))
    assert (7, True) == (task.condition["exit_code"], "the reactor is melting" in task.condition["stderr"])


def test_a_crash_is_reported_once(rush: Rush, network: str, wait_until: Wait) -> None:
    """Of all who look, nobody counts a death twice."""
    with RushWorker(network, heartbeat=False, lease=0.2), Rush(network) as second:
        found: list[str] = []
        wait_until(lambda: found.extend(rush.detect_lost_workers() + second.detect_lost_workers()) or found)
        assert found == rush.lost_worker_ids
        assert [] == rush.detect_lost_workers() == second.detect_lost_workers()


def test_a_popped_task_dies_with_its_worker(rush: Rush) -> None:
    """There is no gap between queue and worker in which a crash could hide a task."""

    def loop(worker):
        worker.pop_task(timeout=30)
        os.kill(os.getpid(), signal.SIGKILL)

    keys = rush.push_tasks([{"x": 1}, {"x": 2}])
    rush.start_workers(loop)
    result = rush.wait_for_tasks(keys, timeout=60)
    assert ("no_workers", keys[:1], keys[1:]) == (result.reason, result.failed, result.pending)
    assert (1, 0, 0, 1) == tuple(vars_of(rush))


def vars_of(rush: Rush) -> list[int]:
    """Queued, running, finished, failed."""
    now = rush.counts()
    return [now.queued, now.running, now.finished, now.failed]


def test_only_tasks_of_the_lost_worker_fail(rush: Rush, worker: RushWorker, wait_until: Wait) -> None:
    """Whoever is alive keeps what it holds."""
    key = worker.push_running_task({"x": "mine"})
    rush.start_workers(die_with_a_task)
    wait_until(lambda: rush.n_failed_tasks == 1)
    assert ["running"] == rush.states([key])
    assert [worker.worker_id] == rush.running_worker_ids


def test_a_loop_that_fails_for_some_inputs(rush: Rush) -> None:
    """A loop that catches its errors goes on: one task finished, one failed, both with their columns."""

    def loop(worker):
        while not worker.terminated:
            task = worker.pop_task()
            if task is None:
                continue
            if task.xs["x1"] < 1:
                worker.fail_task(task.key, RuntimeError("Test error"))
            else:
                worker.finish_task(task.key, {"y": 1})

    keys = rush.push_tasks([{"x1": 0}, {"x1": 1}])
    rush.start_workers(loop)
    result = rush.wait_for_tasks(keys, timeout=60)
    assert (keys[1:], keys[:1]) == (result.done, result.failed)
    (row,) = rush.fetch_failed_tasks(as_="dicts")
    assert ("Test error", "RuntimeError", 0) == (row["condition"], row["condition_type"], row["x1"])
    assert 1 == rush.n_running_workers


def test_a_crashed_worker_is_started_again_where_asked(rush: Rush, wait_until: Wait) -> None:
    """``max_restarts``: the same id, a new process, as often as allowed."""

    def loop(worker):
        task = worker.pop_task(timeout=60)
        if task is not None and task.xs["deadly"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if task is not None:
            worker.finish_task(task.key, {"pid": os.getpid()})

    keys = rush.push_tasks([{"deadly": True}, {"deadly": False}])
    (worker_id,) = rush.start_workers(loop, max_restarts=1)
    wait_until(lambda: (0, 0, 1, 1) == tuple(vars_of(rush)))
    assert ["failed", "finished"] == rush.states(keys)
    assert [worker_id] == rush.worker_ids
    assert {worker_id} == set(rush.fetch_tasks(["finished", "failed"])["worker_id"])


# --- restarting -----------------------------------------------------------------------------------


def test_a_restart_keeps_the_id_and_changes_the_process(rush: Rush) -> None:
    """A running worker is killed and comes back under its name; the other is left alone."""
    one, two = rush.start_workers(serve, 2)
    rush.wait_for_workers(2)
    before = infos(rush)
    assert [one] == rush.restart_workers([one])
    rush.wait_for_workers(worker_ids=[one])
    after = infos(rush)
    assert not psutil.pid_exists(before[one].pid)
    assert (before[one].pid != after[one].pid, before[two].pid) == (True, after[two].pid)
    assert sorted([one, two]) == rush.running_worker_ids
    rush.wait_for_tasks(rush.push_tasks([{"x": x} for x in range(20)]), timeout=60)
    assert 20 == rush.n_finished_tasks


def test_a_lost_worker_can_be_restarted(rush: Rush, wait_until: Wait) -> None:
    """Dead or alive: after the restart it is running, or has crashed a second time."""
    (worker_id,) = rush.start_workers(die_with_a_task)
    wait_until(lambda: rush.lost_worker_ids)
    rush.restart_workers([worker_id])
    wait_until(lambda: rush.n_failed_tasks == 2)
    assert [worker_id] == rush.worker_ids


def test_strangers_cannot_be_restarted(rush: Rush, worker: RushWorker) -> None:
    """An id the network never had, and a worker that no launcher started: refused, nobody stopped."""
    with pytest.raises(UnknownKey, match="ghost"):
        rush.restart_workers(["ghost"])
    with pytest.raises(ConfigError, match=worker.worker_id):
        rush.restart_workers([worker.worker_id])
    assert [worker.worker_id] == rush.running_worker_ids


def test_a_restart_that_cannot_be_kills_nobody(rush: Rush) -> None:
    """A launcher that is not there is noticed before the worker is stopped."""
    ids = rush.start_workers(stay)
    rush.wait_for_workers(1)
    with pytest.raises(ConfigError, match="rocket"):
        rush.restart_workers(ids, launcher="rocket")
    assert ids == rush.running_worker_ids


def test_counts_and_ids_agree(rush: Rush, worker: RushWorker, wait_until: Wait) -> None:
    """Every state has its ids and its number."""
    (killed,) = rush.start_workers(stay)
    (lost,) = rush.start_workers(die_with_a_task)
    (left,) = rush.start_workers(lambda worker: None)
    wait_until(
        lambda: rush.n_terminated_workers == 1 and rush.n_lost_workers == 1 and rush.n_running_workers == 2
    )
    rush.stop_workers("kill", [killed])
    expected: dict[str, Any] = {
        "running": [worker.worker_id],
        "terminated": [left],
        "killed": [killed],
        "lost": [lost],
        "starting": [],
    }
    for state, ids in expected.items():
        assert ids == getattr(rush, f"{state}_worker_ids")
        assert len(ids) == getattr(rush, f"n_{state}_workers")
    assert 4 == rush.n_workers == len(rush.worker_ids)


def test_workers_can_be_stopped_before_they_have_registered(rush: Rush) -> None:
    """``stop_workers`` right behind ``start_workers`` stops those that were started, by name and without."""
    ids = rush.start_workers(serve, 2)
    assert sorted(ids) == sorted(rush.stop_workers("kill", ids))
    ids = rush.start_workers(serve, 2)
    assert sorted(ids) == sorted(rush.stop_workers())


def test_a_manager_forgets_launches_that_are_over(rush: Rush, wait_until: Wait) -> None:
    """One that starts workers all day remembers those that may still tell something, and a bounded number."""
    kept = rush.start_workers(stay)
    ended = [rush.start_workers(lambda worker: None)[0] for _ in range(4)]
    wait_until(lambda: sorted(ended) == rush.terminated_worker_ids)
    wait_until(lambda: 4 == sum(batch.over for batch in rush._launched))
    rush._forget_at = 5
    late = rush.start_workers(stay)
    assert [tuple(kept), tuple(late)] == [batch.worker_ids for batch in rush._launched]
    rush.wait_for_workers(worker_ids=[*kept, *late])
    assert sorted([*kept, *late]) == sorted(rush.stop_workers())
