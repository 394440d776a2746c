"""The line of the queued tasks: who is next, who is woken, and what becomes of those that wait.

Waiting workers look again by themselves after a while; here that is after ten minutes, so that only an event
can have woken them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from ground import Ground, Tape, blocked, lose_reply
from harness import Background, wait_until
from rushlight import Rush, RushWorker, _member, _queueing
from rushlight._member import Member
from rushlight._names import random_token
from rushlight._records import Exit, WorkerState
from rushlight._store_ends import WorkerEnd
from rushlight.errors import ConfigError, UnknownKey, WaitTimeout

Supervised = Callable[..., Member]


@pytest.fixture
def rush(ground: Ground) -> Iterator[Rush]:
    """A manager of the network."""
    with Rush(ground.network, ground.url) as manager:
        yield manager


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks again without an event."""
    for module, name in ((_member, "_BLOCK"), (_queueing, "_STEP")):
        monkeypatch.setattr(module, name, 600.0)


@pytest.fixture
def supervised(ground: Ground) -> Iterator[Supervised]:
    """``supervised(worker_id, **card)``: a worker whose supervisor reports the end of its process after the
    test."""
    members: list[Member] = []

    def join(worker_id: str | None = None, **card: Any) -> Member:
        members.append(ground.member(worker_id, supervisor="sup", **card))
        return members[-1]

    yield join
    for member in members:
        end(ground, member, "crash")


def queue(rush: Rush, n: int = 1, **options: Any) -> list[str]:
    """Queues n tasks."""
    return rush.push_tasks([{"i": i} for i in range(n)], **options)


def waiting(ground: Ground, *members: Member, n: int = 1) -> list[Background]:
    """Workers that have begun to wait for an hour."""
    before = blocked(ground)
    calls = [Background(ground.claim, member, n, 3600.0) for member in members]
    wait_until(lambda: blocked(ground) == before + len(members))
    return calls


def end(ground: Ground, member: Member, how: str) -> None:
    """Ends a worker's life."""
    wid = member.card.worker_id
    if how == "lease":
        ground.expire(member)
        assert [wid] == ground.store.reap()
    elif how == "kill":
        ground.store.stop([wid], kill=True)
    elif how == "leave":
        member.leave("left")
    else:
        crash = WorkerEnd(wid, member.card.token, WorkerState.LOST, exit=Exit(signal=9))
        ground.store.bury([crash])


ENDS = ("lease", "kill", "leave", "crash")


def let_run_out(ground: Ground) -> None:
    """All time limits of running tasks have been reached long ago."""
    for entry in ground.raw.zrange(ground.key("deadlines"), 0, -1):
        ground.raw.zadd(ground.key("deadlines"), {entry: 1})


def make_due(ground: Ground) -> None:
    """All back-offs are over."""
    for entry in ground.raw.zrange(ground.key("delayed"), 0, -1):
        ground.raw.zadd(ground.key("delayed"), {entry: 1})


def messages(rush: Rush, keys: list[str]) -> list[str]:
    """Why the tasks failed."""
    return [(rush.task(key).condition or {})["message"] for key in keys]


# --- order ------------------------------------------------------------------------------------------


def test_larger_priorities_come_first(ground: Ground, rush: Rush) -> None:
    """Also beside 0 and below it; first in first out among equals, whichever push they came with."""
    given: list[tuple[int, str]] = []
    for batch in ([0, 5, -1], [5, 0, -7, 2**53], [None, -1, 1], [-(2**53), 5, 0]):
        keys = rush.push_tasks([{"x": 1}] * len(batch), priority=batch)
        given += [(priority or 0, key) for priority, key in zip(batch, keys, strict=True)]
    expected = [key for _, key in sorted(given, key=lambda pair: -pair[0])]
    worker = ground.member()
    assert expected[:4] == ground.claim(worker, 4)
    assert expected[4:] == [ground.claim(worker)[0] for _ in expected[4:]]
    assert [] == ground.claim(worker)


def test_the_own_queue_comes_first(ground: Ground, rush: Rush) -> None:
    """Before any priority, in the order it came; others never get it."""
    ann, ben = ground.member("ann"), ground.member("ben")
    urgent = queue(rush, priority=99)
    mixed = queue(rush, 5, workers=["ann", None, "ben", "ann", "ben"], priority=[0, 1, 0, 7, 9])
    assert [mixed[0], mixed[3], *urgent, mixed[1]] == ground.claim(ann, 9)
    assert [mixed[2], mixed[4]] == ground.claim(ben, 9)
    assert 6 == rush.n_running_tasks


@pytest.mark.parametrize("name", ["a", "ab", "ab\x01", "z " * 30, "ü"])
def test_names_that_begin_alike_share_no_queue(ground: Ground, rush: Rush, name: str) -> None:
    """A private queue is one worker's, whatever it is called."""
    others = [ground.member(f"{name}{more}") for more in ("", "a", "\x02")]
    keys = queue(rush, 3, workers=[other.card.worker_id for other in reversed(others)])
    assert [[key] for key in reversed(keys)] == [ground.claim(other, 3) for other in others]


@pytest.mark.parametrize("how", ["unknown", *ENDS])
def test_tasks_for_nobody_are_for_all(ground: Ground, rush: Rush, how: str) -> None:
    """An unknown worker, or one that has ended: the shared queue takes its tasks, at their priority."""
    if how != "unknown":
        end(ground, ground.member("ann"), how)
    keys = queue(rush, 3, workers="ann", priority=[-1, 0, 1])
    assert list(reversed(keys)) == ground.claim(ground.member(), 3)
    # A worker that was killed is told so by its bell, which falls silent by itself.
    assert how == "kill" or not ground.raw.exists(f"{ground.key('bell')}:ann")


