"""Defaults for code that starts workers on a user's behalf: ``plan``.

Kept per context (thread, asyncio task), never in the environment. Owns no connection.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from . import _inputs
from ._connect import StoreConfig
from ._wire import Link


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


_EMPTY = Plan()
_scoped: ContextVar[Plan | None] = ContextVar("rushlight_plan", default=None)


class _Planner:
    """``plan(...)`` sets defaults at once, for the process; ``with plan(...)`` for the block, in this context
    only. ``plan.current()``, ``plan.is_set()``, ``plan.clear()``."""

    def __init__(self) -> None:
        self._default = _EMPTY

    def __call__(
        self,
        n_workers: int | None = None,
        url: str | None = None,
        launcher: Any = None,
        log_level: str | int | None = None,
        start_timeout: float | None = None,
        large_object_dir: str | None = None,
        secret: str | bytes | None = None,
    ) -> _Scope:
        """Stores defaults; raises StoreUnavailable at once if the server cannot be reached."""
        if n_workers is not None:
            _inputs.count(n_workers, "n_workers", least=1)
        _inputs.seconds(start_timeout, "start_timeout", none=True)
        _inputs.log_level(log_level)
        if large_object_dir is not None:
            large_object_dir = _inputs.directory(large_object_dir, "large_object_dir")
        new = Plan(n_workers, url, launcher, log_level, start_timeout, large_object_dir, secret)
        link = Link(StoreConfig.find(url, secret))
        link.connect()
        link.close()
        before, self._default = self._default, new
        return _Scope(self, new, before)

    def current(self) -> Plan:
        """The defaults in force here."""
        return _scoped.get() or self._default

    def is_set(self) -> bool:
        """True where a plan is in force."""
        return self.current() is not _EMPTY

    def clear(self) -> None:
        """Takes the process-wide plan back, and the one of this context."""
        self._default = _EMPTY
        _scoped.set(None)


class _Scope:
    """What ``plan(...)`` returns: in force already; as a context manager it ends with the block."""

    def __init__(self, planner: _Planner, new: Plan, before: Plan) -> None:
        self._planner = planner
        self._new = new
        self._before = before

    def __enter__(self) -> Plan:
        self._planner._default = self._before
        self._token = _scoped.set(self._new)
        return self._new

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _scoped.reset(self._token)


plan = _Planner()


def find_config(url: str | None, secret: str | bytes | None = None, **limits: Any) -> StoreConfig:
    """Settings by order: argument, plan, environment, embedded server."""
    current = plan.current()
    limits.setdefault("large_object_dir", current.large_object_dir)
    return StoreConfig.find(url or current.url, secret if secret is not None else current.secret, **limits)
