"""What one client pays, one task per call; bulk, start-up and memory beside it: ``python
benchmarks/bench_core.py``. A program of rows, see ``kit``.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import kit
from floors import FEWEST, OURS, below
from kit import XS, YS, Options, Row

from rushlight import Rush, RushWorker, plan


class Client:
    """The operations of a worker through our client, like those of ``floors.Hand``."""

    def __init__(self, worker: RushWorker) -> None:
        self._worker = worker
        self._held = worker.push_running_task(XS)

    def create_finish(self) -> None:
        self._worker.finish_task(self._worker.push_running_task(XS), YS)

    def step(self) -> None:
        self._held = self._worker.step(finish=(self._held, YS), push=XS)

    def pop_finish(self) -> None:
        task = self._worker.pop_task(timeout=0)
        self._worker.finish_task(task.key, YS)

    def finish_and_pop(self) -> None:
        self._held = self._worker.finish_and_pop(self._held, YS, timeout=0).key


def verbs(server: kit.Server, rush: Rush, *, adaptive: bool, small: bool) -> Iterator[Row]:
    """One client, one task per call, beside two raw pings that sleep, and what lies below, which waits as the
    client does. What waiting adaptively saves shows on idle cores only."""
    n, rounds = (10, 4) if small else (300, 15)

    def measured(verb: str) -> kit.Ratio:
        work, lower = getattr(Client(worker), verb), floors.of(verb)
        return kit.against(work, server.raw.two_pings, n, rounds, server, lower)

    def measured_behind() -> kit.Ratio:
        with contextlib.ExitStack() as block:

            def end() -> None:
                block.close()
                floors.settle()
                block.enter_context(worker.write_behind())

            end()
            work, lower = Client(worker).create_finish, floors.of("create_finish", behind=True)
            return kit.against(work, server.raw.two_pings, n, rounds, server, lower, end)

    with (
        plan(adaptive_waiting=adaptive),
        RushWorker(rush.network) as worker,
        below(server, rush.network, looks=adaptive) as floors,
    ):
        found = measured("create_finish")
        if adaptive:
            yield found.row("create_finish_adaptive", "two blocking pings")
            yield measured("step").row("step_adaptive", "two blocking pings")
            return
        yield found.row("create_finish", "two pings")
        yield found.row("create_finish_cpu", "two pings", cpu=True)
        yield measured("step").row("step", "two pings")
        yield measured_behind().row("write_behind", "two pings")
        for verb in ("pop_finish", "finish_and_pop"):
            queued = n * (rounds + 1)
            rush.push_tasks([XS] * (2 * queued))
            floors.fewest.queue(queued)
            yield measured(verb).row(verb, "two pings")


def over_floors(rows: list[Row]) -> Iterator[Row]:
    """How far the operations whose answer is awaited are above two of their floors, in wall time; the figure
    is the farthest."""
    awaited = [row for row in rows if row.target not in ("create_finish_cpu", "write_behind")]
    for target, upper, lower in (("client_over_hand", None, OURS), ("calls_over_fewest", OURS, FEWEST)):
        over = {
            row.target: round((row.floors[upper] if upper else row.figure) / row.floors[lower], 3)
            for row in awaited
        }
        yield Row(target, max(over.values()), beside=over)


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
    bare, whole = (
        statistics.median(spawn(code) for _ in range(rounds)) for code in ("pass", "import rushlight._entry")
    )
    yield Row(
        "start_workers",
        round(statistics.median(times), 3),
        f"python -c pass: {bare * 1e3:.0f} ms",
        kit.quartiles(round(t, 3) for t in times),
        {"import_ms": round((whole - bare) * 1e3, 1)},
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
        found = []
        for adaptive in (False, True):
            for row in verbs(server, rush, adaptive=adaptive, small=options.small):
                found.append(row)
                yield row
        yield from over_floors(found)
        yield from start_up(rush, 1 if options.small else 7)
        rush.reset()


if __name__ == "__main__":
    kit.main(__doc__, rows)
