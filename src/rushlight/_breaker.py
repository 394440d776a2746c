"""When launching is given up for a while: a launcher that only fails is not asked a hundred times.

Pure; the clock is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .errors import LaunchError

#: Failed launches in a row, with none that came up between, after which no more are tried for a while;
#: seconds until the next try, doubled each time, and at most.
_BREAKS: Final = 3
_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0


@dataclass(slots=True)
class Breaker:
    """Counts failed launches; ``error`` once there were too many, until one comes up. After a pause it lets
    one worker be launched, to see."""

    failures: int = 0
    retry_at: float = 0.0
    pause: float = _PAUSE
    error: LaunchError | None = None

    def fail(self, tails: Sequence[str], now: float) -> None:
        """Launches have failed, with these last words."""
        self.failures += len(tails)
        if self.failures < _BREAKS:
            return
        if now >= self.retry_at:
            self.retry_at, self.pause = now + self.pause, min(2 * self.pause, _LONGEST_PAUSE)
        last = tails[-1].strip().splitlines()[-1:] or ["it said nothing"]
        self.error = LaunchError(
            f"{self.failures} launches of workers in a row came to nothing; the last one: {last[0]}",
            log_tail=tails[-1],
            failures=self.failures,
        )

    def succeed(self) -> None:
        """A worker that was launched has come up."""
        self.failures, self.pause, self.retry_at, self.error = 0, _PAUSE, 0.0, None

    def allows(self, n: int, coming: int, now: float) -> int:
        """How many of n workers may be launched, while so many others are about to come."""
        if self.failures < _BREAKS:
            return n
        return 0 if now < self.retry_at or coming else min(n, 1)
