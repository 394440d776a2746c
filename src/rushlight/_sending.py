"""Calls on their way to the server: sent one by one while they are rare, many at once when they come fast.

Owns the order of submission and the bounds of what waits here. Knows nothing of futures.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ._call_options import NIL
from ._store import Store
from ._store_tasks import Encoded

#: The most that waits here before a submitter is held up, in calls and bytes.
_MOST_CALLS, _MOST_BYTES = 20_000, 64 << 20
#: What one push carries.
_PUSH_CALLS, _PUSH_BYTES = 2_000, 4 << 20
#: Seconds without a submission after which the next one is sent by its own thread, at once, also where others
#: are out.
_QUIET = 0.0005


class Outgoing(NamedTuple):
    """A call, encoded."""

    key: str
    head: bytes
    spilled: dict[str, bytes]
    worker: str | None = None
    #: The key was made for this call, so that nobody has sent it before.
    fresh: bool = False

    @property
    def size(self) -> int:
        """Bytes, with the large values that are stored apart."""
        return len(self.head) + (sum(map(len, self.spilled.values())) if self.spilled else 0)


class Sender:
    """Sends calls in the order they are given. ``on_failure(keys, error)`` hears of those that could not
    be."""

    def __init__(
        self,
        store: Store,
        on_failure: Callable[[Sequence[str], Exception], None],
        sending: Callable[[], str] = str,
    ) -> None:
        """``sending``: as in ``Encoded``."""
        self._store = store
        self._on_failure = on_failure
        self._sending = sending
        self._lock = threading.Lock()
        #: Wake those who wait until calls have gone, and the thread that sends them.
        self._changed, self._filled = (threading.Condition(self._lock) for _ in range(2))
        self._waiting: deque[Outgoing] = deque()
        self._bytes = 0
        self._busy = False
        self._closed = False
        self._last = 0.0
        self._thread: threading.Thread | None = None

    def send(self, call: Outgoing, *, alone: bool = False) -> None:
        """Sends a call, now or very soon; waits while too many wait already. ``alone``: no other is out, so
        that none is likely to follow before this one's end."""
        with self._lock:
            now = time.monotonic()
            quiet = not self._waiting and not self._busy and (alone or now - self._last > _QUIET)
            self._last = now
            if quiet:
                self._busy = True
            else:
                self._put(call)
                return
        try:
            self._push([call])
        finally:
            with self._lock:
                self._busy = False
                self._last = time.monotonic()
                self._changed.notify_all()
                if self._waiting:
                    self._filled.notify()

    def _put(self, call: Outgoing) -> None:
        while len(self._waiting) >= _MOST_CALLS or self._bytes >= _MOST_BYTES:
            self._changed.wait()
        self._waiting.append(call)
        self._bytes += call.size
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rushlight-sender", daemon=True)
            self._thread.start()
        elif len(self._waiting) == 1:
            self._filled.notify()

    def flush(self) -> None:
        """Returns once all that was given before has been sent."""
        with self._lock:
            while self._waiting or self._busy:
                self._changed.wait()

    def __len__(self) -> int:
        return len(self._waiting)

    def close(self) -> None:
        """Sends what waits, then ends."""
        self.flush()
        with self._lock:
            self._closed = True
            self._filled.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
        self._store.close()

    def _run(self) -> None:
        while True:
            with self._lock:
                while (not self._waiting or self._busy) and not self._closed:
                    self._filled.wait()
                if not self._waiting:
                    return
                batch: list[Outgoing] = []
                size = 0
                while self._waiting and len(batch) < _PUSH_CALLS and size < _PUSH_BYTES:
                    batch.append(self._waiting.popleft())
                    size += batch[-1].size
                self._bytes -= size
                self._busy = True
                self._changed.notify_all()
            self._push(batch)
            with self._lock:
                self._busy = False
                self._changed.notify_all()

    def _push(self, batch: list[Outgoing]) -> None:
        try:
            one, said = batch[0], self._sending()
            if len(batch) == 1 and one.head[:1] == NIL and not one.spilled:
                self._store.push_one(one.key, one.head, said or ("new" if one.fresh else ""))
            else:
                self._push_many(batch, numbered=bool(said))
        except Exception as error:
            self._on_failure([call.key for call in batch], error)

    def _push_many(self, batch: list[Outgoing], *, numbered: bool) -> None:
        spilled = {digest: data for call in batch for digest, data in call.spilled.items()}
        workers = tuple({call.worker for call in batch if call.worker is not None})
        keys, heads = [call.key for call in batch], [call.head for call in batch]
        plain = all(head[:1] == NIL for head in heads)
        fresh = not numbered and all(call.fresh for call in batch)
        self._store.push(Encoded(keys, heads, spilled, workers, plain, self._sending, fresh))
