"""Verbs that read tasks: views of states, single tasks, counts, and what waiters need."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import msgspec

from ._records import Counts, TaskState
from ._store_base import EPOCHS, pairs
from ._store_finished import FinishedReads, Restarted, Rows, View
from ._wire import command

#: What a finished record has behind the others: when, results, their extras.
_UNFINISHED = b"\x00\xc0\xc0"
_UNSTARTED = b"\x00" + _UNFINISHED
#: As many running tasks are kept, decoded, for the next look at them.
_MOST_KEPT = 256
_FOUND = {False: TaskState.QUEUED, True: TaskState.FINISHED}
_LETTERS = {"q": TaskState.QUEUED, "r": TaskState.RUNNING, "f": TaskState.FINISHED, "x": TaskState.FAILED}


@dataclass(frozen=True, slots=True)
class Standing:
    """What a waiter sees before it blocks; ``event`` is where it goes on listening, ``next_due`` in how many
    seconds the next lease or time limit runs out."""

    epoch: str
    finished: int
    failures: int
    queued: int
    running: int
    live_workers: int
    overdue: int
    event: str
    next_due: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of everything, and how many leases have run out without having been reaped."""

    epoch: str
    tasks: Counts
    live_workers: int
    overdue: int


class ReadVerbs(FinishedReads):
    """Reading tasks. Nothing here changes anything."""

    #: Running tasks as they were read last: the row of each record, and the rows by their start.
    _last_running: tuple[dict[bytes, Sequence[Any]], Rows] = ({}, [])

    def view(self, states: Collection[TaskState], cursor: int = 0) -> View:
        """The tasks of some states at one instant; of the finished only those from ``cursor`` on."""
        wanted = [state for state in TaskState if state in states]
        commands: list[tuple[Any, ...]] = [("HMGET", self.keys["control"], "epoch", "base")]
        base = self._base
        for state in wanted:
            finished = state is TaskState.FINISHED
            commands.append(self._first(cursor, base) if finished else ("HVALS", self.keys[state.value]))
        if TaskState.FINISHED in states:
            commands.append(("LLEN", self.keys["finished"]))
        if TaskState.QUEUED in states:
            commands.append(("LRANGE", self.keys["queue"], 0, -1))
            commands.append(("ZRANGE", self.keys["ranked"], 0, -1, "WITHSCORES"))
        (told, cut), *parts = self.transaction(*commands)
        if int(cut or 0) != base:
            self._base = int(cut or 0)
            return self.view(states, cursor)
        epoch = self.heard(told)
        found = dict(zip(wanted, parts, strict=False))
        failed, conditions = self._failed_rows(found.get(TaskState.FAILED, []))
        return View(
            epoch=epoch,
            queued=self._queued_rows(found[TaskState.QUEUED], _line(*parts[-2:]))
            if TaskState.QUEUED in found
            else [],
            running=self._running_by_start(found.get(TaskState.RUNNING, [])),
            finished=found.get(TaskState.FINISHED, []),
            cursor=max(cursor, base),
            n_finished=base + parts[len(wanted)] if TaskState.FINISHED in found else 0,
            base=base,
            failed=failed,
            conditions=conditions,
        )

    def whole_view(self, states: Collection[TaskState]) -> View:
        """A view that has all records of its finished tasks, and no empty places."""
        while True:
            view = self.view(states)
            with suppress(Restarted):
                records = [record for part in self.finished_parts(view) for record in part if record]
                return replace(view, finished=records)

    def _running_by_start(self, values: list[bytes]) -> Rows:
        """Running tasks by when they started. Those that were there the last time are not decoded again:
        nobody changes these rows."""
        known, rows = self._last_running
        new = [value for value in values if value not in known]
        if new or len(values) != len(known):
            found = dict(zip(new, self.running_rows(new), strict=True))
            known = {value: known.get(value) or found[value] for value in values}
            rows = _by_start(list(known.values()))
            if len(values) <= _MOST_KEPT:
                self._last_running = known, rows
        return rows.copy()

    def running_rows(self, values: list[bytes]) -> Rows:
        """Running records, decoded, in the order given."""
        return self.rows([b"\x9c" + value + _UNFINISHED for value in values])

    def running_row(self, value: bytes) -> list[Any]:
        """One running record, decoded."""
        row: list[Any] = self.codec.decode(b"\x9c%b\x00\xc0\xc0" % value)
        return row

    def _queued_rows(self, values: list[bytes], order: list[bytes]) -> Rows:
        """Queued records in the order of their entries; those of one worker, delayed ones and those that wait
        for others come last, by their creation."""
        rows = self.rows([b"\x9c\xc0" + value + _UNSTARTED for value in values])
        place = {entry.partition(b"\0")[0].decode(): i for i, entry in enumerate(order)}
        rows.sort(key=lambda row: (place.get(row[3], len(place)), row[7]))
        return rows

    def _failed_rows(self, values: list[bytes]) -> tuple[Rows, list[dict[str, Any]]]:
        if not values:
            return [], []
        stored = self.codec.decode_rows([b"\x9c" + value for value in values], 12)[0]
        stored.sort(key=lambda row: (row[0], row[10]))
        return [[*row[3:], row[0], None, None] for row in stored], [row[2] for row in stored]

    def look(self, keys: Sequence[str]) -> list[TaskState | None]:
        """The states of tasks; None for a key the network does not have."""
        if not keys:
            return []
        told, letters = self.link.call(self.scripts.look(False, *keys))
        self.heard(told)
        return list(map(_LETTERS.get, letters.decode()))

    def look_for_finished(self, keys: Sequence[str]) -> list[TaskState | None]:
        """The same where no task has failed, and quicker. Of those that have not finished it says that they
        are queued, though they may be running, or have failed meanwhile."""
        if not keys:
            return []
        found = self.link.call(command("HMGET", self.keys["index"], *keys))
        return list(map(_FOUND.get, map(bool, found))) if None not in found else self.look(keys)

    def look_up(self, key: str) -> View:
        """One task, in the one state it is in; an empty view for an unknown key. O(1) of the network's
        size."""
        told, found = self.link.call(self.scripts.look(True, key))
        epoch = self.heard(told)
        parts: list[bytes] = found[1:2]
        state = _LETTERS.get(found[0].decode())
        failed, conditions = self._failed_rows(parts if state is TaskState.FAILED else [])
        return View(
            epoch=epoch,
            queued=self._queued_rows(parts, []) if state is TaskState.QUEUED else [],
            running=self.running_rows(parts) if state is TaskState.RUNNING else [],
            finished=parts if state is TaskState.FINISHED else [],
            failed=failed,
            conditions=conditions,
            lapse=self.codec.decode(_condition_of(found[2])) if parts and found[2] else None,
        )

    def failures(self, cursor: int) -> tuple[str, list[str]]:
        """The epoch, and the keys that failed from ``cursor`` on, in the order of their failures."""
        epoch, keys = self.transaction(
            ("HGET", self.keys["control"], "epoch"), ("LRANGE", self.keys["failures"], cursor, -1)
        )
        return self.heard(epoch), [key.decode() for key in keys]

    def failed_by_key(self, keys: Sequence[str]) -> tuple[Rows, list[dict[str, Any]]]:
        """The failed tasks among the keys; those retried meanwhile are left out."""
        if not keys:
            return [], []
        values = self.link.call(command("HMGET", self.keys["failed"], *keys))
        return self._failed_rows([value for value in values if value is not None])

    def lapses(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The conditions, encoded, of the last attempts of tasks that were tried again."""
        if not keys:
            return {}
        found = self.link.call(command("HMGET", self.keys["lapses"], *keys))
        return {key: _condition_of(said) for key, said in zip(keys, found, strict=True) if said is not None}

    def totals(self) -> Totals:
        """Counts of everything at one instant."""
        epoch, queued, running, finished, failed, live, overdue = self.link.call(self.scripts.counts())
        return Totals(self.heard(epoch), Counts(queued, running, finished, failed), live, overdue)

    def watch(self, seconds: float) -> Standing:
        """How things stand, and the promise that ``wait_event`` returns at the next change within
        ``seconds``."""
        return self._standing(self.link.call(self.scripts.watch(int(seconds * 1e6), EPOCHS)))

    def _standing(self, told: list[Any]) -> Standing:
        epoch, *numbers, event, due = told
        finished, failures, queued, running, live, overdue = numbers
        # A little later, so that it has run out by then.
        next_due = due / 1e6 + 0.002 if due >= 0 else math.inf
        return Standing(
            self.heard(epoch), finished, failures, queued, running, live, overdue, event.decode(), next_due
        )

    def next_finished_view(
        self, cursor: int, after: Standing, seconds: float, failures: int | None = None
    ) -> View:
        """``finished_view`` at the next change since ``watch`` said ``after``, or when the time is over."""
        wait = min(seconds, after.next_due)
        return self.finished_view(cursor, after.epoch, event=after.event, seconds=wait, failures=failures)

    def wait_event(self, after: str, seconds: float) -> bool:
        """Blocks until something changed since ``watch`` said ``after``; False when the time ran out."""
        parts = ("XREAD", "BLOCK", max(1, int(seconds * 1000)), "STREAMS", self.keys["events"], after)
        with self.waiting_link() as link:
            return link.call(command(*parts), wait=seconds) is not None


def _by_start(rows: Rows) -> Rows:
    """By when they started, then by their numbers: two sorts by a number cost less than one by both."""
    rows.sort(key=itemgetter(7))
    rows.sort(key=itemgetter(8))
    return rows


def _line(plain: list[bytes], ranked: list[bytes]) -> list[bytes]:
    """The entries everybody may take, in the order they will be: by priority, then by their place."""
    members = [(float(score), member[14:]) for member, score in pairs(ranked)]
    first = [entry for score, entry in members if score < 0]
    return [*first, *plain, *(entry for score, entry in members if score > 0)]


def _condition_of(lapse: bytes) -> bytes:
    """The condition, encoded, of what is kept of an attempt: it stands behind worker and attempt."""
    parts = msgspec.msgpack.decode(b"\x93" + lapse, type=tuple[str | None, int, msgspec.Raw])
    return bytes(parts[2])


def packed_worker(worker_id: str, attempt: int) -> bytes:
    """What opens every running record of this worker's attempt: the fence of ``settle``."""
    return msgspec.msgpack.encode(worker_id) + msgspec.msgpack.encode(attempt)
