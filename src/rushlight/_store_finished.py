"""Verbs that read finished tasks: what is new in one trip, a long list in bounded parts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import hiredis

from ._connect import refusal
from ._record_decoder import Names
from ._store_base import StoreBase
from ._wire import Link, command

#: Decoded records, in the order of ``_records.Row``.
Rows = list[Sequence[Any]]

#: So many finished tasks come with a view; where there are more, the others are read behind it, in parts.
FIRST = 2048
#: Bytes of such a part, about: the server is soon free for others, and little is held at a time.
_PART = 2 << 20
#: Bytes of records that are decoded at a time, about, and how many at most: what is made of them fits into a
#: processor's cache.
_SLICE = 512 << 10
_SLICE_ROWS = 4096
#: How many of many records are looked at to tell how large all are.
_LOOKS = 256


class Restarted(Exception):
    """The network was reset, or fell back behind what it had, while a view of it was still being read."""


@dataclass(frozen=True, slots=True)
class View:
    """Tasks at one instant. Rows are decoded but for the finished ones: of those it has the first records
    from ``cursor`` on, and how far the list goes (``finished_parts``); ``base``: places cut from its front,
    where no task is left. ``conditions`` go with ``failed``; of a single
    task that was tried again, ``lapse`` is the condition of the attempt before. ``failures``: the keys that
    have failed, from a number on, in the order of their failures."""

    epoch: str
    queued: Rows = field(default_factory=list)
    running: Rows = field(default_factory=list)
    finished: list[bytes] = field(default_factory=list)
    cursor: int = 0
    n_finished: int = 0
    base: int = 0
    failed: Rows = field(default_factory=list)
    conditions: list[dict[str, Any]] = field(default_factory=list)
    lapse: dict[str, Any] | None = None
    failures: list[str] = field(default_factory=list)


class FinishedReads(StoreBase):
    """The list of finished tasks only grows, so what was read stays true, and a place in it too. A task that
    was removed has left an empty place; where all in front are empty, they are cut off, and places go on."""

    #: Places that were cut off, as far as this client has heard. Only grows, until a reset.
    _base = 0

    def finished_view(
        self,
        cursor: int,
        known: str = "",
        *,
        event: str = "",
        seconds: float = 0.0,
        failures: int | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> View:
        """A view of the finished tasks alone, from ``cursor`` on, and of the ``failures`` from that one on;
        with ``event`` (see ``watch``) once anything has changed since, or the time is over: the server
        answers a wait and what is asked behind it together. ``known``: the epoch in which ``cursor`` was
        reached. ``meanwhile`` is done before the answer is read."""
        state, base = self._state, self._base
        ended, parts = self._ended_from(cursor, base, failures), 1 if failures is None else 2
        # Between two looks at the epoch, which comes never again, instead of in a transaction: the first may
        # be an earlier call's. What was cut off only grows: the same still behind the records, it was the
        # same for them.
        before: bytes | None = known.encode() or None
        if event:
            milliseconds = max(1, int(seconds * 1000))
            wait = command("XREAD", "BLOCK", milliseconds, "STREAMS", self.keys["events"], event)
            with self.waiting_link() as link:
                _, *found, (after, cut) = link.call_many(wait + ended + state, parts + 2, wait=seconds)
        elif known:
            *found, (after, cut) = self.link.call_parts(_sent_before(ended + state, parts + 1, meanwhile))
        else:
            (before, _), *found, (after, cut) = self.link.call_many(state + ended + state, parts + 2)
        while before != after or (any(found) and not before) or int(cut or 0) != base:
            if int(cut or 0) != base:
                base = self._base = int(cut or 0)
                ended = self._ended_from(cursor, base, failures)
            (before, _), *found, (after, cut) = self.link.call_many(state + ended + state, parts + 2)
        records, cursor = found[0], max(cursor, base)
        n = cursor + len(records)
        if len(records) == FIRST:
            n = max(n, base + self.link.call(command("LLEN", self.keys["finished"])))
        failed = [key.decode() for key in found[1]] if failures is not None else []
        return View(
            self.heard(before), finished=records, cursor=cursor, n_finished=n, base=base, failures=failed
        )

    def _ended_from(self, cursor: int, base: int, failures: int | None) -> bytes:
        """What asks for the first records from a place on, and for the failures from a number on."""
        records = command(*self._first(cursor, base))
        return (
            records if failures is None else records + command("LRANGE", self.keys["failures"], failures, -1)
        )

    @cached_property
    def _state(self) -> bytes:
        """What asks for the epoch, and for how many places were cut off."""
        return command("HMGET", self.keys["control"], "epoch", "base")

    def _first(self, cursor: int, base: int, most: int = 0) -> tuple[str, str, int, int]:
        """The command for the first records from a place on, where so many places were cut off."""
        start = max(0, cursor - base)
        return "LRANGE", self.keys["finished"], start, start + (most or FIRST) - 1

    def finished_parts(self, view: View) -> Generator[list[bytes]]:
        """The finished tasks of a view, as records, some at a time.

        Those it did not bring are read on a connection of their own, where nobody waits behind them, and
        always one part ahead of what is given out. They are the view's own, unless a reset came between:
        then Restarted is raised.
        """
        yield from _slices(view.finished)
        at, end = view.cursor + len(view.finished), view.n_finished
        if at >= end:
            return
        rows, base = _rows_of(_PART, view.finished), view.base
        with self.waiting_link() as link:
            self._ask_part(link, at - base, min(at + rows, end) - base)
            while at < end:
                part, now = self._await_part(link, view.epoch)
                if now != base:
                    # What was cut off meanwhile is not there any more, and the others stand elsewhere.
                    base, part = now, [b""] * max(0, min(now, end) - at)
                elif len(part) != min(rows, end - at):
                    raise Restarted
                else:
                    rows = _rows_of(_PART, part)
                at += len(part)
                if at < end:
                    self._ask_part(link, at - base, min(at + rows, end) - base)
                if part:
                    yield from _slices(part)

    def _ask_part(self, link: Link, start: int, stop: int) -> None:
        # The epoch comes second: the same still, it was the same when the records were read.
        records = command("LRANGE", self.keys["finished"], start, stop - 1)
        link.post(records + command("HMGET", self.keys["control"], "epoch", "base"), 2)

    def _await_part(self, link: Link, epoch: str) -> tuple[list[bytes], int]:
        """The records, and how many places had been cut off by then."""
        ((records, still),) = link.await_posts()
        link.trips += 1
        for reply in (records, still):
            if isinstance(reply, hiredis.ReplyError):
                raise refusal(reply, self.config)
        if self.heard(still[0]) != epoch:
            raise Restarted
        return records, int(still[1] or 0)

    def rows(self, records: list[bytes], names: Names | None = None) -> Rows:
        """Finished records, decoded; ``names`` as in ``Codec.decode_records``. Empty places are left
        out."""
        if b"" in records:
            records = [record for record in records if record]
        return cast("Rows", self.codec.decode_records(records, names)) if records else []


def _sent_before(
    commands: bytes, n: int, meanwhile: Callable[[], object] | None
) -> Iterator[tuple[bytes, int]]:
    """These commands, and what is done while the server is at them."""
    yield commands, n
    if meanwhile is not None:
        meanwhile()


def _rows_of(size: int, records: Sequence[bytes]) -> int:
    """How many records like these, of which some are looked at, have so many bytes together."""
    some = records[:: len(records) // _LOOKS + 1]
    return max(1, size * len(some) // max(1, sum(map(len, some))))


def _slices(records: list[bytes]) -> Iterator[list[bytes]]:
    rows = min(_rows_of(_SLICE, records), _SLICE_ROWS)
    if len(records) <= rows:
        yield records
        return
    for at in range(0, len(records), rows):
        yield records[at : at + rows]
