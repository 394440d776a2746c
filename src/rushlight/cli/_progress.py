"""What a run has achieved so far, in numbers. Pure: it is told what happened, and when."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rushlight.errors import WorkerStartError

Record = Mapping[str, Any]

#: Seconds over which the shown speed is averaged.
RATE_WINDOW = 5.0
#: Worker states that are left no more.
FINAL = frozenset({"terminated", "killed", "lost"})


@dataclass(frozen=True, slots=True)
class Goal:
    """The result that is to become small or large."""

    name: str
    maximize: bool = False

    def value(self, record: Record) -> float | None:
        """The finite number that ``record`` has for the goal; None when there is none.

        A result whose name is also an input's is found under the table's name for it, ``<name>_ys``.
        """
        value = record.get(f"{self.name}_ys", record.get(self.name))
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            return None
        number = float(value)
        return number if math.isfinite(number) else None

    def rank(self, value: float) -> float:
        """Smaller is better, whichever way the goal points."""
        return -value if self.maximize else value


class Progress:
    """The finished tasks of a run as they come: how many, how fast, the best and the latest rows.

    ``n_finished`` counts what finished during the run, ``n_seen`` also what was there before.
    """

    def __init__(self, goal: Goal | None, n_rows: int, started: float) -> None:
        self.goal = goal
        self.n_finished = 0
        self.n_seen = 0
        self._n_rows = n_rows
        self._started = started
        self._best: list[tuple[float, Record]] = []
        self._latest: deque[Record] = deque(maxlen=n_rows)
        self._arrivals: deque[tuple[float, int]] = deque([(started, 0)])

    def add(self, records: Sequence[Record], now: float) -> None:
        """Take in tasks that finished since the last call."""
        self.n_finished += len(records)
        self.adopt(records)
        self._arrivals.append((now, self.n_finished))
        while len(self._arrivals) > 2 and self._arrivals[1][0] < now - RATE_WINDOW:
            self._arrivals.popleft()

    def adopt(self, records: Sequence[Record]) -> None:
        """Let tasks compete for the best and the latest that this run did not do."""
        self.n_seen += len(records)
        self._latest.extend(records)
        if self.goal is not None:
            ranked = [(self.goal.rank(v), r) for r in records if (v := self.goal.value(r)) is not None]
            self._best = sorted([*self._best, *ranked], key=lambda pair: pair[0])[: max(1, self._n_rows)]

    def rate(self, now: float) -> float:
        """Finished tasks per second, lately."""
        then, count = self._arrivals[0]
        return (self.n_finished - count) / (now - then) if now > then else 0.0

    def overall_rate(self, now: float) -> float:
        """Finished tasks per second, since the start."""
        return self.n_finished / (now - self._started) if now > self._started else 0.0

    @property
    def best(self) -> Record | None:
        return self._best[0][1] if self._best else None

    @property
    def best_value(self) -> float | None:
        record = self.best
        return None if record is None or self.goal is None else self.goal.value(record)

    def rows(self) -> list[Record]:
        """The rows to show in the end: the best first with a goal, else the latest in order."""
        if self.goal is not None and self._best:
            return [record for _, record in self._best[: self._n_rows]]
        return list(self._latest)


@dataclass(frozen=True, slots=True)
class Picture:
    """One moment of a run, as it is shown."""

    seconds: float
    tasks: Mapping[str, int]
    workers: Mapping[str, int]
    rate: float
    best: float | None = None

    def line(self, goal: Goal | None) -> str:
        """The moment in one line of plain text."""
        parts = [
            f"[{self.seconds:6.1f} s] {self.workers.get('running', 0)} workers running",
            *(f"{self.workers[s]} {s}" for s in ("starting", "lost", "killed") if self.workers.get(s)),
            ", ".join(f"{count} {state}" for state, count in self.tasks.items()),
            f"{self.rate:.1f} tasks/s",
        ]
        if goal is not None and self.best is not None:
            parts.append(f"best {goal.name} {self.best:.6g}")
        return " | ".join(parts)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended.

    ``reason`` is ``done`` (the loops returned), ``timeout``, ``interrupted`` (Ctrl-C once), ``killed``
    (Ctrl-C twice), ``died`` (workers were lost or killed) or ``reset`` (somebody reset the network).
    """

    reason: str
    seconds: float = 0.0
    workers: Sequence[Record] = ()
    died: Sequence[Record] = ()
    n_finished: int = 0
    n_failed: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    start_error: WorkerStartError | None = None

    @property
    def ok(self) -> bool:
        """Whether the work was done: not when workers died or were killed, or when every task failed."""
        if self.reason in ("killed", "died", "reset"):
            return False
        return not (self.n_failed and not self.n_finished)


def count_states(workers: Iterable[Record]) -> dict[str, int]:
    """How many workers are in each state, every state named."""
    states = Counter(str(w["state"]) for w in workers)
    return {s: states.get(s, 0) for s in ("starting", "running", "terminated", "killed", "lost")}


def casualties(workers: Iterable[Record]) -> list[Record]:
    """The workers that did not leave by themselves."""
    return [
        worker
        for worker in workers
        if str(worker["state"]) in ("lost", "killed") or worker.get("exit_code") not in (None, 0)
    ]


def all_left(workers: Sequence[Record]) -> bool:
    """Whether none of these workers is starting or running."""
    return all(str(w["state"]) in FINAL for w in workers)
