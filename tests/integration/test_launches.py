"""A controller and the launchers it has: real processes that come late, never, or not at all."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
import pytest
import redis

from ground import hold_to_be_gone
from harness import run_python
from rushlight import Controller, Rush, RushWorker
from rushlight._call_loop import CallLoop
from rushlight._call_scope import Limits, Reset
from rushlight._connect import StoreConfig
from rushlight._store import Store
from rushlight._store_calls import Collecting
from rushlight.errors import LaunchError
from rushlight.launchers import PENDING, Handle, HandleState, LocalLauncher, WorkerCommand

PATIENCE = 60.0
Controllers = Callable[..., Controller]


class Scheduler(LocalLauncher):
    """Jobs wait in a queue until they are let in; each is a process of its own then."""

    name = "scheduler"

    def __init__(self, *, stubborn: bool = False) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.waiting: dict[str, WorkerCommand] = {}
        self.cancelled: list[str] = []
        self._stubborn = stubborn
        self._started: dict[str, Handle] = {}

    def launch(self, command: WorkerCommand, n: int) -> list[Handle]:
        self.batches.append(n)
        for worker_id in command.worker_ids:
            alone = WorkerCommand(command.argv, command.environment, (worker_id,), command.outlive)
            self.waiting[worker_id] = alone
        return [Handle(self.name, worker_id, (worker_id,)) for worker_id in command.worker_ids]

    def let_in(self, n: int = 1) -> list[str]:
        """Starts the processes of the first n jobs that wait."""
        chosen = list(self.waiting)[:n]
        for job in chosen:
            (self._started[job],) = super().launch(self.waiting.pop(job), 1)
        return chosen

    def poll(self, handles: Sequence[Handle]) -> list[HandleState]:
        return [PENDING if one.id not in self._started else self._state_of(one.id) for one in handles]

    def _state_of(self, job: str) -> HandleState:
        return super().poll([self._started[job]])[0]

    def terminate(self, handles: Sequence[Handle]) -> None:
        self.cancelled += [one.id for one in handles]
        if not self._stubborn:
            for one in handles:
                self.waiting.pop(one.id, None)
            super().terminate([self._started[one.id] for one in handles if one.id in self._started])

    def wait(self, handles: Sequence[Handle], seconds: float) -> bool:
        return super().wait([self._started[one.id] for one in handles if one.id in self._started], seconds)

    def log_tail(self, handle: Handle) -> str:
        return ""


class Unreliable(LocalLauncher):
    """Refuses as its list says: an error to raise, a command to run instead, or None for what is right."""

    name = "unreliable"

    def __init__(self, fates: Iterator[Any]) -> None:
        super().__init__()
        self.fates = fates
        self.refused = self.launched = 0

    def launch(self, command: WorkerCommand, n: int) -> list[Handle]:
        fate = next(self.fates)
        if isinstance(fate, Exception):
            self.refused += 1
            raise fate
        self.launched += n
        return super().launch(WorkerCommand(fate, worker_ids=command.worker_ids) if fate else command, n)


def pid(seconds: float = 0.0) -> int:
    """Where the call runs, for so long."""
    threading.Event().wait(seconds)
    return os.getpid()


def members(controller: Controller) -> list[str]:
    """The live workers."""
    return sorted(controller._rush._store.crew().members)


def test_a_command_that_is_missing_is_told_at_once(controllers: Controllers) -> None:
    """Launches that cannot even begin end in an error with what the launcher said, wherever one waits."""
    launcher = Unreliable(iter(lambda: ["/no/such/program"], None))
    controller = controllers(max_workers=2, launcher=launcher)
    error = controller.submit(pid).exception(PATIENCE)
    assert isinstance(error, LaunchError)
    assert "/no/such/program" in error.fields["log_tail"]
    with pytest.raises(LaunchError, match="No such file"):
        controller.wait(timeout=PATIENCE)


def test_a_launcher_with_a_mistake_in_it_does_not_end_the_scaling(controllers: Controllers) -> None:
    """What a launcher raises, whatever it is, is a launch that failed; the next one may work."""
    controller = controllers(
        max_workers=1, launcher=Unreliable(iter([ZeroDivisionError("oops"), None, None]))
    )
    assert controller.submit(abs, -3).result(PATIENCE) == 3


def test_every_second_launch_is_rejected(controllers: Controllers) -> None:
    """The work is done all the same, with as many rejections as workers it took."""
    fates = (
        fate for _ in range(50) for fate in (LaunchError("sbatch: error: QOSMaxSubmitJobPerUserLimit"), None)
    )
    launcher = Unreliable(fates)
    controller = controllers(max_workers=1, max_tasks_per_worker=1, launcher=launcher)
    futures = [controller.submit(pid) for _ in range(4)]
    assert 4 == len({future.result(PATIENCE) for future in futures})
    assert (4, 4) == (launcher.refused, launcher.launched)


def test_an_open_breaker_closes_again(controllers: Controllers, wait_until: Callable[..., None]) -> None:
    """Calls that waited while launches failed raise the launcher's words; the launcher is tried again after a
    pause, by one worker, and once that comes up the calls are done and can be collected."""
    dying = (sys.executable, "-c", "import sys; sys.exit('module load python: not found')")
    launcher = Unreliable(iter([dying, dying, *[None] * 9]))
    controller = controllers(max_workers=2, launcher=launcher)
    controller.descale()
    first = [controller.push(f"call-{i}", abs, -i) for i in range(4)]
    controller.autoscale()
    for future in first:
        with pytest.raises(LaunchError, match="module load python: not found"):
            future.result(PATIENCE)
    assert 7 == controller.submit(abs, -7).result(PATIENCE)
    assert controller.wait(timeout=PATIENCE)
    assert {f"call-{i}": i for i in range(4)} == {
        result.name: result.value for result in controller.collect() if result.name.startswith("call-")
    }
    wait_until(lambda: controller._launches.breaker.error is None)


def test_one_batch_for_all_calls(controllers: Controllers) -> None:
    """As many workers as are wanted are launched by one call of the launcher."""
    scheduler = Scheduler()
    controller = controllers(max_workers=3, launcher=scheduler)
    controller.descale()
    controller.walk(abs, range(9))
    assert controller.scale()
    assert not controller.scale()
    assert [3] == scheduler.batches


def test_jobs_that_never_start_are_taken_back_in_the_end(
    controllers: Controllers, wait_until: Callable[..., None]
) -> None:
    """One job gets in and does all the work; the other is cancelled, and nothing of either is left."""
    scheduler = Scheduler()
    controller = controllers(max_workers=2, launcher=scheduler)
    futures = controller.walk(abs, range(6))
    wait_until(lambda: len(scheduler.waiting) == 2)
    (started,) = scheduler.let_in()
    assert list(range(6)) == [future.result(PATIENCE) for future in futures]
    (left,) = scheduler.waiting
    controller.shutdown()
    assert [left] == scheduler.cancelled
    assert started != left


def test_two_controllers_never_launch_for_the_same_calls(controllers: Controllers) -> None:
    """However often they look at the same moment, each counts what the other launches."""
    scheduler = Scheduler()
    two = [controllers(max_workers=50, launcher=scheduler) for _ in range(2)]
    for controller in two:
        controller.descale()
    barrier = threading.Barrier(2)

    def look(controller: Controller) -> bool:
        barrier.wait(PATIENCE)
        return controller.scale()

    with cf.ThreadPoolExecutor(2) as pool:
        for turn in range(10):
            two[turn % 2].walk(abs, range(3))
            list(pool.map(look, two))
            while any(controller.scale() for controller in two):
                continue
            assert 3 * (turn + 1) == sum(scheduler.batches)


def test_who_has_the_turn_and_is_gone_is_not_waited_for_long(controllers: Controllers) -> None:
    """While one controller is about to launch, the others do nothing; where it is killed then, they go on."""
    scheduler = Scheduler()
    controller = controllers(max_workers=2, launcher=scheduler)
    controller.descale()
    store = controller._rush._store
    assert store.lead("of another", 600.0)
    controller.submit(pid)
    assert not controller.scale()
    assert [] == scheduler.batches
    # It was killed, and had asked for a moment only.
    assert store.lead("of another", 1e-6)
    assert controller.scale()
    assert [1] == scheduler.batches


def test_a_decision_that_comes_late_launches_nothing(
    controllers: Controllers, server: redis.Redis, network: str
) -> None:
    """A process that was frozen between its look and its launch finds that another had the turn meanwhile."""
    scheduler = Scheduler()
    slow, quick = (controllers(max_workers=2, launcher=scheduler) for _ in range(2))
    for controller in (slow, quick):
        controller.descale()
    slow.submit(pid)
    spec = slow._launches._make_spec

    def freeze() -> str:
        server.hdel(f"rl:{{{network}}}:control", "lead")
        assert quick.scale()
        return spec()

    slow._launches._make_spec = freeze
    assert not slow.scale()
    assert [1] == scheduler.batches


def test_the_least_number_is_held_whoever_else_looks(
    controllers: Controllers, wait_until: Callable[..., None]
) -> None:
    """A controller that wants no idle worker leaves those of another alone, which holds some; once that is
    gone, they are let go."""
    holder = controllers(min_workers=1, max_workers=2, idle_timeout=0.05)
    visitor = controllers(max_workers=2, idle_timeout=0.05)
    for controller in (holder, visitor):
        controller.descale()
    holder.scale()
    wait_until(lambda: members(holder))
    (held,) = members(holder)

    def has_idled() -> bool:
        visitor.scale()
        idle = visitor._launches._known.idle.get(held)
        return idle is not None and time.monotonic() - idle[0] > 0.2

    wait_until(has_idled)
    visitor.scale()
    assert "r" == visitor._rush._store.crew().members[held].letter
    # As if its process had been killed.
    hold_to_be_gone(visitor._rush._store, holder._presence.token)
    wait_until(lambda: visitor.scale() or not members(visitor))


def test_a_worker_that_is_kept_leaves_only_where_no_controller_is(network: str) -> None:
    """With ``min_workers`` a worker that has idled for long asks whether a controller is there, and stays."""
    asked, store = [], Store(StoreConfig(), network)
    with RushWorker(network) as worker:
        ask = worker._store.has_controllers

        def count() -> bool:
            asked.append(ask())
            if len(asked) == 3:
                hold_to_be_gone(store, "c1")
            return asked[-1]

        store.collect(Collecting("c1", "host:1:1"), 1, [])
        worker._store.has_controllers = count
        CallLoop(Limits(idle_timeout=0.02, kept=True), Reset())(worker)
    assert [True, True, True, False] == asked
    store.close()


def test_a_worker_leaves_when_its_life_is_over_also_while_it_waits(network: str) -> None:
    """``max_lifetime`` ends a worker that has nothing to do; else the end of its job's time would meet it
    with a call."""
    with RushWorker(network) as worker:
        CallLoop(Limits(max_lifetime=0.05), Reset())(worker)


def test_the_last_of_several_that_leave_at_once_ends_the_workers(
    controllers: Controllers, network: str
) -> None:
    """Also where each still sees the other when it begins to leave."""
    two = [controllers(max_workers=1) for _ in range(2)]
    assert [1, 1] == [controller.submit(abs, -1).result(PATIENCE) for controller in two]
    barrier = threading.Barrier(2)

    def leave(controller: Controller) -> None:
        barrier.wait(PATIENCE)
        controller.shutdown()

    with cf.ThreadPoolExecutor(2) as pool:
        list(pool.map(leave, two))
    with Rush(network) as rush:
        assert [] == rush.running_worker_ids


SCALING = """
import sys, time
from rushlight import Controller

