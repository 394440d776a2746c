"""The forms a table is handed out in: polars, pandas, Arrow, dicts and tasks.

Whatever is handed out is the user's: nothing they do to it reaches the columns it was made from.
Each library is imported when its form is asked for.
"""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

from ._blocks import KEY, SIDES, STATE, TIMES, WORKER, Block, Column, Schema, gc_paused, nulls
from ._codec import Spilled
from ._columns import FLOAT, NULL, STR, WIDE_INT, Kind, copy_cell, copy_cells, to_series
from ._records import AS_FORMS, Row, Task, TaskState, WorkerInfo, WorkerUsage, make_task
from ._seeds import public
from .errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    import polars as pl

_FINISHED = str(TaskState.FINISHED)
_RUNNING = TaskState.RUNNING
#: Said of an Arrow column whose cells are JSON text, in the metadata of its field.
JSON_FIELD = {b"rushlight": b"json"}


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """What one table is made from: blocks, each from a row on, under one schema.

    ``frame`` makes the polars frame of all columns, new to its caller.
    """

    schema: Schema
    parts: Sequence[tuple[Block, int]]
    n: int
    frame: Callable[[], pl.DataFrame]

    def values(self, column: Column | None) -> list[Any]:
        """The exact values of a column, in cells the caller may change."""
        if column is None:
            return [None] * self.n
        cells: list[Any] = []
        for block, offset in self.parts:
            cells.extend(part_values(block, offset, column))
        return cells

    def selected(self, fields: Sequence[str] | None) -> list[tuple[str, Column | None]]:
        """The columns asked for, by name; None for a name that no column has."""
        by_name: dict[str, Column | None] = {name: column for column, name in self.schema.names.items()}
        return list(by_name.items()) if fields is None else [(name, by_name.get(name)) for name in fields]


def part_values(block: Block, offset: int, column: Column) -> list[Any]:
    """Exact values of a block's column, new to the caller; a block without states is finished."""
    if column == STATE and STATE not in block.kinds:
        return [_FINISHED] * (block.n - offset)
    return copy_cells(block.values(column, offset), block.kinds.get(column, NULL))


def check_form(as_: Any) -> None:
    """Refuse a form there is not."""
    if not isinstance(as_, str) or as_ not in AS_FORMS:
        raise ConfigError(f"as_={as_!r} is not a form of table; there are {', '.join(AS_FORMS)}", value=as_)


def check_fields(fields: Any) -> None:
    """Refuse anything but a list (or tuple) of different column names."""
    if fields is None:
        return
    if not isinstance(fields, list | tuple) or not all(isinstance(name, str) for name in fields):
        raise ConfigError(f"fields={fields!r} must be a list of column names, or None for all", value=fields)
    twice = sorted({name for name in fields if fields.count(name) > 1})
    if twice:
        raise ConfigError(f"fields={fields!r} names {', '.join(twice)} more than once", value=fields)


