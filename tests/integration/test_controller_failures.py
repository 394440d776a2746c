"""What a controller does when something breaks or takes too long: real processes, killed for real."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from harness import run_python
from rushlight import Controller, Rush, RushWorker
from rushlight.errors import LaunchError, TaskTimeout, WorkerCrashed
from rushlight.launchers import Handle, HandleState, LocalLauncher, WorkerCommand

PATIENCE = 60.0

SUBMITTER = """
import sys, time
from rushlight import Controller, Rush, RushWorker

def work(i):
    time.sleep(0.005)
    return i

if __name__ == "__main__":
    network, start, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    controller = Controller(network, max_workers=2, idle_timeout=20)
    for i in range(start, start + n):
        controller.push(f"call-{i}", work, i)
        len(controller)  # asks the server, which has the call by then
        print("pushed", i, flush=True)
    while True:
        result = controller.pop(1)
        if result is not None:
            print("got", result.name, flush=True)
"""


class FailingLauncher(LocalLauncher):
    """Starts processes that say a word and end."""

    name = "failing"

    def __init__(self) -> None:
        super().__init__()
        self.launched = 0

    def launch(self, command: WorkerCommand, n: int) -> list[Handle]:
        self.launched += n
        argv = (sys.executable, "-c", "import sys; sys.exit('module load python: not found')")
        return super().launch(WorkerCommand(argv, worker_ids=command.worker_ids), n)


class SlowLauncher:
    """A scheduler whose jobs wait in its queue for ever."""

    name = "slow"

    def __init__(self) -> None:
        self.terminated: list[str] = []

    def launch(self, command: WorkerCommand, n: int) -> list[Handle]:
        return [Handle(self.name, worker_id, (worker_id,)) for worker_id in command.worker_ids]

    def poll(self, handles: list[Handle]) -> list[HandleState]:
        return [HandleState("pending")] * len(handles)

    def terminate(self, handles: list[Handle]) -> None:
        self.terminated += [handle.id for handle in handles]

    def log_tail(self, handle: Handle) -> str:
        return ""


def test_a_call_that_runs_too_long(network: str) -> None:
    """A call over its limit ends as a timeout that can be raised and collected, and its worker goes on."""
    with Controller(network, max_workers=1) as controller:
        future = controller.options(timeout=0.3, name="long").submit(time.sleep, 600)
        error = future.exception(PATIENCE)
        assert isinstance(error, TaskTimeout)
        assert isinstance(error, TimeoutError)
        assert "timed out after 0.3" in str(error)
        assert 3 == controller.submit(abs, -3).result(PATIENCE)
        assert {"long": "timeout"} == {r.name: r.status for r in controller.collect() if r.name == "long"}


def test_a_call_that_waits_too_long(network: str) -> None:
    """A call that nobody took in time ends as a timeout; one that was taken in time may run longer."""
    with Controller(network, max_workers=1) as controller:
        controller.descale()
        future = controller.options(queue_timeout=0.2, name="late").submit(abs, -1)
        error = future.exception(PATIENCE)
        assert isinstance(error, TaskTimeout)
        assert "not started within 0.2" in str(error)
        result = controller.pop(PATIENCE)
        assert result is not None
        assert ("late", "timeout", None) == (result.name, result.status, result.worker_id)
        controller.launch(1)
        assert 1 == controller.submit(abs, -1).result(PATIENCE)
        assert controller.options(queue_timeout=0.2).submit(time.sleep, 0.5).exception(PATIENCE) is None


def test_errors_are_tried_again_where_asked(network: str, tmp_path: Path) -> None:
    """``max_retries`` is for errors, and does not count crashes."""
    log = tmp_path / "log"

    def fail(crash: bool) -> None:
        with log.open("a") as file:
            file.write("x")
        if crash and log.read_text() == "x":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("again")

    with Controller(network, max_workers=1) as controller:
        assert isinstance(controller.submit(fail, False).exception(PATIENCE), ValueError)
        assert "x" == log.read_text()
        log.unlink()
        retried = controller.options(max_retries=2).submit(fail, True)
        assert isinstance(retried.exception(PATIENCE), ValueError)
        assert "xxxx" == log.read_text()


def test_the_crash_is_told_in_full(network: str) -> None:
    """A crash tells signal, host and the last words; it is counted under the call's name."""

    def crash() -> None:
        print("out of cheese", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)

    with Controller(network, max_workers=1, max_crashes=1) as controller:
        controller.push("poison", crash)
        result = controller.pop(PATIENCE)
        assert result is not None
        error = result.exception
        assert isinstance(error, WorkerCrashed)
        assert (signal.SIGSEGV, 2, result.hostname) == (error.signal, error.attempts, error.hostname)
        assert "out of cheese" in error.log_tail
        assert ("crash", 2) == (result.status, result.attempt)
        assert 2 == controller.crashes("poison")
        assert 1 == controller.summary().crash


