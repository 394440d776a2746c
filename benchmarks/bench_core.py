"""What the core costs, each figure beside a yardstick measured in the same run.

    python benchmarks/bench_core.py [--tasks 100000] [--json]

Starts a server of its own (the embedded one, in a home of its own) and removes it again. Round trips on small
machines fall into two regimes, so only the ratios mean anything; every ratio is the median over interleaved
rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hiredis

PING = hiredis.pack_command(("PING",))
XS, YS = {"x1": 0.1, "x2": 0.2}, {"y": 0.3}


def timed(action: Callable[[], object], n: int) -> float:
    """Microseconds per call."""
    start = time.perf_counter()
    for _ in range(n):
        action()
    return (time.perf_counter() - start) / n * 1e6


def against(action: Callable[[], object], yardstick: Callable[[], object], n: int = 300, rounds: int = 15):
    """Medians of both in microseconds, and of their ratio, over interleaved rounds."""
    timed(action, 50)
    pairs = [(timed(action, n), timed(yardstick, n)) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    return {
        "us": round(statistics.median(a for a, _ in pairs), 1),
        "two_pings_us": round(statistics.median(b for _, b in pairs), 1),
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
    }


@contextmanager
def own_server() -> Iterator[Path]:
    from rushlight._server import stop_server

    # Without bytecode files every process would compile the package anew, which no user's does.
    for name in ("RUSHLIGHT_URL", "REDIS_URL", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="rushlight-bench-") as home:
        os.environ["RUSHLIGHT_HOME"] = home
        try:
            yield Path(home)
        finally:
            stop_server()


def idle_loop(worker) -> None:
    while not worker.terminated:
        worker.pop_task(timeout=1)


def verbs(worker, rush) -> dict[str, object]:
    """One client, one task per call, beside two raw pings on a connection of the same kind."""
    link = worker._store.link
    held = [worker.push_running_task(XS)]

    def two_pings() -> None:
        link.call(PING)
        link.call(PING)

    def create_finish() -> None:
        worker.finish_task(worker.push_running_task(XS), YS)

    def step() -> None:
        held[0] = worker.step(finish=(held[0], YS), push=XS)

    def pop_finish() -> None:
        task = worker.pop_task(timeout=0)
        worker.finish_task(task.key, YS)

    found: dict[str, object] = {
        "create + finish": against(create_finish, two_pings),
        "step": against(step, two_pings),
    }
    with worker.write_behind():
        found["write-behind create + finish"] = against(create_finish, two_pings)
    worker.finish_task(held[0], YS)
    rush.push_tasks([XS] * 20_000)
    found["pop + finish"] = against(pop_finish, two_pings)
    taken = [worker.pop_task(timeout=0)]

    def finish_and_pop() -> None:
        taken[0] = worker.finish_and_pop(taken[0].key, YS, timeout=0)

    found["finish_and_pop"] = against(finish_and_pop, two_pings)
    return found


def bulk(rush, worker_type, n: int) -> dict[str, object]:
    """On a server that holds nothing else: pushing many, reading all of them, and what they weigh."""
    import psutil

    rush.push_finished_tasks([XS], [YS])
    before = int(rush.server_info()["used_memory"])
    with worker_type(rush.network) as worker:
        for _ in range(n // 500):
            worker.finish_tasks(worker.push_running_tasks([XS] * 500), [YS] * 500)
    server = (int(rush.server_info()["used_memory"]) - before) / n
    type(rush)(rush.network).fetch_finished_tasks()  # polars is imported, the server's answer is warm
    times, process = [], psutil.Process()
    for _ in range(3):
        reader = type(rush)(rush.network)
        gc.collect()
        resident = process.memory_info().rss
        start = time.perf_counter()
        table = reader.fetch_finished_tasks()
        times.append(time.perf_counter() - start)
        client = (process.memory_info().rss - resident) / n
    push = []
    for _ in range(3):
        start = time.perf_counter()
        rush.push_tasks([XS] * 10_000)
        push.append((time.perf_counter() - start) / 10_000 * 1e6)
        rush.reset(workers=False)
    return {
        "push_tasks(10,000), us per task": round(min(push), 2),
        f"cold fetch of {n:,} finished tasks to polars, ms": round(min(times) * 1e3, 1),
        "server memory per finished task, bytes": round(server),
        "client memory per row, whole process, bytes": round(client),
        "table per row, bytes": round(table.estimated_size() / n),
    }


def start_up(rush) -> dict[str, object]:
    """Workers, and what a worker process imports."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        ids = rush.start_workers(idle_loop, 4)
        rush.wait_for_workers(worker_ids=ids)
        times.append(time.perf_counter() - start)
        rush.stop_workers()
    bare = statistics.median(spawn("pass") for _ in range(5))
    return {
        "start_workers(4) to registered, s": [round(t, 3) for t in sorted(times)],
        "python -c pass, ms": round(bare * 1e3, 1),
        "import of the worker path beyond that, ms": round(
            (statistics.median(spawn("import rushlight._entry") for _ in range(5)) - bare) * 1e3, 1
        ),
        "of which import redis, ms": round(
            (statistics.median(spawn("import redis") for _ in range(5)) - bare) * 1e3, 1
        ),
    }


def spawn(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def wheel_size() -> int:
    """Bytes of the wheel, built from this checkout; 0 where it cannot be built here."""
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", out, str(root)]
        subprocess.run(command, check=True, capture_output=True)
        return next(Path(out).glob("*.whl")).stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from rushlight import Rush, RushWorker

    with own_server(), Rush("bench-bulk") as rush:
        found = bulk(rush, RushWorker, options.tasks)
        rush.reset()
    with own_server(), Rush("bench-core") as rush:
        with RushWorker(rush.network) as worker:
            found |= verbs(worker, rush)
        found |= start_up(rush)
        rush.reset()
    found["wheel, bytes"] = wheel_size()
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
