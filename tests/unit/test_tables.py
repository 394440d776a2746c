"""Tables: what they contain, that they agree in every form, and that a held one never changes."""

from __future__ import annotations

import copy
import datetime as dt
import functools
import json
import subprocess
import sys
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight._codec import Spilled
from rushlight._record_decoder import Names, _fields_type
from rushlight._records import Row, Task, TaskState, WorkerInfo, WorkerState
from rushlight._tables import FinishedTable, StatedRow, build_table, to_task, worker_table
from rushlight.errors import ConfigError, MissingExtra

FIXED = ["key", "worker_id", "created_at", "started_at", "finished_at"]
SECOND = 1_000_000
START = 1_700_000_000 * SECOND


def make_row(i: int, xs: dict[str, Any], ys: dict[str, Any] | None = None, **parts: Any) -> list[Any]:
    """A decoded row of a finished task."""
    row = Row(
        worker_id="brave-otter-1",
        attempt=1,
        opts=None,
        key=f"k{i}",
        xs=xs,
        xs_extra=None,
        created=START + i,
        seq=i + 1,
        started=START + i + SECOND,
        finished=START + i + 2 * SECOND,
        ys=ys,
        ys_extra=None,
    )
    return list(row._replace(**parts))


def table_of(*xss: dict[str, Any], **kw: Any) -> FinishedTable:
    """The table of tasks with these inputs."""
    table = FinishedTable(**kw)
    table.extend([make_row(i, xs, {"y": float(i)}) for i, xs in enumerate(xss)])
    return table


def column(values: list[Any], as_: str = "polars") -> Any:
    """The column of these values, of a table in this form."""
    return table_of(*({"v": value} for value in values)).table(as_)["v"]


def cells(values: list[Any]) -> list[Any]:
    """What dicts give back for a column of these values."""
    return [row["v"] for row in table_of(*({"v": value} for value in values)).table("dicts")]


def records(made: Any, as_: str) -> list[dict[str, Any]]:
    """A table of any form but tasks as a list of dicts."""
    if as_ == "dicts":
        return list(made)
    if as_ == "pandas":
        return list(made.to_dict("records"))
    return list(made.to_pylist() if as_ == "arrow" else made.to_dicts())


def is_nan(value: Any) -> bool:
    """Whether a number is the one that does not equal itself."""
    return isinstance(value, float | np.floating | Decimal) and str(value).lower() == "nan"


def same(a: Any, b: Any) -> bool:
    """Equal with the same types, NaN being equal to itself."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float | Decimal) and isinstance(b, float | Decimal) and is_nan(a) and is_nan(b):
        return type(a) is type(b)
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Task) and isinstance(b, Task):
        return all(same(getattr(a, name), getattr(b, name)) for name in Task.__slots__)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and bool(a == b)


# --- columns ---------------------------------------------------------------------------------------


def test_columns_are_key_inputs_results_extras_then_worker_and_times() -> None:
    """The columns are the key, the inputs, the results, the extras by name, the worker and the times."""
    table = FinishedTable()
    table.extend([make_row(0, {"b": 1.0, "a": 2.0}, {"y": 3.0}, xs_extra={"p": "q"}, ys_extra={"t": True})])
    frame = table.table()
    assert frame.columns == [
        "key",
        "b",
        "a",
        "y",
        "p",
        "t",
        "worker_id",
        "created_at",
        "started_at",
        "finished_at",
    ]
    assert frame.row(0) == ("k0", 1.0, 2.0, 3.0, "q", True, "brave-otter-1", 1.7e9, 1.7e9 + 1, 1.7e9 + 2)


@pytest.mark.parametrize("as_", ["polars", "pandas", "arrow", "dicts", "tasks"])
def test_an_empty_table_has_the_fixed_columns(as_: str) -> None:
    """A network without finished tasks gives a table without rows in every form."""
    made = FinishedTable().table(as_)
    assert len(made) == 0
    if as_ == "polars":
        assert made.schema == dict(zip(FIXED, [pl.String, pl.String, *[pl.Float64] * 3], strict=True))
    if as_ == "pandas":
        assert list(made.columns) == FIXED
        assert made.dtypes["created_at"] == np.float64
    if as_ == "arrow":
        assert made.column_names == FIXED
        assert made.schema.field("created_at").type == pa.float64()


def test_a_time_that_has_not_come_is_null() -> None:
    """Where a thing has not happened its time is null, as is the worker nobody was."""
    table = FinishedTable()
    table.extend(
        [make_row(0, {"x": 1}, {"y": 2}, started=0, worker_id=None), make_row(1, {"x": 1}, {"y": 2})]
    )
    for made in (table.table("dicts"), table.table().to_dicts()):
        assert made[0]["started_at"] is None
        assert made[0]["worker_id"] is None
        assert made[1]["started_at"] == (START + 1 + SECOND) / 1e6


def test_names_of_several_groups_get_suffixes() -> None:
    """A name that inputs and results share gets the suffix of its group in both."""
    table = FinishedTable()
    table.extend([make_row(0, {"a": 1, "b": 2}, {"a": 3}, xs_extra={"a": 4, "c": 5}, ys_extra={"a": 6})])
    [row] = table.table("dicts", fields=["a_xs", "b", "a_ys", "a_xs_extra", "c", "a_ys_extra"])
    assert list(row.values()) == [1, 2, 3, 4, 5, 6]
    assert "a" not in table.table().columns


def test_names_of_our_own_columns_get_suffixes() -> None:
    """An input called like a fixed column keeps its value under the suffixed name."""
    table = FinishedTable()
    table.extend([make_row(0, {"key": "mine", "state": 1}, {"worker_id": "w"})])
    [row] = table.table("dicts")
    assert (row["key"], row["key_xs"], row["worker_id_ys"], row["state"]) == ("k0", "mine", "w", 1)
    [row] = table.table_with([], "dicts")
    assert (row["state"], row["state_xs"]) == ("finished", 1)
    assert table.table_with([]).to_dicts() == [row]


def test_a_suffixed_name_that_collides_is_still_unique() -> None:
    """A suffix that makes a name somebody has is added once more; nobody's own name changes for it."""
    table = FinishedTable()
    table.extend([make_row(0, {"y": 1, "y_xs": 2}, {"y": 3})])
    [row] = table.table("dicts")
    assert (row["y_xs"], row["y_xs_xs"], row["y_ys"]) == (2, 1, 3)


