"""The network's log is capped, and a worker that floods it pushes out its own lines only."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest

from ground import Ground, Stats
from rushlight._names import new_sending
from rushlight._store_roster import LOG_LIMIT, LOG_PAGE


def say(ground: Ground, worker_id: str, *texts: str, most: int = 100, share: int = 10) -> None:
    """A worker's lines, in a log of a small size."""
    packed = [msgspec.msgpack.encode({"text": text}) for text in texts]
    scripts, epoch = ground.store.scripts, ground.store.epoch
    ground.store.link.call(scripts.log(epoch, new_sending(), 60_000, most, share, worker_id, *packed))


def said(ground: Ground, worker_id: str) -> list[str]:
    """What is kept of a worker's lines, oldest first."""
    return [entry["text"] for _, wid, entry in ground.store.logs() if wid == worker_id]


def shares(ground: Ground) -> dict[str, int]:
    """The books of the log: what each is said to hold."""
    found = ground.raw.hgetall(ground.key("shares"))
    return {field.decode(): int(told.split()[0]) for field, told in found.items()}


@pytest.fixture(autouse=True)
def begun(ground: Ground) -> None:
    """There is a network, and the store knows it."""
    ground.push()


def test_a_flood_pushes_out_its_own_lines(ground: Ground) -> None:
    """Of a worker that logs without end the newest are kept, and all that others said, before and after."""
    quiet = [f"ann {i}" for i in range(10)]
    say(ground, "ann", *quiet)
    for start in range(0, 500, 50):
        say(ground, "bob", *(f"bob {i}" for i in range(start, start + 50)))
    assert quiet == said(ground, "ann")
    assert [f"bob {i}" for i in range(410, 500)] == said(ground, "bob")
    say(ground, "cleo", *(f"cleo {i}" for i in range(9)))
    assert (quiet, 9) == (said(ground, "ann"), len(said(ground, "cleo")))


def test_a_flood_that_has_ended_makes_room(ground: Ground) -> None:
    """Whoever holds most gives way to those that go on, until all hold alike."""
    say(ground, "bob", *(f"bob {i}" for i in range(100)))
    for i in range(50):
        say(ground, "ann", f"ann {i}")
    assert [f"ann {i}" for i in range(50)] == said(ground, "ann")
    kept = said(ground, "bob")
    assert [f"bob {i}" for i in range(100 - len(kept), 100)] == kept
    assert 50 <= len(kept) <= 60


def test_one_worker_has_the_whole_log(ground: Ground) -> None:
    """Nobody else is there: its newest lines, as many as are kept at all."""
    for i in range(150):
        say(ground, "bob", f"bob {i}")
    assert [f"bob {i}" for i in range(50, 150)] == said(ground, "bob")


def test_old_lines_of_many_make_room_for_new_ones(ground: Ground) -> None:
    """Where all are modest the oldest lines go, so that a newcomer is heard."""
    for i in range(60):
        say(ground, f"worker-{i}", *(f"{i} {j}" for j in range(5)))
    assert [f"59 {j}" for j in range(5)] == said(ground, "worker-59")
    assert [] == said(ground, "worker-0")
    assert "worker-0" not in str(shares(ground))


def test_long_lines_count_more(ground: Ground) -> None:
    """The log is bounded in bytes too: a long line stands for as many as it has KiB."""
    for i in range(40):
        say(ground, "bob", f"{i} " + "x" * 10_000)
    assert 10 == len(said(ground, "bob"))


def test_the_books_agree_with_the_log(ground: Ground) -> None:
    """Whoever says how much in which order: the total keeps its bounds, each share is what is there."""
    rng = random.Random(7)
    names = [f"worker-{i}" for i in range(6)]
    for _ in range(150):
        name = rng.choice(names[: rng.randint(1, 6)])
        say(ground, name, *("x" * rng.choice([1, 1, 1, 2000]) for _ in range(rng.randint(1, 30))))
        there: Counter[str] = Counter()
        for _, wid, entry in ground.store.logs():
            there[wid] += 1 + len(msgspec.msgpack.encode(entry)) // 1024
        total = sum(there.values())
        books = shares(ground)
        assert total <= 110
        assert total == books.pop("total")
        assert {f"w:{wid}": held for wid, held in there.items()} == books


def test_a_real_log_keeps_what_it_says(ground: Ground) -> None:
    """Through the store's own verb, with its own limits."""
    ground.store.add_logs("ann", [{"text": "begin"}])
    for _ in range(30):
        ground.store.add_logs("bob", [{"text": "line"}] * 1000)
    assert ["begin"] == said(ground, "ann")
    assert LOG_LIMIT - 1 == len(said(ground, "bob"))


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_long_log_is_read_in_pages(ground: Ground, more: int) -> None:
    """All of it, once, in order, and no more of it in one trip than a page; from an entry on as well."""
    texts = [str(i) for i in range(2 * LOG_PAGE + more)]
    say(ground, "ann", *texts, most=10_000)
    with Stats(ground.raw) as stats:
        entries = ground.store.logs()
    assert texts == [entry["text"] for _, _, entry in entries]
    assert {"xrange": 2 if more < 0 else 3} == stats.calls
    assert entries[5:] == ground.store.logs(entries[4][0])
