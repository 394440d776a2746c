"""Tasks as an archive keeps them: exact records, and a store of them that only reads.

A record is its CRC-32 and a msgpack array: version, network, place, how many there are, state, condition,
the task's stored row, and the values it is the first to refer to, by digest. Values that were stored
apart are in there once, and so is what is sealed (pickles, tables), so that an archive can be opened, and
its other columns read, without the secret. Nothing here runs code or touches a file or a server.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgspec

from ._blocks import SIDES, StatedRow
from ._codec import Codec, Spilled
from ._disk_cache import digest_of
from ._record_decoder import Names
from ._records import Counts, TaskState
from ._store import Store
from ._store_finished import Rows, View
from ._store_reads import Standing
from .errors import CodecError, DataMissing, DecodeError, RushlightError

_VERSION: Final = 1
#: The largest value stored apart that the readable part of an archive shows.
_SHOWN: Final = 1 << 20
#: What opens every sealed envelope, wherever in a value it is.
_SEALED: Final = b"RL\x01"

_items = msgspec.msgpack.Decoder(list[msgspec.Raw])
_fields = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.msgpack.Encoder().encode
_bare = Codec(None)


class Record(NamedTuple):
    """One record: its place among how many, and the task; ``state`` None where there is no task at all.
    ``condition`` is that of the failure, or of the last attempt of a task that was tried again; ``values`` is
    never changed.
    """

    network: str
    place: int
    n: int
    state: TaskState | None = None
    condition: bytes = b"\xc0"
    row: bytes = b""
    values: Mapping[str, bytes] = {}

    def pack(self) -> bytes:
        """As bytes that ``unpack`` reads."""
        parts = (_VERSION, self.network, self.place, self.n, self.state)
        data = _encode((*parts, self.condition, self.row, self.values))
        return zlib.crc32(data).to_bytes(4, "big") + data

    @classmethod
    def unpack(cls, data: bytes) -> Record:
        """Raises DecodeError for anything that ``pack`` has not made."""
        if zlib.crc32(data[4:]).to_bytes(4, "big") != data[:4]:
            raise DecodeError("a record was damaged", data=data[:64])
        try:
            version, *parts = msgspec.msgpack.decode(data[4:], type=_Parts)
        except (ValueError, RecursionError) as error:
            raise DecodeError("a record is none of Rushlight's", data=data[:64]) from error
        if version != _VERSION:
            raise DecodeError(f"it is of version {version}, this release of Rushlight reads {_VERSION}")
        return cls(*parts)


_Parts = tuple[int, str, int, int, TaskState | None, bytes, bytes, dict[str, bytes]]


class _Columns(Codec):
    """Decodes records no further than to their columns, whose values stay the bytes they are."""

    __slots__ = ()

    def decode_rows(
        self,
        parts: Sequence[bytes],
        width: int | None = None,  # noqa: ARG002 - the codec's own signature
    ) -> tuple[list[Any], list[Spilled]]:
        return [[_opened(item) for item in _items.decode(part)] for part in parts], []

    def decode_records(self, parts: Sequence[bytes], names: Names | None = None) -> list[Any]:  # noqa: ARG002
        return self.decode_rows(parts)[0]


def _opened(item: msgspec.Raw) -> Any:
    first = memoryview(item)[0]
    if 0x80 <= first <= 0x8F or first in (0xDE, 0xDF):
        return _fields.decode(item)
    extension = 0xC7 <= first <= 0xC9 or 0xD4 <= first <= 0xD8
    return item if extension else msgspec.msgpack.decode(item)


# --- out of a network -------------------------------------------------------------------------------


class Taken(NamedTuple):
    """A task on its way into an archive: its record, and what a reader of its columns is shown."""

    record: Record
    shown: StatedRow


def take(store: Store) -> Iterator[Taken]:
    """Every task of a network, from one instant, in the order of ``fetch_tasks``; values stored apart are
    read as they are met. Raises DataMissing where one is gone."""
    # A connection of its own: a large network may take a while.
    source = Store(store.config, store.network, connect=False)
    source.codec = _Columns(None)
    try:
        view = source.whole_view(list(TaskState))
        lapses = source.lapses([row[3] for row in (*view.queued, *view.running) if row[1] > 1])
        stated = [
            *((TaskState.QUEUED, row, None) for row in view.queued),
            *((TaskState.RUNNING, row, None) for row in view.running),
            *((TaskState.FINISHED, row, None) for row in source.rows(view.finished)),
            *((TaskState.FAILED, row, said) for row, said in zip(view.failed, view.conditions, strict=True)),
        ]
        taker = _Taker(source.large.raw)
        for place, (state, row, said) in enumerate(stated):
            values: dict[str, bytes] = {}
            kept, shown = taker.row(row, values)
            encoded = lapses.get(row[3]) or _encode(said)
            record = Record(store.network, place, len(stated), state, encoded, _encode(kept), values)
            condition = None if said is None else _shown_fields(said)
            yield Taken(record, StatedRow(state, shown, condition))
    finally:
        source.close()


class _Taker:
    """Splits rows into what is kept and what is shown; knows which values earlier rows carry."""

    def __init__(self, read: Callable[[Sequence[Spilled]], Iterable[bytes | bytearray | None]]) -> None:
        self._read = read
        self._carried: dict[str, Any] = {}

    def row(self, row: Sequence[Any], values: dict[str, bytes]) -> tuple[list[Any], list[Any]]:
        kept, shown = list(row), list(row)
        for side in SIDES:
            if row[side] is not None:
                pairs = {name: self._value(raw, values) for name, raw in row[side].items()}
                kept[side] = {name: raw for name, (raw, _) in pairs.items()}
                shown[side] = {name: value for name, (_, value) in pairs.items()}
        shown[2] = None
        return kept, shown

    def _value(self, raw: msgspec.Raw, values: dict[str, bytes]) -> tuple[Any, Any]:
        """What is kept in the row, and what is shown."""
        data = bytes(raw)
        if _SEALED in data:
            reference = Spilled(digest_of(data), len(data))
            self._carry(reference, data, values)
            return msgspec.Raw(_bare.encode(reference, "value")), self._carried[reference.digest]
        value = _readable(data)
        if type(value) is not Spilled:
            return raw, value
        if value.digest not in self._carried:
            found = next(iter(self._read([value])))
            if found is None or len(found) != value.size or digest_of(found) != value.digest:
                message = f"a value of {value.size} bytes that was stored apart is gone from the server"
                raise DataMissing(message, keys=[value.digest])
            self._carry(value, bytes(found), values)
        return raw, self._carried[value.digest]

    def _carry(self, reference: Spilled, data: bytes, values: dict[str, bytes]) -> None:
        if reference.digest not in self._carried:
            values[reference.digest] = data
            self._carried[reference.digest] = _readable(data) if len(data) <= _SHOWN else None


def _readable(data: bytes) -> Any:
    """The value as far as it is plain data; None else. Runs no code, and needs no secret."""
    try:
        return _bare.decode(data)
    except RushlightError:
        return None


def _shown_fields(fields: Any) -> dict[str, Any]:
    if isinstance(fields, dict):
        return {name: _readable(bytes(raw)) for name, raw in fields.items()}
    found = _readable(bytes(fields))
    return found if isinstance(found, dict) else {}


# --- a store that only reads ------------------------------------------------------------------------


class FrozenStore:
    """The records of an archive behind the reading verbs of a store. ``codec`` is asked for when the first
    value is read that may need the secret."""

    epoch = "archive"

    def __init__(self, records: Iterable[Record], codec: Callable[[str], Codec]) -> None:
        self._rows: dict[TaskState, list[bytes]] = {state: [] for state in TaskState}
        self._conditions: list[bytes] = []
        self._lapses: dict[str, bytes] = {}
        self._values: dict[str, bytes] = {}
        self._index: dict[str, tuple[TaskState, int]] = {}
        self._make_codec = codec
        self._codec: Codec | None = None
        self.network = ""
        found = sorted(records, key=lambda record: record.place)
        self._check(found)
        for record in found:
            self._values.update(record.values)
            if record.state is not None:
                self._add(record.state, record)

    def _check(self, records: Sequence[Record]) -> None:
        if not records:
            raise DecodeError("it holds no record")
        n, self.network = records[0].n, records[0].network
        expected = list(range(max(n, 1)))
        if [record.place for record in records] != expected or {record.n for record in records} != {n}:
            raise DecodeError(f"{len(records)} records are here of an archive of {n}")
        if {record.network for record in records} != {self.network}:
            raise DecodeError("records of several networks are mixed")

    def _add(self, state: TaskState, record: Record) -> None:
        rows = self._rows[state]
        key = msgspec.msgpack.decode(_items.decode(record.row)[3], type=str)
        self._index[key] = (state, len(rows))
        rows.append(record.row)
        if state is TaskState.FAILED:
            self._conditions.append(record.condition)
        elif record.condition != _encode(None):
            self._lapses[key] = record.condition

    @property
    def codec(self) -> Codec:
        if self._codec is None:
            self._codec = self._make_codec(self.network)
        return self._codec

    def load_spilled(self, spilled: list[Spilled]) -> list[Any]:
        return [self.codec.decode_spilled(item, self._values.get(item.digest)) for item in spilled]

    def _decoded(self, state: TaskState, picked: slice = slice(None)) -> Rows:
        return self.rows(self._rows[state][picked])

    def rows(self, records: list[bytes], names: Names | None = None) -> Rows:
        return list(_bare.decode_records(records, names)) if records else []

    def finished_parts(self, view: View) -> Generator[list[bytes]]:
        yield view.finished

    def _said(self, picked: slice = slice(None)) -> list[dict[str, Any]]:
        return [self._condition(data) for data in self._conditions[picked]]

    def _condition(self, data: bytes) -> dict[str, Any]:
        """What a failure said; what of it is sealed only where the secret is right."""
        try:
            return dict((self.codec if _SEALED in data else _bare).decode(data))
        except CodecError:
            return _shown_fields(_opened(msgspec.Raw(data)))

    def view(self, states: Collection[TaskState], cursor: int = 0) -> View:
        found: dict[TaskState, Rows] = {
            state: self._decoded(state) for state in states if state is not TaskState.FINISHED
        }
        finished = self._rows[TaskState.FINISHED][cursor:] if TaskState.FINISHED in states else []
        return self._view(found, finished, self._said() if TaskState.FAILED in states else [])

    def finished_view(self, cursor: int, _known: str, *, failures: int | None = None, **_how: object) -> View:
        failed = [] if failures is None else self.failures(failures)[1]
        return replace(self.view([TaskState.FINISHED], cursor), failures=failed)

    def _view(
        self,
        found: Mapping[TaskState, Rows],
        finished: list[bytes],
        said: list[dict[str, Any]],
        lapse: bytes | None = None,
    ) -> View:
        return View(
            epoch=self.epoch,
            queued=found.get(TaskState.QUEUED, []),
            running=found.get(TaskState.RUNNING, []),
            finished=finished,
            n_finished=len(finished),
            failed=found.get(TaskState.FAILED, []),
            conditions=said,
            lapse=None if lapse is None else self._condition(lapse),
        )

    def look_up(self, key: str) -> View:
        state, at = self._index.get(key, (None, 0))
        if state is None:
            return View(self.epoch)
        picked = slice(at, at + 1)
        said = self._said(picked) if state is TaskState.FAILED else []
        if state is TaskState.FINISHED:
            return self._view({}, self._rows[state][picked], said)
        return self._view({state: self._decoded(state, picked)}, [], said, self._lapses.get(key))

    def look(self, keys: Sequence[str]) -> list[TaskState | None]:
        return [self._index.get(key, (None, 0))[0] for key in keys]

    def _failed_keys(self) -> list[str]:
        return [key for key, (state, _) in self._index.items() if state is TaskState.FAILED]

    def failures(self, cursor: int) -> tuple[str, list[str]]:
        return self.epoch, self._failed_keys()[cursor:]

    def failed_by_key(self, keys: Sequence[str]) -> tuple[Rows, list[dict[str, Any]]]:
        views = [self.look_up(key) for key in keys]
        return [row for view in views for row in view.failed], [c for view in views for c in view.conditions]

    def counts(self) -> Counts:
        return Counts(**{state.value: len(rows) for state, rows in self._rows.items()})

    def watch(self, _seconds: float) -> Standing:
        now = self.counts()
        return Standing(self.epoch, now.finished, now.failed, now.queued, now.running, 0, 0, "", math.inf)

    def wait_event(self, _after: str, _seconds: float) -> bool:
        return False
