"""How many tasks a worker takes at once: many where they are short, one where they are not.

Pure; the clock is read by those who ask.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds of work that a worker may have in hand beyond the task it is at.
IN_HAND = 0.002
#: Tasks it takes at most: a trip costs next to nothing per task from a hundred on.
MOST = 128


@dataclass(frozen=True, slots=True)
class Pace:
    """``size``: how many tasks to take next. One at first, as nothing is known of them."""

    size: int = 1

    def after(self, n: int, seconds: float, longest: float) -> Pace:
        """When n tasks have been run, in so many seconds, the longest of them in ``longest``.

        Twice as many at most as before, and no more than fit into ``IN_HAND`` if all are like these. One
        that is too long alone means one by one: nobody knows which will be the next.
        """
        if n < 1:
            return self
        if longest >= IN_HAND:
            return Pace()
        fit = MOST if seconds <= 0 else int(min(MOST, IN_HAND * n / seconds))
        return Pace(max(1, min(2 * self.size, fit)))
