"""Calls of managers that arrive twice: carried out once, and answered the same both times."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ground import Ground, Tape, lose_reply
from rushlight._store import Store

Call = Callable[[Store, list[str]], object]
GONE = {"message": "gone"}


def failed_tasks(ground: Ground, n: int = 3) -> list[str]:
    """Tasks that have failed for good."""
    keys = ground.push(n)
    ground.store.drop(GONE, keys)
    return keys


def workers(ground: Ground, n: int = 3) -> list[str]:
    """Running workers."""
    return [ground.member().card.worker_id for _ in range(n)]


#: What is done, to what there is before it.
CALLS: dict[str, tuple[Callable[[Ground], list[str]], Call]] = {
    "empty_queue": (lambda ground: ground.push(3), lambda store, _: store.drop(GONE)),
    "cancel_tasks": (lambda ground: ground.push(3), lambda store, keys: store.drop(GONE, keys)),
    "retry_tasks": (failed_tasks, lambda store, keys: store.retry(keys, ignore=False, next_seed=False)),
    "kill": (workers, lambda store, ids: store.stop(ids, kill=True)[0]),
    "terminate": (workers, lambda store, ids: store.stop(ids, kill=False)[0]),
}
every_call = pytest.mark.parametrize("name", CALLS)


@every_call
def test_a_lost_reply_is_said_again(ground: Ground, name: str) -> None:
    """Whose answer was lost hears the same answer, not that there was nothing left to do."""
    prepare, call = CALLS[name]
    named = prepare(ground)
    lose_reply(ground.store)
    assert named == call(ground.store, named)


@every_call
def test_a_late_packet_does_nothing_more(ground: Ground, name: str) -> None:
    """The bytes of a call arrive again when its keys or ids are in use again: it was carried out."""
    prepare, call = CALLS[name]
    tape = Tape(ground.store)
    named = prepare(ground)
    call(ground.store, named)
    sent = len(tape.sent) - 1
    if name == "empty_queue":
        ground.push(2)
    elif name == "retry_tasks":
        ground.store.drop(GONE, named)
    elif name == "cancel_tasks":
        ground.store.retry(named, ignore=True, next_seed=False)
    else:
        ground.store.stop(named, kill=True)
        for wid in named:
            ground.member(wid)
    before = (ground.states(), ground.raw.hgetall(ground.key("control")))
    assert [b"ok", [name.encode() for name in named]] == tape.play(sent)[0][:2]
    assert before == (ground.states(), ground.raw.hgetall(ground.key("control")))


def test_another_call_is_another(ground: Ground) -> None:
    """The same words said on purpose are carried out."""
    assert 3 == len(ground.push(3)) == len(ground.store.drop(GONE))
    assert 2 == len(ground.push(2)) == len(ground.store.drop(GONE))


def test_answers_do_not_pile_up(ground: Ground) -> None:
    """The last thousand are kept, fewer where they are large, and none for long."""
    for _ in range(1005):
        ground.store.drop(GONE)
    # Beside each answer its number, and once the books.
    assert 2 * 1000 + 1 == ground.raw.hlen(ground.key("answers"))
    assert 0 < ground.raw.pttl(ground.key("answers")) <= 100_000
    for _ in range(10):
        ground.store.stop(["nobody" * (1 << 17)], kill=True)
    assert 2 * 5 + 1 == ground.raw.hlen(ground.key("answers"))


def test_a_resent_failure_with_attempts_left_is_the_same(ground: Ground) -> None:
    """Its author is told True again while the next attempt waits or runs; who has other words is not."""
    ann, ben = ground.member("ann"), ground.member("ben")
    (key,) = ground.push(1, retries=2)
    ground.claim(ann)
    lose_reply(ann)
    assert ground.fail(ann, key, message="no luck")
    assert ground.fail(ann, key, message="no luck")
    assert not ground.fail(ann, key, message="another reason")
    assert not ground.fail(ben, key, message="no luck")
    assert [key] == ground.claim(ben)
    assert ground.fail(ann, key, message="no luck")
    assert not ground.finish(ann, key)
    assert "running" == ground.states()[key]


def test_a_resent_failure_of_a_task_retried_by_hand(ground: Ground) -> None:
    """A manager has put it back meanwhile: it was this attempt that failed all the same."""
    ann = ground.member("ann")
    (key,) = ground.begin(ann)
    assert ground.fail(ann, key)
    assert [key] == ground.store.retry([key], ignore=False, next_seed=False)
    assert ground.fail(ann, key)
    assert {"message": "no"} == ground.store.look_up(key).lapse
