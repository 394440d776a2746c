"""Taking queued tasks: each goes to one worker, and a claim sent again gives the same answer."""

from __future__ import annotations

import pytest

from ground import Ground, Tape, lose_reply
from harness import Background, account, wait_until
from rushlight.errors import StoreUnavailable


def test_a_claim_moves_the_record(ground: Ground) -> None:
    """The task leaves the queue and runs at the worker, with its start."""
    (key,) = ground.push()
    worker = ground.member("bob")
    assert [key] == ground.claim(worker)
    found = ground.account()
    assert ([], {}) == (found.order, found.queued)
    row = found.running[key]
    assert ("bob", 1, {"i": 0}) == (row[0], row[1], row[4])
    assert row[8] >= row[6]


def test_a_batch_is_taken_in_order(ground: Ground) -> None:
    """Up to n, as many as there are, first in first out."""
    keys = ground.push(5)
    worker = ground.member()
    assert keys[:3] == ground.claim(worker, 3)
    assert keys[3:] == ground.claim(worker, 3)
    assert [] == ground.claim(worker, 3)


def test_an_empty_queue_gives_nothing(ground: Ground) -> None:
    """Nothing is invented, and no token is left that would wake somebody for nothing."""
    worker = ground.member()
    assert [] == ground.claim(worker, 5)
    ground.push()
    ground.claim(worker)
    assert [] == ground.claim(worker)
    assert 0 == ground.raw.exists(ground.key("bell"))


def test_a_claim_sent_again_gets_the_same_tasks(ground: Ground) -> None:
    """The duplicate of a claim takes nothing more, and is told what the claim took."""
    keys = ground.push(4)
    worker = ground.member()
    tape = Tape(worker)
    assert keys[:2] == ground.claim(worker, 2)
    assert keys[:2] == ground.taken(tape.play()[-1][2])
    assert {keys[0]: "running", keys[1]: "running", keys[2]: "queued", keys[3]: "queued"} == ground.states()


def test_a_claim_whose_reply_is_lost_loses_no_task(ground: Ground) -> None:
    """The client asks again by itself and gets the very tasks the first claim took."""
    keys = ground.push(3)
    worker = ground.member()
    lose_reply(worker)
    assert keys[:2] == ground.claim(worker, 2)
    assert keys[2:] == ground.claim(worker, 2)


def test_a_late_claim_takes_nothing(ground: Ground) -> None:
    """A packet of an old claim that arrives after the next one moves no task."""
    keys = ground.push(3)
    worker = ground.member()
    tape = Tape(worker)
    assert [keys[0]] == ground.claim(worker)
    assert [keys[1]] == ground.claim(worker)
    before = ground.states()
    tape.play(0)
    assert before == ground.states()
    assert ground.finish(worker, keys[0])
    assert ground.finish(worker, keys[1])
    assert [] == ground.taken(tape.play(0)[-1][2])
    assert [] == ground.taken(tape.play(1)[-1][2])
    assert "queued" == ground.states()[keys[2]]


def test_a_claim_that_was_given_up_is_answered_by_the_next(ground: Ground) -> None:
    """Where the server answers too late for the client's patience, the next claim of the worker finds the
    tasks the server had given it: none is left running at a worker that does not know of it."""
    store = ground.another(timeout=0.2, patience=0.0)
    worker = ground.member()
    worker.store = store
    keys = ground.push(2)
    lose_reply(worker)
    with pytest.raises(StoreUnavailable):
        ground.claim(worker)
    assert [keys[0]] == ground.claim(worker)
    assert {keys[0]: "running", keys[1]: "queued"} == ground.states()


def test_looking_around_does_not_forget_a_claim(ground: Ground) -> None:
    """The question whether to leave, which workers ask all the time, never swallows tasks."""
    store = ground.another(timeout=0.2, patience=0.0)
    worker = ground.member()
    worker.store = store
    keys = ground.push()
    lose_reply(worker)
    with pytest.raises(StoreUnavailable):
        ground.claim(worker)
    worker._told = 0.0
    assert not worker.leaving
    assert worker._told > 0.0
    assert keys == ground.claim(worker)


def test_two_workers_never_share_a_task(ground: Ground) -> None:
    """Workers that take as fast as they can, with replies lost, get each task once between them."""
    keys = ground.push(300)
    workers = [ground.member() for _ in range(4)]

    def take_all(worker):
        taken = []
        for round_ in range(1000):
            if round_ % 5 == 0:
                lose_reply(worker)
            got = ground.claim(worker, 3)
            if not got:
                return taken
            taken += got
        return taken

    shares = [call.result() for call in [Background(take_all, worker) for worker in workers]]
    assert sorted(keys) == sorted(key for share in shares for key in share)
    running = ground.account().running
    for worker, share in zip(workers, shares, strict=True):
        assert {worker.card.worker_id} == {running[key][0] for key in share} or not share


