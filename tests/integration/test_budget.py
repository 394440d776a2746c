"""Budgets: so many units of work in the whole network, exactly, whoever takes them and whoever is killed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ground import Tape, lose_reply
from rushlight import Rush, RushWorker
from rushlight._wire import command
from rushlight.errors import ConfigError

Wait = Callable[..., None]


def study(worker, n, deaths=None, seconds=0.0):
    """Run tasks as long as there is budget; die at the given places of the loop, once at each."""
    budget = worker.budget(n)

    def come_to(place):
        for i in range(3):
            path = os.path.join(deaths, f"{place}-{i}") if deaths else os.devnull
            if deaths and random.random() < 0.3 and not os.path.exists(path):
                os.close(os.open(path, os.O_CREAT))
                os.kill(os.getpid(), signal.SIGKILL)

    while budget.take():
        come_to("taken")
        key = worker.push_running_task({"pid": os.getpid()})
        come_to("created")
        threading.Event().wait(seconds)
        worker.finish_task(key, {"y": 1})
        come_to("finished")


def take_and_stay(worker, created=False):
    """Take a unit, and do nothing with it until killed."""
    budget = worker.budget(1)
    assert budget.take()
    worker.leaderboard("taken").add(worker.worker_id, 1)
    if created:
        worker.push_running_task({"x": 1})
    threading.Event().wait(60)


def take_and_leave(worker):
    """Take a unit and leave in good order."""
    assert worker.budget(1).take()


def take_all(worker, out, timeout=None):
    """Take what there is, and write down what came."""
    budget = worker.budget(1)
    taken = budget.take(timeout)
    Path(out).write_text(f"{taken} {budget.taken}", encoding="utf-8")


def other(network: str) -> RushWorker:
    """Another worker in this process."""
    return RushWorker(network)


# --- counting -------------------------------------------------------------------------------------


def test_there_are_as_many_units_as_it_says(worker: RushWorker) -> None:
    """True n times, False from then on; what is out and what is left can be read."""
    budget = worker.budget(3)
    assert (3, 0, 3) == (budget.n, budget.taken, budget.left)
    assert budget.take()
    assert (1, 2) == (budget.taken, budget.left)
    assert [True, True, False, False] == [budget.take() for _ in range(4)]
    assert (3, 0) == (budget.taken, budget.left)


def test_all_workers_share_it(worker: RushWorker, network: str) -> None:
    """Two workers that take in turns get n units together; in one process none waits for the other."""
    with other(network) as second:
        one, two = worker.budget(5), second.budget(5)
        assert [True] * 5 + [False] * 3 == [budget.take() for budget in [one, two] * 4]


def test_many_threads_get_exactly_n(network: str, rush: Rush) -> None:
    """Workers that take at the same time get n units together, no more and no less."""
    counts = [0] * 6

    def take(i: int) -> None:
        with RushWorker(network) as worker:
            budget = worker.budget(100)
            while budget.take():
                counts[i] += 1

    threads = [threading.Thread(target=take, args=(i,)) for i in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 100 == sum(counts)


def test_names_are_budgets_of_their_own(worker: RushWorker) -> None:
    """One loop can have several; without a name all loops of the network share one."""
    assert worker.budget(1).take()
    assert worker.budget(1, "other").take()
    assert not worker.budget(1, "other").take()
    assert not worker.budget(1).take()


def test_a_larger_number_carries_on(worker: RushWorker) -> None:
    """The study was stopped at 2 and is to go to 3 after all; a smaller number stops at once."""
    assert [True, True, False] == [worker.budget(2).take() for _ in range(3)]
    assert not worker.budget(1).take()
    assert [True, False] == [worker.budget(3).take() for _ in range(2)]
    assert 0 == worker.budget(1).left


def test_no_budget_is_nothing(worker: RushWorker) -> None:
    """Of none there is none."""
    assert not worker.budget(0).take()


def test_a_unit_costs_one_round_trip(worker: RushWorker) -> None:
    """Making the object costs none."""
    budget = worker.budget(10)
    trips = worker._store.link.trips
    budget.take()
    budget.take()
    assert 2 == worker._store.link.trips - trips


def test_a_lost_reply_takes_no_second_unit(worker: RushWorker) -> None:
    """The call is sent again under its number, and the server knows it."""
    budget = worker.budget(3)
    lose_reply(worker._member)
    assert budget.take()
    assert 1 == budget.taken
    lose_reply(worker._member)
    assert budget.take()
    assert (2, 1) == (budget.taken, budget.left)


def test_a_late_duplicate_changes_nothing(worker: RushWorker) -> None:
    """A call that arrives again after others have followed is told what it was told, or nothing of worth."""
    tape = Tape(worker._member)
    budget = worker.budget(3)
    assert budget.take()
    assert budget.take()
    assert budget.give_back()
    tape.play(0)
    tape.play(1)
    tape.play(2)
    assert (1, 0) == (budget.standing().spent, budget.standing().held)
    assert budget.take()
    tape.play(2)
    assert (1, 1) == (budget.standing().spent, budget.standing().held)
    assert [True, False] == [budget.take(), budget.take()]
    tape.play(-1)
    assert (3, 0) == (budget.standing().spent, budget.standing().held)


def test_a_reset_brings_all_units_back(rush: Rush, worker: RushWorker) -> None:
    """Budgets are part of the tasks."""
    budget = worker.budget(1)
    assert [True, False] == [budget.take(), budget.take()]
    rush.reset(workers=False)
    assert (0, 1) == (budget.taken, budget.left)
    assert [True, False] == [budget.take(), budget.take()]


@pytest.mark.parametrize("n", [-1, 1.5, True, None, "3"])
def test_what_is_no_number_of_units_is_refused(worker: RushWorker, n: Any) -> None:
    """A whole number, at least 0."""
    with pytest.raises(ConfigError, match="n="):
        worker.budget(n)


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "x" * 300, None, 3])
def test_what_is_no_name_is_refused(worker: RushWorker, name: Any) -> None:
    """A name is short, printable text."""
    with pytest.raises(ConfigError, match="name"):
        worker.budget(1, name)


# --- units that come back -------------------------------------------------------------------------


def test_a_unit_can_be_given_back(worker: RushWorker, network: str) -> None:
    """Who has no use for it leaves it to others: once, and not when the work has been done."""
    with other(network) as second:
        one, two = worker.budget(1), second.budget(1)
        assert not one.give_back()
        assert one.take()
        assert not two.take()
        assert one.give_back()
        assert not one.give_back()
        assert two.take()
        second.finish_task(second.push_running_task({"x": 1}), {"y": 1})
        assert not two.give_back()
        assert (1, 0) == (two.standing().spent, two.standing().held)


def test_a_finished_task_spends_the_unit(worker: RushWorker, rush: Rush, network: str) -> None:
    """A worker that is killed after its task was finished leaves no unit behind."""
    with other(network) as second:
        one, two = worker.budget(2), second.budget(2)
        assert one.take()
        worker.finish_task(worker.push_running_task({"x": 1}), {"y": 1})
        assert (1, 0) == (one.standing().spent, one.standing().held)
        rush.stop_workers("kill", [worker.worker_id])
        assert not one.take()
        assert [True, False] == [two.take(), two.take()]


@pytest.mark.parametrize("created", [False, True])
def test_a_killed_worker_s_unit_comes_back(
    worker: RushWorker, rush: Rush, network: str, created: bool
) -> None:
    """Before it created its task, and in the middle of it; the one who takes the unit is another worker."""
    with other(network) as second:
        one, two = worker.budget(1), second.budget(1)
        assert one.take()
        key = worker.push_running_task({"x": 1}) if created else None
        assert not two.take()
        rush.stop_workers("kill", [worker.worker_id])
        assert 0 == two.taken
        assert two.take()
        assert not one.take()
        assert not one.give_back()
        assert key is None or not worker.finish_task(key, {"y": 1})
        second.finish_task(second.push_running_task({"x": 1}), {"y": 2})
        assert (1, 0) == (two.standing().spent, two.standing().held)


def test_a_silent_worker_s_unit_comes_back(
    rush: Rush, worker: RushWorker, network: str, wait_until: Wait
) -> None:
    """A worker whose lease has run out is lost, and with it its claim; when it comes back it has none."""
    with RushWorker(network, heartbeat=False, lease=0.2) as silent:
        assert silent.budget(1).take()
        wait_until(lambda: rush.detect_lost_workers() or rush.lost_worker_ids)
        assert worker.budget(1).take()
        assert not silent.budget(1).take()
        worker.finish_task(worker.push_running_task({"x": 1}), {"y": 1})
        assert not silent.budget(1).take()
        assert not worker.budget(1).take()


def test_who_leaves_in_good_order_has_used_its_unit(rush: Rush, network: str) -> None:
    """A loop that took a unit and returned is not repeated by another."""
    with other(network) as second:
        with RushWorker(network) as worker:
            assert worker.budget(1).take()
        assert not second.budget(1).take()


def test_who_is_to_leave_gets_no_unit(rush: Rush, worker: RushWorker, network: str) -> None:
    """Asked to terminate, a worker's loop ends by itself; its units are there for others."""
    with other(network) as second:
        budget = worker.budget(3)
        assert budget.take()
        rush.stop_workers("terminate", [worker.worker_id])
        assert not budget.take()
        assert [True, True, False] == [second.budget(3).take() for _ in range(3)]


