"""Keeps the lease of a worker that has no supervisor, from a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
import time

from ._alarms import Alarms
from ._member import Member
from ._store import Store
from ._usage import Sampler
from .errors import StoreError

_log = logging.getLogger("rushlight")


class LeaseThread:
    """Renews a worker's lease every third of it, and reaps those whose lease ran out, until stopped.

    Code that holds the GIL longer than the lease stops this thread too: run such loops under a supervisor
    (``start_workers``), which is a process of its own.
    """

    def __init__(self, store: Store, member: Member) -> None:
        self._store = store
        self._member = member
        self._lease = member.lease
        self._wake = threading.Event()
        self._stopped = False
        self._alarms = Alarms()
        self._sampler = Sampler()
        self._thread = threading.Thread(
            target=self._run, name=f"rushlight-lease-{member.card.worker_id}", daemon=True
        )
        self._thread.start()

    def due_in(self, seconds: float) -> None:
        """Looks for what has run out of time once these seconds are over: a task's own limit."""
        self._alarms.add(time.monotonic() + seconds)
        self._wake.set()

    def stop(self) -> None:
        """Ends the thread and waits for it."""
        self._stopped = True
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        beat_at = time.monotonic() + self._lease / 3
        while not self._stopped:
            self._wake.wait(max(0.0, min(beat_at, self._alarms.next) - time.monotonic()))
            self._wake.clear()
            now = time.monotonic()
            if self._stopped:
                return
            try:
                overdue = self._alarms.ring(now)
                if now >= beat_at:
                    beat_at = now + self._lease / 3
                    card = self._member.card
                    sample = self._sampler.sample(os.getpid())
                    samples = {} if sample is None else {card.worker_id: sample}
                    beat = self._store.beat([(card.worker_id, card.token)], self._lease, samples)
                    # A lost worker comes back by itself, with its next call, under another token.
                    if beat.letters not in ("s", "r", "d", "l"):
                        return
                    overdue = overdue or bool(beat.overdue)
                if overdue:
                    self._store.reap()
            except StoreError as error:
                _log.warning("worker %s could not renew its lease: %s", self._member.card.worker_id, error)