def test_a_collision_that_comes_later_renames_later_tables_only() -> None:
    """A held table keeps its names when a later task brings a second column of that name."""
    table = table_of({"a": 1})
    held = table.table()
    table.extend([make_row(1, {"a": 2}, {"a": 3.0})])
    assert "a" in held.columns
    assert table.table()["a_xs"].to_list() == [1, 2]
    assert table.table()["a_ys"].to_list() == [None, 3.0]
    assert table.table("dicts")[0]["a_xs"] == 1


@pytest.mark.parametrize("as_", ["polars", "pandas", "arrow", "dicts"])
def test_fields_choose_the_columns_and_their_order(as_: str) -> None:
    """Exactly the named columns come, in that order; a name no column has is a column of nulls."""
    made = table_of({"a": 1, "b": 2}, {"a": 3, "b": 4}).table(as_, ["b", "nobody", "key"])
    rows = records(made, as_)
    assert rows == [{"b": 2, "nobody": None, "key": "k0"}, {"b": 4, "nobody": None, "key": "k1"}]
    assert list(rows[0]) == ["b", "nobody", "key"]


@pytest.mark.parametrize("fields", ["key", ["key", 1], {"key"}, ["a", "b", "a"], 3])
def test_fields_that_are_no_list_of_different_names_are_refused(fields: Any) -> None:
    """A string, a set, other types and repeated names raise an error that shows them."""
    with pytest.raises(ConfigError, match="fields="):
        FinishedTable().table("polars", fields)
    with pytest.raises(ConfigError, match="fields="):
        build_table([], "dicts", fields, state_column=True)


@pytest.mark.parametrize("as_", ["table", None, "Polars", ["polars"]])
def test_an_unknown_form_is_refused_with_the_forms_there_are(as_: Any) -> None:
    """The error lists the five forms."""
    for ask in (
        FinishedTable().table,
        lambda form: build_table([], form),
        lambda form: worker_table([], form),
    ):
        with pytest.raises(ConfigError, match="polars, pandas, arrow, dicts, tasks"):
            ask(as_)


def test_start_gives_the_rows_from_there_on() -> None:
    """A table from a row on is the end of the whole table, with the same columns and types."""
    table = FinishedTable()
    for i in range(25):
        table.extend([make_row(i, {"x": i} if i < 20 else {"z": "s"}, {"y": float(i)})])
        table.table()
    for start in (0, 1, 19, 20, 24, 25, 30):
        tail = table.table(start=start)
        assert tail.equals(table.table()[start:])
        assert tail.schema == table.table().schema
        assert table.table("dicts", start=start) == table.table("dicts")[start:]
        assert table.table("tasks", start=start) == table.table("tasks")[start:]
        assert len(table.table("pandas", start=start)) == max(25 - start, 0)


# --- values ----------------------------------------------------------------------------------------

