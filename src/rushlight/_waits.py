"""Waiting for tasks, woken by every change: what comes fast is looked at in larger and larger pieces."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from . import _inputs
from ._records import TaskState, WaitResult
from ._store import Store
from ._store_reads import Standing
from ._store_tasks import refuse_removed, unknown_keys
from ._tables import FinishedTable
from .errors import DataMissing

#: Seconds a wait blocks at most before it looks at leases again.
BLOCK: Final = 5.0
#: The states of what is kept once it was read.
FINISHED: Final = (TaskState.FINISHED,)
_FINAL: Final = (TaskState.FINISHED, TaskState.FAILED)
#: Where more tasks than this are waited for, the least and the most seconds from an event to the look at what
#: has come; in between, this part of the time that those left will take.
_MANY, _BREATH, _LONGEST, _PART = 100, 0.002, 0.05, 0.25


def left_of(deadline: float | None) -> float:
    """Seconds to wait from now on, before the next look at the leases."""
    return BLOCK if deadline is None else max(0.0, deadline - time.monotonic())


def breath(pending: int, came: int, seconds: float) -> float:
    """Seconds to let pass between an event and the look at what has come: where many tasks are waited for,
    one event cannot have been all of them. ``came``: how many did in the last so many ``seconds``."""
    if pending <= _MANY:
        return 0.0
    rest = pending * seconds / came if came else 0.0
    return min(max(_BREATH, rest * _PART), _LONGEST)


class Waits:
    """The waits of a reader."""

    _store: Store
    _finished: FinishedTable
    _reading: threading.RLock
    _look: Callable[..., Any]
    _watch: Callable[[float], Standing]

    def wait_for_tasks(self, keys: Iterable[str], timeout: float | None = None) -> WaitResult:
        """Waits until all the tasks are finished or failed, the time runs out, or no worker is left that
        could do them (``no_workers``: there were workers, none lives, and none is being started here).

        Never polls: woken by every change. Raises UnknownKey at once for keys the network does not have,
        DataMissing if the network is reset meanwhile.
        """
        wanted = _inputs.key_list(keys)
        limit = _inputs.seconds(timeout, "timeout", none=True)
        deadline = None if limit is None else time.monotonic() + limit
        standing = self._watch(left_of(deadline))
        # Where none has failed, it is enough to ask which have finished.
        look = self._store.look if standing.failures else self._store.look_for_finished
        states = dict(zip(wanted, look(wanted), strict=True))
        unknown = [key for key, state in states.items() if state is None]
        if unknown:
            raise unknown_keys(unknown, self._store.network)
        epoch = standing.epoch
        pending = {key for key, state in states.items() if state not in _FINAL}
        came, since = 0, time.monotonic()
        while pending:
            if standing.live_workers == 0 and not self._more_may_come():
                states |= zip(pending, self._store.look(list(pending)), strict=True)
                settled = all(state in _FINAL for state in states.values())
                return WaitResult.of(wanted, states, "done" if settled else "no_workers")
            left = left_of(deadline)
            if left <= 0:
                return WaitResult.of(wanted, states, "timeout")
            self._store.wait_event(standing.event, min(left, BLOCK, standing.next_due))
            now = time.monotonic()
            if pause := breath(len(pending), came, now - since):
                time.sleep(min(left, pause))
            before, standing, since = standing, self._watch(left), now
            if standing.epoch != epoch:
                lost = [key for key in wanted if key in pending]
                raise DataMissing(f"network {self._store.network!r} was reset meanwhile", keys=lost)
            found, removed = self._settled_since(before, standing, states)
            states |= found
            came = len(pending)
            pending -= found.keys()
            came -= len(pending)
            if removed and pending:
                left_over = [key for key in wanted if key in pending]
                refuse_removed(left_over, self._store.look(left_over), self._store.network)
        return WaitResult.of(wanted, states, "done")

    def _settled_since(
        self, before: Standing, now: Standing, states: dict[str, TaskState | None]
    ) -> tuple[dict[str, TaskState], bool]:
        """The final states reached between two looks, of the tasks waited for; and whether tasks that ended
        between were removed."""
        found: dict[str, TaskState] = {}
        removed = False
        if now.failures > before.failures:
            failed = self._store.failures(before.failures)[1]
            removed = "" in failed
            found |= dict.fromkeys(states.keys() & failed, TaskState.FAILED)
        if now.finished > before.finished:
            with self._reading:
                # Columns are made while others work, and not when their table is asked for.
                self._look(FINISHED, "polars" if "polars" in sys.modules else "tasks")
                row, empty = self._finished.holes.row_at(before.finished)
                finished = self._finished.keys(row)
            removed = removed or empty
            found |= dict.fromkeys(states.keys() & finished, TaskState.FINISHED)
        return found, removed

    def _more_may_come(self) -> bool:
        """Whether workers may still appear: none has ever, so somebody may be about to start some."""
        return not self._store.worker_states()
