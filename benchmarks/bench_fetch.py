"""What reading costs: first fetches of many results, and fetches with one new among many.

A program of rows, see ``kit``: ``python benchmarks/bench_fetch.py``. Each first fetch runs in a process of
its own, as a user's does, which also tells the most memory it had. Its yardsticks are the bare transfer and
a polars frame from lists that are there already; that of one new task are two pings. ``--forms`` prints the
other forms of tables and the other ways to read instead, in microseconds per row or call.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import kit
import msgspec
from kit import Options, Row

from rushlight import Rush, RushWorker

START = 1_795_000_000_000_000
#: Different inputs among the filled tasks.
VARIETY = 1000
_encode = msgspec.msgpack.Encoder().encode


def inputs(columns: int) -> dict[str, float]:
    return {f"x{j}": random.random() for j in range(columns - 1)}


def fill(rush: Rush, n: int, columns: int) -> None:
    """N finished tasks of so many columns, as eight workers would have left them: the bytes go straight
    into the list, or a million would take minutes."""
    rush.push_finished_tasks([inputs(columns)], [{"y": 0.5}])
    xs = [_encode(inputs(columns)) for _ in range(VARIETY)]
    ends = [_encode({"y": random.random()}) + b"\xc0" for _ in range(VARIETY)]
    key, send = rush._store.keys["finished"], rush._store.link.call
    for at in range(1, n, 1000):
        records = [
            b"".join((
                b"\x9c", _encode(f"brave-otter-3f2a91c{i % 8}"), b"\x01\xc0", _encode(f"c8xftebqgpfb-{i:x}"),
                xs[i % VARIETY], b"\xc0", moment(i), _encode(i), moment(i + 10), moment(i + 20),
                ends[i * 7 % VARIETY],
            ))
            for i in range(at, min(at + 1000, n))
        ]  # fmt: skip
        send(hiredis.pack_command(("RPUSH", key, *records)))


def moment(i: int) -> bytes:
    return b"\xcf" + (START + 100 * i).to_bytes(8, "big")


# --- first fetches ------------------------------------------------------------------------------------

CHILD = """
import gc, json, resource, sys, time
import polars as pl
from rushlight import Rush
network, form = sys.argv[1:]
def memory(name):
    with open("/proc/self/status") as told:
        return next(int(line.split()[1]) for line in told if line.startswith(name)) * 1024
with Rush(network + "-warm") as warm:
    warm.push_finished_tasks([{"x": 0.5}] * 100, [{"y": 0.5}] * 100)
    warm.fetch_finished_tasks(as_=form)
    warm.reset()
with Rush(network) as rush:
    link, finished = rush._store.link, rush._store.keys["finished"]
    rush.fetch_running_tasks()
    gc.collect()
    before = memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    wall, cpu = time.perf_counter(), time.process_time()
    table = rush.fetch_finished_tasks(as_=form)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = memory("VmHWM")
    frame = table if form == "polars" else rush.fetch_finished_tasks()
    from rushlight._wire import command
    ask = command("LRANGE", finished, 0, 99_999)
    bare = time.perf_counter(), time.process_time()
    link.call(ask)
    bare = time.perf_counter() - bare[0], time.process_time() - bare[1]
    some = frame.head(100_000)
    lists = {name: some[name].to_list() for name in some.columns}
    ready = time.process_time()
    pl.DataFrame(lists)
    ready = time.process_time() - ready
