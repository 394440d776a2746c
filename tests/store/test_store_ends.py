"""Waiting for ends of tasks, and for the next task: who is woken by what, and in how many trips."""

from __future__ import annotations

import pytest

from ground import Ground, Stats, blocked
from harness import Background, wait_until

PROMISE = 60.0


def rounds(ground: Ground) -> list[bool]:
    """Whether there was an event at the creation of a task, at its beginning and at its end."""
    member = ground.member()
    events = ground.key("events")

    def last() -> object:
        return ground.raw.exists(events) and ground.raw.xinfo_stream(events)["last-generated-id"]

    before, found = last(), []
    for step in (ground.push, lambda: ground.claim(member), lambda: ground.finish(member, running(ground))):
        step()
        found.append(last() != before)
        before = last()
    return found


def running(ground: Ground) -> str:
    """The one task that runs."""
    (key,) = ground.raw.hkeys(ground.key("running"))
    return key.decode()


@pytest.fixture
def met(ground: Ground) -> Ground:
    """A network that has begun."""
    ground.push()
    ground.store.drop({"message": "no"})
    return ground


def test_who_waits_for_ends_is_woken_by_ends_alone(met: Ground) -> None:
    """Tasks that come and begin wake nobody who waits for ends."""
    assert [False, False, False] == rounds(met)
    met.store.ended(0, 0, 100, PROMISE)
    assert [False, False, True] == rounds(met)


@pytest.mark.parametrize("seconds", [1.0, 2 * PROMISE])
@pytest.mark.parametrize("first", ["ends", "all"])
def test_who_waits_for_all_is_woken_by_all(met: Ground, first: str, seconds: float) -> None:
    """Whoever was there before, and for however long."""
    if first == "ends":
        met.store.ended(0, 0, 100, PROMISE)
    met.store.watch(seconds)
    if first == "all":
        met.store.ended(0, 0, 100, PROMISE)
    assert [True, True, True] == rounds(met)


def test_a_wait_for_ends_brings_what_has_ended(met: Ground) -> None:
    """One trip from the wait to the rows, and to the event from which on to wait again."""
    member = met.member()
    (key,) = met.begin(member)
    place = met.store.place()
    found = met.store.ended(place.finished, place.failures, 100, PROMISE)
    assert [] == found.finished
    with Stats(met.raw) as stats:
        after = (found.event, 30.0, place.finished, place.failures, 100)
        waiting = Background(met.store.ended_after, *after)
        wait_until(lambda: blocked(met) == 1)
        met.finish(member, key)
        ended = waiting.result(30)
    assert [key] == [row[3] for row in ended.finished]
    assert (1, 1) == (stats.calls["xread"], stats.calls["evalsha"])
    # Nothing has happened since, and a look that does not wait says so.
    again = met.store.ended_after(ended.event, 0.0, place.finished + 1, place.failures, 100)
    assert ([], ended.event) == (again.finished, again.event)


def test_a_wait_behind_a_task_brings_the_next(met: Ground) -> None:
    """For a worker that had a task just now a wait that is served is one trip."""
    member = met.member()
    met.push()
    met.claim(member)
    assert [] == met.claim(member)
    with Stats(met.raw) as stats:
        waiting = Background(member.claim, 1, 60.0)
        wait_until(lambda: blocked(met) == 1)
        (key,) = met.push()
        assert [key] == met.taken(waiting.result(30))
    assert (1, 2) == (stats.calls["blpop"], stats.calls["evalsha"])


def test_a_result_and_the_next_task_are_one_trip_also_where_it_has_to_be_waited_for(met: Ground) -> None:
    """The result is there at once, the task when it comes."""
    member = met.member()
    (first,) = met.push()
    met.claim(member)
    assert not member.expects_none
    met.claim(member)
    assert member.expects_none
    trips = member.store.link.trips
    waiting = Background(member.finish_and_wait, met.finishing(first, y=1), 60.0)
    wait_until(lambda: met.states()[first] == "finished" and blocked(met) == 1)
    (second,) = met.push()
    decided, values = waiting.result(30)
    assert (True, [second]) == (decided, met.taken(values))
    assert (trips, True) == (member.store.link.trips, member.expects_none)


def test_a_wait_behind_a_result_tells_of_more(met: Ground) -> None:
    """Where more is queued than the task that ends the wait, its worker knows, and another is woken."""
    member = met.member()
    (first,) = met.push()
    met.claim(member)
    met.push(2)
    decided, values = member.finish_and_wait(met.finishing(first, y=1), 5.0)
    assert (True, 1, False) == (decided, len(values), member.expects_none)
    assert 1 == met.raw.llen(met.key("bell"))


@pytest.mark.parametrize("why", ["decided", "line", "draining", "over"])
def test_a_result_that_is_no_plain_one_is_told_at_once(met: Ground, why: str) -> None:
    """It does not wait for the next task to be told of its result, or of what hinders it."""
    member = met.member()
    (key,) = met.begin(member)
    if why == "decided":
        met.finish(member, key, y=1)
    elif why == "line":
        met.raw.hset(met.key("control"), "line", "1")
    elif why == "draining":
        met.raw.hset(met.key("control"), "drain", "1")
    else:
        met.store.stop([member.card.worker_id], kill=True)
    decided, values = member.finish_and_wait(met.finishing(key, y=1), 60.0)
    assert (why != "over", []) == (decided, values)
    assert (why == "over") == (met.states()[key] == "failed")