@pytest.mark.parametrize("how", ENDS)
def test_tasks_of_a_worker_that_ends_are_for_all(
    ground: Ground, rush: Rush, patience: None, how: str
) -> None:
    """However it ends: they go to the shared queue at their priority, and whoever waits is woken."""
    ann, ben = ground.member("ann"), ground.member("ben")
    keys = queue(rush, 3, workers="ann", priority=[-1, 0, 1])
    (call,) = waiting(ground, ben, n=3)
    end(ground, ann, how)
    assert list(reversed(keys)) == call.result()


def test_retried_tasks_go_to_the_back(ground: Ground, rush: Rush) -> None:
    """Of their own kind: behind those of their priority, or of their worker, that are there by then."""
    ann = ground.member("ann")
    for options in ({}, {"priority": 3}, {"priority": -3}, {"workers": "ann"}):
        first, second = queue(rush, 2, max_retries=2, **options)
        assert [first] == ground.claim(ann)
        third = queue(rush, **options)[0]
        ground.fail(ann, first)
        assert [second, third, first] == ground.claim(ann, 9)


def test_a_place_left_is_not_kept(ground: Ground, rush: Rush) -> None:
    """A task that was cancelled and retried stands where it came back, not where it was before."""
    for options in ({}, {"priority": 1}):
        keys = queue(rush, 3, **options)
        rush.cancel_tasks(keys[:1])
        assert keys[:1] == rush.retry_tasks(keys[:1])
        assert [*keys[1:], keys[0]] == ground.claim(ground.member(), 9)


def test_tasks_of_one_push_have_one_time(ground: Ground, rush: Rush) -> None:
    """They were created together, whatever their options and however they are taken later."""
    queue(rush, 4, priority=[0, 1, -1, 0], workers=[None, None, None, "ann"])
    assert 1 == len({task.created_at for task in rush.fetch_tasks(as_="tasks")})


# --- waking -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("at", range(4))
def test_the_right_worker_wakes(ground: Ground, rush: Rush, patience: None, at: int, seen: bool) -> None:
    """Of four that wait the one that is meant gets the task, whether or not such a task has been seen before;
    the others go on waiting."""
    members = [ground.member(f"w{i}") for i in range(4)]
    if seen:
        for member in members:
            assert queue(rush, workers=member.card.worker_id) == ground.claim(member)
    calls = waiting(ground, *members)
    keys = queue(rush, workers=f"w{at}")
    assert keys == calls[at].result()
    wait_until(lambda: blocked(ground) == 3)
    assert 3 == sum(not call.done for call in calls)
    rest = queue(rush, 3)
    assert sorted(rest) == sorted(key for call in calls if call is not calls[at] for key in call.result())


def test_nobody_takes_the_bell_of_another(ground: Ground, rush: Rush, patience: None) -> None:
    """A worker between two waits finds its own task, though others have waited since it came."""
    ann, ben = ground.member("ann"), ground.member("ben")
    for member in (ann, ben):
        assert [] == ground.claim(member, timeout=0.01)
    keys = queue(rush, workers="ann")
    for _ in range(5):
        assert [] == ground.claim(ben, timeout=0.01)
    assert keys == ground.claim(ann, timeout=3600.0)


