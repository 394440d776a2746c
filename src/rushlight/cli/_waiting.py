"""Waiting for the next thing to happen in a network, woken by the server. Never changes anything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rushlight import Rush

from ._progress import FINAL, Record

#: Longest single wait; bounds how late a signal or a lost server is noticed.
LONGEST = 5.0


class Changes:
    """A place in the network's history: ``wait`` returns once something happened after it."""

    def __init__(self, rush: Rush, seconds: float = LONGEST) -> None:
        self._store = rush._store
        self._event = self._store.watch(seconds + 2.0).event
        self._seconds = seconds

    def wait(self, seconds: float) -> bool:
        """Block until something changed, at most ``seconds``; whether it did."""
        return self._store.wait_event(self._event, max(0.001, min(seconds, self._seconds)))


def live_workers(rush: Rush, worker_ids: tuple[str, ...] = ()) -> list[str]:
    """The ids of the workers, among those named or all, that have not left."""
    live = {str(w["worker_id"]) for w in rush.fetch_workers(as_="dicts") if str(w["state"]) not in FINAL}
    return sorted(live.intersection(worker_ids) if worker_ids else live)


def wait_until_left(rush: Rush, worker_ids: tuple[str, ...], timeout: float) -> list[str]:
    """Wait until the workers have left; those that have not after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        changes = Changes(rush)
        left = live_workers(rush, worker_ids)
        seconds = deadline - time.monotonic()
        if not left or seconds <= 0:
            return left
        changes.wait(seconds)


def follow_entries(rush: Rush) -> Iterator[tuple[str, dict[str, Any]]]:
    """The log's entries with their worker, those there are and then those that come, without end."""
    after = "-"
    while True:
        entries = rush._store.logs(after)
        for entry_id, worker_id, entry in entries:
            after = entry_id
            yield worker_id, entry
        if not entries:
            rush._store.wait_logs("0-0" if after == "-" else after, LONGEST)


def own_workers(rush: Rush, worker_ids: tuple[str, ...]) -> list[Record]:
    """The rows of these workers, as far as they have come."""
    wanted = set(worker_ids)
    rows: list[Record] = rush.fetch_workers(as_="dicts")
    return [row for row in rows if row["worker_id"] in wanted]
