"""Putting tasks into the queue and taking them out of it, on a manager's behalf.

Says what the options of a task mean in its record (``opts``); how the line is kept is the scripts' business.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import _inputs
from ._reader import TaskReader
from ._seeds import encode as encode_seed
from ._store_tasks import Encoded, unknown_keys
from .errors import WaitTimeout

_REMOVED = {"message": "Removed from queue", "type": "TaskRemoved"}
_CANCELLED = {"message": "Cancelled", "type": "TaskCancelled"}
Fields = Mapping[str, Any]
#: Seconds a full queue is waited for before it is looked at again without an event.
_STEP = 5.0


class Queueing(TaskReader):
    """The queue of a network, as a manager fills and empties it."""

    def push_tasks(
        self,
        xss: Iterable[Fields],
        *,
        xs_extra: Fields | Iterable[Fields | None] | None = None,
        priority: int | Iterable[int] = 0,
        workers: str | Iterable[str | None] | None = None,
        timeout: float | Iterable[float | None] | None = None,
        max_retries: int | Iterable[int] = 0,
        backoff: float = 0.0,
        seeds: Any = None,
        after: Iterable[str] | Iterable[Iterable[str]] | None = None,
        max_queued: int | None = None,
        queue_timeout: float | None = None,
        terminate_workers: bool = False,
    ) -> list[str]:
        """Queues tasks and returns their keys. One round trip, unless ``max_queued`` makes it wait.

        One value is for all tasks, a sequence has one for each. ``priority``: larger first, FIFO among
        equals. ``workers``: ids whose private queue takes the task; None, and an unknown or dead worker, is
        the shared queue. ``timeout``: seconds a task may run before its attempt fails ``Task timed out after
        N seconds`` and its worker is replaced. ``max_retries``: attempts after the first that failed, timed
        out, or lost their worker (``on_lost="requeue"``), each ``backoff * 2**k`` seconds after the last.
        ``after``: keys that must finish first; a task whose prerequisite fails for good fails too.
        ``max_queued``: waits while that many tasks are queued, ``queue_timeout`` seconds at most, then
        raises WaitTimeout whose ``keys`` are queued. ``terminate_workers``: workers leave once the queue is
        empty.
        """
        batch = _inputs.task_batch(xss, "xss")
        n = len(batch)
        extras = _inputs.matching(xs_extra, n, "xs_extra", "xss")
        pause = _inputs.seconds(backoff, "backoff", most=_inputs.LONGEST)
        limit = None if max_queued is None else _inputs.count(max_queued, "max_queued", least=1)
        patience = _inputs.seconds(queue_timeout, "queue_timeout", none=True)
        said = [one for one in (workers, timeout, seeds, after) if one is not None]
        said += [one for one in (priority, max_retries) if type(one) is not int or one != 0]
        columns: dict[str, list[Any]] = {}
        # Most tasks have no options; looking for them in seven lists takes as long as encoding.
        if said:
            columns = {
                "p": _inputs.each(priority, n, "priority", int),
                "w": _inputs.each(workers, n, "workers", str),
                "t": _inputs.time_limits(timeout, n, "timeout"),
                "r": _inputs.counts(max_retries, n, "max_retries"),
                "b": [pause] * n,
                "s": [None if s is None else encode_seed(s) for s in _inputs.seeds(seeds, n)],
                "a": _inputs.prerequisites(after, n),
            }
            self._known(list(dict.fromkeys(key for keys in columns["a"] for key in keys or ())))
        used = {name: values for name, values in columns.items() if any(values)}
        drain = bool(terminate_workers)
        if not used and limit is None and (keys := self._store.push_many(batch, extras, drain=drain)):
            return keys
        options = [_options(used, i) for i in range(n)] if used else None
        encoded = self._store.encode_tasks(batch, extras, options)
        if limit is not None:
            self._push_as_room_is(encoded, limit, patience)
        elif encoded.keys:
            self._store.push(encoded, drain=drain)
        if terminate_workers and (limit is not None or not encoded.keys):
            self._store.push(Encoded([], [], {}), drain=True)
        return encoded.keys

    def _push_as_room_is(self, encoded: Encoded, limit: int, patience: float | None) -> None:
        left = encoded
        deadline = None if patience is None else time.monotonic() + patience
        while left.keys:
            standing = self._store.watch(_STEP + 2.0)
            taken = self._store.push_some(left, limit)
            left = left.beyond(taken)
            if not left.keys or taken:
                continue
            wait = _STEP if deadline is None else deadline - time.monotonic()
            if wait <= 0:
                pushed = encoded.keys[: len(encoded) - len(left)]
                raise WaitTimeout(
                    f"the queue of network {self._store.network!r} stayed at max_queued={limit} tasks for "
                    f"{patience:g} s: {len(pushed)} of {len(encoded)} task(s) are queued",
                    timeout=patience,
                    remaining=len(left),
                    keys=pushed,
                )
            self._store.wait_event(standing.event, min(wait, _STEP))

    def empty_queue(self) -> list[str]:
        """Fails every queued task with ``Removed from queue``; returns their keys, in queue order. Atomic."""
        return self._store.drop(_REMOVED) if self._store.totals().tasks.queued else []

    def cancel_tasks(self, keys: Iterable[str]) -> list[str]:
        """Fails tasks with ``Cancelled``, queued or running; returns those that were. Atomic.

        A worker that runs one is interrupted: its process is replaced by a new one under the same id (a plain
        ``RushWorker`` goes on, and its result is refused). Raises UnknownKey.
        """
        wanted = self._known(keys)
        return self._store.drop(_CANCELLED, wanted) if wanted else []

    def retry_tasks(
        self, keys: Iterable[str], *, ignore_max_retries: bool = False, next_seed: bool = False
    ) -> list[str]:
        """Puts failed tasks back into the queue, behind those that are there; returns those that went.

        Tasks that are not failed stay as they are, and so do those that have used up ``max_retries``, where
        they were given any. ``next_seed``: with another seed, the same for everybody. Raises UnknownKey.
        """
        wanted = self._known(keys)
        return self._store.retry(wanted, ignore=ignore_max_retries, next_seed=next_seed) if wanted else []

    def _known(self, keys: Iterable[str]) -> list[str]:
        wanted = _inputs.key_list(keys)
        states = self._store.look(wanted) if wanted else []
        unknown = [k for k, state in zip(wanted, states, strict=True) if state is None]
        if unknown:
            raise unknown_keys(unknown, self._store.network)
        return wanted


def _options(columns: Mapping[str, Sequence[Any]], i: int) -> dict[str, Any] | None:
    """The options of one task as its record holds them: only those that say something."""
    found = {name: values[i] for name, values in columns.items() if values[i]}
    if "r" not in found:
        found.pop("b", None)
    return found or None
