"""From claimed records to tasks. One that cannot be read fails, with the reason, and harms nobody else.

A value may be signed with another secret, damaged or gone, or need a library that is not here. Whoever put it
there must not be able to end the workers that take it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from . import _inputs
from ._forms import taken_task
from ._lease import LeaseThread
from ._member import Member, Verdict, is_plain
from ._reader import TaskReader
from ._records import Task, TaskState
from ._store_finished import Rows
from ._tables import StatedRow
from ._unread import UNREADABLE, plain_parts
from .errors import RushlightError, UnknownKey

_log = logging.getLogger("rushlight")


class Taking(TaskReader):
    """What a worker does with records the server has just given it."""

    _lease_thread: LeaseThread | None
    on_time_limit: Callable[[float], None] | None = None
    _held: dict[str, int]
    _limit_grace: float
    _settle: Callable[..., list[bool]]
    _let_go_one: Callable[[str, bool], None]
    _member: Member

    def _settle_and_take(
        self, verdict: Verdict, spilled: dict[str, bytes], seconds: float | None
    ) -> list[Task]:
        """The next task, if there is one; where none is likely to be there it waits a little, and no longer
        than so many seconds."""
        member, left = self._member, math.inf if seconds is None else seconds
        try:
            if left > 0 and member.expects_none and not spilled and is_plain(verdict):
                decided, values = member.finish_and_wait(verdict, left)
            else:
                decided, values = member.settle_and_claim(verdict, spilled)
        except UnknownKey:
            if verdict.key not in self._held:
                raise
            decided, values = False, []
        self._let_go_one(verdict.key, decided)
        return self._taken(values)

    def _taken(self, values: list[bytes]) -> list[Task]:
        """The tasks of running records that were claimed; those that cannot be read fail now."""
        try:
            return self._read_taken(values) if values else []
        except UNREADABLE as error:
            if len(values) > 1:
                return [task for value in values for task in self._taken([value])]
            self._refuse(values[0], error)
            return []

    def _refuse(self, value: bytes, error: RushlightError) -> None:
        """Of the record only its plain parts are read."""
        _worker, attempt, _options, key, *_ = plain_parts(b"\x99" + value)
        _log.warning("task %s cannot be read, and fails: %s", key, error)
        self._held[key] = attempt
        condition = self._store.encode_condition(_inputs.condition(error))
        self._settle([Verdict(key, attempt, "x", condition)], {})

    def _read_taken(self, values: list[bytes]) -> list[Task]:
        one = len(values) == 1
        rows: Rows = [self._store.running_row(values[0])] if one else self._store.running_rows(values)
        # Nearly always it is one, without options.
        if one and rows[0][2] is None and (first := taken_task(rows[0])):
            self._held[first.key] = first.attempt
            return [first]
        tasks = [task for row in rows if (task := taken_task(row))]
        if len(tasks) < len(rows):
            tasks = self._as_tasks([StatedRow(TaskState.RUNNING, row) for row in rows])
        for task in tasks:
            self._held[task.key] = task.attempt
        limits = [row[2]["t"] for row in rows if row[2] and row[2].get("t")]
        if limits:
            self._expect(min(limits) + self._limit_grace)
        return tasks

    def _expect(self, seconds: float) -> None:
        """A task taken now may run this long: somebody besides the task must be awake then."""
        if self._lease_thread is not None:
            self._lease_thread.due_in(seconds)
        elif self.on_time_limit is not None:
            self.on_time_limit(seconds)
