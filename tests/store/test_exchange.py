"""Several tasks in a worker's hands at once: results and tasks in one trip, the fate of those not begun."""

from __future__ import annotations

from typing import Any

import pytest

from ground import Ground, Stats, Tape, lose_reply
from rushlight import Rush
from rushlight._journal import Left
from rushlight._member import Member
from rushlight._records import Exit, WorkerState
from rushlight._store_ends import WorkerEnd
from rushlight.errors import WorkerLost

CRASHED = "Worker has crashed or was killed"


def exchange(ground: Ground, member: Member, done: list[str], n: int) -> list[str]:
    """Finishes tasks and takes up to n; the keys."""
    verdicts = [ground.finishing(key, y=1) for key in done]
    decided, values = member.exchange(verdicts, {}, n)
    assert [True] * len(done) == decided
    return ground.taken(values)


def push(ground: Ground, n: int, **options: Any) -> list[str]:
    """Queues n tasks as a manager does."""
    with Rush(ground.network, ground.url) as rush:
        return rush.push_tasks([{"i": i} for i in range(n)], **options)


def bury(ground: Ground, member: Member, left: Left | None, **kind: Any) -> None:
    """Its supervisor says that the process has crashed, and what it had been at."""
    card = member.card
    end = WorkerEnd(card.worker_id, card.token, WorkerState.LOST, CRASHED, Exit(signal=9), left=left, **kind)
    ground.store.bury_or_replace([end])


def test_results_and_tasks_in_one_trip(ground: Ground) -> None:
    """Tasks run here in their order, results are recorded in theirs."""
    keys = ground.push(6)
    worker = ground.member("ann")
    first = exchange(ground, worker, [], 4)
    trips = worker.store.link.trips
    second = exchange(ground, worker, first, 4)
    assert trips + 1 == worker.store.link.trips
    assert (keys[:4], keys[4:]) == (first, second)
    assert dict.fromkeys(first, "finished") | dict.fromkeys(second, "running") == ground.states()
    assert first == [row[3] for row in ground.account().finished]


@pytest.mark.parametrize("full", [False, True])
def test_the_number_of_commands_does_not_grow(ground: Ground, full: bool) -> None:
    """Of thirty results as of three; of tasks too, where no more than the plain queue is in use."""
    if full:
        push(ground, 1, priority=1)
    worker = ground.member()
    exchange(ground, worker, [], 1)
    found = []
    for n in (3, 30):
        ground.push(n)
        taken = exchange(ground, worker, [], n)
        ground.push(0 if full else n)
        with Stats(ground.raw) as stats:
            exchange(ground, worker, taken, n)
        # Of each task that more than the plain queue may concern, it is looked whether others wait for it.
        found.append(sum(stats.calls.values()) - (n if full else 0))
    assert found[0] == found[1]


def test_results_of_first_attempts_are_told_in_short(ground: Ground) -> None:
    """A key and a payload each; and where one of the tasks is not as it should be, each has its answer."""
    keys = ground.push(3)
    worker = ground.member("ann")
    exchange(ground, worker, [], 3)
    tape = Tape(worker)
    assert [True] * 3 == worker.exchange([ground.finishing(key) for key in keys], {}, 1)[0]
    ((sent, _),) = tape.sent
    assert (3, 1) == (sent.count(ground.payload()), sent.count(worker._first))
    assert 3 == tape.play()[-1][2].count(1)
    assert {b"f:ann": b"3"}.items() <= ground.raw.hgetall(ground.key("tallies")).items()


def test_said_again_it_is_the_same(ground: Ground) -> None:
    """The duplicate settles nothing anew and takes nothing more."""
    keys = ground.push(6)
    worker = ground.member()
    first = exchange(ground, worker, [], 2)
    tape = Tape(worker)
    second = exchange(ground, worker, first, 2)
    assert second == ground.taken(tape.play()[-1][3])
    assert keys[4:] == ground.account().order
    assert first == [row[3] for row in ground.account().finished]


def test_a_lost_reply_costs_nothing(ground: Ground) -> None:
    """The client asks again by itself and gets the very tasks."""
    keys = ground.push(6)
    worker = ground.member()
    first = exchange(ground, worker, [], 2)
    lose_reply(worker)
    assert keys[2:4] == exchange(ground, worker, first, 2)
    assert keys[4:] == exchange(ground, worker, keys[2:4], 2)


