"""A supervisor's line to the server: leases, ends of workers, output, orders.

Owns what waits to be said and when to try again. Never waits for a server that does not answer, and
knows nothing of processes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._alarms import Alarms
from ._capture import Capture
from ._records import WorkerState
from ._store import Order, OrderListener, Store
from ._store_ends import WorkerEnd
from ._store_roster import WorkerCard
from ._usage import Sampler
from .errors import StoreError

#: Seconds between two sendings of what the workers printed.
FLUSH = 0.2
#: Seconds to wait before the second try, and at most.
_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
#: Log entries of ended workers kept while the server is away.
_KEPT_ENTRIES = 5000
_NEVER = float("inf")


@dataclass(slots=True)
class _Unsaid:
    """What waits for the server."""

    ends: list[WorkerEnd] = field(default_factory=list)
    logs: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    leaving: list[str] = field(default_factory=list)
    changing: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.ends or self.logs or self.leaving or self.changing)


class Uplink:
    """Says to the server what a supervisor has to say, all of one kind in one command.

    Only ``open`` and ``register`` raise where the server cannot be reached; everything else is kept and
    tried again by ``tend``, at growing intervals.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self.lease = 15.0
        self._store = store
        self._clock = clock
        self._listener: OrderListener | None = None
        self._unsaid = _Unsaid()
        self._beat_at = _NEVER
        self._flush_at = 0.0
        self._retry_at = 0.0
        self._pause = _PAUSE
        self._limits = Alarms()
        self._sampler = Sampler(clock)
        #: Whether workers whose task was stopped are to be started again.
        self.come_back = True
        self._interrupted: list[str] = []
        #: The last order that was read: what comes while there is no connection is read later.
        self._heard: str | None = None

    # --- to be called at once ------------------------------------------------------------------

    def open(self) -> None:
        """Begins to listen to orders."""
        self._listener = self._store.listen(self._heard)
        self._heard = self._listener.cursor

    def register(self, cards: Sequence[WorkerCard]) -> None:
        """Makes workers members, as starting."""
        self._store.register(cards, WorkerState.STARTING, self.lease)
        self._beat_at = min(self._beat_at, self._clock() + self.lease / 3)

    @property
    def listener(self) -> OrderListener | None:
        """What to select on for ``orders``; another one after a lost connection, None meanwhile."""
        return self._listener

    def orders(self) -> list[Order]:
        """The orders that have come."""
        if self._listener is None:
            return []
        try:
            orders = self._listener.read()
            self._heard = self._listener.cursor
            return orders
        except StoreError as error:
            self.lose(error)
            return []

    # --- to be said ----------------------------------------------------------------------------

    def ended(self, end: WorkerEnd, entries: list[dict[str, Any]]) -> None:
        """A worker's process has ended; ``entries`` is the rest of its output."""
        self._unsaid.ends.append(end)
        if entries and sum(len(kept) for _, kept in self._unsaid.logs) < _KEPT_ENTRIES:
            self._unsaid.logs.append((end.worker_id, entries))

    def ask_to_leave(self, worker_ids: Iterable[str]) -> None:
        """These workers are to leave after the task at hand."""
        self._unsaid.leaving += worker_ids

    def ask_to_change(self, worker_id: str) -> None:
        """This worker is to leave after the task at hand, and will be back."""
        self._unsaid.changing.append(worker_id)

    def look_in(self, seconds: float) -> None:
        """A task taken just now may run this long: what has run out of time is to be looked for then."""
        self._limits.add(self._clock() + seconds)

    def take_interrupted(self) -> list[str]:
        """Workers whose end was said, and whom the network expects back."""
        interrupted, self._interrupted = self._interrupted, []
        return interrupted

    @property
    def unsaid_ends(self) -> int:
        return len(self._unsaid.ends)

    @property
    def busy(self) -> bool:
        """True while something waits to be said."""
        return bool(self._unsaid)

    @property
    def away(self) -> bool:
        """True while the server is not to be tried again yet."""
        return self._clock() < self._retry_at

    # --- saying it -----------------------------------------------------------------------------

    def tend(self, cards: Sequence[WorkerCard], captures: Iterable[tuple[str, Capture]]) -> str:
        """Does what is due. Where leases were renewed: one letter per worker, as in Beat; '' otherwise."""
        now = self._clock()
        if now < self._retry_at:
            return ""
        letters = ""
        try:
            if self._listener is None:
                self.open()
                # What was ordered meanwhile is only to be learnt from the workers' standing.
                self._beat_at = now
            if now >= self._beat_at:
                letters = self._beat(cards)
            if self._limits.ring(now):
                self._store.reap()
            self._send(now, captures)
        except StoreError as error:
            self.lose(error)
        else:
            self._pause = _PAUSE
        return letters

    def time_left(self, *, flush: bool) -> float:
        """Seconds until ``tend`` has something to do; ``flush``: there is output to be sent."""
        due = min(self._beat_at, self._limits.next, self._flush_at if flush else _NEVER)
        if self._unsaid or self._listener is None:
            due = 0.0
        return max(0.0, max(due, self._retry_at) - self._clock())

    def lose(self, error: StoreError) -> None:
        """The server did not answer, or refused: it is tried again after a while."""
        if self._pause == _PAUSE:
            print(f"rushlight worker: {error}", file=sys.stderr)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._retry_at = self._clock() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._store.close()

    def _beat(self, cards: Sequence[WorkerCard]) -> str:
        if not cards:
            self._beat_at = _NEVER
            return ""
        self._sampler.keep_only({card.pid for card in cards})
        found = {card.worker_id: self._sampler.sample(card.pid) for card in cards}
        samples = {worker_id: sample for worker_id, sample in found.items() if sample is not None}
        answer = self._store.beat([(card.worker_id, card.token) for card in cards], self.lease, samples)
        self._beat_at = self._clock() + self.lease / 3
        if answer.overdue:
            self._store.reap()
        return answer.letters

    def _send(self, now: float, captures: Iterable[tuple[str, Capture]]) -> None:
        """Output before ends: who sees that a worker has ended finds all it said."""
        unsaid = self._unsaid
        if unsaid.leaving:
            self._store.stop(unsaid.leaving, kill=False, own="away")
            unsaid.leaving = []
        if unsaid.changing:
            self._store.stop(unsaid.changing, kill=False, own="back")
            unsaid.changing = []
        if now >= self._flush_at:
            for worker_id, capture in captures:
                if capture.pending:
                    self._flush_at = now + FLUSH
                    entries = capture.take()
                    try:
                        self._log(worker_id, entries)
                    except StoreError:
                        capture.give_back(entries)
                        raise
        while unsaid.logs:
            self._log(*unsaid.logs[0])
            del unsaid.logs[0]
        if unsaid.ends:
            self._interrupted += self._store.bury_or_replace(unsaid.ends, come_back=self.come_back)[1]
            unsaid.ends = []

    def _log(self, worker_id: str, entries: list[dict[str, Any]]) -> None:
        try:
            self._store.add_logs(worker_id, entries)
        except StoreError as error:
            if error.transient:
                raise
            # A log the server does not want must not hold up what matters.
            lost = f"{len(entries)} log entries of {worker_id!r} lost"
            print(f"rushlight worker: {lost}: {error}", file=sys.stderr)
