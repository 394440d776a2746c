"""What one client pays, one task per call; bulk, start-up and memory beside it: ``python
benchmarks/bench_core.py``. A program of rows, see ``kit``.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import kit
from kit import XS, YS, Options, Row

from rushlight import Rush, RushWorker, plan


def verbs(server: kit.Server, worker: RushWorker, rush: Rush, *, small: bool) -> Iterator[Row]:
    """One client, one task per call, beside two raw pings on a connection of the same kind."""
    n, rounds = (10, 4) if small else (300, 21)

    def against(work) -> kit.Ratio:
        return kit.against(work, server.ping.two, n, rounds, server)

    def create_finish() -> None:
        worker.finish_task(worker.push_running_task(XS), YS)

    def step() -> None:
        held[0] = worker.step(finish=(held[0], YS), push=XS)

    def pop_finish() -> None:
        task = worker.pop_task(timeout=0)
        worker.finish_task(task.key, YS)

    def finish_and_pop() -> None:
        held[0] = worker.finish_and_pop(held[0].key, YS, timeout=0)

    found = against(create_finish)
    yield found.row("create_finish", "two pings")
    yield found.row("create_finish_cpu", "two pings", cpu=True)
    held = [worker.push_running_task(XS)]
    yield against(step).row("step", "two pings")
    worker.finish_task(held[0], YS)
    with worker.write_behind():
        yield against(create_finish).row("write_behind", "two pings")
    rush.push_tasks([XS] * (n * (rounds + 2)))
    yield against(pop_finish).row("pop_finish", "two pings")
    rush.push_tasks([XS] * (n * (rounds + 2)))
    held = [worker.pop_task(timeout=0)]
    yield against(finish_and_pop).row("finish_and_pop", "two pings")


def adaptive_verbs(server: kit.Server, worker: RushWorker, *, small: bool) -> Iterator[Row]:
    """A client that waits adaptively, beside pings that sleep: it shows on idle cores only."""
    n, rounds = (10, 4) if small else (300, 21)

    def create_finish() -> None:
        worker.finish_task(worker.push_running_task(XS), YS)

    def step() -> None:
        held[0] = worker.step(finish=(held[0], YS), push=XS)

    # What no client that waits like this could be faster than.
    bare = kit.RawPing(server.address, looks=True)
    floor = kit.against(bare.two, server.ping.two, n, rounds)
    bare.close()
    note = f"two bare pings that wait alike: {floor.wall:.2f} x"
    found = kit.against(create_finish, server.ping.two, n, rounds, server)
    yield found.row("create_finish_adaptive", "two blocking pings", note=note)
    held = [worker.push_running_task(XS)]
    found = kit.against(step, server.ping.two, n, rounds, server)
    note = f"one bare ping that waits alike: {floor.wall / 2:.2f} x"
    yield found.row("step_adaptive", "two blocking pings", note=note)


def bulk(rush: Rush, n: int, pushed: int) -> Iterator[Row]:
    """On a server that holds nothing else: what finished tasks weigh, and pushing many."""
    rush.push_finished_tasks([XS], [YS])
    before = int(rush.server_info()["used_memory"])
    with RushWorker(rush.network) as worker:
        for _ in range(n // 500):
            worker.finish_tasks(worker.push_running_tasks([XS] * 500), [YS] * 500)
    weight = (int(rush.server_info()["used_memory"]) - before) / n
    yield Row("server_memory", round(weight, 1), f"{n:,} tasks")
    push = []
    for _ in range(7):
        rush.reset()
        gc.collect()
        start = time.perf_counter()
        rush.push_tasks([XS] * pushed)
        push.append((time.perf_counter() - start) / pushed * 1e6)
    yield Row("push_bulk", round(statistics.median(push), 2), "", kit.quartiles(push))


def idle_loop(worker) -> None:
    while not worker.terminated:
        worker.pop_task(timeout=1)


def start_up(rush: Rush, rounds: int) -> Iterator[Row]:
    """Workers, and what a worker process imports."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        ids = rush.start_workers(idle_loop, 4)
        rush.wait_for_workers(worker_ids=ids)
        times.append(time.perf_counter() - start)
        rush.stop_workers()
    bare, whole, client = (
        statistics.median(spawn(code) for _ in range(rounds))
        for code in ("pass", "import rushlight._entry", "import redis")
    )
    yield Row(
        "start_workers",
        round(statistics.median(times), 3),
        f"python -c pass: {bare * 1e3:.0f} ms",
        kit.quartiles(round(t, 3) for t in times),
        {"import_ms": round((whole - bare) * 1e3, 1), "import_redis_ms": round((client - bare) * 1e3, 1)},
    )


def spawn(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def wheel_size() -> int:
    """Bytes of the wheel, built from this checkout."""
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", out, str(root)]
        subprocess.run(command, check=True, capture_output=True)
        return next(Path(out).glob("*.whl")).stat().st_size


def rows(options: Options) -> Iterator[Row]:
    """Every row of this program, in order."""
    with kit.own_server(options), Rush("bench-bulk") as rush:
        yield from bulk(rush, *((1_000, 100) if options.small else (100_000, 10_000)))
    with kit.own_server(options) as server, Rush("bench-core") as rush:
        with plan(adaptive_waiting=False), RushWorker(rush.network) as worker:
            yield from verbs(server, worker, rush, small=options.small)
        with RushWorker(rush.network) as worker:
            yield from adaptive_verbs(server, worker, small=options.small)
        yield from start_up(rush, 1 if options.small else 7)
        rush.reset()


if __name__ == "__main__":
    kit.main(__doc__, rows)
