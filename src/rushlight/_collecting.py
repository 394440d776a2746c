"""Collecting ended calls, each once: a cursor over their feeds, and the marks that say who was first.

Several collectors of one network share its results; what one has handed out, no other does. Reads a bounded
part at a time, so that a million results cost no memory here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ._names import random_token
from ._results import Ends, Status, TaskResult
from ._store import Store

#: Ended calls read at once.
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Summary:
    """The calls that were collected: how many of each status, how many warned, and the sum of their
    seconds."""

    controller: str
    tasks: int = 0
    success: int = 0
    error: int = 0
    crash: int = 0
    cancel: int = 0
    timeout: int = 0
    warning: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _End:
    row: Sequence[Any]
    condition: Mapping[str, Any] | None


class Collector:
    """The results of a network that nobody has collected, for one controller. Thread-safe."""

    def __init__(self, store: Store, ends: Ends, name: str) -> None:
        self._store = store
        self._ends = ends
        self._name = name
        self._lock = threading.RLock()
        self._token = random_token()
        self._number = 0
        self._epoch = ""
        self._finished = self._failures = 0
        self._ready: deque[_End] = deque()
        self._tally: dict[str, float] = {}
        #: Read from their futures, and to be marked so.
        self._read: deque[tuple[str, Status]] = deque()

    def take(self) -> TaskResult | None:
        """The next result, in the order in which they came; None where none is there."""
        with self._lock:
            self.settle()
            while True:
                if not self._ready and not self._fetch():
                    return None
                end = self._ready.popleft()
                if self._mark([end])[0]:
                    return self._result(end)

    def take_all(self) -> list[TaskResult]:
        """All results that are there."""
        found: list[TaskResult] = []
        with self._lock:
            self.settle()
            while self._ready or self._fetch():
                ends = list(self._ready)
                self._ready.clear()
                found += [self._result(end) for end, ours in zip(ends, self._mark(ends), strict=True) if ours]
        return found

    def any_ready(self) -> bool:
        """True where there is a result to be taken, as far as is known without taking it."""
        with self._lock:
            self.settle()
            while self._ready or self._fetch():
                known = self._store.collected([end.row[3] for end in self._ready])
                self._ready = deque(end for end, gone in zip(self._ready, known, strict=True) if not gone)
                if self._ready:
                    return True
        return False

    def read(self, key: str, status: Status) -> None:
        """The result was read from its future, which nobody holds any more. From any thread, at any time."""
        self._read.append((key, status))

    def settle(self) -> None:
        """Marks what was read from futures as collected."""
        with self._lock:
            while self._read:
                batch = [self._read.popleft() for _ in range(min(len(self._read), _AT_ONCE))]
                verdicts = self._collect([key for key, _ in batch])
                for (_, status), ours in zip(batch, verdicts, strict=True):
                    if ours:
                        self._count(status)

    @property
    def unsettled(self) -> int:
        return len(self._read)

    def collect(self, key: str) -> bool:
        """Marks one call as collected; True where nobody had."""
        with self._lock:
            return self._collect([key])[0]

    def summary(self) -> Summary:
        """The calls collected by this object."""
        with self._lock:
            self.settle()
            tally = dict(self._tally)
        seconds = tally.pop("seconds", 0.0)
        return Summary(self._name, seconds=seconds, **{name: int(n) for name, n in tally.items()})

    # ----------------------------------------------------------------------------------------------

    def _fetch(self) -> bool:
        """Reads on; True where something was found."""
        epoch, finished, failures, failed, conditions = self._store.since(
            self._finished, self._failures, _AT_ONCE
        )
        if epoch != self._epoch:
            fresh = not self._epoch
            self._epoch, self._finished, self._failures = epoch, 0, 0
            if not fresh:
                return self._fetch()
        self._finished += len(finished)
        self._failures += len(failures)
        ends = [_End(row, None) for row in finished]
        ends += [_End(row, said) for row, said in zip(failed, conditions, strict=True)]
        ends = [end for end in ends if self._concerns(end)]
        self._ready.extend(sorted(ends, key=lambda end: end.row[9]))
        return bool(finished or failures)

    def _concerns(self, end: _End) -> bool:
        return not (end.row[5] or {}).get("broadcast")

    def _mark(self, ends: list[_End]) -> list[bool]:
        return self._collect([end.row[3] for end in ends])

    def _collect(self, keys: list[str]) -> list[bool]:
        if not keys:
            return []
        self._number += 1
        return self._store.collect(self._token, self._number, keys)

    def _result(self, end: _End) -> TaskResult:
        if end.condition is None:
            result = self._ends.finished(end.row)
        else:
            result = self._ends.failed(end.row, end.condition)
        self._count(result.status)
        self._tally["seconds"] = self._tally.get("seconds", 0.0) + (result.seconds or 0.0)
        self._tally["warning"] = self._tally.get("warning", 0) + bool(result.warnings)
        return result

    def _count(self, status: Status) -> None:
        for name in ("tasks", status):
            self._tally[name] = self._tally.get(name, 0) + 1