if __name__ == "__main__":
    controller = Controller(sys.argv[1], max_workers=2)
    print("ready", flush=True)
    sys.stdin.readline()
    futures = controller.walk(time.sleep, [0.02] * 40)
    for future in futures:
        future.result()
    print("done", flush=True)
    sys.stdin.readline()
"""


def test_a_killed_controller_hands_over_its_workers(
    network: str, wait_until: Callable[..., None], server: redis.Redis
) -> None:
    """Two processes submit to one network at the same moment: they have no more workers together than each
    may have. One is killed amid its calls: the other's are done all the same, by the workers there are."""
    two = [run_python(SCALING, network) for _ in range(2)]
    killed, other = two
    for process in two:
        assert "ready\n" == process.stdout.readline()
    for process in two:
        process.stdin.write("\n")
        process.stdin.flush()
    with Rush(network) as rush:
        wait_until(lambda: rush.n_finished_tasks > 5)
        killed.kill()
        assert "done\n" == other.stdout.readline()
        wait_until(lambda: rush.n_finished_tasks == 80)
        assert 2 == rush.worker_info.height
        other.communicate("\n", timeout=PATIENCE)
        killed.communicate(timeout=PATIENCE)
        # The workers of the one that is gone as well.
        assert [] == rush.running_worker_ids


