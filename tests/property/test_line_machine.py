"""The line against a model in memory: priorities, private queues, retries, prerequisites, cancelling, limits.

A smaller machine than that of the whole store: nobody's replies are lost here, but tasks wait for one
another,
for a time and for one worker, and workers are replaced under their ids.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from ground import Ground
from harness import Server
from property.histories import HISTORIES, LONGEST, STEPS, Machine, live_through
from rushlight import Rush
from rushlight._member import Member
from rushlight._names import random_token
from rushlight._records import Exit, WorkerState
from rushlight._seeding import fix_root
from rushlight._seeds import Seed, encode, of_task
from rushlight._store_ends import WorkerEnd

IDS = ("ann", "ben", "cleo")
ROOT = 42
_PREREQUISITE = "Prerequisite failed: "


@dataclass
class Known:
    """A task as the model has it."""

    priority: int
    own: str | None
    retries: int
    delays: bool
    limit: bool
    after: list[str]
    state: str = "queued"
    attempt: int = 1
    holder: str | None = None
    unmet: set[str] = field(default_factory=set)
    delayed: bool = False
    #: Where it stands in the line: the queue it is in, and its number there.
    place: tuple[str, int] | None = None
    message: str = ""
    #: Who had the attempt that ended last, and its number: who failed it may say so again.
    last: tuple[str | None, int] = (None, 0)
    #: Its number in the network, the seed it was pushed with, and how often it has had the next one.
    seq: int = 0
    seed: int | None = None
    reseeded: int = 0


@dataclass
class Hand:
    """A worker as the model has it."""

    member: Member
    requeue: bool
    supervised: bool
    #: Its process is being replaced.
    away: bool = False


class Line(Machine):
    """Rules are what people and accidents do; invariants what must hold after each."""

    server: ClassVar[Server]
    numbers: ClassVar[Any] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.ground = Ground(self.server, f"line-{next(self.numbers)}")
        self.rush = Rush(self.ground.network, self.ground.url)
        self.tasks: dict[str, Known] = {}
        self.hands: dict[str, Hand] = {}
        self.places = itertools.count()
        fix_root(self.ground.store, encode(ROOT))

    def teardown(self) -> None:
        for hand in self.hands.values():
            self.report(hand, come_back=False)
        self.rush.close()
        self.ground.close()

    def report(self, hand: Hand, *, come_back: bool) -> list[str]:
        """Its supervisor says that the process has ended; who is to come back."""
        card = hand.member.card
        end = WorkerEnd(card.worker_id, card.token, WorkerState.KILLED, "gone", Exit(signal=9))
        return self.ground.store.bury_or_replace([end], come_back=come_back)[1]

    # --- what happens to tasks ------------------------------------------------------------------

    def line_up(self, key: str, *, alone: bool = False) -> None:
        task = self.tasks[key]
        queue = f"own {task.own}" if task.own in self.hands and not alone else "shared"
        task.place = queue, next(self.places)

    def arrive(self, key: str) -> None:
        """A task is queued: it waits for others, fails with one of them, or joins the line."""
        task = self.tasks[key]
        failed = [other for other in task.after if self.tasks[other].state == "failed"]
        task.unmet = {other for other in task.after if self.tasks[other].state != "finished"}
        if failed:
            self.fail(key, f"{_PREREQUISITE}{failed[0]}")
        elif not task.unmet:
            self.line_up(key)

    def fail(self, key: str, message: str) -> None:
        task = self.tasks[key]
        task.last = task.holder, task.attempt
        task.state, task.message, task.holder, task.place = "failed", message, None, None
        task.unmet, task.delayed = set(), False
        for other, waiter in self.tasks.items():
            if waiter.state == "queued" and key in waiter.unmet:
                self.fail(other, f"{_PREREQUISITE}{key}")

    def lapse(self, key: str, message: str, *, again: bool = True) -> None:
        task = self.tasks[key]
        if not again or task.attempt > task.retries:
            self.fail(key, message)
            return
        task.last = task.holder, task.attempt
        task.state, task.holder, task.message = "queued", None, message
        task.attempt += 1
        task.delayed = task.delays
        if not task.delays:
            self.line_up(key)

    def part(self, wid: str, message: str, *, again: bool) -> None:
        """A worker's tasks leave its hands."""
        for key in [key for key, task in self.tasks.items() if task.holder == wid]:
            self.lapse(key, message, again=again)

    def bury(self, wid: str, message: str, *, again: bool) -> None:
        """A worker is no more."""
        del self.hands[wid]
        for key in self.queue(f"own {wid}"):
            self.line_up(key, alone=True)
        self.part(wid, message, again=again)

    def queue(self, name: str) -> list[str]:
        """The keys in one queue, first to last."""
        found = [
            (task.place[1], key) for key, task in self.tasks.items() if task.place and task.place[0] == name
        ]
        keys = [key for _, key in sorted(found)]
        return keys if name != "shared" else sorted(keys, key=lambda key: -self.tasks[key].priority)

    def stop_task(self, key: str) -> None:
        """A running task was taken from its worker: under a supervisor that ends its process."""
        wid = self.tasks[key].holder or ""
        if self.hands[wid].supervised:
            self.hands[wid].away = True

    # --- rules ----------------------------------------------------------------------------------

    @rule(data=st.data(), n=st.integers(1, 3))
    def push(self, data: st.DataObject, n: int) -> None:
        options: dict[str, list[Any]] = {
            "priority": data.draw(st.lists(st.sampled_from((0, 0, 1, -1, 7)), min_size=n, max_size=n)),
            "workers": data.draw(
                st.lists(st.sampled_from((None, None, *IDS, "dora")), min_size=n, max_size=n)
            ),
            "max_retries": data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)),
            "timeout": data.draw(st.lists(st.sampled_from((None, 600.0)), min_size=n, max_size=n)),
        }
        seeds = data.draw(st.lists(st.sampled_from((None, None, 7, 2**70)), min_size=n, max_size=n))
        backoff = data.draw(st.sampled_from((0.0, 600.0)))
        known = list(self.tasks)
        one = st.lists(st.sampled_from(known), max_size=2, unique=True) if known else st.just([])
        after = data.draw(st.lists(one, min_size=n, max_size=n))
        first = len(self.tasks) + 1
        keys = self.rush.push_tasks([{"x": 1}] * n, backoff=backoff, after=after, seeds=seeds, **options)
        rows = zip(keys, *options.values(), after, seeds, strict=True)
        for seq, (key, priority, own, retries, limit, others, seed) in enumerate(rows, start=first):
            delays = bool(backoff and retries)
            known = Known(priority, own, retries, delays, limit is not None, list(others), seq=seq, seed=seed)
            self.tasks[key] = known
        # Those that wait for nothing and nobody come first, as one.
        plain = [
            key
            for key in keys
            if not (self.tasks[key].after or self.tasks[key].own or self.tasks[key].priority)
        ]
        for key in [*plain, *(key for key in keys if key not in plain)]:
            self.arrive(key)

    @rule(wid=st.sampled_from(IDS), requeue=st.booleans(), supervised=st.booleans())
    def join(self, wid: str, requeue: bool, supervised: bool) -> None:
        """A worker comes, or one that is being replaced comes back."""
        old = self.hands.get(wid)
        if old is not None and not old.away:
            return
        if old is not None:
            assert [wid] == self.report(old, come_back=True)
            requeue, supervised = old.requeue, old.supervised
        policy = {"on_lost": "requeue" if requeue else "fail", "supervisor": "sup" if supervised else ""}
        card = self.ground.card(wid, **policy)
        member = Member(self.ground.another(), replace(card, token=random_token()), 600.0)
        member.join(WorkerState.RUNNING)
        self.hands[wid] = Hand(member, requeue, supervised)

    def draw_hand(self, data: st.DataObject, *, at_work: bool = True) -> Hand | None:
        hands = [hand for hand in self.hands.values() if not (at_work and hand.away)]
        return data.draw(st.sampled_from(hands), label="worker") if hands else None

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), n=st.integers(1, 3))
    def claim(self, data: st.DataObject, n: int) -> None:
        hand = self.draw_hand(data)
        if hand is None:
            return
        wid = hand.member.card.worker_id
        expected = [*self.queue(f"own {wid}"), *self.queue("shared")][:n]
        assert expected == self.ground.claim(hand.member, n)
        for key in expected:
            task = self.tasks[key]
            task.state, task.holder, task.place = "running", wid, None

    @precondition(lambda self: any(task.state == "running" for task in self.tasks.values()))
    @rule(data=st.data(), finish=st.booleans(), old=st.booleans())
    def decide(self, data: st.DataObject, finish: bool, old: bool) -> None:
        running = [key for key, task in self.tasks.items() if task.state == "running"]
        key = data.draw(st.sampled_from(running))
        task = self.tasks[key]
        member = self.hands[task.holder or ""].member
        attempt = task.attempt - 1 if old and task.attempt > 1 else task.attempt
        call = self.ground.finish if finish else self.ground.fail
        # What this worker said of the attempt before, and says again, is true still.
        said = not finish and task.last == (task.holder, attempt) and task.message == "no"
        assert (attempt == task.attempt or said) == call(member, key, attempt)
        if attempt < task.attempt:
            return
        if not finish:
            self.lapse(key, "no")
            return
        task.state, task.holder = "finished", None
        waiters = [other for other, waiter in self.tasks.items() if key in waiter.unmet]
        for other in waiters:
            self.tasks[other].unmet.discard(key)
        # In the order they came to wait, which is not that of their creation for those that were retried.
        released = [other for other in waiters if not self.tasks[other].unmet]
        for other in self.in_order(released):
            self.line_up(other)

    def in_order(self, keys: list[str]) -> list[str]:
        """Keys that have joined the line together, as the server has them."""
        place = self.standing()
        return sorted(keys, key=lambda key: place[key])

    def standing(self) -> dict[str, int]:
        """Where each task stands among those of its own queue and priority, by the server."""
        raw, key = self.ground.raw, self.ground.key
        entries = [entry.decode() for entry in raw.lrange(key("queue"), 0, -1)]
        entries += [member.decode()[14:] for member in raw.zrange(key("ranked"), 0, -1)]
        entries += [member.decode().partition("\0")[2][14:] for member in raw.zrange(key("private"), 0, -1)]
        return {entry.partition("\0")[0]: at for at, entry in enumerate(entries)}

    def regroup(self, before: set[str]) -> None:
        """Several tasks have come at once, in an order that is the server's."""
        new = [key for key, task in self.tasks.items() if task.place and key not in before]
        for key in self.in_order(new):
            queue, _ = self.tasks[key].place or ("", 0)
            self.tasks[key].place = queue, next(self.places)

    def placed(self) -> set[str]:
        return {key for key, task in self.tasks.items() if task.place}

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), every=st.booleans())
    def drop(self, data: st.DataObject, every: bool) -> None:
        """Emptying the queue, or cancelling tasks in any state."""
        queued = [key for key, task in self.tasks.items() if task.state == "queued"]
        if every:
            assert sorted(queued) == sorted(self.rush.empty_queue())
            self.drop_all(queued, "Removed from queue")
            return
        keys = data.draw(st.lists(st.sampled_from(list(self.tasks)), min_size=1, max_size=3, unique=True))
        running = [key for key in keys if self.tasks[key].state == "running"]
        dropped = [key for key in keys if key in queued or key in running]
        before = self.placed()
        assert dropped == self.rush.cancel_tasks(keys)
        for key in running:
            self.stop_task(key)
        self.drop_all(dropped, "Cancelled")
        self.replace_those_away()
        self.regroup(before)

    def drop_all(self, keys: list[str], message: str) -> None:
        for key in keys:
            # Each for its own sake, not with another of them.
            self.tasks[key].unmet = set()
        for key in keys:
            self.fail(key, message)

    def replace_those_away(self) -> None:
        """Tasks in the hands of workers whose process was ended with another task."""
        for wid, hand in self.hands.items():
            if hand.away:
                self.part(wid, "Worker was killed", again=hand.requeue)

    @precondition(lambda self: any(task.state == "failed" for task in self.tasks.values()))
    @rule(data=st.data(), ignore=st.booleans(), reseed=st.booleans())
    def retry(self, data: st.DataObject, ignore: bool, reseed: bool) -> None:
        keys = data.draw(st.lists(st.sampled_from(list(self.tasks)), min_size=1, max_size=4, unique=True))
        went: set[str] = set()
        # Tasks know only tasks older than themselves; the keys were made in their order.
        for key in [key for key in self.tasks if key in keys]:
            task = self.tasks[key]
            allowed = ignore or not task.retries or task.attempt <= task.retries
            ready = all(self.tasks[other].state != "failed" for other in task.after)
            if task.state == "failed" and allowed and ready:
                went.add(key)
                task.state, task.attempt = "queued", task.attempt + 1
                task.reseeded += reseed
        before = self.placed()
        options = {"ignore_max_retries": ignore, "next_seed": reseed}
        assert [key for key in keys if key in went] == self.rush.retry_tasks(keys, **options)
        for key in went:
            self.arrive(key)
        self.regroup(before)

    def let_run_out(self, name: str) -> None:
        """These times are long past, one after the other: at once, the order would be anybody's."""
        place = {key: at for at, key in enumerate(self.tasks, start=1)}
        for entry in self.ground.raw.zrange(self.ground.key(name), 0, -1):
            at = place.get(entry.decode().partition("\0")[0], 0)
            self.ground.raw.zadd(self.ground.key(name), {entry: at})

    @precondition(lambda self: any(task.delayed for task in self.tasks.values()))
    @rule()
    def time_passes(self) -> None:
        """All pauses are over; the next claim finds their tasks."""
        before = self.placed()
        self.let_run_out("delayed")
        # A claim of none by a worker that takes nothing: it moves them into the line all the same.
        visitor = self.ground.member("visitor")
        taken = self.ground.claim(visitor, 1)
        for key, task in self.tasks.items():
            if task.delayed:
                task.delayed = False
                self.line_up(key)
        if taken:
            (key,) = taken
            self.tasks[key].place = None
            self.regroup(before)
            self.tasks[key].state, self.tasks[key].holder = "running", "visitor"
        else:
            self.regroup(before)
        visitor.leave("left")
        if taken:
            self.fail(taken[0], "left")

    @precondition(lambda self: any(t.limit and t.state == "running" for t in self.tasks.values()))
    @rule()
    def limits_run_out(self) -> None:
        """All running tasks that have a limit are late."""
        self.let_run_out("deadlines")
        before = self.placed()
        assert [] == self.ground.store.reap()
        late = [key for key, task in self.tasks.items() if task.limit and task.state == "running"]
        for key in late:
            self.stop_task(key)
            self.lapse(key, "Task timed out after 600 seconds")
        self.replace_those_away()
        self.regroup(before)

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), how=st.sampled_from(["lease", "kill", "crash", "terminate"]))
    def end(self, data: st.DataObject, how: str) -> None:
        hand = self.draw_hand(data, at_work=False)
        assert hand is not None
        wid, before = hand.member.card.worker_id, self.placed()
        message = "Worker was killed"
        if how == "lease":
            self.ground.expire(hand.member)
            assert [wid] == self.ground.store.reap()
            message = "Worker has crashed or was killed"
        elif how == "kill":
            self.ground.store.stop([wid], kill=True)
        elif how == "crash":
            end = WorkerEnd(wid, hand.member.card.token, WorkerState.LOST, "crashed", Exit(signal=11))
            self.ground.store.bury([end])
            message = "crashed"
        elif hand.away:
            # Asked to leave while its process is replaced: it does not come back.
            self.ground.store.stop([wid], kill=False)
        else:
            hand.member.leave("left")
            message = "left"
        self.report(hand, come_back=False)
        own = self.queue(f"own {wid}")
        self.bury(wid, message, again=hand.requeue and how in ("lease", "crash"))
        self.regroup(before - set(own))

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def books_agree(self) -> None:
        found = self.ground.account()
        assert {key: task.state for key, task in self.tasks.items()} == found.states()
        for key, row in (found.queued | found.running).items():
            assert self.tasks[key].attempt == row[1]
        for key, row in found.running.items():
            assert self.tasks[key].holder == row[0]

    @invariant()
    def lines_agree(self) -> None:
        """Every queued task stands where the model has it, in the model's order."""
        raw, key = self.ground.raw, self.ground.key
        waits = {name.decode() for name in raw.hkeys(key("waiting"))}
        assert {name for name, task in self.tasks.items() if task.state == "queued" and task.unmet} == waits
        place = self.standing()
        for name in ["shared", *(f"own {wid}" for wid in IDS)]:
            groups = itertools.groupby(self.queue(name), key=lambda task: self.tasks[task].priority)
            for _, group in groups if name == "shared" else [(0, self.queue(name))]:
                keys = list(group)
                assert keys == self.in_order(keys)
                assert place.keys() >= set(keys)

    @invariant()
    def seeds_agree(self) -> None:
        """A task has the numbers of its place or of its own seed, whoever has it and how often."""
        for task in self.rush.fetch_tasks(as_="tasks"):
            known = self.tasks[task.key]
            assert (known.seq, known.seed, known.reseeded) == (task.seq, task.seed, task.reseeded)
            own = known.seed is not None
            place = () if own else (known.seq - 1,)
            path = (*place, known.reseeded) if known.reseeded else place
            expected = np.random.SeedSequence(known.seed if own else ROOT, spawn_key=path)
            found = of_task(lambda: Seed(ROOT), task.seq, task.seed, task.reseeded).words(4)
            assert expected.generate_state(4).tolist() == found

    @invariant()
    def failures_say_why(self) -> None:
        for key, task in self.tasks.items():
            if task.state != "failed":
                continue
            said = (self.rush.task(key).condition or {})["message"]
            if task.message.startswith(_PREREQUISITE):
                # Of several that failed at once any may be named.
                assert said.removeprefix(_PREREQUISITE) in task.after
            else:
                assert task.message == said

    @invariant()
    def somebody_will_hear(self) -> None:
        """While tasks are queued for all there is a token for the next who waits; nobody here takes one."""
        assert not self.queue("shared") or self.ground.raw.exists(self.ground.key("bell"))


def run(server: Server, histories: int, steps: int, **kwargs: Any) -> None:
    """Runs the machine against a server."""
    Line.server = server
    # Then hashes tell their fields in the order they came, so that a history can be had again.
    with server.client() as raw:
        raw.config_set("hash-max-listpack-value", 1 << 20)
        raw.config_set("hash-max-listpack-entries", 1 << 20)
    live_through(Line, histories, steps, **kwargs)


def test_the_line_is_as_the_model_says(server: Server, network: str) -> None:
    """In many short histories, the same ones each time."""
    run(server, 80, 40, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
def test_the_line_is_as_the_model_says_for_long(server: Server, network: str) -> None:
    """In many long histories, others each time."""
    run(server, HISTORIES, STEPS)
