"""The store against a model in memory: workers and managers, with crashes between any two steps.

Every call may be carried out and its reply be lost (the client sends it again by itself, or is never heard
of again), or never be sent at all. Packets of long ago arrive again at any time. After every step the
containers of the server, read one by one, say what the model says.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from ground import Ground, Tape, lose_reply
from harness import Server
from property.histories import HISTORIES, LONGEST, STEPS, Machine, live_through
from rushlight._budget import Budget, Calls
from rushlight._member import Member, Verdict
from rushlight._records import Exit, TaskState, WorkerState
from rushlight._store import Store
from rushlight._store_ends import WorkerEnd
from rushlight.errors import ConfigError, UnknownKey, WorkerLost

IDS = ("ann", "ben", "cleo")
PRIORITIES = (0, 0, 0, 2, -1)


class VanishedError(BaseException):
    """The client is gone, in the middle of a call."""


def vanish(owner: Any, *, before: bool) -> None:
    """The client of the next call is gone before it is sent, or before its reply is read."""
    link = getattr(owner, "store", owner).link
    exchange = link._exchange

    def gone(commands: bytes, n: int, wait: float | None) -> list[Any]:
        if not before and refused(replies := exchange(commands, n, wait)):
            return replies
        link._exchange = exchange
        raise VanishedError

    link._exchange = gone


def refused(replies: list[Any]) -> bool:
    """Whether the server did nothing but tell how to ask: another epoch, more keys, the scripts first."""
    return any(
        isinstance(reply, Exception) or (type(reply) is list and reply[0] in (b"EPOCH", b"LINE"))
        for reply in replies
    )


@dataclass
class Known:
    """A task as the model has it."""

    state: str
    retries: int = 0
    priority: int = 0
    attempt: int = 1
    holder: str | None = None
    #: Whose hands it was in, and under which attempts: words from there come too late.
    past: list[tuple[Member, int]] = field(default_factory=list)
    #: By whom the attempt before was failed, and under which number; None where it ended otherwise.
    lapsed: tuple[Member, int] | None = None


@dataclass
class Hand:
    """A worker as the model has it."""

    member: Member
    requeue: bool
    live: bool = True
    asked: bool = False
    #: Tasks the server gave it in a claim whose answer it has not read yet.
    unread: list[str] | None = None
    #: Its own calls about the budget, as a worker keeps them.
    calls: Calls = field(default_factory=Calls)
    #: Whether it holds a unit that it has not used, and what a call was told whose answer it has not read.
    unit: bool = False
    untold: bool | None = None


class Network(Machine):
    """Rules are what people and accidents do; invariants what must hold after each."""

    server: ClassVar[Server]
    numbers: ClassVar[Any] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.ground = Ground(self.server, f"model-{next(self.numbers)}")
        self.managers = [self.ground.store, self.ground.another()]
        self.tasks: dict[str, Known] = {}
        self.queue: list[str] = []
        self.finished: list[str] = []
        self.failures: list[str] = []
        self.hands: dict[str, Hand] = {}
        self.dead: list[Hand] = []
        self.packets: list[tuple[Tape, int]] = []
        self.tapes: dict[int, Tape] = {}
        #: Ids the network has known since it was last deleted.
        self.heard_of: set[str] = set()
        #: Units of the budget that are used up.
        self.spent = 0

    def teardown(self) -> None:
        self.ground.close()

    # --- calling --------------------------------------------------------------------------------

    def call(self, owner: Member | Store, fault: str, action: Callable[[], Any]) -> tuple[bool, bool, Any]:
        """Whether the server carried it out, whether the caller heard, and what."""
        if id(owner) not in self.tapes:
            self.tapes[id(owner)] = Tape(owner)
        tape = self.tapes[id(owner)]
        sent = len(tape.sent)
        link = getattr(owner, "store", owner).link
        exchange = link._exchange
        if fault == "resend":
            lose_reply(owner)
        elif fault in ("deaf", "mute"):
            vanish(owner, before=fault == "mute")
        try:
            answer = action()
        except VanishedError:
            if fault == "deaf":
                self.keep(tape, sent)
            return fault == "deaf", False, None
        finally:
            link._exchange = exchange  # type: ignore[method-assign]
        self.keep(tape, sent)
        return True, True, answer

    def keep(self, tape: Tape, sent: int) -> None:
        """These packets may arrive again, much later."""
        self.packets += [(tape, at) for at in range(sent, len(tape.sent))]

    def known_epoch(self, store: Store) -> None:
        """Meets the network, so that the next call is the one that is meant."""
        store.epoch = ""
        store._open()

    def draw_hand(self, data: st.DataObject, *, dead: bool = False) -> Hand:
        hands = list(self.hands.values()) + (self.dead if dead else [])
        return data.draw(st.sampled_from(hands), label="worker")

    def line(self) -> list[str]:
        """The queue in the order tasks are given away."""
        return sorted(self.queue, key=lambda key: -self.tasks[key].priority)

    # --- what happens to tasks ------------------------------------------------------------------

    def give(self, hand: Hand, n: int) -> list[str]:
        """The server gives tasks to a worker."""
        keys = [] if hand.asked else self.line()[:n]
        for key in keys:
            self.queue.remove(key)
            task = self.tasks[key]
            task.state, task.holder = "running", hand.member.card.worker_id
            task.past.append((hand.member, task.attempt))
        return keys

    def lapse(self, key: str, *, again: bool, author: tuple[Member, int] | None = None) -> None:
        """An attempt has failed, by the word of its ``author`` or by accident."""
        task = self.tasks[key]
        task.holder = None
        task.lapsed = author
        if again and task.attempt <= task.retries:
            task.state, task.attempt = "queued", task.attempt + 1
            self.queue.append(key)
        else:
            task.state = "failed"
            self.failures.append(key)

    def settle(self, hand: Hand, verdict: Verdict) -> bool:
        """What a verdict does, and whether it is its author's."""
        task = self.tasks[verdict.key]
        mine = task.state == "running" and (hand.member, verdict.attempt) == task.past[-1] and hand.live
        if mine and verdict.kind == "f":
            task.state, task.holder = "finished", None
            self.finished.append(verdict.key)
            self.use_unit(hand)
        elif mine:
            self.lapse(verdict.key, again=True, author=(hand.member, verdict.attempt))
        return mine

    def use_unit(self, hand: Hand) -> None:
        """A unit is used up, if there is one."""
        self.spent += hand.unit
        hand.unit = False

    def lose(self, hand: Hand, *, again: bool) -> None:
        """A worker is no more; a unit it has not used is everybody's again."""
        hand.live = hand.unit = False
        hand.unread = hand.untold = None
        wid = hand.member.card.worker_id
        del self.hands[wid]
        self.dead.append(hand)
        for key, task in self.tasks.items():
            if task.holder == wid:
                self.lapse(key, again=again)

    # --- managers -------------------------------------------------------------------------------

    faults = st.sampled_from(("", "", "resend", "deaf", "mute"))
    quiet = st.sampled_from(("", "resend"))

    @rule(
        which=st.integers(0, 1),
        n=st.integers(1, 4),
        retries=st.integers(0, 2),
        priority=st.sampled_from(PRIORITIES),
        fault=faults,
    )
    def push(self, which: int, n: int, retries: int, priority: int, fault: str) -> None:
        store = self.managers[which]
        self.known_epoch(store)
        opts = {name: value for name, value in (("r", retries), ("p", priority)) if value}
        batch = store.encode_tasks([{"i": i} for i in range(n)], [None] * n, [opts or None] * n)
        done, _, _ = self.call(store, fault, lambda: store.push(batch))
        if done:
            for key in batch.keys:
                self.tasks[key] = Known("queued", retries, priority)
                self.queue.append(key)

    @rule(which=st.integers(0, 1), n=st.integers(1, 3), kind=st.sampled_from("fx"), fault=faults)
    def record(self, which: int, n: int, kind: str, fault: str) -> None:
        store = self.managers[which]
        self.known_epoch(store)
        batch = self.ground.encode(n)
        payload = self.ground.payload(y=1) if kind == "f" else self.ground.condition()
        done, _, _ = self.call(store, fault, lambda: store.record(batch, kind, [payload] * n))
        if done:
            for key in batch.keys:
                self.tasks[key] = Known("finished" if kind == "f" else "failed")
                (self.finished if kind == "f" else self.failures).append(key)

    @precondition(lambda self: self.queue)
    @rule(which=st.integers(0, 1), every=st.booleans(), data=st.data(), fault=faults)
    def drop(self, which: int, every: bool, data: st.DataObject, fault: str) -> None:
        store = self.managers[which]
        self.known_epoch(store)
        if every:
            # In the order of the plain queue; the order among the others is not promised.
            plain = [key for key in self.queue if not self.tasks[key].priority]
            keys = plain + [key for key in self.queue if self.tasks[key].priority]
        else:
            keys = data.draw(st.lists(st.sampled_from(self.queue), min_size=1, max_size=3, unique=True))
        before = len(self.failures)
        done, heard, dropped = self.call(
            store, fault, lambda: store.drop({"message": "gone"}, None if every else keys)
        )
        if not done:
            return
        failed = self.ground.account().failures[before:]
        assert sorted(keys) == sorted(failed)
        assert not heard or failed == dropped
        if every:
            assert plain == failed[: len(plain)]
        for key in failed:
            self.queue.remove(key)
            self.tasks[key].state, self.tasks[key].lapsed = "failed", None
            self.failures.append(key)

    @precondition(lambda self: any(task.state == "failed" for task in self.tasks.values()))
    @rule(which=st.integers(0, 1), ignore=st.booleans(), data=st.data(), fault=faults)
    def retry(self, which: int, ignore: bool, data: st.DataObject, fault: str) -> None:
        store = self.managers[which]
        self.known_epoch(store)
        keys = data.draw(st.lists(st.sampled_from(list(self.tasks)), min_size=1, max_size=4, unique=True))
        action = lambda: store.retry(keys, ignore=ignore, next_seed=False)  # noqa: E731
        done, heard, went = self.call(store, fault, action)
        expected = []
        for key in keys if done else ():
            task = self.tasks[key]
            limited = task.retries > 0 and not ignore and task.attempt > task.retries
            if task.state == "failed" and not limited:
                expected.append(key)
                task.state, task.attempt = "queued", task.attempt + 1
                self.queue.append(key)
        assert not heard or expected == went

    @rule(which=st.integers(0, 1))
    def reset_tasks(self, which: int) -> None:
        self.managers[which].reset_tasks()
        self.forget_tasks()

    @rule(which=st.integers(0, 1))
    def reset_all(self, which: int) -> None:
        store = self.managers[which]
        assert sorted(self.heard_of) == sorted(store.reset_all([]) if self.heard_of else [])
        assert [] == store.reset_all(sorted(self.heard_of))
        self.forget_tasks()
        for hand in list(self.hands.values()):
            self.lose(hand, again=False)
        self.heard_of.clear()

    def forget_tasks(self) -> None:
        self.tasks.clear()
        for known in (self.queue, self.finished, self.failures):
            known.clear()
        self.spent = 0
        for hand in self.hands.values():
            # Claims of the old epoch are forgotten with their tasks, and so are units.
            hand.unread, hand.unit, hand.untold = None, False, None

    # --- workers come and go --------------------------------------------------------------------

    @rule(wid=st.sampled_from(IDS), requeue=st.booleans(), start=st.booleans())
    def join(self, wid: str, requeue: bool, start: bool) -> None:
        policy = "requeue" if requeue else "fail"
        member = Member(self.ground.another(), self.ground.card(wid, on_lost=policy), 600.0)
        if wid in self.hands:
            with pytest.raises(ConfigError, match=wid):
                member.join(WorkerState.RUNNING)
            return
        if start:
            member.join(WorkerState.STARTING)
        member.join(WorkerState.RUNNING)
        self.hands[wid] = Hand(member, requeue)
        self.heard_of.add(wid)

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def silence(self, data: st.DataObject) -> None:
        """Leases run out by the server's clock, and everybody who looks finds the same."""
        lost = data.draw(st.lists(st.sampled_from(sorted(self.hands)), min_size=1, unique=True))
        self.ground.expire(*(self.hands[wid].member for wid in lost))
        found = self.managers[0].reap()
        assert sorted(lost) == sorted(found)
        assert [] == self.managers[1].reap()
        self.lose_all(lost)

    def lose_all(self, wids: list[str]) -> None:
        """Several at once: the order among their tasks is the server's."""
        before_queue, before_failures = list(self.queue), list(self.failures)
        for wid in wids:
            hand = self.hands[wid]
            self.lose(hand, again=hand.requeue)
        found = self.ground.account()
        moved, failed = self.queue[len(before_queue) :], self.failures[len(before_failures) :]
        if moved:
            place = self.order_of_entries()
            moved.sort(key=lambda key: place[key])
            self.queue = before_queue + moved
        assert sorted(failed) == sorted(found.failures[len(before_failures) :])
        self.failures = found.failures

    def order_of_entries(self) -> dict[str, int]:
        """Where each queued task stands among those of its priority, by the server."""
        entries = [entry.decode() for entry in self.ground.raw.lrange(self.ground.key("queue"), 0, -1)]
        entries += [
            member.decode()[14:] for member in self.ground.raw.zrange(self.ground.key("ranked"), 0, -1)
        ]
        return {entry.partition("\0")[0]: at for at, entry in enumerate(entries)}

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), how=st.sampled_from(["kill", "leave", "crash"]), fault=quiet)
    def end(self, data: st.DataObject, how: str, fault: str) -> None:
        hand = self.draw_hand(data)
        member = hand.member
        wid = member.card.worker_id
        if how == "kill":
            store = self.managers[0]
            self.known_epoch(store)
            _, heard, told = self.call(store, fault, lambda: store.stop([wid], kill=True))
            assert not heard or ([wid], []) == told
        elif how == "leave":
            self.call(member, fault, lambda: member.leave("left"))
        else:
            end = WorkerEnd(wid, member.card.token, WorkerState.LOST, exit=Exit(signal=9))
            self.call(self.managers[0], fault, lambda: self.managers[0].bury([end]))
        if how == "leave":
            self.use_unit(hand)
        if how == "crash":
            self.lose_all([wid])
        else:
            hand_requeue, hand.requeue = hand.requeue, False
            self.lose_all([wid])
            hand.requeue = hand_requeue

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), fault=faults)
    def ask_to_leave(self, data: st.DataObject, fault: str) -> None:
        hand = self.draw_hand(data)
        store = self.managers[1]
        self.known_epoch(store)
        wid = hand.member.card.worker_id
        done, heard, told = self.call(store, fault, lambda: store.stop([wid], kill=False))
        hand.asked = hand.asked or done
        assert not heard or ([wid], []) == told

    # --- workers work ---------------------------------------------------------------------------

    @precondition(lambda self: self.hands or self.dead)
    @rule(data=st.data(), n=st.integers(1, 3), fault=faults)
    def begin(self, data: st.DataObject, n: int, fault: str) -> None:
        hand = self.draw_hand(data, dead=True)
        batch = self.ground.encode(n)
        if not hand.live:
            with pytest.raises(WorkerLost):
                hand.member.begin(batch)
            return
        done, _, _ = self.call(hand.member, fault, lambda: hand.member.begin(batch))
        if done:
            self.begun(hand, batch.keys)

    def begun(self, hand: Hand, keys: list[str]) -> None:
        for key in keys:
            wid = hand.member.card.worker_id
            self.tasks[key] = Known("running", holder=wid, past=[(hand.member, 1)])

    @precondition(lambda self: self.hands or self.dead)
    @rule(data=st.data(), n=st.integers(1, 3), fault=faults)
    def claim(self, data: st.DataObject, n: int, fault: str) -> None:
        hand = self.draw_hand(data, dead=True)
        if not hand.live:
            assert [] == self.ground.claim(hand.member, n)
            return
        unread = hand.unread
        done, heard, keys = self.call(hand.member, fault, lambda: self.ground.claim(hand.member, n))
        if done:
            given = self.give(hand, n) if unread is None else self.still(hand, unread)
            hand.unread = None if heard else given
            assert not heard or keys == given

    def still(self, hand: Hand, keys: list[str]) -> list[str]:
        """Of tasks given earlier, those the worker still has."""
        wid = hand.member.card.worker_id
        return [key for key in keys if key in self.tasks and self.tasks[key].holder == wid]

    def draw_verdict(self, data: st.DataObject, hand: Hand) -> Verdict:
        """A verdict on one of the worker's own tasks, now or of the past, or on one of anybody's that it can
        never get under that attempt."""
        own = [
            (key, attempt)
            for key, task in self.tasks.items()
            for member, attempt in task.past
            if member is hand.member
        ]
        anybody = [(key, task.attempt) for key, task in self.tasks.items() if task.state != "queued"]
        assume(own or anybody)
        key, attempt = data.draw(st.sampled_from(own * 3 + anybody))
        if data.draw(st.booleans(), label="finish"):
            return self.ground.finishing(key, attempt, y=1)
        return self.ground.failing(key, attempt, f"{hand.member.card.token} failed")

    def held(self, hand: Hand, verdict: Verdict) -> bool:
        """Whether this attempt was ever in the hands of a worker of that name."""
        past = [(member.card.worker_id, attempt) for member, attempt in self.tasks[verdict.key].past]
        return (hand.member.card.worker_id, verdict.attempt) in past

    @precondition(lambda self: (self.hands or self.dead) and self.tasks)
    @rule(data=st.data(), fault=faults)
    def decide(self, data: st.DataObject, fault: str) -> None:
        hand = self.draw_hand(data, dead=True)
        verdict = self.draw_verdict(data, hand)
        task = self.tasks[verdict.key]
        before = task.state
        said = verdict.kind == "x" and task.lapsed == (hand.member, verdict.attempt)
        done, heard, answer = self.call(hand.member, fault, lambda: hand.member.settle([verdict], {}))
        if done:
            mine = self.settle(hand, verdict)
            if heard and mine:
                assert [True] == answer
            if heard and not self.held(hand, verdict):
                assert [False] == answer
            if heard and not mine and before in ("queued", "running"):
                assert [said] == answer

    @precondition(lambda self: self.hands and self.tasks)
    @rule(data=st.data(), fault=faults)
    def step(self, data: st.DataObject, fault: str) -> None:
        hand = self.draw_hand(data)
        verdict = self.draw_verdict(data, hand)
        batch = self.ground.encode()
        call = lambda: hand.member.step(verdict, batch, {})  # noqa: E731
        done, _, _ = self.call(hand.member, fault, call)
        if done:
            self.settle(hand, verdict)
            self.begun(hand, batch.keys)

    @precondition(lambda self: self.hands and self.tasks)
    @rule(data=st.data(), fault=faults)
    def settle_and_claim(self, data: st.DataObject, fault: str) -> None:
        hand = self.draw_hand(data)
        verdict = self.draw_verdict(data, hand)
        unread = hand.unread
        call = lambda: hand.member.settle_and_claim(verdict, {})  # noqa: E731
        done, heard, answer = self.call(hand.member, fault, call)
        if done:
            self.settle(hand, verdict)
            given = self.give(hand, 1) if unread is None else self.still(hand, unread)
            hand.unread = None if heard else given
            assert not heard or self.ground.taken(answer[1]) == given

    # --- budgets --------------------------------------------------------------------------------

    @precondition(lambda self: self.hands or self.dead)
    @rule(data=st.data(), n=st.sampled_from((2, 4)), fault=faults)
    def take(self, data: st.DataObject, n: int, fault: str) -> None:
        """A worker asks for a unit; with that it has used the one it holds."""
        hand = self.draw_hand(data, dead=True)
        budget = Budget(hand.member, hand.calls, "units", n)
        if not hand.live:
            assert not budget.take(0)
            return
        unread = hand.untold
        done, heard, told = self.call(hand.member, fault, lambda: budget.take(0))
        if done and unread is None:
            self.use_unit(hand)
            hand.unit = not hand.asked and self.out() < n
            unread = hand.unit
        if done:
            hand.untold = None if heard else unread
            assert not heard or told == unread

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), fault=faults)
    def give_back(self, data: st.DataObject, fault: str) -> None:
        hand = self.draw_hand(data)
        budget = Budget(hand.member, hand.calls, "units", 1)
        done, heard, told = self.call(hand.member, fault, budget.give_back)
        if done:
            assert not heard or told == hand.unit
            hand.unit, hand.untold = False, None

    def out(self) -> int:
        """Units that nobody else can have."""
        return self.spent + sum(hand.unit for hand in self.hands.values())

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def unknown(self, data: st.DataObject) -> None:
        """A key the network does not have is refused with everything beside it."""
        hand = self.draw_hand(data)
        verdicts = [self.ground.finishing("nonsense")]
        running = [key for key, task in self.tasks.items() if task.holder == hand.member.card.worker_id]
        verdicts += [self.ground.finishing(key, self.tasks[key].attempt) for key in running]
        with pytest.raises(UnknownKey, match="nonsense"):
            hand.member.settle(verdicts, {})

    @precondition(lambda self: self.packets)
    @rule(data=st.data())
    def late_packet(self, data: st.DataObject) -> None:
        """Bytes of any earlier call arrive once more: nothing changes."""
        tape, at = data.draw(st.sampled_from(self.packets))
        tape.play(at)

    # --- what must hold -------------------------------------------------------------------------

    @invariant()
    def books_agree(self) -> None:
        found = self.ground.account()
        assert {key: task.state for key, task in self.tasks.items()} == found.states()
        assert self.finished == [row[3] for row in found.finished]
        assert self.failures == found.failures
        for key, row in found.running.items():
            assert (self.tasks[key].holder, self.tasks[key].attempt) == (row[0], row[1])
            assert row[0] in self.hands
        for key, row in found.queued.items():
            assert self.tasks[key].attempt == row[1]
        place = self.order_of_entries()
        for priority in set(PRIORITIES):
            kind = [key for key in self.queue if self.tasks[key].priority == priority]
            assert kind == sorted(kind, key=lambda key: place[key])

    @invariant()
    def members_agree(self) -> None:
        leases = {wid.decode() for wid in self.ground.raw.zrange(self.ground.key("leases"), 0, -1)}
        assert set(self.hands) == leases
        states = self.ground.store.worker_states()
        assert self.heard_of == set(states)
        assert set(self.hands) == {wid for wid, state in states.items() if state is WorkerState.RUNNING}

    @invariant()
    def units_agree(self) -> None:
        """No unit is lost, and none is there twice."""
        standing = self.ground.store.budget("units")
        assert (self.spent, self.out()) == (standing.spent, standing.spent + standing.held)

    @invariant()
    def counts_agree(self) -> None:
        counts = self.ground.store.totals().tasks
        told = {"queued": counts.queued, "running": counts.running}
        told |= {"finished": counts.finished, "failed": counts.failed}
        assert told == {
            state.value: sum(task.state == state for task in self.tasks.values()) for state in TaskState
        }

    @invariant()
    def somebody_will_hear(self) -> None:
        """While tasks are queued there is a token for the next who waits; nobody here takes one."""
        assert not self.queue or self.ground.raw.exists(self.ground.key("bell"))


def run(server: Server, histories: int, steps: int) -> None:
    """Runs the machine against a server."""
    Network.server = server
    live_through(Network, histories, steps)


def test_the_store_is_as_the_model_says(server: Server, network: str) -> None:
    """In a hundred histories."""
    run(server, 120, 50)


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
def test_the_store_is_as_the_model_says_for_long(server: Server, network: str) -> None:
    """In many long histories."""
    run(server, HISTORIES, STEPS)
