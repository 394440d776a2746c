"""A few new rows that bring nothing new, straight into a frame.

The commonest fetch of a running search finds one new task or a handful. Through the public
constructors of polars a row of 100 columns costs 600 us, through the ones underneath them 45; where
a release has them no longer, the caller's general way is taken. Decides nothing about what a
column is: rows that would widen the schema are left to the general way.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._blocks import SIDES, Block, Column, Schema, Shape
from ._columns import EXACT_FLOAT, SPILLED, Kind, join, kind_of, packs, to_series

if TYPE_CHECKING:
    import polars as pl


def _maker(series: Any, kind: Kind) -> Callable[[str, list[Any], bool], Any] | None:
    """The constructor of one column, for values that need neither a look nor a conversion."""
    plain: dict[type | None, str] = {
        float: "new_opt_f64",
        int: "new_opt_i64",
        bool: "new_opt_bool",
        str: "new_str",
    }
    name = plain.get(kind.type)
    if kind.family == "float" and kind.type is not None and kind.type.__name__ == "float64":
        name = "new_opt_f64"
    return getattr(series, name, None) if name else None


@dataclass(frozen=True, slots=True, eq=False)
class FewRows:
    """What is known beforehand of the next rows under ``schema``."""

    schema: Schema
    keys: tuple[tuple[str, ...], ...]
    #: The one type of each column's values; None where each value must be looked at.
    types: tuple[type | None, ...]
    #: Where integers stand, and the largest that changes nothing.
    integers: tuple[tuple[int, int], ...]
    makers: tuple[Callable[[str, list[Any], bool], Any] | None, ...]
    columns: tuple[tuple[Column, str, Kind], ...]
    frame_type: Callable[[list[Any]], Any]

    @classmethod
    def of(cls, schema: Schema) -> FewRows | None:
        """None where polars lacks what this needs, or values of a column have not been read yet."""
        import polars as pl

        series, frame = getattr(pl.Series("", [0.0]), "_s", None), getattr(pl.DataFrame(), "_df", None)
        kinds = tuple(schema.kinds.values())
        if series is None or frame is None or not hasattr(pl.DataFrame, "_from_pydf") or SPILLED in kinds:
            return None
        makers = tuple(_maker(type(series), kind) for kind in kinds)
        return cls(
            schema=schema,
            keys=tuple(
                tuple(name for group, name in schema.kinds if group == side) for side in range(len(SIDES))
            ),
            types=tuple(kind.type if make else None for kind, make in zip(kinds, makers, strict=True)),
            integers=tuple(
                (i, 2**63 - 1 if kind.wide else EXACT_FLOAT)
                for i, (kind, make) in enumerate(zip(kinds, makers, strict=True))
                if make and kind.family == "int"
            ),
            makers=makers,
            columns=tuple((column, schema.names[column], kind) for column, kind in schema.kinds.items()),
            frame_type=type(frame),
        )

    def block(self, rows: Sequence[Sequence[Any]]) -> Block | None:
        """The rows as a block, or None where one would change the schema."""
        import polars as pl

        shapes: dict[Shape, int] = {}
        shape_at = array("I")
        listed = []
        for row in rows:
            values = self._values(row)
            if values is None:
                return None
            listed.append(values)
            shape = tuple([None if (part := row[at]) is None else tuple(part) for at in SIDES])
            shape_at.append(shapes.setdefault(shape, len(shapes)))
        cells: dict[Column, list[Any] | pl.Series] = {}
        try:
            made = self._series([*map(list, zip(*listed, strict=True))], cells)
        except UnicodeEncodeError:
            return None
        if made is None:
            return None
        opts = [row[2] for row in rows]
        return Block(
            n=len(rows),
            kinds=self.schema.kinds,
            cells=cells,
            shapes=list(shapes),
            shape_at=shape_at if len(shapes) > 1 else None,
            attempts=array("q", [row[1] for row in rows]),
            seqs=array("q", [row[7] for row in rows]),
            opts=opts if any(opts) else None,
            frame=pl.DataFrame._from_pydf(self.frame_type(made)),
            schema=self.schema,
        )

    def _values(self, row: Sequence[Any]) -> list[Any] | None:
        """The row in the order of the schema; None with a column or a type the schema has not."""
        values = [row[3]]
        for at, keys in zip(SIDES, self.keys, strict=True):
            part = row[at] or {}
            if tuple(part) == keys:
                values.extend(part.values())
            elif sum(map(part.__contains__, keys)) == len(part):
                values.extend(map(part.get, keys))
            else:
                return None
        values.append(row[0])
        values.extend([at / 1e6 if at else None for at in (row[6], row[8], row[9])])
        none = type(None)
        types = tuple(map(type, values))
        pairs = zip(types, self.types, strict=True)
        if types != self.types and any(t is not known and t is not none and known for t, known in pairs):
            return None
        for i, limit in self.integers:
            if values[i] is not None and not -limit <= values[i] <= limit:
                return None
        return values

    def _series(self, listed: list[list[Any]], cells: dict[Column, Any]) -> list[Any] | None:
        made = []
        for values, make, (column, name, kind) in zip(listed, self.makers, self.columns, strict=True):
            if make is not None:
                made.append(make(name, values, True))
                continue
            own = kind_of(values)
            if own == SPILLED or join(own, kind) != kind:
                return None
            made.append(to_series(name, values, kind)._s)
            if not packs(kind):
                cells[column] = values
        return made
