"""Things are killed at the worst moment: every task is accounted for once, and nobody is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from rushlight import Rush, RushWorker
from rushlight._server import ensure_server, server_status, stop_server

Wait = Callable[..., None]
Processes = Callable[[str], list[psutil.Process]]

#: A user's program: starts two workers that each hold a task, says so, and waits for what never comes.
SCRIPT = """
import sys
import threading
from rushlight import Rush

def hold(worker):
    worker.push_running_task({"x": 1})
    threading.Event().wait()

if __name__ == "__main__":
    rush = Rush(sys.argv[1])
    rush.start_workers(hold, 2, lease=2)
    if sys.argv[2] == "at once":
        print("ready", flush=True)
        sys.stdin.read()
    rush.wait_for_workers(2)
    while rush.n_running_tasks < 2:
        rush.fetch_new_tasks(timeout=0.05)
    rush.push_tasks([{"x": "never"}])
    print("ready", flush=True)
    if sys.argv[2] == "with":
        with rush:
            sys.stdin.read()
    sys.stdin.read()
"""


def count_to(worker, n):
    """Finish n tasks, each with its number, by steps that take two trips."""
    for i in range(n):
        key = worker.push_running_task({"i": i, "who": worker.worker_id})
        assert worker.finish_task(key, {"y": i})


def serve(worker):
    """Do tasks from the queue; some of them are deadly, once."""
    while not worker.terminated:
        task = worker.pop_task(timeout=5)
        if task is None:
            continue
        if task.xs["deadly"]:
            os.kill(os.getpid(), signal.SIGKILL)
        worker.finish_task(task.key, {"y": task.xs["x"]})


def hold(worker):
    """Keep one task running."""
    worker.push_running_task({"x": 1})
    threading.Event().wait()


@contextmanager
def program(tmp_path: Path, network: str, how: str) -> Iterator[subprocess.Popen[str]]:
    """The user's program, ready; killed in the end if it still runs."""
    path = tmp_path / "program.py"
    path.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(path), network, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert "ready" == process.stdout.readline().strip()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def supervisor_of(rush: Rush) -> psutil.Process:
    """The process that looks after the workers."""
    parents = {psutil.Process(pid).ppid() for pid in rush.worker_info["pid"]}
    (parent,) = parents
    return psutil.Process(parent)


def test_a_killed_worker_costs_its_task_only(rush: Rush) -> None:
    """Three of four workers die in a task each; the last one does the rest."""
    xss = [{"x": i, "deadly": i in (3, 8, 15)} for i in range(30)]
    keys = rush.push_tasks(xss)
    rush.start_workers(serve, 4)
    result = rush.wait_for_tasks(keys, timeout=60)
    assert [keys[i] for i in (3, 8, 15)] == result.failed
    assert (27, []) == (len(result.done), result.pending)
    assert set(range(30)) - {3, 8, 15} == set(rush.fetch_finished_tasks()["y"])
    assert (3, 1) == (rush.n_lost_workers, rush.n_running_workers)


def test_a_killed_supervisor_takes_its_workers_along(
    rush: Rush, network: str, processes: Processes, wait_until: Wait
) -> None:
    """Nobody looks after them any more: they end at once, are found lost, and their tasks have failed."""
    ids = rush.start_workers(hold, 2, lease=1)
    rush.wait_for_workers(2)
    wait_until(lambda: rush.n_running_tasks == 2)
    supervisor_of(rush).kill()
    wait_until(lambda: [] == processes(network))
    wait_until(lambda: sorted(ids) == rush.lost_worker_ids)
    assert 2 == rush.n_failed_tasks
    assert all(
        c.startswith("Worker has crashed or was killed") for c in rush.fetch_failed_tasks()["condition"]
    )


@pytest.mark.parametrize("how", ["plain", "with", "at once"])
def test_a_killed_manager_leaves_no_orphans(
    rush: Rush, network: str, processes: Processes, wait_until: Wait, tmp_path: Path, how: str
) -> None:
    """SIGKILL gives it no chance to clean up: its workers end by themselves, whenever it came."""
    with program(tmp_path, network, how) as process:
        process.kill()
        wait_until(lambda: [] == processes(network))
    wait_until(lambda: 0 == rush.n_running_workers == rush.n_starting_workers)
    assert 0 == rush.n_running_tasks
    if how != "at once":
        assert (2, 1) == (rush.n_failed_tasks, rush.n_queued_tasks)
    assert rush.n_tasks == rush.n_failed_tasks + rush.n_queued_tasks


@pytest.mark.parametrize("how", ["plain", "with", "at once"])
def test_ctrl_c_leaves_no_orphans(
    rush: Rush, network: str, processes: Processes, wait_until: Wait, tmp_path: Path, how: str
) -> None:
    """SIGINT, as the terminal sends it to the whole group: an ordinary KeyboardInterrupt, no workers left."""
    with program(tmp_path, network, how) as process:
        os.killpg(process.pid, signal.SIGINT)
        _out, err = process.communicate(timeout=60)
        assert process.returncode in (-signal.SIGINT, 130)
        assert 1 == err.count("Traceback"), err
        assert "KeyboardInterrupt" in err
        wait_until(lambda: [] == processes(network))
    wait_until(lambda: 0 == rush.n_running_workers == rush.n_starting_workers)
    assert 0 == rush.n_running_tasks
    assert rush.n_tasks == rush.n_failed_tasks + rush.n_queued_tasks


