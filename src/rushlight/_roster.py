"""Reading the workers of a network: who there is, in which state, and where they stand.

What managers and workers have in common; never starts or stops anything.
"""

from __future__ import annotations

from typing import Any

from ._records import WorkerState
from ._store import Store
from ._tables import check_request, usage_table, worker_table


class WorkerReader:
    """Tables, ids and counts of workers. Those whose lease ran out are declared lost first."""

    _store: Store

    @property
    def worker_info(self) -> Any:
        """One row per worker that ever registered, in the order of registration (polars)."""
        return self.fetch_workers()

    def fetch_workers(self, *, as_: str = "polars") -> Any:
        """``worker_info`` in any form; ``"tasks"`` gives ``WorkerInfo`` records."""
        check_request(as_)
        self.detect_lost_workers()
        return worker_table(self._store.workers(), as_)

    def fetch_worker_usage(self, *, as_: str = "polars") -> Any:
        """What each worker's process used when it was sampled last, with every renewal of its lease: memory
        and its peak in bytes, processor time in seconds, percent of one processor since the sample before.
        ``"tasks"`` gives ``WorkerUsage`` records. Workers stay in it after their end."""
        check_request(as_)
        return usage_table(self._store.usage(), as_)

    def server_info(self) -> dict[str, int | float | str]:
        """The server's own figures (its INFO): version, memory, clients, persistence."""
        return self._store.info()

    def detect_lost_workers(self) -> list[str]:
        """Declares workers lost whose lease ran out, settles their tasks, and returns their ids. Runs by
        itself wherever somebody waits, counts or renews a lease; of two callers one gets the ids."""
        return self._store.reap()

    def ids_of_workers(self, *states: WorkerState) -> list[str]:
        """The ids of the workers in the given states (none: of all), sorted."""
        self.detect_lost_workers()
        found = self._store.worker_states()
        return sorted(name for name, state in found.items() if not states or state in states)

    @property
    def worker_ids(self) -> list[str]:
        """Every worker that ever registered."""
        return self.ids_of_workers()

    @property
    def starting_worker_ids(self) -> list[str]:
        """Workers that registered and do not run their loop yet."""
        return self.ids_of_workers(WorkerState.STARTING)

    @property
    def running_worker_ids(self) -> list[str]:
        """Workers in their loop."""
        return self.ids_of_workers(WorkerState.RUNNING)

    @property
    def terminated_worker_ids(self) -> list[str]:
        """Workers that left by themselves."""
        return self.ids_of_workers(WorkerState.TERMINATED)

    @property
    def killed_worker_ids(self) -> list[str]:
        """Workers that were killed on purpose."""
        return self.ids_of_workers(WorkerState.KILLED)

    @property
    def lost_worker_ids(self) -> list[str]:
        """Workers that crashed or went silent."""
        return self.ids_of_workers(WorkerState.LOST)

    @property
    def n_workers(self) -> int:
        """Workers that ever registered."""
        return len(self.worker_ids)

    @property
    def n_starting_workers(self) -> int:
        return len(self.starting_worker_ids)

    @property
    def n_running_workers(self) -> int:
        return len(self.running_worker_ids)

    @property
    def n_terminated_workers(self) -> int:
        return len(self.terminated_worker_ids)

    @property
    def n_killed_workers(self) -> int:
        return len(self.killed_worker_ids)

    @property
    def n_lost_workers(self) -> int:
        return len(self.lost_worker_ids)
