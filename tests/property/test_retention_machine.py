"""Removing collected results against a model: controllers push, read, collect, remove, stand still and die.

Packets of long ago arrive again at any time, and those that were held up for the first time. What must hold:
nothing is run or given out twice, all is given out in the end, nothing goes that was not had, and nothing
that a controller still waits for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from ground import Ground, Tape
from harness import Server
from property.histories import HISTORIES, LONGEST, STEPS, Machine, live_through
from rushlight._store import Store
from rushlight._store_calls import Collecting
from rushlight._store_feed import Leaving
from rushlight._wire import Link
from store.resending import batch

SLOTS = st.integers(0, 2)


@dataclass
class Side:
    """A controller as the model has it."""

    token: str
    store: Store
    tape: Tape
    #: How far its feed has read, and what its futures wait for.
    read: tuple[int, int] = (0, 0)
    waiting: set[str] = field(default_factory=set)
    pushes: int = 0
    #: What it was given and its user has not surely had; the numbers of its last call and of what was.
    given: list[str] = field(default_factory=list)
    number: int = 0
    handed_out: int = 0
    leaving: list[Leaving] = field(default_factory=list)
    #: With which packet it has begun, and whether it was held to be gone since.
    began: int = 0
    stood: bool = False

    def word(self) -> str:
        return "{} {}".format(*self.read) if self.waiting else f"idle {self.pushes}"

    def collecting(self) -> Collecting:
        return Collecting(self.token, "host:1:1", self.handed_out)


class Retention(Machine):
    """Rules are what people and accidents do; invariants what must hold after each."""

    server: ClassVar[Server]
    numbers: ClassVar[Any] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.ground = Ground(self.server, f"keeps-{next(self.numbers)}")
        self.worker = self.ground.member("ann")
        self.keys = (f"k{n}" for n in itertools.count())
        self.pushed: set[str] = set()
        self.ended: dict[str, str] = {}
        self.had: set[str] = set()
        self.dead: list[Side] = []
        #: What was sent, with its kind, to arrive again.
        self.packets: list[tuple[str, Callable[[], object]]] = []
        self.others = Tape(self.ground.store)
        self.sides = [self.born(n) for n in range(3)]

    def teardown(self) -> None:
        """In the end all is collected, and what those that are gone have left is removed, too."""
        self.bury()
        for side in self.sides:
            self.look(side)
            self.hand_out(side)
        last = self.sides[0]
        self.gather(last)
        self.hand_out(last)
        assert self.ended.keys() == self.had, "a result was never given out"
        _, ends = last.store.since(0, 0, 1000)
        rows = (*ends.finished, *ends.failed)
        last.leaving = [Leaving(row[3], ends.failures.get(row[3], "")) for row in rows]
        self.clear(last)
        assert [] == [key for key, mark in self.marks().items() if mark[:1] == b"~"]
        self.ground.close()

    def marks(self) -> dict[str, bytes]:
        return {k.decode(): v for k, v in self.ground.raw.hgetall(self.ground.key("collected")).items()}

    def keep(self, kind: str, tape: Tape) -> None:
        """Its last packet may arrive again."""
        self.packets.append((kind, partial(tape.play, len(tape.sent) - 1)))

    def ask(self, side: Side, keys: Sequence[str] = (), word: str | None = None) -> list[bool]:
        """A call of the collector, and what it learns by it."""
        collecting, said = side.collecting(), side.word() if word is None else word
        verdicts = side.store.collect(collecting, side.number, keys, said)
        assert side.store.began
        if side.began not in (0, side.store.began):
            # It was held to be gone. What it had in its hands is everybody's; of what has ended while it was
            # not heard it is told that it is there, or not any more.
            side.given, side.stood = [], False
            side.waiting -= self.ended.keys()
            side.store.collect(collecting, side.number, [], "begin")
        side.began = side.store.began
        return verdicts

    def born(self, slot: int) -> Side:
        """The third keeps what it collects."""
        token = f"{'' if slot == 2 else '~'}c{next(self.numbers)}"
        store = self.ground.another()
        side = Side(token, store, Tape(store))
        side.number = 1
        self.ask(side, word="begin")
        place = store.place()
        side.read = (place.finished, place.failures)
        return side

    # --- rules ------------------------------------------------------------------------------------

    @rule(slot=SLOTS, n=st.integers(1, 3))
    def push(self, slot: int, n: int) -> None:
        """Calls are made."""
        side = self.sides[slot]
        keys = list(itertools.islice(self.keys, n))
        side.waiting |= {*keys}

        def sending() -> str:
            side.pushes += 1
            return f"{side.token} {side.pushes}"

        tasks = batch(*keys)
        side.store.push(replace(tasks, sending=sending))
        self.keep("push", side.tape)
        self.pushed |= {*keys}

    @rule(fail=st.booleans())
    def work(self, fail: bool) -> None:
        """A worker does the next."""
        for key in self.ground.claim(self.worker):
            assert key not in self.ended, "a task was run twice"
            assert (self.ground.fail if fail else self.ground.finish)(self.worker, key)
            self.ended[key] = "failed" if fail else "finished"

    @rule(slot=SLOTS)
    def look(self, slot: int | Side) -> None:
        """A feed reads what has ended."""
        side = slot if isinstance(slot, Side) else self.sides[slot]
        _, ends = side.store.since(*side.read, 1000)
        side.read = (ends.next_finished, ends.next_failures)
        side.waiting -= {row[3] for row in (*ends.finished, *ends.failed)}

    @rule(slot=SLOTS)
    def say(self, slot: int) -> None:
        """A controller says how far it has read."""
        side = self.sides[slot]
        self.ask(side)
        self.keep("say", side.tape)

    @rule(slot=SLOTS)
    def gather(self, slot: int | Side) -> None:
        """A collector asks for all there is; before that its user had what it was given."""
        side = slot if isinstance(slot, Side) else self.sides[slot]
        self.hand_out(side)
        _, ends = side.store.since(0, 0, 1000)
        places = ends.failures
        keys = [row[3] for row in (*ends.finished, *ends.failed)]
        side.number += 1
        verdicts = self.ask(side, keys)
        self.keep("gather", side.tape)
        side.given = [key for key, ours in zip(keys, verdicts, strict=True) if ours]
        side.leaving += [Leaving(key, places.get(key, "")) for key in side.given]

    @rule(slot=SLOTS)
    def hand_out(self, slot: int | Side) -> None:
        """The user asks for more, so he has had all."""
        side = slot if isinstance(slot, Side) else self.sides[slot]
        if side.stood:
            self.ask(side)
        assert self.had.isdisjoint(side.given), "a result was given out twice"
        self.had |= {*side.given}
        side.given, side.handed_out = [], side.number
        self.ask(side)

    @rule(slot=SLOTS)
    def clear(self, slot: int | Side) -> None:
        """What was had is removed where it may be."""
        side = slot if isinstance(slot, Side) else self.sides[slot]
        verdicts = side.store.forget(side.collecting(), side.word(), side.leaving)
        self.keep("clear", side.tape)
        side.leaving = [task for task, gone in zip(side.leaving, verdicts, strict=True) if not gone]

    @rule(slot=SLOTS, held=st.sets(st.sampled_from(["gather", "push"])))
    def die(self, slot: int, held: set[str]) -> None:
        """A controller is killed, another takes back what it held, and a new one comes. What it has sent last
        is held up on its way."""
        side = self.sides[slot]
        if "push" in held:
            self.hold_push(side)
        if "gather" in held:
            self.hold_gather(side)
        self.dead.append(side)
        self.bury()
        self.sides[slot] = self.born(slot)

    def hold_gather(self, side: Side) -> None:
        _, ends = side.store.since(0, 0, 1000)
        keys = [row[3] for row in (*ends.finished, *ends.failed)]
        c, number = side.collecting(), side.store._next_packet()
        said = (c.token, side.number + 1, c.handed_out, c.process, side.word(), number)
        self.packets.append(
            ("gather", self.sender(side.store.scripts.collect(side.store.epoch, *said, *keys)))
        )

    def hold_push(self, side: Side) -> None:
        """Nobody waits for what comes of it."""
        key = next(self.keys)
        sending = f"{side.token} {side.pushes + 1}"
        packet = side.store.scripts.push(side.store.epoch, (), False, "", sending, key, *batch(key).heads)
        send = self.sender(packet)

        def arrive() -> None:
            send()
            self.pushed.add(key)

        self.packets.append(("push", arrive))

    def sender(self, packet: bytes) -> Callable[[], object]:
        def send() -> object:
            late = Link(self.ground.store.config)
            try:
                return late.call_many(packet, 1)
            finally:
                late.close()

        return send

    @rule(slot=SLOTS)
    def stand_still(self, slot: int) -> None:
        """A controller is not heard for so long that another holds it to be gone."""
        side = self.sides[slot]
        side.stood = True
        self.take_back({side.token})

    def bury(self) -> None:
        self.take_back({side.token for side in self.dead})

    def take_back(self, names: set[str]) -> None:
        store = self.ground.store
        for found in store.collectors()[1]:
            if found.token in names:
                assert store.uncollect(found, store.given_to(found))
                self.keep("take back", self.others)

    @rule(
        kinds=st.sampled_from(
            [("push",), ("say",), ("push", "say", "gather", "clear"), ("gather", "take back")]
        ),
        data=st.data(),
    )
    def late(self, kinds: tuple[str, ...], data: Any) -> None:
        """A packet of long ago arrives, again or for the first time."""
        kept = [arrive for kind, arrive in self.packets if kind in kinds]
        if kept:
            kept[-20:][data.draw(st.integers(0, min(len(kept), 20) - 1))]()
            self.bury()

    @rule()
    def catch_up(self) -> None:
        """Everything is done, and everybody has read and said so."""
        while self.pushed - self.ended.keys():
            self.work(fail=False)
        for slot, side in enumerate(self.sides):
            self.look(side)
            self.say(slot)

    # --- invariants -------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost(self) -> None:
        """What nobody has had is there, and so is what a controller waits for."""
        there = self.ground.states()
        assert self.pushed - self.had <= there.keys()
        for side in self.sides:
            assert side.stood or side.waiting & self.pushed <= there.keys()
        assert {key: state for key, state in there.items() if key in self.ended} == {
            key: state for key, state in self.ended.items() if key in there
        }

    @invariant()
    def counts_agree(self) -> None:
        """Counts are of what is there."""
        states = [*self.ground.states().values()]
        counts = self.ground.store.totals().tasks
        assert (counts.queued, counts.finished, counts.failed) == tuple(
            map(states.count, ("queued", "finished", "failed"))
        )
        assert len(states) - len(self.marks()) == self.ground.store.uncollected()


def run(server: Server, histories: int, steps: int) -> None:
    """Runs the machine against a server."""
    Retention.server = server
    live_through(Retention, histories, steps)


def test_removing_is_as_the_model_says(server: Server, network: str) -> None:
    """In some histories."""
    run(server, 40, 30)


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
def test_removing_is_as_the_model_says_for_long(server: Server, network: str) -> None:
    """In many long histories."""
    run(server, HISTORIES, STEPS)
