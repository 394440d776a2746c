"""Turns a Python value into a tree that msgpack can write: plain types, and Ext elements for the rest.

Owns the choice of each type's form and the paths in EncodeErrors. msgspec silently loses much of
what Python distinguishes (tuple and list, naive times, Enums), so nothing but the exact types in
``PLAIN`` ever reaches it. Never reads bytes back, and never imports a heavy library.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import datetime, time
from enum import Enum
from typing import Any, Final

import msgspec.msgpack
from msgspec.msgpack import Ext

from . import _ext as ext
from . import _ext_numpy, _ext_tables
from ._blame import label
from ._ext_types import registered_name
from ._trust import Trust
from .errors import EncodeError, MissingExtra, RushlightError, SecretRequired

#: Exact types msgpack holds as they are.
PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})
#: The same where an int is larger than 64 bits, or a str is not valid Unicode: those are looked at.
_CAREFUL: Final = PLAIN - {int, str}
#: Each level costs the reader a few frames of Python's 1000.
MAX_DEPTH: Final = 100

encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode

#: Where a value sits: the step to its parent, how it hangs there, and itself (to notice a circle).
Step = tuple["Step | None", str, object]


def element(value: Any, where: str, trust: Trust | None) -> bytes:
    """``value`` as exactly one msgpack element. Raises EncodeError or SecretRequired naming the path."""
    root: Step = (None, where, value)
    try:
        try:
            return encode(_Writer(trust, PLAIN).walk(value, root))
        except (OverflowError, UnicodeEncodeError):
            return encode(_Writer(trust, _CAREFUL).walk(value, root))
    except RushlightError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise EncodeError(f"{where} cannot be stored: {reason}", path=where) from error


def _path(step: Step | None) -> str:
    parts: list[str] = []
    while step is not None:
        parts.append(step[1])
        step = step[0]
    return "".join(reversed(parts))


class _Writer:
    """One walk over one value; ``plain`` are the types it takes as they are."""

    __slots__ = ("depth", "hashed", "plain", "trust")

    def __init__(self, trust: Trust | None, plain: frozenset[type]) -> None:
        self.trust = trust
        self.plain = plain
        self.depth = 0
        self.hashed = 0

    def walk(self, value: Any, step: Step) -> Any:
        kind = type(value)
        if kind in self.plain:
            return value
        handler = _HANDLERS.get(kind)
        if handler is not None:
            return handler(self, value, step)
        head = _scalar_heads.get(kind)
        if head is not None:
            return Ext(ext.NPSCALAR, head + value.tobytes())
        packer = ext.PACK.get(kind)
        if packer is not None:
            return Ext(packer[0], packer[1](value))
        if isinstance(value, Enum):
            return self._enum(value, step)
        if dataclasses.is_dataclass(kind):
            return self._dataclass(value, step)
        module = getattr(kind, "__module__", None)
        library = module.partition(".")[0] if isinstance(module, str) else ""
        packed = None
        if library == "numpy" and library in sys.modules:
            packed = self._numpy(value, step)
        elif library in ("polars", "pandas", "pyarrow") and library in sys.modules:
            packed = self._table(value, step)
        return self._pickle(value, step) if packed is None else packed

    # Containers

    def _enter(self, step: Step) -> None:
        self.depth += 1
        if self.depth <= MAX_DEPTH:
            return
        seen: set[int] = set()
        above: Step | None = step
        while above is not None:
            if id(above[2]) in seen:
                raise EncodeError(f"{_path(above)} contains itself and cannot be stored", path=_path(above))
            seen.add(id(above[2]))
            above = above[0]
        path = _path(step)
        shown = path if len(path) < 120 else f"{path[:117]}..."
        raise EncodeError(f"{shown} lies more than {MAX_DEPTH} levels deep and cannot be stored", path=path)

    def _items(self, values: Iterable[Any], step: Step, shape: str = "[{}]") -> Any:
        plain = self.plain
        if plain.issuperset(map(type, values)):
            return values
        self._enter(step)
        walked = [
            item if type(item) in plain else self.walk(item, (step, shape.format(index), item))
            for index, item in enumerate(values)
        ]
        self.depth -= 1
        return walked

    def _list(self, value: list[Any], step: Step) -> Any:
        return self._items(value, step)

    def _tuple(self, value: tuple[Any, ...], step: Step) -> Ext:
        return Ext(ext.TUPLE, encode(self._items(value, step)))

    def _set(self, value: set[Any] | frozenset[Any], step: Step) -> Ext:
        code = ext.SET if type(value) is set else ext.FROZENSET
        return Ext(code, encode(self._keys(list(value), step)))

    def _keys(self, keys: list[Any], step: Step) -> list[Any]:
        """Elements or keys: what they read back as must be hashable, and still distinct."""
        plain = self.plain
        if plain.issuperset(map(type, keys)):
            return keys
        self._enter(step)
        self.hashed += 1
        walked = [
            key if type(key) in plain else self.walk(key, (step, f".key({label(key)})", key)) for key in keys
        ]
        self.hashed -= 1
        self.depth -= 1
        distinct = {(key.code, bytes(key.data)) if type(key) is Ext else key for key in walked}
        if len(distinct) < len(keys):
            path = _path(step)
            message = (
                f"{path} has Enum members whose values are equal to other keys; give them to register_type"
            )
            raise EncodeError(message, path=path)
        return walked

    def _dict(self, value: dict[Any, Any], step: Step) -> Any:
        plain = self.plain
        if plain.issuperset(map(type, value)):
            if plain.issuperset(map(type, value.values())):
                return value
            return dict(zip(value, self._values(value, step), strict=True))
        keys = self._keys(list(value), step)
        pairs = [part for pair in zip(keys, self._values(value, step), strict=True) for part in pair]
        return Ext(ext.PAIRS, encode(pairs))

    def _values(self, value: dict[Any, Any], step: Step) -> list[Any]:
        plain = self.plain
        self._enter(step)
        walked = [
            item if type(item) in plain else self.walk(item, (step, f"[{label(key)}]", item))
            for key, item in value.items()
        ]
        self.depth -= 1
        return walked

    # Classes

    def _enum(self, member: Enum, step: Step) -> Any:
        name = registered_name(type(member))
        if self.hashed and not isinstance(member.value, Hashable):
            message = f"{_path(step)} is a key, and its value ({label(member.value)}) cannot be one"
            raise EncodeError(message, path=_path(step))
        self._enter(step)
        value = self.walk(member.value, (step, ".value", member.value))
        self.depth -= 1
        return value if name is None else Ext(ext.ENUM, encode((name, member.name, value)))

    def _dataclass(self, value: Any, step: Step) -> Any:
        name = registered_name(type(value))
        if name is None and self.hashed:
            message = f"{_path(step)} is a dataclass, and would read back as a dict, which cannot be a key: "
            raise EncodeError(f"{message}give {type(value).__qualname__} to register_type", path=_path(step))
        self._enter(step)
        walked = {}
        for field in dataclasses.fields(value):
            try:
                part = getattr(value, field.name)
            except AttributeError as error:
                path = f"{_path(step)}.{field.name}"
                raise EncodeError(f"{path} cannot be stored: the field was never set", path=path) from error
            walked[field.name] = self.walk(part, (step, f".{field.name}", part))
        self.depth -= 1
        return walked if name is None else Ext(ext.DATACLASS, encode((name, walked)))

    # Scalars

    def _int(self, value: int, _step: Step) -> Any:
        return value if -(1 << 63) <= value < 1 << 64 else Ext(ext.BIGINT, ext.pack_bigint(value))

    def _str(self, value: str, _step: Step) -> Any:
        try:
            value.encode()
        except UnicodeEncodeError:
            return Ext(ext.SURROGATES, value.encode("utf-8", "surrogatepass"))
        return value

    def _datetime(self, value: datetime, step: Step) -> Ext:
        packed = ext.pack_datetime(value)
        return self._pickle(value, step) if packed is None else Ext(ext.DATETIME, packed)

    def _time(self, value: time, step: Step) -> Ext:
        packed = ext.pack_time(value)
        return self._pickle(value, step) if packed is None else Ext(ext.TIME, packed)

    # Libraries

    def _numpy(self, value: Any, step: Step) -> Ext | None:
        np = sys.modules["numpy"]
        if isinstance(value, np.generic):
            if type(value) is np.str_:
                data = value.encode("utf-8", "surrogatepass")
                return _framed(ext.NPSCALAR, (_ext_numpy.STR_SCALAR,), data)
            if type(value) is np.bytes_:
                return _framed(ext.NPSCALAR, (_ext_numpy.BYTES_SCALAR,), bytes(value))
            spec = _ext_numpy.spec_of(value.dtype)
            if spec is not None and value.dtype.kind in "biufc":
                _scalar_heads[type(value)] = _head((spec,))
            return None if spec is None else _framed(ext.NPSCALAR, (spec,), value.tobytes())
        if type(value) not in (np.ndarray, np.memmap):
            return None
        spec = _ext_numpy.spec_of(value.dtype)
        if spec is None:
            return None
        if spec == _ext_numpy.OBJECTS:
            data = encode(self._items(value.ravel().tolist(), step, ".flat[{}]"))
        elif spec == _ext_numpy.STRINGS:
            data = encode(value.ravel().tolist())
        else:
            data = _ext_numpy.raw(value)
        return _framed(ext.NDARRAY, (spec, value.shape), data)

    def _table(self, value: Any, step: Step) -> Ext | None:
        try:
            packed = _ext_tables.pack(value)
        except MissingExtra:
            if self.trust is None:
                raise
            return None
        if packed is None:
            return None
        kind, name, data = packed
        walked = self._keys([name], step)[0]
        sealed = self.trust is not None
        if self.trust is not None:
            data = self.trust.seal("table", data)
        return _framed(ext.TABLE, (kind, walked, sealed), data)

    # Anything else

    def _pickle(self, value: Any, step: Step) -> Ext:
        path = _path(step)
        if self.trust is None:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            raise SecretRequired(
                f"{path} is a {kind}, which can only be pickled, and pickles are signed: "
                "give secret= or RUSHLIGHT_SECRET to manager and workers, or make it plain data",
                path=path,
            )
        return Ext(ext.PICKLE, self.trust.dumps("value", value, where=path))


def _framed(code: int, header: tuple[Any, ...], data: Any) -> Ext:
    return Ext(code, b"".join((_head(header), data)))


def _head(header: tuple[Any, ...]) -> bytes:
    encoded = encode(header)
    return len(encoded).to_bytes(4, "big") + encoded


#: NumPy's number types, as they are met: all of a type's scalars begin with the same bytes.
_scalar_heads: Final[dict[type, bytes]] = {}


_HANDLERS: Final[Mapping[type, Callable[[_Writer, Any, Step], Any]]] = {
    list: _Writer._list,
    tuple: _Writer._tuple,
    set: _Writer._set,
    frozenset: _Writer._set,
    dict: _Writer._dict,
    int: _Writer._int,
    str: _Writer._str,
    datetime: _Writer._datetime,
    time: _Writer._time,
}
