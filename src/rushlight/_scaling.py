"""How many workers there should be: a pure decision over what is known of tasks, workers and launches.

Goes by the identity of each launch, never by counters: a worker that comes late, one that somebody else
started, or one that is gone changes nothing about the others. Never acts.

Hysteresis: supply follows demand up at once, and down late. A worker is let go once it has idled for
``idle_timeout``, a launch is taken back once demand has stayed too low for it for ``settle`` seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ScaleLimits:
    """What the decision keeps to. ``tasks_per_worker``: queued and running tasks that one worker is to
    answer for; ``idle_timeout``: seconds a worker may idle before it is surplus; ``launch_timeout``: seconds
    from the start of a worker's process to its registration (time in a scheduler's queue does not count)."""

    min_workers: int = 0
    max_workers: int = 1
    tasks_per_worker: float = 1.0
    idle_timeout: float = 300.0
    launch_timeout: float = 60.0

    @property
    def settle(self) -> float:
        """Seconds that demand must have been low before launches are taken back."""
        return min(self.idle_timeout, 30.0)


@dataclass(frozen=True, slots=True)
class Demand:
    """Tasks there are to do; ``peak``: the most there were in the last ``settle`` seconds."""

    queued: int = 0
    running: int = 0
    peak: int = 0


@dataclass(frozen=True, slots=True)
class WorkerFact:
    """A live worker. ``idle_since``: since when it has had nothing to do, None while it works; ``leaving``:
    it was asked to leave; ``ours``: a controller launched it, so that a controller may end it; ``kept``: that
    is there, and does so itself."""

    worker_id: str
    idle_since: float | None = None
    leaving: bool = False
    ours: bool = True
    kept: bool = False


@dataclass(frozen=True, slots=True)
class LaunchFact:
    """A worker that was launched and has not registered. ``phase``: what its launcher knows; ``since``: when
    it was launched, ``running_since``: when its process was first seen to run; ``group``: what it can only be
    taken back together with (one job for several workers), '' for one alone; ``kept``: the controller that
    launched it is there, and looks after it itself."""

    worker_id: str
    phase: Literal["pending", "running", "exited"]
    since: float
    running_since: float | None = None
    group: str = ""
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Supply:
    """The workers there are, and those about to be."""

    workers: Sequence[WorkerFact] = ()
    launches: Sequence[LaunchFact] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. ``launch``: how many workers, in one batch; ``cancel``: launches that have not started,
    whole groups of them; ``drain``: workers to be asked to leave; ``failed``: launches that have ended, or
    were not heard of in time."""

    launch: int = 0
    cancel: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.launch or self.cancel or self.drain or self.failed)


def plan(demand: Demand, supply: Supply, limits: ScaleLimits, now: float) -> Plan:
    """The next step. ``now`` and all times are of one clock that does not jump."""
    failed = tuple(launch.worker_id for launch in supply.launches if _has_failed(launch, limits, now))
    coming = [launch for launch in supply.launches if launch.worker_id not in failed]
    staying = [worker for worker in supply.workers if not worker.leaving]
    tasks = demand.queued + demand.running
    wanted = wanted_workers(tasks, limits)
    there = len(staying) + len(coming)
    if there < wanted:
        # One that leaves holds its place until it is gone.
        ours = sum(worker.ours for worker in supply.workers) + len(coming)
        return Plan(launch=max(0, min(wanted - there, limits.max_workers - ours)), failed=failed)
    # What costs nothing to take back goes first.
    cancel = _taken_back(coming, there - wanted_workers(max(tasks, demand.peak), limits))
    idle = sorted(
        (worker for worker in staying if _has_idled(worker, limits, now)),
        key=lambda worker: worker.idle_since or 0.0,
    )
    # One that is there is worth more than one that may come.
    drain = tuple(worker.worker_id for worker in idle[: max(0, len(staying) - wanted)])
    return Plan(cancel=cancel, drain=drain, failed=failed)


def wanted_workers(tasks: int, limits: ScaleLimits) -> int:
    """How many workers so many tasks want."""
    return max(limits.min_workers, min(limits.max_workers, math.ceil(tasks / limits.tasks_per_worker)))


def _taken_back(coming: Sequence[LaunchFact], surplus: int) -> tuple[str, ...]:
    """Of the launches that wait in a scheduler the newest, as many as are too many."""
    groups: dict[str, list[LaunchFact]] = {}
    for launch in coming:
        if launch.kept:
            continue
        groups.setdefault(launch.group or launch.worker_id, []).append(launch)
    found: list[str] = []
    for group in sorted(groups.values(), key=lambda group: -group[0].since):
        if all(launch.phase == "pending" for launch in group) and len(found) + len(group) <= surplus:
            found += [launch.worker_id for launch in group]
    return tuple(found)


def _has_failed(launch: LaunchFact, limits: ScaleLimits, now: float) -> bool:
    if launch.phase == "exited":
        return True
    return launch.running_since is not None and now - launch.running_since > limits.launch_timeout


def _has_idled(worker: WorkerFact, limits: ScaleLimits, now: float) -> bool:
    if worker.idle_since is None or worker.kept or not worker.ours:
        return False
    return now - worker.idle_since >= limits.idle_timeout


class Peak:
    """The largest of the numbers that were told in the last ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        #: Times and numbers, each smaller than the one before: no other can be the largest any more.
        self._told: deque[tuple[float, int]] = deque()

    def tell(self, number: int, now: float) -> int:
        """Adds a number; returns the largest."""
        while self._told and self._told[-1][1] <= number:
            self._told.pop()
        self._told.append((now, number))
        while now - self._told[0][0] >= self._seconds and len(self._told) > 1:
            self._told.popleft()
        return self._told[0][1]
