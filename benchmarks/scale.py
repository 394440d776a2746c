"""Thousands of workers on one server, whose objective sleeps: how much of their time they work.

    python benchmarks/scale.py [--save] [--workers 1000 4000] [--sleeps 10 1 0.1] [--style search]

Every worker is a real ``RushWorker`` with a connection and a lease of its own; only the sleeping is
simulated: a few processes step their workers when their sleep is over, so that no worker needs a thread. All
of them and the server share this machine, so this says what one server carries, and it bends early: where the
cores are full. Utilisation is time asleep (at work) over all time of all workers, after a warm-up.

Styles: ``search`` finishes a task and creates the next (``step``); ``queue`` takes from a queue that a
manager keeps full (``finish_and_pop``); ``archive`` is ``search``, and every worker reads all new results of
everybody before each step, as model-based optimisers do.
"""

from __future__ import annotations

import argparse
import heapq
import json
import multiprocessing
import os
import random
import resource
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kit
import publish
from kit import XS, YS

from rushlight import Rush, RushWorker

#: The styles, and how many workers each is played with.
WORKERS = {"search": (1000, 1920, 4000), "queue": (1000, 4000), "archive": (1000,)}
LEASE = 60.0
#: What has been published of asynchronous searches at this scale: utilisation of the workers, and the tasks
#: per second of all of them. Those were models on clusters; the rate says how little the store had to do.
PUBLISHED = (
    {"what": "random search, 10 nodes", "workers": 1280, "utilisation": 0.927, "tasks_per_second": 18.2},
    {"what": "ASHA, 10 nodes", "workers": 1280, "utilisation": 0.957, "tasks_per_second": 237.5},
    {
        "what": "ASHA with hot starts, 10 nodes",
        "workers": 1280,
        "utilisation": 0.928,
        "tasks_per_second": 285.1,
    },
    {"what": "ADBO, 10 nodes", "workers": 1280, "utilisation": 0.935, "tasks_per_second": 6.1},
    {"what": "ADBO, 480 nodes", "workers": 1920, "utilisation": 0.95, "tasks_per_second": 2.7},
    {"what": "ADBO, Theta", "workers": 4096, "utilisation": 0.773, "tasks_per_second": 44.2},
)


@dataclass(slots=True)
class Simulated:
    """One worker: what it holds, and since when it sleeps."""

    worker: RushWorker
    key: str = ""
    since: float = 0.0
    due: float = 0.0


@dataclass(slots=True)
class Tally:
    """What one process saw in the window of one phase."""

    tasks: int = 0
    asleep: float = 0.0
    rows_read: int = 0
    calls: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    cpu: float = 0.0

    def add(self, other: Tally) -> None:
        self.tasks += other.tasks
        self.asleep += other.asleep
        self.rows_read += other.rows_read
        self.calls += other.calls
        self.late += other.late
        self.cpu += other.cpu


@dataclass(frozen=True, slots=True)
class Phase:
    """One point of the curve: a mean sleep, and when its window begins and ends (this machine's monotonic
    clock, the same in all processes)."""

    style: str
    sleep: float
    begin: float
    end: float


def advance(one: Simulated, style: str, tally: Tally) -> None:
    """One worker's turn: in with its result, on with its next task."""
    if style == "queue":
        while (task := one.worker.finish_and_pop(one.key, YS, timeout=0)) is None:
            time.sleep(0.001)  # the manager is behind: counted as idle time of this worker
        one.key = task.key
        return
    if style == "archive":
        tally.rows_read += len(one.worker.fetch_new_tasks())
    one.key = one.worker.step(finish=(one.key, YS), push=XS)


