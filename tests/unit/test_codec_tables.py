"""Tables and Series of polars, pandas and Arrow come back as tables of the same library."""

from __future__ import annotations

import datetime as dt
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import polars.testing
import pyarrow as pa
import pytest

from rushlight._codec import Codec
from rushlight._trust import Trust
from rushlight.errors import DecodeError, MissingExtra, SecretRequired, SignatureMismatch

plain = Codec()
trusting = Codec(Trust(b"a secret of the tests", "net"))
#: Writer and reader: an unsigned table is read with more checks, so both ways must give the same.
WAYS = [(plain, plain), (trusting, trusting), (trusting, plain), (plain, trusting)]


def there_and_back(value: Any, way: tuple[Codec, Codec]) -> Any:
    """The table, written and read inside other values by the two codecs of ``way``."""
    writer, reader = way
    return reader.decode(writer.encode({"t": [value]}, "xs"))["t"][0]


POLARS = [
    pl.DataFrame(),
    pl.DataFrame({"": [1], "a": ["x"]}),
    pl.DataFrame({"a": [1, None], "b": ["x", "y" * 50], "l": [[1], []], "s": [{"k": 1.5}, None]}),
    pl.DataFrame({"c": ["a", "b"], "e": ["x", "y"]}, schema={"c": pl.Categorical, "e": pl.Enum(["x", "y"])}),
    pl.DataFrame(
        {"d": [dt.date(2024, 1, 1)], "t": np.array(["2024-01-01"], "M8[us]"), "m": [Decimal("1.50")]}
    ),
    pl.DataFrame({"z": [dt.datetime(2024, 1, 1, tzinfo=dt.UTC)], "n": [None], "b": [b"\0"]}),
    pl.DataFrame(schema={"a": pl.Int8, "l": pl.List(pl.Float32), "f": pl.Array(pl.Int8, 2)}),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("frame", POLARS, ids=lambda frame: str(frame.shape))
def test_polars_frames_come_back(frame: pl.DataFrame, way: tuple[Codec, Codec]) -> None:
    """A frame keeps its schema and values, signed or not."""
    back = there_and_back(frame, way)
    pl.testing.assert_frame_equal(back, frame)
    assert back.schema == frame.schema and back.shape == frame.shape


@pytest.mark.parametrize("way", WAYS)
def test_polars_series_come_back(way: tuple[Codec, Codec]) -> None:
    """A Series keeps its name, also the empty one."""
    for series in (pl.Series("a", [1, None]), pl.Series([["x"], []]), pl.Series("e", [], dtype=pl.Date)):
        pl.testing.assert_series_equal(there_and_back(series, way), series)


def test_polars_object_columns_are_pickled_or_refused() -> None:
    """Python objects in a frame, nested ones too, are never written as their addresses."""
    frame = pl.DataFrame({"o": [object()]}, schema={"o": pl.Object})
    with pytest.raises(SecretRequired, match=r"xs is a polars.*DataFrame"):
        plain.encode(frame, "xs")


PANDAS = [
    pd.DataFrame(),
    pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan], "s": ["x", "y"]}),
    pd.DataFrame({"a": [1, 2]}, index=["p", "q"]),
    pd.DataFrame({"a": [1, 2]}, index=pd.Index([3, 5], name="key")),
    pd.DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["i", "j"])),
    pd.DataFrame({"c": pd.Categorical(["a", "b"]), "n": pd.array([1, None], "Int64"), "b": [True, False]}),
    pd.DataFrame({"t": pd.to_datetime(["2024-01-01", "2024-01-02"]).tz_localize("Europe/Berlin")}),
    pd.DataFrame({"d": [dt.date(2024, 1, 1), None], "o": np.array(["x", None], object)}),
    pd.DataFrame({0: [1], 1: [2]}),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("frame", PANDAS, ids=lambda frame: ",".join(map(str, frame.dtypes)))
def test_pandas_frames_come_back(frame: pd.DataFrame, way: tuple[Codec, Codec]) -> None:
    """A frame keeps labels, index, dtypes and values."""
    pd.testing.assert_frame_equal(there_and_back(frame, way), frame, check_freq=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [None, "a", 3, ("a", 1)])
def test_pandas_series_come_back(name: Any, way: tuple[Codec, Codec]) -> None:
    """A Series keeps its name, of whatever type, and its index."""
    series = pd.Series([1.5, 2.5], index=["x", "y"], name=name)
    pd.testing.assert_series_equal(there_and_back(series, way), series)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"o": [1, "x"]}),
        pd.DataFrame({"o": [[1], [2, 3]]}),
        pd.DataFrame({"o": np.array([1, 2], object)}),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame({"o": [{"a": 1}, {"b": 2}]}),
        pd.DataFrame({"c": [1 + 2j]}),
    ],
)
def test_pandas_tables_arrow_would_change_are_pickled(frame: pd.DataFrame) -> None:
    """What Arrow cannot give back as it was goes through a signed pickle, exactly."""
    pd.testing.assert_frame_equal(there_and_back(frame, (trusting, trusting)), frame)
    with pytest.raises(SecretRequired):
        plain.encode(frame, "xs")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "value",
    [
        pa.table({"a": [1, None], "b": ["x", "y"]}),
        pa.table({"a": pa.array([], pa.int8())}).replace_schema_metadata({"k": "v"}),
        pa.record_batch({"a": [1, 2]}),
        pa.record_batch({"a": pa.array([], pa.string())}),
        pa.chunked_array([[1], [2, 3]]),
        pa.chunked_array([], pa.int64()),
        pa.array(["x", None]).dictionary_encode(),
        pa.array([], pa.float32()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arrow_tables_and_arrays_come_back(value: Any, way: tuple[Codec, Codec]) -> None:
    """Tables, batches and arrays keep type, schema and metadata."""
    back = there_and_back(value, way)
    assert type(back) is type(value) and back.equals(value)
    if isinstance(value, pa.Table):
        assert back.schema.equals(value.schema, check_metadata=True)


def test_a_signed_table_of_another_secret_is_refused() -> None:
    """A reader with a secret does not take tables that somebody else signed."""
    other = Codec(Trust(b"another", "net"))
    with pytest.raises(SignatureMismatch):
        trusting.decode(other.encode(pl.DataFrame({"a": [1]}), "xs"))


def test_a_missing_library_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a table of a library that is not installed says what to install."""
    frames = {
        "polars": pl.DataFrame({"a": [1]}),
        "pandas": pd.DataFrame({"a": [1]}),
        "pyarrow": pa.table({"a": [1]}),
    }
    for library, frame in frames.items():
        encoded = trusting.encode(frame, "xs")
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, library, None)
            with pytest.raises(MissingExtra, match=f"{library}.*pip install") as caught:
                trusting.decode(encoded)
            assert caught.value.extra == library  # type: ignore[attr-defined]


def test_without_pyarrow_pandas_tables_are_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing falls back to a signed pickle, and without a secret says what to install."""
    frame = pd.DataFrame({0: [1]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert trusting.decode(trusting.encode(frame, "xs")).equals(frame)
    with pytest.raises(MissingExtra, match="pip install"):
        plain.encode(frame, "xs")


def test_an_arrow_type_that_would_unpickle_is_refused() -> None:
    """The extension type behind CVE-2023-47248 is refused before Arrow sees it."""
    field = pa.field("a", pa.int64(), metadata={"ARROW:extension:name": "arrow.py_extension_type"})
    with pytest.raises(DecodeError, match="unpickles"):
        plain.decode(plain.encode(pa.table([pa.array([1])], schema=pa.schema([field])), "xs"))
