"""The newest rows, where they bring nothing new: one block that grows row by row.

The commonest fetch of a running search finds one new task or a handful. Through the public
constructors of polars a row of 100 columns costs 600 us, through the ones underneath them 45; where
a release has them no longer, the caller's general way is taken. Decides nothing about what a
column is: rows that would widen the schema are left to the general way.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import call
from typing import TYPE_CHECKING, Any

import msgspec
import msgspec.structs

from ._blocks import SIDES, Block, Column, Schema, Shape
from ._columns import EXACT_FLOAT, FLOAT, SPILLED, Kind, join, kind_of, maker, packs, to_series
from ._record_decoder import Names, names_in

if TYPE_CHECKING:
    import polars as pl

_XS = SIDES[0]


def _maker(kind: Kind) -> Callable[[str, list[Any], bool], Any] | None:
    """The constructor of one column, for values that need neither a look nor a conversion."""
    if kind.family == "float" and kind.type is not None and kind.type.__name__ == "float64":
        return maker(FLOAT)
    return maker(kind)


@dataclass(frozen=True, slots=True, eq=False)
class FewRows:
    """What is known beforehand of the next rows under ``schema``."""

    schema: Schema
    keys: tuple[tuple[str, ...], ...]
    #: The shape and the names of a row that has a value in each column.
    shape: Shape
    names: Names
    #: The one type of each column's values; None where each value must be looked at.
    types: tuple[type | None, ...]
    #: Where integers stand, and the largest that changes nothing.
    integers: tuple[tuple[int, int], ...]
    makers: tuple[Callable[[str, list[Any], bool], Any] | None, ...]
    columns: tuple[tuple[Column, str, Kind], ...]
    titles: tuple[str, ...]
    #: The makers, where every column has one.
    plain: tuple[Callable[[str, list[Any], bool], Any], ...]
    frame_type: Callable[[list[Any]], Any]

    @classmethod
    def of(cls, schema: Schema) -> FewRows | None:
        """None where polars lacks what this needs, or values of a column have not been read yet."""
        import polars as pl

        frame = getattr(pl.DataFrame(), "_df", None)
        kinds = tuple(schema.kinds.values())
        if frame is None or not hasattr(pl.DataFrame, "_from_pydf") or maker(FLOAT) is None:
            return None
        if SPILLED in kinds:
            return None
        makers = tuple(map(_maker, kinds))
        keys = tuple(
            tuple(name for group, name in schema.kinds if group == side) for side in range(len(SIDES))
        )
        shape = tuple(names or None for names in keys)
        return cls(
            schema=schema,
            keys=keys,
            shape=shape,
            names=names_of(shape),
            types=tuple(kind.type if make else None for kind, make in zip(kinds, makers, strict=True)),
            integers=tuple(
                (i, 2**63 - 1 if kind.wide else EXACT_FLOAT)
                for i, (kind, make) in enumerate(zip(kinds, makers, strict=True))
                if make and kind.family == "int"
            ),
            makers=makers,
            columns=tuple((column, schema.names[column], kind) for column, kind in schema.kinds.items()),
            titles=tuple(schema.names.values()),
            plain=tuple(make for make in makers if make) if all(makers) else (),
            frame_type=type(frame),
        )

    def shape_of(self, row: Sequence[Any]) -> Shape:
        """Which keys a row has of which there are ``values``; where it has all, always the same object."""
        if isinstance(row[_XS], msgspec.Struct):
            return self.shape
        shape = tuple([None if (part := row[at]) is None else tuple(part) for at in SIDES])
        return self.shape if shape == self.shape else shape

    def values(self, row: Sequence[Any]) -> list[Any] | None:
        """The row in the order of the schema; None with a column or a type the schema has not, and for
        objects in the place of dicts that do not have all columns."""
        values = [row[3]]
        named = isinstance(row[_XS], msgspec.Struct)
        for at, keys in zip(SIDES, self.keys, strict=True):
            part = row[at]
            if named:
                if (() if part is None else names_in(part)) != keys:
                    return None
                if part is not None:
                    values += msgspec.structs.astuple(part)
            elif not part:
                values.extend([None] * len(keys))
            elif tuple(part) == keys:
                values.extend(part.values())
            elif sum(map(part.__contains__, keys)) == len(part):
                values.extend(map(part.get, keys))
            else:
                return None
        values.append(row[0])
        values.extend([at / 1e6 if at else None for at in (row[6], row[8], row[9])])
        none = type(None)
        types = tuple(map(type, values))
        if types != self.types:
            pairs = zip(types, self.types, strict=True)
            if any(t is not known and t is not none and known for t, known in pairs):
                return None
        for i, limit in self.integers:
            if values[i] is not None and not -limit <= values[i] <= limit:
                return None
        return values


def names_of(shape: Shape) -> Names:
    """A row's names in the order of a record."""
    xs, ys, xs_extra, ys_extra = shape
    return xs, xs_extra, ys, ys_extra