def test_an_empty_queue_is_not_believed_for_ever(
    ground: Ground, rush: Rush, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a token went down with a worker that nobody knows to be dead, others look by themselves."""
    monkeypatch.setattr(_member, "_BELIEF", 0.0)
    worker = ground.member()
    assert [] == ground.claim(worker, timeout=0.01)
    keys = queue(rush, priority=1)
    ground.raw.delete(ground.key("bell"))
    assert keys == ground.claim(worker, timeout=0.01)


@pytest.mark.parametrize(
    "options", [{}, {"priority": 1}, {"priority": -1}, {"max_retries": 1}, {"timeout": 600}]
)
def test_one_push_serves_all_who_wait(
    ground: Ground, rush: Rush, patience: None, options: dict[str, Any]
) -> None:
    """Workers that have never heard of more than the plain queue included."""
    calls = waiting(ground, *(ground.member() for _ in range(3)))
    keys = queue(rush, 3, **options)
    assert sorted(keys) == sorted(key for call in calls for key in call.result())


def test_the_line_may_change_under_those_who_write_behind(ground: Ground, rush: Rush) -> None:
    """The first priority comes while results are under way: none is lost, none is twice."""
    with RushWorker(ground.network, ground.url, heartbeat=False, lease=600.0) as worker:
        keys = queue(rush, 3)
        tasks = worker.pop_tasks(3)
        with worker.write_behind():
            assert worker.finish_task(tasks[0].key, {"y": 0})
            urgent = queue(rush, priority=1, max_retries=1)
            assert worker.finish_task(tasks[1].key, {"y": 1})
            made = worker.push_running_task({"x": 1})
            assert worker.finish_task(made, {"y": 2})
            assert worker.fail_task(tasks[2].key, "no")
        assert ["finished", "finished", "failed", "finished", "queued"] == [
            str(state) for state in rush.states([*keys, made, *urgent])
        ]
        task = worker.pop_task()
        assert task is not None and urgent == [task.key]
        ground.states()


def test_a_retry_wakes(ground: Ground, rush: Rush, patience: None) -> None:
    """A task that another worker's failure, or a manager, puts back reaches who waits."""
    ann, ben = ground.member(), ground.member()
    (key,) = queue(rush, max_retries=1)
    assert [key] == ground.claim(ann)
    (call,) = waiting(ground, ben)
    ground.fail(ann, key)
    assert [key] == call.result()
    ground.fail(ben, key, attempt=2)
    (call,) = waiting(ground, ann)
    assert [] == rush.retry_tasks([key])
    assert [key] == rush.retry_tasks([key], ignore_max_retries=True)
    assert [key] == call.result()


def test_a_token_lost_with_its_connection_is_not_waited_for(
    ground: Ground, rush: Rush, patience: None
) -> None:
    """The reply that rang a worker never arrives: it looks as soon as it has another connection."""
    ben = ground.member()
    with ben.store.waiting_link() as link:
        link.connect()
        lose_reply(SimpleNamespace(link=link))
    (call,) = waiting(ground, ben)
    assert queue(rush) == call.result()


@pytest.mark.parametrize("seconds", [0.0002, 0.001])
def test_the_shortest_wait_ends(ground: Ground, seconds: float) -> None:
    """What is left of a wait may be next to nothing; to servers, nothing means for ever."""
    ben = ground.member()
    assert not ben._wait_for_bell(seconds)
    assert 0 == blocked(ground)


def test_a_back_off_ends_a_wait(ground: Ground, rush: Rush, patience: None) -> None:
    """Whoever waits when the attempt fails has the task when its pause is over, and not before."""
    ann, ben, cleo = (ground.member() for _ in range(3))
    (key,) = queue(rush, max_retries=3, backoff=0.05)
    assert [key] == ground.claim(ann)
    calls = waiting(ground, ben, cleo)
    ground.fail(ann, key)
    wait_until(lambda: any(call.done for call in calls))
    (winner, member), (loser, other) = sorted(
        zip(calls, (ben, cleo), strict=True), key=lambda pair: not pair[0].done
    )
    assert [key] == winner.result()
    row = ground.account().running[key]
    assert 2 == row[1]
    ended = ground.raw.time()
    ground.fail(member, key, attempt=2)
    ((_, due),) = ground.raw.zrange(ground.key("delayed"), 0, -1, withscores=True)
    # The second pause is twice the first.
    assert due - (ended[0] * 1_000_000 + ended[1]) >= 100_000
    assert [] == ground.claim(ann)
    make_due(ground)
    assert [key] == ground.claim(ann)
    end(ground, other, "kill")
    assert [] == loser.result()


def test_a_prerequisite_that_finishes_wakes(ground: Ground, rush: Rush, patience: None) -> None:
    """All who wait for one task are released with it, each to who it is for."""
    ann, ben, cleo = ground.member("ann"), ground.member("ben"), ground.member("cleo")
    (first,) = queue(rush)
    assert [first] == ground.claim(ann)
    calls = waiting(ground, ben, cleo)
    shared, own = queue(rush, 2, after=[first], workers=[None, "cleo"])
    wait_until(lambda: blocked(ground) == 2)
    ground.finish(ann, first)
    assert [[own], [shared]] == [calls[1].result(), calls[0].result()]


# --- draining ---------------------------------------------------------------------------------------


def test_a_drain_waits_for_tasks_that_cannot_be_taken_yet(ground: Ground, rush: Rush, patience: None) -> None:
    """Workers neither leave nor sleep on while tasks wait for others, for a time or for one worker; when the
    last is taken, all hear of it."""
    ann, ben, cleo = ground.member("ann"), ground.member("ben"), ground.member("cleo")
    first, lapsing = queue(rush, 2, max_retries=1, backoff=600)
    assert [first, lapsing] == ground.claim(ann, 2)
    second = queue(rush, after=[first], terminate_workers=True)
    ground.fail(ann, lapsing)
    assert 2 == rush.n_queued_tasks
    assert not ben.idle_stop
    calls = waiting(ground, ben, cleo)
    ground.finish(ann, first)
    wait_until(lambda: any(call.done for call in calls))
    winner, other, member = (*calls, ben) if calls[0].done else (*reversed(calls), cleo)
    assert second == winner.result()
    assert not other.done
    ground.finish(member, second[0])
    assert not member.idle_stop
    own = queue(rush, workers="ann")
    make_due(ground)
    assert [*own, lapsing] == ground.claim(ann, 5)
    assert [] == other.result()
    assert ben.idle_stop or cleo.idle_stop


@pytest.mark.parametrize("how", ["cancel", "empty", "fail"])
def test_a_drain_ends_with_the_last_task_however_it_goes(
    ground: Ground, rush: Rush, patience: None, how: str
) -> None:
    """Taken back, thrown out, or failed with what it waited for: who waits for it hears that all is over."""
    ann, ben = ground.member("ann"), ground.member("ben")
    (first,) = queue(rush)
    assert [first] == ground.claim(ann)
    last = queue(rush, after=[first], terminate_workers=True)
    (call,) = waiting(ground, ben)
    if how == "cancel":
        assert last == rush.cancel_tasks(last)
    elif how == "empty":
        assert last == rush.empty_queue()
    else:
        ground.fail(ann, first)
    assert [] == call.result()
    assert ben.idle_stop


# --- a queue with a bound ---------------------------------------------------------------------------


def test_a_push_waits_for_room(ground: Ground, rush: Rush, patience: None) -> None:
    """It goes on with each task a worker takes, and never are more queued than allowed."""
    worker = ground.member()
    pushing = Background(queue, rush, 7, max_queued=2, terminate_workers=True)
    taken: list[str] = []
    for _ in range(7):
        wait_until(lambda: blocked(ground) == 1 or pushing.done)
        assert rush.n_queued_tasks <= 2
        assert not pushing.done or len(taken) >= 5
        taken += ground.claim(worker, timeout=600.0)
    assert pushing.result() == taken
    assert ground.raw.hexists(ground.key("control"), "drain")


def test_several_pushes_share_the_room(ground: Ground, rush: Rush, patience: None) -> None:
    """Together they keep to the bound, all get on, and each in its own order."""
    pushers = [Rush(ground.network, ground.url) for _ in range(3)]
    calls = [Background(queue, pusher, 5, max_queued=3) for pusher in pushers]
    worker = ground.member()
    taken: list[str] = []
    while len(taken) < 15:
        assert rush.n_queued_tasks <= 3
        taken += ground.claim(worker, timeout=600.0)
    for call in calls:
        keys = call.result()
        assert keys == [key for key in taken if key in keys]
    for pusher in pushers:
        pusher.close()


def test_a_push_that_finds_no_room_says_how_far_it_came(ground: Ground, rush: Rush) -> None:
    """After ``queue_timeout``: the error carries the keys that are queued, and the rest is nowhere."""
    queue(rush)
    with pytest.raises(WaitTimeout, match="max_queued=3") as caught:
        queue(rush, 5, max_queued=3, queue_timeout=0.01)
    assert (3, 0.01) == (caught.value.remaining, caught.value.timeout)
    assert caught.value.fields["keys"] == ground.claim(ground.member(), 9)[1:]
    assert 3 == rush.counts().total
    with pytest.raises(WaitTimeout) as caught:
        queue(rush, 4, max_queued=3, queue_timeout=0)
    assert 3 == len(caught.value.fields["keys"])


def test_every_way_out_of_the_queue_makes_room(ground: Ground, rush: Rush, patience: None) -> None:
    """Also a task that is cancelled, or fails with what it waited for."""
    worker = ground.member()
    (first,) = queue(rush)
    assert [first] == ground.claim(worker)
    second = queue(rush, after=[first])
    third = queue(rush)
    pushing = Background(queue, rush, 2, max_queued=2)
    wait_until(lambda: blocked(ground) == 1)
    rush_too = Rush(ground.network, ground.url)
    rush_too.cancel_tasks(third)
    wait_until(lambda: rush.n_queued_tasks == 2 and blocked(ground) == 1)
    ground.fail(worker, first)
    assert 2 == len(pushing.result())
    assert ["failed"] == [str(state) for state in rush.states(second)]
    rush_too.close()


# --- retries ----------------------------------------------------------------------------------------


def test_attempts_and_the_last_condition_can_be_seen(ground: Ground, rush: Rush) -> None:
    """While the task is queued or runs again, and when it has failed for good; a result ends it."""
    worker = ground.member("ann")
    first, second = queue(rush, 2, max_retries=2)
    assert [first, second] == ground.claim(worker, 2)
    assert (1, None) == (rush.task(first).attempt, rush.task(first).condition)
    ground.fail(worker, first, message="one")
    task = rush.task(first)
    assert ("queued", 2, "one", None) == (task.state, task.attempt, task.condition["message"], task.worker_id)
    assert [first] == ground.claim(worker)
    task = rush.task(first)
    assert ("running", 2, "one", "ann") == (
        task.state,
        task.attempt,
        task.condition["message"],
        task.worker_id,
    )
    ground.fail(worker, first, attempt=2, message="two")
    assert ("queued", 3, "two") == seen(rush, first)
    assert [first] == ground.claim(worker)
    ground.fail(worker, first, attempt=3, message="three")
    assert ("failed", 3, "three") == seen(rush, first)
    assert [first] == rush.fetch_failed_tasks()["key"].to_list()
    ground.fail(worker, second, message="no")
    assert [second] == ground.claim(worker)
    assert ground.finish(worker, second, attempt=2, y=1)
    task = rush.task(second)
    assert ("finished", 2, None) == (task.state, task.attempt, task.condition)
    info = rush.fetch_workers(as_="tasks")[0]
    assert (1, 4) == (info.n_finished, info.n_failed)


def seen(rush: Rush, key: str) -> tuple[str, int, str]:
    """State, attempt and last message of a task."""
    task = rush.task(key)
    return str(task.state), task.attempt, (task.condition or {})["message"]


@pytest.mark.parametrize("how", ["lease", "crash"])
def test_a_lost_attempt_counts(ground: Ground, rush: Rush, how: str) -> None:
    """A worker that asks for it (``on_lost="requeue"``) leaves its tasks to others, up to their limit."""
    (key, other) = queue(rush, 2, max_retries=[2, 0])
    for attempt in (1, 2):
        worker = ground.member(on_lost="requeue")
        assert key in ground.claim(worker, 2)
        end(ground, worker, how)
        assert ("queued", attempt + 1, "Worker has crashed or was killed") == seen(rush, key)
        assert ("failed", 1, "Worker has crashed or was killed") == seen(rush, other)
    worker = ground.member(on_lost="requeue")
    assert [key] == ground.claim(worker)
    end(ground, worker, how)
    assert ("failed", 3, "Worker has crashed or was killed") == seen(rush, key)


def test_an_old_attempt_decides_nothing(ground: Ground, rush: Rush) -> None:
    """Neither while the task is queued again, nor while another or the same worker has it, nor in the end."""
    old, new = ground.member("old"), ground.member("new")
    (key,) = queue(rush, max_retries=9, timeout=600)
    assert [key] == ground.claim(old)
    let_run_out(ground)
    ground.store.reap()
    late = [False] * 2

    def try_late() -> list[bool]:
        return [ground.finish(old, key, y="late"), ground.fail(old, key)]

    assert late == try_late()
    assert [key] == ground.claim(new)
    assert late == try_late()
    let_run_out(ground)
    ground.store.reap()
    assert [key] == ground.claim(old)
    assert 3 == rush.task(key).attempt
    assert late == try_late()
    assert ground.finish(old, key, attempt=3, y=1)
    assert late == try_late()
    assert {"y": 1} == rush.task(key).ys


def test_retrying_by_hand(ground: Ground, rush: Rush) -> None:
    """Only what failed goes, each key by itself; limits hold unless ignored, and no limit is no limit."""
    worker = ground.member()
    queued, running, finished, free, limited = queue(
        rush, 5, max_retries=[0, 0, 0, 0, 1], priority=[-1, 0, 0, 0, 0]
    )
    assert [running, finished, free, limited] == ground.claim(worker, 4)
    assert ground.finish(worker, finished)
    ground.fail(worker, free)
    ground.fail(worker, limited)
    assert [limited] == ground.claim(worker)
    ground.fail(worker, limited, attempt=2)
    everything = [queued, running, finished, free, limited]
    assert [free] == rush.retry_tasks([*everything, free])
    assert [] == rush.retry_tasks(everything)
    assert [limited] == rush.retry_tasks(everything, ignore_max_retries=True)
    assert ("queued", 3, "no") == seen(rush, limited)
    with pytest.raises(UnknownKey, match="nobody"):
        rush.retry_tasks([free, "nobody"])
    assert [] == rush.retry_tasks([])


def test_the_next_seed_is_counted(ground: Ground, rush: Rush) -> None:
    """Each retry that asks for it gives another; options and limits stay."""
    worker = ground.member()
    plain, full = queue(rush, 2, seeds=[None, 7], priority=[0, 2], timeout=[None, 0.5], max_retries=[0, 1])
    for key in (full, plain):
        assert [key] == ground.claim(worker)
    ground.fail(worker, full)
    assert [full] == ground.claim(worker)
    ground.fail(worker, full, attempt=2)
    ground.fail(worker, plain)
    assert [plain] == rush.retry_tasks([plain, full], next_seed=True)
    assert [full] == rush.retry_tasks([full], next_seed=True, ignore_max_retries=True)
    assert [1, 1] == [rush.task(key).reseeded for key in (plain, full)]
    assert (0.5, 7) == (rush.task(full).timeout, rush.task(full).seed)
    assert [full, plain] == ground.claim(worker, 2)


@pytest.mark.parametrize("call", ["retry", "cancel", "empty", "private"])
def test_said_again_changes_nothing(ground: Ground, rush: Rush, call: str) -> None:
    """The bytes of a manager's call may arrive twice."""
    worker = ground.member("ann")
    first, second = queue(rush, 2, priority=[1, 0])
    assert [first] == ground.claim(worker)
    ground.fail(worker, first)
    tape = Tape(rush._store)
    if call == "retry":
        rush.retry_tasks([first])
    elif call == "cancel":
        rush.cancel_tasks([second])
    elif call == "empty":
        rush.empty_queue()
    else:
        queue(rush, workers="ann")
    for at in range(len(tape.sent)):
        before = ground.account()
        tape.play(at)
        assert before == ground.account()


# --- time limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "said"), [(1, "1"), (1.0, "1"), (0.5, "0.5"), (90, "90"), (1e9, "1000000000")]
)
def test_the_message_of_a_time_limit(ground: Ground, rush: Rush, limit: float, said: str) -> None:
    """Says the seconds as a person would."""
    (key,) = queue(rush, timeout=limit)
    ground.claim(ground.member())
    assert limit == rush.task(key).timeout
    let_run_out(ground)
    ground.store.reap()
    condition = rush.task(key).condition or {}
    assert (f"Task timed out after {said} seconds", "TaskTimeout", limit) == (
        condition["message"],
        condition["type"],
        condition["timeout"],
    )


