"""The feed of ended calls: one thread reads it from a cursor of its own and resolves the futures that wait.

Sleeps while nobody waits for anything. Takes nothing from anybody: collecting is ``_collecting``'s.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from ._cancel import CancelToken, Interrupted, current
from ._clearing import FORGETS, Presence, own_fields
from ._futures import CallFuture, Register
from ._results import Ends, gone, status_of
from ._store import Store
from ._store_calls import Ended, Leaving, Place
from .errors import StoreUnavailable

_log = logging.getLogger("rushlight")
#: Seconds a wait blocks at most before leases are looked at again.
_BLOCK = 5.0
#: With more calls than this under way, a moment's pause lets several results come in one trip.
_MANY, _PAUSE = 64, 0.001
#: Seconds between two times that chores are done.
_CHORES = 1.0
#: Seconds before the second try where the server cannot be reached, and at most.
_RETRY, _LONGEST_RETRY = 0.1, 5.0


class Chores(Protocol):
    """What is to be done now and then in the background."""

    def due(self) -> bool:
        """True where there is something."""

    def do(self) -> None:
        """Does it."""

    def leave(self, tasks: Iterable[Leaving]) -> None:
        """Nobody collects these any more."""


class Feed:
    """The ends of calls as they happen, and how many are still to come."""

    def __init__(
        self,
        store: Store,
        register: Register,
        ends: Ends,
        chores: Chores,
        pass_on: Callable[[Sequence[Any]], bool],
        presence: Presence,
    ) -> None:
        self._store = store
        self._presence = presence
        self._forgets = presence.token.startswith(FORGETS)
        self._register = register
        self._ends = ends
        self._chores = chores
        self._pass_on = pass_on
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._token = CancelToken()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._watchers = 0
        self._listeners: list[Callable[[], object]] = []
        self._epoch = ""
        self._finished = self._failures = 0
        #: Calls made before this feed began: the last one's number, and how many had not ended.
        self._before = 0
        self._adopted = 0
        #: The server's time then, microseconds.
        self.began = 0
        #: Calls sent by this controller that have not ended: named ones, and how many others.
        self.prefix = ""
        self._named: set[str] = set()
        self._unnamed = 0
        #: Bytes of these, and of each, where somebody may be held up by them.
        self.weighs = False
        self._bytes = 0
        self._sizes: dict[str, int] = {}
        self._sealed = False

    # --- what is under way ------------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        """Calls that have not ended: those sent here, and those that were there when it began."""
        return self._unnamed + len(self._named) + self._adopted

    @property
    def own(self) -> int:
        """Of these, those sent here."""
        return self._unnamed + len(self._named)

    def seal(self) -> None:
        """From now on no call is admitted."""
        with self._lock:
            self._sealed = True

    def admit(self, key: str, size: int) -> None:
        """A call is about to be sent, of so many bytes. Raises RuntimeError once it may not be."""
        with self._lock:
            if self._sealed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self.weighs:
                self._sizes[key] = size
                self._bytes += size
            self._count(key)

    def expect(self, key: str) -> None:
        """A call goes on that was counted off."""
        with self._lock:
            self._count(key)

    def _count(self, key: str) -> None:
        if key.startswith(self.prefix):
            self._unnamed += 1
        else:
            self._named.add(key)
        if self._thread is None:
            self._start()
        elif self._unnamed + len(self._named) == 1:
            self._changed.notify_all()

    def word(self) -> str:
        """How far this has read, for those who remove what was collected: results that its futures wait for
        are not to go."""
        pushed = self._presence.pushes
        with self._lock:
            if self.outstanding or len(self._register):
                return f"{self._finished} {self._failures}"
        # A call that was counted since will be in a later push.
        return f"idle {pushed}"

    def has_read(self, place: Place) -> bool:
        """Whether this has come as far."""
        return self._finished >= place.finished and self._failures >= place.failures

    def nothing_left(self) -> None:
        """Nothing is under way, and what was counted and not seen to end has ended all the same."""
        with self._changed:
            if not len(self._register):
                self._unnamed = self._adopted = 0
                self._named.clear()
            self._tell()

    def has_room(self, calls: int | None, size: int | None) -> bool:
        """Whether fewer calls are under way than that, and of fewer bytes."""
        return (calls is None or self.own < calls) and (size is None or self._bytes < size)

    def nudge(self) -> None:
        """There may be chores."""
        with self._changed:
            if self._thread is None:
                self._start()
            self._changed.notify_all()

    def forget(self, key: str, seq: int | None = None) -> None:
        """A call that was not sent, or whose end was told by other means."""
        with self._changed:
            self._count_off(key, seq)
            self._tell()

    def attach(self) -> None:
        """Takes the place from which on to read, and counts what is under way. Once, before all else."""
        self._store.write(self._store.scripts.keep_spec)
        place = self._store.place()
        self._epoch, self._finished, self._failures = place.epoch, place.finished, place.failures
        self._before, self._adopted, self.began = place.created, place.unended, place.now

    def wait(self, timeout: float, *, count: int | None = None) -> None:
        """Waits until something has ended since ``count`` was ``ended_count``, or the time is over."""
        with self._changed:
            if self._thread is None:
                self._start()
            self._watchers += 1
            self._changed.notify_all()
            try:
                if count is None or count == self.ended_count:
                    self._changed.wait(timeout)
            finally:
                self._watchers -= 1

    @contextmanager
    def telling(self, listener: Callable[[], object]) -> Iterator[None]:
        """For the block, calls ``listener`` at every change, from the feed's thread and others: who waits for
        several feeds waits elsewhere."""
        with self._changed:
            if self._thread is None:
                self._start()
            self._watchers += 1
            self._listeners.append(listener)
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._watchers -= 1
                self._listeners.remove(listener)

    def _tell(self) -> None:
        """Something has changed; called under the lock."""
        self._changed.notify_all()
        for listener in self._listeners:
            listener()

    @property
    def ended_count(self) -> int:
        """Grows with every end that was read."""
        return self._finished + self._failures

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        self._token.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._store.close()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="rushlight-feed", daemon=True)
        self._thread.start()

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        current.set(self._token)
        pause = _RETRY
        while True:
            with self._changed:
                while not (self._needed() or self._closed):
                    if not self._changed.wait(_CHORES) and self._chores.due():
                        break
                if self._closed:
                    return
            try:
                if self._chores.due():
                    self._chores.do()
                if self._needed():
                    self._turn()
                pause = _RETRY
            except Interrupted:
                return
            except StoreUnavailable as error:
                if pause == _RETRY:
                    _log.warning("results cannot be read for now: %s", error)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY)
            except BaseException as error:
                # What cannot be read now cannot be read later, and nobody is to wait for it in vain.
                _log.exception("results of network %r cannot be read", self._store.network)
                self._give_up(error)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY)

    def _needed(self) -> bool:
        return bool(self.outstanding or self._watchers or len(self._register))

    def _turn(self) -> None:
        ended = self._store.ended(self._finished, self._failures, _BLOCK + 2.0)
        standing = ended.standing
        if standing.epoch != self._epoch:
            self._reset(standing.epoch)
            return
        if standing.overdue:
            self._store.reap()
        if (ended.next_finished, ended.next_failures) != (self._finished, self._failures):
            self._take(ended)
        elif not standing.overdue:
            self._store.wait_event(standing.event, min(_BLOCK, standing.next_due))
            if self.outstanding > _MANY:
                time.sleep(_PAUSE)

    def _take(self, ended: Ended) -> None:
        for row in ended.finished:
            future = self._register.take(row[3])
            if future is not None:
                if self._forgets and (fields := own_fields(row)):
                    future.leaving = Leaving(row[3], "", fields)
                try:
                    self._end(future, self._ends.value(row), None)
                except StoreUnavailable:
                    self._register.add(future)
                    raise
                except Exception as error:
                    self._end(future, None, error)
        moved: set[str] = set()
        for row, condition in zip(ended.failed, ended.conditions, strict=True):
            task = Leaving(row[3], ended.failures[row[3]], own_fields(row))
            if status_of(condition) == "crash" and self._pass_on(row):
                moved.add(row[3])
                self._chores.leave([task])
                continue
            future = self._register.take(row[3])
            if future is not None:
                future.leaving = task
                if status_of(condition) == "cancel":
                    self._end(future, None, None, cancelled=True)
                else:
                    self._end(future, None, self._ends.error(row, condition))
        with self._changed:
            for row in ended.finished:
                self._count_off(row[3], row[7])
            for row in ended.failed:
                if row[3] not in moved:
                    self._count_off(row[3], row[7])
            self._finished, self._failures = ended.next_finished, ended.next_failures
            self._tell()

    def _end(
        self, future: CallFuture, value: Any, error: BaseException | None, *, cancelled: bool = False
    ) -> None:
        """Ends a future. Callbacks may not end this thread, whatever they raise: everybody waits for it."""
        try:
            if cancelled:
                future._end_cancelled()
            else:
                future._end(value, error)
        except BaseException:
            _log.exception("a callback of call %r has failed", future.name)

    def _count_off(self, key: str, seq: int | None = None) -> None:
        if self._sizes:
            self._bytes -= self._sizes.pop(key, 0)
        if key.startswith(self.prefix):
            self._unnamed = max(0, self._unnamed - 1)
        elif key in self._named:
            self._named.discard(key)
        elif seq is not None and seq <= self._before:
            self._adopted = max(0, self._adopted - 1)

    def _reset(self, epoch: str) -> None:
        """The network was made anew. What was under way is not any more; a network that has only just begun
        had nothing."""
        if self._epoch:
            self._give_up(gone(self._store.network))
        self._epoch, self._finished, self._failures = epoch, 0, 0
        with self._changed:
            self._tell()

    def _give_up(self, error: BaseException) -> None:
        """Nothing that is under way will be heard of."""
        with self._changed:
            self._unnamed = self._adopted = self._before = self._bytes = 0
            self._sizes.clear()
            self._named.clear()
            self._tell()
        for future in self._register.take_all():
            future._end(None, error)