print(json.dumps({
    "ms": wall * 1e3, "cpu_ms": cpu * 1e3, "transfer_100k_ms": bare[0] * 1e3,
    "transfer_100k_cpu_ms": bare[1] * 1e3, "ready_lists_100k_cpu_ms": ready * 1e3,
    "rows": frame.height, "table_mb": frame.estimated_size() / 2**20, "base_mb": before / 2**20,
    "peak_growth_mb": (peak - before) / 2**20, "peak_x_table": (peak - before) / frame.estimated_size(),
}))
"""


def first_fetch(network: str, form: str = "polars") -> dict[str, float]:
    """One, in a process of its own."""
    command = [sys.executable, "-c", CHILD, network, form]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def first_fetches(network: str, target: str, rounds: int, memory: str | None) -> Iterator[Row]:
    found = [first_fetch(network) for _ in range(rounds)]
    middle = {name: round(statistics.median(one[name] for one in found), 2) for name in found[0]}
    beside = f"bare transfer and frame from ready lists, of 100,000: {middle['transfer_100k_ms']:.0f} + "
    beside += f"{middle['ready_lists_100k_cpu_ms']:.0f} ms"
    times = [one["ms"] for one in found]
    yield Row(target, round(min(times), 1), beside, kit.quartiles(times), middle, note="best of the rounds")
    if memory:
        growth = [one["peak_x_table"] for one in found]
        yield Row(
            memory,
            round(statistics.median(growth), 2),
            f"table {middle['table_mb']:.0f} MB, process before it {middle['base_mb']:.0f} MB",
            kit.quartiles(growth),
            {"peak_growth_mb": middle["peak_growth_mb"]},
        )


# --- one new among many ---------------------------------------------------------------------------------


def in_turns(
    server: kit.Server, new: Callable[[], object], read: Callable[[], object], n: int
) -> dict[str, list[float]]:
    """Microseconds of each read, of its CPU, and of two pings beside it; ``new`` comes before each."""
    found: dict[str, list[float]] = {"us": [], "cpu_us": [], "pings_us": []}
    for _ in range(n):
        new()
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        read()
        found["us"].append((time.perf_counter_ns() - wall) / 1e3)
        found["cpu_us"].append((time.process_time_ns() - cpu) / 1e3)
        wall = time.perf_counter_ns()
        server.raw.two_pings()
        found["pings_us"].append((time.perf_counter_ns() - wall) / 1e3)
    return found


def one_new(target: str, server: kit.Server, rush: Rush, columns: int, n: int) -> Row:
    rush.fetch_finished_tasks()
    with RushWorker(rush.network, heartbeat=False, lease=3600.0) as worker:

        def new() -> None:
            worker.finish_task(worker.push_running_task(inputs(columns)), {"y": 1.0})

        in_turns(server, new, rush.fetch_finished_tasks, n // 4)
        found = in_turns(server, new, rush.fetch_finished_tasks, n)
    middle = {name: round(statistics.median(values), 1) for name, values in found.items()}
    middle["mean_us"] = round(statistics.mean(found["us"]), 1)
    return Row(
        target, middle["us"], f"two pings: {middle['pings_us']} us", kit.quartiles(found["us"]), middle
    )


def two_states(server: kit.Server, rush: Rush, n: int) -> Row:
    """One new and a hundred running; beside it, one of these is new each time, too."""
    read = lambda: rush.fetch_tasks(["running", "finished"])  # noqa: E731, it is called as it is measured
    with RushWorker(rush.network, heartbeat=False, lease=3600.0) as worker:
        running = deque(worker.push_running_tasks([inputs(3) for _ in range(100)]))

        def new() -> None:
            worker.finish_task(worker.push_running_task(inputs(3)), {"y": 1.0})

        def new_ones() -> None:
            running.append(worker.push_running_task(inputs(3)))
            worker.finish_task(running.popleft(), {"y": 1.0})

        in_turns(server, new, read, n // 4)
        found = in_turns(server, new, read, n)
        others = in_turns(server, new_ones, read, n)
    middle = {name: round(statistics.median(values), 1) for name, values in found.items()}
    middle["one_running_new_us"] = round(statistics.median(others["us"]), 1)
    yardstick = f"two pings: {middle['pings_us']} us"
    return Row("fetch_states", middle["us"], yardstick, kit.quartiles(found["us"]), middle)


def rows(options: Options) -> Iterator[Row]:
    """All of them; a small run reads a hundredth."""
    part, rounds, n = (100, 2, 20) if options.small else (1, 5, 600)
    ones = []
    with kit.own_server(options, "--appendonly", "no") as server:
        for name, columns, many in (
            ("100k_3", 3, 100_000), ("100k_100", 100, 100_000), ("100k_13", 13, 100_000),
            ("1m_3", 3, 1_000_000), ("1m_13", 13, 1_000_000), ("1m_100", 100, 1_000_000),
        ):  # fmt: skip
            with Rush(f"bench-{name}") as rush:
                fill(rush, many // part, columns)
                if columns != 100:
                    target = f"fetch_cold_{columns}" if name[:3] != "1m_" else f"fetch_cold_{name}"
                    memory = f"fetch_memory_{columns}" if name[:3] == "1m_" else None
                    yield from first_fetches(rush.network, target, rounds, memory)
                if columns != 13:
                    ones.append(one_new(f"fetch_new_{name}", server, rush, columns, n))
                    yield ones[-1]
                if name == "100k_3":
                    yield two_states(server, rush, n // 2)
                rush.reset()
    figures = [row.figure for row in ones]
    yield Row("fetch_new_flat", round(max(figures) / min(figures), 2), beside=dict(zip(
        ("100k_3", "100k_100", "1m_3", "1m_100"), figures, strict=True)))  # fmt: skip


# --- the other forms and ways ------------------------------------------------------------------------------


def forms(n: int) -> None:
    """Prints what is not in the table of targets."""
    with kit.own_server(Options(), "--appendonly", "no") as server, Rush("bench-forms") as rush:
        fill(rush, n, 3)
        for form in ("polars", "pandas", "arrow", "dicts", "tasks"):
            best = min((first_fetch(rush.network, form) for _ in range(3)), key=lambda one: one["cpu_ms"])
            with Rush(rush.network) as again:
                again.fetch_finished_tasks(as_=form)
                gc.collect()
                _, second = kit.timed(lambda again=again, form=form: again.fetch_finished_tasks(as_=form), 1)
            print(
                f"{form:7} first {best['cpu_ms'] / n * 1e3:6.2f}, again {second / n:6.2f} us CPU per row; "
                f"peak {best['peak_x_table']:.1f} x the frame"
            )
        with RushWorker(rush.network, heartbeat=False, lease=3600.0) as worker:
            rush.fetch_finished_tasks(), rush.fetch_new_tasks(), list(rush.stream(timeout=0.0))
            ways: dict[str, Callable[[], Any]] = {
                "fetch_new_tasks": rush.fetch_new_tasks,
                "fetch_new_tasks, dicts": lambda: rush.fetch_new_tasks(as_="dicts"),
                "fetch_new_tasks, tasks": lambda: rush.fetch_new_tasks(as_="tasks"),
                "stream": lambda: list(rush.stream(timeout=0.0)),
                "keys": lambda: rush.keys("finished"),
                "fetch_finished_tasks": rush.fetch_finished_tasks,
            }
            for name, read in ways.items():
                for many in (1, 1000):

                    def new(many: int = many) -> None:
                        worker.finish_tasks(
                            worker.push_running_tasks([inputs(3)] * many), [{"y": 1.0}] * many
                        )

                    found = in_turns(server, new, read, 200 if many == 1 else 20)
                    middle = {key: statistics.median(values) for key, values in found.items()}
                    figures = ", ".join(f"{key} {value:.1f}" for key, value in middle.items())
                    print(f"{name:24} {many:5} new among {n:,}: {figures}")
        rush.reset()


if __name__ == "__main__":
    if "--forms" in sys.argv:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--forms", action="store_true")
        parser.add_argument("--rows", type=int, default=100_000)
        forms(parser.parse_args().rows)
    else:
        kit.main(__doc__, rows)
