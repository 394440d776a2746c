"""Futures of calls, and the register of those that wait.

A future is a ``concurrent.futures.Future`` in every respect. It costs little while nobody waits for it, and
nothing once nobody holds it.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import Any, Final, NoReturn, Protocol

from ._names import new_key
from ._store_feed import Leaving

#: Calls that are taken back in one go.
_AT_ONCE: Final = 1000
#: Guards the making of conditions, and the end of futures that have none.
_birth = threading.Lock()


def _bear_anew() -> None:
    global _birth  # noqa: PLW0603 - a thread that is not here may hold it
    _birth = threading.Lock()


os.register_at_fork(after_in_child=_bear_anew)


class Owner(Protocol):
    """What a future asks of the controller that made it."""

    def _cancel_calls(self, keys: Sequence[str]) -> Sequence[str]:
        """Takes calls back, queued or running; those that had not ended."""

    def _is_running(self, key: str) -> bool:
        """True while a worker is at the call."""

    def _read(
        self, key: str, error: BaseException | None, leaving: Leaving | None = None, *, final: bool
    ) -> None:
        """The result was read from its future, which is gone; ``final``: nobody is to collect it.
        ``leaving``: what is known of its task, if that is to be removed."""


class _Nobody:
    """The owner of futures in a forked process."""

    def _cancel_calls(self, _keys: Sequence[str]) -> Sequence[str]:
        return ()

    def _is_running(self, _key: str) -> bool:
        return False

    def _read(
        self, key: str, error: BaseException | None, leaving: Leaving | None = None, *, final: bool
    ) -> None:
        """Is none of this process's."""


class Reader(Protocol):
    """Who finds the ends of calls."""

    def read_for(self, future: CallFuture, deadline: float | None) -> None:
        """Looks for the end of a call in the thread that wants it, where nobody looks already; may return
        before it is there."""

    def heed(self) -> None:
        """Somebody waits for a call, or asks whether it has ended, without looking for its end himself."""


class _LateCondition:
    """Makes a future's condition when somebody first needs it."""

    def __get__(self, future: Any, kind: type | None = None) -> threading.Condition:
        with _birth:
            found: threading.Condition = future.__dict__.setdefault("_condition", threading.Condition())
        if future._state == PENDING:
            future._register.reader.heed()
        return found


class CallFuture(Future[Any]):
    """The future of one call. ``name``: the task's key. ``cancel`` also stops a call that runs: its worker's
    process is replaced."""

    _condition = _LateCondition()

    def __init__(self, name: str, owner: Owner, register: Register) -> None:
        # Not the constructor of the base class, which makes the condition.
        self._state = PENDING
        self._result = None
        self._exception = None
        self._waiters = []
        self._done_callbacks: list[Callable[[Future[Any]], object]] = []
        self.name = name
        self._owner = owner
        self._register = register
        self._seen = False
        self._mapped = False
        self.leaving: Leaving | None = None
        #: Wakes the thread that reads for this future alone.
        self.wake: Callable[[], None] | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("the future of a call cannot be pickled: pass on its result()")

    @property
    def pending(self) -> bool:
        """True until it has ended, as far as it was told."""
        return self._state == PENDING

    @property
    def watched(self) -> bool:
        """True where anybody waits for it, or has asked for its state, other than by reading for it."""
        return "_condition" in self.__dict__

    def cancel(self) -> bool:
        """Takes the call back; True where it will not, or not any more, be made."""
        if self.done():
            return self.cancelled()
        if not self._owner._cancel_calls([self.name]):
            return self.cancelled()
        self._end_cancelled()
        return True

    def running(self) -> bool:
        """True while a worker is at the call, as far as it can be asked. One round trip."""
        return self._state == PENDING and self._owner._is_running(self.name)

    def result(self, timeout: float | None = None) -> Any:
        """The value, or the error of the call, raised."""
        try:
            left = self._look(timeout)
            if self._state == FINISHED and self._exception is None:
                return self._result
            value = super().result(left)
        finally:
            self._mark()
        if self._exception is not None:
            # One that counts as false, of which Python before 3.14 takes no notice.
            raise self._exception
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error of the call; None where it returned."""
        try:
            return super().exception(self._look(timeout))
        finally:
            self._mark()

    def _look(self, timeout: float | None) -> float | None:
        """Waits by reading for the end where that is quicker; what is left of the time."""
        if self._state != PENDING:
            return timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        self._register.reader.read_for(self, deadline)
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Calls ``fn(future)`` once the call has ended, also if nobody holds the future then."""
        self._register.hold(self)
        super().add_done_callback(fn)
        if self.done():
            self._register.let_go(self)

    def _mark(self) -> None:
        if self._state == FINISHED:
            self._seen = True

    def __del__(self) -> None:
        if self._state == PENDING:
            self._register.drop(self.name)
        elif self._seen:
            self._owner._read(self.name, self._exception, self.leaving, final=self._mapped)

    # --- ending, by the resolver ------------------------------------------------------------------

    def _end(self, value: Any, error: BaseException | None) -> None:
        """Sets the result, unless the future has ended already."""
        with _birth:
            watched = self.watched
            if not watched and self._state == PENDING:
                self._result, self._exception, self._state = value, error, FINISHED
        if not watched:
            self._wake()
            return
        with self._condition:
            if self._state != PENDING:
                return
            self._result, self._exception, self._state = value, error, FINISHED
            for waiter in self._waiters:
                waiter.add_exception(self) if error is not None else waiter.add_result(self)
            self._condition.notify_all()
        self._wake()
        self._invoke_callbacks()  # type: ignore[attr-defined]

    def _wake(self) -> None:
        wake = self.wake
        if wake is not None:
            wake()

    def _end_cancelled(self) -> None:
        if super().cancel():
            self._wake()
            with self._condition:
                if self._state != CANCELLED_AND_NOTIFIED:
                    self.set_running_or_notify_cancel()


