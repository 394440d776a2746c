"""Times at which somebody wants to be woken, few however many are asked for. Pure; the clock is given."""

from __future__ import annotations

import heapq
import math

#: Alarms this close together, in seconds, ring as one, the later.
_STEP = 0.05


class Alarms:
    """Monotonic times, each rung once."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._known: set[float] = set()

    def add(self, at: float) -> None:
        """Rings at this time or up to 50 ms later."""
        rounded = math.ceil(at / _STEP) * _STEP
        if rounded not in self._known:
            self._known.add(rounded)
            heapq.heappush(self._times, rounded)

    @property
    def next(self) -> float:
        """When the next rings; infinity for never."""
        return self._times[0] if self._times else math.inf

    def ring(self, now: float) -> bool:
        """Whether any is due; those that are have rung then."""
        due = False
        while self._times and self._times[0] <= now:
            self._known.discard(heapq.heappop(self._times))
            due = True
        return due
