"""Tables of tasks and workers: the cache of finished tasks, and one-off tables of any states.

A fetch costs what is new: rows become small blocks, blocks are merged like the levels of a
log-structured tree, and a table is the blocks' frames stacked without copying them. Never talks to
a server; values that were stored apart are read through the ``resolve`` it is given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ._blocks import (
    CONDITION,
    SIDES,
    STATE,
    Block,
    Column,
    Schema,
    StatedRow,
    adopt,
    block_of,
    finished_kinds,
    gc_paused,
    merge,
    schema_of,
    settle,
    show,
    show_column,
    stated_block,
)
from ._codec import Spilled
from ._columns import SPILLED, STR, Kind, dtype_of, to_series
from ._fast import FewRows
from ._forms import Sheet, block_tasks, check_request, log_table, render, to_task, worker_table
from ._records import Task, TaskState

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "FinishedTable",
    "StatedRow",
    "build_table",
    "check_request",
    "log_table",
    "to_task",
    "worker_table",
]

#: Reads values stored apart, in order.
Resolve = Callable[[list[Spilled]], list[Any]]

#: More blocks than this are merged: each costs every fetch a few microseconds per 100 columns.
_MAX_BLOCKS = 10
#: Blocks are merged into one that is less than this many times as long as they are together.
_RATIO = 6
#: Rows turned into columns at a time: while their values are still in the processor's cache.
_SLICE = 4096
#: So many rows are worth the short way of ``_fast``.
_FEW = 64


class FinishedTable:
    """The finished tasks one object has read so far, in completion order. Threads may share it.

    Tables handed out never change, whatever is added later or their holders do to them. Values
    stored apart are read once, when a table first contains their column.
    """

    def __init__(self, resolve: Resolve | None = None) -> None:
        self._resolve = resolve
        self._lock = threading.RLock()
        self._reset()

    def _reset(self) -> None:
        self._n = 0
        self._new: list[Sequence[Any]] = []
        self._blocks: list[Block] = []
        self._schema: Schema = schema_of(finished_kinds())
        self._full: pl.DataFrame | None = None
        self._full_schema: Schema | None = None
        self._joined = 0
        self._few: FewRows | None = None
        self._constants: dict[Any, pl.Series] = {}

    def __len__(self) -> int:
        return self._n

    def extend(self, rows: Sequence[Sequence[Any]], *, pack: bool = False) -> None:
        """Add decoded rows (``_records.Row``), which are the table's from now on.

        ``pack`` turns them into columns at once: for long reads in slices, so that the Python values
        of no more than a slice exist at a time. It imports polars.
        """
        with self._lock:
            self._new.extend(rows)
            self._n += len(rows)
            if pack:
                self._seal(packed=True)

    def clear(self) -> None:
        """Forget everything; tables handed out stay."""
        with self._lock:
            self._reset()

    def table(self, as_: str = "polars", fields: Sequence[str] | None = None, start: int = 0) -> Any:
        """The finished tasks from row ``start`` on; only ``fields``, where given. Raises ConfigError."""
        check_request(as_, fields)
        with self._lock:
            self._seal(packed=as_ not in ("dicts", "tasks"))
            parts = self._parts(start)
            self._load(parts, None if as_ == "tasks" else fields, self._wide(self._schema))
            if as_ == "tasks":
                with gc_paused(self._n - start):
                    return [task for block, offset in parts for task in block_tasks(block, offset)]
            schema = self._wide(self._schema)

            def frame() -> pl.DataFrame:
                whole = self._stack()
                return whole.slice(start) if start else whole.clone()

            return render(Sheet(schema, parts, max(self._n - start, 0), frame), as_, fields)

    def table_with(
        self,
        others: Sequence[StatedRow],
        as_: str = "polars",
        fields: Sequence[str] | None = None,
        *,
        conditions: bool | None = None,
    ) -> Any:
        """The finished tasks and these others, with a column ``state``.

        Queued and running ones come first, failed ones last. ``conditions`` adds the columns of
        failed tasks (None: when there are any).
        """
        check_request(as_, fields)
        with self._lock:
            self._seal(packed=as_ not in ("dicts", "tasks"))
            early = [stated for stated in others if stated.state is not TaskState.FAILED]
            late = [stated for stated in others if stated.state is TaskState.FAILED]
            if as_ == "tasks":
                finished = self.table("tasks")
                tasks = _tasks(early + late, self._resolve)
                return [*tasks[: len(early)], *finished, *tasks[len(early) :]]
            before, after = ([stated_block(rows)] if rows else [] for rows in (early, late))
            around = [*before, *after]
            if conditions is None:
                conditions = bool(late)
            parts = [(block, 0) for block in (*before, *self._blocks, *after)]
            self._load(parts, fields, _mixed(self._wide(self._schema), around, conditions))
            own = self._wide(self._schema)
            schema = _mixed(own, around, conditions)

            def frame() -> pl.DataFrame:
                whole = self._restated(schema) if self._blocks else None
                frames = [*(show(b, schema) for b in before), whole, *(show(b, schema) for b in after)]
                return _stacked([frame for frame in frames if frame is not None], schema)

            return render(Sheet(schema, parts, self._n + len(others), frame), as_, fields)

    def _parts(self, start: int) -> list[tuple[Block, int]]:
        """The blocks that have rows from ``start`` on, found from the end, and where in them to begin."""
        parts = []
        end = self._n
        for block in reversed(self._blocks):
            if end <= start:
                break
            begin = end - block.n
            parts.append((block, max(start - begin, 0)))
            end = begin
        return parts[::-1]

    def _seal(self, *, packed: bool) -> None:
        """Make a block of the rows that came since, and merge the blocks when they have become many."""
        rows = self._new
        if not rows:
            return
        block = self._few.block(rows) if packed and self._few and len(rows) <= _FEW else None
        if block is not None:
            self._blocks.append(block)
        else:
            with gc_paused(len(rows)):
                made = [block_of(rows[at : at + _SLICE], packed=packed) for at in range(0, len(rows), _SLICE)]
            self._blocks.extend(made)
        self._new = []
        if not packed and len(self._blocks) > _MAX_BLOCKS:
            self._compact()

    def _wide(self, schema: Schema) -> Schema:
        """The schema of all blocks so far; remembered, so that only new blocks are looked at."""
        for block in self._blocks:
            if block.schema is not schema or block.stale:
                schema = schema.widened(block.kinds)
        self._schema = schema
        return schema

    def _load(self, parts: Sequence[tuple[Block, int]], fields: Sequence[str] | None, schema: Schema) -> None:
        """Read the values stored apart that a table of these parts and fields contains."""
        blocks = [block for block, _ in parts]
        _load(blocks, None if fields is None else set(fields), schema, self._resolve)

    def _compact(self) -> None:
        first = len(self._blocks) - 1
        rows = self._blocks[first].n
        while first > 0 and self._blocks[first - 1].n < _RATIO * rows:
            first -= 1
            rows += self._blocks[first].n
        if first < len(self._blocks) - 1:
            self._blocks[first:] = [merge(self._blocks[first:])]
            self._full, self._joined = None, 0

    def _stack(self) -> pl.DataFrame:
        """All rows as one frame, which is the cache's own: nothing is copied but what is new."""
        schema = self._schema
        if self._full_schema is not schema:
            self._full, self._joined, self._full_schema = None, 0, schema
        for at, block in enumerate(self._blocks):
            if block.schema is not schema or block.stale:
                adopt(block, schema)
                if at < self._joined:
                    self._full, self._joined = None, 0
        if len(self._blocks) > _MAX_BLOCKS:
            self._compact()
        frames = [block.frame for block in self._blocks[self._joined :] if block.frame is not None]
        if self._full is not None:
            frames.insert(0, self._full)
        if self._full is None or len(frames) > 1:
            self._full = _stacked(frames, schema)
            self._joined = len(self._blocks)
        if self._few is None or self._few.schema is not schema:
            self._few = FewRows.of(schema)
        return self._full

    def _restated(self, schema: Schema) -> pl.DataFrame:
        """The finished tasks under the schema of a table of several states."""
        import polars as pl

        whole = self._stack()
        dtypes = whole.schema
        lengths = [block.n for block in self._blocks]
        series = []
        for column, kind in schema.kinds.items():
            name = schema.names[column]
            own = self._schema.names.get(column)
            if column == STATE:
                series.append(self._constant(str(TaskState.FINISHED), STR, name, lengths))
            elif own is None:
                series.append(self._constant(None, kind, name, lengths))
            elif dtypes[own] == dtype_of(kind):
                same = whole.get_column(own)
                series.append(same if own == name else same.alias(name))
            else:
                series.append(pl.concat([show_column(block, column, kind, name) for block in self._blocks]))
        return pl.DataFrame({column.name: column for column in series})

    def _constant(self, value: Any, kind: Kind, name: str, lengths: Sequence[int]) -> pl.Series:
        """A column of one value, cut from a longer one that is kept: as cheap for many rows as for few."""
        import polars as pl

        if kind.family == "object":
            return to_series(name, [value] * sum(lengths), kind)
        known = self._constants.get((value, kind))
        if known is None or len(known) < max(lengths):
            known = to_series("", [value], kind).new_from_index(0, 2 * max(lengths))
            self._constants[value, kind] = known
        return pl.concat([known.head(n) for n in lengths], rechunk=False).alias(name)


