"""Worker processes and their supervisor: real processes, a real server, every way to end.

Loops are functions of this file and travel by value. What runs must name the network on its command
line, so that the ``network`` fixture finds what a test has left behind.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from rushlight import Rush, RushWorker, TaskState, WorkerInfo, WorkerState
from rushlight._server import find_binary
from rushlight._spec import StartSpec, keep_spec, seal_code
from rushlight._store import Store
from rushlight.launchers import Handle, LocalLauncher, WorkerCommand

Wait = Callable[..., None]
CRASHED = "Worker has crashed or was killed"
KILLED = "Worker was killed"
#: A process of the user's own that a loop starts, for the leak check to find by its network.
SLEEPER = "import signal, sys; signal.pause()"


# --- loops --------------------------------------------------------------------------------------


def serve(worker: RushWorker, factor: int = 1) -> None:
    """Does what is queued until it is asked to leave."""
    while not worker.terminated:
        task = worker.pop_task(0.2)
        if task is not None:
            worker.finish_task(task.key, {"y": task.xs["x"] * factor})


def hang(worker: RushWorker) -> None:
    """Has one task running and never comes back."""
    worker.push_running_task({"x": 1})
    signal.pause()


def with_child(worker: RushWorker) -> None:
    """Like ``hang``, with a process of its own beside it."""
    command = [sys.executable, "-c", SLEEPER, worker.network]
    child = subprocess.Popen(command)
    worker.push_running_task({"child": child.pid})
    child.wait()


def one_by_one(worker: RushWorker) -> None:
    """A task that takes until a file is there, then leaves if asked to."""
    while not worker.terminated:
        task = worker.pop_task(0.2)
        if task is not None:
            while not os.path.exists(task.xs["gate"]):
                threading.Event().wait(0.01)
            worker.finish_task(task.key, {"y": 1})


def stubborn(worker: RushWorker) -> None:
    """Runs a task and is deaf to everything."""
    worker.push_running_task({"x": 1})
    while True:
        threading.Event().wait(60)


def leave(worker: RushWorker) -> None:
    """Does one task and returns."""
    worker.finish_task(worker.push_running_task({"x": 1}), {"y": 2})


# --- the kit ------------------------------------------------------------------------------------


@dataclass
class Kit:
    """Starts supervisors with settings the manager does not offer, and sees to their end."""

    rush: Rush
    store: Store
    wait: Wait
    launcher: LocalLauncher = field(default_factory=LocalLauncher)
    handles: list[Handle] = field(default_factory=list)

    def start(
        self,
        loop: Callable[..., Any],
        ids: tuple[str, ...] = ("w",),
        *,
        kwargs: dict[str, Any] | None = None,
        globals_: dict[str, Any] | None = None,
        options: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        outlive: bool = False,
        **settings: Any,
    ) -> Handle:
        code = seal_code(self.store, loop, kwargs or {}, globals_ or {})
        spec_id = keep_spec(self.store, StartSpec(*code, **settings))
        command = WorkerCommand.build(
            self.store.network,
            spec_id,
            environment=environment,
            worker_ids=ids,
            outlive=outlive,
            options=options,
        )
        self.handles += self.launcher.launch(command, len(ids))
        return self.handles[-1]

    def info(self, worker_id: str = "w") -> WorkerInfo | None:
        found = [info for info in self.store.workers() if info.worker_id == worker_id]
        return found[0] if found else None

    def until_state(self, state: WorkerState, worker_id: str = "w") -> WorkerInfo:
        def there() -> bool:
            info = self.info(worker_id)
            return info is not None and info.state is state

        self.wait(there)
        info = self.info(worker_id)
        assert info is not None
        return info

    def ended(self, state: WorkerState, worker_id: str = "w") -> WorkerInfo:
        """The worker in a final state, once its process was reported to have ended too."""
        self.until_state(state, worker_id)
        self.wait(lambda: (info := self.info(worker_id)) is not None and info.exit_code is not None)
        return self.until_state(state, worker_id)

    def running(self, *ids: str) -> list[WorkerInfo]:
        return [self.until_state(WorkerState.RUNNING, worker_id) for worker_id in ids or ("w",)]

    def held(self, n: int = 1) -> list[dict[str, Any]]:
        """The inputs of the running tasks, once there are n."""
        self.wait(lambda: n == self.rush.n_running_tasks)
        return [task.xs for task in self.rush.fetch_running_tasks(as_="tasks")]

    def until_failed(self, n: int) -> None:
        self.wait(lambda: n == self.rush.n_failed_tasks)

    def exit_code(self, handle: Handle) -> int | None:
        self.wait(lambda: self.launcher.poll([handle])[0].phase == "exited")
        return self.launcher.poll([handle])[0].code

    def gone(self, *pids: int) -> None:
        self.wait(lambda: not any(alive(pid) for pid in pids))

    def failures(self) -> list[str]:
        return [task.condition["message"] for task in self.rush.fetch_failed_tasks(as_="tasks")]

    def log(self, **wanted: str) -> list[str]:
        """Texts of the log entries with these fields."""
        entries = [entry for _, _, entry in self.store.logs()]
        return [e["msg"] for e in entries if all(e[name] == value for name, value in wanted.items())]


def alive(pid: int) -> bool:
    """True while the process runs; one that waits to be collected is dead."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def kit(rush: Rush, wait_until: Wait) -> Iterator[Kit]:
    """The kit, on a network of its own."""
    made = Kit(rush, rush._store, wait_until)
    yield made
    said = [made.launcher.log_tail(handle) for handle in made.handles]
    made.launcher.close()
    assert not any("Traceback" in text for text in said), "\n".join(said)


