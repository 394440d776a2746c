"""NumPy dtypes, arrays and scalars as bytes, and back.

Owns the textual form of dtypes, which is checked against a fixed grammar and never evaluated, and
the check of a declared shape against the bytes there are, before anything is allocated. Imports
NumPy only to read a NumPy value: a value to be written has imported it already.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from .errors import MissingExtra

#: A ``numpy.dtype``; not spelled so, as this module loads without NumPy.
DType = Any
#: A dtype's text, or for a structured one ``[itemsize, [[name, spec, offset, title, subshape], ...]]``.
Spec = str | list[Any]

#: Elements of these are kept one by one, by the codec itself.
OBJECTS: Final = "O"
STRINGS: Final = "T"
#: A str or bytes scalar may end in zeros, which an array of them would drop.
STR_SCALAR: Final = "str"
BYTES_SCALAR: Final = "bytes"

_GRAMMAR = re.compile(
    r"[<>|](?:b1|[iu][1248]|f[248]|c(?:8|16)|[SUV][1-9][0-9]{0,8}"
    r"|[mM]8(?:\[[0-9]{0,9}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
#: The long double of this dtype has this many bits of mantissa: the same text means three formats.
_LONG = re.compile(r"([<>](?:f(?:12|16)|c(?:24|32)))/([0-9]{1,3})")
#: NumPy allocates one item for an empty array.
_MAX_EMPTY_ITEM: Final = 1 << 24
_MAX_DIMENSIONS: Final = 64


def numpy() -> Any:
    """The module, imported now. Raises MissingExtra, naming the install line."""
    try:
        import numpy as np
    except ImportError as error:
        message = "a NumPy value can only be read with NumPy: pip install numpy"
        raise MissingExtra(message, extra="numpy") from error
    return np


@lru_cache(maxsize=512)
def spec_of(dtype: DType) -> Spec | None:
    """The form of a dtype that ``dtype_of`` turns back into an equal one; None where there is none."""
    if dtype.kind == "O":
        return OBJECTS if dtype.fields is None and dtype.subdtype is None else None
    if dtype.kind == "T":
        return STRINGS if dtype == type(dtype)() else None
    if dtype.itemsize == 0 or dtype.itemsize > _MAX_EMPTY_ITEM or dtype.hasobject:
        return None
    spec = _structured(dtype) if dtype.fields is not None else _simple(dtype)
    try:
        # Types that other packages add (bfloat16) name themselves as plain bytes; they fail here.
        return spec if spec is not None and dtype_of(spec) == dtype else None
    except (TypeError, ValueError):
        return None


def _simple(dtype: DType) -> str:
    text = dtype.str
    return f"{text}/{_mantissa()}" if text[1:] in ("f12", "f16", "c24", "c32") else text


def _mantissa() -> int:
    np = numpy()
    return int(np.finfo(np.longdouble).nmant)


def _structured(dtype: DType) -> Spec | None:
    parts: list[list[Any]] = []
    for name in dtype.names or ():
        inner, offset, *title = (dtype.fields or {})[name]
        base, shape = inner.subdtype or (inner, ())
        spec = spec_of(base)
        if not isinstance(spec, str | list) or spec in (OBJECTS, STRINGS):
            return None
        if title and type(title[0]) is not str:
            return None
        parts.append([name, spec, offset, title[0] if title else None, list(shape)])
    return [dtype.itemsize, parts]


def dtype_of(spec: Spec) -> DType:
    """The dtype of a spec. Raises ValueError or TypeError for what is none."""
    if isinstance(spec, str):
        return _dtype_of_text(spec)
    np = numpy()
    itemsize, parts = spec
    names, formats, offsets, titles = [], [], [], []
    for name, inner, offset, title, shape in parts:
        if not isinstance(name, str) or not isinstance(title, str | None):
            raise TypeError("a field's name is text")
        base = dtype_of(inner)
        if _count(shape) * base.itemsize + _natural(offset) > _natural(itemsize):
            raise ValueError("a field lies outside its record")
        names.append(name)
        formats.append((base, tuple(shape)) if shape else base)
        offsets.append(offset)
        titles.append(title)
    layout = {"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize}
    if any(title is not None for title in titles):
        layout["titles"] = titles
    return np.dtype(layout)


@lru_cache(maxsize=512)
def _dtype_of_text(text: str) -> DType:
    np = numpy()
    if _GRAMMAR.fullmatch(text):
        return np.dtype(text)
    long = _LONG.fullmatch(text)
    if long is None:
        raise ValueError("not a dtype")
    if int(long[2]) != _mantissa():
        raise ValueError("a long double of another kind of machine")
    return np.dtype(long[1])


def _natural(number: object) -> int:
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise ValueError("not a size")
    return number


def _count(shape: Sequence[object]) -> int:
    if len(shape) > _MAX_DIMENSIONS:
        raise ValueError("too many dimensions")
    return math.prod(map(_natural, shape))


def raw(array: Any) -> Any:
    """The array's bytes in C order, without a copy where they lie so already."""
    if array.nbytes < 1 << 16 or not array.flags.c_contiguous:
        return array.tobytes()
    return array.reshape(-1).view("u1").data


def array_of(spec: Spec, shape: list[Any], data: memoryview, decode: Callable[[Any], Any]) -> Any:
    """The array: its own memory, C order, writable. ``decode`` reads the elements of object arrays."""
    np = numpy()
    count = _count(shape)
    if spec == OBJECTS:
        items = decode(data)
        _fits(len(items) == count)
        made = np.empty(count, object)
        for index, item in enumerate(items):
            made[index] = item
        return made.reshape(shape)
    if spec == STRINGS:
        items = decode(data)
        _fits(len(items) == count and all(type(item) is str for item in items))
        return np.array(items, np.dtypes.StringDType()).reshape(shape)
    dtype = dtype_of(spec)
    _fits(count * dtype.itemsize == len(data) and 0 < dtype.itemsize <= _MAX_EMPTY_ITEM)
    return np.ndarray(shape, dtype, data).copy() if count else np.empty(shape, dtype)


def scalar_of(spec: Spec, data: memoryview) -> Any:
    np = numpy()
    if spec == STR_SCALAR:
        return np.str_(bytes(data).decode("utf-8", "surrogatepass"))
    if spec == BYTES_SCALAR:
        return np.bytes_(bytes(data))
    dtype = dtype_of(spec)
    _fits(dtype.itemsize == len(data))
    return np.ndarray((), dtype, data).copy()[()]


def _fits(is_so: bool) -> None:
    if not is_so:
        raise ValueError("the bytes do not fill the shape")
