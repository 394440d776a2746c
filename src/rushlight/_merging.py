"""Several blocks of rows as one.

Columns are joined one after the other, as Series wherever that loses nothing. Knows nothing of when
it is worth it.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ._blocks import Block, Column, Schema, Shape, nulls
from ._columns import NULL, SPILLED, Kind, dtype_of, join, packs, to_series

if TYPE_CHECKING:
    import polars as pl

#: Columns that polars extends without leaving them in pieces.
_IN_PLACE = frozenset({"float", "int", "bool", "date", "time", "datetime", "aware", "duration", "decimal"})


def merge(blocks: Sequence[Block], *, release: bool = False) -> Block:
    """One block of the rows of several, in order; their frames are joined where they have one schema.

    ``release``: nobody needs these blocks any more, so each column of theirs is let go as soon as it is
    joined: no more than one stands in memory twice.
    """
    if len(blocks) == 1:
        return blocks[0]
    kinds = _merge_kinds(blocks)
    shapes, shape_at = _merge_shapes(blocks)
    opts = None
    if any(block.opts for block in blocks):
        opts = [value for block in blocks for value in (block.opts or [None] * block.n)]
    attempts, seqs = array("q"), array("q")
    for block in blocks:
        attempts.extend(block.attempts)
        seqs.extend(block.seqs)
    merged = Block(len(attempts), kinds, {}, shapes, shape_at, attempts, seqs, opts)
    merged.spilled = any(block.spilled for block in blocks)
    shown: dict[Column, Kind] = {}
    schema = blocks[0].schema
    if schema is not None and all(b.frame is not None and b.schema is schema and not b.stale for b in blocks):
        merged.schema, merged.frame = schema, _merge_frames(blocks, schema)
        if kinds is schema.kinds and _all_pack(schema):
            return merged
        shown = schema.kinds
    for column, kind in kinds.items():
        framed = column in shown and packs(kind) and dtype_of(kind) == dtype_of(shown[column])
        if kind == NULL or framed:
            continue
        merged.cells[column] = _merge_column(blocks, column, kind)
        if release:
            for block in blocks:
                block.cells.pop(column, None)
    return merged


def _join_stored(known: Kind, kind: Kind) -> Kind:
    return SPILLED if SPILLED in (known, kind) else join(known, kind)


def _merge_kinds(blocks: Sequence[Block]) -> dict[Column, Kind]:
    """The kinds of all; the same object where all have the same."""
    kinds = known = blocks[0].kinds
    for block in blocks[1:]:
        if block.kinds is not known:
            kinds = dict(kinds) if kinds is known else kinds
            for column, kind in block.kinds.items():
                kinds[column] = _join_stored(kinds.get(column, NULL), kind)
    return kinds


@functools.lru_cache(maxsize=4)
def _all_pack(schema: Schema) -> bool:
    """Whether a frame gives back all columns exactly."""
    return all(map(packs, schema.kinds.values()))


def _merge_frames(blocks: Sequence[Block], schema: Schema) -> pl.DataFrame:
    import polars as pl

    frames = [block.frame for block in blocks if block.frame is not None]
    if any(kind.family == "object" for kind in schema.kinds.values()):
        return pl.concat(frames, rechunk=True)
    # Many times faster for small frames, as it keeps to this thread.
    whole = frames[0].clone()
    for frame in frames[1:]:
        whole.extend(frame)
    for at, kind in enumerate(schema.kinds.values()):
        if kind.family not in _IN_PLACE and (column := whole.to_series(at)).n_chunks() > 1:
            whole.replace_column(at, column.rechunk())
    return whole


def _merge_column(blocks: Sequence[Block], column: Column, kind: Kind) -> list[Any] | pl.Series:
    kept = [block.stored(column) for block in blocks]
    listed = any(isinstance(values, list) for values in kept)
    if packs(kind) and not listed:
        import polars as pl

        series = [
            values if isinstance(values, pl.Series) else nulls("", block.n, kind)
            for block, values in zip(blocks, kept, strict=True)
        ]
        if {one.dtype for one in series} == {dtype_of(kind)}:
            return pl.concat(series, rechunk=True).alias(column[1])
    return list(chain.from_iterable(block.values(column) for block in blocks))


def _merge_shapes(blocks: Sequence[Block]) -> tuple[list[Shape], array[int] | None]:
    numbers: dict[Shape, int] = {}
    for block in blocks:
        for shape in block.shapes:
            numbers.setdefault(shape, len(numbers))
    if len(numbers) == 1:
        return list(numbers), None
    shape_at = array("I")
    for block in blocks:
        at = [numbers[shape] for shape in block.shapes]
        shape_at.extend([at[0]] * block.n if block.shape_at is None else [at[i] for i in block.shape_at])
    return list(numbers), shape_at


def stacked(frames: Sequence[pl.DataFrame], schema: Schema) -> pl.DataFrame:
    """The frames, all of this schema, as one of several pieces: nothing is copied."""
    import polars as pl

    if not frames:
        return pl.DataFrame(
            schema={schema.names[column]: dtype_of(kind) for column, kind in schema.kinds.items()}
        )
    whole = frames[0]
    for frame in frames[1:]:
        whole = whole.vstack(frame)
    return whole


class Constants:
    """Columns of one value, cut from longer ones that are kept: as cheap for many rows as for few."""

    def __init__(self) -> None:
        self._kept: dict[Any, pl.Series] = {}

    def column(self, value: Any, kind: Kind, name: str, lengths: Sequence[int]) -> pl.Series:
        """One in pieces of these lengths."""
        if kind.family == "object":
            return to_series(name, [value] * sum(lengths), kind)
        known = self._kept.get((value, kind))
        if known is None or len(known) < max(lengths):
            known = to_series("", [value], kind).new_from_index(0, 2 * max(lengths))
            self._kept[value, kind] = known
        made = known.head(lengths[0]).alias(name)
        for n in lengths[1:]:
            made.append(known.head(n))
        return made