# --- beginning ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_register_and_work(kit: Kit, method: str) -> None:
    """Many workers under one supervisor take their ids, have processes of their own, and do tasks."""
    ids = ("a", "b", "c")
    handle = kit.start(serve, ids, kwargs={"factor": 3}, environment={"RUSHLIGHT_START_METHOD": method})
    infos = kit.running(*ids)
    assert 3 == len({info.pid for info in infos})
    parents = {psutil.Process(info.pid).ppid() for info in infos}
    assert {int(handle.id)} == parents
    assert {"local"} == {info.launcher for info in infos}
    keys = kit.rush.push_tasks([{"x": x} for x in range(10)])
    assert kit.rush.wait_for_tasks(keys, timeout=20)
    assert [3 * x for x in range(10)] == sorted(
        task.ys["y"] for task in kit.rush.fetch_finished_tasks(as_="tasks")
    )


def test_a_worker_is_there_before_its_code_is(kit: Kit, tmp_path: Path) -> None:
    """It is ``starting`` while the modules it needs are imported, and ``running`` then."""
    gate = tmp_path / "gate"
    (tmp_path / "slow_to_import.py").write_text(
        f"import os, threading\nwhile not os.path.exists({str(gate)!r}): threading.Event().wait(0.01)\n"
    )
    kit.start(serve, paths=(str(tmp_path),), packages=("slow_to_import",))
    kit.until_state(WorkerState.STARTING)
    gate.touch()
    kit.running()


def test_modules_of_the_manager_are_found(kit: Kit, tmp_path: Path) -> None:
    """The manager's import path and directory hold for the worker, as far as they exist."""
    (tmp_path / "their_module.py").write_text("VALUE = 7\n")

    def loop(worker: RushWorker) -> None:
        import their_module  # type: ignore[import-not-found]

        worker.finish_task(worker.push_running_task({"x": os.getcwd()}), {"y": their_module.VALUE})

    kit.start(loop, paths=("/no/such/place", str(tmp_path)), directory=str(tmp_path))
    kit.until_state(WorkerState.TERMINATED)
    (task,) = kit.rush.fetch_finished_tasks(as_="tasks")
    assert ({"x": str(tmp_path)}, {"y": 7}) == (task.xs, task.ys)


def test_globals_are_set_beside_the_loop(kit: Kit) -> None:
    """``globals`` are what the loop finds under names it never defined."""

    def loop(worker: RushWorker) -> None:
        worker.push_running_task({"x": brought_along})  # type: ignore[name-defined]  # noqa: F821

    kit.start(loop, globals_={"brought_along": [1, 2]})
    kit.until_state(WorkerState.TERMINATED)
    assert [[1, 2]] == [task.xs["x"] for task in kit.rush.fetch_tasks(as_="tasks")]


def needs_a_missing_module(worker: RushWorker) -> None:
    """Never begins."""


def wants_more(worker: RushWorker, needed: int) -> None:
    """Cannot be called without its argument."""


@pytest.mark.parametrize(
    ("loop", "settings", "reason"),
    [
        (needs_a_missing_module, {"packages": ("no_such_module",)}, "ModuleNotFoundError: No module named"),
        (wants_more, {}, "TypeError: the loop wants_more.* cannot be called .*'needed'"),
        (leave, {"kwargs": {"surprise": 1}}, "TypeError: the loop leave.* cannot be called .*'surprise'"),
    ],
    ids=["missing module", "missing argument", "unknown argument"],
)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_failed_start_is_visible(
    kit: Kit, loop: Callable[..., Any], settings: dict[str, Any], reason: str, method: str
) -> None:
    """What kept a worker from running is its reason, and stands in the log with its traceback."""
    import re

    handle = kit.start(loop, environment={"RUSHLIGHT_START_METHOD": method}, **settings)
    info = kit.ended(WorkerState.LOST)
    assert re.search(reason, info.reason or "")
    assert 1 == info.exit_code
    assert 1 == kit.exit_code(handle)
    lines = kit.log(logger="stderr")
    assert "Traceback (most recent call last):" in lines
    assert (info.reason or "") in lines


def test_a_wrong_secret_is_visible(kit: Kit) -> None:
    """Code that is not signed with the worker's secret is not run, and the worker says so."""
    handle = kit.start(leave, environment={"RUSHLIGHT_SECRET": "another secret"})
    info = kit.ended(WorkerState.LOST)
    assert (info.reason or "").startswith("SignatureMismatch")
    assert 1 == kit.exit_code(handle)
    assert 0 == kit.rush.counts().total


def test_missing_start_arguments_are_visible(kit: Kit) -> None:
    """The error names the network and what it lacks; a network that was reset stays so."""
    command = WorkerCommand.build(kit.store.network, "f" * 32, worker_ids=["w"])
    (handle,) = kit.launcher.launch(command, 1)
    assert 1 == kit.exit_code(handle)
    said = f"rushlight worker: network {kit.store.network!r} has no start arguments"
    assert kit.launcher.log_tail(handle).startswith(said)
    assert [] == kit.store.workers()


