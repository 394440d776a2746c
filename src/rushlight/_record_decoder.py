"""Decodes finished records, fastest where all have the same names: into columns without a dict per row.

Knows the types of a record's parts (``_records.Row``), and nothing of their values: what msgpack has no
form for is left to the hook it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, Final

import msgspec
import msgspec.msgpack
import msgspec.structs

#: The names that xs, xs_extra, ys and ys_extra have, in this order; None where there is no dict.
Names = tuple[tuple[str, ...] | None, ...]

_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_Fields = dict[str, Any]
_MOST: Final = 8


def _record_type(xs: Any, xs_extra: Any, ys: Any, ys_extra: Any) -> Any:
    numbers = (_Number,) * 4
    parts = (str | None, _Number, _Fields | None, str, xs, xs_extra, *numbers, ys, ys_extra)
    return list[tuple.__class_getitem__(parts)]  # type: ignore[misc]


class RecordDecoder:
    """``decode`` takes a msgpack array of records."""

    def __init__(self, hook: Callable[[int, memoryview], Any]) -> None:
        self._hook = hook
        self.decode = self._decoder(_Fields, _Fields | None, _Fields | None, _Fields | None)
        self._alike: dict[Names, Callable[[Any], list[Any]]] = {}

    def _decoder(self, *sides: Any) -> Callable[[Any], list[Any]]:
        return msgspec.msgpack.Decoder(_record_type(*sides), ext_hook=self._hook).decode

    def alike(self, names: Names) -> Callable[[Any], list[Any]]:
        """The same for records that all have these names, and fails for others: in the place of the dicts
        are objects, of which ``field_values`` makes columns."""
        known = self._alike.get(names)
        if known is None:
            if len(self._alike) >= _MOST:
                self._alike.clear()
            known = self._alike[names] = self._decoder(*map(_fields_type, names))
        return known


def _fields_type(names: tuple[str, ...] | None) -> Any:
    """A type of objects with these fields, no more and no fewer."""
    if names is None:
        return None
    own = [f"f{i}" for i in range(len(names))]
    rename = dict(zip(own, names, strict=True))
    fields = [(name, Any) for name in own]
    return msgspec.defstruct("Fields", fields, rename=rename, forbid_unknown_fields=True, gc=False)


def field_values(objects: Sequence[msgspec.Struct]) -> dict[str, list[Any]]:
    """The columns of objects that ``alike`` has made, by name."""
    names = objects[0].__struct_encode_fields__
    if len(names) < 3:
        return {name: list(map(attrgetter(f"f{i}"), objects)) for i, name in enumerate(names)}
    flat = list(chain.from_iterable(map(msgspec.structs.astuple, objects)))
    return {name: flat[i :: len(names)] for i, name in enumerate(names)}


def names_in(part: Mapping[str, Any] | msgspec.Struct) -> tuple[str, ...]:
    """The names that a dict, or such an object, has."""
    return part.__struct_encode_fields__ if isinstance(part, msgspec.Struct) else tuple(part)


def with_dicts(rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """The same records, with dicts in the place of such objects."""
    return [tuple(map(_with_dict, row)) for row in rows]


def _with_dict(part: Any) -> Any:
    if not isinstance(part, msgspec.Struct):
        return part
    return dict(zip(names_in(part), msgspec.structs.astuple(part), strict=True))
