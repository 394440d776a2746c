"""How many calls are out, and of how many bytes: those that a controller has sent, and those it found.

Whoever keeps it has the lock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


class Outstanding:
    """Calls that have not ended, as far as is known here."""

    def __init__(self, prefix: str) -> None:
        """``prefix``: how the keys of calls begin that were given no name."""
        self._prefix = prefix
        #: Those that were found have numbers up to this.
        self._before = 0
        #: Of those sent here, the named ones.
        self._named: set[str] = set()
        #: How many others, and how many of those that were found. One attribute, so that what ``after`` gives
        #: is taken in one step.
        self.left = (0, 0)
        #: Bytes of those sent here, and of each, where somebody may be held up by them.
        self.weighs = False
        self._bytes = 0
        self._sizes: dict[str, int] = {}

    def __len__(self) -> int:
        return self.left[0] + len(self._named) + self.left[1]

    @property
    def own(self) -> int:
        """Those sent here."""
        return self.left[0] + len(self._named)

    def find(self, n: int, before: int) -> None:
        """So many are out of those that were created as the first ``before``."""
        self._before, self.left = before, (0, n)

    def add(self, key: str, size: int = 0) -> None:
        """A call is about to be sent, of so many bytes."""
        if self.weighs and size:
            self._sizes[key] = size
            self._bytes += size
        unnamed, found = self.left
        if key.startswith(self._prefix):
            self.left = unnamed + 1, found
        else:
            self._named.add(key)

    def has_room(self, calls: int | None, size: int | None) -> bool:
        """Whether fewer calls are out than that, and of fewer bytes."""
        return (calls is None or self.own < calls) and (size is None or self._bytes < size)

    def after(self, ends: Iterable[tuple[str, float]]) -> tuple[int, int]:
        """What is left when these calls have ended, by their keys and the numbers of their creation. The same
        again for the same ends, until it is taken."""
        unnamed, found = self.left
        for key, number in ends:
            if self._sizes:
                self._bytes -= self._sizes.pop(key, 0)
            if key.startswith(self._prefix):
                unnamed = max(0, unnamed - 1)
            elif key in self._named:
                self._named.discard(key)
            elif number <= self._before:
                found = max(0, found - 1)
        return unnamed, found

    def end(self, key: str, number: int | None = None) -> None:
        """One has ended, or was not sent. ``number``: that of its creation, where that is known."""
        self.left = self.after([(key, math.inf if number is None else number)])

    def clear(self, *, found: bool = False) -> None:
        """Nothing is out; with ``found``, nor will any of those that were found be heard of."""
        self.left, self._bytes = (0, 0), 0
        self._sizes.clear()
        self._named.clear()
        if found:
            self._before = 0