def test_an_id_that_is_taken_is_left_alone(kit: Kit) -> None:
    """A second worker of the same id is refused, and the first one works on."""
    kit.start(serve)
    first = kit.running()[0]
    handle = kit.start(serve)
    assert 1 == kit.exit_code(handle)
    assert "'w' is taken by a live worker" in kit.launcher.log_tail(handle)
    assert first.pid == kit.running()[0].pid
    key = kit.rush.push_tasks([{"x": 1}])
    assert kit.rush.wait_for_tasks(key, timeout=20)


@pytest.mark.parametrize("worker_id", ["-x", "--outlive", "a b", "it's $HOME;`id`", "\u20ac/..", "x" * 200])
def test_ids_of_any_kind(kit: Kit, worker_id: str, tmp_path: Path) -> None:
    """No id is taken for anything else, on the command line or as a file."""
    kit.start(leave, (worker_id,), log_dir=str(tmp_path))
    assert 0 == kit.ended(WorkerState.TERMINATED, worker_id).exit_code
    assert 1 == len(os.listdir(tmp_path))


def test_workers_may_name_themselves(kit: Kit, network: str) -> None:
    """Run by hand, or from a script, workers choose names of their own."""
    code = seal_code(kit.store, leave, {}, {})
    command = WorkerCommand.build(network, keep_spec(kit.store, StartSpec(*code)))
    done = subprocess.run(command.for_workers(2), capture_output=True, check=False, timeout=30)
    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)
    assert 2 == len(kit.rush.terminated_worker_ids)


def with_a_pool(worker: RushWorker) -> None:
    """Has processes of its own do the work."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        worker.finish_task(worker.push_running_task({"x": 3}), {"y": pool.map(abs, [-1, -2, -3])})


def test_a_loop_may_have_a_pool_of_its_own(kit: Kit) -> None:
    """Workers are ordinary processes, and may have children."""
    handle = kit.start(with_a_pool)
    assert 0 == kit.exit_code(handle)
    assert [[1, 2, 3]] == [task.ys["y"] for task in kit.rush.fetch_finished_tasks(as_="tasks")]


def with_children(worker: RushWorker) -> None:
    """Ends processes of its own by the usual signal, at the moment of their birth."""
    codes = []
    for _ in range(50):
        child = multiprocessing.get_context("fork").Process(target=threading.Event().wait, args=(600,))
        child.start()
        child.terminate()
        child.join(10)
        codes.append(child.exitcode)
        child.kill()
    key = worker.push_running_task({"x": 1})
    worker.finish_task(key, {"codes": sorted(set(codes), key=str), "asked": worker.terminated})


def test_a_signal_to_a_loops_child_is_its_own(kit: Kit) -> None:
    """It ends the child, and does not ask the worker to leave."""
    handle = kit.start(with_children)
    assert 0 == kit.exit_code(handle)
    (task,) = kit.rush.fetch_finished_tasks(as_="tasks")
    assert {"codes": [-signal.SIGTERM], "asked": False} == task.ys


def test_a_system_that_has_no_descriptor_left(kit: Kit) -> None:
    """Workers that cannot be made are visible as such, those that could be work."""
    code = seal_code(kit.store, leave, {}, {})
    ids = [f"w{number}" for number in range(20)]
    words = WorkerCommand.build(kit.store.network, keep_spec(kit.store, StartSpec(*code)), worker_ids=ids)
    line = f"ulimit -n 40; exec {words.shell_line(20)}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert 1 == done.returncode
    assert "Too many open files" in done.stderr
    states = kit.store.worker_states()
    assert set(ids) == set(states)
    assert {WorkerState.TERMINATED, WorkerState.LOST} == set(states.values())


# --- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_loop_that_returns_has_terminated(kit: Kit, method: str) -> None:
    """The worker leaves with exit code 0, and the supervisor with its last worker."""
    handle = kit.start(leave, ("a", "b"), environment={"RUSHLIGHT_START_METHOD": method})
    assert 0 == kit.exit_code(handle)
    for worker_id in ("a", "b"):
        info = kit.info(worker_id)
        assert info is not None
        assert (WorkerState.TERMINATED, 0, None) == (info.state, info.exit_code, info.reason)
    assert "" == kit.launcher.log_tail(handle)


def fail(worker: RushWorker) -> None:
    """Lets an error escape."""
    worker.push_running_task({"x": 1})
    raise LookupError("no luck")


def test_an_error_that_escapes_is_what_the_task_failed_with(kit: Kit) -> None:
    """The worker is lost, its task fails with the error's own message, the log has the traceback."""
    handle = kit.start(fail)
    info = kit.ended(WorkerState.LOST)
    assert (1, "LookupError: no luck") == (info.exit_code, info.reason)
    (task,) = kit.rush.fetch_failed_tasks(as_="tasks")
    assert "no luck" == task.condition["message"]
    assert (1, "LookupError") == (task.condition["exit_code"], task.condition["type"])
    assert "in fail\n" in task.condition["traceback"]
    lines = kit.log(logger="stderr")
    assert ["Traceback (most recent call last):", "LookupError: no luck"] == [lines[0], lines[-1]]
    assert not any("_child.py" in line for line in lines), "our own frames tell the user nothing"
    assert 1 == kit.exit_code(handle)


