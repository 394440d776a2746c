"""What tables cost, each figure beside a yardstick of the same run: ``python benchmarks/bench_tables.py``.

The yardstick of a cold table is a polars frame made from the same columns as ready lists; that of
one new row is stacking a one-row frame under a frame of one piece, which no immutable table can
avoid. Only ratios of one run mean anything. ``--large`` adds a million rows (needs 4 GB).
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import polars as pl

from rushlight._records import TaskState
from rushlight._tables import FinishedTable, StatedRow

FIXED = 5
SLICE = 20_000
START = 1_700_000_000_000_000


def make_row(i: int, columns: int) -> list[Any]:
    """A decoded row with this many columns of inputs and results."""
    xs = {f"x{j}": random.random() for j in range(columns - 1)}
    times = (START + i, i, START + i + 10, START + i + 20)
    return ["brave-otter-3f2a91c0", 1, None, f"{i:024x}", xs, None, *times, {"y": random.random()}, None]


def seconds(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def filled(rows: int, columns: int) -> FinishedTable:
    """A table read in slices, as a manager does."""
    table = FinishedTable()
    for at in range(0, rows, SLICE):
        table.extend([make_row(i, columns) for i in range(at, min(at + SLICE, rows))], pack=True)
    table.table()
    return table


def cold(rows: int, columns: int, repeats: int) -> str:
    """A first fetch from decoded rows."""
    source = [make_row(i, columns) for i in range(rows)]
    ours, yard = [], []
    for _ in range(repeats):
        table = FinishedTable()
        ours.append(seconds(lambda table=table: (table.extend(source), table.table())))
        lists = {name: table.table()[name].to_list() for name in table.table().columns}
        gc.collect()
        yard.append(seconds(lambda lists=lists: pl.DataFrame(lists)))
    a, b = statistics.median(ours), statistics.median(yard)
    return f"{a * 1e3:8.1f} ms | frame from ready lists {b * 1e3:7.1f} ms | {a / b:5.2f} x"


def one_new(rows: int, columns: int, repeats: int) -> str:
    """A fetch that finds one new row among many."""
    table = filled(rows, columns)
    big = table.table().rechunk()
    one = big[:1].clone()
    ours, yard = [], []
    for i in range(repeats):
        row = make_row(rows + i, columns)
        ours.append(seconds(lambda row=row: (table.extend([row]), table.table())))
        yard.append(seconds(lambda: big.vstack(one)))
    a, mean, b = statistics.median(ours), statistics.mean(ours), statistics.median(yard)
    return f"{a * 1e6:8.1f} us (mean {mean * 1e6:6.1f}) | one vstack {b * 1e6:5.1f} us | {a / b:5.2f} x"


def with_running(rows: int, columns: int, repeats: int) -> str:
    """A fetch of running and finished tasks: one new finished row and 100 running."""
    table = filled(rows, columns)
    running = [StatedRow(TaskState.RUNNING, [*make_row(i, columns)[:9], 0, None, None]) for i in range(100)]
    ours = []
    for i in range(repeats):
        row = make_row(rows + i, columns)
        ours.append(seconds(lambda row=row: (table.extend([row]), table.table_with(running))))
    return f"{statistics.median(ours) * 1e6:8.1f} us"


def memory(rows: int, columns: int) -> str:
    """What a cached row costs: the frame's buffers, and what Python holds beside them."""
    tracemalloc.start()
    table = filled(rows, columns)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (
        f"{table.table().estimated_size() / rows:6.0f} B in frames + {held / rows:5.0f} B in Python, per row"
    )


def main() -> None:
    """Print every figure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--large", action="store_true")
    large = options.parse_args().large
    for columns in (3, 13):
        print(f"cold, 100,000 rows, {columns:3} columns: {cold(100_000, columns, 5)}")
    for columns in (3, 100):
        for rows in (1_000, 100_000, *((1_000_000,) if large else ())):
            print(f"one new among {rows:9,}, {columns:3} columns: {one_new(rows, columns, 500)}")
    for rows in (1_000, 100_000):
        print(f"one new and 100 running among {rows:9,}, 3 columns: {with_running(rows, 3, 200)}")
    for columns in (3, 13):
        print(f"memory, {columns:3} columns: {memory(50_000, columns)}")


if __name__ == "__main__":
    main()