def test_only_the_attempt_that_runs_has_a_limit(ground: Ground, rush: Rush) -> None:
    """A task that is done, queued again, or not begun is not late, and nothing is left of its limit."""
    worker = ground.member()
    keys = queue(rush, 3, timeout=600, max_retries=1)
    assert keys[:2] == ground.claim(worker, 2)
    assert ground.finish(worker, keys[0])
    ground.fail(worker, keys[1])
    assert 0 == ground.raw.zcard(ground.key("deadlines"))
    assert [] == ground.store.reap()
    assert ["finished", "queued", "queued"] == [str(state) for state in rush.states(keys)]


def test_neighbours_of_a_task_that_ran_too_long(ground: Ground, rush: Rush, supervised: Supervised) -> None:
    """Several taken at once: all that are late have timed out; of the rest a plain worker keeps its own, a
    supervised one loses them with its process, as its policy says."""
    for under, on_lost, state, message in (
        (False, "fail", "running", None),
        (True, "fail", "failed", "Worker was killed"),
        (True, "requeue", "queued", "Worker was killed"),
    ):
        worker = (supervised if under else ground.member)(on_lost=on_lost)
        keys = queue(rush, 3, timeout=[600, 600, None], max_retries=[0, 0, 1])
        assert keys == ground.claim(worker, 3)
        let_run_out(ground)
        ground.store.reap()
        assert ["Task timed out after 600 seconds"] * 2 == messages(rush, keys[:2])
        task = rush.task(keys[2])
        assert (state, message) == (task.state, task.condition and task.condition["message"])
        rush.reset(workers=False)


