"""How long a wait for many tasks lets pass between an event and the look at what has come."""

from __future__ import annotations

import pytest

from rushlight._waits import breath


@pytest.mark.parametrize("pending", [1, 100])
def test_for_few_tasks_every_event_is_looked_at(pending: int) -> None:
    """At once, whatever came before."""
    assert 0.0 == breath(pending, 5, 1.0)


@pytest.mark.parametrize(
    ("pending", "came", "seconds", "expected"),
    [
        (20_000, 0, 0.5, 0.002),  # nothing is known yet
        (20_000, 1000, 0.01, 0.05),  # a fifth of a second is left
        (4000, 2000, 0.04, 0.02),
        (200, 2000, 0.02, 0.002),  # two milliseconds
        (10**6, 1, 3600.0, 0.05),
    ],
)
def test_for_many_it_is_a_part_of_what_they_will_take(
    pending: int, came: int, seconds: float, expected: float
) -> None:
    """Between two milliseconds and fifty, so that the last ones are heard of as soon as ever."""
    assert expected == pytest.approx(breath(pending, came, seconds))