class Tail:
    """The newest rows as columns, up to ``SIZE`` of them, as making these anew each time costs more and
    more. ``take`` adds some, ``block`` shows all of them."""

    SIZE = 24

    __slots__ = ("_attempts", "_lists", "_opts", "_seqs", "_shape_at", "_shapes", "few", "n", "whole")

    def __init__(self, few: FewRows) -> None:
        self.few = few
        self.n = 0
        #: Whether the last row had a value in each column.
        self.whole = False
        self._lists: list[list[Any]] = [[] for _ in few.columns]
        self._shapes: dict[Shape, int] = {}
        self._shape_at = array("I")
        self._attempts = array("q")
        self._seqs = array("q")
        self._opts: list[Any] = []

    def next(self) -> Tail:
        """The one behind it, when this is full."""
        tail = Tail(self.few)
        tail.whole = self.whole
        return tail

    def take(self, rows: Sequence[Sequence[Any]]) -> bool:
        """False, and nothing is added, where one of them would change the schema."""
        listed = [self.few.values(row) for row in rows]
        if None in listed:
            return False
        for row, values in zip(rows, listed, strict=True):
            # A loop in C: there may be hundreds of columns.
            deque(map(list.append, self._lists, values or ()), maxlen=0)
            shape = self.few.shape_of(row)
            self.whole = shape is self.few.shape
            self._shape_at.append(self._shapes.setdefault(shape, len(self._shapes)))
            self._attempts.append(row[1])
            self._seqs.append(row[7])
            self._opts.append(row[2])
        self.n += len(rows)
        return True

    def block(self) -> Block | None:
        """All rows so far; None where a column would change the schema, or polars has no form for a text."""
        import polars as pl

        few = self.few
        cells: dict[Column, list[Any] | pl.Series] = {}
        try:
            made: list[Any] | None
            if few.plain:
                made = list(map(call, few.plain, few.titles, self._lists, repeat(True)))
            else:
                made = self._columns(cells)
        except UnicodeEncodeError:
            return None
        if made is None:
            return None
        return Block(
            n=self.n,
            kinds=few.schema.kinds,
            cells=cells,
            shapes=list(self._shapes),
            shape_at=self._shape_at[:] if len(self._shapes) > 1 else None,
            attempts=self._attempts[:],
            seqs=self._seqs[:],
            opts=self._opts.copy() if any(self._opts) else None,
            frame=pl.DataFrame._from_pydf(few.frame_type(made)),
            schema=few.schema,
        )

    def _columns(self, cells: dict[Column, list[Any] | pl.Series]) -> list[Any] | None:
        """Each column; ``cells`` gets those that their polars form does not hold exactly."""
        few = self.few
        made = []
        for values, make, (column, name, kind) in zip(self._lists, few.makers, few.columns, strict=True):
            if make is not None:
                made.append(make(name, values, True))
                continue
            own = kind_of(values)
            if own == SPILLED or join(own, kind) != kind:
                return None
            made.append(to_series(name, values, kind)._s)
            if not packs(kind):
                cells[column] = values.copy()
        return made
