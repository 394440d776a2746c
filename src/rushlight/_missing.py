"""Calls whose ends were missed: their results were collected and removed while their controller was held to
be gone, as it had stood still, or was cut off, for a minute.

Owns how they are found: nobody is to wait for them for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from ._feed import Feed
from ._futures import Register
from ._store import Store
from .errors import DataMissing

#: Seconds between two looks: a call is about to be sent for less.
_PAUSE: Final = 1.0


class Missing:
    """Looks for them, once something was missed: from the thread of the feed, over and over until all that is
    waited for is known to be there."""

    def __init__(self, store: Store, register: Register, feed: Feed, flush: Callable[[], None]) -> None:
        """``flush`` returns once all calls have been sent."""
        self._store = store
        self._register = register
        self._feed = feed
        self._flush = flush
        self._looking = False
        self._next = 0.0
        #: Calls that were not there at the last look.
        self._doubtful: set[str] = set()

    def begin(self) -> None:
        """Something may have been missed."""
        self._looking, self._next, self._doubtful = True, time.monotonic() + _PAUSE, set()

    def due(self) -> bool:
        """Whether it is time to look."""
        return self._looking and time.monotonic() >= self._next

    def look(self) -> None:
        """Ends the futures of calls that are twice found not to be there."""
        self._next = time.monotonic() + _PAUSE
        waiting = self._register.keys()
        self._flush()
        place = self._store.place()
        states = self._store.look(waiting)
        gone = {key for key, state in zip(waiting, states, strict=True) if state is None}
        for key in gone & self._doubtful:
            future = self._register.take(key)
            self._feed.forget(key)
            if future is not None:
                text = f"the result of call {key!r} was collected by another controller and not kept"
                future._end(None, DataMissing(text, keys=[key]))
        self._doubtful = gone - self._doubtful
        if not self._doubtful and place.unended == 0 and self._feed.has_read(place):
            self._feed.nothing_left()
            self._looking = False
