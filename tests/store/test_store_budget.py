"""Units of a budget where replies are lost and workers come back under their ids."""

from __future__ import annotations

from typing import Any

import pytest

from ground import Ground
from rushlight._budget import Budget, Calls
from rushlight._member import Member


def units(member: Member, n: int = 1) -> Budget:
    """The budget as this worker has it."""
    return Budget(member, Calls(), "units", n)


def interrupt(member: Member) -> None:
    """Ctrl-C while the worker waits for the reply to its next call, which the server has carried out."""
    link: Any = member.store.link
    exchange = link._exchange

    def interrupted(commands: bytes, n: int, wait: float | None) -> list[Any]:
        link._exchange = exchange
        exchange(commands, n, wait)
        raise KeyboardInterrupt

    link._exchange = interrupted


def test_a_take_that_was_given_up_is_asked_again(ground: Ground) -> None:
    """The unit of a call whose answer nobody heard is the next one's, not used up without work."""
    budget = units(ground.member(), 2)
    interrupt(budget._member)
    with pytest.raises(KeyboardInterrupt):
        budget.take(0)
    assert 1 == budget.taken
    assert budget.take(0)
    assert 1 == budget.taken
    assert [True, False] == [budget.take(0), budget.take(0)]


def test_a_unit_nobody_heard_of_can_be_given_back(ground: Ground) -> None:
    """Whoever gives up in the middle of a take may lay down what it may have got."""
    budget = units(ground.member())
    interrupt(budget._member)
    with pytest.raises(KeyboardInterrupt):
        budget.take(0)
    assert budget.give_back()
    assert not budget.give_back()
    assert 0 == budget.taken
    assert budget.take(0)


@pytest.mark.parametrize("lives", [1, 2])
def test_a_new_life_does_not_use_up_the_unit_of_the_old(ground: Ground, lives: int) -> None:
    """A worker is lost with a unit, comes back under its id and finishes other work: the unit is there for
    all."""
    old = ground.member("ann")
    assert units(old).take(0)
    ground.expire(old)
    assert ["ann"] == ground.store.reap()
    for _ in range(lives):
        new = ground.member("ann")
        assert ground.finish(new, *ground.begin(new))
        new.leave("left")
    ben = units(ground.member("ben"))
    assert 0 == ben.taken
    assert ben.take(0)


def test_a_new_life_does_not_bring_back_what_the_old_has_used(ground: Ground) -> None:
    """A unit whose task was finished before the worker was lost stays spent."""
    old = ground.member("ann")
    assert units(old).take(0)
    assert ground.finish(old, *ground.begin(old))
    ground.expire(old)
    assert ["ann"] == ground.store.reap()
    ground.member("ann")
    assert 1 == units(ground.member("ben")).taken
    assert not units(ground.member("cleo")).take(0)
