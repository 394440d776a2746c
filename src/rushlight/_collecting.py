"""Collecting ended calls, each once: a cursor over their feeds, and the marks that say who was first.

Several collectors of one network share its results; what one has handed out, no other does. Reads a bounded
part at a time, so that a million results cost no memory here.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from ._clearing import FORGETS, Clearing, Presence, leaving
from ._peers import is_gone, process_name
from ._results import Ends, Status, TaskResult, status_of
from ._store import Store
from ._store_calls import SILENCE, Collecting
from ._store_feed import Leaving

#: Ended calls read at once.
_AT_ONCE: Final = 500
#: Seconds for which a result may be in the hands of its collector alone, and is given back if that is killed.
_AT_HAND: Final = 1.0
#: Results that were read from futures nobody holds any more, and can still be collected: the last so many.
_READ_KEPT: Final = 1000
#: Seconds between two looks for collectors that are gone.
_LOOK_AGAIN: Final = 5.0


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

    def plus(self, others: Sequence[Summary]) -> Summary:
        """The sums, under this one's name."""
        numbers = [field.name for field in fields(Summary) if field.name != "controller"]
        sums = {name: sum(getattr(one, name) for one in (self, *others)) for name in numbers}
        return Summary(self.controller, **sums)


@dataclass(frozen=True, slots=True)
class _End:
    row: Sequence[Any]
    condition: Mapping[str, Any] | None
    leaving: Leaving | None


@dataclass(frozen=True, slots=True)
class _Read:
    """A result that was read from its future; what is known of its task where that is to be removed."""

    key: str
    status: Status
    leaving: Leaving | None