def _stacked(frames: Sequence[pl.DataFrame], schema: Schema) -> pl.DataFrame:
    import polars as pl

    if not frames:
        return pl.DataFrame(
            schema={schema.names[column]: dtype_of(kind) for column, kind in schema.kinds.items()}
        )
    whole = frames[0]
    for frame in frames[1:]:
        whole = whole.vstack(frame)
    return whole


def _mixed(schema: Schema, blocks: Sequence[Block], conditions: bool, *, state: bool = True) -> Schema:
    """What the schema and these blocks have, and the columns of states and conditions asked for."""
    asked = ((STATE,) if state else ()) + (CONDITION if conditions else ())
    left_out = {STATE, *CONDITION}.difference(asked)
    schema = schema.widened(dict.fromkeys(asked, STR))
    for block in blocks:
        schema = schema.widened({c: kind for c, kind in block.kinds.items() if c not in left_out})
    return schema


def _load(blocks: Sequence[Block], fields: set[str] | None, schema: Schema, resolve: Resolve | None) -> None:
    """Put values stored apart in their places, in the columns a table has; one call of ``resolve``."""
    wanted: list[tuple[Block, Column, list[Any]]] = []
    for block in blocks:
        if not block.spilled:
            continue
        for column, kind in block.kinds.items():
            if kind == SPILLED and (fields is None or schema.names[column] in fields):
                wanted.append((block, column, block.values(column)))
    references = [v for _, _, values in wanted for v in values if type(v) is Spilled]
    found = _resolved(references, resolve)
    for block, column, values in wanted:
        settle(block, column, [found.get(v) if type(v) is Spilled else v for v in values])