UTC = dt.UTC
NAIVE = dt.datetime(2026, 1, 2, 3, 4, 5, 678901)  # noqa: DTZ001 - the case without a zone
BERLIN = ZoneInfo("Europe/Berlin")
DTYPES: list[tuple[list[Any], Any]] = [
    ([1.5, None], pl.Float64),
    ([1, None, -3], pl.Int64),
    ([True, None], pl.Boolean),
    (["a", None], pl.String),
    ([b"a\0", None], pl.Binary),
    ([None, None], pl.Null),
    ([1, 2.5], pl.Float64),
    ([2**53 + 1, 2.5], pl.Object),
    ([2**63, 1], pl.Object),
    ([2**63 - 1, -(2**63)], pl.Int64),
    ([True, 1], pl.Object),
    ([1, "a"], pl.Object),
    ([np.float64(1.5), np.float64("nan")], pl.Float64),
    ([np.float64(1.5), 2.5, 1, None], pl.Float64),
    ([np.float32(1.5), None], pl.Float32),
    ([np.int8(3), None], pl.Int8),
    ([np.int64(3), 4], pl.Int64),
    ([np.uint64(2**64 - 1)], pl.UInt64),
    ([np.uint64(2**64 - 1), 1], pl.Object),
    ([np.bool_(True), False], pl.Boolean),
    ([dt.date(2026, 1, 2), None], pl.Date),
    ([NAIVE, None], pl.Datetime("us")),
    ([dt.datetime(2026, 1, 2, tzinfo=UTC), None], pl.Datetime("us", "UTC")),
    ([dt.datetime(2026, 7, 2, 5, tzinfo=BERLIN)], pl.Datetime("us", "Europe/Berlin")),
    (
        [dt.datetime(2026, 7, 2, 5, tzinfo=BERLIN), dt.datetime(2026, 1, 2, tzinfo=UTC)],
        pl.Datetime("us", "UTC"),
    ),
    ([dt.datetime(2026, 1, 2, tzinfo=UTC), NAIVE], pl.Object),
    ([dt.timedelta(days=3, microseconds=1), None], pl.Duration("us")),
    ([dt.timedelta.max], pl.Object),
    ([dt.time(1, 2, 3, 4)], pl.Time),
    ([Decimal("1.10"), Decimal(-20), None], pl.Decimal(38, 2)),
    ([Decimal("NaN")], pl.Object),
    ([Decimal("1e30"), Decimal("1e-30")], pl.Object),
    ([UUID(int=5)], pl.Object),
    ([[1.0, None], [], None], pl.List(pl.Float64)),
    ([[1, 2], [2.5]], pl.List(pl.Float64)),
    ([["a"], []], pl.List(pl.String)),
    ([[[1], []], [[2, 3]]], pl.List(pl.List(pl.Int64))),
    ([[1, "a"]], pl.Object),
    ([[], None], pl.List(pl.Null)),
    ([np.array([1.0, 2.0]), np.array([])], pl.List(pl.Float64)),
    ([np.zeros((2, 2)), None], pl.Object),
    ([np.array(1.0)], pl.Object),
    ([np.array([1.0]), [1.0]], pl.Object),
    ([(1, 2), None], pl.Object),
    ([{"a": 1}, {"b": [2]}], pl.Object),
    ([{1, 2}], pl.Object),
    ([1.5, {"a": 1}, "s", None, [1]], pl.Object),
    (["ü\0", ""], pl.String),
    (["\ud800", "a"], pl.Object),
]


@pytest.mark.parametrize(("values", "dtype"), DTYPES, ids=[repr(v)[:50] for v, _ in DTYPES])
def test_values_keep_their_type_in_a_column_that_holds_them(values: list[Any], dtype: Any) -> None:
    """A column has the narrowest type that holds every value exactly; dicts give the values."""
    assert column(values).dtype == dtype
    assert same(cells(values), values)
    after_polars = table_of(*({"v": value} for value in values))
    made = after_polars.table()
    assert same([row["v"] for row in after_polars.table("dicts")], values)
    assert (
        made["v"].null_count() == values.count(None)
        if not any(isinstance(v, np.ndarray) for v in values)
        else True
    )


@pytest.mark.parametrize(("values", "dtype"), DTYPES, ids=[repr(v)[:50] for v, _ in DTYPES])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_of_arrival_does_not_decide_the_type(
    values: list[Any], dtype: Any, backwards: bool
) -> None:
    """Rows that come one by one give the table that rows that come at once give."""
    values = values[::-1] if backwards else values
    table = FinishedTable()
    for i, value in enumerate(values):
        table.extend([make_row(i, {"v": value}, {"y": 1.0})])
        table.table()
    assert table.table()["v"].dtype == dtype
    assert same([row["v"] for row in table.table("dicts")], values)


@pytest.mark.parametrize(("values", "dtype"), DTYPES, ids=[repr(v)[:50] for v, _ in DTYPES])
def test_polars_cells_equal_the_values(values: list[Any], dtype: Any) -> None:
    """What polars shows is what was stored: numbers by value, times by instant, objects as they are."""
    for value, cell in zip(values, column(values).to_list(), strict=True):
        if isinstance(value, np.ndarray) and value.ndim == 1 and dtype != pl.Object:
            assert list(value) == cell
        elif isinstance(value, np.ndarray):
            assert same(value, cell)
        else:
            assert value == cell or (is_nan(value) and is_nan(cell))


