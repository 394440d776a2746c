"""Who leads in each column of the tables of ``peers.py``, and why where it is not ours: from the data alone.

What sends many tasks in a message is compared with what does, one task with one task.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

Found = Mapping[str, Any]
OURS = "rushlight"


def rate(one: Found, task: str) -> float:
    """Tasks per second: the median of its batches."""
    return statistics.median(one[task]["per_second"])


def cpu_us(one: Found, task: str = "noop") -> float:
    """CPU of all processes for a task: the median of its batches."""
    return statistics.median(one[task]["cpu_us"])


def trial_us(one: Found) -> float:
    """Microseconds per trial: the median of its rounds."""
    return statistics.median(one["trial_us"]["us"])


def _single(one: Found, task: str, which: str) -> float:
    return float(one[f"{task}_latency"][which])


def _first(one: Found) -> float:
    return float(one["first_result_seconds"])


def _together(one: Found) -> float | None:
    return one["two_processes"]["per_second"] if one.get("two_processes") else None


def _reading(one: Found) -> float | None:
    return one["load"]["ms"] if one.get("load") else None


@dataclass(frozen=True, slots=True)
class Column:
    """A figure that libraries are compared in. ``about``: which of a peer's reasons speaks of it;
    ``messages``: whether how many tasks share one matters."""

    words: str
    figure: Callable[[Found], float | None]
    about: str
    unit: str
    most: bool = False
    messages: bool = False


QUEUES = (
    Column("no-op tasks/s", partial(rate, task="noop"), "rate", "/s", most=True, messages=True),
    Column("1 ms tasks/s", partial(rate, task="spin"), "busy", "/s", most=True, messages=True),
    Column("CPU of a no-op", cpu_us, "rate", " us", messages=True),
    Column("latency of a no-op, p50", partial(_single, task="noop", which="p50_ms"), "latency", " ms"),
    Column("latency of a no-op, p95", partial(_single, task="noop", which="p95_ms"), "latency", " ms"),
    Column("latency of a 1 ms task, p50", partial(_single, task="spin", which="p50_ms"), "latency", " ms"),
    Column("latency of a 1 ms task, p95", partial(_single, task="spin", which="p95_ms"), "latency", " ms"),
    Column("first result", _first, "first", " s"),
)
STORES = (
    Column("time per trial", trial_us, "store", " us"),
    Column("trials/s of two processes", _together, "store", "/s", most=True),
    Column("reading 5,000 trials anew", _reading, "store", " ms"),
)

_OURS_FIRST = (
    "ours are started by a supervisor, and each has its name, its lease and code with a verified signature "
    "before it takes one"
)
_KEPT = "ours wakes the server on both ways, since a call is kept there whoever dies"
#: Why others may be ahead of ours, by what is between the caller and their workers and what it is about.
REASONS: dict[str, dict[str, str]] = {
    "pipes": {
        "rate": "pipes between a parent and its children: nothing is kept, nobody else can join, and a crash "
        "loses all",
        "latency": f"a pipe to a child and one back; {_KEPT}",
        "first": f"its workers are children that begin with the first task; {_OURS_FIRST}",
    },
    "daemons": {
        "rate": "its own processes on this node pass tasks on, and nothing of a task outlives them",
        "latency": "a call goes from process to process by sockets or shared memory of one node, and nothing "
        f"of it outlives these; {_KEPT}",
        "first": "its workers come with its own cluster, which nobody else has to find and to trust",
    },
    "server": {
        "rate": "it goes through the same server; which of its steps cost less was not looked into",
        "latency": "it goes through the same server; which of its steps cost less was not looked into",
        "first": f"each of its workers is one program, which takes tasks as soon as it is up; {_OURS_FIRST}",
    },
    "memory": {"store": "one process, which shares nothing with others and keeps nothing"},
    "shared": {"store": "it keeps less of a trial: no lease, no attempts, no list of its own for each state"},
}


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of each library: what is between the caller and its workers (see ``REASONS``), its
    variants that send many tasks in a message, and what to say of its tasks instead."""

    between: Mapping[str, str]
    batched: frozenset[tuple[str, str]]
    instead: Mapping[str, str]

    def sends_many(self, one: Found) -> bool:
        return (one["peer"], one["variant"]) in self.batched

    def reason(self, one: Found, column: Column) -> str:
        """Why this one is ahead of ours."""
        between = "memory" if one["variant"] == "in memory" else self.between[one["peer"]]
        found = REASONS[between]["rate" if column.about == "busy" else column.about]
        return (
            (self.instead.get(one["peer"]) or found) if column.about in ("rate", "latency", "busy") else found
        )


def lines(found: list[dict[str, Any]], kind: Kind) -> Iterator[str]:
    """A table of all columns, in two halves where it matters how many tasks are in a message: ours, and who
    is ahead; below it the reasons."""
    queues = [one for one in found if "noop" in one and not one["again"]]
    stores = [one for one in found if "trial_us" in one]
    reasons: list[str] = []
    yield "| column | ours | ahead of ours | why | next behind |"
    yield "|---|---|---|---|---|"
    for column in (*QUEUES, *STORES):
        rows = stores if column in STORES else queues
        for many in (False, True) if column.messages else (None,):
            chosen = [one for one in rows if many is None or kind.sends_many(one) == many]
            how = {None: "", False: ", one task in a message", True: ", many in a message"}[many]
            yield from _row(column, column.words + how, chosen, kind, reasons)
    yield ""
    for number, reason in enumerate(reasons, 1):
        yield f"{number}. {reason}."


def _row(
    column: Column, words: str, chosen: list[dict[str, Any]], kind: Kind, reasons: list[str]
) -> Iterator[str]:
    ranked = [one for one in chosen if column.figure(one) is not None]
    ranked.sort(key=lambda one: column.figure(one) or 0.0, reverse=column.most)
    mine = next((one for one in ranked if one["peer"] == OURS), None)
    others = [one for one in ranked if one["peer"] != OURS]
    if mine is None or not others:
        return
    at = ranked.index(mine)
    why: dict[int, None] = {}
    for one in others[:at]:
        reason = kind.reason(one, column)
        if reason not in reasons:
            reasons.append(reason)
        why[reasons.index(reason) + 1] = None
    ahead = "; ".join(_beside(column, one, mine) for one in others[:at]) or "**nobody**"
    behind = _beside(column, others[at], mine) if at < len(others) else ""
    numbers = ", ".join(map(str, why))
    yield f"| {words} | {mine['variant']}: {_said(column, mine)} | {ahead} | {numbers} | {behind} |"


def _said(column: Column, one: Found) -> str:
    figure = column.figure(one) or 0.0
    return f"{figure:,.0f}{column.unit}" if figure >= 100 else f"{figure:.3g}{column.unit}"


def _beside(column: Column, one: Found, mine: Found) -> str:
    """One of the others; of a task that keeps a core busy also what all processes use for it."""
    times = (column.figure(one) or 0.0) / (column.figure(mine) or 1.0)
    used = (
        f", with {cpu_us(one, 'spin') / cpu_us(mine, 'spin'):.2f} x the CPU" if column.about == "busy" else ""
    )
    return f"{one['peer']} ({one['variant']}) {_said(column, one)}, {times:.3g} x{used}"