def test_a_replaced_worker_is_expected(ground: Ground, rush: Rush, supervised: Supervised) -> None:
    """Its process may not write any more; its private tasks wait for the next, also those that come now."""
    old = supervised("ann")
    (key,) = queue(rush, timeout=600)
    before = queue(rush, workers="ann")
    assert before == ground.claim(old)
    ground.fail(old, before[0])
    assert [key] == ground.claim(old)
    kept = queue(rush, workers="ann")
    let_run_out(ground)
    ground.store.reap()
    assert old.claim(1, 0) == [] and old.gone
    later = queue(rush, workers="ann")
    assert [] == ground.claim(ground.member(), 9)
    new = Member(ground.another(), replace(old.card, token=random_token()), 600.0)
    new.join(WorkerState.RUNNING)
    assert [*kept, *later] == ground.claim(new, 9)
    end(ground, new, "crash")


def test_a_replaced_worker_that_does_not_come_back_is_lost(
    ground: Ground, rush: Rush, supervised: Supervised
) -> None:
    """When its lease runs out; then its private tasks are everybody's."""
    old = supervised("ann")
    (key,) = queue(rush)
    assert [key] == ground.claim(old)
    assert [key] == rush.cancel_tasks([key])
    own = queue(rush, workers="ann")
    ground.expire(old)
    assert ["ann"] == ground.store.reap()
    assert own == ground.claim(ground.member())
    assert ["ann"] == rush.lost_worker_ids