@pytest.mark.parametrize(("values", "dtype"), DTYPES, ids=[repr(v)[:50] for v, _ in DTYPES])
def test_every_value_fits_pandas_and_arrow(values: list[Any], dtype: Any) -> None:
    """Every column has a pandas and an Arrow form of the same length, with the same missing cells."""
    series, chunked = column(values, "pandas"), column(values, "arrow")
    holes = [value is None for value in values]
    if series.dtype == object:
        assert [cell is None for cell in series] == holes
    else:
        assert series.isna().tolist() == [value is None or is_nan(value) for value in values]
    assert [cell is None for cell in chunked.to_pylist()] == holes
    if series.dtype == object and dtype != pl.String:
        assert same(list(series), values)


def test_arrow_says_which_columns_are_json() -> None:
    """Values Arrow has no type for are JSON text, and the field says so in its metadata."""
    table = table_of(
        {"v": {"a": [1, None], "b": {2}}, "w": 1.0}, {"v": (1, b"x", UUID(int=1)), "w": 2.0}, {"v": None}
    )
    made = table.table("arrow")
    assert made.schema.field("v").metadata == {b"rushlight": b"json"}
    assert made.schema.field("w").metadata is None
    texts = made["v"].to_pylist()
    assert json.loads(texts[0]) == {"a": [1, None], "b": [2]}
    assert json.loads(texts[1]) == [1, "eA==", str(UUID(int=1))]
    assert texts[2] is None


def test_pandas_columns_have_types_a_pandas_user_expects() -> None:
    """Floats with holes are NaN; integers and booleans with holes are nullable; zones stay."""
    moment = dt.datetime(2026, 7, 2, 5, tzinfo=BERLIN)
    frame = table_of(
        {"f": 1.5, "i": 2**60 + 1, "b": True, "s": "a", "t": moment, "l": [1.0]},
        {"f": None, "i": None, "b": None, "s": None, "t": None, "l": None},
    ).table("pandas")
    assert frame["f"].dtype == np.float64
    assert frame["i"].dtype == "Int64"
    assert frame["i"][0] == 2**60 + 1
    assert frame["b"].dtype == "boolean"
    assert frame["t"][0] == moment
    assert str(frame["t"].dtype.tz) == "Europe/Berlin"
    assert frame["l"][0] == [1.0]
    assert frame["s"].isna().tolist() == [False, True]


def test_a_missing_key_and_a_none_are_null_but_tasks_tell_them_apart() -> None:
    """Tables show both as null; a Task has the dict that was written."""
    table = table_of({"a": 1}, {"a": None}, {}, {"b": 2, "a": 3})
    for warm in (False, True):
        if warm:
            assert table.table()["a"].to_list() == [1, None, None, 3]
        assert [task.xs for task in table.table("tasks")] == [{"a": 1}, {"a": None}, {}, {"b": 2, "a": 3}]
        assert [row["a"] for row in table.table("dicts")] == [1, None, None, 3]


# --- holding on ------------------------------------------------------------------------------------


def grow(table: FinishedTable, n: int, start: int = 0) -> None:
    """Add rows one by one, fetching after each, so that every path of the cache is walked."""
    for i in range(start, start + n):
        table.extend([make_row(i, {"x": float(i), "o": {"i": [i]}, "l": [float(i)], "n": i}, {"y": i})])
        table.table()


def test_a_held_table_never_changes_as_tasks_arrive() -> None:
    """Tables taken at any moment are the same after many more tasks, new columns and wider types."""
    table = FinishedTable()
    held = []
    for i in range(60):
        extra = {} if i < 30 else {"new": str(i)}
        n: Any = i if i < 40 else i + 0.5 if i < 50 else "s"
        table.extend([make_row(i, {"x": float(i), "n": n, **extra}, {"y": i})])
        frame = table.table()
        held.append((frame, frame.rows(), frame.schema))
    for i, (frame, rows, schema) in enumerate(held):
        assert (frame.height, frame.rows(), frame.schema) == (i + 1, rows, schema)


def test_what_a_user_does_to_a_polars_table_stays_there() -> None:
    """In-place changes of a polars table reach neither the cache nor another table."""
    table = FinishedTable()
    grow(table, 25)
    before, reference = table.table(), copy.deepcopy(table.table("dicts"))
    mine = table.table()
    mine[0, "x"] = -1.0
    mine[3, "n"] = -1
    mine["o"][0]["i"].append("spoilt")
    mine.insert_column(0, pl.Series("mine", [0] * 25))
    mine.drop_in_place("l")
    plain = table.table(fields=["x", "n"])
    plain.extend(plain.clone())
    before["x"].to_numpy(writable=True)[0] = -1.0
    assert not table.table()["x"].rechunk().to_numpy().flags.writeable
    assert table.table("dicts") == reference
    assert before["x"][0] == 0.0
    assert before["o"][0] == {"i": [0]}
    assert table.table()["o"][0] == {"i": [0]}
    assert table.table().columns == before.columns


