"""The feed of ended calls, read from a cursor of its own, and the futures that wait for them.

One reads at a time. A single call that is out is read for by the thread that wants its result, which saves
waking another twice; all else by a thread in the background, which sleeps while nobody waits for anything.
Takes nothing from anybody: collecting is ``_collecting``'s.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ._cancel import CancelToken, Interrupted, current
from ._clearing import FORGETS, Presence, own_fields
from ._collecting import Collector
from ._futures import CallFuture, Register
from ._listening import BLOCK, Listener
from ._outstanding import Outstanding
from ._results import Ends, gone, status_of
from ._store import Store
from ._store_feed import Ended, Leaving, Place
from .errors import StoreUnavailable

_log = logging.getLogger("rushlight")
#: With more calls than this under way, a moment's pause lets several results come in one trip.
_MANY, _PAUSE = 64, 0.001
#: Seconds between two times that chores are done, and after which a call that nobody asks for is read for.
_CHORES = 1.0
#: Seconds before the second try where the server cannot be reached, and at most.
_RETRY, _LONGEST_RETRY = 0.1, 5.0


class Feed:
    """The ends of calls as they happen, and how many are still to come."""

    def __init__(
        self,
        store: Store,
        register: Register,
        ends: Ends,
        chores: Collector,
        pass_on: Callable[[Sequence[Any]], bool],
        presence: Presence,
        prefix: str,
    ) -> None:
        """``prefix``: how the keys of calls begin that were given no name."""
        self._store = store
        self._listener = Listener(store)
        self._presence = presence
        self._forgets = presence.token.startswith(FORGETS)
        self._register = register
        register.reader = self
        self._ends = ends
        self._chores = chores
        self._pass_on = pass_on
        self._lock = threading.Lock()
        #: Wake those who wait for ends, and the background.
        self._changed, self._wanted = (threading.Condition(self._lock) for _ in range(2))
        self._token = CancelToken()
        self._thread: threading.Thread | None = None
        self._closed = self._sealed = False
        #: Whether the background thread reads, what ends the wait of another thread that does, and whether
        #: the former is to do it also for a single call.
        self._reading = False
        self._leading: CancelToken | None = None
        self._heeded = False
        self._watchers = 0
        self._listeners: list[Callable[[], object]] = []
        self._epoch = ""
        self._finished = self._failures = 0
        #: The server's time when it began, microseconds.
        self.began = 0
        self.out = Outstanding(prefix)

    # --- what is under way ------------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        """Calls that have not ended: those sent here, and those that were there when it began."""
        return len(self.out)

    @property
    def own(self) -> int:
        """Those sent here."""
        return self.out.own

    def seal(self) -> None:
        """From now on no call is admitted."""
        with self._lock:
            self._sealed = True

    def admit(self, key: str, size: int) -> None:
        """A call is about to be sent, of so many bytes. Raises RuntimeError once it may not be."""
        with self._lock:
            if self._sealed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._count(key, size)

    def expect(self, key: str) -> None:
        """A call goes on that was counted off."""
        with self._lock:
            self._count(key)

    def _count(self, key: str, size: int = 0) -> None:
        self.out.add(key, size)
        if self._thread is None:
            self._start()
        elif not self._reading and self._needed():
            self._wanted.notify()

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
                self.out.clear()
            self._tell()

    def has_room(self, calls: int | None, size: int | None) -> bool:
        """Whether fewer calls are under way than that, and of fewer bytes."""
        return self.out.has_room(calls, size)

    def heed(self) -> None:
        """Somebody wants to hear of the one call that may be out, and does not read himself."""
        if not self._heeded:
            with self._changed:
                self._heeded = True
                self._wanted.notify()

    def nudge(self) -> None:
        """There may be chores."""
        with self._changed:
            if self._thread is None:
                self._start()
            self._wanted.notify()

    def forget(self, key: str, seq: int | None = None) -> None:
        """A call that was not sent, or whose end was told by other means."""
        with self._changed:
            self.out.end(key, seq)
            self._tell()

    def attach(self) -> None:
        """Takes the place from which on to read, and counts what is out. Once, before all else."""
        self._store.write(self._store.scripts.keep_spec)
        place = self._store.place()
        self._epoch, self._finished, self._failures = place.epoch, place.finished, place.failures
        self.out.find(place.unended, place.created)
        self.began = place.now

    def wait(self, timeout: float, *, count: int | None = None) -> None:
        """Waits until something has ended since ``count`` was ``ended_count``, or the time is over."""
        with self._changed:
            if self._thread is None:
                self._start()
            self._watchers += 1
            self._wanted.notify()
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
            self._wanted.notify()
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
            self._wanted.notify()
            thread, leading = self._thread, self._leading
        self._token.cancel()
        if leading is not None:
            leading.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._store.close()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="rushlight-feed", daemon=True)
        self._thread.start()

    # --- the thread that wants a result -----------------------------------------------------------

    def read_for(self, future: CallFuture, deadline: float | None) -> None:
        """Reads until this future has ended or the time is over, where nobody else reads and no more than its
        call is out. Returns early where that changes, or others are concerned."""
        token = CancelToken()
        leads, before = False, current.get()
        try:
            with self._changed:
                others = self._reading or self._needed() or self._leading is not None
                if others or self.out.weighs or self._closed:
                    return
                leads, self._leading = True, token
            future.wake = token.cancel
            current.set(token)
            # Where the future ends in another way; or something is wrong, which the background is to see.
            with suppress(Interrupted, Exception):
                while future.pending and self._read_on(deadline):
                    continue
        finally:
            if leads:
                current.set(before)
                future.wake = None
                with self._changed:
                    self._leading = None
                    if self._needed():
                        self._wanted.notify()

    def _read_on(self, deadline: float | None) -> bool:
        """One turn of who wants a result: for ends that concern nobody else. False where it is to stop."""
        left = BLOCK if deadline is None else min(BLOCK, deadline - time.monotonic())
        if left <= 0:
            return False
        ended = self._listener.look(self._finished, self._failures, left)
        if simple := self._is_simple(ended):
            self._take(ended)
        return simple

    def _is_simple(self, ended: Ended) -> bool:
        """Whether nobody else is to hear of it, and there is nothing to be seen to: a thread that may be
        interrupted anywhere does it in steps that can be done again."""
        if ended.epoch != self._epoch or ended.overdue or ended.next_failures != self._failures:
            return False
        futures = map(self._register.get, (row[3] for row in ended.finished))
        return not any(future is not None and future.watched for future in futures)

    # --- the background ---------------------------------------------------------------------------

    def _run(self) -> None:
        current.set(self._token)
        pause = _RETRY
        while True:
            with self._changed:
                while not (self._needed() or self._closed):
                    self._reading = False
                    if not self._wanted.wait(_CHORES):
                        # Nobody has asked for what is out, and may all the same look whether it is there.
                        self._heeded = self._heeded or (self._leading is None and self._under_way() > 0)
                        if self._chores.due():
                            break
                if self._closed:
                    return
                if self._needed() and not self._reading:
                    self._reading = True
            try:
                if self._chores.due():
                    self._chores.do()
                if self._reading:
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

    def _under_way(self) -> int:
        return max(self.outstanding, len(self._register))

    def _needed(self) -> bool:
        """Whether the background is to read."""
        if self._leading is not None:
            return False
        n = self._under_way()
        if not n:
            self._heeded = False
        return bool(self._watchers or n > 1 or self._heeded)

    def _turn(self) -> None:
        paused = self.outstanding > _MANY and self._listener.pause(_PAUSE)
        ended = self._listener.look(self._finished, self._failures, 0.0 if paused else BLOCK)
        if ended.epoch != self._epoch:
            self._reset(ended.epoch)
            return
        if ended.overdue:
            self._store.reap()
        if (ended.next_finished, ended.next_failures) != (self._finished, self._failures):
            self._take(ended)

    def _take(self, ended: Ended) -> None:
        """Tells the futures, then moves on. Where it is broken off it can be done again."""
        for row in ended.finished:
            future = self._register.get(row[3])
            if future is not None:
                if self._forgets and (fields := own_fields(row)):
                    future.leaving = Leaving(row[3], "", fields)
                try:
                    self._end(future, self._ends.value(row), None)
                except StoreUnavailable:
                    raise
                except Exception as error:
                    self._end(future, None, error)
                self._register.take(row[3])
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
        rows = [*ended.finished, *(row for row in ended.failed if row[3] not in moved)]
        with self._changed:
            left = self.out.after([(row[3], row[7]) for row in rows])
            finished, failures = ended.next_finished, ended.next_failures
            # Attributes alone: no interrupt comes between.
            self.out.left, self._finished, self._failures = left, finished, failures
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
            if self._leading is not None:
                # It has no callbacks: this is an interrupt of who reads for it.
                raise
            _log.exception("a callback of call %r has failed", future.name)

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
            self.out.clear(found=True)
            self._tell()
        for future in self._register.take_all():
            future._end(None, error)