def _resolved(references: Sequence[Spilled], resolve: Resolve | None) -> dict[Spilled, Any]:
    """The value of each reference; each is asked for once. Without a reader it stands for itself."""
    distinct = list(dict.fromkeys(references))
    values: Sequence[Any] = distinct if resolve is None else resolve(distinct) if distinct else []
    return dict(zip(distinct, values, strict=True))


def build_table(
    rows: Sequence[StatedRow],
    as_: str = "polars",
    fields: Sequence[str] | None = None,
    *,
    resolve: Resolve | None = None,
    state_column: bool = True,
    conditions: bool | None = None,
) -> Any:
    """A table of these tasks, in the order given; ``conditions`` as in ``table_with``. Raises ConfigError."""
    check_request(as_, fields)
    if as_ == "tasks":
        return _tasks(rows, resolve)
    if conditions is None:
        conditions = any(stated.state is TaskState.FAILED for stated in rows)
    with gc_paused(len(rows)):
        blocks = [stated_block(rows)] if rows else []
    base = schema_of(finished_kinds())
    _load(
        blocks,
        None if fields is None else set(fields),
        _mixed(base, blocks, conditions, state=state_column),
        resolve,
    )
    schema = _mixed(base, blocks, conditions, state=state_column)

    def frame() -> pl.DataFrame:
        return _stacked([show(block, schema) for block in blocks], schema)

    return render(Sheet(schema, [(block, 0) for block in blocks], len(rows), frame), as_, fields)


def _tasks(rows: Sequence[StatedRow], resolve: Resolve | None) -> list[Task]:
    dicts = [part for stated in rows for at in SIDES if (part := stated.row[at])]
    found = _resolved([v for part in dicts for v in part.values() if type(v) is Spilled], resolve)
    if found:
        for part in dicts:
            part.update({name: found[v] for name, v in part.items() if type(v) is Spilled})
    return [to_task(stated.row, stated.state, stated.condition) for stated in rows]
