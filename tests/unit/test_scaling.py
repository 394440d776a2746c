"""How many workers there should be: tables of single decisions, and whole lives of a simulated cluster."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight._breaker import Breaker
from rushlight._scaling import (
    Demand,
    LaunchFact,
    Peak,
    Plan,
    ScaleLimits,
    Supply,
    WorkerFact,
    plan,
    wanted_workers,
)

NOW = 1000.0
LIMITS = ScaleLimits(min_workers=0, max_workers=4, idle_timeout=10, launch_timeout=60)
A, B, C = (WorkerFact(name) for name in "abc")


def idle(worker: WorkerFact, seconds: float) -> WorkerFact:
    """The worker, without work for so long."""
    return replace(worker, idle_since=NOW - seconds)


def pending(name: str, age: float = 1, group: str = "") -> LaunchFact:
    """A launch in a scheduler's queue."""
    return LaunchFact(name, "pending", NOW - age, group=group)


def running(name: str, age: float = 1) -> LaunchFact:
    """A launch whose process runs."""
    return LaunchFact(name, "running", NOW - age, NOW - age)


@pytest.mark.parametrize(
    ("what", "demand", "supply", "expected"),
    [
        ("nothing to do", Demand(), Supply(), Plan()),
        ("one batch for all", Demand(3), Supply(), Plan(launch=3)),
        ("never more than may be", Demand(9), Supply(), Plan(launch=4)),
        ("running tasks want their workers", Demand(1, 2), Supply([A, B]), Plan(launch=1)),
        ("what is coming counts", Demand(4), Supply([A], [pending("p"), running("r")]), Plan(launch=1)),
        ("a late one is as good", Demand(1), Supply([A]), Plan()),
        (
            "foreign workers count",
            Demand(4),
            Supply([replace(A, ours=False), replace(B, ours=False)]),
            Plan(launch=2),
        ),
        ("more foreign ones than may be", Demand(9), Supply([replace(A, ours=False)] * 9), Plan()),
        ("one that leaves does no more", Demand(2), Supply([replace(A, leaving=True), B]), Plan(launch=1)),
        (
            "but holds its place",
            Demand(9),
            Supply([replace(A, leaving=True), replace(B, leaving=True), C]),
            Plan(launch=1),
        ),
        ("a job in a queue is never late", Demand(1), Supply((), [pending("p", 1e6)]), Plan()),
        ("a process is", Demand(1), Supply((), [running("r", 61)]), Plan(launch=1, failed=("r",))),
        ("up to its time", Demand(1), Supply((), [running("r", 60)]), Plan()),
        (
            "one that ended failed",
            Demand(1),
            Supply((), [LaunchFact("x", "exited", NOW)]),
            Plan(launch=1, failed=("x",)),
        ),
        ("surplus is kept while it idles", Demand(), Supply([idle(A, 9.9)]), Plan()),
        ("and let go after", Demand(), Supply([idle(A, 10)]), Plan(drain=("a",))),
        (
            "the longest idle first",
            Demand(0, 1),
            Supply([idle(A, 11), idle(B, 12), C]),
            Plan(drain=("b", "a")),
        ),
        (
            "only as many as are too many",
            Demand(2),
            Supply([idle(A, 11), idle(B, 12), C]),
            Plan(drain=("b",)),
        ),
        ("not for one that may come", Demand(1), Supply([idle(A, 99)], [running("r")]), Plan()),
        ("never one at work", Demand(), Supply([A]), Plan()),
        ("never a foreign one", Demand(), Supply([replace(idle(A, 99), ours=False)]), Plan()),
        ("nor one that another keeps", Demand(), Supply([replace(idle(A, 99), kept=True)]), Plan()),
        ("but it counts", Demand(1), Supply([replace(idle(A, 99), kept=True)]), Plan()),
        (
            "instead of it one of ours",
            Demand(),
            Supply([replace(idle(A, 99), kept=True), idle(B, 11)]),
            Plan(drain=("b",)),
        ),
        (
            "another's launch counts and is left alone",
            Demand(1),
            Supply((), [replace(pending("p"), kept=True), pending("q")]),
            Plan(cancel=("q",)),
        ),
        ("nor one asked already", Demand(), Supply([replace(idle(A, 99), leaving=True)]), Plan()),
        (
            "launches before workers, new before old",
            Demand(1, 0),
            Supply([idle(A, 99)], [pending("old", 9), pending("new", 3)]),
            Plan(cancel=("new", "old")),
        ),
        ("not while demand was high", Demand(0, 0, peak=2), Supply((), [pending("p"), pending("q")]), Plan()),
        ("a process that starts is left", Demand(), Supply((), [running("r")]), Plan()),
        (
            "a job of several as a whole",
            Demand(1),
            Supply((), [pending("p", 1, "job"), pending("q", 1, "job")]),
            Plan(),
        ),
        (
            "once all of it is too much",
            Demand(),
            Supply((), [pending("p", 1, "job"), pending("q", 1, "job")]),
            Plan(cancel=("p", "q")),
        ),
    ],
)
def test_a_decision(what: str, demand: Demand, supply: Supply, expected: Plan) -> None:
    """Each case is one look at the world, and what is to be done about it."""
    assert expected == plan(demand, supply, LIMITS, NOW), what
    assert bool(expected) == any((expected.launch, expected.cancel, expected.drain, expected.failed))


