"""Collectors that are gone, or were held to be: what is known of them stays true, whatever comes late."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from ground import Ground, Tape, hold_to_be_gone, lose_reply, new_tasks
from rushlight._store_calls import Collecting


def ended(ground: Ground, keys: str) -> None:
    """Tasks that have finished."""
    ground.store.write(ground.store.scripts.keep_spec)
    ground.store.record(new_tasks(*keys), "f", [ground.payload()] * len(keys))


def test_a_late_packet_of_a_collector_that_is_gone(ground: Ground) -> None:
    """It neither takes anything nor brings the collector back to the books as of then: what it has handed out
    is not given out once more."""
    store, one = ground.another(), ground.store
    ended(ground, "ab")
    tape = Tape(store)
    assert [True] == store.collect(Collecting("one", "host:1:1"), 1, ["a"])
    store.collect(Collecting("one", "host:1:1", 1), 1, [])
    hold_to_be_gone(one, "one")
    for late in range(2):
        tape.play(late)
    assert [] == one.collectors()[1]
    assert [b"one:1", None] == one.marks(["a", "b"])


def test_a_late_packet_takes_nothing(ground: Ground) -> None:
    """What another had when a packet was sent, and has given back since, is not its sender's, who would not
    know of it."""
    store, others = ground.another(), ground.store
    ended(ground, "a")
    assert [True] == others.collect(Collecting("other", "host:2:2"), 1, ["a"])
    tape = Tape(store)
    assert [False] == store.collect(Collecting("one", "host:1:1"), 1, ["a"])
    hold_to_be_gone(others, "other")
    assert [[b"ok", [0], b"", 0, 1]] == tape.play()
    assert [None] == others.marks(["a"])
    assert [True] == store.collect(Collecting("one", "host:1:1", 1), 2, ["a"])


def test_who_was_held_to_be_gone_hears_so(ground: Ground) -> None:
    """The network knows with which packet a collector has begun, also the second time, and also where the
    answer is lost; nothing is given to one that is gone."""
    store, others = ground.another(), ground.store
    ended(ground, "ab")
    one = Collecting("one", "host:1:1")
    tape = Tape(store)
    store.collect(one, 1, ["a"])
    assert 1 == store.began
    hold_to_be_gone(others, "one")
    assert [[b"ok", [0], b"", 0, 0]] == tape.play()
    assert [None, None] == others.marks(["a", "b"])
    lose_reply(store)
    assert [True] == store.collect(one, 2, ["b"])
    assert 2 == store.began
    store.collect(one, 2, [])
    assert 2 == store.began


def test_who_is_heard_again_is_not_taken_back_from(ground: Ground) -> None:
    """Who is heard while another finds him gone keeps what he holds; that is said late, too."""
    store, others = ground.another(), ground.store
    ended(ground, "ab")
    one = Collecting("one", "host:1:1")
    store.collect(one, 1, ["a"])
    (found,) = others.collectors()[1]
    held = others.given_to(found)
    store.collect(one, 2, ["b"])
    assert not others.uncollect(found, held)
    assert [b"one:1", b"one:2"] == others.marks(["a", "b"])
    tape = Tape(others)
    hold_to_be_gone(others, "one")
    store.collect(one, 3, ["a"])
    tape.play()
    assert [b"one:3", None] == others.marks(["a", "b"])
    assert ["one"] == [other.token for other in others.collectors()[1]]


def test_who_says_goodbye_is_not_brought_back(ground: Ground) -> None:
    """Not even by a packet that was held up before, and is heard for the first time."""
    store = ground.store
    ended(ground, "a")
    one = Collecting("one", "host:1:1")
    store.collect(one, 1, [])
    said = ("one", 2, 1, one.process, "", store._next_packet(), "a")
    store.leave_collecting("one", {})
    assert [b"ok", [0], b"", 0, 0] == store.link.call(store.scripts.collect(store.epoch, *said))
    assert [] == store.collectors()[1]


def test_what_is_known_of_those_that_are_gone_is_bounded(ground: Ground) -> None:
    """Of the last hundred it stays, and of others for a day."""
    store, control = ground.store, ground.key("control")
    store.write(store.scripts.keep_spec)
    for n in range(103):
        other = ground.another()
        other.collect(Collecting(f"~c{n}", "host:1:1"), 1, [], "begin")
        other.push(replace(new_tasks(f"k{n}"), sending=lambda n=n: f"~c{n} 1"))
        other.leave_collecting(f"~c{n}", {})
        other.close()

    def known() -> list[list[int]]:
        fields = [field.decode() for field in ground.raw.hkeys(control)]
        return [[n for n in range(104) if f"{kind}:~c{n}" in fields] for kind in "ns"]

    assert [[*range(103)]] * 2 == known()
    day = 86_401_000_000
    for n in (0, 2, 50):
        last, began, gone = msgspec.msgpack.decode(ground.raw.hget(control, f"n:~c{n}"))
        ground.raw.hset(control, f"n:~c{n}", msgspec.msgpack.encode([last, began, gone - day]))
    store.collect(Collecting("~c103", "host:1:1"), 1, [])
    store.leave_collecting("~c103", {})
    left = [n for n in range(103) if n not in (0, 2, 50)]
    assert [[*left, 103], left] == known()
