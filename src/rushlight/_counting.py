"""How many tasks a network has, as whoever reads it asks."""

from __future__ import annotations

from ._records import Counts
from ._store import Store


class Counting:
    """Counts of tasks by their state."""

    _store: Store

    def counts(self) -> Counts:
        """How many tasks are in each state, at one instant; one round trip (more only where a worker has
        just been lost)."""
        totals = self._store.totals()
        if totals.overdue:
            self._store.reap()
            totals = self._store.totals()
        return totals.tasks

    @property
    def n_tasks(self) -> int:
        """Tasks in any state."""
        return self.counts().total

    @property
    def n_queued_tasks(self) -> int:
        """Tasks that wait for a worker."""
        return self.counts().queued

    @property
    def n_running_tasks(self) -> int:
        """Tasks a worker is at."""
        return self.counts().running

    @property
    def n_finished_tasks(self) -> int:
        """Tasks with results."""
        return self.counts().finished

    @property
    def n_failed_tasks(self) -> int:
        """Tasks that failed."""
        return self.counts().failed