@pytest.mark.parametrize("first", ["terminate", "stop"])
def test_asked_to_leave_and_stopped(ground: Ground, rush: Rush, supervised: Supervised, first: str) -> None:
    """A worker that was asked to leave is not brought back when its task is stopped; nor is one that is asked
    after its task was."""
    worker = supervised("ann")
    (key,) = queue(rush)
    assert [key] == ground.claim(worker)
    if first == "terminate":
        assert ["ann"] == rush.stop_workers("terminate", ["ann"])
        assert [key] == rush.cancel_tasks([key])
    else:
        assert [key] == rush.cancel_tasks([key])
        assert ["ann"] == rush.stop_workers("terminate", ["ann"])
    assert ["ann"] == rush.terminated_worker_ids
    crash = WorkerEnd("ann", worker.card.token, WorkerState.KILLED, exit=Exit(signal=9))
    assert ([], []) == ground.store.bury_or_replace([crash])
    assert ["ann"] == rush.terminated_worker_ids


def test_a_supervisor_asks_nobody_away_whom_it_brings_back(
    ground: Ground, rush: Rush, supervised: Supervised
) -> None:
    """A change of loops that meets a stopped task: the worker still comes back."""
    worker = supervised("ann")
    (key,) = queue(rush)
    assert [key] == ground.claim(worker)
    rush.cancel_tasks([key])
    ground.store.stop(["ann"], kill=False, own="back")
    crash = WorkerEnd("ann", worker.card.token, WorkerState.KILLED, exit=Exit(signal=9))
    assert ([], ["ann"]) == ground.store.bury_or_replace([crash])


# --- cancelling -------------------------------------------------------------------------------------


def test_cancelling_in_every_state(ground: Ground, rush: Rush) -> None:
    """Queued and running tasks fail, others stay as they are; an unknown key is refused with all the rest."""
    worker = ground.member()
    running, finished, failed, queued, ranked = queue(rush, 5, priority=[9, 8, 7, 0, -1])
    assert [running, finished, failed] == ground.claim(worker, 3)
    ground.finish(worker, finished)
    ground.fail(worker, failed)
    everything = [finished, running, failed, ranked, queued]
    with pytest.raises(UnknownKey, match="nobody"):
        rush.cancel_tasks([*everything, "nobody"])
    assert "running" == rush.task(running).state
    assert [running, ranked, queued] == rush.cancel_tasks([*everything, running])
    assert ["Cancelled"] * 3 == messages(rush, [running, ranked, queued])
    assert not ground.finish(worker, running, y="late")
    assert [] == ground.claim(worker)
    assert [] == rush.cancel_tasks(everything)
    assert [] == rush.cancel_tasks([])
    info = rush.fetch_workers(as_="tasks")[0]
    assert (1, 2) == (info.n_finished, info.n_failed)


def test_neighbours_of_a_cancelled_task(ground: Ground, rush: Rush, supervised: Supervised) -> None:
    """Are not cancelled: they go as with any loss of their worker."""
    worker = supervised(on_lost="requeue")
    keys = queue(rush, 3, max_retries=[0, 1, 0])
    assert keys == ground.claim(worker, 3)
    assert keys[:1] == rush.cancel_tasks(keys[:1])
    assert ["failed", "queued", "failed"] == [str(state) for state in rush.states(keys)]
    assert ["Cancelled", "Worker was killed", "Worker was killed"] == messages(rush, keys)


def test_emptying_takes_every_kind(ground: Ground, rush: Rush) -> None:
    """Plain, ranked, private, delayed and waiting tasks; running ones go on."""
    worker = ground.member("ann")
    running, lapsing = queue(rush, 2, max_retries=1, backoff=600)
    assert [running, lapsing] == ground.claim(worker, 2)
    ground.fail(worker, lapsing)
    kinds = [lapsing]
    for options in ({}, {"priority": 1}, {"priority": -1}, {"workers": "ann"}, {"after": [running]}):
        kinds += queue(rush, **options)
    kinds += queue(rush, after=kinds[-1:])
    assert sorted(kinds) == sorted(rush.empty_queue())
    assert ["Removed from queue"] * 7 == messages(rush, kinds)
    assert [] == rush.empty_queue()
    assert ground.finish(worker, running)
    assert [] == ground.claim(worker, 9)


