"""The vocabulary: states, frozen records, and the order of a stored record's parts.

Owns what a task and a worker *are*; never talks to a server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple


class TaskState(str, Enum):
    """Where a task is; it is in exactly one state at every instant."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"

    __str__ = str.__str__


class WorkerState(str, Enum):
    """Where a worker is in its life; the last three are final."""

    STARTING = "starting"
    RUNNING = "running"
    TERMINATED = "terminated"
    KILLED = "killed"
    LOST = "lost"

    __str__ = str.__str__


AsForm = Literal["polars", "pandas", "arrow", "dicts", "tasks"]
AS_FORMS: tuple[AsForm, ...] = ("polars", "pandas", "arrow", "dicts", "tasks")


class Row(NamedTuple):
    """One stored task as the server holds it, decoded but not yet named or scaled.

    The order is the wire format (``docs/explanation/records.md``): the parts a script must read
    come first, those the client encoded and no script opens (``xs`` ...) after them. Times are
    microseconds of the server's clock; 0 where a thing has not happened.
    """

    worker_id: str | None
    attempt: int
    opts: dict[str, Any] | None
    key: str
    xs: dict[str, Any]
    xs_extra: dict[str, Any] | None
    created: int
    seq: int
    started: int
    finished: int
    ys: dict[str, Any] | None
    ys_extra: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Task:
    """A task as it was when read: inputs, results, state and times (POSIX seconds, server clock).

    ``condition`` is None unless the task failed, then a dict with at least ``message``, and where
    known ``type``, ``traceback``, ``exit_code``, ``signal``, ``stderr``. ``attempt`` counts tries
    from 1. ``seed`` is the task's own, where it was pushed with one. ``seq`` numbers the network's tasks
    in the order of their creation, from 1. ``timeout``: seconds it may run. ``reseeded``: how often a retry
    gave it the next seed.
    """

    key: str
    state: TaskState
    xs: dict[str, Any]
    ys: dict[str, Any] | None = None
    xs_extra: dict[str, Any] | None = None
    ys_extra: dict[str, Any] | None = None
    condition: dict[str, Any] | None = None
    worker_id: str | None = None
    created_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    attempt: int = 1
    seed: Any = None
    seq: int = 0
    timeout: float | None = None
    reseeded: int = 0


class _Draft:
    """A task that is not frozen yet: the same slots, so that one can become the other."""

    __slots__ = Task.__slots__


def make_task(
    key: str,
    state: TaskState,
    xs: dict[str, Any],
    ys: dict[str, Any] | None = None,
    xs_extra: dict[str, Any] | None = None,
    ys_extra: dict[str, Any] | None = None,
    condition: dict[str, Any] | None = None,
    worker_id: str | None = None,
    created_at: float | None = None,
    started_at: float | None = None,
    finished_at: float | None = None,
    attempt: int = 1,
    seed: Any = None,
    seq: int = 0,
    timeout: float | None = None,
    reseeded: int = 0,
) -> Task:
    """``Task(...)`` in a fifth of the time: a frozen class takes a detour for each of its fields."""
    draft: Any = _Draft()
    draft.key = key
    draft.state = state
    draft.xs = xs
    draft.ys = ys
    draft.xs_extra = xs_extra
    draft.ys_extra = ys_extra
    draft.condition = condition
    draft.worker_id = worker_id
    draft.created_at = created_at
    draft.started_at = started_at
    draft.finished_at = finished_at
    draft.attempt = attempt
    draft.seed = seed
    draft.seq = seq
    draft.timeout = timeout
    draft.reseeded = reseeded
    draft.__class__ = Task
    task: Task = draft
    return task


class WaitResult(NamedTuple):
    """What a wait for tasks ended with: three lists of keys in the order given, and why it ended."""

    done: list[str]
    failed: list[str]
    pending: list[str]
    reason: Literal["done", "timeout", "no_workers"]

    @classmethod
    def of(
        cls,
        keys: Sequence[str],
        states: Mapping[str, TaskState | None],
        reason: Literal["done", "timeout", "no_workers"],
    ) -> WaitResult:
        """The keys by their states."""
        found = [states[key] for key in keys]
        if found.count(TaskState.FINISHED) == len(found):
            return cls(list(keys), [], [], reason)
        done, failed, pending = list[str](), list[str](), list[str]()
        lists = {TaskState.FINISHED: done, TaskState.FAILED: failed}
        for key, state in zip(keys, found, strict=True):
            (lists.get(state, pending) if state else pending).append(key)
        return cls(done, failed, pending, reason)

    def __bool__(self) -> bool:
        return self.reason == "done"


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker as the network knows it; times are POSIX seconds of the server's clock. ``heartbeat``: when
    its lease was renewed last, None once it has ended."""

    worker_id: str
    pid: int
    hostname: str
    state: WorkerState
    launcher: str
    heartbeat: float | None
    started_at: float | None
    current_task: str | None = None
    n_finished: int = 0
    n_failed: int = 0
    exit_code: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerUsage:
    """What a worker's process used when it was sampled last, at ``sampled_at`` (POSIX seconds of the server's
    clock): ``memory`` and ``peak_memory`` in bytes, resident, shared pages included; ``cpu_seconds`` since
    its start; ``cpu_percent`` of one processor since the sample before, None at the first."""

    worker_id: str
    sampled_at: float
    memory: int
    peak_memory: int
    cpu_seconds: float
    cpu_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks are in each state, from one consistent view."""

    queued: int = 0
    running: int = 0
    finished: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.queued + self.running + self.finished + self.failed


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker's process ended: the code or the signal, and the last lines of its stderr."""

    exit_code: int | None = None
    signal: int | None = None
    stderr: str = ""
    reason: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
