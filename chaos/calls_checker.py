"""What was said of calls against what came of them. Pure, as ``checker`` is.

Every call that was acknowledged was collected once, with its own value or a status that is true, or read from
its future. Only what a killed program had been given last may have been given to another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.ledger import Account
from chaos.work import answer


@dataclass(frozen=True, slots=True)
class Taken:
    """A result as it was collected: by which process, at its how manieth taking."""

    pid: int
    turn: int
    name: str
    status: str
    y: int | None
    why: str


@dataclass
class CallLedgers(Account):
    """The lines of all ledgers that tell of calls."""

    #: Calls that were to be made: name -> kind.
    kinds: dict[str, str] = field(default_factory=dict)
    limited: set[str] = field(default_factory=set)
    #: Acknowledged.
    submitted: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    #: The right values of calls that were mapped, which have no name.
    mapped: set[int] = field(default_factory=set)
    taken: list[Taken] = field(default_factory=list)
    #: How often each process has asked for results and was answered.
    turns: Counter[int] = field(default_factory=Counter)
    read: dict[str, int] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)
    #: What each program said was left when it had collected all there was.
    left: list[int] = field(default_factory=list)
    died: list[str] = field(default_factory=list)

    def _take(self, line: Mapping[str, Any]) -> None:
        what = line["what"]
        if what == "call":
            self.kinds[line["name"]] = line["kind"]
            if line.get("limited"):
                self.limited.add(line["name"])
        elif what == "submitted":
            self.submitted.update(line["names"])
        elif what == "uncall":
            self.cancelled.add(line["name"])
        elif what == "mapped":
            self.mapped.update(answer(name) for name in line["ids"])
        elif what == "took":
            self.turns[line["pid"]] += 1
            turn = self.turns[line["pid"]]
            self.taken += [Taken(line["pid"], turn, **result) for result in line["results"]]
        elif what == "read":
            self.read[line["name"]] = line["y"]
        elif what == "kill" and line["role"] == "controllers":
            self.killed.add(line["pid"])
        elif what == "drained":
            self.left.append(line["left"])
        elif what == "died":
            self.died.append(line["name"])


def check_calls(ledgers: CallLedgers, events: Counter[str]) -> list[str]:
    """What is wrong, a sentence each. ``events``: what has gone wrong, as ``Ledgers`` has counted it."""
    wrong = [f"call collected twice: {name}" for name in _twice(ledgers)]
    taken = {one.name for one in ledgers.taken}
    wrong += [
        f"call lost: {name} was acknowledged, and its result came to nobody"
        for name in sorted(ledgers.submitted - taken - ledgers.read.keys())
    ]
    wrong += _values(ledgers)
    for one in ledgers.taken:
        if one.status != "success" and not true_status(one, ledgers, events):
            wrong.append(f"call ended without a true reason: {one}")
    wrong += [f"calls left: {left} could not be collected" for left in ledgers.left if left]
    wrong += [f"program died: {name}" for name in ledgers.died]
    return wrong


def _twice(ledgers: CallLedgers) -> Iterator[str]:
    """Results of which two programs are sure that they are theirs."""
    sure = Counter(
        one.name
        for one in ledgers.taken
        if not (one.pid in ledgers.killed and one.turn == ledgers.turns[one.pid])
    )
    yield from (name for name, n in sure.items() if n > 1)


def _values(ledgers: CallLedgers) -> Iterator[str]:
    for one in ledgers.taken:
        if one.name not in ledgers.kinds:
            if one.status == "success" and one.y not in ledgers.mapped:
                yield f"call made up: {one}"
        elif one.status == "success" and one.y != answer(one.name):
            yield f"call wrong: {one.name} was collected with another's value"
    for name, y in ledgers.read.items():
        if y != answer(name):
            yield f"call wrong: the future of {name} had another's value"


def true_status(one: Taken, ledgers: CallLedgers, events: Counter[str]) -> bool:
    """Whether what a result says of a failure has happened."""
    kind = ledgers.kinds.get(one.name, "plain")
    killed = any(events[f"kill {role}"] for role in ("workers", "supervisors", "controllers"))
    if one.status == "timeout":
        return one.name in ledgers.limited
    if one.status == "cancel":
        # A map that fails cancels what is left of it.
        return one.name in ledgers.cancelled or one.name not in ledgers.kinds
    if one.status == "crash":
        return kind == "exit" or bool(killed or events["fault"])
    if kind == "boom" and f"boom {one.name}" in one.why:
        return True
    # What the worker was told by the server.
    return bool(events["fault"]) and any(word in one.why for word in ("OOM", "MISCONF", "server"))