def test_what_a_user_does_to_a_pandas_table_stays_there() -> None:
    """A pandas table has memory and cells of its own."""
    table = FinishedTable()
    grow(table, 25)
    reference = copy.deepcopy(table.table("dicts"))
    mine, other = table.table("pandas"), table.table("pandas")
    for name in ("x", "n", "y"):
        mine[name].to_numpy()
        mine.loc[0, name] = 99
        values = mine[name].array._ndarray if hasattr(mine[name].array, "_ndarray") else None
        if values is not None and values.flags.writeable:
            values[1] = 99
    mine["o"][0]["i"].append("spoilt")
    mine["l"][0].append("spoilt")
    assert table.table("dicts") == reference
    assert other["x"][0] == 0.0
    assert other["o"][0] == {"i": [0]}
    assert other["l"][0] == [0.0]


@pytest.mark.parametrize("warm", [False, True])
def test_what_a_user_does_to_dicts_and_tasks_stays_there(warm: bool) -> None:
    """Cells of dicts and tasks that can be changed are the holder's own."""
    table = FinishedTable()
    array = np.array([1.0, 2.0])
    table.extend(
        [make_row(0, {"d": {"a": {"b": [1]}}, "l": [[1]], "s": {1}, "a": array, "t": ([1],)}, {"y": 1})]
    )
    if warm:
        table.table()
    reference = copy.deepcopy(table.table("dicts"))
    [row], [task] = table.table("dicts"), table.table("tasks")
    for cells_ in (row, task.xs):
        cells_["d"]["a"]["b"].append(2)
        cells_["l"][0].append(2)
        cells_["s"].add(2)
        cells_["a"][0] = 9.0
        cells_["t"][0].append(2)
        cells_["more"] = 1
    assert same(table.table("dicts"), reference)
    assert table.table("tasks")[0].xs["l"] == [[1]]


def test_clear_forgets_and_held_tables_stay() -> None:
    """After clear the table is empty and takes other columns."""
    table = table_of({"a": 1})
    held = table.table()
    table.clear()
    assert len(table) == 0
    assert table.table().columns == FIXED
    table.extend([make_row(0, {"b": "x"}, {"y": 1})])
    assert table.table()["b"].to_list() == ["x"]
    assert held["a"].to_list() == [1]


# --- batches ---------------------------------------------------------------------------------------

values_strategy = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([2**53 + 1, 2**70, -(2**62)]),
    st.floats(width=32),
    st.text(max_size=3),
    st.binary(max_size=2),
    st.lists(st.one_of(st.integers(-3, 3), st.floats(0, 1), st.none()), max_size=3),
    st.builds(np.float64, st.floats(0, 1)),
    st.builds(np.int16, st.integers(-9, 9)),
    st.sampled_from([Decimal("1.5"), Decimal(10), dt.date(2026, 1, 1), NAIVE, (1, [2]), {"k": 1}]),
)
names_strategy = st.sampled_from(["a", "b", "y", "key", "a_xs"])
dicts_strategy = st.dictionaries(names_strategy, values_strategy, max_size=4)


@st.composite
def row_lists(draw: st.DrawFn) -> list[list[Any]]:
    """Rows of tasks, uniform or of any keys and types, some with extras and without times."""
    n = draw(st.integers(0, 12))
    uniform = draw(st.booleans())
    rows = []
    for i in range(n):
        xs = {"a": draw(st.floats(0, 1)), "b": draw(st.integers(0, 9))} if uniform else draw(dicts_strategy)
        extra = None if uniform else draw(st.none() | dicts_strategy)
        started = START if uniform else draw(st.sampled_from([0, START]))
        opts = draw(st.sampled_from([None, {"seed": 7}]))
        ys = {"y": draw(st.floats(0, 1))} if uniform else draw(st.none() | dicts_strategy)
        rows.append(make_row(i, xs, ys, xs_extra=extra, started=started, opts=opts, attempt=1 + i % 2))
    return rows


def as_read(rows: list[list[Any]], names: Names | None) -> list[list[Any]]:
    """The rows as a codec decodes them that was told these names."""
    if names is None or any(named_in(row) != names for row in rows):
        return rows
    sides = (4, 5, 10, 11)
    return [
        [
            part if at not in sides or part is None else objects(names)[at](*part.values())
            for at, part in enumerate(row)
        ]
        for row in rows
    ]


def named_in(row: list[Any]) -> Names:
    """The names a row has, in the order of a record."""
    return tuple(None if row[at] is None else tuple(row[at]) for at in (4, 5, 10, 11))


@functools.cache
def objects(names: Names) -> dict[int, Any]:
    """The types of what stands in the place of dicts; for each set of names others."""
    return dict(zip((4, 5, 10, 11), map(_fields_type, names), strict=True))


