"""Waiting for tasks: until they are done, the time is over, or nobody is left to do them."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from harness import Background
from rushlight import Rush, RushWorker, WaitResult, _changes
from rushlight.errors import ConfigError, UnknownKey


def die_with_a_task(worker):
    """Take a task and be killed in it."""
    worker.pop_task(timeout=30)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_wait_ends_when_all_are_decided(rush: Rush, worker: RushWorker) -> None:
    """Finished and failed both count; the lists keep the order given, and repeated keys."""
    keys = worker.push_running_tasks([{"x": i} for i in range(4)])
    asked = [keys[3], keys[0], keys[2], keys[1]]
    found: list[WaitResult] = []
    waiting = threading.Thread(target=lambda: found.append(rush.wait_for_tasks(asked, timeout=60)))
    waiting.start()
    worker.finish_tasks(keys[:2], [{"y": 1}] * 2)
    worker.fail_tasks(keys[2:])
    waiting.join(30)
    (result,) = found
    assert ([keys[0], keys[1]], [keys[3], keys[2]], []) == (result.done, result.failed, result.pending)
    assert "done" == result.reason
    assert result


def test_a_wait_for_what_is_decided_returns_at_once(rush: Rush) -> None:
    """Also with no time, and for no tasks."""
    keys = rush.push_finished_tasks([{"x": 1}], [{"y": 1}])
    assert WaitResult(keys, [], [], "done") == rush.wait_for_tasks(keys, timeout=0)
    assert WaitResult([], [], [], "done") == rush.wait_for_tasks([])
    done, failed, pending, reason = rush.wait_for_tasks(keys)
    assert (keys, [], [], "done") == (done, failed, pending, reason)


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_a_wait_ends_with_its_time(rush: Rush, worker: RushWorker, timeout: float) -> None:
    """What is done by then is told, the rest is pending."""
    keys = worker.push_running_tasks([{"x": 1}, {"x": 2}])
    worker.finish_task(keys[0], {"y": 1})
    result = rush.wait_for_tasks(keys, timeout=timeout)
    assert WaitResult(keys[:1], [], keys[1:], "timeout") == result
    assert not result


def test_a_wait_before_any_worker_waits_for_them(rush: Rush, network: str) -> None:
    """Nobody is there yet: that is no reason to give up."""
    keys = rush.push_tasks([{"x": 1}])
    assert "timeout" == rush.wait_for_tasks(keys, timeout=0.2).reason
    found: list[WaitResult] = []
    waiting = threading.Thread(target=lambda: found.append(rush.wait_for_tasks(keys, timeout=60)))
    waiting.start()
    with RushWorker(network) as worker:
        worker.finish_task(worker.pop_task(timeout=30).key, {"y": 1})
        waiting.join(30)
    assert keys == found[0].done


def test_a_wait_ends_when_nobody_is_left(rush: Rush) -> None:
    """The only workers crash: their tasks failed, the rest will never be done, and the wait says so."""
    keys = rush.push_tasks([{"x": i} for i in range(3)])
    rush.start_workers(die_with_a_task, 2)
    result = rush.wait_for_tasks(keys)
    assert "no_workers" == result.reason
    assert (keys[2:], set(keys[:2])) == (result.pending, set(result.failed))


def test_a_wait_does_not_end_while_one_worker_lives(rush: Rush, worker: RushWorker) -> None:
    """One of two dies: the other may still do it all."""
    keys = rush.push_tasks([{"x": 1}, {"x": 2}])
    rush.start_workers(die_with_a_task)
    assert keys[:1] == rush.wait_for_tasks(keys[:1], timeout=60).failed
    worker.finish_task(worker.pop_task().key, {"y": 1})
    assert keys[1:] == rush.wait_for_tasks(keys, timeout=60).done


def test_emptying_the_queue_ends_a_wait(rush: Rush, worker: RushWorker) -> None:
    """Whoever decides the tasks: the waiter hears of it."""
    keys = rush.push_tasks([{"x": 1}, {"x": 2}])
    found: list[WaitResult] = []
    waiting = threading.Thread(target=lambda: found.append(rush.wait_for_tasks(keys, timeout=60)))
    waiting.start()
    assert keys == rush.empty_queue()
    waiting.join(30)
    assert keys == found[0].failed


def test_many_wait_at_once(rush: Rush, network: str, worker: RushWorker) -> None:
    """Waiters on one object and on others all wake."""
    keys = worker.push_running_tasks([{"x": i} for i in range(6)])
    found: list[WaitResult] = []
    with Rush(network) as other:
        waiters = [
            threading.Thread(target=lambda of=of, key=key: found.append(of.wait_for_tasks([key], timeout=60)))
            for of in (rush, other)
            for key in keys
        ]
        for waiter in waiters:
            waiter.start()
        worker.finish_tasks(keys, [{"y": 1}] * 6)
        for waiter in waiters:
            waiter.join(30)
    assert ["done"] * 12 == [result.reason for result in found]


def test_a_worker_can_wait_too(rush: Rush, worker: RushWorker) -> None:
    """Waiting is reading, and workers read like managers."""
    keys = rush.push_finished_tasks([{"x": 1}], [{"y": 1}])
    assert "done" == worker.wait_for_tasks(keys, timeout=5).reason


@pytest.mark.parametrize("first", ["nothing", "a failure", "a retry"])
def test_a_wait_sees_failures_before_and_after_it_began(rush: Rush, worker: RushWorker, first: str) -> None:
    """Whether any task of the network had failed by then, and whatever became of it since."""
    keys = rush.push_tasks([{"x": i} for i in range(4)], max_retries=1)
    assert 4 == len(worker.pop_tasks(4))
    if first != "nothing":
        (other,) = rush.push_failed_tasks([{"x": 9}])
        keys = [*keys, other]
        if first == "a retry":
            rush.retry_tasks([other], ignore_max_retries=True)
            assert worker.pop_task() is not None
    worker.finish_task(keys[0], {"y": 1})
    waiting = Background(rush.wait_for_tasks, keys, 60)
    rush.cancel_tasks(keys[1:3])
    worker.finish_tasks(
        keys[3:] if first == "a retry" else keys[3:4], [{"y": 1}] * (2 if first == "a retry" else 1)
    )
    result = waiting.result(60)
    failed = [*keys[1:3], *(keys[4:] if first == "a failure" else [])]
    assert (failed, [key for key in keys if key not in failed], []) == (
        result.failed,
        result.done,
        result.pending,
    )


def test_a_wait_for_many_looks_seldom(
    rush: Rush, worker: RushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each of a thousand events: the longer the rest will take, the more come between two looks."""
    keys = worker.push_running_tasks([{"x": 1}] * 1000)
    looks: list[float] = []
    watch = rush._store.watch
    monkeypatch.setattr(rush._store, "watch", lambda seconds: looks.append(seconds) or watch(seconds))
    waiting = Background(rush.wait_for_tasks, keys, 60)
    for key in keys:
        worker.finish_task(key, {"y": 1})
    assert keys == waiting.result(60).done
    assert len(looks) <= 300