@pytest.mark.parametrize(
    ("tasks", "least", "ratio", "expected"),
    [(0, 0, 1, 0), (1, 0, 1, 1), (9, 0, 1, 4), (0, 2, 1, 2), (5, 0, 2, 3), (5, 0, 100, 1), (1, 0, 0.5, 2)],
)
def test_the_number_wanted(tasks: int, least: int, ratio: float, expected: int) -> None:
    """One worker for so many tasks, between the least and the most."""
    assert expected == wanted_workers(tasks, replace(LIMITS, min_workers=least, tasks_per_worker=ratio))


def test_without_idle_timeout_nobody_is_let_go() -> None:
    """``idle_timeout=None``: workers stay, and launches are still taken back."""
    limits = replace(LIMITS, idle_timeout=math.inf)
    assert Plan() == plan(Demand(), Supply([idle(A, 1e9)]), limits, NOW)
    assert 30 == limits.settle
    assert Plan(cancel=("p",)) == plan(Demand(), Supply((), [pending("p")]), limits, NOW)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 9)), max_size=40))
def test_the_peak_is_the_largest_of_late(told: list[tuple[float, int]]) -> None:
    """What was told in the last seconds, compared with a plain list of it."""
    peak, now, seen = Peak(5), 0.0, []
    for pause, number in told:
        now += pause
        seen.append((now, number))
        assert max(n for at, n in seen if now - at < 5) == peak.tell(number, now)


def test_a_breaker_opens_half_opens_and_closes() -> None:
    """Three failures in a row open it; after a pause, doubled each time, one launch is let through; one that
    comes up closes it. Many failures at once are one reason to wait."""
    breaker = Breaker()
    breaker.fail(["a"], 0)
    breaker.fail(["b"], 0)
    assert (7, None) == (breaker.allows(7, 3, 0), breaker.error)
    breaker.fail(["c"] * 20, 0)
    assert breaker.error is not None
    assert "22 launches of workers in a row came to nothing; the last one: c" in str(breaker.error)
    assert [0, 1, 0] == [breaker.allows(7, 0, 0.9), breaker.allows(7, 0, 1), breaker.allows(7, 1, 1)]
    breaker.fail(["first line\nlast line\n"], 1)
    assert "last line" in str(breaker.error)
    assert "first line\nlast line\n" == breaker.error.fields["log_tail"]
    assert [0, 1] == [breaker.allows(7, 0, 2.9), breaker.allows(7, 0, 3)]
    for _ in range(20):
        breaker.fail(["d"], breaker.retry_at)
    assert 60 == breaker.pause
    breaker.succeed()
    assert (7, None) == (breaker.allows(7, 0, 3), breaker.error)


# --- a cluster --------------------------------------------------------------------------------------


@dataclass
class Job:
    """A launch: when its process starts, when its worker comes, and whether it does at all."""

    worker_id: str
    group: str
    since: float
    starts: float
    comes: float
    dies: float = math.inf
    deaf: bool = False
    running_since: float | None = None


@dataclass
class Member:
    """A worker: its task's end (None: idle), since when it idles, whether it is ours, leaves, will die."""

    worker_id: str
    ours: bool
    idle_since: float
    ends: float | None = None
    leaving: bool = False
    dies: float = math.inf


