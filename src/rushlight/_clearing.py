"""Removing what was collected, where results are not kept: in batches, behind what every controller has
read.

Owns what is to go and has not gone yet. What may go is the server's to say (``forget``), so nothing here is
lost by a crash: whoever comes next looks through what is left.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from ._codec import Spilled
from ._large import chunk_fields
from ._store import Store
from ._store_calls import Collecting
from ._store_feed import Ends, Leaving

#: Tasks removed by one call.
_AT_ONCE: Final = 500
#: Seconds between two rounds.
_PAUSE: Final = 0.25
#: Seconds between two words of how far a controller has read, where nothing else is said.
_WORD: Final = 0.5
#: Workers that have ended of which something is kept, and seconds between two looks for others.
_ENDED_KEPT: Final = 1000
_LOOK_AGAIN: Final = 60.0
#: How collectors are named of whose tasks none is kept.
FORGETS: Final = "~"


class Search(Protocol):
    """What looks for calls whose ends were missed (``_missing``)."""

    def begin(self) -> None:
        """Some may have been."""

    def due(self) -> bool:
        """Whether it is time to look."""

    def look(self) -> None:
        """Looks."""


class Presence:
    """A controller as the network knows it: its name, its pushes, and whether tasks are removed there, by
    whomever. Then its pushes are numbered, and it says how far it has read."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.active = token.startswith(FORGETS)
        #: How far it has read (``Feed.word``).
        self.word: Callable[[], str] = str
        #: Where it had been held to be gone, and may have missed ends of calls.
        self.search: Search | None = None
        self._lock = threading.Lock()
        self._pushes = 0
        #: When that was told last, whether it waited for nothing then, and as of which push.
        self._said_at, self._idle, self._idle_since = 0.0, False, 0

    @property
    def pushes(self) -> int:
        """The number of the last push."""
        return self._pushes

    def sending(self) -> str:
        """What tells the next push from all others; '' where none need be told."""
        if not self.active:
            return ""
        with self._lock:
            self._pushes += 1
            return f"{self.token} {self._pushes}"

    def has_word(self) -> bool:
        """Whether others may wait to hear how far this one has read."""
        if not self.active or time.monotonic() < self._said_at + _WORD:
            return False
        return not self._idle or self._idle_since != self._pushes

    def say(self) -> str:
        """What is told of that with the next call; '' where nobody wants to know."""
        if not self.active:
            return ""
        self._idle_since, word = self._pushes, self.word()
        self._idle, self._said_at = word.startswith("idle"), time.monotonic()
        return word


def own_fields(row: Sequence[Any]) -> tuple[str, ...]:
    """The fields of ``blobs`` that are a call's alone (``_calls``)."""
    xs = row[4]
    if type(xs) is not dict or not xs.get("own"):
        return ()
    parts = (*xs.values(), *(row[10].values() if type(row[10]) is dict else ()))
    return tuple(field for part in parts if type(part) is Spilled for field in chunk_fields(part))


def leaving(ends: Ends) -> Iterator[Leaving | None]:
    """What is to be known of each ended task to remove it; None for one that is no call: whoever queued it
    has not numbered it, and is to hear of it."""
    for row in (*ends.finished, *ends.failed):
        if type(row[4]) is dict and "call" in row[4]:
            yield Leaving(row[3], ends.failures.get(row[3], ""), own_fields(row))
        else:
            yield None


class Clearing:
    """What is to be removed, for one collector, under whose lock all of this is called but ``add``."""

    def __init__(self, store: Store, word: Callable[[], str]) -> None:
        self._store = store
        self._word = word
        self._tasks: deque[Leaving] = deque()
        self._tried = self._dismissed = 0.0
        #: What was collected before this controller came, or by one that is gone, lies in front of there.
        self._until: tuple[int, int] | None = None
        self._at = (0, 0)
        self._sweeping = True
        #: Whether something could not be removed, as others have not come so far.
        self.waits = False

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, tasks: Iterable[Leaving]) -> None:
        """These may go once their results are the user's for good. From any thread."""
        self._tasks.extend(tasks)

    def due(self) -> bool:
        """Whether there is something to be removed, and it is time."""
        if not self._tasks and not self._sweeping:
            return False
        return self.many or time.monotonic() > self._tried + _PAUSE

    @property
    def many(self) -> bool:
        """Whether it is worth a call of its own now."""
        return len(self._tasks) >= 2 * _AT_ONCE and not self.waits

    def sweep(self) -> None:
        """Looks through all that is there for what others have left, some at each round."""
        self._until, self._at, self._sweeping = None, (0, 0), True

    def run(self, collector: Collecting) -> None:
        """Removes what can be."""
        if time.monotonic() > self._dismissed + _LOOK_AGAIN:
            self._dismissed = time.monotonic()
            self._store.dismiss(_ENDED_KEPT)
        if self._sweeping:
            self._look_through()
        self._tried, left, going = time.monotonic(), len(self._tasks), True
        while left and going:
            batch = [self._tasks.popleft() for _ in range(min(left, _AT_ONCE))]
            left -= len(batch)
            try:
                verdicts = self._store.forget(collector, self._word(), batch)
            except BaseException:
                self._tasks.extendleft(reversed(batch))
                raise
            stay = [task for task, gone in zip(batch, verdicts, strict=True) if not gone]
            self._tasks.extend(stay)
            going = len(stay) < len(batch)
        self.waits = not going

    def _look_through(self) -> None:
        if self._until is None:
            place = self._store.place()
            self._until = (place.finished, place.failures)
        finished, failures = self._at
        _, ends = self._store.since(finished, failures, _AT_ONCE)
        found = {task.key: task for task in leaving(ends) if task is not None}
        marks = self._store.marks(list(found))
        ours = FORGETS.encode()
        self.add(
            task for task, mark in zip(found.values(), marks, strict=True) if mark and mark.startswith(ours)
        )
        at = (ends.next_finished, ends.next_failures)
        self._sweeping = at != self._at and (at[0] < self._until[0] or at[1] < self._until[1])
        self._at = at
