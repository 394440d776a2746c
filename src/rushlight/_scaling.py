"""How many workers there should be: a pure decision over what is known of tasks, workers and launches.

Goes by the identity of each launch, never by counters: a worker that comes late, one that somebody else
started, or one that is gone changes nothing about the others. Never acts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Demand:
    """Tasks there are to do."""

    queued: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class WorkerFact:
    """A live worker. ``idle_since``: since when it has had nothing to do, None while it works; ``leaving``:
    it was asked to leave; ``ours``: a controller launched it, so that a controller may end it."""

    worker_id: str
    idle_since: float | None = None
    leaving: bool = False
    ours: bool = True


@dataclass(frozen=True, slots=True)
class LaunchFact:
    """A worker that was launched and has not registered. ``phase``: what its launcher knows; ``since``: when
    it was launched, ``running_since``: when its process was first seen to run."""

    worker_id: str
    phase: Literal["pending", "running", "exited"]
    since: float
    running_since: float | None = None


@dataclass(frozen=True, slots=True)
class Supply:
    """The workers there are, and those about to be."""

    workers: Sequence[WorkerFact] = ()
    launches: Sequence[LaunchFact] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. ``launch``: how many workers, in one batch; ``cancel``: launches that have not started;
    ``drain``: workers to be asked to leave; ``failed``: launches that have ended, or were not heard of in
    time."""

    launch: int = 0
    cancel: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    failed: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.launch or self.cancel or self.drain or self.failed)


def plan(demand: Demand, supply: Supply, limits: ScaleLimits, now: float) -> Plan:
    """The next step. ``now`` and all times are of one clock that does not jump."""
    failed = tuple(launch.worker_id for launch in supply.launches if _has_failed(launch, limits, now))
    coming = [launch for launch in supply.launches if launch.worker_id not in failed]
    staying = [worker for worker in supply.workers if not worker.leaving]
    wanted = wanted_workers(demand, limits)
    there = len(staying) + len(coming)
    if there < wanted:
        return Plan(launch=wanted - there, failed=failed)
    surplus = there - wanted
    # What costs nothing to take back goes first: launches that wait in a scheduler, the newest before others.
    waiting = sorted((one for one in coming if one.phase == "pending"), key=lambda one: -one.since)
    cancel = tuple(launch.worker_id for launch in waiting[:surplus])
    idle = sorted(
        (worker for worker in staying if _has_idled(worker, limits, now)),
        key=lambda w: w.idle_since or 0.0,
    )
    drain = tuple(worker.worker_id for worker in idle[: surplus - len(cancel)])
    return Plan(cancel=cancel, drain=drain, failed=failed)


def wanted_workers(demand: Demand, limits: ScaleLimits) -> int:
    """How many workers these tasks want."""
    tasks = demand.queued + demand.running
    return max(limits.min_workers, min(limits.max_workers, math.ceil(tasks / limits.tasks_per_worker)))


def _has_failed(launch: LaunchFact, limits: ScaleLimits, now: float) -> bool:
    if launch.phase == "exited":
        return True
    return launch.running_since is not None and now - launch.running_since > limits.launch_timeout


def _has_idled(worker: WorkerFact, limits: ScaleLimits, now: float) -> bool:
    return worker.ours and worker.idle_since is not None and now - worker.idle_since >= limits.idle_timeout