# --- prerequisites ----------------------------------------------------------------------------------


def test_a_chain_is_done_in_order(ground: Ground, rush: Rush) -> None:
    """Each is taken once the one before it has finished, and waits in the queued state until then."""
    worker = ground.member()
    chain = queue(rush)
    for _ in range(4):
        chain += queue(rush, after=chain[-1:])
    for before, after in pairwise(chain):
        assert [before] == ground.claim(worker, 9)
        assert "queued" == rush.task(after).state
        ground.finish(worker, before)
    assert chain[-1:] == ground.claim(worker, 9)


def test_a_diamond_waits_for_both_sides(ground: Ground, rush: Rush) -> None:
    """Once for each, also where a key is named twice."""
    worker = ground.member()
    (top,) = queue(rush)
    left, right = queue(rush, 2, after=[top, top])
    bottom = queue(rush, after=[[left, right, top, left]])
    assert [top] == ground.claim(worker, 9)
    ground.finish(worker, top)
    assert [left, right] == ground.claim(worker, 9)
    ground.finish(worker, right)
    assert [] == ground.claim(worker, 9)
    ground.finish(worker, left)
    assert bottom == ground.claim(worker, 9)


def test_each_task_may_wait_for_others(ground: Ground, rush: Rush) -> None:
    """A list per task: some wait, some do not; priorities count once they are released."""
    worker = ground.member()
    one, two = queue(rush, 2)
    late, urgent, free = queue(rush, 3, after=[[one, two], [one], None], priority=[0, 5, 0])
    assert [one, two, free] == ground.claim(worker, 9)
    more = queue(rush)
    ground.finish(worker, one)
    assert [urgent, *more] == ground.claim(worker, 9)
    ground.finish(worker, two)
    assert [late] == ground.claim(worker, 9)


def test_what_is_decided_already_is_not_waited_for(ground: Ground, rush: Rush) -> None:
    """A finished prerequisite is none; a failed one fails the task as it is pushed."""
    finished = rush.push_finished_tasks([{"x": 1}], [{"y": 1}])
    failed = rush.push_failed_tasks([{"x": 1}])
    ready = queue(rush, after=finished)
    doomed = queue(rush, after=[*finished, *failed], max_retries=5)
    doomed += queue(rush, after=doomed)
    assert ready == ground.claim(ground.member(), 9)
    assert ["failed", "failed"] == [str(state) for state in rush.states(doomed)]
    assert [f"Prerequisite failed: {key}" for key in (*failed, doomed[0])] == messages(rush, doomed)
    assert "PrerequisiteFailed" == (rush.task(doomed[0]).condition or {})["type"]


@pytest.mark.parametrize("how", ["fail", "cancel", "cancel running", "kill", "lost", "timeout"])
def test_a_failure_goes_down_the_chain(ground: Ground, rush: Rush, patience: None, how: str) -> None:
    """However the first task fails for good, those behind it fail at once, and who waits for them hears."""
    worker = ground.member("ann")
    (first,) = queue(rush, timeout=600)
    if how != "cancel":
        assert [first] == ground.claim(worker)
    second = queue(rush, after=[first])
    third = queue(rush, 2, after=second)
    other = Rush(ground.network, ground.url)
    call = Background(other.wait_for_tasks, [*second, *third], timeout=600.0)
    wait_until(lambda: blocked(ground) == 1)
    if how == "fail":
        ground.fail(worker, first)
    elif how.startswith("cancel"):
        rush.cancel_tasks([first])
    elif how == "timeout":
        let_run_out(ground)
        ground.store.reap()
    else:
        end(ground, worker, "kill" if how == "kill" else "crash")
    result = call.result()
    assert ("done", [*second, *third]) == (result.reason, result.failed)
    other.close()
    assert [f"Prerequisite failed: {first}"] + [f"Prerequisite failed: {second[0]}"] * 2 == messages(
        rush, [*second, *third]
    )
    # A failed record has the shape of any other: it can be read and retried.
    assert 4 == rush.fetch_failed_tasks().height
    ground.states()


def test_a_retried_prerequisite_has_not_failed_yet(ground: Ground, rush: Rush) -> None:
    """Those who wait go on waiting until it has no attempt left."""
    worker = ground.member(on_lost="requeue")
    first = queue(rush, max_retries=2)[0]
    second = queue(rush, after=[first])
    assert [first] == ground.claim(worker)
    ground.fail(worker, first)
    assert "queued" == rush.task(second[0]).state
    assert [first] == ground.claim(worker, 9)
    end(ground, worker, "lease")
    assert "queued" == rush.task(second[0]).state
    worker = ground.member()
    assert [first] == ground.claim(worker, 9)
    assert ground.finish(worker, first, attempt=3)
    assert second == ground.claim(worker, 9)