@settings(max_examples=150, deadline=None)
@given(rows=row_lists(), data=st.data())
def test_a_table_does_not_depend_on_how_its_rows_came(rows: list[list[Any]], data: st.DataObject) -> None:
    """Any split into batches, with any forms asked for between them, gives the table of all rows at once."""
    once = FinishedTable()
    once.extend(copy.deepcopy(rows))
    cut = FinishedTable()
    at = 0
    held = []
    while at < len(rows):
        step = data.draw(st.integers(1, 4))
        if data.draw(st.booleans()):
            cut.make_ready()
        few = copy.deepcopy(rows[at : at + step])
        if pack := data.draw(st.booleans()):
            few = as_read(few, cut.names(few=True))
        cut.extend(few, pack=pack)
        at += step
        form = data.draw(st.sampled_from(["polars", "dicts", "tasks", None]))
        if form:
            made = cut.table(form)
            held.append((made, made.to_dicts() if form == "polars" else copy.deepcopy(made)))
    assert cut.table().schema == once.table().schema
    assert cut.table().rows() == once.table().rows() or "nan" in repr(once.table().rows())
    assert same(cut.table("dicts"), once.table("dicts"))
    assert same(cut.table("tasks"), once.table("tasks"))
    for made, as_it_was in held:
        assert repr(made.to_dicts() if isinstance(made, pl.DataFrame) else made) == repr(as_it_was)


@settings(max_examples=100, deadline=None)
@given(rows=row_lists())
def test_tasks_and_dicts_give_back_what_was_stored(rows: list[list[Any]]) -> None:
    """Tasks are the stored rows; dicts have the same values under the columns' names."""
    table = FinishedTable()
    table.extend(copy.deepcopy(rows), pack=True)
    table.table()
    expected = [to_task(row, TaskState.FINISHED) for row in rows]
    for task, wanted in zip(table.table("tasks"), expected, strict=True):
        assert task.xs.keys() == wanted.xs.keys()
        assert all(same(task.xs[name], wanted.xs[name]) for name in wanted.xs)
        assert (task.ys is None) == (wanted.ys is None)
        assert (task.key, task.seq, task.seed, task.attempt) == (
            wanted.key,
            wanted.seq,
            wanted.seed,
            wanted.attempt,
        )
        assert (task.created_at, task.started_at, task.state) == (
            wanted.created_at,
            wanted.started_at,
            wanted.state,
        )
    frame, dicts = table.table(), table.table("dicts")
    assert all(list(row) == frame.columns for row in dicts)


def test_rows_by_the_thousand_give_the_table_of_single_rows() -> None:
    """Long reads are cut into slices and merged; nothing but the speed shows it."""
    rows = [make_row(i, {"x": float(i), "n": i % 7, "s": str(i)}, {"y": i / 3}) for i in range(60_000)]
    table = FinishedTable()
    table.extend(rows[:50_000])
    assert table.table().height == 50_000
    for i in range(50_000, 50_100):
        table.extend([rows[i]])
        assert table.table().height == i + 1
    table.extend(rows[50_100:], pack=True)
    frame = table.table()
    assert frame["x"].to_list() == [float(i) for i in range(60_000)]
    assert frame["key"].to_list() == [f"k{i}" for i in range(60_000)]
    assert frame.n_chunks() <= 12


def test_the_number_of_chunks_stays_small_however_rows_come() -> None:
    """Merging keeps a table in few pieces, so that a fetch does not grow with the number of fetches."""
    table = FinishedTable()
    for i in range(3000):
        table.extend([make_row(i, {"x": float(i)}, {"y": 1.0})])
        assert table.table().n_chunks() <= 11
    assert table.table()["x"].to_list() == [float(i) for i in range(3000)]


