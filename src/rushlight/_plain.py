"""Which values msgpack holds as they are, asked of many rows at once: these are encoded the quick way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

from ._ext_write import PLAIN

_ROWS: Final = frozenset({dict, type(None)})
#: Plain types whose values can be long, and the border of integers that msgpack holds whatever their sign.
_LONG: Final = frozenset({str, bytes})
_INT64: Final = 2**63
#: Bytes a character takes at most, and those in front of a text.
_CHARACTER, _HEAD = 4, 5


def all_plain(rows: Sequence[Mapping[str, Any] | None]) -> bool:
    """Whether all rows are None or dicts of names to plain values."""
    if not _ROWS.issuperset(map(type, rows)):
        return False
    dicts: list[Any] = list(filter(None, rows))
    names, values = chain.from_iterable(dicts), chain.from_iterable(map(dict.values, dicts))
    return set(map(type, names)) <= {str} and PLAIN.issuperset(map(type, values))


def are_small(columns: Sequence[Sequence[Mapping[str, Any] | None]], most: int) -> bool:
    """Whether all rows, whose names are exact texts, are plain, their names are valid Unicode, and no value
    can take more than ``most`` bytes."""
    names: set[str] = set()
    for rows in columns:
        kinds = set(map(type, rows))
        if not kinds <= _ROWS:
            return False
        dicts: Sequence[Any] = rows if kinds == {dict} else list(filter(None, rows))
        names.update(chain.from_iterable(dicts))
        if not _small(list(chain.from_iterable(map(dict.values, dicts))), most):
            return False
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        return False
    return True


def _small(values: list[Any], most: int) -> bool:
    kinds = set(map(type, values))
    if not kinds <= PLAIN:
        return False
    if int in kinds:
        numbers = [value for value in values if type(value) is int]
        if min(numbers) < -_INT64 or max(numbers) >= _INT64:
            return False
    lengths = [len(value) for value in values if type(value) in _LONG] if kinds & _LONG else []
    return _CHARACTER * max(lengths, default=0) + _HEAD <= most