def test_failures_and_stale_results_are_told_one_by_one(ground: Ground) -> None:
    """Each verdict has its own answer, whatever the others are."""
    keys = ground.push(3)
    worker = ground.member()
    exchange(ground, worker, [], 3)
    ground.store.drop({"message": "Cancelled"}, keys[1:2])
    verdicts = [ground.finishing(keys[0]), ground.finishing(keys[1]), ground.failing(keys[2])]
    assert [True, False, True] == worker.exchange(verdicts, {}, 1)[0]
    assert ["finished", "failed", "failed"] == [ground.states()[key] for key in keys]


def test_nobody_takes_more_than_a_share(ground: Ground) -> None:
    """Of few tasks each of the workers gets some; alone, one may take them all."""
    ground.push(10)
    ann, ben = ground.member(), ground.member()
    assert 5 == len(exchange(ground, ann, [], 32))
    assert 3 == len(exchange(ground, ben, [], 32))
    assert 1 == len(exchange(ground, ann, [], 32))
    bury(ground, ben, None)
    ground.push(5)
    assert 6 == len(exchange(ground, ann, [], 32))


def test_a_task_with_a_time_limit_is_taken_alone(ground: Ground) -> None:
    """Its time begins when it does; those before and behind it keep their order."""
    keys = [*ground.push(2), *push(ground, 1, timeout=600), *ground.push(2)]
    worker = ground.member()
    assert keys[:2] == exchange(ground, worker, [], 9)
    assert 1 == ground.raw.llen(ground.key("bell"))
    assert keys[2:3] == exchange(ground, worker, keys[:2], 9)
    assert 1 == ground.raw.zcard(ground.key("deadlines"))
    assert keys[3:] == exchange(ground, worker, keys[2:3], 9)


@pytest.mark.parametrize("kind", [{"priority": 3}, {"priority": -3}, {"workers": "ann"}, {}])
def test_a_limited_task_keeps_its_place(ground: Ground, kind: dict[str, Any]) -> None:
    """In whatever line it stands: next time it is the first."""
    worker = ground.member("ann")
    keys = push(ground, 3, timeout=[None, 600, None], **kind)
    assert keys[:1] == exchange(ground, worker, [], 9)
    assert keys[1:2] == exchange(ground, worker, keys[:1], 9)
    assert keys[2:] == exchange(ground, worker, keys[1:2], 9)


@pytest.mark.parametrize(
    "kind", [{}, {"priority": 3}, {"priority": -3}, {"workers": "ann"}, {"max_retries": 2}]
)
def test_what_is_handed_back_stands_where_it_was(ground: Ground, kind: dict[str, Any]) -> None:
    """In front, in its order and attempt, for anybody; the results come in, and the task at hand goes on."""
    ann, ben = ground.member("ann"), ground.member("ben")
    bury(ground, ben, None)
    keys = push(ground, 6, **kind)
    assert keys[:5] == exchange(ground, ann, [], 5)
    assert [True] == ann.hand_back((keys[1], 1), keys[2:5], [ground.finishing(keys[0])], {})
    expected = dict.fromkeys(keys, "queued") | {keys[0]: "finished", keys[1]: "running"}
    assert expected == ground.states()
    assert keys[2:] == ground.claim(ann, 9)
    assert {1} == {row[1] for row in ground.account().running.values()}


def test_what_is_handed_back_wakes_others(ground: Ground) -> None:
    """The bell rings."""
    keys = ground.push(3)
    ann, ben = ground.member(), ground.member()
    bury(ground, ben, None)
    exchange(ground, ann, [], 3)
    ground.raw.delete(ground.key("bell"))
    ann.hand_back((keys[0], 1), keys[1:], [], {})
    assert 1 == ground.raw.llen(ground.key("bell"))


def test_handed_back_twice_it_went_once(ground: Ground) -> None:
    """Also where the packet comes when the worker has taken the tasks again."""
    keys = ground.push(3)
    ann = ground.member()
    exchange(ground, ann, [], 3)
    tape = Tape(ann)
    ann.hand_back((keys[0], 1), keys[1:], [], {})
    tape.play()
    assert keys[1:] == ground.account().order
    assert keys[1:] == exchange(ground, ann, keys[:1], 3)
    tape.play(0)
    assert dict.fromkeys(keys[1:], "running") | {keys[0]: "finished"} == ground.states()


