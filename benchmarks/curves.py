"""What an operation costs as the work grows: with the archive, with the payload, with the number of workers.

    python benchmarks/curves.py [--save] [archive|payload|workers ...]

Each point is the median of interleaved rounds, a round being the median of its calls, beside a raw
yardstick of the same rounds: a PING for the archive and the workers, a SET or GET of as many bytes for the
payload.
``--save`` writes the data into ``results/curves.json`` and ``.csv`` and draws a picture of each curve,
``results/curve-*.svg``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hiredis
import kit
import publish
from kit import XS, YS

from rushlight import Rush, RushWorker

ARCHIVES = (1_000, 10_000, 100_000, 1_000_000)
PAYLOADS = (8, 80, 800, 8_000, 80_000, 800_000, 8_000_000)
WORKERS = (1, 10, 100, 300, 1_000)
Point = dict[str, Any]


def point(curve: str, x: int, operation: str, times: list[float], yards: list[float]) -> Point:
    """Times in seconds; a line of the data in microseconds."""
    low, high = kit.quartiles(times)
    ratios = [a / b for a, b in zip(times, yards, strict=True)] if yards else []
    return {
        "curve": curve,
        "x": x,
        "operation": operation,
        "us": round(statistics.median(times) * 1e6, 2),
        "low_us": round(low * 1e6, 2),
        "high_us": round(high * 1e6, 2),
        "yard_us": round(statistics.median(yards) * 1e6, 2) if yards else None,
        "ratio": round(statistics.median(ratios), 3) if yards else None,
        "rounds": len(times),
    }


def clock(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def together(
    curve: str,
    x: int,
    operations: dict[str, Callable[[], object]],
    yardstick: Callable[[], object],
    n: int,
    rounds: int,
    prepare: Callable[[], object] | None = None,
) -> Iterator[Point]:
    """All operations in turns: ``rounds`` rounds of n calls each. ``prepare``: before each call, untimed."""
    names = [*operations]
    times: dict[str, list[float]] = {name: [] for name in names}
    yards = []
    for name in names:
        if prepare is not None:
            prepare()
        operations[name]()
    for _ in range(rounds):
        for name in names:
            calls = []
            for _ in range(n):
                if prepare is not None:
                    prepare()
                calls.append(clock(operations[name]))
            times[name].append(statistics.median(calls))
        yards.append(statistics.median(clock(yardstick) for _ in range(n)))
    for name in names:
        yield point(curve, x, name, times[name], yards)


# --- the archive grows ------------------------------------------------------------------------------------


def archive(options: kit.Options) -> Iterator[Point]:
    """One archive that grows from a thousand finished tasks to a million."""
    sizes = (100, 1_000) if options.small else ARCHIVES
    n, rounds = (3, 3) if options.small else (20, 21)
    with kit.own_server(options) as server, Rush("curve-archive") as rush, RushWorker(rush.network) as worker:
        reader, newest = Rush(rush.network), Rush(rush.network)
        for size in sizes:
            fill(rush, size)
            reader.fetch_finished_tasks()
            newest.fetch_new_tasks()
            held = [worker.push_running_task(XS)]
            known = itertools.count()
            keys = rush.keys("finished")

            def step(held=held) -> None:
                held[0] = worker.step(finish=(held[0], YS), push=XS)

            def one_new() -> None:
                worker.finish_task(worker.push_running_task(XS), YS)

            operations = {
                "create + finish": lambda: worker.finish_task(worker.push_running_task(XS), YS),
                "step": step,
                "counts": rush.counts,
                "task(key)": lambda keys=keys, known=known: rush.task(keys[next(known) * 7919 % len(keys)]),
            }
            yield from together("archive", size, operations, server.raw.ping, n, rounds)
            reading = {
                "fetch_finished_tasks, one new": reader.fetch_finished_tasks,
                "fetch_new_tasks, one new": newest.fetch_new_tasks,
                "fetch running and finished, one new": lambda: reader.fetch_tasks(["running", "finished"]),
            }
            for name, action in reading.items():
                yield from together("archive", size, {name: action}, server.raw.ping, n, rounds, one_new)
            cold = []
            for _ in range(1 if options.small else 3):
                with Rush(rush.network) as fresh:
                    cold.append(clock(fresh.fetch_finished_tasks) / size)
            yield point("archive", size, "cold fetch, per task", cold, [])
            worker.finish_task(held[0], YS)
        reader.close()
        newest.close()
        rush.reset()


def fill(rush: Rush, size: int) -> None:
    """Finished tasks, up to this many."""
    while (short := size - rush.n_finished_tasks) > 0:
        some = min(short, 10_000)
        rush.push_finished_tasks([XS] * some, [YS] * some)


# --- the payload grows ------------------------------------------------------------------------------------


def payload(options: kit.Options) -> Iterator[Point]:
    """Inputs or results of one array of doubles, up to 8 MB: larger ones than 64 KiB are stored apart."""
    import numpy as np

    sizes = (8, 80_000) if options.small else PAYLOADS
    for size in sizes:
        n, rounds = (2, 3) if options.small else (max(1, min(20, 2_000_000 // size)), 15)
        value = np.arange(size // 8, dtype=float)
        raw_set = hiredis.pack_command(("SET", "yardstick", value.tobytes()))
        raw_get = hiredis.pack_command(("GET", "yardstick"))
        with kit.own_server(options) as server, Rush("curve-payload") as rush:
            with RushWorker(rush.network) as worker, Rush(rush.network) as reader:
                held: list[str] = []

                def put(worker=worker, held=held, value=value) -> None:
                    held[:] = [worker.push_running_task({"x": value})]

                def small(worker=worker, held=held) -> None:
                    held[:] = [worker.push_running_task({"x": 0.0})]

                def finish(worker=worker, held=held, value=value) -> None:
                    worker.finish_task(held[0], {"y": value})

                def settle(worker=worker, held=held) -> None:
                    worker.finish_task(held[0], {"y": 0.0})

                def setting(server=server, raw=raw_set) -> None:
                    server.raw.ask_for_much(raw)

                def getting(server=server, raw=raw_get) -> None:
                    server.raw.ask_for_much(raw)

                small()
                writing = {"push_running_task, inputs": put, "raw SET": setting}
                yield from together("payload", size, writing, setting, n, rounds, settle)
                small()
                yield from together(
                    "payload", size, {"finish_task, results": finish}, setting, n, rounds, small
                )
                key = held[0]
                reading = {
                    "task(key), results": lambda r=reader, k=key: len(r.task(k).ys["y"]),
                    "raw GET": getting,
                }
                yield from together("payload", size, reading, getting, n, rounds)
            rush.reset()


# --- the number of workers grows ----------------------------------------------------------------------------


def workers(options: kit.Options) -> Iterator[Point]:
    """Workers of one process take turns, each on a connection of its own; and what managers pay for their
    number."""
    sizes = (1, 5) if options.small else WORKERS
    n, rounds = (5, 3) if options.small else (200, 15)
    kit.allow_files(max(sizes))
    with kit.own_server(options) as server, Rush("curve-workers") as rush:
        crew: list[RushWorker] = []
        held: list[str] = []
        for size in sizes:
            joined = []
            while len(crew) < size:
                start = time.perf_counter()
                crew.append(RushWorker(rush.network, heartbeat=False, lease=600))
                joined.append(time.perf_counter() - start)
                held.append(crew[-1].push_running_task(XS))
            turn = itertools.cycle(range(size))

            def step(turn=turn) -> None:
                at = next(turn)
                held[at] = crew[at].step(finish=(held[at], YS), push=XS)

            def create_finish(turn=turn) -> None:
                one = crew[next(turn)]
                one.finish_task(one.push_running_task(XS), YS)

            def step_of_one() -> None:
                held[0] = crew[0].step(finish=(held[0], YS), push=XS)

            operations = {
                "create + finish, in turns": create_finish,
                "step, in turns": step,
                "step, one of them": step_of_one,
            }
            yield from together("workers", size, operations, server.raw.ping, max(n, size // 4), rounds)
            reading = {
                "counts": rush.counts,
                "worker_info, the table": lambda: rush.worker_info,
                "leases of all, one trip": lambda: beat(crew),
            }
            yield from together("workers", size, reading, server.raw.ping, max(1, n // 40), rounds)
            if joined:
                yield point("workers", size, "a worker joins", joined, [])
        for one, key in zip(crew, held, strict=True):
            one.finish_task(key, YS)
            one.close()
        rush.reset()


def beat(crew: list[RushWorker]) -> None:
    """What one supervisor of them all sends every few seconds."""
    cards = [one._member.card for one in crew]
    crew[0]._store.beat([(card.worker_id, card.token) for card in cards], 600)


# --- data and pictures --------------------------------------------------------------------------------------

CURVES = {"archive": archive, "payload": payload, "workers": workers}
WORDS = {
    "archive": ("finished tasks in the archive", "raw PING"),
    "payload": ("bytes of one value", ""),
    "workers": ("workers on one server", "raw PING"),
}


def draw(whole: dict[str, Any], folder: Path, suffix: str = "svg") -> None:
    """A picture for each curve in the data: time per operation, both axes logarithmic."""
    for curve in dict.fromkeys(p["curve"] for p in whole["points"]):
        mine = [p for p in whole["points"] if p["curve"] == curve]
        label, yard = WORDS[curve]
        figure, axes = publish.canvas()
        for name in dict.fromkeys(p["operation"] for p in mine):
            line = [p for p in mine if p["operation"] == name]
            xs = [p["x"] for p in line]
            style = "--" if name.startswith("raw") else "-"
            (drawn,) = axes.plot(xs, [p["us"] for p in line], style, marker="o", markersize=3, label=name)
            low, high = [p["low_us"] for p in line], [p["high_us"] for p in line]
            axes.fill_between(xs, low, high, alpha=0.15, color=drawn.get_color())
        if yard:
            line = [p for p in mine if p["operation"] == mine[0]["operation"]]
            axes.plot([p["x"] for p in line], [p["yard_us"] for p in line], "k--", linewidth=1, label=yard)
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="microseconds per operation")
        others = whole["quiet"]["cores_used_by_others"]
        publish.finish(figure, axes, whole, others, folder / f"curve-{curve}.{suffix}")


def as_markdown(whole: dict[str, Any]) -> str:
    """A table for each curve: microseconds per operation, a column for each size."""
    lines = []
    for curve in dict.fromkeys(p["curve"] for p in whole["points"]):
        mine = [p for p in whole["points"] if p["curve"] == curve]
        sizes = list(dict.fromkeys(p["x"] for p in mine))
        lines += ["", f"![{curve}](results/curve-{curve}.svg)", ""]
        lines += [f"| us (x yardstick), by {WORDS[curve][0]} | {' | '.join(f'{x:,}' for x in sizes)} |"]
        lines += ["|---" * (len(sizes) + 1) + "|"]
        for name in dict.fromkeys(p["operation"] for p in mine):
            found = {p["x"]: cell(p) for p in mine if p["operation"] == name}
            lines.append(f"| {name} | {' | '.join(found.get(x, '') for x in sizes)} |")
    told = f"{whole['setting']}; others used {whole['quiet']['cores_used_by_others']} cores"
    return "\n".join([*lines, "", f"{told}. {publish.facts(whole)}"])


def cell(p: Point) -> str:
    """A point in the table."""
    us = f"{p['us']:,.0f}" if p["us"] >= 100 else f"{p['us']:.1f}"
    return f"{us} ({p['ratio']:.1f})" if p["ratio"] else us


def as_line(p: Point) -> str:
    """A point for the terminal."""
    beside = f"yardstick {p['yard_us']:,} us, {p['ratio']:,} x" if p["yard_us"] else ""
    return f"{p['curve']:<8} {p['x']:>9,} {p['operation']:<36} {p['us']:>12,} us  {beside}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", nargs="*", choices=[[], *CURVES], help="all of them without")
    parser.add_argument("--socket", choices=("tcp", "unix"), default="tcp")
    parser.add_argument("--pin", action="store_true", help="client and server on one core")
    parser.add_argument("--small", action="store_true", help="only show that it works")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true", help="data and pictures into the folder")
    parser.add_argument("--folder", type=Path, default=publish.RESULTS)
    asked = parser.parse_args()
    options = kit.Options(asked.socket, asked.pin, asked.small)
    points = []
    facts = kit.machine()
    with kit.Quiet() as quiet:
        for curve in asked.curves or CURVES:
            for found in CURVES[curve](options):
                points.append(found)
                if not asked.json:
                    print(as_line(found), flush=True)
    whole = {"machine": facts, "quiet": quiet.as_record(), "setting": options.setting, "points": points}
    if asked.json:
        print(json.dumps(whole))
    if asked.save:
        publish.save("curves", whole, asked.folder)
        draw(whole, asked.folder)
        if asked.folder == publish.RESULTS:
            publish.into_readme("curves.py", as_markdown(whole))


if __name__ == "__main__":
    main()