def test_a_restarted_worker_takes_the_unit_of_its_last_life(rush: Rush, network: str) -> None:
    """The id is the same, the life is not: what the last one held is back."""
    first = RushWorker(network, worker_id="rank-0")
    assert first.budget(1).take()
    rush.stop_workers("kill", ["rank-0"])
    with RushWorker(network, worker_id="rank-0") as again:
        assert [True, False] == [again.budget(1).take(), again.budget(1).take()]
    first.close()


# --- waiting --------------------------------------------------------------------------------------


def test_a_wait_ends_with_the_unit_of_one_that_was_killed(
    rush: Rush, tmp_path: Path, wait_until: Wait
) -> None:
    """The last unit is held in another process: who asks waits, gets it when that process dies, at once."""
    (holder,) = rush.start_workers(take_and_stay, 1, kwargs={"created": True})
    wait_until(lambda: rush.leaderboard("taken").len())
    rush.start_workers(take_all, 1, kwargs={"out": str(tmp_path / "out")})
    wait_until(lambda: rush.n_running_workers == 2)
    assert not (tmp_path / "out").exists()
    pid = next(info.pid for info in rush.fetch_workers(as_="tasks") if info.worker_id == holder)
    os.kill(pid, signal.SIGKILL)
    wait_until((tmp_path / "out").exists, 4)
    wait_until(lambda: (tmp_path / "out").read_text() == "True 1")