def exit_with(worker: RushWorker, code: Any) -> None:
    """Leaves in the middle of a task."""
    worker.push_running_task({"x": 1})
    sys.exit(code)


@pytest.mark.parametrize(
    ("code", "state", "exit_code"),
    [(0, "terminated", 0), (None, "terminated", 0), (3, "lost", 3), ("sorry", "lost", 1)],
)
def test_sys_exit(kit: Kit, code: Any, state: str, exit_code: int) -> None:
    """Leaving by sys.exit is leaving; with a code it is a failure."""
    kit.start(exit_with, kwargs={"code": code})
    assert exit_code == kit.ended(WorkerState(state)).exit_code
    assert 0 == kit.rush.n_running_tasks


def vanish(worker: RushWorker, how: str) -> None:
    """Ends without a word of Python's."""
    worker.push_running_task({"x": 1})
    if how == "exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stderr.write("before the end\n")
    ctypes.string_at(0)


@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ("exit", 7, "exited with code 7 without leaving the network"),
        ("kill", -9, "killed by SIGKILL without leaving the network"),
        ("crash", -11, "killed by SIGSEGV without leaving the network"),
    ],
)
@pytest.mark.parametrize("pidfd", ["1", "0"])
def test_a_crash_is_reported(kit: Kit, how: str, code: int, reason: str, pidfd: str) -> None:
    """Exit code or signal, and the last of stderr, with and without pidfds."""
    handle = kit.start(vanish, kwargs={"how": how}, environment={"RUSHLIGHT_PIDFD": pidfd})
    info = kit.ended(WorkerState.LOST)
    assert (code, reason) == (info.exit_code, info.reason)
    (task,) = kit.rush.fetch_failed_tasks(as_="tasks")
    assert (CRASHED, reason) == (task.condition["message"], task.condition["reason"])
    if how == "crash":
        assert signal.SIGSEGV == task.condition["signal"]
        assert task.condition["stderr"].startswith("before the end\nFatal Python error: Segmentation fault")
        assert "in vanish" in task.condition["stderr"]
    assert 1 == kit.exit_code(handle)


def test_a_death_concerns_nobody_else(kit: Kit) -> None:
    """The tasks of the dead worker fail, those beside it go on."""
    kit.start(hang, ("a", "b"))
    kit.held(2)
    victim, other = kit.running("a", "b")
    os.kill(victim.pid, signal.SIGKILL)
    kit.until_state(WorkerState.LOST, "a")
    (failed,) = kit.rush.fetch_failed_tasks(as_="tasks")
    (held,) = kit.rush.fetch_running_tasks(as_="tasks")
    assert ("a", "b") == (failed.worker_id, held.worker_id)
    assert alive(other.pid)


def test_interrupting_a_worker_ends_it(kit: Kit) -> None:
    """SIGINT to a worker is a kill, told as such."""
    kit.start(hang)
    kit.held()
    os.kill(kit.running()[0].pid, signal.SIGINT)
    info = kit.ended(WorkerState.KILLED)
    assert (130, "interrupted by SIGINT") == (info.exit_code, info.reason)
    assert [KILLED] == kit.failures()


def lingering(worker: RushWorker) -> None:
    """Returns with a thread and a process of its own still there."""
    command = [sys.executable, "-c", SLEEPER, worker.network]
    worker.push_running_task({"child": subprocess.Popen(command).pid})
    os._exit(0)


def test_what_a_worker_leaves_behind_is_killed(kit: Kit) -> None:
    """Processes a worker started end with it, however it ends."""
    kit.start(lingering)
    kit.until_state(WorkerState.LOST)
    (task,) = kit.rush.fetch_failed_tasks(as_="tasks")
    kit.gone(task.xs["child"])


def test_a_crashed_worker_is_started_again(kit: Kit) -> None:
    """As often as it may: the same id, another process; then it stays lost."""
    handle = kit.start(hang, max_restarts=2)
    pids = set()
    for _ in range(3):
        kit.held()
        pid = kit.running()[0].pid
        assert pid not in pids
        pids.add(pid)
        os.kill(pid, signal.SIGKILL)
        kit.until_failed(len(pids))
    assert 1 == kit.exit_code(handle)
    kit.until_state(WorkerState.LOST)
    assert [CRASHED] * 3 == kit.failures()


def test_a_worker_that_cannot_start_is_not_started_again(kit: Kit) -> None:
    """A missing module would be missing again."""
    handle = kit.start(leave, packages=("no_such_module",), max_restarts=5)
    assert 1 == kit.exit_code(handle)
    assert 1 == len([line for line in kit.log(logger="stderr") if line.startswith("Traceback")])


# --- orders -------------------------------------------------------------------------------------


def test_any_manager_kills(kit: Kit, network: str) -> None:
    """Another manager's kill ends the process and all it started, and fails its tasks."""
    handle = kit.start(with_child, ("a", "b"), max_restarts=3)
    children = [xs["child"] for xs in kit.held(2)]
    pids = [info.pid for info in kit.running("a", "b")]
    with Rush(network) as other:
        assert ["a"] == other.stop_workers("kill", ["a"])
        assert not alive(pids[0])
        assert alive(pids[1])
        other.stop_workers("kill")
    kit.gone(*pids, *children)
    assert [KILLED] * 2 == kit.failures()
    assert 0 == kit.exit_code(handle)
    info = kit.info("a")
    assert info is not None
    assert (WorkerState.KILLED, -9, "stopped by a manager") == (info.state, info.exit_code, info.reason)


