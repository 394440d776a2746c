"""Whatever bytes arrive, decoding gives a value or a CodecError: no other error, crash or huge allocation."""

from __future__ import annotations

import datetime as dt
import decimal
import random
import struct
import subprocess
import sys
import uuid
import zlib
from contextlib import suppress
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rushlight import _ext as ext
from rushlight import _frozen, _large
from rushlight._codec import Codec, Spilled, register_type
from rushlight._trust import Trust
from rushlight.errors import CodecError, DecodeError

plain = Codec()
trusting = Codec(Trust(b"a secret of the tests", "net"))
CODES = sorted(value for name, value in vars(ext).items() if type(value) is int and name.isupper())
Ext = msgspec.msgpack.Ext
pack = msgspec.msgpack.encode


@register_type
class Shade(Enum):
    DARK = 1


ORIGINALS: list[Any] = [
    {"a": (1, 2.5, "x"), (1,): {2}, "b": frozenset({b"x"})},
    [2**70, "\ud800", bytearray(b"ab"), 1j, dt.date(2024, 1, 1), dt.timedelta(1)],
    [dt.datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), dt.time(1, tzinfo=dt.UTC)],
    [decimal.Decimal("1.5"), uuid.UUID(int=7), Shade.DARK, Spilled("00" * 16, 5)],
    [np.arange(4.0), np.float64(1), np.array(["a", b"b"], object), np.str_("x"), np.datetime64("2024-01-01")],
    [np.zeros(2, [("a", "f8"), ("b", "S2", (2,))]), np.array(["x"], np.dtypes.StringDType())],
]
ENCODED = [plain.encode(value, "xs") for value in ORIGINALS] + [trusting.encode(ValueError("x"), "xs")]


def read(data: bytes) -> None:
    """Decode every way there is; CodecErrors are fine, anything else is not."""
    for codec in (plain, trusting):
        with suppress(CodecError):
            codec.decode(data)
        with suppress(CodecError):
            codec.decode_rows([data, data], 12)


def framed(code: int, header: Any, data: bytes = b"") -> bytes:
    """An Ext element with a header of its own, as arrays and tables have."""
    head = pack(header)
    return pack(Ext(code, len(head).to_bytes(4, "big") + head + data))


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xa1\xff")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc7\x0c\xff" + b"\xff" * 12)
@example(b"\x91" * 100000 + b"\xc0")
def test_any_bytes(data: bytes) -> None:
    """Arbitrary bytes never raise anything but a CodecError."""
    read(data)


@given(st.sampled_from(CODES), st.binary(max_size=60))
def test_any_payload_of_any_code(code: int, payload: bytes) -> None:
    """Every Ext form stands arbitrary payloads, alone, as a key and inside other forms."""
    element = pack(Ext(code, payload))
    for data in (element, b"\x81" + element + b"\x01", pack(Ext(ext.TUPLE, b"\x91" + element))):
        read(data)


@given(st.binary(max_size=60) | st.lists(st.binary(max_size=9) | st.integers(0, 9)).map(pack))
@example(b"\x92\xa1\xff\x01")
def test_any_manifest(data: bytes) -> None:
    """What stands for a large object, and a record of an archive, may be anything too."""
    for kind in (tuple[int, int], tuple[str, str, str, int]):
        with suppress(CodecError):
            _large._told(data, kind)
    with suppress(CodecError):
        _frozen.Record.unpack(zlib.crc32(data).to_bytes(4, "big") + data)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
specs = st.recursive(
    st.sampled_from(
        ["<f8", "|b1", "O", "T", "str", "<U2", "|S0", "|V999999999", "<f16/63", "<M8[3s]", "f8", "object"]
    )
    | values,
    lambda inner: st.tuples(
        st.integers(-1, 2**64 - 1) | st.integers(0, 64),
        st.lists(
            st.tuples(st.text(max_size=2), inner, st.integers(-1, 64), values, st.lists(st.integers(-1, 9))),
            max_size=3,
        ),
    ),
    max_leaves=4,
)


@given(
    specs,
    st.lists(st.integers(-1, 4) | st.integers(2**31, 2**63), max_size=4) | values,
    st.binary(max_size=40),
)
def test_any_array_header(spec: Any, shape: Any, data: bytes) -> None:
    """No dtype, shape or length that does not fit the bytes gets as far as an allocation."""
    read(framed(ext.NDARRAY, (spec, shape), data))
    read(framed(ext.NPSCALAR, (spec,), data))


@given(st.lists(values, max_size=4))
def test_any_class_or_table_header(parts: list[Any]) -> None:
    """Registered classes and tables stand any header."""
    read(pack(Ext(ext.ENUM, pack(parts))))
    read(pack(Ext(ext.DATACLASS, pack(parts))))
    read(framed(ext.TABLE, parts, b"data"))


