"""Reading the tasks of a network: what managers and workers have in common.

Keeps what it has read: finished tasks never change, so each is fetched once per object. Never writes.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import repeat
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from . import _inputs
from ._blocks import Stated, gc_paused
from ._changes import Changes
from ._counting import Counting
from ._records import Task, TaskState
from ._store import Store
from ._store_finished import Restarted, Rows, View
from ._store_reads import Standing
from ._store_tasks import unknown_keys
from ._tables import FinishedTable, StatedRow, build_table, check_request
from ._waits import BLOCK, FINISHED, Waits, left_of


class TaskReader(Waits, Counting):
    """Tables, states, counts and waits. Thread-safe; every table is from one instant."""

    _store: Store

    if TYPE_CHECKING:

        def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def network(self) -> str:
        """The network's name."""
        return self._store.network

    def _begin_reading(self, store: Store) -> None:
        self._store = store
        self._begin_cache()
        self._read_epoch = ""
        self._seen = 0
        self._streamed = (0, 0)
        #: Tasks read for a stream and not given away yet: the next stream begins with them.
        self._stream_ready: deque[Task] = deque()
        _readers.add(self)

    def _begin_cache(self) -> None:
        self._reading = threading.RLock()
        self._finished = FinishedTable(resolve=self._store.load_spilled)

    def _after_fork(self) -> None:
        """In a forked child: a thread that is not here may have held the lock, in the middle of taking tasks
        in."""
        if self._reading.acquire(blocking=False):
            self._reading.release()
        else:
            self._begin_cache()

    # --- tables ---------------------------------------------------------------------------------

    def fetch_tasks(
        self, states: Iterable[str] | None = None, *, fields: Sequence[str] | None = None, as_: str = "polars"
    ) -> Any:
        """All tasks, or those in the given states, at one instant, with the column ``state``.

        Queued tasks in the order they will be taken, running by start, finished in completion order,
        failed by time. One round trip; of the finished only those new to this object are transferred.
        """
        wanted = _inputs.state_list(states)
        check_request(as_, fields)
        with self._reading:
            view = self._look(wanted, as_)
            others = _stated(view)
            if TaskState.FINISHED not in wanted:
                return build_table(
                    others,
                    as_,
                    fields,
                    resolve=self._store.load_spilled,
                    state_column=True,
                    conditions=TaskState.FAILED in wanted,
                )
            return self._finished.table_with(others, as_, fields, conditions=TaskState.FAILED in wanted)

    def fetch_queued_tasks(self, *, fields: Sequence[str] | None = None, as_: str = "polars") -> Any:
        """The queued tasks, in the order they will be taken; last those that wait: for one worker, for a
        time, for other tasks."""
        return self._fetch_one(TaskState.QUEUED, fields, as_)

    def fetch_running_tasks(self, *, fields: Sequence[str] | None = None, as_: str = "polars") -> Any:
        """The running tasks, by their start."""
        return self._fetch_one(TaskState.RUNNING, fields, as_)

    def fetch_failed_tasks(self, *, fields: Sequence[str] | None = None, as_: str = "polars") -> Any:
        """The failed tasks, by the time of their failure, with ``condition``, ``condition_type``,
        ``traceback``."""
        return self._fetch_one(TaskState.FAILED, fields, as_)

    def fetch_finished_tasks(self, *, fields: Sequence[str] | None = None, as_: str = "polars") -> Any:
        """The finished tasks in completion order, the same for every reader."""
        check_request(as_, fields)
        with self._reading:
            self._look(FINISHED, as_)
            return self._finished.table(as_, fields)

    def fetch_new_tasks(
        self, timeout: float = 0.0, *, fields: Sequence[str] | None = None, as_: str = "polars"
    ) -> Any:
        """The tasks finished since this object's last ``fetch_new_tasks``; waits up to ``timeout`` seconds
        for the first (None: without end), woken by the event. An empty table when none came."""
        check_request(as_, fields)
        limit = _inputs.seconds(timeout, "timeout", none=True)
        deadline = None if limit is None else time.monotonic() + limit
        view: View | None = None
        while True:
            with self._reading:
                self._look(FINISHED, as_, view)
                start = self._seen
                left = left_of(deadline)
                if len(self._finished) > start or left <= 0:
                    new = self._finished.table(as_, fields, start=start)
                    self._seen = len(self._finished)
                    return new
                known = self._places
            standing, view = self._watch(left), None
            if standing.finished == known and standing.epoch == self._read_epoch:
                view = self._store.next_finished_view(known, standing, min(left, BLOCK))

    def _unsee(self, seen: int) -> None:
        """Tasks from number ``seen`` on are new again: who asked for them did not get them."""
        with self._reading:
            self._seen = min(self._seen, seen)

    def _fetch_one(self, state: TaskState, fields: Sequence[str] | None, as_: str) -> Any:
        check_request(as_, fields)
        return build_table(
            _stated(self._store.view([state])),
            as_,
            fields,
            resolve=self._store.load_spilled,
            state_column=False,
            conditions=state is TaskState.FAILED,
        )

    def _look(
        self,
        states: Collection[TaskState],
        as_: str = "tasks",
        seen: View | None = None,
        *,
        failures: bool = False,
    ) -> View:
        """Reads a view (or takes the one ``seen``) and takes in its finished tasks, for a table of this form;
        after a reset by anybody, from the beginning. ``failures``: with those not streamed yet."""
        while True:
            at = self._places
            view, seen = seen, None
            if view is None or view.cursor != at:
                view = self._ask(states, at, self._streamed[1] if failures else None)
            if view.epoch != self._read_epoch:
                self._read_epoch = view.epoch
                self._finished.clear()
                self._seen = 0
                streamed, self._streamed = self._streamed, (0, 0)
                self._stream_ready.clear()
                if at or streamed[1]:
                    continue
            if view.cursor > at:
                # Who comes to where places were cut off goes on behind them.
                self._finished.holes.skip(len(self._finished), view.cursor - at)
            if not view.finished:
                return view
            with suppress(Restarted):
                self._take_in(view, as_)
                return view

    def _ask(self, states: Collection[TaskState], at: int, failures: int | None) -> View:
        if states is not FINISHED:
            return self._store.view(states, at)
        ready = self._finished.make_ready
        return self._store.finished_view(at, self._read_epoch, failures=failures, meanwhile=ready)

    def _take_in(self, view: View, as_: str) -> None:
        pack = as_ not in ("dicts", "tasks")
        if view.n_finished - view.cursor == len(view.finished) < 100:  # no care for memory and garbage
            names = self._finished.names(few=True) if pack else None
            self._add(view.finished, self._store.rows(view.finished, names), pack=pack)
            return
        with closing(self._store.finished_parts(view)) as parts:
            for records in parts:
                with gc_paused(len(records)):
                    names = self._finished.names()
                    self._add(records, self._store.rows(records, names), pack=pack, many=True)

    def _add(self, records: list[bytes], rows: Rows, **how: bool) -> None:
        if len(rows) < len(records):
            self._finished.holes.skip(len(self._finished), len(records) - len(rows))
        self._finished.extend(rows, **how)

    @property
    def _places(self) -> int:
        """How far the list of finished tasks was read."""
        return len(self._finished) + self._finished.holes.total

    # --- single tasks, keys --------------------------------------------------------------------

    def task(self, key: str) -> Task:
        """One task as it is now, in a time that does not grow with the network. Raises UnknownKey.

        ``condition`` of a task that is tried again is that of the attempt before."""
        view = self._store.look_up(_inputs.one_key(key))
        ended = self._store.rows(view.finished)
        rows = [*_stated(view), *(StatedRow(TaskState.FINISHED, row) for row in ended)]
        if not rows:
            raise unknown_keys([key], self._store.network)
        found = self._as_tasks(rows)[0]
        return found if view.lapse is None or view.failed else replace(found, condition=view.lapse)

    def states(self, keys: Iterable[str]) -> list[TaskState | None]:
        """The state of each task, in the order given; None for a key the network does not have."""
        return self._store.look(_inputs.key_list(keys))

    def keys(self, state: str | None = None) -> list[str]:
        """Task keys: finished in completion order, queued in the order they will be taken, the others by
        time; without a state every key, in the order of creation."""
        if state is None:
            with self._reading:
                view = self._look(list(TaskState))
                others = [*view.queued, *view.running, *view.failed]
                pairs = [(row[7], row[3]) for row in others]
                pairs += zip(self._finished.seqs(), self._finished.keys(), strict=True)
            return [key for _seq, key in sorted(pairs)]
        wanted = _inputs.one_state(state)
        if wanted is TaskState.FINISHED:
            with self._reading:
                self._look(FINISHED)
                return self._finished.keys()
        return [row[3] for row in _stated(self._store.view([wanted])).rows]

    def changes(self) -> Changes:
        """This moment of the network; its ``wait`` returns at the next change of any task or worker."""
        return Changes(self._store)

    def stream(self, timeout: float | None = None) -> Iterator[Task]:
        """Finished and failed tasks as they happen, each once per object: a later ``stream`` goes on where
        this one stopped. Ends when none came for ``timeout`` seconds (None: never)."""
        limit = _inputs.seconds(timeout, "timeout", none=True)
        while self._await_streamed(limit):
            while (task := self._take_streamed()) is not None:
                yield task

    def _take_streamed(self) -> Task | None:
        """The next task of the stream, if one is here."""
        with suppress(IndexError):
            return self._stream_ready.popleft()
        return None

    def _await_streamed(self, limit: float | None) -> bool:
        """Waits for tasks of the stream; False when none came for ``limit`` seconds."""
        deadline = None if limit is None else time.monotonic() + limit
        view, of = None, (0, 0)
        while True:
            self._read_stream(view, of)
            if self._stream_ready:
                return True
            left = left_of(deadline)
            if left <= 0:
                return False
            standing, view, of = self._watch(left), None, self._streamed
            if (standing.finished, standing.failures) == of and standing.epoch == self._read_epoch:
                view = self._store.next_finished_view(of[0], standing, min(left, BLOCK), of[1])

    def _read_stream(self, seen: View | None, of: tuple[int, int]) -> None:
        """``seen``: a view behind so many finished and failed tasks; another thread may have gone on."""
        with self._reading:
            view = self._look(FINISHED, seen=seen if of == self._streamed else None, failures=True)
            start, failures = self._streamed
            tasks: list[Task] = self._finished.table(
                "tasks", None, start=self._finished.holes.row_at(start)[0]
            )
            rows, conditions = self._store.failed_by_key(list(dict.fromkeys(view.failures)))
            self._streamed = (self._places, failures + len(view.failures))
            failed = [StatedRow(TaskState.FAILED, row, c) for row, c in zip(rows, conditions, strict=True)]
            ended = [*tasks, *self._as_tasks(failed)]
            self._stream_ready.extend(sorted(ended, key=lambda task: task.finished_at or 0.0))

    def _as_tasks(self, rows: list[StatedRow]) -> list[Task]:
        tasks: list[Task] = build_table(
            rows, "tasks", None, resolve=self._store.load_spilled, state_column=False
        )
        return tasks

    def _watch(self, left: float) -> Standing:
        """How things stand, workers whose lease ran out declared lost first."""
        standing = self._store.watch(min(left, BLOCK) + 2.0)
        if standing.overdue:
            self._store.reap()
            standing = self._store.watch(min(left, BLOCK) + 2.0)
        return standing


def _stated(view: View) -> Stated:
    """The rows of a view that are not finished, each with its state."""
    begun = [TaskState.QUEUED] * len(view.queued) + [TaskState.RUNNING] * len(view.running)
    states = begun + [TaskState.FAILED] * len(view.failed)
    rows = [*view.queued, *view.running, *view.failed]
    return Stated(states, rows, [*repeat(None, len(begun)), *view.conditions])


_readers: weakref.WeakSet[TaskReader] = weakref.WeakSet()


def _free_readers() -> None:
    for reader in list(_readers):
        reader._after_fork()


os.register_at_fork(after_in_child=_free_readers)