def test_terminate_lets_the_task_be_finished(kit: Kit, tmp_path: Path) -> None:
    """The task at hand is finished, the queue is not."""
    handle = kit.start(one_by_one)
    kit.running()
    gate = tmp_path / "gate"
    keys = kit.rush.push_tasks([{"gate": str(gate)}] * 2)
    kit.held()
    kit.rush.stop_workers("terminate")
    gate.touch()
    assert 0 == kit.exit_code(handle)
    kit.until_state(WorkerState.TERMINATED)
    assert {TaskState.FINISHED, TaskState.QUEUED} == set(kit.rush.states(keys))


def test_reset_ends_the_workers(kit: Kit) -> None:
    """Workers of a network that was reset are killed, and write nothing into it."""
    handle = kit.start(serve, lease=1.0)
    pid = kit.running()[0].pid
    kit.rush.reset()
    kit.gone(pid)
    assert 0 == kit.exit_code(handle)
    assert [] == kit.store.workers()


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_the_workers_leave(kit: Kit, tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and its like to the supervisor: workers finish the task at hand and leave."""
    handle = kit.start(one_by_one, ("a", "b"))
    kit.running("a", "b")
    gate = tmp_path / "gate"
    keys = kit.rush.push_tasks([{"gate": str(gate)}] * 2)
    kit.held(2)
    os.kill(int(handle.id), number)
    kit.wait(lambda: not kit.store.worker_states() or kit.rush.n_running_tasks == 2)
    gate.touch()
    assert 0 == kit.exit_code(handle)
    assert [TaskState.FINISHED] * 2 == kit.rush.states(keys)
    assert ["a", "b"] == kit.rush.terminated_worker_ids


def test_a_signal_to_a_worker_lets_it_leave(kit: Kit) -> None:
    """Schedulers signal every process of a job: a worker takes SIGTERM as a request."""
    handle = kit.start(serve, ("a", "b"))
    first, other = kit.running("a", "b")
    os.kill(first.pid, signal.SIGTERM)
    assert 0 == kit.ended(WorkerState.TERMINATED, "a").exit_code
    kit.gone(first.pid)
    assert alive(other.pid)
    assert "running" == kit.launcher.poll([handle])[0].phase


def test_the_grace_ends(kit: Kit) -> None:
    """Workers that do not leave in time are killed, and it is told why."""
    handle = kit.start(stubborn, options={"grace": "0.3"})
    kit.held()
    os.kill(int(handle.id), signal.SIGTERM)
    assert 0 == kit.exit_code(handle)
    info = kit.ended(WorkerState.KILLED)
    assert "did not leave within 0.3 s after SIGTERM" == info.reason
    assert [KILLED] == kit.failures()


def test_a_second_signal_does_not_wait(kit: Kit) -> None:
    """Asked twice, the supervisor kills."""
    handle = kit.start(stubborn)
    kit.held()
    os.kill(int(handle.id), signal.SIGTERM)
    kit.wait(lambda: b"d" == kit.store.link.call(_letter(kit))[:1])
    os.kill(int(handle.id), signal.SIGTERM)
    assert 0 == kit.exit_code(handle)
    assert "told to stop by SIGTERM" == kit.ended(WorkerState.KILLED).reason


def saving(worker: RushWorker, gate: str, saved: str) -> None:
    """Returns at once, and has something left to do at its process's exit."""

    def save() -> None:
        while not os.path.exists(gate):
            threading.Event().wait(0.01)
        threading.Event().wait(0.2)
        Path(saved).touch()

    atexit.register(save)


def test_a_worker_that_has_left_may_exit(kit: Kit, tmp_path: Path) -> None:
    """Where all are to end now, a worker whose loop has returned still has a moment to exit by itself."""
    gate, saved = tmp_path / "gate", tmp_path / "saved"
    handle = kit.start(saving, kwargs={"gate": str(gate), "saved": str(saved)})
    kit.until_state(WorkerState.TERMINATED)
    os.kill(int(handle.id), signal.SIGQUIT)
    gate.touch()
    assert 0 == kit.exit_code(handle)
    info = kit.ended(WorkerState.TERMINATED)
    assert (0, None) == (info.exit_code, info.reason)
    assert saved.exists()


def _letter(kit: Kit) -> bytes:
    import hiredis

    packed: bytes = hiredis.pack_command(("HGET", kit.store.keys["control"], "w:w"))
    return packed


# --- nothing is left behind ---------------------------------------------------------------------

MANAGER = """
import os, signal, sys
sys.path.insert(0, {here!r})
from rushlight import Rush
from test_supervisor import with_child
rush = Rush({network!r})
rush.start_workers(with_child, 2, lease=2.0)
rush.wait_for_workers(2)
{before}
print("up", flush=True)
{then}
"""


def manager(network: str, then: str, before: str = "") -> list[str]:
    """The command of a manager process with two workers that have a process each."""
    here = str(Path(__file__).parent)
    return [sys.executable, "-c", MANAGER.format(here=here, network=network, then=then, before=before)]


def pids_of(kit: Kit) -> list[int]:
    """Workers and their children, once all are there."""
    return [*(xs["child"] for xs in kit.held(2)), *(info.pid for info in kit.store.workers())]


@pytest.mark.parametrize(
    ("before", "then"),
    [
        ("", "signal.pause()"),
        ("os.fork() or signal.pause()", "signal.pause()"),
        ("", "os.abort()"),
        ("", "sys.exit()"),
        ("", "1 / 0"),
    ],
)
def test_nothing_survives_the_manager(
    kit: Kit, network: str, processes: Callable[..., Any], before: str, then: str
) -> None:
    """Killed, crashed or just ended: supervisor, workers and what those started end with it, even where a
    process that it forked lives on with its pipes."""
    words = manager(network, then, before)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    with process.stdout:
        assert b"up\n" == process.stdout.readline()
        children_then = (
            [child.pid for child in psutil.Process(process.pid).children()] if "pause" in then else []
        )
        pids = pids_of(kit) if "pause" in then else []
        if "pause" in then:
            process.kill()
        process.wait(30)
    kit.gone(*pids)
    # What is left now is what the manager forked; the supervisor has gone by itself.
    kit.wait(lambda: len(processes(network)) == bool(before))
    for forked in processes(network):
        assert forked.pid in children_then
        forked.kill()
    kit.wait(lambda: 2 == kit.rush.n_killed_workers)
    kit.wait(lambda: 0 == kit.rush.n_running_tasks)
    assert {KILLED} >= set(kit.failures())


def test_ctrl_c_in_the_managers_terminal(kit: Kit, network: str, processes: Callable[..., Any]) -> None:
    """An interrupted manager leaves nothing running; its workers do not see the keystroke."""
    pid, terminal = pty.fork()
    if pid == 0:
        command = manager(network, "signal.pause()")
        os.execv(command[0], command)
    try:
        said = b""
        while b"up" not in said:
            said += os.read(terminal, 1024)
        pids = pids_of(kit)
        os.write(terminal, b"\x03")
        # Read to the end, or the manager hangs writing its traceback.
        try:
            while True:
                said += os.read(terminal, 1024)
        except OSError:
            pass
        os.waitpid(pid, 0)
    finally:
        os.close(terminal)
    assert b"KeyboardInterrupt" in said
    kit.gone(*pids)
    kit.wait(lambda: not processes(network))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_nothing_survives_the_supervisor(
    kit: Kit, network: str, processes: Callable[..., Any], method: str
) -> None:
    """Killed, it takes workers and all they started with it; their leases run out and their tasks fail."""
    environment = {"RUSHLIGHT_START_METHOD": method}
    handle = kit.start(with_child, ("a", "b"), lease=1.0, environment=environment)
    pids = pids_of(kit)
    os.kill(int(handle.id), signal.SIGKILL)
    kit.gone(*pids)
    kit.wait(lambda: not processes(network))
    kit.wait(lambda: 2 == kit.rush.n_lost_workers)
    assert [CRASHED] * 2 == kit.failures()


def test_a_guard_that_was_killed_is_replaced(kit: Kit) -> None:
    """Whoever kills the guard does not take the safety away."""
    handle = kit.start(with_child, ("a", "b"), lease=1.0)
    pids = pids_of(kit)
    supervisor = psutil.Process(int(handle.id))
    (guard,) = [child for child in supervisor.children() if child.pid not in pids]
    guard.kill()
    kit.wait(
        lambda: (
            any(child.pid not in pids and alive(child.pid) for child in supervisor.children())
            and not alive(guard.pid)
        )
    )
    supervisor.kill()
    kit.gone(*pids)
    kit.wait(lambda: 2 == kit.rush.n_lost_workers)


def test_outliving_the_manager(kit: Kit, network: str) -> None:
    """Workers asked to outlive go on after their launcher, and any manager can stop them."""
    handle = kit.start(serve, outlive=True)
    pid = kit.running()[0].pid
    kit.launcher.close()
    key = kit.rush.push_tasks([{"x": 1}])
    assert kit.rush.wait_for_tasks(key, timeout=20)
    kit.rush.stop_workers("kill")
    kit.gone(pid, int(handle.id))


# --- leases -------------------------------------------------------------------------------------


def hold_the_gil(worker: RushWorker, seconds: int) -> None:
    """Keeps the interpreter to itself, as a long call into C does."""
    key = worker.push_running_task({"x": 1})
    ctypes.PyDLL(None).sleep(seconds)
    worker.finish_task(key, {"y": 1})


@pytest.mark.slow
def test_code_that_holds_the_gil_keeps_its_lease(kit: Kit) -> None:
    """The lease is the supervisor's business: a worker may be busy for many times its lease."""
    kit.start(hold_the_gil, kwargs={"seconds": 3}, lease=0.5)
    kit.held()
    kit.wait(lambda: kit.rush.detect_lost_workers() or kit.rush.n_finished_tasks)
    kit.until_state(WorkerState.TERMINATED)


def test_a_pause_that_nobody_noticed_is_no_loss(kit: Kit) -> None:
    """A supervisor that was stopped longer than the lease renews first when it goes on."""
    handle = kit.start(serve, lease=0.4)
    pid = kit.running()[0].pid
    os.kill(int(handle.id), signal.SIGSTOP)
    due = kit.store.link.call(_due(kit))
    kit.wait(lambda: float(kit.store.link.call(_due(kit))) < _server_time(kit))
    os.kill(int(handle.id), signal.SIGCONT)
    kit.wait(lambda: float(kit.store.link.call(_due(kit))) > float(due) + 1e6)
    assert pid == kit.running()[0].pid
    assert alive(pid)


def _due(kit: Kit) -> bytes:
    import hiredis

    packed: bytes = hiredis.pack_command(("ZSCORE", kit.store.keys["leases"], "w"))
    return packed


def _server_time(kit: Kit) -> float:
    import hiredis

    seconds, micros = kit.store.link.call(hiredis.pack_command(("TIME",)))
    return int(seconds) * 1e6 + int(micros)


def test_workers_declared_lost_are_ended(kit: Kit) -> None:
    """A supervisor that slept while others gave its workers up kills them: their results are void."""
    handle = kit.start(hang, lease=0.4)
    kit.held()
    pid = kit.running()[0].pid
    os.kill(int(handle.id), signal.SIGSTOP)
    kit.wait(lambda: ["w"] == kit.rush.detect_lost_workers())
    assert [CRASHED] == kit.failures()
    os.kill(int(handle.id), signal.SIGCONT)
    kit.gone(pid)
    kit.exit_code(handle)
    info = kit.ended(WorkerState.LOST)
    assert "declared lost, as its lease ran out" == info.reason


@pytest.mark.parametrize("n", [1, 5])
def test_one_wordsrenews_all(kit: Kit, server: redis.Redis, n: int) -> None:
    """The cost of leases does not grow with the number of workers."""
    ids = tuple(f"w{number}" for number in range(n))
    kit.start(hang, ids, lease=0.6)
    kit.held(n)
    from rushlight import _scripts

    sha = _scripts.load("beat").sha
    beats = []
    with server.monitor() as monitor:
        for said in monitor.listen():
            if sha in said["command"] and kit.store.network in said["command"]:
                beats.append(said)
            if len(beats) == 4:
                break
    named = [sum(worker_id in beat["command"].split() for worker_id in ids) for beat in beats]
    assert [n] * 4 == named
    assert beats[3]["time"] - beats[0]["time"] > 0.3, "three beats need about one lease"


# --- the server goes away -----------------------------------------------------------------------


def test_lost_connections_come_back(kit: Kit, server: redis.Redis) -> None:
    """Workers live on, orders are heard again, ends are reported."""
    handle = kit.start(serve, ("a", "b"), lease=1.0)
    first, other = kit.running("a", "b")
    server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    os.kill(first.pid, signal.SIGKILL)
    kit.until_state(WorkerState.LOST, "a")
    keys = kit.rush.push_tasks([{"x": 1}])
    assert kit.rush.wait_for_tasks(keys, timeout=20)
    assert alive(other.pid)
    kit.rush.stop_workers("kill")
    kit.gone(other.pid)
    kit.exit_code(handle)


class OwnServer:
    """A server of the test's own, to be killed and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/s"
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ["--port", "0", "--unixsocket", f"{self._folder}/s", "--dir", str(self._folder), "--save", ""]
        self.process = subprocess.Popen(
            [find_binary(), *words, "--appendonly", "yes", "--appendfsync", "always"],
            stdout=subprocess.DEVNULL,
        )
        client = redis.Redis(unix_socket_path=f"{self._folder}/s")

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

        until(answers)
        client.close()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, at most half a minute."""
    for _ in range(1500):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("waited in vain")


@pytest.fixture
def own_server(home: Path) -> Iterator[OwnServer]:
    """A server that is gone in the end, with its data."""
    with tempfile.TemporaryDirectory(prefix="rl-", dir="/tmp") as folder:
        made = OwnServer(Path(folder))
        made.start()
        yield made
        made.kill()


@pytest.mark.slow
def test_workers_live_through_a_restart_of_the_server(
    own_server: OwnServer, network: str, wait_until: Wait
) -> None:
    """The server dies and comes back with its data: the same workers go on, ends meanwhile are reported."""
    with Rush(network, own_server.url) as rush, contextlib.closing(LocalLauncher()) as launcher:
        kit = Kit(rush, rush._store, wait_until, launcher)
        environment = {"RUSHLIGHT_URL": own_server.url}
        handle = kit.start(serve, ("a", "b"), environment=environment, lease=10.0)
        first, other = kit.running("a", "b")
        own_server.kill()
        os.kill(first.pid, signal.SIGKILL)
        kit.gone(first.pid)
        own_server.start()
        assert -signal.SIGKILL == kit.ended(WorkerState.LOST, "a").exit_code
        keys = rush.push_tasks([{"x": 1}])
        assert rush.wait_for_tasks(keys, timeout=30)
        assert other.pid == kit.running("b")[0].pid
        rush.stop_workers("kill")
        assert 1 == kit.exit_code(handle), "a worker was lost"


@pytest.mark.slow
def test_a_manager_and_its_server_may_go_together(
    own_server: OwnServer, network: str, processes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nobody left to report to, the supervisor ends all the same, and soon."""
    monkeypatch.setenv("RUSHLIGHT_URL", own_server.url)
    process = subprocess.Popen(manager(network, "signal.pause()"), stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert b"up\n" == process.stdout.readline()
        own_server.kill()
        process.kill()
        process.wait(30)
    monkeypatch.delenv("RUSHLIGHT_URL")
    until(lambda: not processes(network))


# --- output -------------------------------------------------------------------------------------


def talk(worker: RushWorker) -> None:
    """Prints in every way."""
    import logging

    print("to stdout")
    print("to stderr", file=sys.stderr)
    os.write(1, b"raw \xff bytes\n")
    print("no end", end="")
    logging.getLogger("their.logger").info("logged %d", 5)
    logging.getLogger("their.logger").debug("not wanted")
    assert "" == sys.stdin.read()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_what_workers_print_and_log(kit: Kit, method: str, tmp_path: Path) -> None:
    """Lines of both streams and log records from the level on are in the network's log; files have all."""
    environment = {"RUSHLIGHT_START_METHOD": method}
    handle = kit.start(talk, log_level="INFO", log_dir=str(tmp_path / "logs"), environment=environment)
    assert 0 == kit.exit_code(handle)
    assert ["to stdout", "raw \\xff bytes", "no end"] == kit.log(logger="stdout", level="INFO")
    assert ["to stderr"] == kit.log(logger="stderr", level="WARNING")
    assert ["logged 5"] == kit.log(logger="their.logger", level="INFO")
    assert not kit.log(level="DEBUG")
    written = (tmp_path / "logs" / "w.log").read_bytes()
    assert sorted([b"to stdout", b"to stderr", b"raw \xff bytes", b"no end"]) == sorted(written.splitlines())


def chatter(worker: RushWorker) -> None:
    """Writes a megabyte to stderr in the middle of a task."""
    key = worker.push_running_task({"x": 1})
    for _ in range(1024):
        os.write(2, b"e" * 1023 + b"\n")
    os.write(2, b"the last line\n")
    worker.finish_task(key, {"y": 1})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_megabyte_of_stderr_blocks_nothing(kit: Kit) -> None:
    """However much a worker complains, its task is finished, and the report shows the last of it."""
    kit.start(chatter)
    kit.until_state(WorkerState.LOST)
    assert 1 == kit.rush.n_finished_tasks
    assert "the last line" in kit.log(logger="stderr") or any("dropped" in line for line in kit.log())


def flood(worker: RushWorker) -> None:
    """Prints more than any log takes."""
    for number in range(200_000):
        print(number)
    worker.finish_task(worker.push_running_task({"x": 1}), {"y": 1})


def test_a_flood_costs_lines_and_nothing_else(kit: Kit) -> None:
    """The worker works on; what was dropped is counted, so that all lines are accounted for."""
    handle = kit.start(flood)
    assert 0 == kit.exit_code(handle)
    assert 1 == kit.rush.n_finished_tasks
    dropped = sum(int(line.split()[0]) for line in kit.log(logger="rushlight"))
    assert dropped > 0
    assert 200_000 == dropped + len(kit.log(logger="stdout"))


# --- the command --------------------------------------------------------------------------------


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the worker command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "rushlight", "worker", *words],
        capture_output=True, text=True, check=False, timeout=30, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--network is missing"),
        (("--network=n", "--spec=s", "--workers=0"), "--workers=0"),
        (("--network=n", "--spec=s", "--grace=-1"), "--grace=-1"),
        (("--network=n", "--spec=s", "--worker-id=a", "--worker-id=a"), "given twice"),
        (("--network=a b", "--spec=s"), "is not a network name"),
        (("--network=n", "--spec=s", "--env-file=/no/such/file"), "environment file '/no/such/file'"),
    ],
)
def test_wrong_usage_is_one_line(home: Path, words: tuple[str, ...], said: str) -> None:
    """Exit code 2 and one line that names value and place."""
    done = command(*words)
    assert 2 == done.returncode
    assert said in done.stderr
    assert 1 == len(done.stderr.splitlines())


