"""What workers cost while they wait, and how soon they are heard: ``python benchmarks/bench_workers.py``.

A program of rows, see ``kit``.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import hiredis
import kit
from kit import XS, YS, Options, Row
from raw import RawSocket

from rushlight import Rush, RushWorker

WORKERS = 4
#: Seconds that both sides are left alone before each wake-up, so that the waiter is asleep.
PAUSE = 0.003


#: An entry in a stream that somebody waits for: nothing else happens in a bare wake-up.
TELL = hiredis.pack_command(("XADD", "wake-up", "MAXLEN", "1", "*", "e", ""))
LISTEN = hiredis.pack_command(("XREAD", "BLOCK", "10000", "STREAMS", "wake-up", "$"))


def teller(network: str, address: str | tuple[str, int], pipe: Connection) -> None:
    """Another process: finishes a task or only adds to a stream, as it is told, and says when it began to."""
    raw = RawSocket(address)
    with RushWorker(network) as worker:
        pipe.send(None)
        while wanted := pipe.recv():
            key = worker.push_running_task(XS)
            time.sleep(PAUSE)
            start = time.perf_counter()
            if wanted == "finish":
                worker.finish_task(key, YS)
            else:
                raw.ask(TELL)
            pipe.send(start)


def wake_up(server: kit.Server, rush: Rush, rounds: int) -> Row:
    """From the call of ``finish_task`` in one process to the return of ``fetch_new_tasks`` in another. The
    clock is the machine's, the same in both. Two yardsticks: a ping after the same pause in each round, of
    which the figure is the ratio, and hot pings, one after the other, as of the other rows. Below it is a
    bare wake-up, from one plain socket to another by way of a stream, in turns with ours."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=teller, args=(rush.network, server.address, theirs))
    process.start()
    ours.recv()
    listener = RawSocket(server.address)

    def timed(wanted: str) -> float:
        ours.send(wanted)
        if wanted == "finish":
            assert len(rush.fetch_new_tasks(timeout=10)) == 1
        else:
            listener.ask(LISTEN)
        end = time.perf_counter()
        took: float = end - ours.recv()
        return took * 1e6

    found = []
    for _ in range(rounds + 5):
        times = timed("finish"), timed("tell")
        time.sleep(PAUSE)
        found.append((*times, kit.timed(server.raw.ping, 1)[0]))
    ours.send("")
    process.join()
    listener.close()
    hot = statistics.median(kit.timed(server.raw.ping, rounds)[0] for _ in range(5))
    us, bare, ping = (statistics.median(one) for one in zip(*found[5:], strict=True))
    ratios = [took / after for took, _, after in found[5:]]
    return Row(
        "wake_up",
        round(statistics.median(ratios), 2),
        f"a ping after the same pause: {ping:.1f} us; a hot ping: {hot:.1f} us",
        tuple(round(r, 2) for r in kit.quartiles(ratios)),
        {"us": round(us, 1), "x a hot ping": round(us / hot, 2), "bare_us": round(bare, 1)},
        note=f"a bare wake-up: {bare:.0f} us, {bare / ping:.2f} and {bare / hot:.2f} such pings",
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