def cancel_all(futures: Iterable[Future[Any]]) -> None:
    """``cancel`` for each; those of one controller a thousand at a time."""
    by_owner: dict[int, list[CallFuture]] = {}
    for future in futures:
        if not isinstance(future, CallFuture):
            future.cancel()
        elif not future.done():
            by_owner.setdefault(id(future._owner), []).append(future)
    for ours in by_owner.values():
        for at in range(0, len(ours), _AT_ONCE):
            named = {future.name: future for future in ours[at : at + _AT_ONCE]}
            for key in ours[0]._owner._cancel_calls(list(named)):
                named[key]._end_cancelled()


class Register:
    """The futures that wait for their calls, by key; those nobody holds any more are not among them."""

    reader: Reader

    def __init__(self) -> None:
        self._waiting: dict[str, weakref.ref[CallFuture]] = {}
        self._held: dict[str, CallFuture] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, future: CallFuture) -> None:
        self._waiting[future.name] = weakref.ref(future)

    def keys(self) -> list[str]:
        """The keys of all of them."""
        return list(self._waiting)

    def hold(self, future: CallFuture) -> None:
        """Keeps a future alive until it ends: it has callbacks."""
        if future.name in self._waiting:
            self._held[future.name] = future

    def let_go(self, future: CallFuture) -> None:
        """It has ended."""
        self._held.pop(future.name, None)

    def drop(self, key: str) -> None:
        """A future that nobody holds any more."""
        self._waiting.pop(key, None)

    def take(self, key: str) -> CallFuture | None:
        """The future of a call that has ended, if anybody waits for it."""
        found = self._waiting.pop(key, None)
        if found is None:
            return None
        return self._held.pop(key, None) or found()

    def take_all(self) -> list[CallFuture]:
        """Everybody who waits."""
        return [future for key in list(self._waiting) if (future := self.take(key)) is not None]

    def disown(self, error: Exception) -> None:
        """Ends all futures, in a forked process: without a lock, as there is no other thread."""
        for future in [found for one in self._waiting.values() if (found := one()) is not None]:
            future.__dict__.pop("_condition", None)
            future._owner = _Nobody()
            future._exception, future._state = error, FINISHED
        self._waiting, self._held = {}, {}

    def get(self, key: str) -> CallFuture | None:
        found = self._waiting.get(key)
        return None if found is None else found()


def new_name() -> str:
    """The name of a call that was given none."""
    return new_key()
