"""Waiting for the next thing to happen in a network, woken by the server. Never changes anything."""

from __future__ import annotations

import time

from rushlight import Rush

from ._progress import FINAL, Record

#: Longest single wait; bounds how late a signal or a lost server is noticed.
LONGEST = 5.0


def live_workers(rush: Rush, worker_ids: tuple[str, ...] = ()) -> list[str]:
    """The ids of the workers, among those named or all, that have not left."""
    live = {str(w["worker_id"]) for w in rush.fetch_workers(as_="dicts") if str(w["state"]) not in FINAL}
    return sorted(live.intersection(worker_ids) if worker_ids else live)


def wait_until_left(rush: Rush, worker_ids: tuple[str, ...], timeout: float) -> list[str]:
    """Wait until the workers have left; those that have not after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        changes = rush.changes()
        left = live_workers(rush, worker_ids)
        seconds = deadline - time.monotonic()
        if not left or seconds <= 0:
            return left
        changes.wait(min(seconds, LONGEST))


def own_workers(rush: Rush, worker_ids: tuple[str, ...]) -> list[Record]:
    """The rows of these workers, as far as they have come."""
    wanted = set(worker_ids)
    rows: list[Record] = rush.fetch_workers(as_="dicts")
    return [row for row in rows if row["worker_id"] in wanted]
