"""Finishing and failing: the first decision stands, whoever says it again or says otherwise."""

from __future__ import annotations

import pytest

from ground import Ground, Tape, lose_reply
from rushlight._member import Member
from rushlight.errors import UnknownKey


def tally(ground: Ground, member: Member) -> tuple[int, int]:
    """Tasks the network says the worker finished and failed."""
    (info,) = [w for w in ground.store.workers() if w.worker_id == member.card.worker_id]
    return info.n_finished, info.n_failed


def test_finishing_moves_the_record(ground: Ground) -> None:
    """The record goes from the worker to the end of the finished list, with results and times in order."""
    worker = ground.member("ann")
    first, second = ground.begin(worker, 2)
    assert ground.finish(worker, second, y=2)
    assert ground.finish(worker, first, y=1)
    found = ground.account()
    assert [second, first] == [row[3] for row in found.finished]
    row = found.finished[0]
    assert ("ann", 1, {"i": 1}, {"y": 2}, None) == (row[0], row[1], row[4], row[10], row[11])
    assert row[6] <= row[8] <= row[9]
    assert (2, 0) == tally(ground, worker)


def test_failing_moves_the_record(ground: Ground) -> None:
    """The record goes to the failed tasks, with condition and time, and into the feed of failures."""
    worker = ground.member("ann")
    (key,) = ground.begin(worker)
    assert ground.fail(worker, key, message="too hot")
    found = ground.account()
    row = found.failed[key]
    assert {"message": "too hot"} == row[2]
    assert ("ann", 1, key) == (row[3], row[4], row[6])
    assert [key] == found.failures
    assert (0, 1) == tally(ground, worker)


def test_a_condition_may_hold_anything(ground: Ground) -> None:
    """Bytes, numbers of any size and dates in a condition confuse no script."""
    import datetime as dt

    worker = ground.member()
    (key,) = ground.begin(worker)
    said = {
        "message": "odd",
        "blob": b"\x00\xff" * 40,
        "n": 2**90,
        "at": dt.date(2026, 1, 2),
        "text": "x" * 70_000,
    }
    tape = Tape(worker)
    ground.store.codec.spill_size = 1 << 20
    verdict = ground.failing(key)
    packed = ground.store.encode_condition(said)
    assert worker.settle([type(verdict)(key, 1, "x", packed)], {}) == [True]
    assert [1] == tape.play()[-1][2]
    (row,), (condition,) = ground.store.failed_by_key([key])
    assert (key, said) == (row[3], condition)


@pytest.mark.parametrize("kind", ["finish", "fail"])
def test_said_again_it_is_the_same(ground: Ground, kind: str) -> None:
    """The same bytes again, at once or later, get the same answer and change nothing."""
    worker = ground.member()
    tape = Tape(worker)
    key, other = ground.begin(worker, 2)
    assert getattr(ground, kind)(worker, key)
    assert [1] == tape.play()[-1][2]
    assert ground.finish(worker, other)
    assert [1] == tape.play(1)[-1][2]
    found = ground.account()
    assert (2 if kind == "finish" else 1) == len(found.finished)
    assert (0 if kind == "finish" else 1) == len(found.failures)
    assert (2, 0) == tally(ground, worker) if kind == "finish" else (1, 1) == tally(ground, worker)


@pytest.mark.parametrize("kind", ["finish", "fail"])
def test_a_lost_reply_decides_once(ground: Ground, kind: str) -> None:
    """The client sends the verdict again by itself and hears that it was its own."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    lose_reply(worker)
    assert getattr(ground, kind)(worker, key)
    assert 1 == sum(tally(ground, worker))
    assert 1 == len(ground.account().finished) + len(ground.account().failures)


@pytest.mark.parametrize(("first", "second"), [("finish", "fail"), ("fail", "finish")])
def test_the_first_writer_wins(ground: Ground, first: str, second: str) -> None:
    """A worker that contradicts itself is told so; the first word stands, also against late packets."""
    worker = ground.member()
    tape = Tape(worker)
    (key,) = ground.begin(worker)
    assert getattr(ground, first)(worker, key)
    before = ground.account()
    assert not getattr(ground, second)(worker, key)
    assert [1] == tape.play(1)[-1][2]
    assert [0] == tape.play(2)[-1][2]
    assert before == ground.account()


def test_another_result_is_not_the_one_that_decided(ground: Ground) -> None:
    """Finished again with other results it says False; with the same ones True, as they are what decided."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    assert ground.finish(worker, key, y=1)
    before = ground.account()
    assert not ground.finish(worker, key, y=2)
    assert ground.finish(worker, key, y=1)
    assert before == ground.account()