def test_the_short_way_for_one_row_gives_what_the_long_way_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row goes into a frame directly where polars still allows it; without that the table is the same."""
    made = []
    for short in (True, False):
        if not short:
            monkeypatch.setattr("rushlight._tables.FewRows.of", lambda schema: None)
        table = FinishedTable()
        for i in range(30):
            y: Any = np.float64(i) if i % 5 else None
            table.extend([make_row(i, {"i": i, "f": i / 3, "s": "a", "b": True}, {"y": y})])
            table.table()
        made.append((table.table(), table.table("dicts")))
    assert made[0][0].equals(made[1][0])
    assert same(made[0][1], made[1][1])


def test_rows_like_all_before_them_come_without_dicts() -> None:
    """Once the last row had a value in each column, the next may be decoded into objects of these names, and
    the table, longer than one block of new rows, is the same in every form."""
    rows = [make_row(i, {"a": float(i), "b": i}, {"y": -float(i)}, ys_extra={"t": "x"}) for i in range(60)]
    table, named = FinishedTable(), 0
    for row in copy.deepcopy(rows):
        table.make_ready()
        names = table.names(few=True)
        named += names is not None
        table.extend(as_read([row], names), pack=True)
        table.table()
    # The first makes the columns, the second is the first that is like those before it.
    assert named == 58
    once = FinishedTable()
    once.extend(rows)
    assert table.table().equals(once.table())
    for form in ("dicts", "tasks"):
        assert same(table.table(form), once.table(form))


def test_rows_without_dicts_wait_beside_others() -> None:
    """Rows that were decoded for a table and not asked for yet stand beside those read for another form."""
    rows = [make_row(i, {"a": float(i)}, {"y": 1.0}) for i in range(8)]
    for form in ("polars", "dicts", "tasks"):
        table, once = FinishedTable(), FinishedTable()
        once.extend(copy.deepcopy(rows))
        for row in copy.deepcopy(rows[:3]):
            table.extend([row], pack=True)
            table.table()
        for i, row in enumerate(copy.deepcopy(rows[3:])):
            table.extend(as_read([row], table.names(few=True)) if i in (0, 1, 3) else [row], pack=True)
        assert table.keys() == [row[3] for row in rows]
        made, wanted = table.table(form), once.table(form)
        assert made.equals(wanted) if form == "polars" else same(made, wanted)


def test_an_object_with_other_names_is_a_row_like_any() -> None:
    """Columns may have come since its names were asked for: what it lacks is missing."""
    table = FinishedTable()
    for i in range(3):
        table.extend([make_row(i, {"a": float(i)}, {"y": 1.0})], pack=True)
        table.table()
    (row,) = as_read([make_row(3, {"a": 3.0}, {"y": 1.0})], table.names(few=True))
    table.extend([make_row(4, {"a": 4.0}, {"y": 1.0}, ys_extra={"t": "x"})])
    table.table()
    table.extend([row], pack=True)
    assert table.table()["t"].to_list() == [None, None, None, "x", None]
    assert [task.ys_extra for task in table.table("tasks")] == [None, None, None, {"t": "x"}, None]


# --- several states --------------------------------------------------------------------------------


def stated_rows() -> list[StatedRow]:
    """A queued, a running and a failed task."""
    failure = {"message": "no luck", "type": "ValueError", "traceback": "Traceback ..."}
    return [
        StatedRow(TaskState.QUEUED, make_row(90, {"x": 1.0}, worker_id=None, started=0, finished=0)),
        StatedRow(TaskState.RUNNING, make_row(91, {"x": 2.0, "only": "here"}, finished=0)),
        StatedRow(TaskState.FAILED, make_row(92, {"x": 3.0}), failure),
    ]


def test_a_table_of_several_states_has_state_and_conditions() -> None:
    """The column state comes after key, the columns of failed tasks come last; missing is null."""
    made = build_table(stated_rows(), "polars", None, state_column=True)
    assert made.columns == [
        "key", "state", "x", "only", "worker_id", "created_at", "started_at", "finished_at",
        "condition", "condition_type", "traceback",
    ]  # fmt: skip
    assert made["state"].to_list() == ["queued", "running", "failed"]
    assert made["condition"].to_list() == [None, None, "no luck"]
    assert made["condition_type"].to_list() == [None, None, "ValueError"]
    assert made["finished_at"].to_list()[:2] == [None, None]
    assert made.to_dicts() == build_table(stated_rows(), "dicts", None, state_column=True)
    assert build_table([], state_column=False).columns == FIXED
    assert build_table([], state_column=False, conditions=True).columns == [
        *FIXED, "condition", "condition_type", "traceback",
    ]  # fmt: skip


@pytest.mark.parametrize("as_", ["polars", "pandas", "arrow", "dicts", "tasks"])
def test_finished_and_other_tasks_in_one_table(as_: str) -> None:
    """Queued and running tasks, then the finished, then the failed, in every form."""
    table = FinishedTable()
    for i in range(15):
        table.extend([make_row(i, {"x": float(i)}, {"y": i})])
        table.table()
    made = table.table_with(stated_rows(), as_)
    keys = ["k90", "k91", *(f"k{i}" for i in range(15)), "k92"]
    if as_ == "tasks":
        assert [task.key for task in made] == keys
        assert made[-1].condition == {
            "message": "no luck",
            "type": "ValueError",
            "traceback": "Traceback ...",
        }
        return
    rows = records(made, as_)
    assert [row["key"] for row in rows] == keys
    assert [row["state"] for row in rows] == ["queued", "running", *["finished"] * 15, "failed"]
    if as_ != "pandas":
        assert rows == table.table_with(stated_rows(), "dicts")
        assert [row["only"] for row in rows[:3]] == [None, "here", None]
        assert rows[5]["y"] == 3
    assert table.table().columns == ["key", "x", "y", "worker_id", "created_at", "started_at", "finished_at"]


def test_other_tasks_of_wider_types_do_not_touch_the_finished() -> None:
    """A running task with another type widens the column of that table only."""
    table = table_of({"x": 1}, {"x": 2})
    before = table.table().schema
    wide = table.table_with([StatedRow(TaskState.RUNNING, make_row(9, {"x": "text"}))])
    assert wide["x"].to_list() == ["text", 1, 2]
    number = table.table_with([StatedRow(TaskState.RUNNING, make_row(9, {"x": 0.5}))])
    assert number["x"].dtype == pl.Float64
    assert table.table().schema == before
    assert FinishedTable().table_with(stated_rows()[:1]).height == 1
    assert FinishedTable().table_with([]).columns == ["key", "state", *FIXED[1:]]


# --- values stored apart ---------------------------------------------------------------------------


class Blobs:
    """A reader of values stored apart that remembers what it was asked."""

    def __init__(self, **values: Any) -> None:
        self.found = values
        self.asked: list[list[str]] = []

    def __call__(self, references: list[Spilled]) -> list[Any]:
        self.asked.append([reference.digest for reference in references])
        return [self.found[reference.digest] for reference in references]


@pytest.mark.parametrize("as_", ["polars", "pandas", "arrow", "dicts", "tasks"])
def test_values_stored_apart_are_read_in_every_form(as_: str) -> None:
    """Cells hold the values, read with one call for all of them, and once."""
    blobs = Blobs(one=[1.0, 2.0], two=[3.0])
    table = table_of(
        {"v": Spilled("one", 9)},
        {"v": [0.0]},
        {"v": Spilled("two", 9)},
        {"v": Spilled("one", 9)},
        resolve=blobs,
    )
    wanted = [[1.0, 2.0], [0.0], [3.0], [1.0, 2.0]]
    for _ in range(2):
        made = table.table(as_)
        found = (
            [task.xs["v"] for task in made] if as_ == "tasks" else [row["v"] for row in records(made, as_)]
        )
        assert [list(cell) for cell in found] == wanted
    assert blobs.asked == [["one", "two"]]


def test_values_stored_apart_are_read_for_the_columns_asked_for() -> None:
    """Other columns' values stay where they are until a table contains them."""
    blobs = Blobs(a="text", b=2.5)
    table = table_of({"a": Spilled("a", 9), "b": Spilled("b", 9), "c": 1}, resolve=blobs)
    assert table.table(fields=["c"])["c"].to_list() == [1]
    assert blobs.asked == []
    assert table.table(fields=["b"])["b"].to_list() == [2.5]
    assert blobs.asked == [["b"]]
    held = table.table()
    assert held["a"].to_list() == ["text"]
    assert blobs.asked == [["b"], ["a"]]
    for i in range(1, 20):
        table.extend([make_row(i, {"a": "t", "b": 1.0, "c": i}, {"y": 0.0})])
        assert table.table()["b"].to_list() == [2.5, *[1.0] * i]
    assert len(blobs.asked) == 2


