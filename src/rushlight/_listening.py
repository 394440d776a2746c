"""Looking at ends of calls again and again: what has ended, once there is something new.

Owns from where on to listen, and the promise by which ends are told.
"""

from __future__ import annotations

import time
from typing import Final

from ._store import Store
from ._store_feed import Ended

#: Seconds a wait blocks at most before leases are looked at again.
BLOCK: Final = 5.0
#: Seconds for which ends are promised to be told, less than for those who want to hear all, and how many of
#: them must be left for a wait.
_PROMISE, _LEFT = 6.5, 3.0
#: Ends of calls that are read at once.
_AT_ONCE = 2000


class Listener:
    """For one at a time who reads the ends of a network."""

    def __init__(self, store: Store) -> None:
        self._store = store
        #: From which event on to listen, until when events are promised, and when leases or limits run out.
        self._event, self._promised, self._due = "", 0.0, 0.0
        #: The places up to which the last look has seen.
        self._seen = (0, 0)

    def look(self, finished: int, failures: int, wait: float) -> Ended:
        """What has ended from these places on: at once, or where the look before has seen all up to there,
        when there is something new or ``wait`` seconds are over."""
        now, most = time.monotonic(), _AT_ONCE
        # Until it is known what there was, the next look is to see all; as where what was seen was not taken.
        event, self._event = self._event, ""
        if (finished, failures) != self._seen:
            event = ""
        if event and now < min(self._promised - _LEFT, self._due):
            ended = self._store.ended_after(event, self._longest(wait), finished, failures, most)
        else:
            ended = self._store.ended(finished, failures, most, _PROMISE)
            self._promised, self._due = now + _PROMISE, now + ended.next_due
        if not ended.overdue and max(ended.next_finished - finished, ended.next_failures - failures) < most:
            self._event, self._seen = ended.event, (ended.next_finished, ended.next_failures)
        return ended

    def pause(self, seconds: float) -> bool:
        """Where the look before has seen all, waits for something new, and a moment more; else False."""
        if self._event:
            self._store.wait_event(self._event, self._longest(BLOCK))
            time.sleep(seconds)
        return bool(self._event)

    def _longest(self, wait: float) -> float:
        return min(wait, max(0.001, min(self._promised, self._due) - time.monotonic()))