def test_a_call_that_takes_too_much_memory(network: str) -> None:
    """Its worker is killed while it runs, which is a crash of that call with a true reason, and replaced; the
    processes of others, and other calls, do not notice."""

    def fill() -> None:
        held = []
        while True:
            held.append(bytearray(4 << 20))
            threading.Event().wait(0.01)

    most = 192 << 20
    with Controller(network, max_workers=2, max_memory=most, max_crashes=1) as controller:
        greedy = controller.submit(fill)
        modest = [controller.submit(lambda i: len(bytes(i << 20)) >> 20, i) for i in range(10)]
        error = greedy.exception(PATIENCE)
        assert isinstance(error, WorkerCrashed)
        assert (signal.SIGKILL, 2) == (error.signal, error.attempts)
        told = re.search(
            r"held ([\d.]+) MiB of memory, more than max_memory=(\d+) \(192.0 MiB\): raise", str(error)
        )
        assert told is not None
        assert most == int(told[2])
        assert 192 < float(told[1])
        assert list(range(10)) == [future.result(PATIENCE) for future in modest]
        assert 5 == controller.submit(abs, -5).result(PATIENCE)
        assert {"crash": 1, "success": 11} == Counter(result.status for result in controller.collect())


def test_a_limit_below_what_a_worker_holds_before_its_first_call(network: str) -> None:
    """No worker comes up, and the error says why instead of any call's crash."""
    with Controller(network, max_workers=1, max_memory=1 << 20) as controller:
        error = controller.submit(abs, -1).exception(PATIENCE)
        assert isinstance(error, LaunchError)
        assert "max_memory=1048576" in str(error)
        controller.cancel(all=True)


def test_launches_that_fail_are_told(network: str) -> None:
    """Where every launch dies, waiting calls end with the launcher's last words, and launching stops."""
    launcher = FailingLauncher()
    with Controller(network, max_workers=2, launcher=launcher) as controller:
        error = controller.submit(abs, -1).exception(PATIENCE)
        assert isinstance(error, LaunchError)
        assert "module load python: not found" in error.log_tail
        with pytest.raises(LaunchError, match="not found"):
            controller.wait(timeout=PATIENCE)
        with pytest.raises(LaunchError, match="not found"):
            controller.pop(timeout=PATIENCE)
        assert launcher.launched <= 8
        controller.cancel(all=True)


def test_jobs_that_wait_in_a_scheduler_are_no_failures(network: str) -> None:
    """A job that waits in its scheduler is neither failed nor launched again; it is taken back in the end."""
    launcher = SlowLauncher()
    with Controller(network, max_workers=3, launcher=launcher, launch_timeout=0.1) as controller:
        futures = [controller.submit(abs, -x) for x in range(3)]
        for _ in range(5):
            controller.scale()
        assert 3 == len(controller._launches._known.launches)
        assert not any(future.done() for future in futures)
        controller.terminate()
    assert 3 == len(launcher.terminated)
    assert [True] * 3 == [future.cancelled() for future in futures]


def test_a_supervisor_that_is_killed(network: str, wait_until: Callable[..., None]) -> None:
    """As when a machine goes: nobody tells of its workers, whose calls are tried elsewhere once their leases
    have run out."""
    with Controller(network, max_workers=1, lease=0.6) as controller:
        future = controller.submit(time.sleep, 0.7)
        wait_until(future.running)
        (card,) = controller._rush._store.cards().values()
        os.kill(int(card.supervisor.rpartition(":")[2]), signal.SIGKILL)
        assert future.result(PATIENCE) is None
        (result,) = controller.collect()
        assert (2, "success") == (result.attempt, result.status)
        assert card.worker_id != result.worker_id


def test_a_worker_that_somebody_kills(network: str, wait_until: Callable[..., None]) -> None:
    """A worker that is killed from outside costs the call at hand a second attempt, and nothing else."""
    with Controller(network, max_workers=2) as controller:
        slow = controller.submit(time.sleep, 1)
        wait_until(slow.running)
        (worker,) = [row for row in controller.workers().to_dicts() if row["current_task"]]
        os.kill(worker["pid"], signal.SIGKILL)
        assert slow.result(PATIENCE) is None
        (result,) = controller.collect()
        assert (2, "success") == (result.attempt, result.status)


@pytest.mark.slow
def test_a_killed_controller_is_replaced(network: str) -> None:
    """A controller's process is killed again and again; the next goes on with its queue, workers and results.
    In the end every result has been collected: once, or again where it was at hand at the kill."""
    got: Counter[str] = Counter()
    pushed: set[str] = set()
    for life in range(4):
        process = run_python(SUBMITTER, network, str(life * 100), "100")
        assert process.stdout is not None
        for heard, line in enumerate(process.stdout):
            if not line.endswith("\n"):
                break  # the kill came amid it
            word, name = line.split()
            pushed.add(f"call-{name}") if word == "pushed" else got.update([name])
            if heard == 60 + 40 * life:
                process.kill()
        process.communicate(timeout=PATIENCE)
    with Controller(network, max_workers=2) as controller:
        assert controller.wait(timeout=PATIENCE)
        got.update(result.name for result in controller.collect())
    assert set() == pushed - set(got)
    twice = [name for name, times in got.items() if times > 1]
    assert len(twice) <= 4
    assert max(got.values()) <= 2


