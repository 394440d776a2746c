"""Settling one task and creating the next, or taking the next, in one trip."""

from __future__ import annotations

import pytest

from ground import Ground, Tape, lose_reply
from rushlight.errors import UnknownKey, WorkerLost


def test_a_step_settles_and_creates(ground: Ground) -> None:
    """One task is finished, the next runs."""
    worker = ground.member()
    (first,) = ground.begin(worker)
    batch = ground.encode()
    assert worker.step(ground.finishing(first, y=1), batch, {})
    assert {first: "finished", batch.keys[0]: "running"} == ground.states()


def test_a_step_said_again_changes_nothing(ground: Ground) -> None:
    """At once, and after the new task is settled too."""
    worker = ground.member()
    tape = Tape(worker)
    (first,) = ground.begin(worker)
    batch = ground.encode()
    assert worker.step(ground.finishing(first), batch, {})
    assert [[1], 0] == tape.play()[-1][2:]
    assert ground.finish(worker, batch.keys[0])
    before = ground.account()
    assert [[1], 0] == tape.play(1)[-1][2:]
    assert before == ground.account()


def test_a_step_whose_reply_is_lost_happens_once(ground: Ground) -> None:
    """The client sends it again by itself."""
    worker = ground.member()
    (first,) = ground.begin(worker)
    batch = ground.encode()
    lose_reply(worker)
    assert worker.step(ground.finishing(first), batch, {})
    assert {first: "finished", batch.keys[0]: "running"} == ground.states()


def test_a_step_that_comes_too_late_still_creates(ground: Ground) -> None:
    """The first task was decided by its own worker before: told so, the worker goes on with the next."""
    worker = ground.member()
    (first,) = ground.begin(worker)
    ground.fail(worker, first)
    batch = ground.encode()
    assert not worker.step(ground.finishing(first), batch, {})
    assert {first: "failed", batch.keys[0]: "running"} == ground.states()


def test_a_step_with_an_unknown_key_creates_nothing(ground: Ground) -> None:
    """Refused whole."""
    worker = ground.member()
    with pytest.raises(UnknownKey, match="nonsense"):
        worker.step(ground.finishing("nonsense"), ground.encode(), {})
    assert {} == ground.states()


@pytest.mark.parametrize("end", ["kill", "lose", "reset"])
def test_a_step_of_a_worker_that_is_gone_does_nothing(ground: Ground, end: str) -> None:
    """Neither half happens; the worker is told."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    if end == "kill":
        ground.store.stop([worker.card.worker_id], kill=True)
    elif end == "lose":
        ground.expire(worker)
        ground.store.reap()
    else:
        ground.store.reset_all([worker.card.worker_id])
    before = ground.states()
    assert before == ({} if end == "reset" else {key: "failed"})
    for _ in range(2):
        with pytest.raises(WorkerLost):
            worker.step(ground.finishing(key), ground.encode(), {})
    with pytest.raises(WorkerLost):
        worker.settle_and_claim(ground.finishing(key), {})
    assert before == ground.states()


def test_settle_and_claim_hands_over(ground: Ground) -> None:
    """One task is finished, the next queued one runs here."""
    worker = ground.member()
    keys = ground.push(2)
    ground.claim(worker)
    decided, values = worker.settle_and_claim(ground.finishing(keys[0]), {})
    assert (True, [keys[1]]) == (decided, ground.taken(values))
    decided, values = worker.settle_and_claim(ground.failing(keys[1]), {})
    assert (True, []) == (decided, values)
    assert {keys[0]: "finished", keys[1]: "failed"} == ground.states()


def test_settle_and_claim_said_again_takes_nothing_more(ground: Ground) -> None:
    """The duplicate hears the same verdict and the same task; a late one moves nothing."""
    worker = ground.member()
    keys = ground.push(4)
    tape = Tape(worker)
    ground.claim(worker)
    worker.settle_and_claim(ground.finishing(keys[0]), {})
    reply = tape.play()[-1]
    assert ([1], [keys[1]]) == (reply[2], ground.taken(reply[3]))
    worker.settle_and_claim(ground.finishing(keys[1]), {})
    before = ground.account()
    assert [1] == tape.play(1)[-1][2]
    tape.play(0)
    assert before == ground.account()
    assert "queued" == ground.states()[keys[3]]


def test_settle_and_claim_whose_reply_is_lost_loses_nothing(ground: Ground) -> None:
    """The client asks again by itself and gets what was taken for it."""
    worker = ground.member()
    keys = ground.push(3)
    ground.claim(worker)
    lose_reply(worker)
    decided, values = worker.settle_and_claim(ground.finishing(keys[0]), {})
    assert (True, [keys[1]]) == (decided, ground.taken(values))
    assert "queued" == ground.states()[keys[2]]


def test_settle_and_claim_with_an_unknown_key_takes_nothing(ground: Ground) -> None:
    """Refused whole."""
    worker = ground.member()
    (key,) = ground.push()
    with pytest.raises(UnknownKey, match="nonsense"):
        worker.settle_and_claim(ground.finishing("nonsense"), {})
    assert {key: "queued"} == ground.states()
    assert [key] == ground.claim(worker)


def test_settle_and_claim_too_late_still_takes(ground: Ground) -> None:
    """A verdict that lost is told, and the next task comes all the same."""
    worker = ground.member()
    (mine,) = ground.begin(worker)
    ground.fail(worker, mine)
    (queued,) = ground.push()
    decided, values = worker.settle_and_claim(ground.finishing(mine), {})
    assert (False, [queued]) == (decided, ground.taken(values))