@given(
    st.sampled_from(ENCODED),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_changed_bytes(encoded: bytes, changes: list[tuple[int, int]]) -> None:
    """Valid encodings with some bytes changed, or cut short, never raise anything but a CodecError."""
    changed = bytearray(encoded)
    for at, byte in changes:
        changed[at % len(changed)] = byte
    read(bytes(changed))
    read(encoded[: changes[0][0] % len(encoded)])


@pytest.mark.parametrize(
    "data",
    [
        framed(ext.NDARRAY, ("<f8", [2**40])),
        framed(ext.NDARRAY, ("<f8", [2**32, 2**32]), b"x" * 8),
        framed(ext.NDARRAY, ("|V999999999", [0])),
        framed(ext.NDARRAY, ("<f8", [2**62, 0, 2**62])),
        framed(ext.NDARRAY, ("O", [2**40]), b"\x90"),
        framed(ext.NDARRAY, ("<f8", [1] * 100), b"x" * 8),
        framed(ext.NDARRAY, ([2**40, [["a", "<f8", 0, None, []]]], [1]), b"x" * 8),
        framed(ext.NDARRAY, ([8, [["a", "<f8", 0, None, [2**40]]]], [1]), b"x" * 8),
        framed(ext.NDARRAY, ([8, [["a", "O", 0, None, []]]], [1]), b"x" * 8),
        framed(ext.NDARRAY, ("O8", [1]), b"x" * 8),
        framed(ext.NDARRAY, ("|O", [1]), b"x" * 8),
        framed(ext.NDARRAY, ("<f16/7", [1]), b"x" * 16),
        pack(Ext(ext.DATETIME, struct.pack(">HBBBBBIB", 2024, 1, 1, 0, 0, 0, 0, 0) + b"Z../../etc/passwd")),
        pack(Ext(ext.DATETIME, struct.pack(">HBBBBBIB", 2024, 1, 1, 0, 0, 0, 0, 0) + b"ZNo/Such_Zone")),
        pack(Ext(ext.DATETIME, struct.pack(">HBBBBBIB", 2024, 1, 1, 0, 0, 0, 0, 0) + b"ZEurope")),
        pack(Ext(ext.TIMEDELTA, struct.pack(">iii", 2**31 - 1, 0, 0))),
        pack(Ext(ext.DECIMAL, b"1e99999999999999999999999")),
        pack(Ext(ext.SET, pack([[1]]))),
        pack(Ext(ext.PAIRS, pack([1]))),
        pack(Ext(ext.PAIRS, pack([[], 1]))),
        pack(Ext(99, b"")),
        framed(ext.TABLE, ("polars.DataFrame", None, True), b"RL\x01"),
        framed(ext.TABLE, ("polars.DataFrame", None, False), b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
    ],
)
def test_known_traps_are_decode_errors(data: bytes) -> None:
    """Declared sizes, dtypes, zones and numbers that lie are refused, in little memory."""
    with pytest.raises(CodecError):
        plain.decode(data)


def nested(code: int, depth: int) -> bytes:
    """Ext elements of one code, each the payload of the next."""
    data = b"\x90"
    for _ in range(depth):
        data = b"\x91" + pack(Ext(code, data))
    return data


def test_nesting_without_end_is_a_decode_error() -> None:
    """Ext elements inside each other for ever end in a DecodeError, not in a crash."""
    for code in (ext.TUPLE, ext.SET, ext.PAIRS, ext.FROZENSET):
        with pytest.raises(DecodeError):
            plain.decode(nested(code, 5000))


def test_an_unverified_pickle_is_never_loaded() -> None:
    """A pickle without a good signature does not run, wherever it is put."""
    bomb = b"cbuiltins\nexec\n(Vraise SystemExit('it ran')\ntR."
    for payload in (bomb, Trust(b"other", "net").seal("value", bomb), trusting.trust.seal("table", bomb)):  # type: ignore[union-attr]
        for codec in (plain, trusting):
            with pytest.raises(CodecError):
                codec.decode(pack(Ext(ext.PICKLE, payload)))
    with pytest.raises(SystemExit, match="it ran"):
        trusting.decode(pack(Ext(ext.PICKLE, trusting.trust.seal("value", bomb))))  # type: ignore[union-attr]


BOMBS = r"""
import io, resource, sys, time
import msgspec, numpy as np, pandas, polars, pyarrow as pa
from rushlight import _ext as ext
from rushlight._codec import Codec
from rushlight.errors import CodecError

def framed(code, header, data=b""):
    head = msgspec.msgpack.encode(header)
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, len(head).to_bytes(4, "big") + head + data))

def stream(table, compression=None):
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()

def of(kind, column, compression=None):
    return framed(ext.TABLE, (kind, None, False), stream(pa.table({"a": column}), compression))

MANY = 300_000_000
bombs = {
    "array": b"\xdd\xff\xff\xff\xff" + b"\xc0" * 10,
    "map": b"\xdf\xff\xff\xff\xff" + b"\xa1a\xc0",
    "text": b"\xdb\xff\xff\xff\xffx",
    "bytes": b"\xc6\xff\xff\xff\xffx",
    "extension": b"\xc9\xff\xff\xff\xff\x01x",
    "arrays in arrays": b"\xdd\xff\xff\xff\xff" * 100_000,
    "maps in maps": b"\xdf\xff\xff\xff\xff\xa1a" * 100_000,
    "tuple": msgspec.msgpack.encode(msgspec.msgpack.Ext(ext.TUPLE, b"\xdd\xff\xff\xff\xff")),
    "shape": framed(ext.NDARRAY, ("<f8", [1 << 62, 4]), bytes(8)),
    "objects": framed(ext.NDARRAY, ("O", [1 << 40]), b"\x90"),
    "item": framed(ext.NDARRAY, ("|V999999999", [0, 1 << 60])),
    "nulls": of("pandas.DataFrame", pa.nulls(MANY)),
    "nulls in a list": of(
        "pandas.DataFrame", pa.ListArray.from_arrays(pa.array([0, MANY], pa.int32()), pa.nulls(MANY))
    ),
    "runs": of(
        "pandas.DataFrame", pa.RunEndEncodedArray.from_arrays(pa.array([MANY], pa.int32()), pa.array([1.0]))
    ),
    "nothing, often": of("pandas.Series", pa.Array.from_buffers(pa.struct([]), MANY, [None])),
    "empty bytes, often": of(
        "pandas.DataFrame", pa.Array.from_buffers(pa.binary(0), MANY, [None, pa.py_buffer(b"")])
    ),
    "views of one text": of(
        "pandas.DataFrame",
        pa.Array.from_buffers(
            pa.string_view(),
            3000,
            [
                None,
                pa.py_buffer(np.array([(10**6, b"xxxx", 0, 0)] * 3000, "i4,S4,i4,i4").tobytes()),
                pa.py_buffer(b"x" * 10**6),
            ],
        ),
    ),
    "entries of one text": of(
        "pandas.DataFrame",
        pa.ListArray.from_arrays(
            pa.array([0, 10**5], pa.int32()),
            pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**5, np.int8)), pa.array(["x" * 10**5])),
        ),
    ),
}
zeros = pa.array(np.zeros(20_000_000))
for library in ("pyarrow.Table", "pandas.DataFrame", "polars.DataFrame"):
    for compression in ("zstd", "lz4"):
        bombs[f"{compression} for {library}"] = of(library, zeros, compression)
words = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array(["x" * 10**8]))
bombs["zstd in a dictionary"] = of("pandas.DataFrame", words, "zstd")
del zeros, words

def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

limit = used() + (150 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name, data in bombs.items():
    began = time.process_time()
    try:
        Codec().decode(data)
        print(name, "was read")
    except CodecError as error:
        if isinstance(error.__cause__, MemoryError) or "memory" in str(error).lower():
            print(name, error)
    except BaseException as error:
        print(name, type(error), error)
    if time.process_time() - began > 5:
        print(name, "took", time.process_time() - began)
print("survived", len(bombs))
"""


def test_bombs_do_not_go_off() -> None:
    """A few bytes that claim to be gigabytes are refused, within 150 MB beyond what the process had."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BOMBS],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.strip() == "survived 25", done.stdout + done.stderr[-2000:]


def test_tables_with_little_in_them_are_no_bombs() -> None:
    """Nulls, categories, empty frames: what has few bytes for good reasons can be read unsigned."""
    import pandas as pd
    import polars as pl

    words = pd.Categorical(["long" * 100, "short"] * 5000)
    for frame in (
        pd.DataFrame({"n": [None] * 100_000}),
        pd.DataFrame({"c": words, "i": range(10_000)}),
        pd.DataFrame(index=range(1000)),
        pd.DataFrame({"b": [True] * 1_000_000}),
    ):
        pd.testing.assert_frame_equal(frame, plain.decode(plain.encode(frame, "xs")))
    for table in (pl.DataFrame({"n": [None] * 2_000_000}), pl.DataFrame({"s": ["long" * 100] * 10_000})):
        assert table.equals(plain.decode(plain.encode(table, "xs")))


FUZZ = """
import random, resource, sys
from rushlight._codec import Codec
from rushlight._trust import Trust
from rushlight.errors import CodecError
import polars, pandas
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
codecs = [Codec(), Codec(Trust(b"s", "n"))]
for line in sys.stdin:
    seed, original = line.split()
    rng = random.Random(int(seed))
    for _ in range(400):
        data = bytearray(bytes.fromhex(original))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        for codec in codecs:
            try:
                codec.decode(bytes(data))
            except CodecError:
                pass
print("survived")
"""


def test_changed_tables_never_end_the_process() -> None:
    """Changed table bytes, signed or not, neither abort the reader's process nor exhaust its memory."""
    import pandas as pd
    import polars as pl

    columns = {"a": [1, 2, 3], "s": ["x", None, "zz"]}
    tables = [
        pl.DataFrame({**columns, "l": [[1], [2, 3], None]}),
        pd.DataFrame(columns),
        pa.table({**columns, "d": pa.array(["x", "y", "x"]).dictionary_encode()}),
    ]
    lines = [
        f"{random.Random(at).randrange(10**9)} {codec.encode(table, 'xs').hex()}"
        for at, (table, codec) in enumerate(
            (table, codec) for table in tables for codec in (plain, Codec(Trust(b"s", "n")))
        )
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FUZZ],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.strip() == "survived", done.stderr[-2000:]