def test_a_wait_ends_when_the_last_unit_is_spent(
    worker: RushWorker, rush: Rush, tmp_path: Path, wait_until: Wait
) -> None:
    """Once nothing can come back any more the answer is no: when the task that holds the unit is finished."""
    assert worker.budget(1).take()
    key = worker.push_running_task({"x": 1})
    rush.start_workers(take_all, 1, kwargs={"out": str(tmp_path / "out")})
    wait_until(lambda: rush.n_running_workers == 2)
    assert not (tmp_path / "out").exists()
    worker.finish_task(key, {"y": 1})
    wait_until((tmp_path / "out").exists, 4)
    wait_until(lambda: (tmp_path / "out").read_text() == "False 1")


def test_a_wait_ends_when_the_last_unit_is_used_up_without_a_task(
    worker: RushWorker, rush: Rush, tmp_path: Path, wait_until: Wait
) -> None:
    """Its holder asks for the next, and there is none: that spends the last one, and the waiter hears it."""
    budget = worker.budget(1)
    assert budget.take()
    rush.start_workers(take_all, 1, kwargs={"out": str(tmp_path / "out")})
    waits = f"rl:{{{rush.network}}}:control"
    wait_until(
        lambda: rush.n_running_workers == 2 and rush._store.link.call(command("HEXISTS", waits, "watch"))
    )
    assert not (tmp_path / "out").exists()
    assert not budget.take()
    wait_until((tmp_path / "out").exists, 2)


@pytest.mark.parametrize("timeout", [0.0, 0.2])
def test_a_wait_has_a_limit(
    worker: RushWorker, rush: Rush, tmp_path: Path, wait_until: Wait, timeout: float
) -> None:
    """``take(timeout)`` is False when no unit came back in time; 0 does not wait at all."""
    assert worker.budget(1).take()
    rush.start_workers(take_all, 1, kwargs={"out": str(tmp_path / "out"), "timeout": timeout})
    wait_until(lambda: (tmp_path / "out").exists() and (tmp_path / "out").read_text() == "False 1")


