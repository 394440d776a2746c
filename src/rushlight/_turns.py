"""A worker's turns at the queue: the next task, the result of the last, in as few trips as the tasks allow.

The building block of ready-made loops: ``with Turns(worker) as turns``, ``take`` a task, ``settle`` it,
until ``take`` gives None. Where tasks are short, several are taken at once and their results sent together;
where they are not, it is one trip for a result and the next task. What is in hand and not begun goes back
when the task at hand takes long, and when the worker dies (``_journal``).
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from . import _inputs
from ._member import Verdict
from ._pace import Pace
from ._records import Task
from ._worker import RushWorker
from .errors import StoreError, UnknownKey, WorkerLost

#: Seconds an idle worker waits for a task before it asks again.
_WAIT = 5.0
#: Seconds without a beginning or an end after which a task takes long.
_LONG = 0.005
#: Seconds of work after which the rest of what was taken at once is left to others: it was to take less.
_ENOUGH = 0.01


class Turns:
    """For one thread, like the worker. ``ahead=False``: never more than one task in hand.

    Only a worker process under a supervisor takes more than one: somebody must know, should it die, which of
    them it had begun. For that time a thread looks whether the task at hand takes long.
    """

    def __init__(
        self, worker: RushWorker, *, ahead: bool = True, patience: Callable[[], float] | None = None
    ) -> None:
        """``patience`` tells for how many seconds more a task is waited for; then ``take`` gives None too."""
        self._worker = worker
        self._patience = patience or (lambda: math.inf)
        self._member = worker._member
        self._journal = worker._journal if ahead else None
        self._pace = Pace()
        self._watch = _Watch(self)
        #: Held by whoever changes what follows; the calls that do so included.
        self._lock = threading.Lock()
        self._ahead: deque[Task] = deque()
        self._task: Task | None = None
        self._done: list[Verdict] = []
        #: Large values of results, by task.
        self._large: dict[str, dict[str, bytes]] = {}
        #: Whether the server has given several, and not heard which of them are begun.
        self._open = False
        #: Whether it is not known if a call that was to put tasks back has arrived: it must be made again.
        self._torn = False
        #: How many tasks of this batch are begun, how long each took that has ended, and all of these.
        self._begun = 0
        self._times: list[float] = []
        self._seconds = self._since = 0.0
        #: Changes with every beginning and end.
        self.moves = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.close()
        with self._lock, contextlib.suppress(StoreError, WorkerLost):
            if self._open or self._done:
                self._put_back()

    def take(self) -> Task | None:
        """The next task, running here; None once the worker is to leave. Waits for one, woken by the push."""
        with self._lock:
            if self._torn or (self._seconds > _ENOUGH and self._ahead):
                self._put_back()
            if not self._ahead:
                self._receive(self._next())
            if not self._ahead:
                return None
            self._task = self._ahead.popleft()
            self._begun += 1
            if self._journal is not None and self._open:
                self._journal.begin(self._begun)
            self.moves += 1
        self._since = time.perf_counter()
        return self._task

    def settle(self, kind: str, payload: bytes, spilled: dict[str, bytes]) -> None:
        """The task taken last is finished (``f``) or failed (``x``), encoded. Sent with the next trip."""
        seconds = time.perf_counter() - self._since
        with self._lock:
            self.moves += 1
            task, self._task = self._task, None
            if task is None:
                raise RuntimeError("no task is taken")
            self._times.append(seconds)
            self._seconds += seconds
            self._done.append(Verdict(task.key, self._worker._held.get(task.key, 1), kind, payload))
            if spilled:
                self._large[task.key] = spilled
            if self._journal is None or not self._open:
                return
            if (spilled or not self._journal.add(kind, payload)) and self._ahead:
                self._send()
                self._begin_batch(list(self._ahead))

    # --- trips, under the lock -------------------------------------------------------------------

    def _next(self) -> Sequence[Task]:
        """Sends the results and takes tasks; none where the worker is to leave."""
        worker = self._worker
        times = self._times
        self._pace = self._pace.after(len(times), self._seconds, max(times, default=0.0))
        while not worker.terminated:
            tasks = self._exchange() if self._done else []
            if tasks:
                return tasks
            self._watch.rest()
            if worker.terminated or worker.should_stop_when_idle:
                break
            if (left := self._patience()) <= 0:
                break
            if tasks := worker.pop_tasks(1, timeout=min(_WAIT, left)):
                return tasks
        self._send()
        return []

    def _exchange(self) -> Sequence[Task]:
        done, spilled = self._done, self._spilled_of(self._done)
        n = 1 if self._journal is None else self._pace.size
        try:
            if len(done) == 1 and (n == 1 or self._member.expects_none):
                tasks = self._worker._settle_and_take(done[0], spilled, self._patience())
            else:
                decided, values = self._member.exchange(done, spilled, n)
                self._worker._let_go(done, decided)
                tasks = self._worker._taken(values)
        except UnknownKey:
            # Tasks were reset while they ran.
            self._send()
            return []
        except StoreError as error:
            self._send_each(error)
            return []
        self._forget()
        return tasks

    def _send(self) -> None:
        """Sends the results without taking any task."""
        try:
            self._settle(self._done)
        except StoreError as error:
            self._send_each(error)
        self._forget()

    def _send_each(self, error: StoreError) -> None:
        """The server has no room for one of the results, or for none; there may be some for the reason."""
        if error.transient:
            raise error
        alone = len(self._done) == 1
        for verdict in self._done:
            try:
                if alone:
                    raise error
                self._settle([verdict])
            except StoreError as own:
                self._give_up(verdict, own)
        self._forget()

    def _give_up(self, verdict: Verdict, error: StoreError) -> None:
        if error.transient or verdict.kind == "x":
            raise error
        said = self._worker._store.encode_condition(_inputs.condition(error))
        self._settle([Verdict(verdict.key, verdict.attempt, "x", said)])

    def _spilled_of(self, verdicts: list[Verdict]) -> dict[str, bytes]:
        found = [self._large.get(verdict.key, {}) for verdict in verdicts] if self._large else []
        return {digest: value for spilled in found for digest, value in spilled.items()}

    def _settle(self, verdicts: list[Verdict]) -> None:
        with contextlib.suppress(UnknownKey):
            self._worker._settle(verdicts, self._spilled_of([v for v in verdicts if v.kind == "f"]))

    def _put_back(self) -> None:
        """Sends the results, and puts what is not begun back into the queue."""
        self._torn = True
        back = [task.key for task in self._ahead]
        at = (self._task.key, self._task.attempt) if self._task is not None else None
        try:
            decided = self._member.hand_back(at, back, self._done, self._spilled_of(self._done))
        except UnknownKey:
            decided = [False] * len(self._done)
        except StoreError as error:
            self._send_each(error)
            decided = self._member.hand_back(at, back, [], {})
        self._torn = self._open = False
        self._worker._let_go(self._done, decided)
        for key in back:
            self._worker._held.pop(key, None)
        self._ahead.clear()
        self._forget()

    def _receive(self, tasks: Sequence[Task]) -> None:
        """These are in hand now."""
        self._ahead = deque(tasks)
        self._times, self._seconds = [], 0.0
        self._open = len(tasks) > 1
        if self._open:
            self._begin_batch(tasks)
            self._watch.begin()
        else:
            self._watch.rest()

    def _begin_batch(self, tasks: Sequence[Task]) -> None:
        self._begun = 0
        if self._journal is not None:
            self._journal.open(self._member.claimed, [(task.key, task.attempt) for task in tasks])

    def _forget(self) -> None:
        """The results are with the server."""
        self._done, self._large = [], {}
        if self._journal is not None:
            self._journal.clear()

    # --- from the thread that watches ------------------------------------------------------------

    def takes_long(self, moves: int) -> None:
        """Nothing has begun or ended since ``moves``: what waits behind the task at hand is for others."""
        with self._lock:
            if moves == self.moves and self._task is not None and self._open:
                # What cannot be said now, the worker says before it goes on.
                with contextlib.suppress(StoreError, WorkerLost):
                    self._put_back()


class _Watch:
    """Looks every few milliseconds whether a worker moves on, while several tasks are in its hands."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._thread: threading.Thread | None = None
        self._on, self._closed = threading.Event(), threading.Event()

    def begin(self) -> None:
        if not self._on.is_set():
            self._on.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="rushlight-turns", daemon=True)
                self._thread.start()

    def rest(self) -> None:
        if self._on.is_set():
            self._on.clear()

    def close(self) -> None:
        self._closed.set()
        self._on.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while self._on.wait() and not self._closed.is_set():
            moves = self._turns.moves
            if not self._closed.wait(_LONG) and moves == self._turns.moves:
                self.rest()
                self._turns.takes_long(moves)
