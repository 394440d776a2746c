"""Rows of tasks as columns: immutable blocks, and the schema over many of them.

A block keeps every value exactly, as a polars Series where that loses nothing and as a list
otherwise, and beside it the frame that shows it under the current schema (the same memory, where
the types agree). Knows nothing of the forms a user asks for.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import compress, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from ._columns import (
    FLOAT,
    MUTABLE,
    NULL,
    OBJECT,
    SPILLED,
    STR,
    WIDE_INT,
    Kind,
    dtype_of,
    frame_of,
    from_series,
    join,
    kind_of,
    packs,
    to_series,
)
from ._record_decoder import field_values
from ._records import TaskState
from .errors import escaped

if TYPE_CHECKING:
    import polars as pl

#: A column: its group (which is its place in a table) and its name there.
Column = tuple[int, str]
#: What the keys of a row's four dicts were; None for a dict that was not there.
Shape = tuple[tuple[str, ...] | None, ...]

KEY: Column = (-2, "key")
STATE: Column = (-1, "state")
WORKER: Column = (4, "worker_id")
TIMES: tuple[Column, ...] = ((4, "created_at"), (4, "started_at"), (4, "finished_at"))
CONDITION: tuple[Column, ...] = ((5, "condition"), (5, "condition_type"), (5, "traceback"))
#: Where the xs, ys, xs_extra and ys_extra stand in a row, in the order of a table.
SIDES = (4, 10, 5, 11)
SUFFIXES = ("_xs", "_ys", "_xs_extra", "_ys_extra")
_STATES = {state: str(state) for state in TaskState}
_CONDITION_FIELDS = ("message", "type", "traceback")
#: Beyond this many rows the garbage collector would only walk what cannot be garbage.
_GC_ROWS = 1000


class StatedRow(NamedTuple):
    """A decoded row, the state of its task, and for a failed one its condition."""

    state: TaskState
    row: Sequence[Any]
    condition: Mapping[str, Any] | None = None


class Stated(Sequence[StatedRow]):
    """The same of many tasks, as three lists: nothing is made for each."""

    __slots__ = ("conditions", "rows", "states")

    def __init__(
        self,
        states: Sequence[TaskState],
        rows: Sequence[Sequence[Any]],
        conditions: Sequence[Mapping[str, Any] | None],
    ) -> None:
        self.states, self.rows, self.conditions = states, rows, conditions

    @classmethod
    def of(cls, rows: Sequence[StatedRow]) -> Stated:
        """These; as they are, where they come like this."""
        if isinstance(rows, Stated):
            return rows
        return cls([one.state for one in rows], [one.row for one in rows], [one.condition for one in rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> Any:
        parts = self.states[at], self.rows[at], self.conditions[at]
        return Stated(*parts) if isinstance(at, slice) else StatedRow(*parts)

    def failed_apart(self) -> tuple[Stated, Stated]:
        """Those that have not failed, and those that have."""
        if TaskState.FAILED not in self.states:
            return self, self[:0]
        failed = [state is TaskState.FAILED for state in self.states]
        return self._where([not one for one in failed]), self._where(failed)

    def _where(self, chosen: Sequence[bool]) -> Stated:
        kept = [list(compress(part, chosen)) for part in (self.states, self.rows, self.conditions)]
        return Stated(*cast("Any", kept))


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """The columns of a table in order, with the kind and the name each is shown with."""

    kinds: dict[Column, Kind]
    names: dict[Column, str]
    #: The columns of objects among which some can be changed in place.
    mutable: frozenset[Column] = frozenset()

    def widened(self, kinds: Mapping[Column, Kind]) -> Schema:
        """The schema that holds these columns too; this one where nothing changes."""
        if kinds is self.kinds:
            return self
        new: dict[Column, Kind] = {}
        for column, kind in kinds.items():
            known = self.kinds.get(column)
            joined = join(NULL if known is None else known, kind)
            if joined != known:
                new[column] = joined
        return schema_of({**self.kinds, **new}) if new else self


def schema_of(kinds: Mapping[Column, Kind]) -> Schema:
    """Columns in the order of their groups, within one in the order they appeared."""
    ordered = sorted(kinds, key=itemgetter(0))
    mutable = frozenset(column for column, kind in kinds.items() if kind == MUTABLE)
    return Schema({column: kinds[column] for column in ordered}, column_names(ordered), mutable)


def finished_kinds() -> dict[Column, Kind]:
    """The columns every table has, whatever the tasks."""
    return {KEY: STR, WORKER: STR, **dict.fromkeys(TIMES, FLOAT)}


def column_names(columns: Iterable[Column]) -> dict[Column, str]:
    """The name of each column: its own, or with its group's suffix where another column has it too.

    A name nobody shares is never changed; a suffix that makes a name somebody has is added again.
    """
    columns = list(columns)
    owners: dict[str, int] = {}
    for _, name in columns:
        owners[name] = owners.get(name, 0) + 1
    taken = set(owners)
    names = {}
    for column in columns:
        group, name = column
        if owners[name] > 1 and 0 <= group < len(SUFFIXES):
            name += SUFFIXES[group]
            while name in taken:
                name += SUFFIXES[group]
            taken.add(name)
        names[column] = name
    return names


def _integers() -> array[int]:
    return array("q")


@dataclass(slots=True, eq=False)
class Block:
    """Some rows, in columns. Parts are replaced, never changed in place, so blocks can share them.

    ``cells`` holds the columns that ``frame`` cannot give back exactly; both together hold all.
    A column whose kind is NULL needs neither. ``shapes`` and ``shape_at`` say which keys each row
    had; ``attempts``, ``seqs`` and ``opts`` are what a Task has and a table has not.
    """

    n: int
    kinds: dict[Column, Kind]
    cells: dict[Column, list[Any] | pl.Series]
    shapes: list[Shape] = field(default_factory=list)
    shape_at: array[int] | None = None
    attempts: array[int] = field(default_factory=_integers)
    seqs: array[int] = field(default_factory=_integers)
    opts: list[Any] | None = None
    frame: pl.DataFrame | None = None
    schema: Schema | None = None
    stale: bool = False
    spilled: bool = False

    def stored(self, column: Column) -> list[Any] | pl.Series | None:
        """The values as they are kept; None where the whole column is missing."""
        found = self.cells.get(column)
        if found is not None or self.frame is None or self.schema is None:
            return found
        return (
            None if self.kinds.get(column, NULL) == NULL else self.frame.get_column(self.schema.names[column])
        )

    def values(self, column: Column, offset: int = 0) -> list[Any]:
        """The exact values from ``offset`` on. They may be the block's own: copy what can be changed."""
        kept = self.stored(column)
        if kept is None:
            return [None] * (self.n - offset)
        if isinstance(kept, list):
            return kept[offset:] if offset else kept
        return from_series(kept[offset:] if offset else kept, self.kinds[column])


