"""The commands that only read a network: ``status``, ``tasks``, ``workers``, ``logs``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import click

from rushlight import Rush

from ._lines import log_line
from ._options import connect, json_option, network_options
from ._output import clock, columns_of, print_json, print_json_line, print_table, say
from ._progress import Record, count_states

TASK_STATES = ("queued", "running", "finished", "failed")
#: Rows that ``tasks`` shows a person who did not say how many.
DEFAULT_ROWS = 20


@click.command()
@network_options
@json_option
def status(network: str, url: str | None, as_json: bool) -> None:
    """Count the network's tasks and workers by state."""
    with connect(network, url) as rush:
        counts = rush.counts()
        workers = count_states(rush.fetch_workers(as_="dicts"))
    tasks = {state: getattr(counts, state) for state in TASK_STATES}
    if as_json:
        print_json({"network": network, "tasks": tasks, "workers": workers})
        return
    if not counts.total and not any(workers.values()):
        say(f"Network {network} is empty: nobody has used it yet, or it was reset.")
        return
    say(f"Network {network}")
    say("  tasks    " + ", ".join(f"{n} {state}" for state, n in tasks.items()))
    say("  workers  " + (", ".join(f"{n} {state}" for state, n in workers.items() if n) or "none"))


@click.command()
@network_options
@click.option(
    "-s",
    "--state",
    "states",
    multiple=True,
    type=click.Choice(TASK_STATES),
    help="Only tasks in this state; may be given several times.",
)
@click.option(
    "-l",
    "--limit",
    type=click.IntRange(0),
    metavar="N",
    help=f"Only the last N rows. Default: all with --json, else {DEFAULT_ROWS}.",
)
@json_option
def tasks(network: str, url: str | None, states: tuple[str, ...], limit: int | None, as_json: bool) -> None:
    """List tasks with their inputs and results, finished ones in the order they finished.

    With --json a list of objects: the columns of the table `Rush.fetch_tasks` returns. There, NaN is
    null, infinities and times are text, arrays are lists.
    """
    with connect(network, url) as rush:
        rows: list[Record] = rush.fetch_tasks(list(states) or None, as_="dicts")
    if as_json:
        print_json(last(rows, limit))
        return
    shown = last(rows, DEFAULT_ROWS if limit is None else limit)
    if not rows:
        say(f"Network {network} has no {' or '.join(states) + ' ' if states else ''}tasks.")
        return
    print_table([_for_people(r) for r in shown], columns_of(shown, _unread(shown)))
    if len(shown) < len(rows):
        say(f"The last {len(shown)} of {len(rows)} tasks; --limit shows more.")


def last(rows: Sequence[Record], limit: int | None) -> Sequence[Record]:
    """The last ``limit`` rows, or all."""
    return rows if limit is None else rows[max(0, len(rows) - limit) :]


@click.command()
@network_options
@json_option
def workers(network: str, url: str | None, as_json: bool) -> None:
    """List the network's workers: state, host, current task, how they ended."""
    with connect(network, url) as rush:
        rows = rush.fetch_workers(as_="dicts")
    if as_json:
        print_json(rows)
    elif not rows:
        say(f"Network {network} has no workers.")
    else:
        print_table([_for_people(r) for r in rows], columns_of(rows))


def _for_people(record: Record) -> Record:
    """Times of the server's clock as wall-clock time."""
    times = {"created_at", "started_at", "finished_at", "heartbeat"}
    return {k: clock(v) if k in times and isinstance(v, float) else v for k, v in record.items()}


def _unread(rows: Sequence[Record]) -> tuple[str, ...]:
    """Columns that a person has to ask for: a traceback does not fit into a cell."""
    return ("traceback", "created_at", "started_at") if rows else ()


@click.command()
@network_options
@click.option("-f", "--follow", is_flag=True, help="Go on with new records until Ctrl-C.")
@click.option("--worker", "worker_ids", multiple=True, metavar="ID", help="Only this worker; repeatable.")
@json_option
def logs(network: str, url: str | None, follow: bool, worker_ids: tuple[str, ...], as_json: bool) -> None:
    """Show what the workers logged and printed.

    With --json a list of objects; with --json --follow one object per line.
    """
    with connect(network, url) as rush:
        if follow:
            with contextlib.suppress(KeyboardInterrupt):
                _follow(rush, worker_ids, as_json=as_json)
            return
        records = rush.read_log(worker_ids or None, as_="dicts")
    if as_json:
        print_json(records)
    else:
        for record in records:
            say(log_line(record))


def _follow(rush: Rush, worker_ids: tuple[str, ...], *, as_json: bool) -> None:
    for record in rush.follow_log(worker_ids=worker_ids or None, as_="dicts"):
        if as_json:
            print_json_line(record)
        else:
            say(log_line(record))