def test_retried_tasks_keep_to_their_prerequisites(ground: Ground, rush: Rush) -> None:
    """Alone a task behind a failed one stays as it is; together, in any order, they wait for one another."""
    worker = ground.member()
    first = queue(rush)[0]
    second = queue(rush, after=[first], max_retries=1)[0]
    third = queue(rush, after=[second, first])[0]
    assert [first] == ground.claim(worker)
    ground.fail(worker, first)
    assert [] == rush.retry_tasks([second, third])
    assert ("failed", 1, f"Prerequisite failed: {first}") == seen(rush, second)
    assert [third, first, second] == rush.retry_tasks([third, first, second])
    for key in (first, second, third):
        assert [key] == ground.claim(worker, 9)
        assert ground.finish(worker, key, attempt=2)
    assert 3 == rush.n_finished_tasks


def test_a_prerequisite_beyond_its_limit_keeps_the_others_back(ground: Ground, rush: Rush) -> None:
    """Retrying both does not bring back the one whose prerequisite may not come."""
    worker = ground.member()
    first = queue(rush, max_retries=1)[0]
    second = queue(rush, after=[first])[0]
    for attempt in (1, 2):
        assert [first] == ground.claim(worker)
        ground.fail(worker, first, attempt=attempt)
    assert [] == rush.retry_tasks([second, first])
    assert [second, first] == rush.retry_tasks([second, first], ignore_max_retries=True)


def test_dropping_a_chain_drops_each_for_itself(ground: Ground, rush: Rush) -> None:
    """Named beside its prerequisite a task is cancelled itself; one that is not named fails with it."""
    chain = queue(rush)
    for _ in range(2):
        chain += queue(rush, after=chain[-1:])
    assert chain[:2] == rush.cancel_tasks(chain[:2])
    assert ["Cancelled", "Cancelled", f"Prerequisite failed: {chain[1]}"] == messages(rush, chain)


def test_a_cancelled_task_is_released_by_nobody(ground: Ground, rush: Rush) -> None:
    """When its prerequisite finishes it stays failed; retried before that, it waits again, and is released
    once."""
    worker = ground.member()
    first = queue(rush)[0]
    gone, back = queue(rush, 2, after=[first])
    assert [first] == ground.claim(worker)
    rush.cancel_tasks([gone, back])
    assert [back] == rush.retry_tasks([back])
    assert [] == ground.claim(worker)
    ground.finish(worker, first)
    assert [back] == ground.claim(worker, 9)
    assert "failed" == rush.task(gone).state


def test_thousands_may_wait_for_one(ground: Ground, rush: Rush) -> None:
    """All are released, in their order."""
    worker = ground.member()
    (first,) = queue(rush)
    assert [first] == ground.claim(worker)
    keys = queue(rush, 3000, after=[first])
    ground.finish(worker, first)
    assert keys == ground.claim(worker, 5000)


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"terminate_workers": True}, {"max_queued": 9000}])
def test_an_unknown_prerequisite_queues_nothing(ground: Ground, rush: Rush, more: dict[str, Any]) -> None:
    """Not even the tasks of the same batch that are sent before it."""
    queue(rush)
    for after in (["nobody"], [None] * 599 + [["nobody"]]):
        with pytest.raises(UnknownKey, match="nobody") as caught:
            queue(rush, 600, after=after, **more)
        assert ["nobody"] == caught.value.fields["keys"]
    assert 1 == rush.counts().total
    assert not ground.raw.hexists(ground.key("control"), "drain")


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 2**70},
        {"priority": [1, -(2**53) - 1]},
        {"priority": "high"},
        {"priority": 1.5},
        {"priority": True},
        {"priority": [1]},
        {"max_retries": -1},
        {"max_retries": 2**70},
        {"max_retries": None},
        {"max_retries": [1, True]},
        {"timeout": 0},
        {"timeout": [1, -1]},
        {"timeout": 1e300},
        {"timeout": float("nan")},
        {"timeout": "1"},
        {"backoff": -1},
        {"backoff": None},
        {"workers": 7},
        {"workers": ["a", 7]},
        {"workers": ["a"]},
        {"seeds": 7},
        {"seeds": [1]},
        {"after": [["a"], 7]},
        {"after": [["a"], "b"]},
        {"after": [["a"]]},
        {"after": 7},
        {"max_queued": 0},
        {"max_queued": 1.5},
        {"queue_timeout": -1, "max_queued": 1},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(ground: Ground, rush: Rush, options: dict[str, Any]) -> None:
    """Before anything is written; the error names the argument."""
    with pytest.raises(ConfigError, match=next(iter(options))):
        queue(rush, 2, **options)
    assert [] == list(ground.raw.scan_iter(match=f"*{ground.network}*"))


def test_no_limit_has_several_names(ground: Ground, rush: Rush) -> None:
    """None and infinity for time, none of anything for the rest; nothing is stored of them."""
    keys = queue(rush, 2, timeout=[None, float("inf")], priority=None, workers=None, after=[], seeds=None)
    assert keys == ground.claim(ground.member(), 2)
    assert not ground.raw.hexists(ground.key("control"), "line")


def test_a_reset_of_tasks_takes_every_line_away(ground: Ground, rush: Rush) -> None:
    """The network begins with the plain queue again."""
    worker = ground.member("ann")
    (first,) = queue(rush, timeout=600, max_retries=1, backoff=600)
    assert [first] == ground.claim(worker)
    for options in ({"priority": 1}, {"workers": "ann"}, {"after": [first]}):
        queue(rush, **options)
    ground.fail(worker, first)
    rush.reset(workers=False)
    left = {
        key.decode().rpartition(":")[2] for key in ground.raw.scan_iter(match=f"rl:{{{ground.network}}}:*")
    }
    assert left <= {"control", "workers", "leases", "orders", "events", "ann"}
    keys = queue(rush, 2)
    assert keys == ground.claim(worker, 9)