@contextmanager
def gc_paused(rows: int) -> Iterator[None]:
    """No garbage collection while many values are made that all stay."""
    pause = rows > _GC_ROWS and gc.isenabled()
    if pause:
        gc.disable()
    try:
        yield
    finally:
        if pause:
            gc.enable()


def seconds(micros: Iterable[int]) -> list[float | None]:
    """Server times as POSIX seconds; None where the thing has not happened."""
    return [value / 1e6 if value else None for value in micros]


def _packed_seconds(columns: Sequence[Sequence[int]]) -> list[pl.Series]:
    """What ``seconds`` gives for each, as Series: of all at once, as each step costs more than its rows."""
    import polars as pl

    n = len(columns[0])
    created, started, finished = columns
    whole = to_series("", [*created, *started, *finished], WIDE_INT)
    # not by a scalar: polars multiplies by its reciprocal, which rounds differently
    scaled = whole.cast(pl.Float64) / pl.Series([1e6]).new_from_index(0, len(whole))
    if not whole.min():
        scaled = scaled.set(whole == 0, None)
    return [scaled.slice(n * i, n).alias(name) for i, (_, name) in enumerate(TIMES)]


def block_of(rows: Sequence[Sequence[Any]], *, packed: bool = False) -> Block:
    """Decoded rows as a block: of lists or, ``packed``, of Series where those lose nothing."""
    parts = list(zip(*rows, strict=True))
    cells: dict[Column, list[Any] | pl.Series] = {KEY: list(parts[3]), WORKER: list(parts[0])}
    shapes_of = []
    for group, part in enumerate(SIDES):
        shapes, columns = _spread(parts[part])
        shapes_of.append(shapes)
        cells.update(((group, name), values) for name, values in columns.items())
    fixed = finished_kinds()
    kinds = {
        column: fixed.get(column) or kind_of(cast("list[Any]", values)) for column, values in cells.items()
    }
    kinds.update(dict.fromkeys(TIMES, FLOAT))
    times = [parts[6], parts[8], parts[9]]
    cells.update(zip(TIMES, _packed_seconds(times) if packed else map(seconds, times), strict=True))
    opts = list(parts[2]) if any(parts[2]) else None
    attempts, seqs = array("q", parts[1]), array("q", parts[7])
    shapes, shape_at = _number_shapes(shapes_of, len(rows))
    held = {column: values for column, values in cells.items() if kinds[column] != NULL}
    block = Block(len(rows), kinds, held, shapes, shape_at, attempts, seqs, opts)
    block.spilled = SPILLED in kinds.values()
    if packed:
        pack(block)
    return block


def stated_block(stated: Stated) -> Block:
    """Rows of several states as a block that also has their states and conditions."""
    states, conditions = stated.states, stated.conditions
    block = block_of(stated.rows)
    block.cells[STATE] = list(map(_STATES.__getitem__, states))
    block.kinds[STATE] = STR
    for column, name in zip(CONDITION, _CONDITION_FIELDS, strict=True):
        if any(conditions):
            block.cells[column] = [_text((condition or {}).get(name)) for condition in conditions]
        block.kinds[column] = STR
    return block