class Collector:
    """The results of a network that nobody has collected, for one controller. Thread-safe."""

    def __init__(
        self,
        store: Store,
        ends: Ends,
        name: str,
        pass_on: Callable[[Sequence[Any]], bool],
        presence: Presence,
    ) -> None:
        """``pass_on``: given the record of a call that crashed for the last time, whether it goes on
        elsewhere."""
        self._store = store
        self._ends = ends
        self._name = name
        self._pass_on = pass_on
        self._lock = threading.RLock()
        self._presence = presence
        self._token = presence.token
        self._clearing = Clearing(store, presence.say) if self._token.startswith(FORGETS) else None
        #: The epoch in which the network has heard of this controller.
        self._begun_in = ""
        #: With which packet it has begun, as the network knows it.
        self._began = 0
        self._process = process_name(os.getpid())
        #: The number of the last call, of the last that gave anything, of the last whose results the user has
        #: surely had, and of the last of which the server has heard that.
        self._number = self._held = self._handed_out = self._told = 0
        #: The number of the last call of which something was handed out by being asked for.
        self._taken = 0
        self._given_at = self._taken_at = 0.0
        self._looked = -math.inf
        self._epoch = ""
        self._finished = self._failures = 0
        self._ready: deque[_End] = deque()
        #: Asked for, and not known whose they are, as the answer did not come.
        self._unsure: list[_End] = []
        #: This collector's, with the number of the call, and the user has not had them yet.
        self._given: deque[tuple[int, _End]] = deque()
        self._tally: dict[str, float] = {}
        #: Read from their futures, and to be marked so.
        self._read: deque[_Read] = deque()
        self._final: deque[_Read] = deque()

    def take(self) -> TaskResult | None:
        """The next result, in the order in which they came; None where none is there."""
        with self._lock:
            self._ask()
            while True:
                while not self._given and (self._ready or self._fetch() or self.recover()):
                    if self._ready:
                        self._claim([self._ready.popleft()])
                if self._is_surely_given():
                    return next(iter(self._hand_out(1)), None)

    def take_all(self) -> list[TaskResult]:
        """All results that are there."""
        with self._lock:
            self._ask()
            while True:
                while self._ready or self._fetch() or self.recover():
                    ends = list(self._ready)
                    self._ready.clear()
                    self._claim(ends)
                if self._is_surely_given():
                    return self._hand_out(len(self._given))

    def any_ready(self) -> bool:
        """True where there is a result to be taken, as far as is known without taking it."""
        with self._lock:
            self.settle()
            self._sift()
            while not self._ready and self._fetch():
                continue
            return bool(self._ready or self._given)

    def recover(self) -> bool:
        """Takes back what collectors hold that are gone; True where there was something. Looks now and
        then."""
        if time.monotonic() < self._looked + _LOOK_AGAIN:
            return False
        self._looked = time.monotonic()
        found = False
        now, others = self._store.collectors()
        for other in others:
            if other.token != self._token and is_gone(other, now):
                held = self._store.given_to(other)
                if held:
                    # They lie before the place that was read up to.
                    found, self._finished, self._failures = True, 0, 0
                if not self._store.uncollect(other, held):
                    continue
                if self._clearing is not None:
                    # What it had not removed is this one's to remove.
                    self._clearing.sweep()
        return found

    def is_over(self, key: str) -> bool:
        """Whether a call's name is free again: its result was collected, or read from a future that is
        gone."""
        if self._store.collected([key])[0]:
            return True
        if any(key == read.key for read in list(self._read)):
            self.hide([key])
            return True
        return False

    def due(self) -> bool:
        """True where it is to be said that results were handed out, or read, or that this collector is
        there."""
        silence = time.monotonic() - self._given_at
        at_hand = self._told < self._held
        waiting = len(self._read) > _READ_KEPT or len(self._final) > 0
        clearing, presence = self._clearing, self._presence
        waiting = waiting or (clearing is not None and clearing.due()) or presence.has_word()
        waiting = waiting or (presence.search is not None and presence.search.due())
        return waiting or silence > (_AT_HAND if at_hand else SILENCE / 3)

    def do(self) -> None:
        """Says so; unless somebody is at his results just now, who does it himself and may take long."""
        search = self._presence.search
        if search is not None and search.due():
            search.look()
        if not self._lock.acquire(blocking=False):
            return
        try:
            self.settle()
            silence = time.monotonic() - self._given_at
            if silence > (_AT_HAND if self._told < self._held else SILENCE / 3):
                self._ask()
                self._collect([])
            elif self._presence.has_word():
                self._collect([])
            if self._clearing is not None and self._clearing.due():
                self._clear(self._clearing)
        finally:
            self._lock.release()

    def leave(self, tasks: Iterable[Leaving]) -> None:
        """Nobody collects these any more. From any thread."""
        if self._clearing is not None:
            self._clearing.add(tasks)

    def _clear(self, clearing: Clearing) -> None:
        """Removes what the user has had."""
        if not self._given and time.monotonic() > self._taken_at + _AT_HAND:
            self._handed_out = self._held
        handed_out = self._handed_out
        clearing.run(Collecting(self._token, self._process, handed_out))
        self._told = max(self._told, handed_out)
        if clearing.waits:
            self.recover()

    def close(self) -> None:
        """Says that all results were handed out, and that no more will be."""
        with self._lock:
            self.settle(keep=0)
            if self._clearing is not None:
                self._handed_out = self._held if not self._given else self._handed_out
                self._clear(self._clearing)
            back = {end.row[3]: f"{self._token}:{number}".encode() for number, end in self._given}
            self._store.leave_collecting(self._token, back)
        self._store.close()

    def read(self, key: str, status: Status, leaving: Leaving | None = None, *, final: bool) -> None:
        """The result was read from its future, which nobody holds any more. ``final``: so it is collected;
        else it may still be, for a while. From any thread, at any time."""
        (self._final if final else self._read).append(_Read(key, status, leaving))

    def settle(self, *, keep: int = _READ_KEPT) -> None:
        """Marks what was read from futures as collected, but for the last ones that may still be."""
        with self._lock:
            self._reclaim()
            for queue, left in ((self._final, 0), (self._read, keep)):
                while len(queue) > left:
                    batch = list(itertools.islice(queue, min(len(queue) - left, _AT_ONCE)))
                    verdicts = self._collect([read.key for read in batch])
                    mine = [read for read, ours in zip(batch, verdicts, strict=True) if ours]
                    for read in mine:
                        self._count(read.status)
                    for _ in batch:
                        queue.popleft()
                    self.leave(read.leaving or Leaving(read.key) for read in mine)
            if not self._given and self._taken <= self._handed_out:
                # All that is held was read, and is in nobody's way.
                self._handed_out = self._held

    def summary(self) -> Summary:
        """The calls collected by this object, or read from their futures."""
        with self._lock:
            self.settle()
            tally = dict(self._tally)
            read = list(self._read)
            for one, known in zip(read, self._store.collected([one.key for one in read]), strict=True):
                for name in () if known else ("tasks", one.status):
                    tally[name] = tally.get(name, 0) + 1
        seconds = tally.pop("seconds", 0.0)
        return Summary(self._name, seconds=seconds, **{name: int(n) for name, n in tally.items()})

    # ----------------------------------------------------------------------------------------------

    def _fetch(self) -> bool:
        """Reads on until something is found that nobody has collected; False where nothing is left."""
        while True:
            epoch, found = self._store.since(self._finished, self._failures, _AT_ONCE)
            if epoch != self._epoch:
                fresh = not self._epoch
                self._epoch, self._finished, self._failures = epoch, 0, 0
                if not fresh:
                    continue
            if (self._finished, self._failures) == (found.next_finished, found.next_failures):
                return False
            self._finished, self._failures = found.next_finished, found.next_failures
            rows, said = [*found.finished, *found.failed], [None] * len(found.finished)
            told = zip(rows, [*said, *found.conditions], leaving(found), strict=True)
            ends = [_End(row, condition, task) for row, condition, task in told]
            self._ready.extend(sorted(ends, key=lambda end: end.row[9]))
            self._sift()
            if self._ready:
                return True

    def _sift(self) -> None:
        """Lets go of what was collected meanwhile."""
        known = self._store.collected([end.row[3] for end in self._ready])
        left = (end for end, gone in zip(self._ready, known, strict=True) if not gone)
        self._ready = deque(end for end in left if not self._goes_on(end))

    def _goes_on(self, end: _End) -> bool:
        crashed = end.condition is not None and status_of(end.condition) == "crash"
        return crashed and self._pass_on(end.row)

    def hide(self, keys: Sequence[str]) -> None:
        """These are nobody's to collect."""
        with self._lock:
            self._reclaim()
            self._collect(list(keys))

    def begin(self) -> None:
        """Says that this collector is there, and that its controller reads from now on. Before all else."""
        self.hide(())

    def _ask(self) -> None:
        """The user asks for more: what he was given before, he has had."""
        self.settle()
        if not self._given:
            self._handed_out = self._held
        if self._clearing is not None and self._clearing.many:
            # Whoever asks without end leaves nobody else the time for it.
            self._clear(self._clearing)

    def _claim(self, ends: list[_End]) -> None:
        self._unsure = ends
        self._reclaim()

    def _reclaim(self) -> None:
        """Learns which of those asked for are this collector's; first of all where that failed before."""
        if self._unsure:
            verdicts = self._collect([end.row[3] for end in self._unsure])
            ours = (end for end, mine in zip(self._unsure, verdicts, strict=True) if mine)
            self._given.extend((self._number, end) for end in ours)
            self._unsure = []

    def _collect(self, keys: list[str]) -> list[bool]:
        """A call that failed may have been heard: the next one has its number."""
        self._given_at = time.monotonic()
        handed_out, number = self._handed_out, self._number + 1
        collector = Collecting(self._token, self._process, handed_out)
        word = self._presence.say()
        verdicts = self._store.collect(collector, number, keys, word)
        if not self._store.began:
            # It was heard, its answer lost; then this collector was held to be gone, and got nothing.
            verdicts = self._store.collect(collector, number, keys, word)
        self._presence.active = self._store.removes
        before, self._began = self._began, self._store.began
        revived = before != self._began and self._begun_in == self._store.epoch
        if revived:
            # What it had in its hands is everybody's again.
            self._given.clear()
            self._ready.clear()
            self._finished = self._failures = 0
        if revived or self._store.missed:
            self._begun_in = ""
            if self._presence.search is not None:
                self._presence.search.begin()
        if self._begun_in != self._store.epoch:
            # The network is new, or was made anew, and has not heard of this controller.
            self._begun_in = self._store.epoch
            self._store.collect(collector, number, (), "begin")
            self._began = self._store.began
        self._number, self._told = number, handed_out
        if keys:
            self._held = number
        return verdicts

    def _is_surely_given(self) -> bool:
        """False where what it holds was taken back, as it stood still for long."""
        if self._given and time.monotonic() > self._given_at + SILENCE / 2:
            self._collect([])
            return bool(self._given)
        return True

    def _hand_out(self, n: int) -> list[TaskResult]:
        """Up to n of what was given; where one cannot be read, all stay here."""
        results = [self._result(end) for _, end in itertools.islice(self._given, n)]
        if not results and self._told < self._handed_out:
            # Nothing more will say so soon.
            self._collect([])
        for result in results:
            self._taken, end = self._given.popleft()
            self._taken_at = time.monotonic()
            if end.leaving is not None:
                self.leave([end.leaving])
            self._count(result.status)
            self._tally["seconds"] = self._tally.get("seconds", 0.0) + (result.seconds or 0.0)
            self._tally["warning"] = self._tally.get("warning", 0) + bool(result.warnings)
        return results

    def _result(self, end: _End) -> TaskResult:
        if end.condition is None:
            return self._ends.finished(end.row)
        return self._ends.failed(end.row, end.condition)

    def _count(self, status: Status) -> None:
        for name in ("tasks", status):
            self._tally[name] = self._tally.get(name, 0) + 1
