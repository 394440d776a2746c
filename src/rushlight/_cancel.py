"""Giving up a blocking call from another thread: the token that says so, and what it interrupts.

Whoever blocks on purpose tells the token how to wake him; a call without a token, which is every call that
nobody can give up, pays one look for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar


class Interrupted(BaseException):
    """Whoever asked for this call has given it up: a signal, never an error."""


class CancelToken:
    """Says whether a call was given up. One thread makes the call, another may ``cancel`` it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake: Callable[[], None] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """The call ends with Interrupted: at once where it blocks, else before it blocks the next time."""
        with self._lock:
            self.cancelled = True
            if self._wake is not None:
                self._wake()

    def begin(self, wake: Callable[[], None]) -> None:
        """From now on ``cancel`` calls ``wake``, until ``end``. Raises Interrupted where it was called
        before."""
        with self._lock:
            if self.cancelled:
                raise Interrupted
            self._wake = wake

    def end(self) -> None:
        """``wake`` is not called any more."""
        with self._lock:
            self._wake = None


current: ContextVar[CancelToken | None] = ContextVar("rushlight_cancel", default=None)


def check() -> None:
    """Raises Interrupted where this call was given up."""
    token = current.get()
    if token is not None and token.cancelled:
        raise Interrupted
