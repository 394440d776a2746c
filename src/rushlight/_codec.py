"""Values to bytes and back: one value is one msgpack element.

Owns encoding, decoding and what is spilled. Data never executes when it is read: the only thing
that can is a pickle, which is opened behind a verified signature and nowhere else. Bytes of any
kind give a value or a CodecError, never another error; the forms are in ``_ext``.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec.msgpack

from . import _ext as ext
from . import _ext_numpy, _ext_tables
from ._blame import label
from ._ext import Spilled
from ._ext_types import register_type, restore_dataclass, restore_enum
from ._ext_write import PLAIN, element, encode
from ._plain import all_plain, are_small
from ._record_decoder import Names, RecordDecoder
from ._trust import Trust, unverified_body
from .errors import ConfigError, DataMissing, DecodeError, EncodeError, RushlightError, SecretRequired

__all__ = ["Codec", "Spilled", "register_type"]

#: How much of bytes that cannot be read an error keeps.
_SHOWN: Final = 64
#: Beyond so many rows the garbage collector would only walk what cannot be garbage.
_FEW: Final = 100


class Codec:
    """Encodes and decodes for one network; holds no state but its settings, so threads may share it.

    Without ``trust``, values that need pickling are refused in both directions.
    """

    __slots__ = ("_decode", "_most", "_records", "spill_size", "trust")

    def __init__(self, trust: Trust | None = None, *, spill_size: int = 65536) -> None:
        self.trust = trust
        self.spill_size = spill_size
        self._most: int | None = None
        reader = _Reader(trust, None)
        self._decode = reader.decode
        self._records = RecordDecoder(reader.ext_hook)

    def limit(self, max_value_size: int | None) -> None:
        """From now on refuses to encode a column's value of more bytes; None for any number."""
        self._most = max_value_size
        if max_value_size is not None:
            # What is not spilled is not looked at one by one.
            self.spill_size = min(self.spill_size, max_value_size)

    def encode(self, value: Any, where: str) -> bytes:
        """``value`` as exactly one msgpack element; ``where`` names it in errors (``xs``)."""
        return element(value, where, self.trust)

    def encode_fields(self, fields: Mapping[str, Any], where: str, spilled: dict[str, bytes]) -> bytes:
        """A mapping of column names to values, as one msgpack map.

        A value whose encoding is larger than ``spill_size`` bytes goes into ``spilled`` under its
        content digest, and a reference takes its place. Raises ConfigError for anything but a
        mapping with str keys, EncodeError (also for a value above the ``limit``) or SecretRequired for
        a value, naming its path.
        """
        data = self.encode_plain(fields)
        return self._encode_each(fields, where, spilled) if data is None else data

    def encode_plain(self, fields: object) -> bytes | None:
        """The same for a dict of a few numbers, texts and bytes: the quick way. None for anything else."""
        if type(fields) is not dict:
            return None
        for name, value in fields.items():
            if type(value) not in PLAIN or type(name) is not str:
                return None
        try:
            data = encode(fields)
        except (OverflowError, UnicodeEncodeError):
            return None
        return data if len(data) <= self.spill_size else None

    def encode_many(
        self,
        columns: Sequence[Sequence[Mapping[str, Any] | None]],
        ahead: Sequence[Iterable[Any]] = (),
        *,
        sure: bool = False,
    ) -> list[bytes] | None:
        """Many rows of mappings (or None) at once: the elements of a row, joined, behind those of
        ``ahead``, which are taken as they are. None where a value is not plain or may have to be
        spilled: then each mapping is to be encoded for itself. ``sure``: all values are plain."""
        if not sure and not all(map(all_plain, columns)):
            return None
        try:
            rows = list(map(encode, zip(*ahead, *columns, strict=False)))
        except (OverflowError, UnicodeEncodeError):
            return None
        if max(map(len, rows), default=0) > self.spill_size:
            return None
        # Without the head of the array that the row is to the encoder.
        return [row[1:] for row in rows]

    def can_encode(self, columns: Sequence[Sequence[Mapping[str, Any] | None]]) -> bool:
        """Whether it is certain without a try that all rows, whose names are exact texts, can be encoded and
        need nothing to be spilled."""
        return self._most is None and are_small(columns, self.spill_size)

    def _encode_each(self, fields: Mapping[str, Any], where: str, spilled: dict[str, bytes]) -> bytes:
        parts: list[bytes] = []
        for name, value in _columns(fields, where).items():
            data = self._encode_column(name, value, where)
            if self._most is not None and len(data) > self._most:
                path = f"{where}[{label(name)}]"
                message = f"{path} is {len(data)} bytes long, and max_value_size is {self._most}"
                raise EncodeError(message, path=path)
            if len(data) > self.spill_size:
                digest = _digest(data)
                spilled[digest] = data
                data = element(Spilled(digest, len(data)), where, None)
            parts += (encode(name), data)
        return b"".join((_header(len(parts) // 2, 0x80, 0xDE), *parts))

    def _encode_column(self, name: str, value: Any, where: str) -> bytes:
        if type(value) in PLAIN:
            try:
                return encode(value)
            except (OverflowError, UnicodeEncodeError):
                return element(value, where, self.trust)
        return element(value, f"{where}[{label(name)}]", self.trust)

    def decode(self, data: bytes | bytearray) -> Any:
        """The value of one element; spilled values as ``Spilled``. Raises CodecError or MissingExtra."""
        try:
            return self._decode(data)
        except RushlightError:
            raise
        except Exception as error:
            raise _undecodable(error, data) from error

    def decode_spilled(self, reference: Spilled, data: bytes | bytearray | None) -> Any:
        """The value stored apart. Raises DataMissing for None, DecodeError for bytes that were not stored."""
        if data is None:
            message = f"a value of {reference.size} bytes that was stored apart is gone from the server"
            raise DataMissing(message, keys=[reference.digest])
        if len(data) != reference.size or _digest(data) != reference.digest:
            message = (
                f"a value stored apart is {len(data)} bytes, and not the {reference.size} that were written"
            )
            raise DecodeError(message, data=data[:_SHOWN])
        return self.decode(data)

    def decode_rows(
        self, parts: Sequence[bytes], width: int | None = None
    ) -> tuple[list[Any], list[Spilled]]:
        """The values of many elements, and every ``Spilled`` met in them (so that none need be looked for).

        With ``width`` each must be an array of that length. The garbage collector rests meanwhile.
        Raises DecodeError with the ``index`` of the element that could not be read.
        """
        spilled: list[Spilled] = []
        reader = _Reader(self.trust, spilled)
        try:
            with _collector_paused():
                rows: list[Any] = reader.decode(b"".join((_header(len(parts), 0x90, 0xDC), *parts)))
        except Exception as error:
            raise self._blamed(parts, error) from error
        if width is not None and not (_all(list, map(type, rows)) and _all(width, map(len, rows))):
            index = next(at for at, row in enumerate(rows) if type(row) is not list or len(row) != width)
            message = f"record {index} of {len(parts)} does not have {width} parts"
            raise DecodeError(message, index=index, data=bytes(parts[index])[:_SHOWN])
        return rows, spilled

    def decode_records(self, parts: Sequence[bytes], names: Names | None = None) -> list[tuple[Any, ...]]:
        """Finished records (``_records.Row``), decoded, every part of the type it must have. Raises
        DecodeError with the ``index`` of the one that could not be read.

        ``names`` are those that xs, xs_extra, ys and ys_extra probably have in all of them. Where it is so,
        objects stand in the place of these dicts, of which ``field_values`` makes columns: in two thirds of
        the time.
        """
        joined = b"".join((_header(len(parts), 0x90, 0xDC), *parts))
        try:
            decode = self._records.decode if names is None else self._records.alike(names)
            if len(parts) <= _FEW:
                return decode(joined)
            with _collector_paused():
                return decode(joined)
        except Exception as error:
            if names is not None:
                return self.decode_records(parts)
            raise self._blamed_record(parts, error) from error

    def _blamed_record(self, parts: Sequence[bytes], error: Exception) -> RushlightError:
        for index, part in enumerate(parts):
            try:
                self._records.decode(b"\x91" + part)
            except Exception as own:
                found = own if isinstance(own, RushlightError) else _undecodable(own, part)
                fields = {**found.fields, "index": index}
                return type(found)(f"record {index} of {len(parts)}: {found}", **fields)
        return error if isinstance(error, RushlightError) else _undecodable(error, b"")

    def _blamed(self, parts: Sequence[bytes], error: Exception) -> RushlightError:
        for index, part in enumerate(parts):
            try:
                self.decode(part)
            except RushlightError as own:
                fields = {**own.fields, "index": index}
                return type(own)(f"record {index} of {len(parts)}: {own}", **fields)
        return error if isinstance(error, RushlightError) else _undecodable(error, b"")


class _Reader:
    """A decoder and where it notes the references it meets; ``spilled=None`` notes none."""

    __slots__ = ("decode", "spilled", "trust")

    def __init__(self, trust: Trust | None, spilled: list[Spilled] | None) -> None:
        self.trust = trust
        self.spilled = spilled
        self.decode: Callable[[Any], Any] = msgspec.msgpack.Decoder(ext_hook=self.ext_hook).decode

    def ext_hook(self, code: int, data: memoryview) -> Any:
        reader = _READERS.get(code)
        if reader is not None:
            return reader(self, data)
        unpack = ext.UNPACK.get(code)
        if unpack is None:
            raise ValueError(f"no value has the code {code}; it may come from a newer Rushlight")
        return unpack(data)

    def _array(self, data: memoryview) -> list[Any]:
        items = self.decode(data)
        if type(items) is not list:
            raise ValueError("not an array")
        return items

    def _framed(self, data: memoryview) -> tuple[list[Any], memoryview]:
        end = 4 + int.from_bytes(data[:4], "big")
        return self._array(data[4:end]), data[end:]

    def _tuple(self, data: memoryview) -> tuple[Any, ...]:
        return tuple(self._array(data))

    def _set(self, data: memoryview) -> set[Any]:
        return set(self._array(data))

    def _frozenset(self, data: memoryview) -> frozenset[Any]:
        return frozenset(self._array(data))

    def _pairs(self, data: memoryview) -> dict[Any, Any]:
        items = self._array(data)
        return dict(zip(items[::2], items[1::2], strict=True))

    def _enum(self, data: memoryview) -> Any:
        name, member, value = self._array(data)
        return restore_enum(name, member, value)

    def _dataclass(self, data: memoryview) -> Any:
        name, values = self._array(data)
        if type(values) is not dict:
            raise ValueError("not the fields of a dataclass")
        return restore_dataclass(name, values)

    def _ndarray(self, data: memoryview) -> Any:
        (spec, shape), raw = self._framed(data)
        return _ext_numpy.array_of(spec, shape, raw, self._array)

    def _npscalar(self, data: memoryview) -> Any:
        (spec,), raw = self._framed(data)
        return _ext_numpy.scalar_of(spec, raw)

    def _table(self, data: memoryview) -> Any:
        (kind, name, sealed), raw = self._framed(data)
        body = bytes(raw)
        verified = sealed is True and self.trust is not None
        if verified and self.trust is not None:
            body = self.trust.open("table", body)
        elif sealed:
            body = unverified_body(body)
        return _ext_tables.unpack(kind, name, body, verified=verified)

    def _spilled(self, data: memoryview) -> Spilled:
        found = ext.spilled(data)
        if self.spilled is not None:
            self.spilled.append(found)
        return found

    def _pickle(self, data: memoryview) -> Any:
        if self.trust is None:
            raise SecretRequired(
                "a value is a pickle, which is read only when its signature verifies: "
                "give the secret= or RUSHLIGHT_SECRET of those who wrote it"
            )
        return self.trust.loads("value", bytes(data))


_READERS: Final[Mapping[int, Callable[[_Reader, memoryview], Any]]] = {
    ext.TUPLE: _Reader._tuple,
    ext.SET: _Reader._set,
    ext.FROZENSET: _Reader._frozenset,
    ext.PAIRS: _Reader._pairs,
    ext.NDARRAY: _Reader._ndarray,
    ext.NPSCALAR: _Reader._npscalar,
    ext.TABLE: _Reader._table,
    ext.ENUM: _Reader._enum,
    ext.DATACLASS: _Reader._dataclass,
    ext.SPILLED: _Reader._spilled,
    ext.PICKLE: _Reader._pickle,
}


def _columns(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(fields, Mapping):
        message = f"{where} must be a dict of column names to values, got {type(fields).__qualname__}"
        raise ConfigError(message, path=where)
    columns: dict[str, Any] = {}
    for name, value in fields.items():
        if not isinstance(name, str):
            message = (
                f"{where} must have column names of type str, got {label(name)} ({type(name).__qualname__})"
            )
            raise ConfigError(message, path=where)
        exact = name if type(name) is str else str.__str__(name)
        try:
            exact.encode()
        except UnicodeEncodeError as error:
            message = f"{where} has a column name that is not valid Unicode: {label(exact)}"
            raise ConfigError(message, path=where) from error
        columns[exact] = value
    return columns


def _header(count: int, small: int, large: int) -> bytes:
    """The head of a msgpack array (0x90, 0xDC) or map (0x80, 0xDE) of ``count`` items."""
    if count < 16:
        return bytes([small | count])
    if count < 1 << 16:
        return bytes([large]) + count.to_bytes(2, "big")
    return bytes([large + 1]) + count.to_bytes(4, "big")


def _digest(data: bytes | bytearray) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _all(value: object, found: Iterator[object]) -> bool:
    return set(found) <= {value}


def _undecodable(error: Exception, data: bytes | bytearray) -> DecodeError:
    reason = str(error) or "nested too deeply"
    return DecodeError(f"a value cannot be read: {type(error).__name__}: {reason}", data=bytes(data[:_SHOWN]))


@contextmanager
def _collector_paused() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
