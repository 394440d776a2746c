"""What was said against what there is. Pure: it is given the ledgers' lines and the final tables.

Every task that was acknowledged is there once: finished with its one right result, failed with a reason that
is true, or queued. Whatever is wrong comes out as a sentence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.ledger import Account
from chaos.work import answer


@dataclass(frozen=True, slots=True)
class Final:
    """A task in the end."""

    key: str
    state: str
    xs: Mapping[str, Any]
    ys: Mapping[str, Any] | None = None
    condition: Mapping[str, Any] | None = None
    worker_id: str | None = None
    attempt: int = 1


@dataclass
class Ledgers(Account):
    """The lines of all ledgers, by what they say."""

    intended: set[str] = field(default_factory=set)
    #: Acknowledged creations: key -> the task's own name.
    pushed: dict[str, str] = field(default_factory=dict)
    #: Acknowledged results: key -> how often somebody was told that it was theirs.
    finished: Counter[str] = field(default_factory=Counter)
    cancelled: set[str] = field(default_factory=set)
    #: Per reader, what it was given as new.
    seen: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    closed: set[str] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    #: Names of tasks with a time limit.
    limited: set[str] = field(default_factory=set)

    def _take(self, line: Mapping[str, Any]) -> None:
        what = line["what"]
        self.events[what] += 1
        if what == "intend":
            self.intended.update(line["ids"])
            if line.get("limited"):
                self.limited.update(line["ids"])
        elif what == "pushed":
            self.pushed.update(zip(line["keys"], line["ids"], strict=True))
        elif what == "finished":
            self.finished[line["key"]] += 1
        elif what == "cancel":
            self.cancelled.update(line["keys"])
        elif what == "saw":
            self.seen[line["reader"]].update(line["keys"])
        elif what == "closed":
            self.closed.add(line["reader"])
        elif what == "error":
            self.errors[line["type"]] += 1
        elif what == "fault":
            self.events[f"fault {line['name']}"] += 1
        elif what == "kill":
            self.events[f"kill {line['role']}"] += 1
        elif what == "stop":
            self.events[f"stop {line['how']}"] += 1


def check(ledgers: Ledgers, tasks: Iterable[Final]) -> list[str]:
    """What is wrong, a sentence each; nothing, where all is well."""
    table = list(tasks)
    by_key = {task.key: task for task in table}
    wrong = list(_once(table))
    wrong += list(_nothing_lost(ledgers, by_key))
    wrong += list(_results(ledgers, by_key))
    wrong += list(_readers(ledgers, by_key))
    for task in by_key.values():
        if task.xs["id"] not in ledgers.intended:
            wrong.append(f"made up: {task.key} is a task that nobody wanted to create")
        if task.state == "running":
            wrong.append(f"left running: {task.key} on {task.worker_id}, with nobody there")
        if task.state == "failed" and not true_reason(task, ledgers, by_key):
            wrong.append(
                f"failed without a true reason: {task.key} ({task.xs}): {dict(task.condition or {})}"
            )
    return wrong


def _once(table: list[Final]) -> Iterator[str]:
    for key, n in Counter(task.key for task in table).items():
        if n > 1:
            yield f"twice: {key} is in {n} places"
    for name, n in Counter(task.xs["id"] for task in table).items():
        if n > 1:
            yield f"twice: {n} tasks were made of {name}"


def _nothing_lost(ledgers: Ledgers, by_key: Mapping[str, Final]) -> Iterator[str]:
    for key, name in ledgers.pushed.items():
        if key not in by_key:
            yield f"lost: {key} ({name}) was acknowledged and is nowhere"
        elif by_key[key].xs["id"] != name:
            yield f"mixed up: {key} is {by_key[key].xs['id']}, not {name}"


def _results(ledgers: Ledgers, by_key: Mapping[str, Final]) -> Iterator[str]:
    for key, n in ledgers.finished.items():
        task = by_key.get(key)
        if n > 1:
            yield f"decided twice: {n} results of {key} were each taken as the one"
        if task is None:
            yield f"lost: a result of {key} was acknowledged, and the task is nowhere"
        elif task.state != "finished":
            yield f"lost: a result of {key} was acknowledged, and the task is {task.state}"
    for task in by_key.values():
        if task.state == "finished" and (task.ys or {}).get("y") != answer(task.xs["id"]):
            yield f"wrong: {task.key} finished with another task's result"


def _readers(ledgers: Ledgers, by_key: Mapping[str, Final]) -> Iterator[str]:
    finished = {key for key, task in by_key.items() if task.state == "finished"}
    for reader, seen in ledgers.seen.items():
        for key, n in seen.items():
            if n > 1:
                yield f"seen twice: {reader} was given {key} as new {n} times"
            if key not in finished:
                yield f"lost: {reader} was given {key} as finished, and it is not"
        if reader in ledgers.closed and (missed := finished - seen.keys()):
            yield f"missed: {reader} was never given {len(missed)} finished tasks, such as {min(missed)}"


def true_reason(task: Final, ledgers: Ledgers, by_key: Mapping[str, Final]) -> bool:
    """Whether what a failed task says of its failure has happened."""
    said = task.condition or {}
    message, kind = str(said.get("message", "")), task.xs.get("kind", "plain")
    events = ledgers.events
    killed = any(events[f"kill {role}"] for role in ("workers", "supervisors", "managers"))
    if message.startswith("boom "):
        return kind == "boom" and message == f"boom {task.xs['id']}"
    if message.startswith("Task timed out"):
        return task.xs["id"] in ledgers.limited
    if message == "Cancelled":
        return task.key in ledgers.cancelled
    if message.startswith("Prerequisite failed: "):
        return message.partition(": ")[2] in by_key
    if message == "Worker was killed":
        # Also the fate of the other tasks of a worker whose task was cancelled or ran too long.
        return bool(events["stop kill"] or killed or ledgers.cancelled or events["stop terminate"])
    if message == "Worker has crashed or was killed":
        if said.get("exit_code") == 7:
            return True
        if said.get("signal") == 9:
            # A worker that is stopped by a manager, or whose task is, may hold others.
            return bool(killed or events["stopped"] or events["stop kill"] or ledgers.cancelled)
        # The lease ran out: somebody stood still, was cut off, or the clock jumped.
        return bool(events["fault"])
    # What a call of the worker raised: the server's own words.
    full = message.startswith(("OOM", "MISCONF")) or "OOM" in message
    away = said.get("type") in ("StoreUnavailable", "StoreError", "WorkerLost", "UnknownKey")
    return bool(events["fault"]) and (full or away)
