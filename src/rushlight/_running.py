"""A task in the block of ``worker.task(xs)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .errors import TaskError


class Settles(Protocol):
    """A worker, as far as its running tasks know it."""

    def finish_task(
        self, key: str, ys: Mapping[str, Any], *, ys_extra: Mapping[str, Any] | None = None
    ) -> bool: ...

    def fail_task(self, key: str, condition: Any = None) -> bool: ...


class RunningTask:
    """A task in the block of ``worker.task(xs)``."""

    def __init__(self, worker: Settles, key: str, xs: dict[str, Any]) -> None:
        self._worker = worker
        self.key = key
        self.xs = xs
        self.settled = False

    def finish(self, ys: Mapping[str, Any], *, ys_extra: Mapping[str, Any] | None = None) -> bool:
        """The result; True if this call decided the task. Raises TaskError when called twice."""
        if self.settled:
            raise TaskError(f"task {self.key} is settled already", key=self.key)
        decided = self._worker.finish_task(self.key, ys, ys_extra=ys_extra)
        self.settled = True
        return decided

    def fail(self, condition: Any = None) -> bool:
        """Fails the task without an exception."""
        if self.settled:
            raise TaskError(f"task {self.key} is settled already", key=self.key)
        self.settled = True
        return self._worker.fail_task(self.key, condition)
