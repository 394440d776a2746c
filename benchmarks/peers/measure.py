"""Measures one library in one variant, in its own virtual environment: needs the standard library alone.

    python measure.py with_rq "fork per job" --url redis://... [--small]

A module ``with_*`` has ``VARIANTS``: name -> class with ``settings`` (in words), ``start(url, workers)``,
``many(task, n)`` (submits n tasks and returns all results), ``one(task, x)`` and ``stop()``. A module whose
VARIANTS have ``trials(n)`` instead is a shared store for searches. Prints one JSON object.
"""

import argparse
import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def cpu_seconds():
    """CPU of all processes of this measurement, and of the server, so far."""
    mark = f"PEERS_RUN={os.environ.get('PEERS_RUN', '')}".encode()
    total = 0
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/environ", "rb") as told:
                if entry != os.environ.get("PEERS_SERVER") and mark not in told.read().split(b"\0"):
                    continue
            with open(f"/proc/{entry}/stat") as told:
                total += sum(map(int, told.read().rpartition(")")[2].split()[11:15]))
        except OSError:
            continue
    return total / os.sysconf("SC_CLK_TCK")


def rate(many, seconds, most):
    """Tasks per second of batches that take about so many seconds; and their CPU, which depends less on who
    else uses the machine."""
    n = 40
    while True:
        start = time.perf_counter()
        assert sorted(many(n)) == list(range(n))
        spent = time.perf_counter() - start
        if spent > seconds / 4 or n >= most:
            break
        n = min(most, int(n * min(8, max(2, seconds / spent))))
    n = max(20, min(most, int(n * seconds / spent)))
    found, used = [], []
    for _ in range(3):
        gc.collect()
        cpu, start = cpu_seconds(), time.perf_counter()
        assert sorted(many(n)) == list(range(n))
        found.append(n / (time.perf_counter() - start))
        used.append((cpu_seconds() - cpu) / n * 1e6)
    return {"n": n, "per_second": [round(r, 1) for r in found], "cpu_us": [round(us) for us in used]}


def latency(one, most, seconds):
    """Milliseconds of single tasks, 4 ms apart."""
    found = []
    until = time.perf_counter() + seconds
    while len(found) < most and (len(found) < 10 or time.perf_counter() < until):
        time.sleep(0.004)
        start = time.perf_counter()
        assert one(7) == 7
        found.append((time.perf_counter() - start) * 1e3)
    found.sort()
    return {
        "n": len(found),
        "p50_ms": round(statistics.median(found), 3),
        "p95_ms": round(found[min(len(found) - 1, int(len(found) * 0.95))], 3),
    }


def versions(names):
    from importlib import metadata

    return {name: metadata.version(name) for name in names}


def measure(peer, workers, small):
    """Everything about a queue: from the launch of its workers to its latency."""
    seconds, most, singles = (0.2, 200, 10) if small else (1.5, 200_000, 150)
    start = time.perf_counter()
    peer.start(workers)
    try:
        peer.one("noop", 0)
        first = time.perf_counter() - start
        return {
            "first_result_seconds": round(first, 3),
            "noop": rate(lambda n: peer.many("noop", n), seconds, most),
            "spin": rate(lambda n: peer.many("spin", n), seconds, most),
            "noop_latency": latency(lambda x: peer.one("noop", x), singles, 6),
            "spin_latency": latency(lambda x: peer.one("spin", x), singles, 6),
        }
    finally:
        peer.stop()


def measure_store(peer, workers, small):
    """Everything about a shared store of trials: one process, then two, then what reading them costs."""
    seconds, most = (0.2, 50) if small else (1.5, 50_000)
    peer.start(workers)
    try:
        n = 20
        start = time.perf_counter()
        peer.trials(n)
        n = max(10, min(most, int(n * seconds / (time.perf_counter() - start))))
        rounds = []
        for _ in range(3):
            start = time.perf_counter()
            peer.trials(n)
            rounds.append((time.perf_counter() - start) / n * 1e6)
        found = {"trial_us": {"n": n, "us": [round(us, 1) for us in rounds]}}
        if getattr(peer, "together", None):
            done, spent = peer.together(n)
            found["two_processes"] = {"n": done, "per_second": round(done / spent, 1)}
        if getattr(peer, "load", None):
            stored, spent = peer.load(100 if small else 5_000)
            found["load"] = {"n": stored, "ms": round(spent * 1e3, 2)}
        return found
    finally:
        peer.stop()


class Processes:
    """Worker processes of a library, started by its own command."""

    def __init__(self):
        self._started = []

    def run(self, *command, **env):
        """A program beside this interpreter, found in the folder of these files."""
        program = os.path.join(os.path.dirname(sys.executable), command[0])
        log = subprocess.DEVNULL if not os.environ.get("PEERS_LOG") else sys.stderr
        process = subprocess.Popen(
            [program, *command[1:]],
            cwd=HERE,
            env={**os.environ, "PYTHONPATH": HERE, **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self._started.append(process)

    def end(self):
        for process in self._started:
            process.terminate()
        for process in self._started:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()  # what it leaves is ended by who started this measurement


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer")
    parser.add_argument("variant")
    parser.add_argument("--url", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    os.environ["PEERS_URL"] = asked.url
    module = importlib.import_module(asked.peer)
    peer = module.VARIANTS[asked.variant]()
    how = measure_store if hasattr(peer, "trials") else measure
    found = how(peer, asked.workers, asked.small)
    told = {"settings": peer.settings, "versions": versions(module.PACKAGES)}
    print(json.dumps({**told, **found}), flush=True)


if __name__ == "__main__":
    # Peers pickle their functions by the name of their module, so this file is imported under its own.
    sys.path.insert(0, HERE)
    importlib.import_module("measure").main()