def test_entries_of_tasks_that_left_the_queue_are_skipped(ground: Ground) -> None:
    """A task that was dropped by name is given to nobody; the next one is."""
    keys = ground.push(3)
    assert [keys[0]] == ground.store.drop({"message": "Cancelled"}, [keys[0]])
    assert keys[1:] == ground.claim(ground.member(), 5)


def test_a_member_no_more_takes_nothing(ground: Ground) -> None:
    """Who was killed or lost gets no task, and is told."""
    (key,) = ground.push()
    killed, lost = ground.member(), ground.member()
    ground.store.stop([killed.card.worker_id], kill=True)
    ground.expire(lost)
    ground.store.reap()
    assert [] == ground.claim(killed) == ground.claim(lost)
    assert killed.gone and lost.gone
    assert {key: "queued"} == ground.states()


def test_one_that_is_asked_to_leave_takes_nothing(ground: Ground) -> None:
    """After the word to leave no more tasks come, without a wait."""
    worker = ground.member()
    keys = ground.push()
    ground.store.stop([worker.card.worker_id], kill=False)
    assert [] == ground.claim(worker, timeout=3600.0)
    assert worker.leaving and not worker.gone
    assert keys == ground.claim(ground.member())


def test_a_waiter_is_woken_by_a_push(ground: Ground) -> None:
    """A worker that waits gets the task when it comes."""
    worker = ground.member()
    waiting = Background(ground.claim, worker, timeout=60.0)
    wait_until(lambda: blocked(ground) == 1)
    keys = ground.push()
    assert keys == waiting.result(30)


def test_waiters_wake_one_another(ground: Ground) -> None:
    """One push of three tasks serves three workers that wait, each once."""
    workers = [ground.member() for _ in range(3)]
    waiting = [Background(ground.claim, worker, timeout=60.0) for worker in workers]
    wait_until(lambda: blocked(ground) == 3)
    keys = ground.push(3)
    assert sorted(keys) == sorted(key for call in waiting for key in call.result(30))


def test_a_waiter_hears_that_it_is_to_leave(ground: Ground) -> None:
    """Both kinds of stop end a wait without a task."""
    asked, killed = ground.member(), ground.member()
    waiting = [Background(ground.claim, worker, timeout=3600.0) for worker in (asked, killed)]
    wait_until(lambda: blocked(ground) == 2)
    ground.store.stop([asked.card.worker_id], kill=False)
    ground.store.stop([killed.card.worker_id], kill=True)
    assert [] == waiting[0].result(30) == waiting[1].result(30)
    # Neither waits a second time.
    assert [1, 1] == [link.trips for worker in (asked, killed) for link in worker.store._idle]
    assert asked.leaving and not asked.gone and killed.gone


def test_a_token_that_goes_down_with_its_worker_is_replaced(ground: Ground) -> None:
    """A worker that dies between the bell and its claim keeps nobody else from the task."""
    dying, other = ground.member(), ground.member()
    ground.claim(other)
    keys = ground.push()
    assert ground.raw.lpop(ground.key("bell"))
    waiting = Background(ground.claim, other, timeout=60.0)
    ground.expire(dying)
    ground.store.reap()
    assert keys == waiting.result(30)


def test_all_waiters_hear_of_a_drain(ground: Ground) -> None:
    """Once the queue drains, every worker that waits returns, though others take and finish meanwhile."""
    busy = ground.member()
    workers = [ground.member() for _ in range(3)]
    (key,) = ground.begin(busy)
    for worker in workers:
        ground.claim(worker)
    ground.store.push(ground.store.encode_tasks([], []), drain=True)
    busy.settle_and_claim(ground.finishing(key), {})
    waiting = [Background(worker.claim, 1, float("inf")) for worker in workers]
    assert [[], [], []] == [call.result(20) for call in waiting]
    assert all(worker.idle_stop for worker in workers)


def test_emptying_a_draining_queue_wakes_its_waiters(ground: Ground) -> None:
    """Workers that wait leave also where the last tasks were removed and not taken."""
    worker = ground.member()
    ground.claim(worker)
    batch = ground.encode(2)
    ground.store.push(batch, drain=True)
    assert batch.keys == ground.store.drop({"message": "Removed from queue"})
    assert [] == Background(worker.claim, 1, float("inf")).result(20)
    assert worker.idle_stop


def blocked(ground: Ground) -> int:
    """Clients the server keeps waiting."""
    return int(ground.raw.info("clients")["blocked_clients"])


def test_accounts_can_fail(ground: Ground) -> None:
    """The proof used all over these tests notices a task that is in two places."""
    (key,) = ground.push()
    ground.raw.hset(ground.key("running"), key, b"\xa1a\x01\xc0" + b"\xa1k\x80\xc0\x01\x01\x01")
    with pytest.raises(AssertionError, match="in two places"):
        account(ground.raw, ground.network).states()
    ground.raw.hdel(ground.key("running"), key)
