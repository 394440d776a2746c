"""``rushlight run``: start workers, show what they do, end with a table."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from rushlight import Rush
from rushlight._inputs import loop_of

from ._closing import print_closing, print_failures, summary
from ._follow import GRACE, Watch, ending_of, follow
from ._interrupt import StopRequests
from ._live import display
from ._loading import Loop, load_loop, parse_kwargs
from ._options import DONE, FAILED, connect, json_option, kwargs_option, network_options
from ._output import number, print_json
from ._progress import Goal, Progress


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for."""

    target: str
    loop: Loop
    kwargs: Mapping[str, Any]
    n_workers: int
    goal: Goal | None
    timeout: float | None
    rows: int


@click.command()
@click.argument("target", metavar="FILE.py:LOOP")
@network_options
@click.option("-w", "--workers", type=click.IntRange(1), help="Worker processes. Default: one per CPU.")
@kwargs_option
@click.option("--minimize", metavar="Y", help="Show the smallest result named Y, best rows first.")
@click.option("--maximize", metavar="Y", help="Show the largest result named Y, best rows first.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Stop the workers after this time. They finish the task at hand; those that have not after "
    f"{GRACE:.0f} more seconds are killed.",
)
@click.option(
    "--rows", type=click.IntRange(0), default=10, show_default=True, help="Rows of the closing table."
)
@json_option
def run(
    target: str,
    network: str,
    url: str | None,
    workers: int | None,
    kwargs_json: str | None,
    minimize: str | None,
    maximize: str | None,
    timeout: float | None,
    rows: int,
    as_json: bool,
) -> int:
    """Run the worker loop LOOP of FILE.py in several local processes and watch it.

    LOOP is a function `def LOOP(worker, **kwargs)`; each worker process calls it once. The command
    shows workers, tasks and speed while they run and ends when all have left: results on stdout,
    progress on stderr. Results stay in the network until `rushlight reset`.

    Ctrl-C lets the workers finish the task at hand and leave; a second one kills them.

    \b
    Exit code: 0  the loops returned, or were stopped by --timeout or one Ctrl-C
               1  workers died or were killed, or every task failed
               2  wrong usage, such as a file or function that does not exist

    \b
    Example:
      rushlight run examples/random_search.py:random_search --network branin \\
          --workers 4 --kwargs '{"n": 200}' --minimize y
    """
    if minimize and maximize:
        raise click.UsageError("--minimize and --maximize exclude each other")
    name = minimize or maximize
    kwargs = parse_kwargs(kwargs_json)
    loop = loop_of(load_loop(target), kwargs)
    order = Order(
        target=target,
        loop=loop,
        kwargs=kwargs,
        n_workers=workers or _cpus(),
        goal=Goal(name, maximize=bool(maximize)) if name else None,
        timeout=timeout,
        rows=rows,
    )
    with connect(network, url) as rush:
        return execute(rush, order, as_json=as_json)


def execute(rush: Rush, order: Order, *, as_json: bool) -> int:
    """Run the order to its end and print how it ended; the exit code."""
    before = rush.counts()
    title = f"{order.target} on network {rush.network}: {number(order.n_workers, 'worker')}"
    with StopRequests() as stops, display(title, order.goal) as screen:
        if before.total:
            screen.say(
                f"note: the network holds {number(before.total, 'task')} from before; "
                f"`rushlight reset --network {rush.network}` starts afresh"
            )
        started = time.monotonic()
        progress = Progress(order.goal, order.rows, started)
        progress.adopt(rush.fetch_new_tasks(as_="dicts"))
        worker_ids = tuple(rush.start_workers(order.loop, order.n_workers, kwargs=order.kwargs))
        watch = Watch(rush, screen, stops, progress, worker_ids, order.timeout, started)
        workers = follow(watch)
        ending = ending_of(watch, workers)
    print_failures(rush, ending)
    if as_json:
        print_json(summary(rush, progress, ending))
    else:
        print_closing(rush, progress, ending)
    return DONE if ending.ok else FAILED


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