def test_nobody_settles_the_task_of_another(ground: Ground) -> None:
    """Neither finishing nor failing is heard from a worker that does not hold the task."""
    ann, bob = ground.member("ann"), ground.member("bob")
    (key,) = ground.begin(ann)
    assert not ground.finish(bob, key)
    assert not ground.fail(bob, key)
    assert {key: "running"} == ground.states()
    assert (0, 0) == tally(ground, bob)
    assert ground.finish(ann, key)


def test_the_same_words_of_another_are_not_its_own(ground: Ground) -> None:
    """Who fails a task that another has failed, with the very same condition, has not decided it."""
    ann, bob = ground.member("ann"), ground.member("bob")
    (key,) = ground.begin(ann)
    assert ground.fail(ann, key, message="no")
    assert not ground.fail(bob, key, message="no")
    assert ground.fail(ann, key, message="no")


def test_names_that_begin_alike_are_told_apart(ground: Ground) -> None:
    """A worker whose id begins like another's, of whatever length, does not pass for it."""
    for short in ("a", "b" * 15, "c" * 31, "d" * 32, "e" * 255):
        one, other = ground.member(short), ground.member(short + "b")
        (key,) = ground.begin(other)
        assert not ground.finish(one, key)
        assert ground.finish(other, key)


def test_a_queued_task_is_nobodys_to_settle(ground: Ground) -> None:
    """A task that waits can be settled by no worker."""
    (key,) = ground.push()
    worker = ground.member()
    assert not ground.finish(worker, key)
    assert not ground.fail(worker, key)
    assert {key: "queued"} == ground.states()


def test_an_older_attempt_decides_nothing(ground: Ground) -> None:
    """A task that was queued again runs under a new attempt; verdicts of the old one are void, even of the
    same worker."""
    lost, worker = ground.member(on_lost="requeue"), ground.member(on_lost="requeue")
    (key,) = ground.push(retries=3)
    assert [key] == ground.claim(lost)
    ground.expire(lost)
    ground.store.reap()
    assert [key] == ground.claim(worker)
    assert 2 == ground.account().running[key][1]
    assert not ground.finish(lost, key, attempt=1)
    assert not ground.finish(worker, key, attempt=1)
    assert not ground.fail(worker, key, attempt=1)
    assert {key: "running"} == ground.states()
    assert ground.finish(worker, key, attempt=2, y=2)
    assert not ground.finish(lost, key, attempt=1, y=1)
    assert {"y": 2} == ground.account().finished[0][10]


def test_attempts_are_told_apart_whatever_their_length(ground: Ground) -> None:
    """Attempts are compared as numbers, not as the beginning of bytes, where they need more than one too."""
    (key,) = ground.push(retries=400)
    for attempt in range(1, 261):
        worker = ground.member("bob", on_lost="requeue")
        assert [key] == ground.claim(worker)
        assert attempt == ground.account().running[key][1]
        if attempt in (1, 2, 127, 128, 129, 255, 256, 257):
            others = {1, 2, 16, 127, 128, attempt - 1, attempt + 1, attempt * 256} - {attempt, 0}
            assert not any(ground.finish(worker, key, attempt=other) for other in others)
            assert {key: "running"} == ground.states()
        ground.expire(worker)
        assert ["bob"] == ground.store.reap()
        worker.store.close()


def test_a_batch_is_settled_as_one(ground: Ground) -> None:
    """Finishes and failures in one call, with an answer for each."""
    ann, bob = ground.member(), ground.member()
    mine, theirs = ground.begin(ann, 3), ground.begin(bob, 1)
    verdicts = [
        ground.finishing(mine[0], y=0),
        ground.failing(mine[1]),
        ground.finishing(theirs[0]),
        ground.finishing(mine[2], y=2),
    ]
    tape = Tape(ann)
    assert [True, True, False, True] == ann.settle(verdicts, {})
    assert [1, 1, 0, 1] == tape.play()[-1][2]
    assert ["finished", "failed", "running", "finished"] == [
        ground.states()[key] for key in (mine[0], mine[1], theirs[0], mine[2])
    ]
    assert (2, 1) == tally(ground, ann)