def test_workers_outlive_a_killed_controller(network: str, wait_until: Callable[..., None]) -> None:
    """The next controller finds the workers of the killed one, and ends them in the end."""
    process = run_python(SUBMITTER, network, "0", "5")
    assert process.stdout is not None
    assert any(line.startswith("got") for line in process.stdout)
    process.kill()
    process.communicate(timeout=PATIENCE)
    with Controller(network, max_workers=2) as controller:
        before = set(controller.workers()["pid"])
        assert 2 == controller.submit(abs, -2).result(PATIENCE)
        assert before == set(controller.workers()["pid"])
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in before))


def test_many_submit_and_many_collect(network: str) -> None:
    """Several processes submit to one network and several objects collect: each result once."""
    script = """
import sys
from rushlight import Controller, Rush, RushWorker
if __name__ == "__main__":
    with Controller(sys.argv[1], max_workers=2) as controller:
        futures = [controller.submit(divmod, i, 7) for i in range(200)]
        values = [future.result(60) for future in futures]
        print(values == [divmod(i, 7) for i in range(200)], len({future.name for future in futures}))
        del futures
"""
    with Controller(network, max_workers=2) as one, Controller(network, max_workers=2) as two:
        processes = [run_python(script, network) for _ in range(3)]
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
        assert ["True 200\n"] * 3 == outputs
        assert one.wait(timeout=PATIENCE)
        found: list[Any] = [*one.collect(), *two.collect()]
        assert len(found) == len({result.name for result in found})
        assert one.empty


class Own:
    """A value that only a signed pickle can hold."""


@pytest.mark.parametrize("retries", [0, 2])
def test_a_call_that_cannot_be_read_fails_alone(
    network: str, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    """Pushed under another secret, or no call: it fails with the reason; worker and controller go on."""
    monkeypatch.setenv("RUSHLIGHT_SECRET", "the secret of the network")
    with (
        Controller(network, max_workers=1) as controller,
        Rush(network, secret="the secret of a stranger") as stranger,
    ):
        worker = controller.submit(os.getpid).result(PATIENCE)
        tasks = stranger.push_tasks([{"x": Own()}, {"x": 1}, {"call": Own()}], max_retries=retries)
        assert {worker} == {controller.submit(os.getpid).result(PATIENCE) for _ in range(5)}
        result = stranger.wait_for_tasks(tasks, timeout=PATIENCE)
        assert tasks == result.failed
        conditions = [stranger.task(key).condition for key in tasks]
        assert ["SignatureMismatch", "KeyError", "SignatureMismatch"] == [c["type"] for c in conditions]
        assert {worker} == {controller.submit(os.getpid).result(PATIENCE) for _ in range(5)}
        controller.push("mine", os.getpid)
        found = [controller.pop(PATIENCE) for _ in range(1 + 5 + 5 + 1 + len(tasks))]
        assert Counter(success=12, error=len(tasks)) == Counter(result.status for result in found)


def test_a_crash_of_no_call_goes_nowhere(network: str) -> None:
    """Of a task that somebody made by hand, whose worker is killed: the controller goes on, its fallback has
    nothing to do with it."""
    with (
        Controller(f"{network}-b", max_workers=1) as fallback,
        Controller(network, max_workers=1, fallback=fallback) as controller,
        Rush(network) as rush,
    ):
        worker = controller.submit(os.getpid).result(PATIENCE)
        with RushWorker(network) as hand:
            key = hand.push_running_task({"x": 1})
            rush.stop_workers("kill", [hand.worker_id])
        assert worker == controller.submit(os.getpid).result(PATIENCE)
        assert ["failed"] == rush.states([key])
        found = [controller.pop(PATIENCE) for _ in range(3)]
        assert Counter(success=2, crash=1) == Counter(result.status for result in found)
    with Rush(f"{network}-b") as rush:
        rush.reset()


def test_results_that_cannot_be_read_keep_nobody_waiting(network: str, server: redis.Redis) -> None:
    """Somebody has put something else in the place of all results: the futures that wait say so, and shutdown
    returns."""
    controller = Controller(network, max_workers=1)
    try:
        controller.submit(os.getpid).result(PATIENCE)
        waiting = controller.submit(hold)
        server.set(f"rl:{{{network}}}:finished", b"nonsense")
        assert waiting.exception(PATIENCE) is not None
        server.delete(f"rl:{{{network}}}:finished")
    finally:
        controller.terminate()


def hold() -> None:
    """Takes longer than anybody waits."""
    threading.Event().wait(600)