def mixed(schema: Schema, blocks: Sequence[Block], conditions: bool, *, state: bool = True) -> Schema:
    """What the schema and these blocks have, and the columns of states and conditions asked for."""
    asked = ((STATE,) if state else ()) + (CONDITION if conditions else ())
    left_out = {STATE, *CONDITION}.difference(asked)
    schema = schema.widened(dict.fromkeys(asked, STR))
    for block in blocks:
        schema = schema.widened({c: kind for c, kind in block.kinds.items() if c not in left_out})
    return schema


def _text(value: Any) -> str | None:
    return None if value is None else escaped(value if type(value) is str else str(value))


def _spread(dicts: Sequence[dict[str, Any] | None]) -> tuple[Any, dict[str, list[Any]]]:
    """One dict (or what stands for it) per row as columns by name, and the keys of each row (of all, where
    they agree)."""
    if isinstance(dicts[0], msgspec.Struct):
        found = field_values(cast("Any", dicts))
        return tuple(found), found
    if dicts[0] is None:
        if dicts.count(None) == len(dicts):
            return None, {}
    else:
        # As many keys in all as if each had just these, and each has these.
        names = tuple(dicts[0])
        filled = cast("Sequence[dict[str, Any]]", dicts)
        with contextlib.suppress(KeyError, TypeError):
            columns = {name: list(map(itemgetter(name), filled)) for name in names}
            if sum(map(len, filled)) == len(names) * len(filled):
                return names, columns
    keys = [None if d is None else tuple(d) for d in dicts]
    distinct: dict[Any, None] = dict.fromkeys(keys)
    names = tuple(dict.fromkeys(name for shape in distinct for name in shape or ()))
    empty: dict[str, Any] = {}
    filled = [d or empty for d in dicts]
    return keys, {name: [d.get(name) for d in filled] for name in names}


def _number_shapes(shapes_of: list[Any], n: int) -> tuple[list[Shape], array[int] | None]:
    if not any(isinstance(shapes, list) for shapes in shapes_of):
        return [tuple(shapes_of)], None
    numbers: dict[Shape, int] = {}
    per_row = zip(*(s if isinstance(s, list) else repeat(s, n) for s in shapes_of), strict=True)
    shape_at = array("I", [numbers.setdefault(shape, len(numbers)) for shape in per_row])
    return list(numbers), shape_at


def pack(block: Block) -> None:
    """Turn the lists that polars holds exactly into Series."""
    packed: dict[Column, list[Any] | pl.Series] = {}
    for column, values in block.cells.items():
        kind = block.kinds[column]
        if isinstance(values, list) and packs(kind):
            packed[column] = to_series(column[1], values, kind)
        else:
            packed[column] = values
    block.cells = packed


def show(block: Block, schema: Schema) -> pl.DataFrame:
    """The block as a frame of exactly this schema. Pure: ``adopt`` keeps the outcome."""
    columns = schema.kinds.items()
    return frame_of([show_column(block, column, kind, schema.names[column]) for column, kind in columns])


def show_column(block: Block, column: Column, kind: Kind, name: str) -> pl.Series:
    """One column of the block as a Series of ``dtype_of(kind)``; ``kind`` must hold the block's own."""
    own = block.kinds.get(column, NULL)
    dtype = dtype_of(kind)
    kept = block.stored(column)
    if kept is None or own == SPILLED:
        return nulls(name, block.n, kind)
    if isinstance(kept, list):
        return to_series(name, kept, kind)
    if kept.dtype == dtype:
        return kept if kept.name == name else kept.alias(name)
    if kind.family in ("object", "list"):
        return to_series(name, from_series(kept, own), kind)
    return kept.cast(dtype).alias(name)


def nulls(name: str, n: int, kind: Kind) -> pl.Series:
    """A column of missing values."""
    if kind.family == "object":
        return to_series(name, [None] * n, kind)
    return _one_null(kind).new_from_index(0, n).alias(name)


@functools.cache
def _one_null(kind: Kind) -> pl.Series:
    return to_series("", [None], NULL).cast(dtype_of(kind))


def adopt(block: Block, schema: Schema) -> None:
    """Show the block under this schema from now on, keeping apart what its frame would not give back."""
    pack(block)
    frame = show(block, schema)
    kept: dict[Column, list[Any] | pl.Series] = {}
    for column, kind in block.kinds.items():
        stored = block.stored(column)
        if stored is not None and not (packs(kind) and dtype_of(kind) == dtype_of(schema.kinds[column])):
            kept[column] = stored
    block.cells, block.frame, block.schema, block.stale = kept, frame, schema, False


def settle(block: Block, column: Column, values: list[Any]) -> None:
    """Put values that were stored apart in the place of their references."""
    kind = kind_of(values)
    kind = OBJECT if kind == SPILLED else kind
    block.kinds = {**block.kinds, column: kind}
    block.cells = {**block.cells, column: values}
    block.stale = True
    block.spilled = SPILLED in block.kinds.values()