def test_a_wait_ends_when_the_worker_is_to_leave(
    worker: RushWorker, rush: Rush, tmp_path: Path, wait_until: Wait
) -> None:
    """Terminating reaches a worker that waits for a unit."""
    assert worker.budget(1).take()
    (waiting,) = rush.start_workers(take_all, 1, kwargs={"out": str(tmp_path / "out")})
    wait_until(lambda: rush.n_running_workers == 2)
    rush.stop_workers("terminate", [waiting])
    wait_until(lambda: waiting in rush.terminated_worker_ids, 4)
    assert "False 1" == (tmp_path / "out").read_text()


@pytest.mark.parametrize("timeout", [-1, "1", True])
def test_what_is_no_time_is_refused(worker: RushWorker, timeout: Any) -> None:
    """Seconds, or None."""
    with pytest.raises(ConfigError, match="timeout"):
        worker.budget(1).take(timeout)


# --- exactly n tasks ------------------------------------------------------------------------------


def test_a_loop_runs_exactly_n_tasks(rush: Rush, wait_until: Wait) -> None:
    """``while budget.take()`` on three processes: n tasks in all, then everybody leaves."""
    rush.start_workers(study, 3, kwargs={"n": 200})
    wait_until(lambda: len(rush.terminated_worker_ids) == 3)
    assert 200 == rush.n_finished_tasks == rush.n_tasks


@pytest.mark.slow
def test_exactly_n_with_deaths_at_every_place_of_the_loop(
    rush: Rush, tmp_path: Path, wait_until: Wait
) -> None:
    """Workers die right after taking a unit, after creating a task, after finishing it, and come back: n
    tasks are finished, and those cut short are failed."""
    rush.start_workers(study, 3, kwargs={"n": 150, "deaths": str(tmp_path)}, max_restarts=30)
    wait_until(lambda: len(rush.terminated_worker_ids) == 3, 60)
    names = {path.name.partition("-")[0] for path in tmp_path.iterdir()}
    assert {"taken", "created", "finished"} == names
    counts = rush.counts()
    assert (150, 0, 0) == (counts.finished, counts.running, counts.queued)
    assert 1 <= counts.failed <= 9


@pytest.mark.slow
def test_exactly_n_with_kills_from_outside(rush: Rush, wait_until: Wait) -> None:
    """SIGKILL and SIGSTOP at any moment, new workers in their place: n tasks are finished, the last ones once
    those that stood still go on."""
    n, chosen = 120, random.Random(4)
    options: dict[str, Any] = {"kwargs": {"n": n, "seconds": 0.01}, "lease": 1.0}
    rush.start_workers(study, 3, **options)
    rush.wait_for_workers(3)
    stopped = []
    for i in range(8):
        goal = (i + 1) * n // 10
        wait_until(lambda goal=goal: rush.n_finished_tasks >= goal)
        alive = [info.pid for info in rush.fetch_workers(as_="tasks") if info.state == "running"]
        victim = chosen.choice([pid for pid in alive if pid not in stopped])
        number = signal.SIGSTOP if i % 4 == 3 else signal.SIGKILL
        os.kill(victim, number)
        if number == signal.SIGSTOP:
            stopped.append(victim)
        rush.start_workers(study, 1, **options)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not rush.running_worker_ids and not rush.starting_worker_ids, 60)
    assert n == rush.n_finished_tasks
    assert 0 == rush.n_running_tasks


@pytest.mark.slow
def test_a_wait_does_not_poll(
    worker: RushWorker, rush: Rush, tmp_path: Path, wait_until: Wait, server: Any
) -> None:
    """While nothing happens a waiting worker sends next to nothing."""
    assert worker.budget(1).take()
    rush.start_workers(take_all, 1, kwargs={"out": str(tmp_path / "out")})
    wait_until(lambda: rush.n_running_workers == 2)
    before, start = server.info("stats")["total_commands_processed"], time.monotonic()
    threading.Event().wait(3.0)
    sent = server.info("stats")["total_commands_processed"] - before
    assert sent / (time.monotonic() - start) < 25