def test_an_unknown_option_is_wrong_usage() -> None:
    """The error says what is not known."""
    done = command("--netwrok=n")
    assert 2 == done.returncode
    assert "--netwrok" in done.stderr


def test_a_server_that_is_not_there(home: Path) -> None:
    """Exit code 1 and one line with the address, without its password."""
    done = command("--network=n", "--spec=s", RUSHLIGHT_URL="redis://:hush@127.0.0.1:1/0")
    assert 1 == done.returncode
    assert "redis://127.0.0.1:1/0" in done.stderr
    assert "hush" not in done.stderr
    assert 1 == len(done.stderr.splitlines())


def test_settings_come_by_file(kit: Kit, network: str, home: Path, tmp_path: Path) -> None:
    """A script for another host needs nothing in its environment, and no secret in its text."""
    code = seal_code(kit.store, leave, {}, {})
    written = WorkerCommand.build(
        network, keep_spec(kit.store, StartSpec(*code)), environment={"RUSHLIGHT_HOME": str(home)}
    )
    path = written.write_environment(tmp_path / "env")
    environment = {name: value for name, value in os.environ.items() if name != "RUSHLIGHT_HOME"}
    line = written.shell_line(environment_file=str(path))
    assert 0 == subprocess.run(["sh", "-c", line], check=False, timeout=30, env=environment).returncode
    assert 1 == kit.rush.n_terminated_workers