def test_a_wait_for_unknown_tasks_is_an_error(rush: Rush) -> None:
    """At once, with the key."""
    keys = rush.push_finished_tasks([{"x": 1}], [{"y": 1}])
    with pytest.raises(UnknownKey, match="nobody") as caught:
        rush.wait_for_tasks([*keys, "nobody"], timeout=60)
    assert ["nobody"] == caught.value.keys


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan"), True])
def test_a_time_that_cannot_be_is_refused(rush: Rush, timeout: object) -> None:
    """In every wait there is."""
    for wait in (
        lambda: rush.wait_for_tasks([], timeout=timeout),
        lambda: rush.fetch_new_tasks(timeout=timeout),
        lambda: list(rush.stream(timeout=timeout)),
        lambda: rush.wait_for_workers(0, timeout=timeout),
        lambda: list(rush.follow_log(timeout=timeout)),
    ):
        with pytest.raises(ConfigError, match="timeout"):
            wait()


# --- any change -------------------------------------------------------------------------------------


def test_any_change_ends_a_wait(rush: Rush, worker: RushWorker) -> None:
    """What happens between the look and the wait counts; each change ends one wait."""
    changes = rush.changes()
    assert not changes.wait(0)
    for change in (
        lambda: rush.push_tasks([{"x": 1}]),
        worker.pop_task,
        lambda: worker.push_running_task({"x": 2}),
        lambda: rush.empty_queue() or rush.push_failed_tasks([{"x": 3}]),
        lambda: rush.stop_workers("terminate"),
        lambda: rush.reset(workers=False),
    ):
        change()
        assert changes.wait(30)
        assert not changes.wait(0)


def test_a_wait_for_changes_is_woken(rush: Rush, network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the event, also one that comes long after the watch that was kept first."""
    monkeypatch.setattr(_changes, "_STEP", 0.05)
    changes = rush.changes()
    assert not changes.wait(0.3)
    monkeypatch.setattr(_changes, "_STEP", 600.0)
    waiting = Background(changes.wait)
    with Rush(network) as other:
        other.push_finished_tasks([{"x": 1}], [{"y": 1}])
    assert waiting.result(30)


def test_what_happened_while_nobody_watched_is_seen(
    rush: Rush, worker: RushWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that was busy for longer than its watch was kept has missed nothing."""
    # The first watch is over as it begins.
    monkeypatch.setattr(_changes, "_STEP", -2.0)
    changes = rush.changes()
    rush.push_finished_tasks([{"x": 1}], [{"y": 1}])
    assert changes.wait(0)
