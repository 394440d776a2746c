"""Keeps the lease of a worker that has no supervisor, from a thread of its own."""

from __future__ import annotations

import logging
import threading

from ._store import Store
from ._store_roster import WorkerCard
from .errors import StoreError

_log = logging.getLogger("rushlight")


class LeaseThread:
    """Renews a worker's lease every third of it, and reaps those whose lease ran out, until stopped.

    Code that holds the GIL longer than the lease stops this thread too: run such loops under a supervisor
    (``start_workers``), which is a process of its own.
    """

    def __init__(self, store: Store, card: WorkerCard, lease: float) -> None:
        self._store = store
        self._member = (card.worker_id, card.token)
        self._lease = lease
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"rushlight-lease-{card.worker_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and waits for it."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._lease / 3):
            try:
                beat = self._store.beat([self._member], self._lease)
                if beat.overdue:
                    self._store.reap()
            except StoreError as error:
                _log.warning("worker %s could not renew its lease: %s", self._member[0], error)
            else:
                if beat.letters not in ("s", "r", "d"):
                    return
