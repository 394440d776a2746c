"""What a worker shares with the others beside its tasks: budgets, leaderboards, the root of their seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import _inputs
from ._boards import BoardReader, shared_name
from ._budget import Budget, Calls
from ._member import Member
from ._scripts import Author
from ._seeding import SeedReader
from ._seeds import Seed


class Sharing(BoardReader, SeedReader):
    """The worker's side; what it writes passes the gate of workers."""

    _member: Member

    def _begin_sharing(self) -> None:
        self._budget_calls: dict[str, Calls] = {}
        #: The root of all seeds, and the epoch it is of.
        self._root: tuple[str, Seed] | None = None

    def budget(self, n: int, name: str = "default") -> Budget:
        """``n`` units of work for the whole network: ``while worker.budget(100).take(): ...`` runs 100 tasks
        in all, whoever runs them and whoever is killed meanwhile. Makes no round trip; gone with the tasks at
        a reset."""
        known = shared_name(name)
        calls = self._budget_calls.setdefault(known, Calls())
        return Budget(self._member, calls, known, _inputs.count(n, "n"))

    def _author(self, pack: Callable[[Author], bytes]) -> list[Any]:
        reply: list[Any] = self._member._write(lambda member: [pack(member[:3])])
        return reply

    def _root_seed(self) -> Seed:
        if self._root is None or self._root[0] != self._member._epoch:
            self._root = self._ask_root()
        return self._root[1]