def test_a_launch_that_is_not_wanted_any_more_is_cancelled(
    controllers: Controllers, wait_until: Callable[..., None]
) -> None:
    """Jobs in a queue go first where there are too many, once demand has been low for a while."""
    scheduler = Scheduler()
    controller = controllers(max_workers=2, launcher=scheduler, idle_timeout=0.5)
    controller.descale()
    controller.walk(abs, range(2))
    assert controller.scale()
    controller.cancel(all=True)
    controller.autoscale()
    wait_until(lambda: not scheduler.waiting)
    assert [2] == scheduler.batches
    assert 0 == controller._launches.breaker.failures


def test_a_late_worker_is_used_and_counted(controllers: Controllers, wait_until: Callable[..., None]) -> None:
    """A worker that comes after it was given up does the work, and afterwards no worker too many is
    launched."""
    scheduler = Scheduler(stubborn=True)
    controller = controllers(max_workers=1, launcher=scheduler, launch_timeout=0.1)
    controller.descale()
    future = controller.submit(pid)
    assert controller.scale()
    # Its process runs by now, and has said nothing; the wall of time is short.
    (late,) = scheduler.let_in()
    controller._launches._known.launches.clear()
    wait_until(lambda: members(controller) == [late])
    first = future.result(PATIENCE)
    assert first == controller.submit(pid).result(PATIENCE)
    for _ in range(3):
        assert not controller.scale()
    assert [1] == scheduler.batches