def test_a_task_in_hand_can_be_cancelled_alone(ground: Ground) -> None:
    """Nobody knows whether the worker is at it: the worker goes on, and learns of it with its result."""
    keys = ground.push(3)
    ann = ground.member("ann", supervisor="sup")
    exchange(ground, ann, [], 3)
    assert keys[1:2] == ground.store.drop({"message": "Cancelled"}, keys[1:2])
    decided, _ = ann.exchange([ground.finishing(key) for key in keys], {}, 1)
    assert [True, False, True] == decided
    assert 0 == ground.raw.xlen(ground.key("orders"))


def test_the_task_at_hand_of_several_is_interrupted_once_it_takes_long(ground: Ground) -> None:
    """When the worker says which it is at, its process is replaced; what it had not begun is with others."""
    keys = ground.push(3)
    ann = ground.member("ann", supervisor="sup")
    exchange(ground, ann, [], 3)
    ground.store.drop({"message": "Cancelled"}, keys[1:2])
    for _ in range(2):
        with pytest.raises(WorkerLost):
            ann.hand_back((keys[1], 1), keys[2:], [ground.finishing(keys[0])], {})
    assert 1 == ground.raw.xlen(ground.key("orders"))
    assert {keys[0]: "finished", keys[1]: "failed", keys[2]: "queued"} == ground.states()


def test_afterwards_a_cancel_interrupts_as_ever(ground: Ground) -> None:
    """Once it is known what the worker is at."""
    keys = ground.push(2)
    ann = ground.member("ann", supervisor="sup")
    exchange(ground, ann, [], 2)
    ann.hand_back((keys[0], 1), keys[1:], [], {})
    ground.store.drop({"message": "Cancelled"}, keys[:1])
    assert 1 == ground.raw.xlen(ground.key("orders"))


def test_a_crash_costs_the_task_that_was_begun(ground: Ground) -> None:
    """Results it had not told are recorded, what it had not begun is in front again, in its attempt."""
    ann = ground.member("ann", supervisor="sup")
    keys = push(ground, 6, max_retries=1)
    exchange(ground, ann, [], 5)
    payload = ground.payload(y=1)
    left = Left(
        ann.claimed, ((keys[0], 1, "f", payload), (keys[1], 1, "x", ground.condition())), tuple(keys[3:5])
    )
    bury(ground, ann, left)
    states = ground.states()
    assert ["finished", "queued", "failed", *["queued"] * 3] == [states[key] for key in keys]
    # The second attempt of the one that failed stands behind.
    assert [*keys[3:], keys[1]] == [entry.partition("\0")[0] for entry in ground.account().order]
    ben = ground.member("ben")
    assert [1, 1, 1, 2] == [row[1] for row in ground.store.running_rows(ben.claim(4, 0))]


def test_a_crash_costs_nothing_where_the_tasks_never_came(ground: Ground) -> None:
    """The reply was on its way."""
    keys = ground.push(4)
    ann = ground.member("ann", supervisor="sup")
    first = exchange(ground, ann, [], 2)
    before = ann.claimed
    exchange(ground, ann, first, 2)
    bury(ground, ann, Left(before))
    assert dict.fromkeys(first, "finished") | dict.fromkeys(keys[2:], "queued") == ground.states()
    assert keys[2:] == ground.account().order


def test_where_nothing_is_known_all_may_have_been_begun(ground: Ground) -> None:
    """A lease that ran out, a supervisor that went too: none of the tasks is run again unasked."""
    keys = ground.push(6)
    ann, ben = ground.member("ann", supervisor="sup"), ground.member("ben", on_lost="requeue")
    exchange(ground, ann, [], 1)
    exchange(ground, ben, [], 2)
    ground.expire(ann, ben)
    ground.store.reap()
    assert dict.fromkeys(keys[:3], "failed") | dict.fromkeys(keys[3:], "queued") == ground.states()


def test_a_worker_that_is_no_member_hands_nothing_back(ground: Ground) -> None:
    """Its tasks have been decided; a report of its end that comes twice changes nothing either."""
    keys = ground.push(3)
    ann = ground.member("ann", supervisor="sup")
    exchange(ground, ann, [], 3)
    left = Left(ann.claimed, (), tuple(keys[1:]))
    bury(ground, ann, left)
    ben = ground.member("ben")
    assert keys[1:] == ground.claim(ben, 3)
    bury(ground, ann, left)
    states = ground.states()
    assert dict.fromkeys(keys[1:], "running") | {keys[0]: "failed"} == states