def test_a_script_that_ends_takes_its_workers_along(
    rush: Rush, network: str, processes: Processes, wait_until: Wait, tmp_path: Path
) -> None:
    """Also without ``with`` and ``close``, when the program simply comes to its end."""
    with program(tmp_path, network, "plain") as process:
        process.communicate("", timeout=60)
        assert 0 == process.returncode
        wait_until(lambda: [] == processes(network))
    wait_until(lambda: 0 == rush.n_running_workers)
    assert (2, 1) == (rush.n_failed_tasks, rush.n_queued_tasks)


@pytest.fixture
def own_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, home: Path
) -> Iterator[Path]:
    """An embedded server that may be killed: no other test uses it."""
    folder = Path(tempfile.mkdtemp(prefix="rl-", dir="/tmp")).resolve()
    monkeypatch.setenv("RUSHLIGHT_HOME", str(folder / "home"))
    yield folder / "home"
    stop_server(folder / "home")
    shutil.rmtree(folder)


def kill_server(home: Path) -> int:
    """Kills the server process of a home; its pid."""
    pid = server_status(home).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_killed_server_comes_back_and_nothing_is_lost(
    own_home: Path, wait_until: Wait, processes: Processes
) -> None:
    """The server dies three times while workers create and finish: each task is there, finished, once."""
    n = 1500
    with Rush("phoenix") as rush:
        ids = rush.start_workers(count_to, 2, kwargs={"n": n}, lease=30)
        rush.wait_for_workers(2)
        pids = set()
        for share in (0.2, 0.4, 0.6):
            wait_until(lambda share=share: rush.n_finished_tasks > 2 * n * share)
            pids.add(kill_server(own_home))
        wait_until(lambda: 0 == rush.n_running_workers, 60)
        assert sorted(ids) == rush.terminated_worker_ids, rush.worker_info["reason"].to_list()
        assert 3 == len(pids)
        done = rush.fetch_finished_tasks(fields=["who", "i", "y"]).rows()
        assert 2 * n == len(done) == rush.n_tasks
        assert {(name, i, i) for name in ids for i in range(n)} == set(done)
        rush.reset()
        wait_until(lambda: [] == processes("phoenix"))


def test_waits_outlast_a_killed_server(own_home: Path) -> None:
    """Who waits for a task while the server is away hears of its end all the same."""
    with Rush("phoenix") as rush, RushWorker("phoenix") as worker:
        key = worker.push_running_task({"x": 1})
        found: list[object] = []
        waiting = threading.Thread(target=lambda: found.append(rush.wait_for_tasks([key], timeout=60)))
        waiting.start()
        kill_server(own_home)
        assert worker.finish_task(key, {"y": 1})
        waiting.join(60)
        assert [key] == found[0].done
        kill_server(own_home)
        assert [1] == rush.fetch_new_tasks(timeout=30)["y"].to_list()
        rush.reset()


def test_everything_is_there_after_everything_was_killed(own_home: Path) -> None:
    """Server and clients gone at once, as after a loss of power of the programs: all tasks are read again."""
    with Rush("phoenix") as rush:
        queued = rush.push_tasks([{"x": i} for i in range(100)])
        finished = rush.push_finished_tasks([{"x": i} for i in range(100)], [{"y": i} for i in range(100)])
        failed = rush.push_failed_tasks([{"x": 1}], "no")
    kill_server(own_home)
    ensure_server(own_home)
    with Rush("phoenix") as again:
        assert (queued, finished, failed) == (
            again.keys("queued"),
            again.keys("finished"),
            again.keys("failed"),
        )
        assert list(range(100)) == again.fetch_finished_tasks()["y"].to_list()
        again.reset()


def test_cut_connections_cost_nothing(rush: Rush, server: redis.Redis, wait_until: Wait) -> None:
    """Every connection is cut, again and again: workers and manager connect anew, each task is done once."""
    n = 500
    ids = rush.start_workers(count_to, 2, kwargs={"n": n})
    rush.wait_for_workers(2)
    cuts = 0
    while rush.n_running_workers:
        for client in server.client_list(_type="normal"):
            if client["cmd"] != "client|list":
                cuts += server.client_kill_filter(_id=client["id"])
        rush.fetch_new_tasks(timeout=0.01)
    assert cuts > 3
    assert sorted(ids) == rush.terminated_worker_ids
    done = rush.fetch_finished_tasks(fields=["who", "i", "y"]).rows()
    assert 2 * n == len(done) == rush.n_tasks
    assert {(name, i, i) for name in ids for i in range(n)} == set(done)


@pytest.mark.slow
def test_a_frozen_worker_is_lost_and_cannot_come_back_with_its_result(rush: Rush, wait_until: Wait) -> None:
    """Stopped with its supervisor for longer than its lease: what happened since stands."""

    def slow(worker):
        task = worker.pop_task(timeout=30)
        worker.push_running_task({"x": "holding"})
        while not os.path.exists(task.xs["flag"]):
            worker.pop_task(timeout=0.05)
        worker.finish_task(task.key, {"y": "too late"})

    flag = f"/tmp/rl-flag-{os.getpid()}"
    (key,) = rush.push_tasks([{"flag": flag}])
    rush.start_workers(slow, lease=0.6)
    wait_until(lambda: rush.n_running_tasks == 2)
    supervisor = supervisor_of(rush)
    frozen = [supervisor, *supervisor.children(recursive=True)]
    for process in frozen:
        process.suspend()
    try:
        assert [key] == rush.wait_for_tasks([key], timeout=60).failed
        Path(flag).touch()
    finally:
        for process in frozen:
            process.resume()
    try:
        wait_until(lambda: not supervisor.is_running() or supervisor.status() == psutil.STATUS_ZOMBIE)
    finally:
        Path(flag).unlink()
    assert ["failed"] == rush.states([key])
    assert 0 == rush.n_finished_tasks == rush.n_running_tasks