def test_foreign_workers_count_and_are_never_let_go(
    controllers: Controllers, network: str, wait_until: Callable[..., None]
) -> None:
    """Workers that somebody else started make up supply, and only ours are asked to leave."""
    scheduler = Scheduler()
    controller = controllers(max_workers=4, launcher=scheduler, idle_timeout=0.1)
    controller.descale()
    with RushWorker(network) as one, RushWorker(network) as two:
        controller.walk(abs, range(2))
        assert not controller.scale()
        controller.submit(abs, -1)
        assert controller.scale()
        assert [1] == scheduler.batches
        controller.cancel(all=True)
        # Long enough for a job that waits to be taken back, and for workers of ours to be asked to leave.
        wait_until(lambda: controller.scale() or scheduler.cancelled)
        assert not controller.scale()
        assert (False, False) == (one.terminated, two.terminated)
        assert 1 == len(scheduler.cancelled)


def test_descale_autoscale_and_terminate(
    controllers: Controllers,
    network: str,
    processes: Callable[[str], list[Any]],
    wait_until: Callable[..., None],
) -> None:
    """Nothing is launched while scaling rests; after ``terminate`` nothing comes back, whoever asks."""
    controller = controllers(max_workers=2)
    controller.descale()
    future = controller.submit(pid)
    assert [] == members(controller)
    controller.autoscale()
    assert future.result(PATIENCE) > 0
    controller.submit(time.sleep, 600)
    controller.terminate()
    for verb in (controller.scale, controller.autoscale, controller.launch, lambda: controller.submit(pid)):
        with pytest.raises(RuntimeError, match="after shutdown"):
            verb()
    controller._launches.nudge()
    assert not [one for one in threading.enumerate() if one.name == "rushlight-scaler"]
    wait_until(lambda: not processes(network))