def test_a_reader_that_fails_leaves_the_table_as_it_was() -> None:
    """The error reaches the caller and the next fetch tries again."""
    blobs = Blobs()
    table = table_of({"v": Spilled("gone", 9)}, resolve=blobs)
    with pytest.raises(KeyError):
        table.table()
    blobs.found["gone"] = 5
    assert table.table()["v"].to_list() == [5]
    rows = [StatedRow(TaskState.RUNNING, make_row(1, {"v": Spilled("gone", 9)}))]
    assert build_table(rows, "polars", None, resolve=blobs, state_column=True)["v"].to_list() == [5]
    assert build_table(rows, "tasks", None, resolve=blobs, state_column=True)[0].xs == {"v": 5}


# --- workers, libraries ----------------------------------------------------------------------------


@pytest.mark.parametrize("as_", ["polars", "pandas", "arrow", "dicts", "tasks"])
def test_the_table_of_workers(as_: str) -> None:
    """One row per worker with the documented columns, in every form, also without workers."""
    info = WorkerInfo("w1", 12, "host", WorkerState.LOST, "local", None, 5.0, exit_code=-9)
    made, empty = worker_table([info], as_), worker_table([], as_)
    assert (len(made), len(empty)) == (1, 0)
    if as_ == "tasks":
        assert made == [info]
    elif as_ == "dicts":
        assert made[0]["state"] == "lost"
        assert type(made[0]["state"]) is str
    elif as_ == "polars":
        assert made.columns == list(WorkerInfo.__slots__)
        assert made.schema == empty.schema
        assert made.row(0) == ("w1", 12, "host", "lost", "local", None, 5.0, None, 0, 0, -9, None)


@pytest.mark.parametrize(("name", "as_"), [("pandas", "pandas"), ("pyarrow", "arrow")])
def test_a_missing_library_is_named_with_its_pip_line(
    name: str, as_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'rushlight\[{as_}\]'"):
        table_of({"a": 1}).table(as_)


def test_dicts_and_tasks_import_no_table_library() -> None:
    """A process that asks for dicts and tasks only never imports polars, pandas, pyarrow or numpy."""
    program = """
import sys
from rushlight._tables import FinishedTable, worker_table
table = FinishedTable()
for i in range(40):
    table.extend([["w", 1, None, "k", {"x": i / 2, "n": i}, None, 5, 1, 6, 7, {"y": [1.0]}, None]])
    assert len(table.table("dicts")) == len(table.table("tasks")) == i + 1
worker_table([], "dicts")
print([name for name in ("polars", "pandas", "pyarrow", "numpy") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_a_task_from_a_row() -> None:
    """Times are seconds or None, the seed comes from the options."""
    task = to_task(make_row(3, {"x": 1}, started=0, opts={"s": "1f"}), TaskState.QUEUED)
    assert (task.key, task.state, task.seed, task.started_at) == ("k3", TaskState.QUEUED, 31, None)
    assert task.created_at == (START + 3) / 1e6
    assert task.seq == 4
