"""Several controllers behind one set of verbs: machines of different kinds, or different schedulers.

Each verb is the members' own, for those that ``controller=`` names. Holds nothing but its turn.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import fields, replace
from typing import Any, Literal, TypeVar

from . import _inputs
from ._call_options import Options
from ._calls import Constant
from ._collecting import Summary
from ._controller import Controller
from ._crew import deadline_of
from ._results import TaskResult
from .errors import ConfigError

T = TypeVar("T")
#: One member by name, several, or None: the verb's default.
Which = str | Iterable[str] | None
#: Seconds between two looks where nothing tells of a change, such as a launcher that fails.
_STEP = 5.0


class ControllerGroup(concurrent.futures.Executor):
    """Controllers by name, with a controller's verbs.

    Verbs that make calls go to one member: the one that ``controller=`` names, else the first. All others are
    about the members that ``controller=`` names, one or several, else about all. ``group["gpu"]`` is the
    member itself: through it goes a function that has a keyword ``controller`` of its own. Results say in
    ``controller`` whose they are. The group ends its members with itself.
    """

    def __init__(self, controllers: Mapping[str, Controller]) -> None:
        members = controllers.values() if isinstance(controllers, Mapping) else ()
        if not members or not all(isinstance(one, Controller) for one in members):
            raise ConfigError('controllers must name at least one Controller: {"cpu": Controller(...), ...}')
        networks = [one.network for one in controllers.values()]
        if len(set(networks)) < len(networks):
            raise ConfigError(
                "controllers: two of them serve one network, so that either would do the other's calls"
            )
        self._members = {_inputs.one_key(name, "controllers"): one for name, one in controllers.items()}
        self._turn = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<ControllerGroup of {', '.join(self._members)}>"

    def __getitem__(self, name: str) -> Controller:
        return self._one(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def _some(self, which: Which) -> dict[str, Controller]:
        if which is None:
            return dict(self._members)
        names = [which] if isinstance(which, str) else _inputs.key_list(which, "controller")
        for name in names:
            if name not in self._members:
                raise ConfigError(f"controller={name!r} is none of {', '.join(self._members)}", value=name)
        return {name: self._members[name] for name in names}

    def _one(self, which: Which) -> Controller:
        chosen = list(self._some(next(iter(self._members)) if which is None else which).values())
        if len(chosen) != 1:
            raise ConfigError(
                f"controller={which!r}: this goes to one member, name one of {', '.join(self._members)}"
            )
        return chosen[0]

    # --- making calls: one member -----------------------------------------------------------------

    def submit(  # type: ignore[override]  # an executor's, with a keyword more
        self, fn: Callable[..., T], /, *args: Any, controller: str | None = None, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        """As ``Controller.submit``."""
        return self._one(controller).submit(fn, *args, **kwargs)

    def options(self, *, controller: str | None = None, **options: Any) -> Options:
        """As ``Controller.options``."""
        return self._one(controller).options(**options)

    def push(
        self, name: str, fn: Callable[..., T], /, *args: Any, controller: str | None = None, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        """As ``Controller.push``. A name is unique within its member."""
        return self._one(controller).push(name, fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        progress: Any = None,
        error: Literal["raise", "warn", "return"] = "raise",
        controller: str | None = None,
    ) -> Iterator[T]:
        """As ``Controller.map``."""
        return self._one(controller).map(
            fn, *iterables, timeout=timeout, chunksize=chunksize, progress=progress, error=error
        )

    def walk(
        self, fn: Callable[..., T], *iterables: Iterable[Any], controller: str | None = None
    ) -> list[concurrent.futures.Future[T]]:
        """As ``Controller.walk``."""
        return self._one(controller).walk(fn, *iterables)

    def constants(self, *, controller: str | None = None, **values: Any) -> dict[str, Constant]:
        """As ``Controller.constants``: they are there for calls of the same member."""
        return self._one(controller).constants(**values)

    def broadcast(
        self, fn: Callable[..., T], /, *args: Any, controller: Which = None, **kwargs: Any
    ) -> list[concurrent.futures.Future[T]]:
        """As ``Controller.broadcast``."""
        some = self._some(controller).values()
        return [future for one in some for future in one.broadcast(fn, *args, **kwargs)]

    def launch(self, n: int = 1, *, controller: str | None = None) -> list[str]:
        """As ``Controller.launch``."""
        return self._one(controller).launch(n)

    def push_backlog(self, name: str, *, controller: str | None = None) -> None:
        """As ``Controller.push_backlog``."""
        self._one(controller).push_backlog(name)

    def pop_backlog(self, *, controller: str | None = None) -> list[str]:
        """As ``Controller.pop_backlog``."""
        return self._one(controller).pop_backlog()

    # --- collecting -------------------------------------------------------------------------------

    def pop(self, timeout: float | None = 0.0, *, controller: Which = None) -> TaskResult | None:
        """As ``Controller.pop``, from the members by turns."""
        return self._until(controller, self._pop_once, timeout)

    def _pop_once(self, some: Mapping[str, Controller]) -> TaskResult | None:
        names = list(some)
        with self._lock:
            self._turn += 1
            start = self._turn % len(names)
        for name in names[start:] + names[:start]:
            found = some[name].pop(0.0)
            if found is not None:
                return replace(found, controller=name)
        return None

    def collect(self, *, controller: Which = None) -> list[TaskResult]:
        """As ``Controller.collect``."""
        some = self._some(controller)
        return [replace(found, controller=name) for name, one in some.items() for found in one.collect()]

    def wait(
        self,
        mode: Literal["all", "one"] = "all",
        timeout: float | None = None,
        *,
        controller: Which = None,
    ) -> bool:
        """As ``Controller.wait``: for all calls of these members, or for a result of any."""
        if mode == "all":
            deadline = deadline_of(timeout)
            for one in self._some(controller).values():
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not one.wait("all", left):
                    return False
            return True
        return bool(self._until(controller, lambda some: _any_ready(mode, some), timeout))

    def _until(
        self, which: Which, look: Callable[[Mapping[str, Controller]], T | None], timeout: float | None
    ) -> T | None:
        """What ``look`` finds, once it finds something (not None), woken by the members' feeds."""
        deadline = deadline_of(timeout)
        some = self._some(which)
        changed = threading.Event()
        with ExitStack() as stack:
            for one in some.values():
                stack.enter_context(one._feed.telling(changed.set))
            while True:
                changed.clear()
                found = look(some)
                left = _STEP if deadline is None else deadline - time.monotonic()
                if found is not None or left <= 0:
                    return found
                for one in some.values():
                    one._raise_if_broken()
                changed.wait(min(left, _STEP))

    def cancel(
        self,
        names: str | Iterable[str] | None = None,
        *,
        all: bool = False,  # noqa: A002
        controller: Which = None,
    ) -> list[str]:
        """As ``Controller.cancel``."""
        wanted = names if names is None or isinstance(names, str) else list(names)
        return [name for one in self._some(controller).values() for name in one.cancel(wanted, all=all)]

    def crashes(self, name: str, *, controller: Which = None) -> int:
        """As ``Controller.crashes``; the most of any member that knows the name."""
        return max(one.crashes(name) for one in self._some(controller).values())

    def summary(self, *, controller: Which = None) -> Summary:
        """As ``Controller.summary``: the sums over these members."""
        some = self._some(controller)
        each = [one.summary() for one in some.values()]
        numbers = [field.name for field in fields(Summary) if field.name != "controller"]
        return Summary("+".join(some), **{name: sum(getattr(one, name) for one in each) for name in numbers})

    def __len__(self) -> int:
        return sum(len(one) for one in self._members.values())

    def __bool__(self) -> bool:
        return True

    @property
    def empty(self) -> bool:
        """True where no call of any member is uncollected."""
        return all(one.empty for one in self._members.values())

    @property
    def saturated(self) -> bool:
        """True where every member is."""
        return all(one.saturated for one in self._members.values())

    # --- workers ----------------------------------------------------------------------------------

    def workers(self, *, controller: Which = None) -> Any:
        """As ``Controller.workers``, all in one table, with a column ``controller`` in front."""
        import polars as pl

        some = self._some(controller)
        tables = [
            one.workers().select(pl.lit(name).alias("controller"), pl.all()) for name, one in some.items()
        ]
        return pl.concat(tables, how="vertical_relaxed")

    def scale(self, *, controller: Which = None) -> bool:
        """As ``Controller.scale``."""
        launched = [one.scale() for one in self._some(controller).values()]
        return any(launched)

    def autoscale(self, *, controller: Which = None) -> None:
        """As ``Controller.autoscale``."""
        for one in self._some(controller).values():
            one.autoscale()

    def descale(self, *, controller: Which = None) -> None:
        """As ``Controller.descale``."""
        for one in self._some(controller).values():
            one.descale()

    # --- ending -----------------------------------------------------------------------------------

    def shutdown(
        self,
        wait: bool = True,  # noqa: FBT002 - as executors
        *,
        cancel_futures: bool = False,
        controller: Which = None,
    ) -> None:
        """As ``Controller.shutdown``; the members end side by side."""
        some = self._some(controller)
        for one in some.values():
            one.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            for one in some.values():
                one.shutdown()

    def terminate(self, *, controller: Which = None) -> None:
        """As ``Controller.terminate``."""
        for one in self._some(controller).values():
            one.terminate()


def _any_ready(mode: str, some: Mapping[str, Controller]) -> bool | None:
    """For a wait for one result: True, or False where none can come, or None where one may."""
    if mode != "one":
        raise ConfigError(f"mode={mode!r} must be 'all' or 'one'")
    idle = all(not one._feed.outstanding for one in some.values())
    if any(one._collector.any_ready() for one in some.values()):
        return True
    return False if idle else None