def test_an_idle_worker_that_is_killed_is_replaced(
    controllers: Controllers, wait_until: Callable[..., None]
) -> None:
    """The least number of workers is held: by a new one, where one is killed; that is no failed launch."""
    controller = controllers(min_workers=1, max_workers=2)
    first = controller.submit(pid).result(PATIENCE)
    (killed,) = members(controller)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(members(controller)) == 1 and members(controller) != [killed])
    assert first != controller.submit(pid).result(PATIENCE)
    assert 0 == controller._launches.breaker.failures


def test_nobody_is_killed_by_the_garbage_collector(
    controllers: Controllers, wait_until: Callable[..., None]
) -> None:
    """What this process forgets of a launch is no end of the worker."""
    controller = controllers(max_workers=1)
    first = controller.submit(pid).result(PATIENCE)
    launches = controller._launches
    wait_until(lambda: not launches._known.launches)
    gc.collect()
    assert psutil.pid_exists(first)
    assert first == controller.submit(pid).result(PATIENCE)


@pytest.mark.parametrize(
    ("limit", "calls"),
    [
        ({"max_tasks_per_worker": 2}, 3),
        ({"max_lifetime": 0.05}, 2),
    ],
)
def test_workers_that_have_served_are_replaced(
    controllers: Controllers, limit: dict[str, Any], calls: int
) -> None:
    """A worker leaves between two calls once it has reached a limit, and another does what is left; none of
    that is a failure."""
    controller = controllers(max_workers=1, **limit)
    pids = [future.result(PATIENCE) for future in [controller.submit(pid, 0.1) for _ in range(calls)]]
    assert 2 == len(set(pids))
    assert 0 == controller._launches.breaker.failures


def test_a_worker_that_idles_leaves_and_comes_when_wanted(
    controllers: Controllers, wait_until: Callable[..., None]
) -> None:
    """Exits by idleness are no crashes: nothing is launched until there is work, and then it is."""
    controller = controllers(max_workers=1, idle_timeout=0.2)
    first = controller.submit(pid).result(PATIENCE)
    wait_until(lambda: members(controller) == [])
    assert not controller.scale()
    assert first != controller.submit(pid).result(PATIENCE)
    assert 0 == controller._launches.breaker.failures


def test_the_next_controller_goes_on_with_launches(controllers: Controllers) -> None:
    """Jobs that a controller left in a scheduler's queue are those of the next one: not launched again, used
    when they come, and taken back where they do not."""
    scheduler = Scheduler()
    gone = controllers(max_workers=2, launcher=scheduler)
    gone.descale()
    gone.walk(abs, range(2))
    assert gone.scale()
    heir = controllers(max_workers=2, launcher=scheduler)
    heir.descale()
    assert not heir.scale()
    (started,) = scheduler.let_in()
    assert 5 == heir.submit(abs, -5).result(PATIENCE)
    assert [started] == members(heir)
    heir.terminate()
    assert [2] == scheduler.batches
    assert 1 == len([job for job in scheduler.cancelled if job != started])


def test_jumps_of_the_clock_change_nothing(controllers: Controllers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days back and forth on the wall: nobody has idled, nothing has timed out."""
    controller = controllers(min_workers=1, max_workers=2, idle_timeout=60, launch_timeout=60)
    first = controller.submit(pid).result(PATIENCE)
    before = members(controller)
    real = time.time
    for days in (1, -1):
        monkeypatch.setattr(time, "time", lambda days=days: real() + 86400 * days)
        assert not controller.scale()
    assert before == members(controller)
    assert first == controller.submit(pid).result(PATIENCE)
