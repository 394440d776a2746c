"""How results look: valid JSON for programs, tables for people. Never reads from a server."""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Characters of one cell that a table for people shows.
CELL_WIDTH = 40
#: Columns that a table shows when it goes to a file or a pipe, where no terminal sets a limit.
PIPE_WIDTH = 240

Record = Mapping[str, Any]


class _Console(Console):
    """A console whose reader may leave; ``rich`` would end the process with a failure."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(stream: IO[str]) -> Console:
    """A console on ``stream``: as wide as the terminal, or wide enough for a pipe."""
    if stream.isatty():
        return _Console(file=stream, highlight=False)
    return _Console(file=stream, highlight=False, width=PIPE_WIDTH, soft_wrap=False)


def jsonable(value: Any) -> Any:
    """The nearest thing to ``value`` that JSON can say.

    NaN is null, infinities are the strings ``Infinity`` and ``-Infinity``, times are ISO 8601,
    durations are seconds, bytes are base64, sets and arrays are lists, tables are lists of objects;
    anything else is its text.
    """
    if value is None or isinstance(value, bool | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return jsonable(value.value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _number(float(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else str(jsonable(k)): jsonable(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((jsonable(v) for v in value), key=repr)
    if isinstance(value, Sequence):
        return [jsonable(v) for v in value]
    return _foreign(value)


def _number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _foreign(value: Any) -> Any:
    for method in ("to_dicts", "to_pylist", "tolist"):
        convert = getattr(value, method, None)
        if callable(convert):
            return jsonable(convert())
    if type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "to_dict"):
        return jsonable(value.to_dict("records"))
    return str(value)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON on stdout: readable for a person, valid for every parser."""
    text = json.dumps(jsonable(value), ensure_ascii=False, allow_nan=False, indent=2)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json_line(value: Any) -> None:
    """Print ``value`` as one line of JSON on stdout, for a stream of records."""
    sys.stdout.write(json.dumps(jsonable(value), ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def cell(value: Any) -> str:
    """A value as a table for people shows it: short, on one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else str(jsonable(value))
    text = " ".join(text.split())
    return text if len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 1] + "…"


def is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value)


def columns_of(records: Iterable[Record], leave_out: Iterable[str] = ()) -> list[str]:
    """The names that occur, in the order of their first appearance, without those never filled."""
    hidden, order, filled = set(leave_out), dict[str, None](), set[str]()
    for record in records:
        for name, value in record.items():
            order.setdefault(name)
            if not is_empty(value):
                filled.add(name)
    return [name for name in order if name in filled and name not in hidden]


def table(records: Sequence[Record], columns: Sequence[str]) -> Table:
    """A table for people of ``records``; numbers stand right, text stands left."""
    result = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        values = [r.get(name) for r in records]
        numeric = all(isinstance(v, int | float) or v is None for v in values)
        result.add_column(
            Text(name), justify="right" if numeric else "left", no_wrap=True, overflow="ellipsis"
        )
    for record in records:
        result.add_row(*(Text(cell(record.get(name))) for name in columns))
    return result


def print_table(records: Sequence[Record], columns: Sequence[str]) -> None:
    """Print a table for people on stdout."""
    console(sys.stdout).print(table(records, columns))


def say(text: str) -> None:
    """Print a sentence for people on stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def clock(seconds: float | None) -> str:
    """A time of the server's clock as local wall-clock time."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """A duration for people: ``4.2 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def number(count: int, noun: str) -> str:
    """``1 worker``, ``4 workers``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
