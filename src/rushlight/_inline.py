"""A controller without workers: every call is made at once, in this process. For tests and debuggers.

Has a controller's verbs, with its signatures; those about workers do nothing. What surrounds a call in a
worker (seed, warnings, what is printed and put back) surrounds it here.
"""

from __future__ import annotations

import concurrent.futures
import os
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from . import _inputs, _names, _seeds
from ._call_options import PLAIN, SETTINGS, CallOptions, Options, Settings
from ._call_scope import Meter, Scope
from ._calls import call_hook
from ._collecting import Summary
from ._crew import deadline_of
from ._mapping import checked_map, in_order
from ._results import TaskResult
from ._tables import worker_table
from .errors import ConfigError
from .launchers import Launcher

T = TypeVar("T")


class InlineController(concurrent.futures.Executor):
    """A ``Controller`` that makes each call where it is submitted, before ``submit`` returns.

    Breakpoints work, errors are the very objects that were raised, and nothing needs a server. Settings of
    workers and time limits have no effect; a call that ends the process ends this one. One call at a time:
    others wait.
    """

    def __init__(
        self,
        network: str | None = None,
        url: str | None = None,
        *,
        launcher: str | Launcher | None = None,
        min_workers: int = 0,
        max_workers: int | None = None,
        idle_timeout: float | None = 300.0,
        max_tasks_per_worker: int | None = None,
        max_lifetime: float | None = None,
        launch_timeout: float = 60.0,
        max_crashes: int = 5,
        fallback: Any = None,
        seed: Any = None,
        on_worker_start: Callable[..., Any] | None = None,
        packages: Sequence[str] = (),
        max_memory: int | None = None,
        reset: Sequence[str] = (),
        tasks_per_worker: float = 1.0,
        max_queued: int | None = None,
        max_queued_bytes: int | None = None,
        lease: float = 15.0,
        secret: str | bytes | None = None,
        retention: Literal["collect", "archive"] = "archive",
    ) -> None:
        given = locals()
        self._settings = Settings.checked(**{name: given[name] for name in SETTINGS})
        self._network = network or _names.random_name()
        self.fallback = fallback
        self._root = _seeds.Seed.of(seed) if seed is not None else None
        self._lock = threading.RLock()
        self._ended: dict[str, TaskResult] = {}
        self._tally = Summary(self.network)
        self._made = 0
        self._shutdown = False
        self._backlog: deque[str] = deque()
        for package in self._settings.packages:
            __import__(package)
        if on_worker_start is not None:
            call_hook(on_worker_start, self)

    def __repr__(self) -> str:
        return f"<InlineController {self.network!r}>"

    @property
    def network(self) -> str:
        """A name, as a controller has it."""
        return self._network

    # --- submitting -----------------------------------------------------------------------------

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Makes the call; its future is done."""
        return self._submit(PLAIN, fn, args, kwargs)

    def options(self, **options: Any) -> Options:
        """As ``Controller.options``."""
        return Options(self, CallOptions.checked(**options))

    def push(
        self, name: str, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        """``submit`` under a name."""
        return self._submit(CallOptions.checked(name=name), fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        progress: Any = None,
        error: Literal["raise", "warn", "return"] = "raise",
    ) -> Iterator[T]:
        """As ``Controller.map``."""
        chunksize = checked_map(chunksize, error)
        names, futures = [], []
        for args in zip(*iterables, strict=False):
            futures.append(self._submit(PLAIN, fn, args, {}))
            names.append(next(reversed(self._ended)))
        for name in names:
            self._collect(name)
        return in_order(futures, deadline_of(timeout), chunked=False, error=error, progress=progress)

    def walk(self, fn: Callable[..., T], *iterables: Iterable[Any]) -> list[concurrent.futures.Future[T]]:
        """``submit`` for each of the items; returns the futures."""
        return [self._submit(PLAIN, fn, args, {}) for args in zip(*iterables, strict=False)]

    def constants(self, **values: Any) -> dict[str, Any]:
        """The values themselves."""
        return dict(values)

    def broadcast(
        self, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> list[concurrent.futures.Future[T]]:
        """Makes the call once, here."""
        future = self._submit(PLAIN, fn, args, kwargs)
        self._ended.popitem()
        return [future]

    def _submit(
        self, options: CallOptions, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> concurrent.futures.Future[Any]:
        if not callable(fn):
            raise ConfigError(f"fn must be callable, got {fn!r}")
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            self._made += 1
            name = options.name or f"call-{self._made}"
            if name in self._ended:
                raise ConfigError(
                    f"name={name!r} is in use by a call of network {self.network!r}: collect its result "
                    "first, or take another",
                    name=name,
                )
            created = time.time()
            for attempt in range(1, options.max_retries + 2):
                result = self._call(name, attempt, options, fn, args, kwargs)
                if result.exception is None:
                    break
            self._ended[name] = replace(result, created_at=created, finished_at=time.time())
        future.set_running_or_notify_cancel()
        if result.exception is not None:
            future.set_exception(result.exception)
        else:
            future.set_result(result.value)
        return future

    def _call(
        self,
        name: str,
        attempt: int,
        options: CallOptions,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> TaskResult:
        seed = options.seed if options.seed is not None else self._root and self._root.child(self._made - 1)
        before = _seeds.state() if seed is not None else None
        scope = Scope(self._settings.reset)
        value, error, meter, began = None, None, Meter(), time.time()
        try:
            if seed is not None:
                _seeds.put(_seeds.Seed.of(seed))
            scope.open()
            scope.begin(fn)
            value = fn(*args, **kwargs)
        except BaseException as raised:
            error = raised
        finally:
            meter.stop()
            told = scope.end()
            scope.close()
            if before is not None:
                _seeds.restore(before)
        return TaskResult(
            name=name,
            status="success" if error is None else "error",
            value=value,
            exception=error,
            traceback=None if error is None else "".join(traceback.format_exception(error)),
            warnings=tuple(told.get("warnings", ())),
            stdout=told.get("stdout", ""),
            seconds=meter.told["seconds"],
            worker_id=self.network,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            attempt=attempt,
            seed=options.seed,
            controller=self.network,
            cpu_seconds=meter.told["cpu_seconds"],
            peak_memory=meter.told["peak_memory"],
            started_at=began,
        )

    # --- collecting -----------------------------------------------------------------------------

    def pop(self, timeout: float | None = 0.0) -> TaskResult | None:
        """The next result, in the order of submission."""
        _inputs.seconds(timeout, "timeout", none=True)
        with self._lock:
            return self._collect(next(iter(self._ended))) if self._ended else None

    def collect(self) -> list[TaskResult]:
        """All results."""
        with self._lock:
            return [self._collect(name) for name in list(self._ended)]

    def _collect(self, name: str) -> TaskResult:
        result = self._ended.pop(name)
        found = Summary(
            self.network, tasks=1, warning=int(bool(result.warnings)), seconds=result.seconds or 0.0
        )
        status: dict[str, Any] = {result.status: 1}
        self._tally = self._tally.plus([replace(found, **status)])
        return result

    def wait(self, mode: Literal["all", "one"] = "all", timeout: float | None = None) -> bool:
        """Returns at once: True for ``all``, and for ``one`` where there is a result."""
        if mode not in ("all", "one"):
            raise ConfigError(f"mode={mode!r} must be 'all' or 'one'")
        deadline_of(timeout)
        return mode == "all" or bool(self._ended)

    def cancel(self, names: str | Iterable[str] | None = None, *, all: bool = False) -> list[str]:  # noqa: A002
        """Nothing waits or runs: an empty list."""
        del names, all
        return []

    def crashes(self, name: str) -> int:
        """A call that crashes takes this process along: 0."""
        _inputs.one_key(name, "name")
        return 0

    def summary(self) -> Summary:
        """The calls that were collected."""
        return self._tally

    def __len__(self) -> int:
        return len(self._ended)

    def __bool__(self) -> bool:
        return True

    @property
    def empty(self) -> bool:
        """True where no call is uncollected."""
        return not self._ended

    @property
    def saturated(self) -> bool:
        """Never: there is always room."""
        return False

    def push_backlog(self, name: str) -> None:
        """As ``Controller.push_backlog``."""
        self._backlog.append(_inputs.one_key(name, "name"))

    def pop_backlog(self) -> list[str]:
        """All names."""
        names = list(self._backlog)
        self._backlog.clear()
        return names

    # --- workers, of which there are none ---------------------------------------------------------

    def workers(self) -> Any:
        """The empty table of workers."""
        return worker_table([])

    def launch(self, n: int = 1) -> list[str]:
        """Launches nothing."""
        _inputs.count(n, "n", least=1)
        return []

    def scale(self) -> bool:
        """Launches nothing: False."""
        return False

    def autoscale(self) -> None:
        """Does nothing."""

    def descale(self) -> None:
        """Does nothing."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as executors
        """Takes no more calls."""
        del wait, cancel_futures
        self._shutdown = True

    def terminate(self) -> None:
        """Takes no more calls, and forgets the results."""
        self._shutdown = True
        self._ended.clear()
