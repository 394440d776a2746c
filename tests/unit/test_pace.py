"""How many tasks a worker takes at once, decided from what the last ones took."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushlight._pace import IN_HAND, MOST, Pace

TIMES = st.floats(0, 10 * IN_HAND)


@pytest.mark.parametrize(
    ("size", "n", "seconds", "longest", "expected"),
    [
        (1, 1, 1e-6, 1e-6, 2),
        (8, 8, 8e-6, 1e-6, 16),
        (MOST, MOST, 1e-5, 1e-6, MOST),
        (16, 16, 16 * IN_HAND / 4, IN_HAND / 4, 4),
        (16, 16, 16 * IN_HAND / 1.5, IN_HAND / 1.5, 1),
        (16, 16, IN_HAND, IN_HAND, 1),
        (4, 0, 0.0, 0.0, 4),
        (1, 1, 0.0, 0.0, 2),
        (1, 1, 3600.0, 3600.0, 1),
    ],
)
def test_sizes(size: int, n: int, seconds: float, longest: float, expected: int) -> None:
    """Twice as many while they are short, as many as fit, and one where one was long."""
    assert expected == Pace(size).after(n, seconds, longest).size


def test_nothing_is_known_at_first() -> None:
    """The first task is taken alone."""
    assert 1 == Pace().size


@given(st.integers(1, MOST), st.lists(TIMES, min_size=1, max_size=MOST))
def test_what_is_in_hand_is_little_work(size: int, times: list[float]) -> None:
    """Never more tasks than bounds allow, and never more than would fit if all are like the last ones."""
    new = Pace(size).after(len(times), sum(times), max(times)).size
    assert 1 <= new <= min(MOST, 2 * size)
    mean = sum(times) / len(times)
    assert new == 1 or new * mean <= IN_HAND * (1 + 1e-9)


@given(st.lists(st.lists(TIMES, min_size=1, max_size=MOST), max_size=20))
def test_a_long_task_means_one_by_one(batches: list[list[float]]) -> None:
    """Whatever came before."""
    pace = Pace()
    for times in batches:
        pace = pace.after(len(times), sum(times), max(times))
    assert 1 == pace.after(3, IN_HAND, IN_HAND).size


def test_short_tasks_are_soon_taken_by_the_dozen() -> None:
    """A handful of trips from one to the most."""
    pace, trips = Pace(), 0
    while pace.size < MOST:
        pace, trips = pace.after(pace.size, pace.size * 1e-6, 1e-6), trips + 1
    assert 7 == trips
