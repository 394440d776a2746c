"""The feed of ended calls, as controllers read it: nothing that somebody wrote there ends those who read.

Owns what becomes of records that cannot be read: each is told alone, as far as it can be.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ._store_base import EPOCHS, pairs
from ._store_finished import Rows
from ._store_reads import ReadVerbs
from ._unread import UNREADABLE, Unread, plain_failed, plain_finished
from ._wire import command
from .errors import DecodeError, RushlightError

_log = logging.getLogger("rushlight")
#: The places of parts in a row that those who read a failed one count on, and their types.
_COUNTED_ON: Final = ((1, int), (3, str), (6, int), (7, int), (8, int), (9, int))


@dataclass(frozen=True, slots=True)
class Place:
    """A network at one instant: its epoch, the time in microseconds, the number of the last task that was
    created, tasks that have not ended, finished tasks, failures."""

    epoch: str
    now: int
    created: int
    unended: int
    finished: int
    failures: int


@dataclass(frozen=True, slots=True)
class Ends:
    """What had ended and had not been read: finished rows, and the failed with their conditions, each in
    order. Read on from ``next_finished`` and ``next_failures``. ``failures``: where in the list of failures
    each was found."""

    finished: Rows
    failed: Rows
    conditions: list[dict[str, Any]]
    failures: dict[str, int]
    next_finished: int
    next_failures: int


@dataclass(frozen=True, slots=True)
class Ended(Ends):
    """The same, and from which event on to listen."""

    epoch: str
    event: str
    #: Leases and time limits that have run out, and in how many seconds the next one will.
    overdue: int = 0
    next_due: float = math.inf


@dataclass(frozen=True, slots=True)
class Leaving:
    """A task that is to be removed: its key, its place among the failures ('' for one that finished), and the
    fields of ``blobs`` that are its own."""

    key: str
    failure: int | str = ""
    fields: tuple[str, ...] = ()


class FeedVerbs(ReadVerbs):
    """What controllers read."""

    #: The tasks of records that tell nothing, by epoch and place; None: of none.
    _nameless: dict[tuple[str, int], str | None] | None = None

    def place(self) -> Place:
        """Where the network stands at this instant."""
        names = ("index", "queued", "running")
        commands: list[tuple[Any, ...]] = [("HLEN", self.keys[name]) for name in names]
        commands += [("LLEN", self.keys[name]) for name in ("finished", "failures")]
        (seconds, micro), (epoch, gone, base), there, queued, running, finished, failures = self.transaction(
            ("TIME",), ("HMGET", self.keys["control"], "epoch", "gone", "base"), *commands
        )
        finished += int(base or 0)
        now = int(seconds) * 1_000_000 + int(micro)
        created = there + int(gone or 0)
        return Place((epoch or b"").decode(), now, created, queued + running, finished, failures)

    def since(self, finished: int, failures: int, most: int) -> tuple[str, Ends]:
        """The epoch, and what ended from these places on: up to ``most`` each that finished and failed."""
        base = self._base
        (epoch, cut), rows, keys = self.transaction(
            ("HMGET", self.keys["control"], "epoch", "base"),
            self._first(finished, base, most),
            ("LRANGE", self.keys["failures"], failures, failures + most - 1),
        )
        self.heard(epoch)
        if int(cut or 0) != base:
            self._base = int(cut or 0)
            return self.since(finished, failures, most)
        return self.heard(epoch), Ends(**self._ends(max(finished, base), rows, failures, keys))

    def _ends(self, finished: int, rows: list[bytes], failures: int, keys: list[bytes]) -> dict[str, Any]:
        """The parts of ``Ends``, of what lay in the two lists from these places on."""
        places = {str(key, "utf-8", "replace"): place for place, key in enumerate(keys, failures) if key}
        failed, conditions = self._calls_failed(list(places)) if places else ([], [])
        return {
            "finished": self._records_from(finished, rows),
            "failed": failed,
            "conditions": conditions,
            "failures": places,
            "next_finished": finished + len(rows),
            "next_failures": failures + len(keys),
        }

    def ended(self, finished: int, failures: int, most: int, promise: float) -> Ended:
        """Up to ``most`` tasks each that finished and failed from these places on, how things stand, and the
        promise that every end is an event for ``promise`` seconds. One trip, two where some failed."""
        watch = self.scripts.watch(int(promise * 1e6), EPOCHS, ends=True)
        told, ends, _ = self._ends_behind(watch, finished, failures, most)
        standing = self._standing(told)
        return Ended(
            **ends,
            epoch=standing.epoch,
            event=standing.event,
            overdue=standing.overdue,
            next_due=standing.next_due,
        )

    def ended_after(self, event: str, wait: float, finished: int, failures: int, most: int) -> Ended:
        """The same without the promise, once there is another event than this, or the time is over: the
        server answers a wait and what is asked behind it together."""
        block = ("BLOCK", max(1, int(wait * 1000))) if wait > 0 else ()
        look = command("XREAD", *block, "STREAMS", self.keys["events"], event)
        news, ends, epoch = self._ends_behind(look, finished, failures, most, wait)
        if news:
            event = news[0][1][-1][0].decode()
        return Ended(**ends, epoch=self.heard(epoch), event=event)

    def _ends_behind(
        self, look: bytes, finished: int, failures: int, most: int, wait: float = 0.0
    ) -> tuple[Any, dict[str, Any], bytes | None]:
        """What a command answers, and behind it what lies in the two lists from these places on, and the
        epoch. Where places were cut off meanwhile, the lists are read once more."""
        base, epoch = self._base, command("HMGET", self.keys["control"], "epoch", "base")
        asked = look + self._since(finished, failures, most, base) + epoch
        if wait > 0:
            with self.waiting_link() as link:
                told, rows, keys, (now, cut) = link.call_many(asked, 4, wait=wait)
        else:
            told, rows, keys, (now, cut) = self.link.call_many(asked, 4)
        while int(cut or 0) != base:
            base = self._base = int(cut or 0)
            asked = self._since(finished, failures, most, base) + epoch
            rows, keys, (now, cut) = self.link.call_many(asked, 3)
        return told, self._ends(max(finished, base), rows, failures, keys), now

    def _since(self, finished: int, failures: int, most: int, base: int) -> bytes:
        rows = command(*self._first(finished, base, most))
        return rows + command("LRANGE", self.keys["failures"], failures, failures + most - 1)

    def _records_from(self, first: int, records: list[bytes]) -> Rows:
        """Finished rows, without empty places."""
        if b"" not in records:
            return self._calls_finished(records, first)
        try:
            return self.rows(records)
        except UNREADABLE:
            whole = ((place, record) for place, record in enumerate(records, first) if record)
            return [row for place, record in whole for row in self._calls_finished([record], place)]

    def _calls_finished(self, records: list[bytes], first: int) -> Rows:
        """Finished rows, of the records that lie from this place on. Of one that cannot be read, which may be
        anybody's, whoever looks at its results hears so."""
        try:
            return self.rows(records)
        except UNREADABLE as error:
            if len(records) == 1:
                return self._unread_finished(records[0], first, error)
            parts = (self._calls_finished([record], first + i) for i, record in enumerate(records))
            return [row for part in parts for row in part]

    def _unread_finished(self, record: bytes, place: int, error: RushlightError) -> Rows:
        """The row of a record that cannot be read: its plain parts, or but the key that has this place; none
        where no task has."""
        parts = plain_finished(record)
        if parts is None:
            key = self._task_at(place)
            return [] if key is None else [_nothing_but(key, _unreadable(key, error))]
        parts[4] = parts[10] = Unread(error)
        return [parts]

    def _task_at(self, place: int) -> str | None:
        """The key of the finished task that has this place. Looks through all, once for each place."""
        if self._nameless is None:
            self._nameless = {}
        at = (self.epoch, place)
        if at not in self._nameless:
            self._nameless[at] = self._search(str(place).encode())
            if self._nameless[at] is None:
                _log.warning(
                    "what lies at place %d of the finished tasks of network %r is none, and is passed over",
                    place,
                    self.network,
                )
        return self._nameless[at]

    def _search(self, place: bytes) -> str | None:
        cursor = "0"
        while True:
            at, fields = self.link.call(command("HSCAN", self.keys["index"], cursor, "COUNT", 1000))
            for key, there in pairs(fields):
                if there == place:
                    return str(key, "utf-8", "replace")
            cursor = at.decode()
            if cursor == "0":
                return None

    def _calls_failed(self, keys: Sequence[str]) -> tuple[Rows, list[dict[str, Any]]]:
        """``failed_by_key``; of one that cannot be read, whoever looks at its inputs hears so."""
        error: RushlightError
        try:
            rows, conditions = self.failed_by_key(keys)
            if _are_failed(keys, rows, conditions):
                return rows, conditions
            error = DecodeError("a failed record has other parts than it must have")
        except UNREADABLE as unreadable:
            error = unreadable
        except TypeError as unreadable:
            # Times that cannot be compared.
            error = DecodeError(f"a failed record cannot be read: {unreadable}")
        if len(keys) > 1:
            pairs = [pair for key in keys for pair in zip(*self._calls_failed([key]), strict=True)]
            pairs.sort(key=lambda pair: (pair[0][9], pair[0][7]))
            return [row for row, _ in pairs], [condition for _, condition in pairs]
        (key,) = keys
        (value,) = self.link.call(command("HMGET", self.keys["failed"], key))
        if value is None:
            return [], []
        parts = plain_failed(value)
        if parts is None or parts[6] != key:
            error = _unreadable(key, error)
            return [_nothing_but(key, error)], [{"message": str(error), "type": type(error).__name__}]
        at, _size, condition, *parts = parts
        parts[4] = Unread(error)
        return [[*parts, at, None, None]], [condition]


def _are_failed(keys: Sequence[str], rows: Rows, conditions: Sequence[Any]) -> bool:
    """Whether these are what those who read them count on."""
    wanted = {*keys}
    return all(type(condition) is dict for condition in conditions) and all(
        row[3] in wanted and all(type(row[at]) is kind for at, kind in _COUNTED_ON) for row in rows
    )


def _unreadable(key: str, error: RushlightError) -> DecodeError:
    return DecodeError(f"the record of task {key!r} cannot be read, its bytes are none: {error}", key=key)


def _nothing_but(key: str, error: RushlightError) -> list[Any]:
    """The row of a task of which nothing is known but its key."""
    return [None, 0, None, key, Unread(error), None, 0, 0, 0, 0, Unread(error), None]