def library(name: str, extra: str) -> Any:
    """The module, or an error that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        line = f"pip install 'rushlight[{extra}]'" if extra else "pip install rushlight"
        raise MissingExtra(f'as_="{extra or name}" needs {name}: {line}', extra=extra or name) from error


def render(sheet: Sheet, as_: str, fields: Sequence[str] | None) -> Any:
    """The sheet in a form other than tasks."""
    if as_ == "dicts":
        with gc_paused(sheet.n):
            return to_dicts(sheet, fields)
    library("polars", "")
    if as_ == "pandas":
        return to_pandas(sheet, fields)
    if as_ == "arrow":
        return to_arrow(sheet, fields)
    return to_polars(sheet, fields)


def to_dicts(sheet: Sheet, fields: Sequence[str] | None) -> list[dict[str, Any]]:
    """One dict per row, every column in each."""
    selected = sheet.selected(fields)
    if not selected:
        return [{} for _ in range(sheet.n)]
    names = [name for name, _ in selected]
    rows: list[dict[str, Any]] = []
    for block, offset in sheet.parts:
        missing = [None] * (block.n - offset)
        columns = [missing if c is None else part_values(block, offset, c) for _, c in selected]
        rows += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows


def to_polars(sheet: Sheet, fields: Sequence[str] | None) -> pl.DataFrame:
    """A polars frame; object columns with cells that can be changed get cells of their own."""
    import polars as pl

    frame = sheet.frame()
    schema = sheet.schema
    if fields is not None:
        chosen = sheet.selected(fields)
        frame = pl.DataFrame({n: frame.get_column(n) if c else nulls(n, sheet.n, NULL) for n, c in chosen})
    for column in schema.mutable:
        name = schema.names[column]
        if fields is None or name in fields:
            cells = to_series(name, sheet.values(column), schema.kinds[column])
            frame.replace_column(frame.get_column_index(name), cells)
    return frame


def to_pandas(sheet: Sheet, fields: Sequence[str] | None) -> Any:
    """A pandas frame of its own memory. Missing: NaN in floats, NaT in times, NA in integers and bools."""
    pd = library("pandas", "pandas")
    np = library("numpy", "pandas")
    frame = sheet.frame()
    data = {}
    for name, column in sheet.selected(fields):
        kind = sheet.schema.kinds[column] if column else NULL
        if kind.family in ("float", "int", "bool", "str", "datetime", "duration", "aware"):
            data[name] = _pandas_column(frame.get_column(name), kind, pd, np)
        else:
            cells = np.empty(sheet.n, dtype=object)
            for i, value in enumerate(sheet.values(column)):
                cells[i] = value
            data[name] = pd.Series(cells, dtype=object)
    return pd.DataFrame(data, index=pd.RangeIndex(sheet.n), copy=False)


def _pandas_column(series: pl.Series, kind: Kind, pd: Any, np: Any) -> Any:
    if kind.family == "str":
        dtype = "str" if int(pd.__version__.partition(".")[0]) >= 3 else object
        return pd.Series(series.to_list(), dtype=dtype)
    holes = series.null_count() > 0
    if holes and kind.family in ("int", "bool"):
        filled = series.fill_null(0 if kind.family == "int" else False)
        array_type = pd.arrays.IntegerArray if kind.family == "int" else pd.arrays.BooleanArray
        return pd.Series(array_type(np.array(filled.to_numpy()), np.array(series.is_null().to_numpy())))
    if kind.family == "aware":
        zone = series.dtype.time_zone  # type: ignore[attr-defined]
        naive = pd.Series(np.array(series.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy()))
        return naive.dt.tz_localize("UTC").dt.tz_convert(zone)
    return pd.Series(np.array(series.to_numpy()))


def to_arrow(sheet: Sheet, fields: Sequence[str] | None) -> Any:
    """A pyarrow.Table; a column Arrow has no type for holds JSON text, and its field says so."""
    pa = library("pyarrow", "arrow")
    frame = sheet.frame()
    columns, described = [], []
    for name, column in sheet.selected(fields):
        kind = sheet.schema.kinds[column] if column else NULL
        metadata = None
        if column is None:
            series = nulls(name, sheet.n, NULL)
        elif kind.family == "object":
            series = to_series(name, [json_text(value) for value in sheet.values(column)], Kind("str", str))
            metadata = JSON_FIELD
        else:
            series = frame.get_column(name)
        # Under no name: polars cannot hand over one with a zero byte in it.
        values = series.alias("").to_arrow()
        columns.append(values)
        described.append(pa.field(name, values.type, metadata=metadata))
    if not columns:
        return pa.table({})
    return pa.Table.from_arrays(columns, schema=pa.schema(described))


def json_text(value: Any) -> str | None:
    """A value as JSON: arrays and sets as lists, bytes as base64, what JSON has no form for as its text."""
    if value is None:
        return None
    text = json.dumps(_json_ready(value))
    return text if "\\ud" in text else json.dumps(_json_ready(value), ensure_ascii=False)


def _json_ready(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_json_ready(item) for item in value), key=repr)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        plain = value.tolist()
        return str(plain) if type(plain) is type(value) else _json_ready(plain)
    return str(value)


def block_tasks(block: Block, offset: int) -> list[Task]:
    """The finished tasks of a block."""
    n = block.n - offset
    columns = {c: part_values(block, offset, c) for c in block.kinds}
    at = None if block.shape_at is None else block.shape_at[offset:]
    sides = [
        _side([shape[group] for shape in block.shapes], at, group, columns, n) for group in range(len(SIDES))
    ]
    options = [options_of(opts) for opts in block.opts[offset:]] if block.opts else None
    seeds, timeouts, reseeded = (
        repeat(default) if options is None else [found.get(name, default) for found in options]
        for name, default in (("seed", None), ("timeout", None), ("reseeded", 0))
    )
    return list(
        map(
            make_task,
            columns[KEY],
            repeat(TaskState.FINISHED),
            [xs or {} for xs in sides[0]],
            *sides[1:],
            repeat(None),
            columns[WORKER],
            *(columns[column] for column in TIMES),
            block.attempts[offset:],
            seeds,
            block.seqs[offset:],
            timeouts,
            reseeded,
        )
    )


def _side(
    shapes: Sequence[tuple[str, ...] | None],
    shape_at: Sequence[int] | None,
    group: int,
    columns: Mapping[Column, list[Any]],
    n: int,
) -> list[dict[str, Any] | None]:
    """One of a task's dicts, for each row."""
    if shape_at is None or len(set(shapes)) == 1:
        names = shapes[0]
        if not names:
            return [None] * n if names is None else [{} for _ in range(n)]
        cells = zip(*(columns[group, name] for name in names), strict=True)
        return [dict(zip(names, row, strict=True)) for row in cells]
    readers = [
        None if names is None else [(name, columns[group, name]) for name in names] for names in shapes
    ]
    return [
        None if (reader := readers[at]) is None else {name: cells[i] for name, cells in reader}
        for i, at in enumerate(shape_at)
    ]


