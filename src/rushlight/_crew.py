"""A controller's verbs beside those of an executor: collecting, cancelling, counting, scaling.

Each is a look at the network, or a word to it; what is under way is the feed's to know.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from . import _inputs
from ._call_options import Settings
from ._clearing import Presence
from ._collecting import Collector, Summary
from ._feed import Feed
from ._launches import Launches
from ._manager import Rush
from ._results import AGAIN, TaskResult, name_of
from ._sending import Sender
from .errors import ConfigError

CANCELLED = {"message": "Cancelled", "type": "TaskCancelled"}


class CrewVerbs:
    """What crew's users know, on the same object."""

    _rush: Rush
    _settings: Settings
    _collector: Collector
    _feed: Feed
    _sender: Sender
    _launches: Launches
    _backlog: deque[str]
    _presence: Presence
    _forgets: bool

    if TYPE_CHECKING:

        @property
        def network(self) -> str: ...

        def _new_key(self) -> str: ...

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a Controller cannot be pickled: elsewhere make Controller({self.network!r})")

    def _family(self) -> list[CrewVerbs]:
        """This controller, and those where its calls go on."""
        return [self]

    # --- collecting -----------------------------------------------------------------------------

    def pop(self, timeout: float | None = 0.0) -> TaskResult | None:
        """The next result nobody has collected; waits up to ``timeout`` seconds for one."""
        deadline = deadline_of(timeout)
        while True:
            count = self._feed.ended_count
            for one in self._family():
                found = one._collector.take()
                if found is not None:
                    return found
            left = 5.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return None
            self._raise_if_broken()
            self._feed.wait(min(left, 5.0), count=count)

    def collect(self) -> list[TaskResult]:
        """All results that are there and nobody has collected."""
        return [found for one in self._family() for found in one._collector.take_all()]

    def wait(self, mode: Literal["all", "one"] = "all", timeout: float | None = None) -> bool:
        """Waits until all calls have ended, or until there is a result to be collected (``one``); False when
        the time ran out, or nothing can come."""
        if mode not in ("all", "one"):
            raise ConfigError(f"mode={mode!r} must be 'all' or 'one'")
        deadline = deadline_of(timeout)
        while True:
            count = self._feed.ended_count
            idle = not any(one._feed.outstanding for one in self._family())
            if mode == "all" and idle:
                return True
            if mode == "one" and any(one._collector.any_ready() for one in self._family()):
                return True
            if mode == "one" and idle:
                return False
            left = 5.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            self._raise_if_broken()
            self._feed.wait(min(left, 5.0), count=count)

    def cancel(self, names: str | Iterable[str] | None = None, *, all: bool = False) -> list[str]:  # noqa: A002
        """Takes calls back, queued or running: the named ones, or all; returns the names of those it did."""
        wanted = _inputs.key_list([names] if isinstance(names, str) else names or (), "names")
        cancelled: list[str] = []
        for one in self._family():
            one._sender.flush()
            if all:
                found = [*one._rush.keys("queued"), *one._rush.keys("running")]
            else:
                found = [key for name in wanted if (key := one._keys_of(name)[0]) is not None]
            cancelled += one._rush._store.drop(CANCELLED, found) if found else []
        return [name_of(key) for key in cancelled]

    def _keys_of(self, name: str) -> tuple[str | None, str]:
        """The key of the latest call of a name, and the next: a name can be used again once its result has
        been collected, while the task under its key is still there."""
        latest, first, many = self._named(name), 1, 2
        while True:
            keys = [name if n == 1 else f"{name}{AGAIN}{n}" for n in range(first, first + many)]
            for key, state in zip(keys, self._rush._store.look(keys), strict=True):
                if state is None:
                    return latest, key
                latest = key
            first, many = first + many, 50

    def _free_key(self, name: str) -> str:
        """The key for a call of this name. Raises ConfigError for one that is in use."""
        if self._forgets:
            # A key is never used again, so that what was said of a call that is gone is not said of this one.
            free = f"{name}{AGAIN}{self._new_key()}"
            while (latest := self._rush._store.name_call(name, free)) != free:
                self._check_over(name, latest)
            return free
        latest_or_none, free = self._keys_of(name)
        if latest_or_none is not None:
            self._check_over(name, latest_or_none)
        return free

    def _check_over(self, name: str, key: str) -> None:
        if not self._collector.is_over(key):
            raise ConfigError(
                f"name={name!r} is in use by a call of network {self.network!r}: collect its result first, "
                "or take another",
                name=name,
            )

    def _named(self, name: str) -> str | None:
        """The key of a call that was given this name where results are not kept, and is there."""
        store = self._rush._store
        key = store.named(name) if self._presence.active else None
        return None if key is None or store.look([key])[0] is None else key

    def crashes(self, name: str) -> int:
        """How often in a row the call of this name has crashed its worker."""
        latest = self._keys_of(_inputs.one_key(name, "name"))[0]
        view = self._rush._store.look_up(latest or name)
        for row in (*view.queued, *view.running, *view.failed):
            last = bool(view.conditions) and view.conditions[0].get("type") != "TaskCancelled"
            return int((row[2] or {}).get("k", 0)) + (1 if view.failed and last else 0)
        return 0

    def summary(self) -> Summary:
        """The calls that this object has collected."""
        first, *others = [one._collector.summary() for one in self._family()]
        return first.plus(others)

    def __len__(self) -> int:
        """Calls that nobody has collected, in any state."""
        total = 0
        for one in self._family():
            one._sender.flush()
            one._collector.settle()
            total += one._rush._store.uncollected()
        return total

    def __bool__(self) -> bool:
        return True

    @property
    def empty(self) -> bool:
        """True where no call is uncollected."""
        return len(self) == 0

    @property
    def saturated(self) -> bool:
        """True where there are at least as many uncollected calls as workers may be."""
        return len(self) >= self._settings.scale.max_workers

    def push_backlog(self, name: str) -> None:
        """Puts a name into the backlog: of calls that wait until there is room."""
        self._backlog.append(_inputs.one_key(name, "name"))

    def pop_backlog(self) -> list[str]:
        """The names that may be pushed without saturation, first in first out."""
        room = max(0, self._settings.scale.max_workers - len(self))
        return [self._backlog.popleft() for _ in range(min(room, len(self._backlog)))]

    # --- workers --------------------------------------------------------------------------------

    def workers(self) -> Any:
        """The table of the network's workers (``Rush.worker_info``)."""
        return self._rush.worker_info

    def launch(self, n: int = 1) -> list[str]:
        """Launches n workers now, also beyond ``max_workers``; returns their ids."""
        return self._launches.launch(_inputs.count(n, "n", least=1))

    def scale(self) -> bool:
        """Looks at calls and workers once, and launches or lets go; True where it launched some."""
        self._sender.flush()
        return self._launches.step()

    def autoscale(self) -> None:
        """Scales in the background from now on, as a new controller does."""
        self._launches.resume()

    def descale(self) -> None:
        """Leaves the number of workers as it is, until ``scale`` or ``autoscale``."""
        self._launches.pause()

    def _workers_left(self) -> bool:
        """Whether anybody is there to do what is left."""
        return bool(self._rush._store.totals().live_workers)

    def _raise_if_broken(self) -> None:
        error = self._launches.error
        if error is not None and not self._workers_left():
            raise error


def deadline_of(timeout: float | None) -> float | None:
    """The monotonic time that is so many seconds from now."""
    limit = _inputs.seconds(timeout, "timeout", none=True)
    return None if limit is None else time.monotonic() + limit