@dataclass
class Cluster:
    """Launches, workers and tasks in time. ``chance`` decides what goes wrong until ``calm``."""

    chance: random.Random
    limits: ScaleLimits
    now: float = 0.0
    calm: bool = False
    queued: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    #: Given up or taken back, but their processes may not know.
    loose: list[Job] = field(default_factory=list)
    breaker: Breaker = field(default_factory=Breaker)
    fate: dict[str, str] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.peak = Peak(self.limits.settle)

    def luck(self, share: float) -> bool:
        return not self.calm and self.chance.random() < share

    def turn(self) -> Plan:
        """A second goes by, and the controller looks once."""
        self.now += 1.0
        self._live()
        supply = self._supply()
        demand = self._demand()
        step = plan(demand, supply, self.limits, self.now)
        self._check(step, supply)
        self._act(step)
        return step

    def _demand(self) -> Demand:
        busy = sum(member.ends is not None for member in self.members.values())
        return Demand(self.queued, busy, self.peak.tell(self.queued + busy, self.now))

    def _supply(self) -> Supply:
        workers = [
            WorkerFact(m.worker_id, None if m.ends is not None else m.idle_since, m.leaving, m.ours)
            for m in self.members.values()
        ]
        launches = []
        for job in self.jobs.values():
            phase = "exited" if self.now >= job.dies else "running" if self.now >= job.starts else "pending"
            if phase == "running" and job.running_since is None:
                job.running_since = self.now
            launches.append(LaunchFact(job.worker_id, phase, job.since, job.running_since, job.group))
        return Supply(workers, launches)

    def _live(self) -> None:
        for job in [*self.jobs.values(), *self.loose]:
            if self.now >= job.comes and self.now < job.dies:
                if self.jobs.pop(job.worker_id, None) is None:
                    self.loose.remove(job)
                self.breaker.succeed()
                dies = self.now + self.chance.uniform(0, 60) if self.luck(0.2) else math.inf
                self.members[job.worker_id] = Member(job.worker_id, ours=True, idle_since=self.now, dies=dies)
                self.fate[job.worker_id] = "came"
        if self.luck(0.05):
            name = f"foreign-{next(self.numbers)}"
            dies = self.now + self.chance.uniform(0, 90)
            self.members[name] = Member(name, ours=False, idle_since=self.now, dies=dies)
        for member in list(self.members.values()):
            if member.ends is not None and self.now >= member.ends:
                member.ends, member.idle_since = None, self.now
            if self.now >= member.dies:
                # Its task is tried again.
                self.queued += member.ends is not None
                del self.members[member.worker_id]
            elif member.ends is None and (member.leaving or self._idles_out(member)):
                del self.members[member.worker_id]
            elif member.ends is None and self.queued:
                self.queued -= 1
                member.ends = self.now + self.chance.uniform(0.5, 20)

    def _idles_out(self, member: Member) -> bool:
        least = 4 if self.limits.min_workers else 1
        return member.ours and self.now - member.idle_since >= least * self.limits.idle_timeout

    def _act(self, step: Plan) -> None:
        for worker_id in step.failed:
            job = self.jobs.pop(worker_id)
            self.fate[worker_id] = "failed"
            # A launcher that cannot end it: it may come all the same.
            if self.now < job.dies and job.deaf:
                self.loose.append(job)
        if step.failed:
            self.breaker.fail(["failed"] * len(step.failed), self.now)
        for worker_id in step.cancel:
            del self.jobs[worker_id]
            self.fate[worker_id] = "cancelled"
        for worker_id in step.drain:
            self.members[worker_id].leaving = True
        n = self.breaker.allows(step.launch, len(self.jobs), self.now)
        if n and self.luck(0.2):
            self.breaker.fail(["rejected"], self.now)
        elif n:
            self._launch(n)

    def _launch(self, n: int) -> None:
        group = f"job-{next(self.numbers)}" if self.luck(0.5) else ""
        starts = self.now + (self.chance.uniform(0, 120) if self.luck(0.5) else 0)
        for _ in range(n):
            job = Job(f"w{next(self.numbers)}", group, self.now, starts, starts + self.chance.uniform(0, 3))
            if self.luck(0.2):
                job.dies, job.comes = starts + self.chance.uniform(0, 3), math.inf
            elif self.luck(0.2):
                job.comes, job.deaf = starts + self.chance.uniform(0, 200), True
            self.jobs[job.worker_id] = job

    def _check(self, step: Plan, supply: Supply) -> None:
        facts = {launch.worker_id: launch for launch in supply.launches}
        ours = sum(member.ours for member in self.members.values())
        coming = len(facts) - len(step.failed)
        if step.launch:
            assert ours + coming + step.launch <= self.limits.max_workers
            assert not step.cancel
            assert not step.drain
        for worker_id in step.failed:
            launch = facts[worker_id]
            late = launch.running_since is not None and (
                self.now - launch.running_since > self.limits.launch_timeout
            )
            assert launch.phase == "exited" or (launch.phase == "running" and late)
        for worker_id in step.cancel:
            assert "pending" == facts[worker_id].phase
        for worker_id in step.drain:
            member = self.members[worker_id]
            assert member.ours
            assert not member.leaving
            assert member.ends is None
            assert self.now - member.idle_since >= self.limits.idle_timeout
        ended = [*step.failed, *step.cancel]
        assert len(ended) == len(set(ended))
        # What was decided once stays so: nothing is counted twice, nothing forgotten.
        assert not any(worker_id in self.fate for worker_id in facts)


