"""Creating tasks: queued, running, finished, failed. Sent twice, nothing is created twice."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

import pytest

from ground import Ground, Tape, lose_reply, new_tasks
from harness import Background, keys_of
from rushlight import Rush
from rushlight.errors import RushlightError, WorkerLost


def test_tasks_are_queued_in_order(ground: Ground) -> None:
    """What is pushed first is taken first, over calls and batches."""
    keys = ground.push(3) + ground.push(2)
    assert keys == ground.account().order
    assert keys == ground.claim(ground.member(), 10)


def test_a_large_batch_is_split_and_stays_whole(ground: Ground) -> None:
    """More tasks than one script call takes come in as one batch, in order."""
    keys = ground.push(1234)
    assert keys == ground.account().order
    assert keys == [row[3] for row in ground.store.view(["queued"]).queued]


def test_a_push_sent_again_creates_nothing(ground: Ground) -> None:
    """The same bytes again, at once or after the task has moved on, change nothing."""
    tape = Tape(ground.store)
    (key,) = ground.push()
    tape.play()
    assert {key: "queued"} == ground.states()
    assert [key] == ground.account().order
    worker = ground.member()
    assert [key] == ground.claim(worker)
    tape.play()
    assert {key: "running"} == ground.states()
    assert ground.finish(worker, key)
    tape.play()
    assert {key: "finished"} == ground.states()
    assert [] == ground.account().order


def test_a_large_push_sent_again_creates_nothing(ground: Ground) -> None:
    """Nor do those of plain tasks, where a call looks whether it has created all of them already."""
    with Rush(ground.network, ground.url) as rush:
        tape = Tape(rush._store)
        keys = rush.push_tasks([{"x": 1}] * 300)
        assert keys[:1] == ground.claim(ground.member())
        tape.play()
        assert keys[1:] == ground.account().order
        assert 299 == len(rush.empty_queue())
        tape.play(0)
        assert {"failed": 299, "running": 1} == Counter(ground.states().values())


@pytest.mark.parametrize("at", [0, 1700, 2599])
def test_many_tasks_are_encoded_as_they_are_sent(ground: Ground, at: int) -> None:
    """Whatever one of them holds that takes another way than the rest: each has its own values, in order."""
    special = [2**80, "no \ud800 text", b"long" * 20_000, "x" * 300]
    with Rush(ground.network, ground.url) as rush:
        for value in special:
            xss = [{"x": i} for i in range(2600)]
            xss[at] = {"x": value, "z": None}
            keys = rush.push_tasks(xss, xs_extra={"e": 1} if value == special[0] else None)
            tasks = {task.key: task for task in rush.fetch_queued_tasks(as_="tasks")}
            assert xss == [tasks[key].xs for key in keys]
            assert ({"e": 1} if value == special[0] else None) == tasks[keys[at]].xs_extra


@pytest.mark.parametrize("bad", [{"x\ud800": 1}, {"x": (i for i in ())}, {1: 1}])
def test_what_cannot_be_stored_is_refused_before_anything_is_sent(ground: Ground, bad: Any) -> None:
    """Wherever it stands among many."""
    with Rush(ground.network, ground.url) as rush:
        with pytest.raises(RushlightError):
            rush.push_tasks([{"x": 1}] * 3000 + [bad])
        assert 0 == rush.n_tasks


@pytest.mark.parametrize("how", ["reset", "break", "no scripts"])
def test_a_long_push_gets_through(ground: Ground, how: str) -> None:
    """All its tasks are there once and in order, whatever happens between the first of them and the last."""
    with Rush(ground.network, ground.url) as rush:
        rush.push_tasks([{"x": 1}])
        link, calls = rush._store.link, 0
        send = link._send_part

        def sending(commands: bytes) -> Exception | None:
            nonlocal calls
            calls += 1
            if calls == 3 and how == "reset":
                ground.another().reset_tasks()
            elif calls == 3 and how == "break":
                link._socket.shutdown(socket.SHUT_RDWR)
            elif calls == 3:
                ground.raw.script_flush()
            return send(commands)

        link._send_part = sending  # type: ignore[method-assign]
        keys = rush.push_tasks([{"x": i} for i in range(5500)])
        order = ground.account().order
        assert keys == (order if how == "reset" else order[1:])
        assert {"reset": 12, "break": 3, "no scripts": 6}[how] == calls


def test_numbers_of_tasks_grow_by_one(ground: Ground) -> None:
    """Over the borders of their encoding, and of calls."""
    with Rush(ground.network, ground.url) as rush:
        for n in (1, 126, 2, 130, 4000, 1):
            keys = rush.push_tasks([{"x": 1}] * n)
        assert list(range(1, 4261)) == sorted(row[7] for row in ground.store.view(["queued"]).queued)
        assert keys == ground.account().order[-1:]


def test_a_push_whose_reply_is_lost_happens_once(ground: Ground) -> None:
    """The client sends again by itself, and the network has the tasks once."""
    ground.push()
    lose_reply(ground.store)
    keys = ground.push(700)
    assert [*ground.account().order][1:] == keys


def test_running_tasks_are_created_at_a_worker(ground: Ground) -> None:
    """One record in one place, with the worker, the first attempt, and creation equal to start."""
    worker = ground.member("ann")
    (key,) = ground.begin(worker)
    (row,) = ground.account().running.values()
    assert ("ann", 1, key, {"i": 0}) == (row[0], row[1], row[3], row[4])
    assert row[6] == row[8] > 1e15


def test_running_tasks_sent_again_are_created_once(ground: Ground) -> None:
    """The same bytes again, at once or after the task is final, change nothing."""
    worker = ground.member()
    tape = Tape(worker)
    first, second = ground.begin(worker, 2)
    tape.play()
    before = ground.account().running
    assert ground.finish(worker, first)
    assert ground.fail(worker, second)
    tape.play(0)
    assert {first: "finished", second: "failed"} == ground.states()
    assert {first, second} == before.keys()


def test_running_tasks_whose_reply_is_lost_are_created_once(ground: Ground) -> None:
    """The worker's client sends again by itself."""
    worker = ground.member()
    lose_reply(worker)
    keys = ground.begin(worker, 3)
    assert dict.fromkeys(keys, "running") == ground.states()


