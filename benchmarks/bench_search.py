"""A random search of the Branin function by two local workers: ``python benchmarks/bench_search.py``.

The loop is as a user writes it: it looks at ``worker.terminated`` before each task. A program of rows, see
``kit``.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Iterator

import kit
from kit import Options, Row

from rushlight import Rush

WORKERS = 2


def branin(x1: float, x2: float) -> float:
    """The usual test function of two variables."""
    bend = x2 - 5.1 / (4 * math.pi**2) * x1**2 + 5 / math.pi * x1 - 6
    return bend**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x1) + 10


def draw() -> dict[str, float]:
    return {"x1": random.uniform(-5, 10), "x2": random.uniform(0, 15)}


def two_trips(worker) -> None:
    """Create, finish: what R's rush does in its search loops."""
    while not worker.terminated:
        xs = draw()
        key = worker.push_running_task(xs)
        worker.finish_task(key, {"y": branin(**xs)})


def one_trip(worker) -> None:
    """Finish one and create the next in one round trip."""
    xs = draw()
    key = worker.push_running_task(xs)
    while not worker.terminated:
        following = draw()
        key = worker.step(finish=(key, {"y": branin(**xs)}), push=following)
        xs = following
    worker.finish_task(key, {"y": branin(**xs)})


def behind(worker) -> None:
    """Create and finish without waiting for either."""
    with worker.write_behind():
        two_trips(worker)


LOOPS = {"create + finish": two_trips, "step": one_trip, "write-behind": behind}


def rows(options: Options) -> Iterator[Row]:
    """A row for each way to write the loop."""
    windows, seconds = (3, 0.1) if options.small else (7, 1.0)
    for name, loop in LOOPS.items():
        with kit.own_server(options) as server, Rush() as rush:
            rush.start_workers(loop, WORKERS)
            rush.wait_for_workers(WORKERS)
            time.sleep(seconds)
            rates, before = [], server.cpu()
            begin = time.perf_counter()
            for _ in range(windows):
                start, n = time.perf_counter(), rush.n_finished_tasks
                time.sleep(seconds)
                rates.append((rush.n_finished_tasks - n) / (time.perf_counter() - start))
            served = (server.cpu() - before) / (time.perf_counter() - begin)
            rush.stop_workers("terminate")
            yield Row(
                "branin",
                round(statistics.median(rates)),
                f"server: {served:.2f} cores",
                tuple(round(rate) for rate in kit.quartiles(rates)),
                {"server_cores": round(served, 2)},
                setting=f"{options.setting}, {name}",
            )
            rush.reset()


if __name__ == "__main__":
    kit.main(__doc__, rows)