def options_of(opts: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a task was pushed with, under the names a ``Task`` has for it."""
    if not opts:
        return {}
    return {"seed": public(opts.get("s")), "timeout": opts.get("t"), "reseeded": opts.get("n", 0)}


def to_task(row: Sequence[Any], state: TaskState, condition: Mapping[str, Any] | None = None) -> Task:
    """A decoded row as a Task that shares nothing its holder could change."""
    parts = Row(*row)
    created, started, finished = (
        micros / 1e6 if micros else None for micros in (parts.created, parts.started, parts.finished)
    )
    return make_task(
        key=parts.key,
        state=state,
        xs=copy_cell(parts.xs),
        ys=copy_cell(parts.ys),
        xs_extra=copy_cell(parts.xs_extra),
        ys_extra=copy_cell(parts.ys_extra),
        condition=None if condition is None else copy_cell(dict(condition)),
        worker_id=parts.worker_id,
        created_at=created,
        started_at=started,
        finished_at=finished,
        attempt=parts.attempt,
        seq=parts.seq,
        **options_of(parts.opts),
    )


def taken_task(row: Sequence[Any]) -> Task | None:
    """A task that was taken just now, of a row nobody else holds; None where a value is stored apart."""
    wid, attempt, opts, key, xs, extra, created, seq, started, _, _, _ = row
    if extra is not None or Spilled in map(type, xs.values()):
        return None
    created, started = created / 1e6, started / 1e6
    if opts is None:
        return make_task(
            key, _RUNNING, xs, None, None, None, None, wid, created, started, None, attempt, None, seq
        )
    parts = (xs, None, None, None, None, wid, created, started, None, attempt)
    return make_task(key, _RUNNING, *parts, seq=seq, **options_of(opts))


_WORKER_KINDS: dict[str, Kind] = dict.fromkeys(WorkerInfo.__slots__, STR) | {
    "pid": WIDE_INT,
    "heartbeat": FLOAT,
    "started_at": FLOAT,
    "n_finished": WIDE_INT,
    "n_failed": WIDE_INT,
    "exit_code": WIDE_INT,
}

_USAGE_KINDS: dict[str, Kind] = {
    "worker_id": STR,
    "sampled_at": FLOAT,
    "memory": WIDE_INT,
    "peak_memory": WIDE_INT,
    "cpu_seconds": FLOAT,
    "cpu_percent": FLOAT,
}


def worker_table(infos: Sequence[WorkerInfo], as_: str = "polars") -> Any:
    """One row per worker with the fields of ``WorkerInfo``; the form ``tasks`` is the records themselves."""
    return _record_table(infos, _WORKER_KINDS, as_)


def usage_table(found: Sequence[WorkerUsage], as_: str = "polars") -> Any:
    """One row per worker with the fields of ``WorkerUsage``; the form ``tasks`` is the records themselves."""
    return _record_table(found, _USAGE_KINDS, as_)


def _record_table(records: Sequence[WorkerInfo | WorkerUsage], kinds: Mapping[str, Kind], as_: str) -> Any:
    check_form(as_)
    if as_ == "tasks":
        return list(records)
    columns = {name: (kind, [getattr(one, name) for one in records]) for name, kind in kinds.items()}
    if "state" in columns:
        kind, states = columns["state"]
        columns["state"] = kind, [str(state) for state in states]
    return _lists_table(columns, as_)


_LOG_KINDS: dict[str, Kind] = {
    "worker_id": STR,
    "level": STR,
    "timestamp": FLOAT,
    "logger": STR,
    "caller": STR,
    "msg": STR,
}


def log_table(
    rows: Sequence[Mapping[str, Any]], as_: str = "polars", *, time_difference: bool = False
) -> Any:
    """One row per log entry; the forms ``dicts`` and ``tasks`` are the entries themselves."""
    check_form(as_)
    if as_ in ("dicts", "tasks"):
        return [dict(row) for row in rows]
    kinds = _LOG_KINDS | ({"time_difference": FLOAT} if time_difference else {})
    return _lists_table({name: (kind, [row[name] for row in rows]) for name, kind in kinds.items()}, as_)


def check_request(as_: Any, fields: Any = None) -> None:
    """Raises ConfigError for a form or columns no table can have, before anything is read."""
    check_form(as_)
    check_fields(fields)


def _lists_table(columns: Mapping[str, tuple[Kind, list[Any]]], as_: str) -> Any:
    """A table of ready columns, each with its kind."""
    kinds = {(0, name): kind for name, (kind, _) in columns.items()}
    schema = Schema(kinds, {column: column[1] for column in kinds})
    n = len(next(iter(columns.values()))[1])
    block = Block(n, kinds, {(0, name): values for name, (_, values) in columns.items()})

    def frame() -> pl.DataFrame:
        import polars as pl

        return pl.DataFrame([to_series(name, values, kind) for name, (kind, values) in columns.items()])

    return render(Sheet(schema, [(block, 0)], n, frame), as_, None)
