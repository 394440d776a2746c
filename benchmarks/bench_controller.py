"""What calls of a controller cost, beside ``ProcessPoolExecutor`` in the same run: ``python
benchmarks/bench_controller.py [--calls N] [--million] [--retention collect|archive [--number N]]``.

Two workers each, no-op calls, interleaved rounds: compare ratios, as a machine's load is in both. CPU is
that of all processes that have a part in it. ``--million`` also submits a million calls and watches the
client's memory. ``--retention`` does only this: it submits and collects a million calls, and watches the
memory of client and server.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

FIRST = """
import time; start = time.perf_counter()
from rushlight import Controller
with Controller(max_workers=1) as controller:
    controller.submit(abs, -1).result()
    print(time.perf_counter() - start)
"""


#: How often the first result is waited for.
STARTS = 5


def first_result() -> float:
    """Seconds from the import to the result of a first call, in a process of its own."""
    line = [sys.executable, "-c", FIRST]
    return float(subprocess.run(line, capture_output=True, check=True).stdout)


def noop(x: int) -> int:
    return x


def rate(executor, n: int) -> float:
    start = time.perf_counter()
    for _ in executor.map(noop, range(n)):
        pass
    return n / (time.perf_counter() - start)


def latency(executor, n: int = 200) -> float:
    times = []
    for i in range(n):
        start = time.perf_counter()
        executor.submit(noop, i).result()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def cpu(processes: list[psutil.Process]) -> float:
    return time.process_time() + sum(sum(p.cpu_times()[:2]) for p in processes)


def compare(controller, pool, calls: int, rounds: int) -> dict[str, object]:
    server = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if os.environ["RUSHLIGHT_HOME"] in " ".join(process.cmdline()):
                server.append(process)
    ours = server + [psutil.Process(pid) for pid in set(controller.workers()["pid"])]
    theirs = [psutil.Process(pid) for pid in pool._processes]
    maps, latencies, costs = [], [], []
    for _ in range(rounds):
        marks = [cpu(ours)]
        mine = rate(controller, calls)
        marks += [cpu(ours), cpu(theirs)]
        other = rate(pool, calls)
        marks.append(cpu(theirs))
        maps.append((mine, other))
        costs.append(((marks[1] - marks[0]) / calls * 1e6, (marks[3] - marks[2]) / calls * 1e6))
        latencies.append((latency(controller), latency(pool)))
    return {
        "map, calls/s": [round(x) for x in map(statistics.median, zip(*maps, strict=True))],
        "ratio": round(statistics.median(a / b for a, b in maps), 2),
        "CPU of all processes, us/call": [
            round(x, 1) for x in map(statistics.median, zip(*costs, strict=True))
        ],
        "submit to result, p50 ms": [
            round(x, 3) for x in map(statistics.median, zip(*latencies, strict=True))
        ],
    }


def million(controller, n: int = 1_000_000) -> dict[str, object]:
    process, start = psutil.Process(), time.perf_counter()
    before, seen = process.memory_info().rss, []
    for i in range(n):
        controller.submit(noop, i)
        if i % (n // 10) == 0:
            seen.append(round((process.memory_info().rss - before) / 1e6))
    submitted = time.perf_counter() - start
    controller.wait()
    return {
        "submissions": n,
        "seconds": round(submitted, 1),
        "seconds until all had ended": round(time.perf_counter() - start, 1),
        "client memory, MB more, at each tenth": seen,
    }


def collecting(retention: str, n: int) -> dict[str, object]:
    """Submits calls and collects their results, with no more than 20,000 under way; memory in MB above that
    after the first ones."""
    from rushlight import Controller, Rush

    process, seen, got = psutil.Process(), [], 0
    with (
        Controller(f"bench-{retention}", max_workers=2, min_workers=2, retention=retention) as controller,
        Rush(f"bench-{retention}") as rush,
    ):

        def memory() -> tuple[int, int]:
            return process.memory_info().rss, int(rush.server_info()["used_memory"])

        controller.walk(noop, range(20_000))
        controller.wait()
        first = len(controller.collect())
        before, start = memory(), time.perf_counter()
        for at in range(0, n, 1000):
            controller.walk(noop, range(at, at + 1000))
            while at + 1000 - got > 20_000:
                got += len(controller.collect())
            if (at + 1000) % (n // 10) == 0:
                seen.append(
                    [round((now - then) / 1e6, 1) for now, then in zip(memory(), before, strict=True)]
                )
        controller.wait()
        got += len(controller.collect())
        seconds = time.perf_counter() - start
        assert (first, got, len(controller)) == (20_000, n, 0)
        time.sleep(2.0)
        left = [round((now - then) / 1e6, 1) for now, then in zip(memory(), before, strict=True)]
        found = {
            "calls": n,
            "calls/s": round(n / seconds),
            "client and server, MB more, at each tenth": seen,
            "in the end": left,
            "server, bytes for each call": round(left[1] * 1e6 / n, 1),
        }
        rush.reset()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--retention", choices=["collect", "archive"])
    parser.add_argument("--number", type=int, default=1_000_000)
    options = parser.parse_args()
    from rushlight import Controller
    from rushlight._server import stop_server

    with tempfile.TemporaryDirectory(prefix="rl-bench-") as home:
        os.environ["RUSHLIGHT_HOME"] = str(Path(home).resolve())
        if options.retention:
            try:
                print(json.dumps(collecting(options.retention, options.number), indent=2))
            finally:
                stop_server()
            return
        try:
            cold, warm = [], []
            for _ in range(STARTS):
                stop_server()
                cold.append(first_result())
                warm.append(first_result())
            found: dict[str, object] = {
                "from nothing to the first result, s": round(statistics.median(cold), 3),
                "the same with a server that is there, s": round(statistics.median(warm), 3),
            }
            with Controller(max_workers=2, min_workers=2) as controller:
                with concurrent.futures.ProcessPoolExecutor(2) as pool:
                    rate(controller, 2000), rate(pool, 2000)
                    found["controller, ProcessPoolExecutor(2)"] = compare(
                        controller, pool, options.calls, options.rounds
                    )
                if options.million:
                    found["a million"] = million(controller)
        finally:
            stop_server()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
