"""Tables of tasks and workers: the cache of finished tasks, and one-off tables of any states.

A fetch costs what is new: rows become small blocks, blocks are merged like the levels of a
log-structured tree, and a table is the blocks' frames stacked without copying them. Never talks to
a server; values that were stored apart are read through the ``resolve`` it is given.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from ._blocks import (
    KEY,
    SIDES,
    STATE,
    Block,
    Schema,
    Stated,
    StatedRow,
    adopt,
    block_of,
    finished_kinds,
    gc_paused,
    mixed,
    schema_of,
    show,
    show_column,
    stated_block,
)
from ._codec import Spilled
from ._columns import dtype_of, frame_of
from ._fast import FewRows, Tail, names_of
from ._forms import Sheet, block_tasks, check_request, log_table, render, to_task, usage_table, worker_table
from ._holes import Holes
from ._merging import Constants, merge, stacked
from ._record_decoder import Names, with_dicts
from ._records import Task, TaskState
from ._spilled import Resolve, load, resolved, with_values

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "FinishedTable",
    "StatedRow",
    "build_table",
    "check_request",
    "log_table",
    "to_task",
    "usage_table",
    "worker_table",
]

#: A block is merged with the one before it, unless that one is so many times as long: so blocks are few, and
#: a row is copied seldom.
_RATIO = 8
#: Blocks this long stay as they are: another would cost less at each fetch than one copy of them.
_LONG = 1 << 18
#: Rows turned into columns at a time: while their values are still in the processor's cache.
_SLICE = 4096
#: So many rows at once are a block, fewer are worth the short way of ``_fast``.
_MANY = 64


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
        #: What was removed from between the rows.
        self.holes = Holes()
        #: What waits for a table: blocks of large additions, and behind them rows of small ones.
        self._made: list[Block] = []
        self._new: list[Sequence[Any]] = []
        self._blocks: list[Block] = []
        #: What the last block grows from; None where it is done. And what it was before, to be let go.
        self._tail: Tail | None = None
        self._spent: Block | None = None
        self._few: FewRows | None = None
        #: Whether all blocks are shown under the schema, and nothing in them is to be read or copied.
        self._settled = False
        self._schema: Schema = schema_of(finished_kinds())
        #: The first blocks as one frame; how many they are, and under which schema.
        self._base: pl.DataFrame | None = None
        self._based: tuple[int, Schema] | None = None
        self._constants = Constants()
        self._last_mixed: tuple[Any, Schema] | None = None

    def __len__(self) -> int:
        return self._n

    def extend(self, rows: Sequence[Sequence[Any]], *, pack: bool = False, many: bool = False) -> None:
        """Add decoded rows (``_records.Row``), which are the table's from now on.

        Many become columns at once, so that no more of them than a slice exist as Python values at a time;
        ``pack`` says of which kind, and imports polars: for a table that is none of lists. ``many``: these
        are some of many, and may be what ``Codec.decode_records`` makes of ``names``.
        """
        with self._lock:
            if not many and len(rows) <= _MANY and len(self._new) + len(rows) < _SLICE:
                if rows and self._new and type(rows[0][4]) is not type(self._new[0][4]):
                    self._new, rows = with_dicts(self._new), with_dicts(rows)
                self._new.extend(rows)
            else:
                made = self._made_new(pack=pack)
                with gc_paused(len(rows)):
                    for at in range(0, len(rows), _SLICE):
                        made.append(block_of(rows[at : at + _SLICE], packed=pack))
                self._made, self._new = made, []
                if sum(block.n for block in made) >= _LONG:
                    # Now, as memory it frees is good for the next ones.
                    self._seal(packed=pack)
            self._n += len(rows)

    def names(self, *, few: bool = False) -> Names | None:
        """The names that xs, xs_extra, ys and ys_extra had in all of the last large addition; where the next
        is of ``few``, those that all columns together make, if the last rows had them."""
        with self._lock:
            if few:
                tail = self._tail
                return tail.few.names if tail is not None and tail.whole else None
            if not self._made or len(self._made[-1].shapes) != 1:
                return None
            return names_of(self._made[-1].shapes[0])

    def _made_new(self, *, pack: bool) -> list[Block]:
        """What waits for a table, as blocks."""
        return [*self._made, *([block_of(self._new, packed=pack)] if self._new else ())]

    def keys(self, start: int = 0) -> list[str]:
        """The keys from row ``start`` on."""
        with self._lock:
            found = [key for block, at in self._parts(start) for key in block.values(KEY, at)]
            return found + [row[3] for row in self._new[max(0, start - self._n + len(self._new)) :]]

    def seqs(self) -> list[int]:
        """The number of each task in the order of creation."""
        with self._lock:
            found = [seq for block, _ in self._parts(0) for seq in block.seqs]
            return found + [row[7] for row in self._new]

    def clear(self) -> None:
        """Forget everything; tables handed out stay."""
        with self._lock:
            self._reset()

    def table(self, as_: str = "polars", fields: Sequence[str] | None = None, start: int = 0) -> Any:
        """The finished tasks from row ``start`` on; only ``fields``, where given. Raises ConfigError."""
        check_request(as_, fields)
        with self._lock:
            self._seal(packed=as_ not in ("dicts", "tasks"))
            if self._settled and as_ == "polars" and fields is None:
                return self._frame(start)
            parts = self._parts(start)
            self._load(parts, None if as_ == "tasks" else fields, self._wide(self._schema))
            if as_ == "tasks":
                with gc_paused(self._n - start):
                    return [task for block, offset in parts for task in block_tasks(block, offset)]
            schema = self._wide(self._schema)

            def frame() -> pl.DataFrame:
                self._adopt()
                return self._frame(start)

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
            early, late = Stated.of(others).failed_apart()
            if as_ == "tasks":
                finished = self.table("tasks")
                tasks = _tasks([*early, *late], self._resolve)
                return [*tasks[: len(early)], *finished, *tasks[len(early) :]]
            before, after = ([stated_block(rows)] if rows else [] for rows in (early, late))
            around = [*before, *after]
            if conditions is None:
                conditions = bool(late)
            parts = [(block, 0) for block in (*before, *self._blocks, *after)]
            schema = self._mixed(around, conditions)
            if any(block.spilled for block, _ in parts):
                self._load(parts, fields, schema)
                schema = self._mixed(around, conditions)

            def frame() -> pl.DataFrame:
                whole = self._restated(schema) if self._blocks else None
                frames = [*(show(b, schema) for b in before), whole, *(show(b, schema) for b in after)]
                return stacked([frame for frame in frames if frame is not None], schema)

            return render(Sheet(schema, parts, self._n + len(others), frame), as_, fields)

    def _parts(self, start: int) -> list[tuple[Block, int]]:
        """The blocks that have rows from ``start`` on, found from the end, and where in them to begin."""
        parts = []
        end = self._n - len(self._new)
        for block in chain(reversed(self._made), reversed(self._blocks)):
            if end <= start:
                break
            begin = end - block.n
            parts.append((block, max(start - begin, 0)))
            end = begin
        return parts[::-1]

    def _seal(self, *, packed: bool) -> None:
        """Make blocks of all rows that came since."""
        if not self._made and (not self._new or (packed and self._grow(self._new))):
            return
        made = self._made_new(pack=packed)
        self._tail, self._settled = None, False
        # What came in large additions has nobody else that needs it: should this fail, it is read again.
        self._made, self._new = [], []
        try:
            block = merge(made, release=True)
        except BaseException:
            self._reset()
            raise
        self._blocks.append(block)
        if not packed:
            self._compact()

    def _grow(self, rows: list[Sequence[Any]]) -> bool:
        """Add the rows to the block that grows; False where they must go the general way."""
        tail = self._tail
        if self._few is None or len(rows) > _MANY:
            return False
        if tail is None or tail.few is not self._few or tail.n >= Tail.SIZE:
            tail = Tail(self._few)
        before = tail.n
        block = tail.block() if tail.take(rows) else None
        if block is None:
            self._tail = None
            return False
        blocks = self._blocks.copy()
        if before:
            self._spent = blocks.pop()
        blocks.append(block)
        self._blocks, self._tail, self._new = blocks, tail, []
        return True

    def make_ready(self) -> None:
        """What can be done before the next rows are here, so that they need not wait for it."""
        with self._lock:
            self._spent = None
            if self._tail is not None and self._tail.n >= Tail.SIZE:
                self._tail = self._tail.next()
                if self._settled:
                    self._lay_base()

    def _wide(self, schema: Schema) -> Schema:
        """The schema of all blocks so far; remembered, so that only new blocks are looked at."""
        for block in self._blocks:
            if block.schema is not schema or block.stale:
                schema = schema.widened(block.kinds)
        self._schema = schema
        return schema

    def _mixed(self, around: Sequence[Block], conditions: bool) -> Schema:
        """The schema of all blocks and these; the last one is remembered, as the next is often the same."""
        asked = (self._wide(self._schema), [block.kinds for block in around], conditions)
        if self._last_mixed is None or self._last_mixed[0] != asked:
            self._last_mixed = asked, mixed(asked[0], around, conditions)
        return self._last_mixed[1]

    def _load(self, parts: Sequence[tuple[Block, int]], fields: Sequence[str] | None, schema: Schema) -> None:
        """Read the values stored apart that a table of these parts and fields contains."""
        blocks = [block for block, _ in parts]
        load(blocks, None if fields is None else set(fields), schema, self._resolve)

    def _compact(self, keep: int = 0) -> None:
        """Merge blocks, but the last ``keep``, so that each is much longer than the one behind it."""
        end = len(self._blocks) - keep
        first, rows = end - 1, self._blocks[end - 1].n if end else 0
        while first > 0 and (before := self._blocks[first - 1].n) < min(_RATIO * rows, _LONG):
            first -= 1
            rows += before
        if first < end - 1:
            self._blocks = [*self._blocks[:first], merge(self._blocks[first:end]), *self._blocks[end:]]

    def _adopt(self) -> None:
        """Show every block under the schema of all."""
        schema = self._schema
        for block in self._blocks:
            if block.schema is not schema or block.stale:
                adopt(block, schema)
                self._based = None
        if self._few is None or self._few.schema is not schema:
            self._few = FewRows.of(schema)
        self._settled = not schema.mutable and not any(block.spilled for block in self._blocks)

    def _frame(self, start: int) -> pl.DataFrame:
        """The rows from ``start`` on, for somebody who may change the frame."""
        if not start:
            return self._stack()
        frames = [block.frame.slice(at) for block, at in self._parts(start) if block.frame is not None]
        return stacked(frames, self._schema)

    def _stack(self) -> pl.DataFrame:
        """All rows as one new frame; nothing is copied but what is new."""
        growing = int(self._tail is not None and self._tail.n > 0)
        base = self._lay_base(growing)
        newest = self._blocks[-1].frame if growing else None
        if base is not None and newest is not None:
            return base.vstack(newest)
        return cast("pl.DataFrame", base if newest is None else newest).clone()

    def _lay_base(self, growing: int = 0) -> pl.DataFrame | None:
        """All blocks but those that grow (the last, or none) as one frame, if there are any."""
        if self._based != (len(self._blocks) - growing, self._schema):
            self._compact(growing)
            n = len(self._blocks) - growing
            frames = [block.frame for block in self._blocks[:n] if block.frame is not None]
            self._base = stacked(frames, self._schema) if n or not growing else None
            self._based = (n, self._schema)
        return self._base

    def _restated(self, schema: Schema) -> pl.DataFrame:
        """The finished tasks under the schema of a table of several states."""
        import polars as pl

        self._adopt()
        own = self._schema
        frame = self._stack()
        if any(schema.names[column] != name for column, name in own.names.items()):
            frame = frame_of([frame.get_column(own.names[c]).alias(schema.names[c]) for c in own.kinds])
        lengths = [block.n for block in self._blocks]
        for at, (column, kind) in enumerate(schema.kinds.items()):
            name = schema.names[column]
            if column not in own.kinds:
                value = str(TaskState.FINISHED) if column == STATE else None
                frame.insert_column(at, self._constants.column(value, kind, name, lengths))
            elif own.kinds[column] != kind and dtype_of(own.kinds[column]) != dtype_of(kind):
                shown = [show_column(block, column, kind, name) for block in self._blocks]
                frame.replace_column(at, pl.concat(shown))
        return frame


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
    stated = Stated.of(rows)
    if conditions is None:
        conditions = TaskState.FAILED in stated.states
    with gc_paused(len(rows)):
        blocks = [stated_block(stated)] if rows else []
    base = schema_of(finished_kinds())
    load(
        blocks,
        None if fields is None else set(fields),
        mixed(base, blocks, conditions, state=state_column),
        resolve,
    )
    schema = mixed(base, blocks, conditions, state=state_column)

    def frame() -> pl.DataFrame:
        return stacked([show(block, schema) for block in blocks], schema)

    return render(Sheet(schema, [(block, 0) for block in blocks], len(rows), frame), as_, fields)


def _tasks(rows: Sequence[StatedRow], resolve: Resolve | None) -> list[Task]:
    dicts = [part for stated in rows for at in SIDES if (part := stated.row[at])]
    found = resolved([v for part in dicts for v in part.values() if type(v) is Spilled], resolve)
    return [to_task(with_values(one.row, found), one.state, one.condition) for one in rows]
