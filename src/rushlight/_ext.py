"""The Ext codes of stored values, and the bytes of each scalar type msgpack has no form for.

Owns the byte forms of the standard library's data types. Never executes, imports or looks up
anything the bytes name, but for a time zone's rules.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

# The codes are the wire format: a number is never given a second meaning.
TUPLE: Final = 1
SET: Final = 2
FROZENSET: Final = 3
PAIRS: Final = 4  # a dict with keys that a msgpack map cannot hold: key, value, key, value ...
BIGINT: Final = 5
SURROGATES: Final = 6
BYTEARRAY: Final = 7
COMPLEX: Final = 8
DATETIME: Final = 9
DATE: Final = 10
TIME: Final = 11
TIMEDELTA: Final = 12
DECIMAL: Final = 13
UUID_: Final = 14
NDARRAY: Final = 20
NPSCALAR: Final = 21
TABLE: Final = 30
ENUM: Final = 40
DATACLASS: Final = 41
SPILLED: Final = 60
PICKLE: Final = 61

_COMPLEX = struct.Struct(">dd")
_DATE = struct.Struct(">HBB")
_TIME = struct.Struct(">BBBIB")
_TIMEDELTA = struct.Struct(">iii")
_SPILLED = struct.Struct(">16sQ")
_ZONE_KEY = re.compile(r"[A-Za-z0-9_+\-]{1,64}(?:/[A-Za-z0-9_+\-]{1,64}){0,7}")
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Spilled:
    """A value stored apart: the hex content digest (BLAKE2b, 16 bytes) and size of its encoded form."""

    digest: str
    size: int


def pack_datetime(value: datetime) -> bytes | None:
    """None where the time zone is of a class that only pickling can keep."""
    zone = _pack_zone(value.tzinfo)
    return None if zone is None else _pack_date(value) + _pack_clock(value) + zone


def pack_time(value: time) -> bytes | None:
    """None where the time zone is of a class that only pickling can keep."""
    zone = _pack_zone(value.tzinfo)
    return None if zone is None else _pack_clock(value) + zone


def _pack_date(value: date) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _pack_clock(value: time | datetime) -> bytes:
    return _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)


def _pack_zone(zone: tzinfo | None) -> bytes | None:
    if zone is None:
        return b""
    if zone is UTC:
        return b"U"
    if type(zone) is timezone:
        offset, *names = zone.__getinitargs__()  # type: ignore[attr-defined]
        kind = b"N" if names else b"O"
        microseconds: bytes = (offset // _MICROSECOND).to_bytes(8, "big", signed=True)
        return kind + microseconds + "".join(names).encode("utf-8", "surrogatepass")
    # Its place in the library is looked for when it is imported, which is a while for a type that is rare.
    from zoneinfo import ZoneInfo

    if type(zone) is ZoneInfo and zone.key is not None and _ZONE_KEY.fullmatch(zone.key):
        return b"Z" + zone.key.encode("ascii")
    return None


def _zone(data: bytes) -> tzinfo | None:
    kind, rest = data[:1], data[1:]
    if not data:
        return None
    if kind == b"U" and not rest:
        return UTC
    if kind == b"Z":
        from zoneinfo import ZoneInfo

        key = rest.decode("ascii")
        if not _ZONE_KEY.fullmatch(key):
            raise ValueError("not the name of a time zone")
        return ZoneInfo(key)
    offset = timedelta(microseconds=int.from_bytes(rest[:8], "big", signed=True))
    if kind == b"O" and len(rest) == 8:
        return timezone(offset)
    if kind == b"N" and len(rest) >= 8:
        return timezone(offset, rest[8:].decode("utf-8", "surrogatepass"))
    raise ValueError("not a time zone")


def _datetime(data: memoryview) -> datetime:
    hour, minute, second, microsecond, fold = _TIME.unpack(data[4:12])
    year, month, day = _DATE.unpack(data[:4])
    zone = _zone(bytes(data[12:]))
    return datetime(year, month, day, hour, minute, second, microsecond, tzinfo=zone, fold=fold)


def _time(data: memoryview) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack(data[:8])
    return time(hour, minute, second, microsecond, _zone(bytes(data[8:])), fold=fold)


def _complex(data: memoryview) -> complex:
    return complex(*_COMPLEX.unpack(data))


def pack_bigint(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def pack_spilled(value: Spilled) -> bytes:
    return _SPILLED.pack(bytes.fromhex(value.digest), value.size)


def spilled(data: memoryview) -> Spilled:
    digest, size = _SPILLED.unpack(data)
    return Spilled(digest.hex(), size)


#: Exact type -> its code and bytes, for the types whose every value has bytes.
PACK: Final[Mapping[type, tuple[int, Callable[[Any], bytes]]]] = {
    bytearray: (BYTEARRAY, bytes),
    complex: (COMPLEX, lambda value: _COMPLEX.pack(value.real, value.imag)),
    date: (DATE, _pack_date),
    timedelta: (TIMEDELTA, lambda value: _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)),
    Decimal: (DECIMAL, lambda value: str(value).encode("ascii")),
    UUID: (UUID_, lambda value: value.bytes),
    Spilled: (SPILLED, pack_spilled),
}

#: Code -> its value, from bytes that may be anything: each raises rather than guesses.
UNPACK: Final[Mapping[int, Callable[[memoryview], Any]]] = {
    BIGINT: lambda data: int.from_bytes(data, "big", signed=True),
    SURROGATES: lambda data: bytes(data).decode("utf-8", "surrogatepass"),
    BYTEARRAY: bytearray,
    COMPLEX: _complex,
    DATETIME: _datetime,
    DATE: lambda data: date(*_DATE.unpack(data)),
    TIME: _time,
    TIMEDELTA: lambda data: timedelta(*_TIMEDELTA.unpack(data)),
    DECIMAL: lambda data: Decimal(bytes(data).decode("ascii")),
    UUID_: lambda data: UUID(bytes=bytes(data)),
}