def test_a_batch_that_says_a_key_twice_keeps_the_first(ground: Ground) -> None:
    """Within a batch the first word stands too."""
    worker = ground.member()
    one, two, three = ground.begin(worker, 3)
    verdicts = [ground.finishing(one, y=1), ground.finishing(one, y=2)]
    verdicts += [ground.failing(two), ground.finishing(two), ground.finishing(three), ground.failing(three)]
    assert [True, False, True, False, True, False] == worker.settle(verdicts, {})
    found = ground.account()
    assert [(one, {"y": 1}), (three, {})] == [(row[3], row[10]) for row in found.finished]
    assert [two] == found.failures
    assert (2, 1) == tally(ground, worker)


def test_an_unknown_key_leaves_all_as_it_was(ground: Ground) -> None:
    """A batch with a key the network does not have is refused whole, naming the key."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    with pytest.raises(UnknownKey, match="nonsense") as caught:
        worker.settle([ground.finishing(key), ground.finishing("nonsense")], {})
    assert ["nonsense"] == caught.value.fields["keys"]
    assert {key: "running"} == ground.states()


@pytest.mark.parametrize("kind", ["finish", "fail"])
def test_a_killed_worker_decides_nothing_more(ground: Ground, kind: str) -> None:
    """Its tasks failed with the kill; its late verdict loses, and it is told that it is gone."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    ground.store.stop([worker.card.worker_id], kill=True)
    before = ground.account()
    assert not getattr(ground, kind)(worker, key)
    assert worker.gone
    assert before == ground.account()
    assert "Worker was killed" == before.failed[key][2]["message"]


@pytest.mark.parametrize("kind", ["finish", "fail"])
def test_a_task_settled_before_the_kill_stays_settled(ground: Ground, kind: str) -> None:
    """The kill comes second and finds nothing to fail."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    assert getattr(ground, kind)(worker, key)
    before = ground.account()
    ground.store.stop([worker.card.worker_id], kill=True)
    assert before == ground.account()


@pytest.mark.parametrize("kind", ["finish", "fail"])
def test_a_lost_worker_decides_nothing_more(ground: Ground, kind: str) -> None:
    """The zombie's verdict comes after its task was failed for it."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    ground.expire(worker)
    assert [worker.card.worker_id] == ground.store.reap()
    before = ground.account()
    assert not getattr(ground, kind)(worker, key)
    assert worker.gone
    assert before == ground.account()


def test_what_was_settled_before_the_loss_may_be_said_again(ground: Ground) -> None:
    """A worker that finished, lost the reply and was then declared lost hears that the result counts."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    assert ground.finish(worker, key)
    ground.expire(worker)
    ground.store.reap()
    assert ground.finish(worker, key)
    assert {key: "finished"} == ground.states()


@pytest.mark.parametrize("kind", ["finish", "fail"])
def test_after_a_reset_nothing_is_decided(ground: Ground, kind: str) -> None:
    """A verdict for a network that is gone says False and brings nothing back."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    ground.store.reset_all([worker.card.worker_id])
    assert not getattr(ground, kind)(worker, key)
    assert worker.gone
    assert {} == ground.states()


def test_after_a_reset_of_tasks_the_old_ones_are_unknown(ground: Ground) -> None:
    """The worker stays a member; the task it held is gone, and new ones work."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    ground.store.reset_tasks()
    with pytest.raises(UnknownKey, match=key):
        ground.finish(worker, key)
    assert not worker.gone
    (new,) = ground.begin(worker)
    assert ground.finish(worker, new)
    assert {new: "finished"} == ground.states()


def test_a_new_life_does_not_settle_for_the_old(ground: Ground) -> None:
    """Who takes over an id does not hold what its last holder held, nor may that one speak any more."""
    old = ground.member("ann")
    (key,) = ground.begin(old)
    ground.expire(old)
    ground.store.reap()
    new = ground.member("ann")
    assert not ground.finish(new, key)
    (fresh,) = ground.begin(new)
    assert not ground.finish(old, key)
    assert old.gone and not new.gone
    assert ground.finish(new, fresh)
    assert {key: "failed", fresh: "finished"} == ground.states()


def test_a_life_that_is_over_does_not_settle_for_the_next(ground: Ground) -> None:
    """Neither does the old life decide what the new one, of the same name, is at."""
    old = ground.member("ann")
    ground.begin(old)
    ground.expire(old)
    ground.store.reap()
    new = ground.member("ann")
    (key,) = ground.begin(new)
    assert not ground.finish(old, key)
    assert "running" == ground.states()[key]
    assert ground.finish(new, key)
