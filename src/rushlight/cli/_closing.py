"""The end of a run, for people and for programs. Reads logs of workers that died, nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rushlight import Rush

from ._lines import log_line
from ._options import one_line
from ._output import columns_of, number, print_table, say, span
from ._progress import Ending, Progress, Record, count_states

#: Bookkeeping columns that would crowd out the results at the end of a run.
BOOKKEEPING = ("key", "created_at", "started_at", "finished_at")
#: Kinds of failure that are listed, and lines of log shown of each dead worker.
MOST_KINDS, TAIL_LINES = 5, 15

_ENDINGS = {
    "done": "Done",
    "timeout": "Stopped by --timeout",
    "interrupted": "Interrupted, results kept",
    "killed": "Killed, finished results kept",
    "died": "Workers died, finished results kept",
    "reset": "The network was reset",
}


def print_closing(rush: Rush, progress: Progress, ending: Ending) -> None:
    """Print the closing table and the totals on stdout."""
    rows = progress.rows()
    if rows:
        say(_title(progress, len(rows)))
        print_table(rows, columns_of(rows, BOOKKEEPING))
    if progress.goal is not None and progress.n_seen and progress.best is None:
        say(f"No finished task has a finite number named {progress.goal.name!r}.")
    rate = progress.n_finished / ending.seconds if ending.seconds else 0.0
    say(
        f"{_ENDINGS[ending.reason]}: {number(progress.n_finished, 'task')} finished, "
        f"{ending.n_failed} failed in {span(ending.seconds)} ({rate:.1f} tasks/s) "
        f"by {number(len(ending.workers), 'worker')}."
    )
    if progress.n_seen:
        say(
            f"Network {rush.network} holds {number(progress.n_seen, 'finished task')}: "
            f"rushlight tasks --network {rush.network}"
        )


def _title(progress: Progress, n_rows: int) -> str:
    if progress.goal is not None and progress.best is not None:
        extreme = "largest" if progress.goal.maximize else "smallest"
        return f"The {number(n_rows, 'task')} with the {extreme} {progress.goal.name}, of {progress.n_seen}"
    return f"The last {number(n_rows, 'finished task')}, of {progress.n_seen}"


def print_failures(rush: Rush, ending: Ending) -> None:
    """Print on stderr why tasks failed and what dead workers left behind."""
    kinds = sorted(ending.failures.items(), key=lambda pair: -pair[1])
    for message, count in kinds[:MOST_KINDS]:
        _warn(f"{count} failed: {' '.join(message.split())}")
    if len(kinds) > MOST_KINDS:
        _warn(f"... and {len(kinds) - MOST_KINDS} more kinds: rushlight tasks --state failed")
    if ending.died:
        for worker in ending.died[:MOST_KINDS]:
            _warn(describe_death(worker))
        _print_tail(rush, ending.died[0]["worker_id"])
    if not ending.ok:
        _warn(f"error: {_complaint(ending)}")


def describe_death(worker: Record) -> str:
    """One line: which worker, in what state, with what exit code and reason."""
    parts = [f"worker {worker['worker_id']} is {worker['state']}"]
    if worker.get("exit_code") is not None:
        parts.append(f"exit code {worker['exit_code']}")
    if worker.get("reason"):
        parts.append(" ".join(str(worker["reason"]).split()))
    return ", ".join(parts)


def _complaint(ending: Ending) -> str:
    if ending.start_error is not None:
        return one_line(ending.start_error)
    if ending.reason == "died":
        return f"{len(ending.died)} of {len(ending.workers)} workers died"
    if ending.reason == "reset":
        return "the network was reset while its workers ran"
    if ending.reason == "killed":
        return "the workers were killed before they were done"
    return f"all {ending.n_failed} tasks failed"


def _print_tail(rush: Rush, worker_id: str) -> None:
    lines = [log_line(record) for record in rush.read_log([worker_id], as_="dicts")][-TAIL_LINES:]
    if lines:
        _warn(f"the last lines of its log ({worker_id}):")
        for line in lines:
            _warn(f"  {line}")


def _warn(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def summary(rush: Rush, progress: Progress, ending: Ending) -> Mapping[str, Any]:
    """The end of a run as one object."""
    counts = rush.counts()
    return {
        "network": rush.network,
        "reason": ending.reason,
        "ok": ending.ok,
        "seconds": round(ending.seconds, 3),
        "tasks": {s: getattr(counts, s) for s in ("queued", "running", "finished", "failed")},
        "workers": count_states(ending.workers),
        "run": {"finished": progress.n_finished, "failed": ending.n_failed},
        "failures": dict(ending.failures),
        "best": progress.best,
        "rows": progress.rows(),
    }
