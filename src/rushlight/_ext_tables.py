"""Polars, pandas and Arrow tables as Arrow IPC streams, and back.

Owns which tables Arrow keeps exactly, and which reader may see which bytes. Polars' own IPC reader
aborts the process on hostile bytes, so it is given only streams whose signature has verified; all
others go through pyarrow, which checks them in full, and may not claim more than their bytes hold.
Imports a table library only to read a table of that library.
"""

from __future__ import annotations

import importlib
import io
import struct
import sys
from datetime import date
from typing import Any, Final

from .errors import MissingExtra

POLARS_FRAME: Final = "polars.DataFrame"
POLARS_SERIES: Final = "polars.Series"
PANDAS_FRAME: Final = "pandas.DataFrame"
PANDAS_SERIES: Final = "pandas.Series"
ARROW_TABLE: Final = "pyarrow.Table"
ARROW_BATCH: Final = "pyarrow.RecordBatch"
ARROW_CHUNKED: Final = "pyarrow.ChunkedArray"
ARROW_ARRAY: Final = "pyarrow.Array"

#: An Arrow extension type of pyarrow < 14.0.1 that unpickles its metadata when read (CVE-2023-47248).
_PICKLING_TYPE: Final = b"arrow.py_extension_type"
#: Elements a table of few bytes may have all the same: columns of nothing but nulls have no bytes.
_FEW_ELEMENTS: Final = 1 << 20
#: Beginnings of the names of types that say one thing many times, and so are larger as Python objects.
_REPEATING: Final = ("run_end_encoded", "string_view", "binary_view", "list_view", "large_list_view")
#: Content of an object column that Arrow gives back as the same Python objects.
_OBJECTS_KEPT: Final = ({str}, {bytes}, {date})


def pack(value: Any) -> tuple[str, Any, bytes] | None:
    """Kind, name (of a Series) and IPC stream; None for a value Arrow would not give back as it was.

    Raises MissingExtra for a pandas table without pyarrow.
    """
    library = type(value).__module__.partition(".")[0]
    if library == "polars":
        return _pack_polars(value)
    if library == "pandas":
        return _pack_pandas(value)
    return _pack_arrow(value)


def unpack(kind: str, name: Any, data: bytes, *, verified: bool) -> Any:
    """The table. ``data`` may be anything unless ``verified``; what cannot be read raises."""
    if kind == POLARS_FRAME:
        return _polars(data, verified)
    if kind == POLARS_SERIES:
        return _polars(data, verified).to_series(0)
    table = _read(data, verified=verified)
    if kind in (PANDAS_FRAME, PANDAS_SERIES):
        _library("pandas", "rushlight[pandas]")
        if not verified:
            _check_growth(table, len(data))
        frame = table.to_pandas()
        return frame if kind == PANDAS_FRAME else frame.iloc[:, 0].rename(name)
    if kind == ARROW_TABLE:
        return table
    if kind == ARROW_BATCH:
        return _only_batch(table)
    if kind == ARROW_CHUNKED:
        return table.column(0)
    if kind == ARROW_ARRAY:
        return _only_array(table)
    raise ValueError("not a kind of table")


def _library(name: str, install: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"a table of {name} needs it installed: pip install '{install}'"
        raise MissingExtra(message, extra=name) from error


def _pack_polars(value: Any) -> tuple[str, Any, bytes] | None:
    pl = sys.modules["polars"]
    if type(value) is pl.Series:
        kind, frame = POLARS_SERIES, value.to_frame()
    elif type(value) is pl.DataFrame:
        kind, frame = POLARS_FRAME, value
    else:
        return None
    # Python objects would be written as their addresses.
    if any(_holds_objects(pl, dtype) for dtype in frame.dtypes):
        return None
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return kind, None, buffer.getvalue()


def _holds_objects(pl: Any, dtype: Any) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(_holds_objects(pl, field.dtype) for field in dtype.fields)
    inner = getattr(dtype, "inner", None)
    return bool(dtype == pl.Object) or (inner is not None and _holds_objects(pl, inner))


def _polars(data: bytes, verified: bool) -> Any:
    pl = _library("polars", "rushlight")
    if verified:
        return pl.read_ipc_stream(io.BytesIO(data))
    table = _read(data, verified=False)
    names = table.column_names
    try:
        frame = pl.from_arrow(table)
    except pl.exceptions.PanicException as error:
        # Not an Exception, so it would end a worker; it comes of names that are no text.
        raise ValueError("polars cannot read the table") from error
    frame.columns = names
    return frame


def _pack_pandas(value: Any) -> tuple[str, Any, bytes] | None:
    pd = sys.modules["pandas"]
    if type(value) is pd.Series:
        kind, name, frame = PANDAS_SERIES, value.name, value.rename("0").to_frame()
    elif type(value) is pd.DataFrame:
        kind, name, frame = PANDAS_FRAME, None, value
    else:
        return None
    pa = _library("pyarrow", "rushlight[pandas]")
    if not all(_objects_kept(frame.iloc[:, at]) for at in range(frame.shape[1])):
        return None
    try:
        table = pa.Table.from_pandas(frame)
        if any(map(_repeats, table.schema.types)):
            return None
        if not _same_schema(table.slice(0, 0).to_pandas(), frame):
            return None
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError):
        return None
    return kind, name, _stream(pa, table)


