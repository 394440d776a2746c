"""Verbs that write tasks on a manager's behalf: queue, record, drop. What a worker writes is in
``_member``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ._names import new_key
from ._store_base import StoreBase
from .errors import EncodeError, UnknownKey

#: Bounds of one script call: other clients wait while it runs.
_TASKS_PER_CALL = 500
_BYTES_PER_CALL = 4 << 20
_NIL = b"\xc0"

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task about to be created: its key and the head of its record, encoded."""

    key: str
    head: bytes


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch, encoded before anything is sent, and the large values to be stored beside it."""

    tasks: list[NewTask]
    spilled: dict[str, bytes]
    #: Those whose private queues the tasks are for.
    workers: tuple[str, ...] = ()

    @property
    def keys(self) -> list[str]:
        return [task.key for task in self.tasks]


def pack_text(text: str) -> bytes:
    """The text as a msgpack element."""
    return msgspec.msgpack.encode(text)


class TaskVerbs(StoreBase):
    """Creating tasks, and taking queued ones away."""

    def encode_tasks(
        self,
        xss: Sequence[Fields],
        xs_extra: Sequence[Fields | None],
        opts: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> Encoded:
        """Encodes new tasks; raises EncodeError naming the value's path and the task's place."""
        spilled: dict[str, bytes] = {}
        tasks = []
        for i, xs in enumerate(xss):
            extra, options = xs_extra[i], opts[i] if opts else None
            key = new_key()
            try:
                head = b"".join(
                    (
                        msgspec.msgpack.encode(options) if options else _NIL,
                        pack_text(key),
                        self.codec.encode_fields(xs, "xs", spilled),
                        self.codec.encode_fields(extra, "xs_extra", spilled) if extra is not None else _NIL,
                    )
                )
            except EncodeError as error:
                raise placed(error, i, len(xss)) from error
            tasks.append(NewTask(key, head))
        workers = dict.fromkeys(options["w"] for options in opts or () if options and "w" in options)
        return Encoded(tasks, spilled, tuple(workers))

    def encode_results(
        self, yss: Sequence[Fields], ys_extra: Sequence[Fields | None], spilled: dict[str, bytes]
    ) -> list[bytes]:
        """Encodes results as the scripts append them to a record."""
        payloads = []
        for i, (ys, extra) in enumerate(zip(yss, ys_extra, strict=True)):
            try:
                payload = self.codec.encode_fields(ys, "ys", spilled)
                payload += _NIL if extra is None else self.codec.encode_fields(extra, "ys_extra", spilled)
            except EncodeError as error:
                raise placed(error, i, len(yss)) from error
            payloads.append(payload)
        return payloads

    def encode_condition(self, condition: Mapping[str, Any]) -> bytes:
        """A failure's condition; it may hold any value."""
        return self.codec.encode(dict(condition), "condition")

    def keep_spilled(self, epoch: str, spilled: Mapping[str, bytes]) -> list[bytes]:
        """The calls that store large values; sent ahead of what refers to them, in the same trip."""
        return self.large.keep(epoch, spilled)

    def push(self, batch: Encoded, *, drain: bool = False) -> None:
        """Queues tasks. ``drain``: workers may leave once the queue is empty. Raises UnknownKey for
        prerequisites the network does not have; of a batch of several calls some may be queued then."""

        def pack(epoch: str) -> list[bytes]:
            groups = list(in_groups(batch.tasks, [()] * len(batch.tasks))) or [[]]
            ahead = [self.scripts.push(epoch, batch.workers, False, "", *group) for group in groups[:-1]]
            last = self.scripts.push(epoch, batch.workers, drain, "", *groups[-1])
            return [*self.keep_spilled(epoch, batch.spilled), *ahead, last]

        self._taken(self.write(pack))

    def push_some(self, batch: Encoded, most: int) -> int:
        """Queues tasks from the first on, as long as fewer than ``most`` are queued; returns how many it
        took."""
        group = next(iter(in_groups(batch.tasks, [()] * len(batch.tasks))), [])

        def pack(epoch: str) -> list[bytes]:
            return [
                *self.keep_spilled(epoch, batch.spilled),
                self.scripts.push(epoch, batch.workers, False, most, *group),
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
        tails = [(kind, payload) for payload in payloads]

        def pack(epoch: str) -> list[bytes]:
            calls = self.keep_spilled(epoch, batch.spilled)
            return calls + [self.scripts.record(epoch, *group) for group in in_groups(batch.tasks, tails)]

        self.write(pack)

    def drop(self, condition: Mapping[str, Any], keys: Sequence[str] | None = None) -> list[str]:
        """Fails all queued tasks, or the named ones, queued or running; returns the keys that failed now."""
        call, packed = self.new_call(), self.encode_condition(condition)
        reply = self.write(
            lambda epoch: self.scripts.drop(epoch, call, packed, every=keys is None, keys=tuple(keys or ()))
        )
        return [key.decode() for key in reply[1]]


def unknown_keys(keys: Sequence[str], network: str) -> UnknownKey:
    """The error for task keys the network does not have."""
    named = ", ".join(map(repr, keys[:3])) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    return UnknownKey(f"network {network!r} has no task {named}", keys=list(keys))


def in_groups(tasks: Sequence[NewTask], tails: Sequence[tuple[Any, ...]]) -> Iterable[list[Any]]:
    """Arguments (key, head, tail...) of script calls, each call bounded in tasks and bytes."""
    group: list[Any] = []
    count = size = 0
    for task, tail in zip(tasks, tails, strict=True):
        group += (task.key, task.head, *tail)
        count += 1
        size += len(task.head) + sum(len(part) for part in tail)
        if count >= _TASKS_PER_CALL or size >= _BYTES_PER_CALL:
            yield group
            group, count, size = [], 0, 0
    if group:
        yield group


def placed(error: EncodeError, i: int, n: int) -> EncodeError:
    """The error with the task's place in its batch."""
    if n == 1:
        return error
    return EncodeError(f"{error} (task {i + 1} of {n})", **{**error.fields, "task": i})
