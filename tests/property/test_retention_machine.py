"""Removing collected results against a model: controllers push, read, collect, remove and die, in any order.

Packets of long ago arrive again at any time. What must hold: nothing is run or given out twice, nothing goes
that was not had, and nothing that a controller still waits for.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from ground import Ground, Tape
from harness import Server
from property.histories import HISTORIES, LONGEST, STEPS, Machine, live_through
from rushlight._store import Store
from rushlight._store_calls import Collecting, Leaving
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
        self.packets: list[tuple[str, tuple[Tape, int]]] = []
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
        _, ends = last.store.since(0, 0, 1000)
        rows = (*ends.finished, *ends.failed)
        last.leaving = [Leaving(row[3], ends.failures.get(row[3], "")) for row in rows]
        self.clear(last)
        assert [] == [key for key, mark in self.marks().items() if mark[:1] == b"~"]
        self.ground.close()

    def marks(self) -> dict[str, bytes]:
        return {k.decode(): v for k, v in self.ground.raw.hgetall(self.ground.key("collected")).items()}

    def keep(self, kind: str, side: Side) -> None:
        """Its last packet may arrive again."""
        self.packets.append((kind, (side.tape, len(side.tape.sent) - 1)))

    def born(self, slot: int) -> Side:
        """The third keeps what it collects."""
        token = f"{'' if slot == 2 else '~'}c{next(self.numbers)}"
        store = self.ground.another()
        side = Side(token, store, Tape(store))
        store.collect(side.collecting(), 1, [], "begin")
        side.number = 1
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
        self.keep("push", side)
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
        side.store.collect(side.collecting(), side.number, [], side.word())
        self.keep("say", side)

    @rule(slot=SLOTS)
    def gather(self, slot: int | Side) -> None:
        """A collector asks for all there is; before that its user had what it was given."""
        side = slot if isinstance(slot, Side) else self.sides[slot]
        self.hand_out(side)
        _, ends = side.store.since(0, 0, 1000)
        places = ends.failures
        keys = [row[3] for row in (*ends.finished, *ends.failed)]
        side.number += 1
        verdicts = side.store.collect(side.collecting(), side.number, keys, side.word())
        self.keep("gather", side)
        side.given = [key for key, ours in zip(keys, verdicts, strict=True) if ours]
        side.leaving += [Leaving(key, places.get(key, "")) for key in side.given]

    @rule(slot=SLOTS)
    def hand_out(self, slot: int | Side) -> None:
        """The user asks for more, so he has had all."""
        side = slot if isinstance(slot, Side) else self.sides[slot]
        assert self.had.isdisjoint(side.given), "a result was given out twice"
        self.had |= {*side.given}
        side.given, side.handed_out = [], side.number
        side.store.collect(side.collecting(), side.number, [], side.word())

    @rule(slot=SLOTS)
    def clear(self, slot: int | Side) -> None:
        """What was had is removed where it may be."""
        side = slot if isinstance(slot, Side) else self.sides[slot]
        verdicts = side.store.forget(side.collecting(), side.word(), side.leaving)
        self.keep("clear", side)
        side.leaving = [task for task, gone in zip(side.leaving, verdicts, strict=True) if not gone]

    @rule(slot=SLOTS)
    def die(self, slot: int) -> None:
        """A controller is killed, another takes back what it held, and a new one comes."""
        self.dead.append(self.sides[slot])
        self.bury()
        self.sides[slot] = self.born(slot)

    def bury(self) -> None:
        store = self.ground.store
        names = {side.token for side in self.dead}
        for found in store.collectors()[1]:
            if found.token in names:
                store.uncollect(found.token, store.given_to(found))

    @rule(kinds=st.sampled_from([("push",), ("say",), ("push", "say", "gather", "clear")]), data=st.data())
    def late(self, kinds: tuple[str, ...], data: Any) -> None:
        """A packet of long ago arrives again. Not one of a controller that was killed and buried since, which
        would count as there once more, with what it had handed out by then (see the guarantees)."""
        buried = [side.tape for side in self.dead]
        kept = [
            packet
            for kind, packet in self.packets
            if kind in kinds and (kind == "push" or packet[0] not in buried)
        ]
        if kept:
            tape, at = data.draw(st.sampled_from(kept[-20:]))
            tape.play(at)
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
            assert side.waiting & self.pushed <= there.keys()
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
