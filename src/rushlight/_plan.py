"""Defaults for code that starts workers on a user's behalf: ``plan``.

Kept per context (thread, asyncio task), never in the environment. Owns no connection.
"""

from __future__ import annotations

import threading
import weakref
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from . import _inputs
from ._connect import StoreConfig
from ._wire import Link
from .launchers import get_launcher


@dataclass(frozen=True, slots=True)
class Plan:
    """The defaults in force; None where none was given."""

    n_workers: int | None = None
    url: str | None = field(default=None, repr=False)
    launcher: Any = None
    log_level: str | int | None = None
    start_timeout: float | None = None
    large_object_dir: str | None = None
    secret: str | bytes | None = field(default=None, repr=False)
    adaptive_waiting: bool | None = None


_EMPTY = Plan()
_scoped: ContextVar[Plan | None] = ContextVar("rushlight_plan", default=None)


class _Planner:
    """``plan(...)`` sets defaults at once, for the process; ``with plan(...)`` for the block, in this context
    only. ``plan.current()``, ``plan.is_set()``, ``plan.clear()``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The calls in force for the process, the last one counts: it may turn out to be meant for a block.
        self._calls: list[tuple[Plan, weakref.ref[_Scope]]] = []

    def __call__(
        self,
        n_workers: int | None = None,
        url: str | None = None,
        launcher: Any = None,
        log_level: str | int | None = None,
        start_timeout: float | None = None,
        large_object_dir: str | None = None,
        secret: str | bytes | None = None,
        adaptive_waiting: bool | None = None,
    ) -> _Scope:
        """Stores defaults; raises StoreUnavailable at once if the server cannot be reached.
        ``adaptive_waiting=False``: a call sleeps until its answer is there."""
        if n_workers is not None:
            n_workers = _inputs.count(n_workers, "n_workers", least=1)
        start_timeout = _inputs.seconds(start_timeout, "start_timeout", none=True)
        _inputs.log_level(log_level)
        if launcher is not None:
            get_launcher(launcher)
        if large_object_dir is not None:
            large_object_dir = _inputs.directory(large_object_dir, "large_object_dir")
        new = Plan(
            n_workers, url, launcher, log_level, start_timeout, large_object_dir, secret, adaptive_waiting
        )
        link = Link(StoreConfig.find(url, secret))
        link.connect()
        link.close()
        scope = _Scope(self, new)
        with self._lock:
            self._calls.append((new, weakref.ref(scope)))
            # A call whose result nobody holds stays for good, and nothing before it can come back.
            settled = [i for i, (_, held) in enumerate(self._calls) if held() is None]
            del self._calls[: settled[-1] if settled else 0]
        return scope

    def current(self) -> Plan:
        """The defaults in force here."""
        scoped = _scoped.get()
        if scoped is not None:
            return scoped
        with self._lock:
            return self._calls[-1][0] if self._calls else _EMPTY

    def is_set(self) -> bool:
        """True where a plan is in force."""
        return self.current() is not _EMPTY

    def clear(self) -> None:
        """Takes the process-wide plan back, and the one of this context."""
        with self._lock:
            self._calls.clear()
        _scoped.set(None)

    def take_back(self, scope: _Scope) -> None:
        """This call was meant for a block only."""
        with self._lock:
            self._calls = [call for call in self._calls if call[1]() is not scope]


class _Scope:
    """What ``plan(...)`` returns: in force already; as a context manager it ends with the block."""

    def __init__(self, planner: _Planner, new: Plan) -> None:
        self._planner = planner
        self._new = new
        self._tokens: list[Token[Plan | None]] = []

    def __enter__(self) -> Plan:
        self._planner.take_back(self)
        self._tokens.append(_scoped.set(self._new))
        return self._new

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _scoped.reset(self._tokens.pop())


plan = _Planner()


def find_config(url: str | None, secret: str | bytes | None = None, **limits: Any) -> StoreConfig:
    """Settings by order: argument, plan, environment, embedded server."""
    current = plan.current()
    limits.setdefault("large_object_dir", current.large_object_dir)
    limits.setdefault("adaptive", current.adaptive_waiting)
    return StoreConfig.find(url or current.url, secret if secret is not None else current.secret, **limits)
