"""The commands that change a network: ``stop``, ``reset``, ``retry``; ``script`` prepares workers."""

from __future__ import annotations

import sys

import click

from rushlight._inputs import loop_of

from ._loading import load_loop, parse_kwargs
from ._options import WorkFailed, connect, json_option, kwargs_option, network_options
from ._output import number, print_json, say
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
        raise WorkFailed(
            f"{number(len(left), 'worker')} still there after {timeout:g} s: {', '.join(left)}{hint}"
        )
    say(
        f"{number(len(stopped), 'worker')} of network {network} stopped."
        if stopped
        else "No worker was running."
    )


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
        question = f"Delete {number(n_tasks, 'task')} of network {network}?"
        if n_tasks and not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
            raise WorkFailed("nothing was deleted")
        rush.reset(workers=not keep_workers)
    say(f"Network {network} is empty: {number(n_tasks, 'task')} deleted.")


@click.command()
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@network_options
@click.option("--all", "everything", is_flag=True, help="Every failed task.")
@click.option("--ignore-max-retries", is_flag=True, help="Also tasks that have used up their retries.")
@json_option
def retry(
    keys: tuple[str, ...],
    network: str,
    url: str | None,
    everything: bool,
    ignore_max_retries: bool,
    as_json: bool,
) -> None:
    """Put failed tasks back into the queue: those named by KEY, or --all.

    With --json the list of the keys that went.
    """
    if everything == bool(keys):
        raise click.UsageError("name the KEYs of failed tasks, or give --all")
    with connect(network, url) as rush:
        chosen = rush.keys("failed") if everything else list(keys)
        queued = rush.retry_tasks(chosen, ignore_max_retries=ignore_max_retries)
    if as_json:
        print_json(queued)
    else:
        say(f"{len(queued)} of {number(len(chosen), 'task')} went back to the queue.")


@click.command()
@click.argument("target", metavar="FILE.py:LOOP")
@network_options
@click.option(
    "-w", "--workers", type=click.IntRange(1), default=1, show_default=True, help="Worker processes."
)
@kwargs_option
@click.option(
    "--python", metavar="PATH", help="The interpreter to call there. Default: the path of this one."
)
def script(
    target: str, network: str, url: str | None, workers: int, kwargs_json: str | None, python: str | None
) -> None:
    """Print a shell line that starts workers on any host that reaches the server.

    The loop is stored in the network now; rushlight and what the loop imports must be installed
    there. The line holds no password: where one is needed, set RUSHLIGHT_URL and RUSHLIGHT_SECRET.
    """
    kwargs = parse_kwargs(kwargs_json)
    loop = loop_of(load_loop(target), kwargs)
    with connect(network, url) as rush:
        say(rush.worker_script(loop, workers, kwargs=kwargs, python=python or sys.executable))
