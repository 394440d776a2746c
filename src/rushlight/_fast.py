"""One new row that looks like those before it, straight into a frame.

The commonest fetch of a running search finds a single new task. Through the public constructors of
polars a row of 100 columns costs 600 us, through the ones underneath them 45; where a release has
them no longer, the caller's general way is taken. Decides nothing about what a column is.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._blocks import SIDES, Block, Schema
from ._columns import EXACT_FLOAT, Kind

if TYPE_CHECKING:
    import polars as pl

_FIXED = ("key", "worker_id", "created_at", "started_at", "finished_at")


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
class OneRow:
    """What is known beforehand of the next row under ``schema``."""

    schema: Schema
    keys: tuple[tuple[str, ...], ...]
    types: tuple[type | None, ...]
    #: Where integers stand that must stay exact as floats.
    narrow: tuple[int, ...]
    wide: tuple[int, ...]
    names: tuple[str, ...]
    makers: tuple[Callable[[str, list[Any], bool], Any], ...]
    frame_type: Callable[[list[Any]], Any]

    @classmethod
    def of(cls, schema: Schema) -> OneRow | None:
        """None where a column is of a kind that each value must be looked at for."""
        import polars as pl

        series, frame = getattr(pl.Series("", [0.0]), "_s", None), getattr(pl.DataFrame(), "_df", None)
        if series is None or frame is None or not hasattr(pl.DataFrame, "_from_pydf"):
            return None
        kinds = list(schema.kinds.values())
        makers = [_maker(type(series), kind) for kind in kinds]
        if any(maker is None for maker in makers):
            return None
        ints = [i for i, kind in enumerate(kinds) if kind.family == "int"]
        return cls(
            schema=schema,
            keys=tuple(
                tuple(name for group, name in schema.kinds if group == side) for side in range(len(SIDES))
            ),
            types=tuple(kind.type for kind in kinds),
            narrow=tuple(i for i in ints if not kinds[i].wide),
            wide=tuple(i for i in ints if kinds[i].wide),
            names=tuple(schema.names.values()),
            makers=tuple(maker for maker in makers if maker is not None),
            frame_type=type(frame),
        )

    def block(self, row: Sequence[Any]) -> Block | None:
        """The row as a block, or None where it is not like those before it."""
        import polars as pl

        dicts = [row[at] for at in SIDES]
        shape = tuple(None if part is None else tuple(part) for part in dicts)
        if tuple([names or () for names in shape]) != self.keys:
            return None
        values = [row[3]]
        for part in dicts:
            if part:
                values.extend(part.values())
        values.append(row[0])
        values.extend([at / 1e6 if at else None for at in (row[6], row[8], row[9])])
        if not self._alike(values):
            return None
        made = [
            make(name, [value], True)
            for make, name, value in zip(self.makers, self.names, values, strict=True)
        ]
        frame: pl.DataFrame = pl.DataFrame._from_pydf(self.frame_type(made))
        opts = [row[2]] if row[2] else None
        attempts, seqs = array("q", (row[1],)), array("q", (row[7],))
        return Block(1, self.schema.kinds, {}, [shape], None, attempts, seqs, opts, frame, self.schema)

    def _alike(self, values: Sequence[Any]) -> bool:
        none = type(None)
        types = tuple(map(type, values))
        pairs = zip(types, self.types, strict=True)
        if types != self.types and any(t is not known and t is not none for t, known in pairs):
            return False
        for i in self.narrow:
            if values[i] is not None and not -EXACT_FLOAT <= values[i] <= EXACT_FLOAT:
                return False
        return all(values[i] is None or -(2**63) <= values[i] < 2**63 for i in self.wide)