def play(crew: list[Simulated], phase: Phase, rng: random.Random) -> Tally:
    """Steps the workers of this process through a phase."""
    tally = Tally()
    now = time.monotonic()
    heap = []
    for at, one in enumerate(crew):
        one.since, one.due = now, now + rng.uniform(0, phase.sleep)
        heap.append((one.due, at))
    heapq.heapify(heap)
    cpu = None
    while True:
        due, at = heap[0]
        if due >= phase.end or (now := time.monotonic()) >= phase.end:
            break
        if due > now:
            time.sleep(due - now)
            continue
        if cpu is None and now >= phase.begin:
            cpu = time.process_time()
        one = crew[at]
        start = time.monotonic()
        advance(one, phase.style, tally)
        done = time.monotonic()
        tally.asleep += overlap(one.since, one.due, phase)
        if done >= phase.begin:
            tally.tasks += 1
            tally.calls.append(done - start)
            tally.late.append(start - due)
        one.since, one.due = done, done + phase.sleep * rng.uniform(0.5, 1.5)
        heapq.heapreplace(heap, (one.due, at))
    tally.cpu = time.process_time() - cpu if cpu is not None else 0.0
    tally.asleep += sum(overlap(one.since, one.due, phase) for one in crew)
    return tally


def overlap(since: float, due: float, phase: Phase) -> float:
    """Seconds of a sleep inside the window."""
    return max(0.0, min(due, phase.end) - max(since, phase.begin))


def keep_leases(crew: list[Simulated], over: threading.Event) -> None:
    """Renews the leases of all workers of this process in one command, as a supervisor does."""
    store = crew[0].worker._store.__class__(crew[0].worker._store.config, crew[0].worker.network)
    cards = [one.worker._member.card for one in crew]
    while not over.wait(LEASE / 3):
        store.beat([(card.worker_id, card.token) for card in cards], LEASE)
    store.close()


def drive(network: str, n: int, seed: int, pipe: Any) -> None:
    """A process that is n workers: registers them, plays the phases it is told, leaves the network."""
    rng = random.Random(seed)
    crew = [Simulated(RushWorker(network, heartbeat=False, lease=LEASE)) for _ in range(n)]
    over = threading.Event()
    keeper = threading.Thread(target=keep_leases, args=(crew, over))
    keeper.start()
    for one in crew:
        one.key = one.worker.push_running_task(XS)
    crew[0].worker.fetch_new_tasks()  # imports what reading needs, before anything is timed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pipe.send(peak)
    while (phase := pipe.recv()) is not None:
        pipe.send(play(crew, phase, rng))
    over.set()
    keeper.join()
    for one in crew:
        one.worker.close()
    pipe.send(None)


def feed(network: str, target: int, over: threading.Event) -> None:
    """A manager that keeps the queue at this length."""
    with Rush(network) as rush:
        while not over.wait(0.005):
            short = target - rush.n_queued_tasks
            if short > target // 4:
                rush.push_tasks([XS] * short)