def _objects_kept(column: Any) -> bool:
    return column.dtype != object or set(map(type, column)) - {type(None)} in (set(), *_OBJECTS_KEPT)


def _same_schema(back: Any, frame: Any) -> bool:
    """Whether a table read back (without its rows) has the labels and types of the one written."""
    same_index = type(back.index) is type(frame.index) and (
        back.index.dtype == frame.index.dtype and list(back.index.names) == list(frame.index.names)
    )
    same_columns = back.columns.equals(frame.columns) and (
        back.columns.dtype == frame.columns.dtype and list(back.columns.names) == list(frame.columns.names)
    )
    return bool(
        same_index and same_columns and list(back.dtypes) == list(frame.dtypes) and back.attrs == frame.attrs
    )


def _pack_arrow(value: Any) -> tuple[str, Any, bytes] | None:
    pa = sys.modules["pyarrow"]
    if isinstance(value, pa.Table):
        return ARROW_TABLE, None, _stream(pa, value)
    if isinstance(value, pa.RecordBatch):
        return ARROW_BATCH, None, _stream(pa, pa.Table.from_batches([value]))
    if isinstance(value, pa.ChunkedArray):
        return ARROW_CHUNKED, None, _stream(pa, pa.table({"0": value}))
    if isinstance(value, pa.Array):
        return ARROW_ARRAY, None, _stream(pa, pa.table({"0": value}))
    return None


def _stream(pa: Any, table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _read(data: bytes, *, verified: bool) -> Any:
    pa = _library("pyarrow", "rushlight[arrow]")
    if _PICKLING_TYPE in data:
        raise ValueError("an Arrow type that unpickles when it is read")
    if not verified:
        _check_plain(pa, data)
    table = pa.ipc.open_stream(data).read_all()
    if not verified:
        table.validate(full=True)
    return table


def _only_batch(table: Any) -> Any:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else sys.modules["pyarrow"].RecordBatch.from_pylist([], schema=table.schema)


def _only_array(table: Any) -> Any:
    column = table.column(0)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


# --- what unverified bytes may claim --------------------------------------------------------------------


def _check_plain(pa: Any, data: bytes) -> None:
    """Refuses compressed bodies, before one is unpacked: a few bytes could become any number."""
    for message in pa.ipc.MessageReader.open_stream(data):
        if message.type in ("record batch", "dictionary") and _is_compressed(bytes(message.metadata)):
            raise ValueError("a compressed table, which nobody has signed")


def _is_compressed(metadata: bytes) -> bool:
    """Whether a batch's FlatBuffers metadata has the field ``compression``. pyarrow does not tell."""

    def field(table: int, number: int) -> int:
        layout = table - struct.unpack_from("<i", metadata, table)[0]
        (size,) = struct.unpack_from("<H", metadata, layout)
        if 4 + 2 * number >= size:
            return 0
        (offset,) = struct.unpack_from("<H", metadata, layout + 4 + 2 * number)
        return table + int(offset) if offset else 0

    def pointed_to(at: int) -> int:
        return at + int(struct.unpack_from("<I", metadata, at)[0])

    message = pointed_to(0)
    batch = pointed_to(field(message, 2))
    if metadata[field(message, 1)] == 2:  # a dictionary holds its batch
        batch = pointed_to(field(batch, 1))
    return field(batch, 3) != 0


def _check_growth(table: Any, size: int) -> None:
    """Refuses tables that would be far larger as pandas objects than their ``size`` in bytes."""
    if any(map(_repeats, table.schema.types)):
        raise ValueError("a table with a type that says one thing many times, which nobody has signed")
    limit = 8 * size + _FEW_ELEMENTS
    if sum(_elements(chunk) for column in table.columns for chunk in column.chunks) > limit:
        raise ValueError("a table that claims more elements than it has bits")


def _repeats(kind: Any, *, nested: bool = False) -> bool:
    """Whether values of an Arrow type may share bytes that pandas would copy for each."""
    if str(kind).startswith(_REPEATING) or (nested and hasattr(kind, "index_type")):
        return True
    inner = [kind.field(at).type for at in range(kind.num_fields)] if kind.num_fields else []
    inner += [getattr(kind, name) for name in ("value_type", "storage_type") if hasattr(kind, name)]
    return any(_repeats(part, nested=True) for part in inner)


def _elements(array: Any) -> int:
    """How many elements an Arrow array has on all its levels."""
    kind = array.type
    if hasattr(kind, "storage_type"):
        return _elements(array.storage)
    if hasattr(array, "dictionary"):
        inner = [array.dictionary]
    elif hasattr(array, "values"):
        inner = [array.values]
    else:
        inner = [array.field(at) for at in range(kind.num_fields)]
    return len(array) + sum(map(_elements, inner))
