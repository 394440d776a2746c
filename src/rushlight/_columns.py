"""What a column of task values holds: its kind, how kinds join as data grows, and its polars form.

A kind says which exact types the values of one column have, so that a column can be kept as a
polars Series whenever that loses nothing, and as a list of the values themselves otherwise. Joining
is commutative and associative: a table does not depend on how its rows were cut into batches.
Never looks at tasks or rows, and imports polars only when a Series is asked for.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from ._codec import Spilled

if TYPE_CHECKING:
    import polars as pl

#: Integers up to here are exact as a float; a column that mixes larger ones with floats keeps its objects.
EXACT_FLOAT = 2**53
_INT64 = 2**63
#: Digits a polars Decimal can hold.
_DECIMAL_DIGITS = 38
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)

_NUMPY_FLOATS = {"float64": "Float64", "float32": "Float32", "float16": "Float32"}
_NUMPY_INTS = {f"int{b}": f"Int{b}" for b in (8, 16, 32, 64)} | {
    f"uint{b}": f"UInt{b}" for b in (8, 16, 32, 64)
}
_NUMPY_BOOLS = {"bool": "Boolean", "bool_": "Boolean"}
_ARRAY_ELEMENTS = {**_NUMPY_FLOATS, **_NUMPY_INTS, **_NUMPY_BOOLS}

#: Types whose values nobody can change: handing out the same object twice is safe.
ATOMS: frozenset[type] = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, Decimal, Fraction, UUID}
    | {dt.datetime, dt.date, dt.time, dt.timedelta, dt.timezone, Spilled}
)


class Kind(NamedTuple):
    """What the values of a column are; None (missing) belongs to every kind.

    ``type`` is their one exact type, None where they have several. ``wide`` marks integers that a
    float cannot hold, and objects among which some can be changed in place. ``inner`` is the kind
    of a list's elements; ``param`` the dtype of arrays, the zone of times, the digits of decimals.
    """

    family: str
    type: type | None = None
    wide: bool = False
    inner: Kind | None = None
    param: Any = None


NULL = Kind("null")
OBJECT = Kind("object")
MUTABLE = Kind("object", wide=True)
SPILLED = Kind("spilled")
FLOAT = Kind("float", float)
INT = Kind("int", int)
WIDE_INT = Kind("int", int, wide=True)
BOOL = Kind("bool", bool)
STR = Kind("str", str)

_SCALARS: dict[type, Kind] = {float: FLOAT, bool: BOOL, bytes: Kind("bytes", bytes)}
#: Families whose polars form gives back exactly what went in, when all values have one plain type.
_LOSSLESS = frozenset({"float", "int", "bool", "str", "bytes", "date", "datetime", "time", "duration"})
_LISTED = frozenset({"null", "float", "int", "bool", "str", "bytes", "list"})


_MAKERS: dict[type | None, str] = {
    float: "new_opt_f64", int: "new_opt_i64", bool: "new_opt_bool", str: "new_str",
}  # fmt: skip


def _range_kind(family: str, value_type: type, low: int, high: int) -> Kind:
    if low < -_INT64 or high >= (2 * _INT64 if value_type.__name__ == "uint64" else _INT64):
        return OBJECT
    return Kind(family, value_type, wide=low < -EXACT_FLOAT or high > EXACT_FLOAT)


def _of_ints(values: Sequence[Any]) -> Kind:
    low, high = min(values), max(values)
    if low >= -EXACT_FLOAT and high <= EXACT_FLOAT:
        return INT
    return WIDE_INT if low >= -_INT64 and high < _INT64 else OBJECT


def _of_texts(values: Sequence[str]) -> Kind:
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        return OBJECT  # lone surrogates, which no library's string type holds
    return STR


def _of_datetimes(values: Sequence[dt.datetime]) -> Kind:
    zones = {value.tzinfo for value in values}
    if zones == {None}:
        return Kind("datetime", dt.datetime)
    if None in zones:
        return OBJECT
    keys = {getattr(zone, "key", None) or "UTC" for zone in zones}
    return Kind("aware", param=keys.pop() if len(keys) == 1 else "UTC")


def _of_times(values: Sequence[dt.time]) -> Kind:
    return OBJECT if any(value.tzinfo for value in values) else Kind("time", dt.time)


def _of_durations(values: Sequence[dt.timedelta]) -> Kind:
    limit = dt.timedelta(microseconds=_INT64 - 1)
    return Kind("duration", dt.timedelta) if -limit <= min(values) and max(values) <= limit else OBJECT


def _of_decimals(values: Sequence[Decimal]) -> Kind:
    if not all(value.is_finite() for value in values):
        return OBJECT
    parts = [value.as_tuple() for value in values]
    whole = max(max(len(part.digits) + int(part.exponent), 0) for part in parts)
    scale = max(max(-int(part.exponent), 0) for part in parts)
    return Kind("decimal", Decimal, param=(whole, scale)) if 0 < whole + scale <= _DECIMAL_DIGITS else OBJECT


def _of_lists(values: Sequence[list[Any]]) -> Kind:
    inner = kind_of(list(chain.from_iterable(values)))
    return Kind("list", list, inner=inner) if inner.family in _LISTED else MUTABLE


_BY_TYPE: dict[type, Callable[[Sequence[Any]], Kind]] = {
    int: _of_ints,
    str: _of_texts,
    list: _of_lists,
    dt.datetime: _of_datetimes,
    dt.date: lambda _: Kind("date", dt.date),
    dt.time: _of_times,
    dt.timedelta: _of_durations,
    Decimal: _of_decimals,
}


def _of_numpy(value_type: type, values: Sequence[Any]) -> Kind:
    name = value_type.__name__
    if name == "ndarray":
        dtypes = {
            value.dtype.str for value in values if value.ndim == 1 and value.dtype.name in _ARRAY_ELEMENTS
        }
        uniform = len(dtypes) == 1 and all(value.ndim == 1 for value in values)
        return Kind("array", value_type, param=dtypes.pop()) if uniform else MUTABLE
    if name in _NUMPY_FLOATS:
        return Kind("float", value_type)
    if name in _NUMPY_INTS:
        return _range_kind("int", value_type, int(min(values)), int(max(values)))
    if name in _NUMPY_BOOLS:
        return Kind("bool", value_type)
    return OBJECT


def _of_one_type(value_type: type, values: Sequence[Any]) -> Kind:
    found = _SCALARS.get(value_type)
    if found is not None:
        return found
    rule = _BY_TYPE.get(value_type)
    if rule is not None:
        return rule(values)
    if value_type.__module__ == "numpy":
        return _of_numpy(value_type, values)
    if value_type is tuple or value_type is frozenset:
        return MUTABLE if any(_changeable(value) for value in values) else OBJECT
    return OBJECT if value_type in ATOMS or issubclass(value_type, Enum) else MUTABLE


def _changeable(value: Any) -> bool:
    if type(value) is tuple or type(value) is frozenset:
        return any(_changeable(item) for item in value)
    return type(value) not in ATOMS


def kind_of(values: Sequence[Any]) -> Kind:
    """The kind of these values, whatever their order."""
    each = list(map(type, values))
    if each and each[0] is not Spilled and each.count(each[0]) == len(each):
        return NULL if each[0] is type(None) else _of_one_type(each[0], values)
    types = set(each)
    types.discard(type(None))
    if not types:
        return NULL
    if Spilled in types:
        return SPILLED
    kinds = (_of_one_type(t, [value for value in values if type(value) is t]) for t in types)
    return functools.reduce(join, kinds, NULL)


def _holds_changeable(kind: Kind) -> bool:
    return kind.family in ("list", "array") or kind is MUTABLE or (kind.family == "object" and kind.wide)


def _join_same(a: Kind, b: Kind) -> Kind | None:
    """Join two kinds of one family; None when only their objects can be kept."""
    one_type = a.type if a.type is b.type else None
    if a.family == "int":
        unsigned = any(k.wide and k.type is not None and k.type.__name__ == "uint64" for k in (a, b))
        return None if unsigned and one_type is None else a._replace(type=one_type, wide=a.wide or b.wide)
    if a.family == "list":
        inner = join(a.inner or NULL, b.inner or NULL)
        return a._replace(inner=inner) if inner.family in _LISTED else None
    if a.family == "aware":
        return a._replace(param="UTC")
    if a.family == "decimal":
        whole, scale = (max(pair) for pair in zip(a.param, b.param, strict=True))
        return a._replace(param=(whole, scale)) if whole + scale <= _DECIMAL_DIGITS else None
    if a.family in ("float", "bool"):
        return a._replace(type=one_type)
    return None


def join(a: Kind, b: Kind) -> Kind:
    """The kind of a column that holds values of both; values not read yet (spilled) say nothing."""
    if a == b or b in (NULL, SPILLED):
        return a
    if a in (NULL, SPILLED):
        return b
    joined = None
    if a.family == b.family:
        joined = _join_same(a, b)
    elif {a.family, b.family} == {"int", "float"} and not (a.wide or b.wide):
        joined = Kind("float")
    if joined is None:
        joined = MUTABLE if _holds_changeable(a) or _holds_changeable(b) else OBJECT
    return joined


@functools.cache
def packs(kind: Kind) -> bool:
    """Whether the polars form gives back every value exactly, type and all."""
    if kind.family == "list":
        inner = kind.inner or NULL
        builtin = inner.type is None or inner.type.__module__ == "builtins"
        return inner.family == "null" or (packs(inner) and builtin)
    return kind.family in _LOSSLESS and kind.type is not None


@functools.cache
def dtype_of(kind: Kind) -> pl.DataType:
    """The polars dtype such a column is shown with; ``Object`` where none holds the values exactly."""
    import polars as pl

    plain: dict[str, Any] = {
        "null": pl.Null, "spilled": pl.Null, "str": pl.String, "bytes": pl.Binary, "bool": pl.Boolean,
        "date": pl.Date, "time": pl.Time, "object": pl.Object,
    }  # fmt: skip
    found: Any
    if kind.family in plain:
        found = plain[kind.family]()
    elif kind.family in ("float", "int"):
        name = kind.type.__name__ if kind.type is not None else ""
        found = getattr(pl, {**_NUMPY_FLOATS, **_NUMPY_INTS}.get(name, kind.family.capitalize() + "64"))()
    elif kind.family == "datetime":
        found = pl.Datetime("us")
    elif kind.family == "duration":
        found = pl.Duration("us")
    elif kind.family == "aware":
        found = _zoned(kind.param)
    elif kind.family == "decimal":
        found = pl.Decimal(_DECIMAL_DIGITS, kind.param[1])
    elif kind.family == "list":
        found = pl.List(dtype_of(kind.inner or NULL))
    else:
        found = pl.List(getattr(pl, _ARRAY_ELEMENTS[_dtype_name(kind.param)])())
    return found  # type: ignore[no-any-return]


def _dtype_name(text: str) -> str:
    import numpy as np

    return np.dtype(text).name


def _zoned(zone: str) -> Any:
    """A Datetime of this zone, or of UTC where polars does not know the zone: the instant stays."""
    import polars as pl

    try:
        pl.Series([0]).cast(pl.Datetime("us", zone))
    except pl.exceptions.PolarsError:
        return pl.Datetime("us", "UTC")
    return pl.Datetime("us", zone)


def frame_of(columns: Sequence[pl.Series]) -> pl.DataFrame:
    """Columns of one length and different names as a frame, without the looks of the public constructor,
    which cost more than a few rows do."""
    import polars as pl

    made = getattr(pl.DataFrame(), "_df", None)
    if made is None or not hasattr(pl.DataFrame, "_from_pydf"):
        # A dict, since of a list polars would give a column without a name one of its own.
        return pl.DataFrame({column.name: column for column in columns})
    return pl.DataFrame._from_pydf(type(made)([column._s for column in columns]))


def _plain(value: Any) -> Any:
    """A list, tuple of numbers or array as nested lists of Python's own numbers."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def to_series(name: str, values: list[Any], kind: Kind) -> pl.Series:
    """These values as a Series of ``dtype_of(kind)``; ``kind`` must be theirs, or one that holds them."""
    import polars as pl

    dtype = dtype_of(kind)
    family = kind.family
    if family == "object":
        return pl.Series(name, values, dtype=dtype)
    if family in ("null", "spilled"):
        return pl.Series(name, [None] * len(values), dtype=dtype)
    if family == "aware":
        micros = [None if v is None else (v - _EPOCH) // _MICROSECOND for v in values]
        instants = pl.Series(name, micros, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
        return instants.dt.convert_time_zone(dtype.time_zone or "UTC")  # type: ignore[attr-defined]
    if family == "list":
        return pl.Series(name, values if packs(kind) else [_plain(v) for v in values], dtype=dtype)
    if family == "array":
        return pl.Series(name, [None if v is None else v.tolist() for v in values], dtype=dtype)
    if family == "float" and kind.type is None:
        values = [None if v is None else float(v) for v in values]
    elif family in ("int", "bool", "float") and kind.type not in (int, bool, float):
        values = [_plain(v) for v in values]
    else:
        make = maker(kind)
        if make is not None:
            return pl.Series._from_pyseries(make(name, values, True))
    return pl.Series(name, values, dtype=dtype)


@functools.cache
def maker(kind: Kind) -> Callable[[str, list[Any], bool], Any] | None:
    """The constructor that polars itself comes to, after a look and a conversion that these values do not
    need: takes name, values and True. None for other kinds, and where a release has it no longer."""
    import polars as pl

    made = getattr(pl.Series("", [0.0]), "_s", None)
    name = _MAKERS.get(kind.type) if kind.family in ("float", "int", "bool", "str") else None
    if name is None or made is None or not hasattr(pl.Series, "_from_pyseries"):
        return None
    return getattr(type(made), name, None)


def from_series(series: pl.Series, kind: Kind) -> list[Any]:
    """The exact values of a Series that was made by ``to_series`` of a kind that ``packs``."""
    values = series.to_list()
    if kind.type is None or kind.type.__module__ == "builtins" or kind.family not in ("float", "int", "bool"):
        return values
    back = kind.type
    return [None if value is None else back(value) for value in values]


def copy_cell(value: Any) -> Any:
    """The value for somebody who may change it: containers and arrays are new, all else is shared."""
    kind = type(value)
    if kind in ATOMS:
        return value
    if kind is list or kind is tuple:
        return kind([item if type(item) in ATOMS else copy_cell(item) for item in value])
    if kind is dict:
        return {key: item if type(item) in ATOMS else copy_cell(item) for key, item in value.items()}
    if kind is set or kind is bytearray:
        return kind(value)
    if kind.__module__.partition(".")[0] in ("numpy", "pandas") and hasattr(value, "copy"):
        return value.copy()
    return value


def copy_cells(values: list[Any], kind: Kind) -> list[Any]:
    """A list of its own with cells its owner may change."""
    if _holds_changeable(kind) or kind == SPILLED:
        return [copy_cell(value) for value in values]
    return values.copy()
