"""What workers cost while they wait, and how soon they are heard: ``python benchmarks/bench_workers.py``.

A program of rows, see ``kit``.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import kit
from kit import XS, YS, Options, Row

from rushlight import Rush, RushWorker

WORKERS = 4
#: Seconds that both sides are left alone before each wake-up, so that the waiter is asleep.
PAUSE = 0.003


def finisher(network: str, pipe: Connection) -> None:
    """Another process: finishes a task whenever it is told to, and says when it began to."""
    with RushWorker(network) as worker:
        pipe.send(None)
        while pipe.recv():
            key = worker.push_running_task(XS)
            time.sleep(PAUSE)
            start = time.perf_counter()
            worker.finish_task(key, YS)
            pipe.send(start)


def wake_up(server: kit.Server, rush: Rush, rounds: int) -> Row:
    """From the call of ``finish_task`` in one process to the return of ``fetch_new_tasks`` in another. The
    clock is the machine's, the same in both. Two yardsticks: a ping after the same pause in each round, of
    which the figure is the ratio, and hot pings, one after the other, as of the other rows."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=finisher, args=(rush.network, theirs))
    process.start()
    ours.recv()
    times, pings = [], []
    for round_ in range(rounds + 5):
        ours.send(True)
        found = rush.fetch_new_tasks(timeout=10)
        end = time.perf_counter()
        assert len(found) == 1
        took = end - ours.recv()
        time.sleep(PAUSE)
        start = time.perf_counter()
        server.raw.ping()
        ping = time.perf_counter() - start
        if round_ >= 5:
            times.append(took * 1e6)
            pings.append(ping * 1e6)
    ours.send(False)
    process.join()
    hot = statistics.median(kit.timed(server.raw.ping, rounds)[0] for _ in range(5))
    ping, us = statistics.median(pings), statistics.median(times)
    ratios = [took / ping for took in times]
    return Row(
        "wake_up",
        round(statistics.median(ratios), 2),
        f"a ping after the same pause: {ping:.1f} us; a hot ping: {hot:.1f} us",
        tuple(round(r, 2) for r in kit.quartiles(ratios)),
        {"us": round(us, 1), "x a hot ping": round(us / hot, 2)},
    )


def waiting(worker) -> None:
    while not worker.terminated:
        worker.pop_task(timeout=1)


def idle(rush: Rush, n: int) -> Row:
    """The memory of idle workers and of what looks after them: each page counted once, shared among those
    that have it. The loop imports nothing of its own."""
    import psutil

    rush.start_workers(waiting, n)
    rush.wait_for_workers(n)
    time.sleep(0.5)  # until the last of them waits
    inside = [
        process
        for process in psutil.Process().children(recursive=True)
        if any(rush.network in word for word in process.cmdline())
    ]
    pids = set(rush.worker_info["pid"].to_list())
    share = {process.pid: process.memory_full_info() for process in inside}
    total = sum(memory.pss for memory in share.values()) / 1e6
    own = statistics.median(memory.uss / 1e6 for pid, memory in share.items() if pid in pids)
    return Row(
        "idle_worker",
        round(total / n, 1),
        f"{n} workers, {len(share)} processes",
        None,
        {"all_mb": round(total, 1), "own_pages_of_a_worker_mb": round(own, 1)},
        note=f"all processes together {total:.0f} MB; pages of a worker alone {own:.1f} MB",
    )


def rows(options: Options) -> Iterator[Row]:
    """Every row of this program, in order."""
    with kit.own_server(options) as server, Rush() as rush:
        yield wake_up(server, rush, 5 if options.small else 300)
        rush.reset()
    with kit.own_server(options), Rush() as rush:
        yield idle(rush, 2 if options.small else WORKERS)
        rush.reset()


if __name__ == "__main__":
    kit.main(__doc__, rows)
