"""The commands that change a network: ``stop`` and ``reset``."""

from __future__ import annotations

import sys

import click

from ._options import WorkFailed, connect, network_options
from ._output import say
from ._waiting import wait_until_left


@click.command()
@network_options
@click.option("--kill", is_flag=True, help="Now: running tasks fail with `Worker was killed`.")
@click.option("--worker", "worker_ids", multiple=True, metavar="ID", help="Only this worker; repeatable.")
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until they have left.",
)
def stop(network: str, url: str | None, kill: bool, worker_ids: tuple[str, ...], timeout: float) -> None:
    """Stop the network's workers, wherever they run.

    They finish the task at hand and leave, if their loop looks at `worker.terminated`; --kill ends
    them at once.
    """
    with connect(network, url) as rush:
        stopped = rush.stop_workers("kill" if kill else "terminate", worker_ids=worker_ids or None)
        left = wait_until_left(rush, worker_ids, timeout)
    if left:
        hint = "" if kill else "; --kill ends them at once"
        raise WorkFailed(f"{len(left)} workers are still there after {timeout:g} s: {', '.join(left)}{hint}")
    say(f"{len(stopped)} workers of network {network} stopped." if stopped else "No worker was running.")


@click.command()
@network_options
@click.option("--keep-workers", is_flag=True, help="Delete only the tasks; workers go on.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, even on a terminal.")
def reset(network: str, url: str | None, keep_workers: bool, yes: bool) -> None:
    """Stop the network's workers and delete everything it holds.

    Asks first when it runs on a terminal and there is something to lose.
    """
    with connect(network, url) as rush:
        n_tasks = rush.counts().total
        if n_tasks and not yes and sys.stdin.isatty():
            click.confirm(f"Delete {n_tasks} tasks of network {network}?", abort=True, err=True)
        rush.reset(workers=not keep_workers)
    say(f"Network {network} is empty: {n_tasks} tasks deleted.")
