"""Waiting for anything to happen in a network, for programs that show or follow it. Never writes a task."""

from __future__ import annotations

import math
import time

from . import _inputs
from ._store import Store
from ._store_reads import Standing

#: Seconds for which the server is asked to keep a watch at a time.
_STEP = 5.0


class Changes:
    """A moment in a network's history: ``wait`` returns once tasks or workers have changed after it.

    Make one, look at the network, wait, look again: no change falls between. What workers log is none.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._standing = self._look()

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until something has changed since this object was made or since the last wait that was True;
        False where nothing did in ``timeout`` seconds (None: waits on). Woken by the event."""
        limit = _inputs.seconds(timeout, "timeout", none=True)
        deadline = math.inf if limit is None else time.monotonic() + limit
        while True:
            now = time.monotonic()
            step = min(deadline, self._watched) - now
            if step > 0 and self._store.wait_event(self._standing.event, min(step, self._standing.next_due)):
                self._standing = self._look()
                return True
            # Nobody has kept a watch in between, or a lease has run out: what is there tells.
            before, self._standing = self._standing, self._look()
            if _facts(before) != _facts(self._standing):
                return True
            if time.monotonic() >= deadline:
                return False

    def _look(self) -> Standing:
        self._watched = time.monotonic() + _STEP
        standing = self._store.watch(_STEP + 2.0)
        if standing.overdue and self._store.reap():
            standing = self._store.watch(_STEP + 2.0)
        return standing


def _facts(standing: Standing) -> tuple[object, ...]:
    counts = (standing.finished, standing.failures, standing.queued, standing.running, standing.live_workers)
    return standing.epoch, standing.event, *counts
