"""What a central queue costs: pushing many tasks, and tasks that do nothing, done by two workers.

    python benchmarks/bench_queue.py [--socket unix] [--json] [--small]

One client pushes tasks and collects their results; two worker processes take them, one by one (a loop of
``finish_and_pop``) or several at once (``worker_loop``). The yardstick is ``ProcessPoolExecutor(2)`` with the
same function, in turns with it; beside each rate stands what it cost in CPU, which a busy machine changes
less.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import kit
from kit import Options, Row

from rushlight import Rush, worker_loop

WORKERS = 2
XS = {"x1": 0.1, "x2": 0.2}


def noop(x: int) -> int:
    """A task that costs nothing."""
    return x


def one_by_one(worker: Any) -> None:
    """One trip for a result and the next task."""
    task = None
    while not worker.terminated:
        if task is None:
            task = worker.pop_task(timeout=5)
        else:
            task = worker.finish_and_pop(task.key, {"y": noop(task.xs["x"])}, timeout=5)


def cpu_of(*pids: int) -> float:
    """Seconds of CPU these processes have used."""
    used = 0.0
    for pid in pids:
        fields = kit._lines(f"/proc/{pid}/stat")[0].rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def push(rush: Rush, n: int, rounds: int) -> Row:
    """Microseconds per task of one call."""
    times = []
    for _ in range(rounds):
        xss = [dict(XS) for _ in range(n)]
        start = time.perf_counter()
        rush.push_tasks(xss)
        times.append((time.perf_counter() - start) / n * 1e6)
        rush.reset(workers=False)
    return Row(
        "push_bulk", round(statistics.median(times), 2), spread=(round(min(times), 2), round(max(times), 2))
    )


def drain(rush: Rush, n: int) -> float:
    """Seconds from the push of n tasks to the last of their results."""
    start = time.perf_counter()
    keys = rush.push_tasks([{"x": x} for x in range(n)])
    rush.wait_for_tasks(keys)
    assert n == len(rush.fetch_new_tasks())
    return time.perf_counter() - start


def pooled(pool: ProcessPoolExecutor, n: int) -> float:
    """The same with the standard library."""
    start = time.perf_counter()
    for future in [pool.submit(noop, x) for x in range(n)]:
        future.result()
    return time.perf_counter() - start


def rates(
    server: kit.Server, rush: Rush, loop: Callable[..., Any], n: int, rounds: int
) -> tuple[list[float], list[float], dict[str, float]]:
    """Tasks per second of ours and of the pool, in turns, and what ours cost in CPU."""
    ids = rush.start_workers(loop, WORKERS)
    rush.wait_for_workers(worker_ids=ids)
    pids = dict(zip(("worker 1", "worker 2"), rush.worker_info["pid"], strict=True))
    pids |= {"server": server.pid, "client": os.getpid()}
    ours, theirs, costs = [], [], []
    with ProcessPoolExecutor(WORKERS) as pool:
        pooled(pool, 100)
        drain(rush, min(n, 1000))
        for _ in range(rounds):
            before = {name: cpu_of(pid) for name, pid in pids.items()}
            ours.append(n / drain(rush, n))
            costs.append({name: (cpu_of(pid) - before[name]) / n * 1e6 for name, pid in pids.items()})
            theirs.append(n / pooled(pool, n))
    rush.stop_workers()
    rush.reset()
    cost = {f"{name}, us CPU per task": statistics.median(c[name] for c in costs) for name in pids}
    return ours, theirs, {name: round(value, 1) for name, value in cost.items()}


def rows(options: Options) -> Iterator[Row]:
    n, rounds = (500, 1) if options.small else (20_000, 5)
    with kit.own_server(options) as server, Rush("bench-queue") as rush:
        yield push(rush, 1000 if options.small else 10_000, 2 if options.small else 15)
        ours, theirs, cost = rates(server, rush, one_by_one, n, rounds)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        yield Row(
            "queue_one",
            round(statistics.median(ratios), 2),
            f"ProcessPoolExecutor(2): {statistics.median(theirs):,.0f} tasks/s",
            (round(min(ratios), 2), round(max(ratios), 2)),
            {"tasks/s": round(statistics.median(ours)), **cost},
        )
        ours, theirs, cost = rates(server, rush, worker_loop(noop, seeded=False), n, rounds)
        yield Row(
            "queue_batched",
            round(statistics.median(ours)),
            f"ProcessPoolExecutor(2): {statistics.median(theirs):,.0f} tasks/s",
            (round(min(ours)), round(max(ours))),
            {"x process pool": round(statistics.median(ours) / statistics.median(theirs), 2), **cost},
        )


if __name__ == "__main__":
    kit.main(__doc__ or "", rows)
