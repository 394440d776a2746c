"""The seeds of a network's tasks, for workers and managers: the same whoever runs a task, and when."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from . import _seeds
from ._records import Task
from ._scripts import Author
from ._store import Store
from .errors import ConfigError

if TYPE_CHECKING:
    from numpy.random import SeedSequence


class SeedReader:
    """What random numbers a task has."""

    _store: Store

    def seed_sequence(self, task: str | Task) -> SeedSequence:
        """The task's own ``numpy.random.SeedSequence``: child number ``seq - 1`` of the network's root seed,
        or the seed it was pushed with; neither the worker nor the order of execution matters.

        Given a Task that was popped or read, a worker needs no round trip (but one, once, for the root); a
        key is looked up. Raises UnknownKey, and MissingExtra without NumPy.
        """
        return self._seed_of(task).sequence()

    def seeded(self, task: str | Task) -> AbstractContextManager[None]:
        """For the block, ``random`` and NumPy's global functions (``np.random.rand()``) give the task's own
        numbers; then they go on as before. They belong to the process: one block at a time.

        ``random`` starts from the first 8 words of ``seed_sequence(task)``, NumPy (where it is installed)
        from the next 8: ``np.random.seed(sequence.generate_state(16)[8:])``.
        """
        return _seeds.in_force(self._seed_of(task))

    def _seed_of(self, task: str | Task) -> _seeds.Seed:
        known = task if isinstance(task, Task) else self.task(task)
        if known.seed is None and known.seq < 1:
            raise ConfigError(f"task {known.key!r} was never read from a network: it has no number there")
        return _seeds.of_task(self._root_seed, known.seq, known.seed, known.reseeded)

    def _root_seed(self) -> _seeds.Seed:
        """The root that is in force; asking fixes it."""
        return self._ask_root()[1]

    def _ask_root(self) -> tuple[str, _seeds.Seed]:
        """The network's epoch and its root."""
        epoch = ""

        def pack(author: Author) -> bytes:
            nonlocal epoch
            epoch = author[0]
            return self._store.scripts.root(author, "")

        text = self._author(pack)[2].decode()
        return epoch, _seeds.decode(text) if text else _seeds.from_epoch(epoch)

    if TYPE_CHECKING:

        def task(self, key: str) -> Task: ...

        def _author(self, pack: Callable[[Author], bytes]) -> list[Any]: ...


def fix_root(store: Store, seed: str) -> None:
    """Gives a network its root, encoded. ConfigError where it has another, or tasks have had seeds already
    that were derived from none."""
    found = store.write(lambda epoch: store.scripts.root((epoch, "", ""), seed))[2].decode()
    if found == seed:
        return
    wanted = _seeds.public(seed)
    if found:
        has = f"has the root seed {_seeds.public(found)!r}, not {wanted!r}"
    else:
        has = f"cannot have the root seed {wanted!r}: tasks have had seeds of the network's own already"
    raise ConfigError(
        f"network {store.network!r} {has}: reset it first, or use another network", seed=wanted, found=found
    )