@settings(max_examples=60, deadline=None)
@given(
    chance=st.randoms(use_true_random=False),
    least=st.integers(0, 2),
    room=st.integers(1, 5),
    ratio=st.sampled_from([0.5, 1.0, 3.0]),
    bursts=st.lists(st.integers(0, 12), min_size=1, max_size=6),
)
def test_the_life_of_a_cluster(
    chance: random.Random, least: int, room: int, ratio: float, bursts: list[int]
) -> None:
    """Launches wait, are rejected, die, come late or never, workers die, strangers come and go, work comes in
    bursts: whatever happens, each step keeps to its limits, and once things calm down all work gets done and
    supply is what is wanted, with nothing left to do."""
    limits = ScaleLimits(least, least + room, ratio, idle_timeout=15, launch_timeout=10)
    cluster = Cluster(chance, limits)
    for burst in bursts:
        cluster.queued += burst
        for _ in range(15):
            cluster.turn()
    cluster.calm = True
    for _ in range(400):
        cluster.turn()
    for _ in range(30):
        # One of the least number may just have left after a long idle time, and another is on its way.
        if not cluster.jobs:
            break
        cluster.turn()
    assert 0 == cluster.queued
    assert {} == cluster.jobs
    assert all(member.ends is None for member in cluster.members.values())
    assert least <= len(cluster.members)
    assert len([member for member in cluster.members.values() if member.ours]) <= least


@given(high=st.integers(1, 4), low=st.integers(0, 3), period=st.integers(1, 9))
def test_demand_that_swings_makes_no_launch_flap(high: int, low: int, period: int) -> None:
    """Launches that wait in a scheduler are not taken back and made anew with every swing of demand."""
    peak, launches, made, cancelled = Peak(LIMITS.settle), [], 0, 0
    for second in range(200):
        tasks = high if second // period % 2 == 0 else min(low, high)
        demand = Demand(tasks, 0, peak.tell(tasks, second))
        step = plan(demand, Supply((), launches), LIMITS, second)
        made, cancelled = made + step.launch, cancelled + len(step.cancel)
        launches += [LaunchFact(f"{second}-{i}", "pending", second) for i in range(step.launch)]
        launches = [launch for launch in launches if launch.worker_id not in step.cancel]
    assert (high, 0) == (made, cancelled)


@given(tasks=st.integers(1, 8), ratio=st.sampled_from([0.5, 1.0, 2.0]), least=st.integers(0, 4))
def test_steady_demand_is_met_at_once_and_left_alone(tasks: int, ratio: float, least: int) -> None:
    """One batch makes supply what is wanted; after that, and when all of it is up, nothing is done."""
    limits = replace(LIMITS, min_workers=least, tasks_per_worker=ratio)
    demand = Demand(tasks)
    step = plan(demand, Supply(), limits, NOW)
    assert Plan(launch=wanted_workers(tasks, limits)) == step
    coming = [pending(str(i)) for i in range(step.launch)]
    assert Plan() == plan(demand, Supply((), coming), limits, NOW)
    there = [WorkerFact(launch.worker_id) for launch in coming]
    assert Plan() == plan(demand, Supply(there), limits, NOW)