@pytest.mark.parametrize("kind", ["f", "x"])
def test_final_tasks_are_created_once(ground: Ground, kind: str) -> None:
    """Results known before are recorded in the order given, also when sent again."""
    batch = ground.encode(600)
    payload = ground.payload(y=1) if kind == "f" else ground.condition("bad")
    tape = Tape(ground.store)
    lose_reply(ground.store)
    ground.store.record(batch, kind, [payload] * 600)
    tape.play()
    found = ground.account()
    assert batch.keys == ([row[3] for row in found.finished] if kind == "f" else found.failures)


def test_a_key_is_created_once_in_any_state(ground: Ground) -> None:
    """Whoever comes second with a key, in whatever way, finds the task and leaves it alone."""
    batch = new_tasks("twice")
    worker = ground.member()
    ground.store.push(batch)
    worker.begin(batch)
    ground.store.record(batch, "f", [ground.payload()])
    ground.store.record(batch, "x", [ground.condition()])
    assert {"twice": "queued"} == ground.states()
    ground.store.drop({"message": "gone"})
    ground.store.push(batch)
    worker.begin(batch)
    assert {"twice": "failed"} == ground.states()


def test_a_key_twice_in_one_batch_is_one_task(ground: Ground) -> None:
    """Also within a batch a key names one task."""
    ground.store.push(new_tasks("same", "same"))
    assert {"same": "queued"} == ground.states()
    assert ["same"] == ground.account().order


def test_sequence_numbers_follow_creation(ground: Ground) -> None:
    """Every task has a number of its own, whoever created it and in whatever state."""
    worker = ground.member()
    keys = ground.push(2) + ground.begin(worker, 2)
    ground.store.record(batch := ground.encode(2), "f", [ground.payload()] * 2)
    keys += batch.keys
    with Rush(ground.network, ground.url) as rush:
        seqs = {task.key: task.seq for task in rush.fetch_tasks(as_="tasks")}
    assert keys == sorted(seqs, key=seqs.__getitem__)
    assert [1, 2, 3, 4, 5, 6] == sorted(seqs.values())


def test_many_creators_at_once_lose_nothing(ground: Ground) -> None:
    """Threads that push through stores of their own end with every task queued once."""
    stores = [ground.another() for _ in range(4)]
    batches = [[ground.encode(5) for _ in range(10)] for _ in stores]

    def push_all(store, mine):
        for batch in mine:
            store.push(batch)

    for call in [Background(push_all, *pair) for pair in zip(stores, batches, strict=True)]:
        call.result()
    keys = {key for mine in batches for batch in mine for key in batch.keys}
    assert 200 == len(keys)
    assert dict.fromkeys(keys, "queued") == ground.states()


def test_large_values_are_stored_apart_once(ground: Ground) -> None:
    """Equal values above the spill size are stored once, by content, also when sent again."""
    tape = Tape(ground.store)
    ground.store.push(ground.store.encode_tasks([{"x": "a" * 100_000}] * 3, [None] * 3))
    tape.play()
    assert 1 == ground.raw.hlen(ground.key("blobs"))
    assert 3 == len(ground.states())


def test_nobody_creates_who_is_no_member(ground: Ground) -> None:
    """A worker that has left, was killed or declared lost creates no task."""
    left, killed, lost = ground.member(), ground.member(), ground.member()
    left.leave("left")
    ground.store.stop([killed.card.worker_id], kill=True)
    ground.expire(lost)
    ground.store.reap()
    for worker in (left, killed, lost):
        with pytest.raises(WorkerLost, match=worker.card.worker_id):
            ground.begin(worker)
        assert worker.gone
    assert {} == ground.states()


def test_nothing_of_an_old_epoch_is_created(ground: Ground) -> None:
    """Bytes that were on their way when the network was reset do not bring it back."""
    worker = ground.member()
    ground.push()
    tape, worker_tape = Tape(ground.store), Tape(worker)
    ground.push()
    ground.store.record(ground.encode(), "f", [ground.payload()])
    ground.begin(worker)
    ground.store.reset_all([worker.card.worker_id])
    assert {b"EPOCH"} == {tape.play(at)[-1][0] for at in (0, 1)}
    assert b"EPOCH" == worker_tape.play()[-1][0]
    assert [] == keys_of(ground.raw, ground.network)
