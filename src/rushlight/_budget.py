"""Budgets: so many units of work in the whole network, taken one by one by its workers.

Owns what one worker does to take them; what is out is counted on the server (``lua/lib/budget.lua``).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from . import _inputs
from ._member import Member
from ._store_boards import BudgetStanding
from .errors import WorkerLost

#: Seconds a wait for other workers' units lasts at most before leases are looked at again.
_STEP = 5.0


@dataclass(slots=True)
class Calls:
    """What a worker has said of a budget: the number of its last call, and whether that was a ``take`` that
    got no answer."""

    last: int = 0
    unheard: bool = False


class Budget:
    """``n`` units that the workers of a network share: ``while budget.take(): ...`` runs n tasks in all.

    A worker holds one unit at a time. It is *spent* once the worker has finished a task after taking it, or
    takes the next, or leaves the network in good order. It *comes back* where the worker is lost or killed
    before, so that another does the work. All workers that name the same budget share it; each goes by the
    ``n`` it gave, so that a larger one later carries on.
    """

    def __init__(self, member: Member, calls: Calls, name: str, n: int) -> None:
        self._member = member
        self._calls = calls
        self.name = name
        self.n = n

    def __repr__(self) -> str:
        return f"<Budget {self.name!r} of {self.n} in {self._member.store.network!r}>"

    def take(self, timeout: float | None = None) -> bool:
        """Takes a unit; False where there is none, or this worker is to leave. One round trip while units are
        left.

        Once they are all out, but workers in other processes hold some that may still come back, it waits
        until those are spent (False) or one came back (True): ``timeout`` seconds at most, 0 not at all, None
        as long as it takes; woken by the event.
        """
        limit = _inputs.seconds(timeout, "timeout", none=True)
        deadline = math.inf if limit is None else time.monotonic() + limit
        taken, elsewhere = self._ask()
        while elsewhere and (left := deadline - time.monotonic()) > 0:
            store = self._member.store
            standing = store.watch(min(left, _STEP) + 2.0)
            if standing.overdue:
                store.reap()
                standing = store.watch(min(left, _STEP) + 2.0)
            taken, elsewhere = self._ask()
            if elsewhere:
                store.wait_event(standing.event, min(left, _STEP, standing.next_due))
        return taken

    def give_back(self) -> bool:
        """Gives back the unit this worker holds, which it has no use for; False where it holds none that is
        unused."""
        number = self._next_number()
        scripts = self._member.store.scripts
        try:
            return bool(self._member._write(lambda m: [scripts.give_back(m[:3], self.name, number)])[2])
        except WorkerLost:
            return False

    @property
    def taken(self) -> int:
        """Units that are out: spent, or held by a worker. One round trip."""
        standing = self.standing()
        return standing.spent + standing.held

    @property
    def left(self) -> int:
        """Units that nobody has. One round trip."""
        return max(0, self.n - self.taken)

    def standing(self) -> BudgetStanding:
        """Units spent and units held, from one instant."""
        return self._member.store.budget(self.name)

    def _next_number(self) -> int:
        self._calls.last += 1
        self._calls.unheard = False
        return self._calls.last

    def _ask(self) -> tuple[bool, int]:
        """Whether there was a unit, and else how many may come back from elsewhere. A call that was given up
        without an answer is asked again under its number: the server may have given it a unit."""
        number = self._calls.last if self._calls.unheard else self._next_number()
        self._calls.unheard = True
        card, scripts = self._member.card, self._member.store.scripts
        process = f"{card.hostname}:{card.pid}"
        try:
            reply = self._member._write(
                lambda member: [scripts.take(member[:3], self.name, number, self.n, process)]
            )
        except WorkerLost:
            self._calls.unheard = False
            return False, 0
        self._calls.unheard = False
        taken, elsewhere = bool(reply[2]), 0 if self._member.leaving else int(reply[3])
        return taken, elsewhere