def simulate(
    server: kit.Server, style: str, n: int, sleeps: list[float], seconds: float, processes: int
) -> Iterator[dict[str, Any]]:
    """The points of one curve: n workers, with ever shorter sleeps."""
    with Rush() as rush:
        network = rush.network
        context = multiprocessing.get_context("spawn")
        shares = [n // processes + (i < n % processes) for i in range(processes)]
        pipes, drivers = [], []
        start = time.monotonic()
        for i, share in enumerate(shares):
            ours, theirs = context.Pipe()
            driver = context.Process(target=drive, args=(network, share, i, theirs))
            driver.start()
            pipes.append(ours)
            drivers.append(driver)
        peaks = [pipe.recv() for pipe in pipes]
        registered = time.monotonic() - start
        over = threading.Event()
        feeder = threading.Thread(target=feed, args=(network, 4 * n, over), daemon=True)
        if style == "queue":
            feeder.start()
        for sleep in sleeps:
            now = time.monotonic()
            warm = min(max(sleep, 0.3), 3.0)
            phase = Phase(style, sleep, now + warm, now + warm + seconds)
            for pipe in pipes:
                pipe.send(phase)
            time.sleep(warm)
            with kit.Quiet(settle=0) as quiet:
                before = server.cpu()
                time.sleep(max(0.0, phase.end - time.monotonic()))
                served = server.cpu() - before
            total = Tally()
            for pipe in pipes:
                total.add(pipe.recv())
            yield point(n, phase, total, served, quiet) | {
                "register_seconds": round(registered, 2),
                "driver_mb_per_worker": round(sum(peaks) / n, 3),
            }
        over.set()
        for pipe in pipes:
            pipe.send(None)
        for pipe in pipes:
            pipe.recv()
        for driver in drivers:
            driver.join()
        rush.reset()


def point(n: int, phase: Phase, total: Tally, served: float, quiet: kit.Quiet) -> dict[str, Any]:
    """One line of the data."""
    seconds = phase.end - phase.begin
    calls, late = sorted(total.calls), sorted(total.late)
    per_task = served / total.tasks * 1e6 if total.tasks else 0.0
    return {
        "style": phase.style,
        "workers": n,
        "sleep": phase.sleep,
        "utilisation": round(total.asleep / (n * seconds), 4),
        "tasks_per_second": round(total.tasks / seconds, 1),
        "ideal_tasks_per_second": round(n / phase.sleep, 1),
        "call_ms_p50": round(middle(calls, 0.5) * 1e3, 3),
        "call_ms_p95": round(middle(calls, 0.95) * 1e3, 3),
        "late_ms_p50": round(middle(late, 0.5) * 1e3, 3),
        "late_ms_p95": round(middle(late, 0.95) * 1e3, 3),
        "client_cores": round(total.cpu / seconds, 3),
        "server_cores": round(served / seconds, 3),
        "server_us_per_task": round(per_task, 1),
        "server_full_at_tasks_per_second": round(1e6 / per_task) if per_task else None,
        "rows_read_per_second": round(total.rows_read / seconds),
        "cores_used_by_others": round(quiet.others, 2),
        "load": round(quiet.load, 2),
    }


def middle(values: list[float], q: float) -> float:
    """A quantile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * q))] if values else 0.0


def bends(points: list[dict[str, Any]]) -> list[str]:
    """In words, for each curve: where utilisation falls below 95 % and 90 %."""
    told = []
    for style, n in dict.fromkeys((p["style"], p["workers"]) for p in points):
        mine = [p for p in points if (p["style"], p["workers"]) == (style, n)]
        for level in (0.95, 0.9):
            above = [p for p in mine if p["utilisation"] >= level]
            if above:
                last = min(above, key=lambda p: p["sleep"])
                told.append(
                    f"{style}, {n:,} workers: at least {level:.0%} down to sleeps of {last['sleep']:g} s "
                    f"({last['tasks_per_second']:,.0f} tasks/s, {last['utilisation']:.1%})"
                )
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", help="of every style")
    parser.add_argument("--sleeps", type=float, nargs="+", default=[30, 10, 5, 2, 1, 0.5, 0.25, 0.1])
    parser.add_argument("--style", nargs="+", choices=[*WORKERS], default=[*WORKERS])
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each window")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that share the workers")
    parser.add_argument("--small", action="store_true", help="only show that it works")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true", help="into results/ and README.md")
    asked = parser.parse_args()
    if asked.small:
        asked.workers, asked.sleeps, asked.seconds = [20], [0.5, 0.1], 1.0
    crews = {style: asked.workers or WORKERS[style] for style in asked.style}
    kit.allow_files(max(n for sizes in crews.values() for n in sizes))
    points = []
    for style, sizes in crews.items():
        for n in sizes:
            with kit.own_server(kit.Options(), "--maxclients", str(n + kit.SPARE)) as server:
                for found in simulate(server, style, n, asked.sleeps, asked.seconds, asked.processes):
                    points.append(found)
                    if not asked.json:
                        print(as_line(found), flush=True)
    whole = {
        "machine": kit.machine(),
        "window_seconds": asked.seconds,
        "points": points,
        "bends": bends(points),
        "published": PUBLISHED,
    }
    if asked.json:
        print(json.dumps(whole))
    else:
        print(*whole["bends"], sep="\n")
    if asked.save:
        publish.save("scale", whole)
        draw(whole, publish.RESULTS)
        publish.into_readme("scale.py", as_markdown(whole))


def as_line(p: dict[str, Any]) -> str:
    """A point for the terminal."""
    return (
        f"{p['style']:<8}{p['workers']:>6,} workers, sleep {p['sleep']:>4g} s: {p['utilisation']:.2%} busy, "
        f"{p['tasks_per_second']:>9,.1f} of {p['ideal_tasks_per_second']:>9,.1f} tasks/s, "
        f"call {p['call_ms_p50']:.2f}/{p['call_ms_p95']:.2f} ms, late {p['late_ms_p95']:.1f} ms, "
        f"cores: server {p['server_cores']:.2f}, drivers {p['client_cores']:.2f}, "
        f"others {p['cores_used_by_others']:.2f}"
    )


def draw(whole: dict[str, Any], folder: Path, suffix: str = "svg") -> None:
    """Utilisation over the tasks per second that the workers could do, beside what was published."""
    figure, axes = publish.canvas()
    points = whole["points"]
    for style, n in dict.fromkeys((p["style"], p["workers"]) for p in points):
        line = [p for p in points if (p["style"], p["workers"]) == (style, n)]
        xs, ys = [p["ideal_tasks_per_second"] for p in line], [p["utilisation"] for p in line]
        dash = {"search": "-", "queue": "--", "archive": ":"}[style]
        axes.plot(xs, ys, dash, marker="o", markersize=3, label=f"{style}, {n:,} workers")
    for one, mark in zip(whole["published"], "s^vDPX", strict=True):
        label = f"published: {one['what']}, {one['workers']:,}"
        place = one["tasks_per_second"], one["utilisation"]
        axes.plot(*place, mark, color="grey", markersize=5, linestyle="", label=label)
    axes.axhline(0.95, color="k", linewidth=0.7, linestyle=":")
    axes.set(xscale="log", xlabel="tasks per second, if no worker ever waited", ylabel="utilisation")
    axes.set_ylim(0, 1.03)
    others = max(p["cores_used_by_others"] for p in points)
    publish.finish(figure, axes, whole, others, folder / f"scale.{suffix}")


def as_markdown(whole: dict[str, Any]) -> str:
    """The points as a table, where the curves bend, and the published figures."""
    names = ("style", "workers", "sleep, s", "utilisation", "tasks/s (could be)", "call p50 / p95, ms")
    names += ("cores: server, drivers, others", "server full at, tasks/s")
    lines = ["![scale](results/scale.svg)", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for p in whole["points"]:
        lines.append(
            f"| {p['style']} | {p['workers']:,} | {p['sleep']:g} | {p['utilisation']:.1%} "
            f"| {p['tasks_per_second']:,.0f} ({p['ideal_tasks_per_second']:,.0f}) "
            f"| {p['call_ms_p50']:.2f} / {p['call_ms_p95']:.2f} "
            f"| {p['server_cores']:.2f}, {p['client_cores']:.2f}, {p['cores_used_by_others']:.2f} "
            f"| {p['server_full_at_tasks_per_second'] or 0:,} |"
        )
    lines += ["", *(f"- {told}" for told in whole["bends"]), ""]
    lines += ["| published | workers | utilisation | tasks/s of all |", "|---|---|---|---|"]
    for one in whole["published"]:
        row = (
            one["what"],
            f"{one['workers']:,}",
            f"{one['utilisation']:.1%}",
            f"{one['tasks_per_second']:g}",
        )
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, "", f"Windows of {whole['window_seconds']:g} s. {publish.facts(whole)}"])


if __name__ == "__main__":
    main()
