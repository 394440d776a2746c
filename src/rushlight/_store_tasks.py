"""Verbs that write tasks on a manager's behalf: queue, record, drop. What a worker writes is in
``_member``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, repeat, takewhile
from typing import Any

import msgspec

from ._names import new_keys
from ._store_base import StoreBase
from .errors import DataMissing, EncodeError, UnknownKey

#: Bounds of one script call: other clients wait while it runs, a few milliseconds at most. Tasks with options
#: take longer.
_TASKS_PER_CALL, _PLAIN_PER_CALL = 500, 2500
_BYTES_PER_CALL = 4 << 20
#: Tasks that are encoded and sent at a time, while the server is at those before them.
_PART = 1000
#: Bytes of one failure's condition.
_LARGEST_CONDITION = 1 << 20
NIL = b"\xc0"

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Encoded:
    """New tasks, encoded before anything is sent: keys, heads of records, and the large values to be stored
    beside them."""

    keys: list[str]
    heads: list[bytes]
    spilled: dict[str, bytes]
    #: Those whose private queues the tasks are for.
    workers: tuple[str, ...] = ()
    #: No task has any option.
    plain: bool = True
    #: Tells a call that sends tasks from every other, where they are sent once (see the script).
    sending: Callable[[], str] | None = None
    #: The keys were made for this batch, so that a call has created all of its tasks or none.
    fresh: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    def beyond(self, n: int) -> Encoded:
        """All but the first n, whose large values have been stored."""
        return replace(self, keys=self.keys[n:], heads=self.heads[n:], spilled={})


def pack_text(text: str) -> bytes:
    """The text as a msgpack element."""
    return msgspec.msgpack.encode(text)


class TaskVerbs(StoreBase):
    """Creating tasks, and taking queued ones away."""

    #: An epoch, and how a push of one task begins under it.
    _push_stem = "", b""

    def encode_tasks(
        self,
        xss: Sequence[Fields],
        xs_extra: Sequence[Fields | None],
        opts: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> Encoded:
        """Encodes new tasks; raises EncodeError naming the value's path and the task's place."""
        return self._encode(new_keys(len(xss)), xss, xs_extra, opts)

    def _encode(
        self,
        keys: list[str],
        xss: Sequence[Fields],
        xs_extra: Sequence[Fields | None],
        opts: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        sure: bool = False,
    ) -> Encoded:
        heads = None
        spilled: dict[str, bytes] = {}
        if len(xss) > 1:
            heads = self.codec.encode_many((xss, xs_extra), (opts or repeat(None), keys), sure=sure)
        if heads is None:
            heads = []
            for i, (key, xs, extra) in enumerate(zip(keys, xss, xs_extra, strict=True)):
                options = opts[i] if opts else None
                said = msgspec.msgpack.encode(options) if options else NIL
                try:
                    heads.append(said + pack_text(key) + self._encode_pair(xs, "xs", extra, spilled))
                except EncodeError as error:
                    raise placed(error, i, len(xss)) from error
        workers = dict.fromkeys(options["w"] for options in opts or () if options and "w" in options)
        return Encoded(keys, heads, spilled, tuple(workers), plain=not opts, fresh=True)

    def encode_results(
        self, yss: Sequence[Fields], ys_extra: Sequence[Fields | None], spilled: dict[str, bytes]
    ) -> list[bytes]:
        """Encodes results as the scripts append them to a record."""
        payloads = None if len(yss) == 1 else self.codec.encode_many((yss, ys_extra))
        if payloads is None:
            payloads = []
            for i, (ys, extra) in enumerate(zip(yss, ys_extra, strict=True)):
                try:
                    payloads.append(self._encode_pair(ys, "ys", extra, spilled))
                except EncodeError as error:
                    raise placed(error, i, len(yss)) from error
        return payloads

    def _encode_pair(
        self, fields: Fields, where: str, extra: Fields | None, spilled: dict[str, bytes]
    ) -> bytes:
        first = self.codec.encode_fields(fields, where, spilled)
        if extra is None:
            return first + NIL
        return first + self.codec.encode_fields(extra, f"{where}_extra", spilled)

    def encode_condition(self, condition: Mapping[str, Any]) -> bytes:
        """A failure's condition; it may hold any value, but not of any size, as every table of failed tasks
        reads it. Raises EncodeError."""
        packed = self.codec.encode(dict(condition), "condition")
        if len(packed) > _LARGEST_CONDITION:
            raise EncodeError(
                f"condition is {len(packed)} bytes long, {_LARGEST_CONDITION} at most: data belongs into the "
                "results of a task, ys and ys_extra",
                path="condition",
            )
        return packed

    def keep_spilled(self, epoch: str, spilled: Mapping[str, bytes]) -> list[bytes]:
        """The calls that store large values; sent ahead of what refers to them, in the same trip."""
        return self.large.keep(epoch, spilled)

    def push(self, batch: Encoded, *, drain: bool = False) -> None:
        """Queues tasks. ``drain``: workers may leave once the queue is empty. Raises UnknownKey for
        prerequisites the network does not have; of a batch of several calls some may be queued then."""
        self._taken(self.write(lambda epoch: self._push_calls(epoch, batch, drain)))

    def push_many(
        self, xss: Sequence[Fields], xs_extra: Sequence[Fields | None], *, drain: bool = False
    ) -> list[str] | None:
        """Queues many tasks that have no options, and encodes them while the server is at those before them;
        returns their keys. None, and nothing is done, where they are few or an error is possible."""
        n = len(xss)
        # So many join the queue all at once.
        if n <= _PLAIN_PER_CALL or not self.codec.can_encode((xss, xs_extra)):
            return None
        keys: list[str] = []

        def parts(epoch: str) -> Iterator[list[bytes]]:
            for start in range(0, n, _PART):
                part = slice(start, start + _PART)
                # Made meanwhile, too, and the same ones where all is sent again.
                if len(keys) == start:
                    keys.extend(new_keys(min(_PART, n - start)))
                batch = self._encode(keys[part], xss[part], xs_extra[part], sure=True)
                yield self._push_calls(epoch, batch, drain and start + _PART >= n)

        self.write_parts(parts)
        return keys

    def _push_calls(self, epoch: str, batch: Encoded, drain: bool) -> list[bytes]:
        calls: list[tuple[str | bytes, ...]]
        if batch.fresh and batch.plain:
            calls = [
                ("new", msgspec.msgpack.encode(batch.keys[part]), _packed(batch.heads[part]))
                for part in _bounded(batch)
            ]
        else:
            calls = [(batch.sending() if batch.sending else "", *call) for call in in_calls(batch)]
        calls = calls or [("",)]
        ahead = [self.scripts.push(epoch, batch.workers, False, "", *call) for call in calls[:-1]]
        last = self.scripts.push(epoch, batch.workers, drain, "", *calls[-1])
        return [*self.keep_spilled(epoch, batch.spilled), *ahead, last]

    def push_one(self, key: str, head: bytes, said: str) -> None:
        """``push`` of one task that has neither options nor large values, the quick way. ``said``: what its
        ``sending`` says, or 'new' where it is ``fresh``."""
        epoch, stem = self._push_stem
        if epoch != self.epoch:
            epoch = self.epoch
            stem = self.scripts.stem("push", (epoch, 0, ""), 3)
            self._push_stem = epoch, stem
        new = said == "new"
        parts = (b"\x91" + pack_text(key), _packed([head])) if new else (key.encode(), head)
        call = b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            *(stem, len(said), said.encode()),
            *(len(parts[0]), parts[0], len(parts[1]), parts[1]),
        )
        if not epoch or self.link.call(call)[0] != b"ok":
            # No epoch, or another by now.
            self.push(Encoded([key], [head], {}, sending=None if new else partial(str, said), fresh=new))

    def push_some(self, batch: Encoded, most: int) -> int:
        """Queues tasks from the first on, as long as fewer than ``most`` are queued; returns how many it
        took."""
        call = next(in_calls(batch), ())

        def pack(epoch: str) -> list[bytes]:
            return [
                *self.keep_spilled(epoch, batch.spilled),
                self.scripts.push(epoch, batch.workers, False, most, "", *call),
            ]

        return self._taken(self.write(pack))

    def _taken(self, reply: list[Any]) -> int:
        if reply[0] == b"UNKNOWN":
            raise unknown_keys([key.decode() for key in reply[1]], self.network)
        taken: int = reply[1]
        return taken

    def retry(self, keys: Sequence[str], *, ignore: bool, next_seed: bool) -> list[str]:
        """Puts failed tasks back into the line; returns those that went."""
        call = self.new_call()
        reply = self.write(lambda epoch: self.scripts.retry(epoch, call, ignore, next_seed, *keys))
        return [key.decode() for key in reply[1]]

    def record(self, batch: Encoded, kind: str, payloads: Sequence[bytes]) -> None:
        """Creates tasks that are finished (``kind`` f) or failed (x) already."""

        def pack(epoch: str) -> list[bytes]:
            calls = self.keep_spilled(epoch, batch.spilled)
            return calls + [self.scripts.record(epoch, kind, *call) for call in in_calls(batch, payloads)]

        self.write(pack)

    def drop(self, condition: Mapping[str, Any], keys: Sequence[str] | None = None) -> list[str]:
        """Fails all queued tasks, or the named ones, queued or running; returns the keys that failed now."""
        call, packed = self.new_call(), self.encode_condition(condition)
        reply = self.write(
            lambda epoch: self.scripts.drop(epoch, call, packed, every=keys is None, keys=tuple(keys or ()))
        )
        return [key.decode() for key in reply[1]]


def head_of(key: str, xs: bytes) -> bytes:
    """The head of the record of a task that has inputs, encoded, and nothing else."""
    return b"\xc0%b%b\xc0" % (pack_text(key), xs)


def unknown_keys(keys: Sequence[str], network: str) -> UnknownKey:
    """The error for task keys the network does not have."""
    named = ", ".join(map(repr, keys[:3])) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    return UnknownKey(f"network {network!r} has no task {named}", keys=list(keys))


def refuse_removed(keys: Sequence[str], states: Sequence[object], network: str) -> None:
    """Raises DataMissing where tasks that were waited for are not there any more."""
    gone = [key for key, state in zip(keys, states, strict=True) if state is None]
    if gone:
        text = f"network {network!r} keeps no results that were collected, as those of {gone[0]!r} were"
        raise DataMissing(text, keys=gone)


def in_calls(batch: Encoded, payloads: Sequence[bytes] = ()) -> Iterator[tuple[str | bytes, ...]]:
    """The batch as arguments of script calls, each bounded in tasks and bytes: the keys, then the heads, then
    the payloads."""
    for part in _bounded(batch, payloads):
        yield (*batch.keys[part], *batch.heads[part], *payloads[part])


def _bounded(batch: Encoded, payloads: Sequence[bytes] = ()) -> Iterator[slice]:
    most = _PLAIN_PER_CALL if batch.plain else _TASKS_PER_CALL
    sizes = list(map(len, batch.heads))
    if payloads:
        sizes = [size + len(payload) for size, payload in zip(sizes, payloads, strict=True)]
    start = 0
    while start < len(sizes):
        stop = min(start + most, len(sizes))
        if sum(sizes[start:stop]) > _BYTES_PER_CALL:
            totals = accumulate(sizes[start:stop])
            stop = start + max(1, sum(1 for _ in takewhile(_BYTES_PER_CALL.__ge__, totals)))
        yield slice(start, stop)
        start = stop


def _packed(parts: Sequence[bytes]) -> bytes:
    """As an array of texts, whatever they are: the server's msgpack knows no bytes."""
    sizes = list(map((1).__add__, map(len, parts)))
    if max(sizes) < 256:
        body = b"".join(map(b"\xd9%c\x01%b".__mod__, zip(sizes, parts, strict=True)))
    else:
        body = b"".join([b"\xdb%b\x01%b" % ((len(part) + 1).to_bytes(4, "big"), part) for part in parts])
    return b"\xdd%b%b" % (len(parts).to_bytes(4, "big"), body)


def placed(error: EncodeError, i: int, n: int) -> EncodeError:
    """The error with the task's place in its batch."""
    if n == 1:
        return error
    return EncodeError(f"{error} (task {i + 1} of {n})", **{**error.fields, "task": i})
