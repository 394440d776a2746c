"""The worker's face of a network: creates, takes and settles tasks under one worker id.

Never starts processes; a plain worker keeps its lease with a thread, a supervised one leaves that to its
supervisor.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn, overload

from . import _inputs, _names
from ._aio import AsyncReader, Threads
from ._journal import Journal
from ._lease import LeaseThread
from ._logs import LogReader
from ._member import Member, Verdict
from ._plan import find_config
from ._records import Task, WorkerState
from ._roster import WorkerReader
from ._running import RunningTask
from ._sharing import Sharing
from ._store import Store
from ._store_roster import WorkerCard
from ._store_tasks import NIL, Encoded, head_of
from ._taking import Taking
from .errors import ConfigError, RushlightError, StaleTaskWarning, UnknownKey

_log = logging.getLogger("rushlight")
Fields = Mapping[str, Any]
#: Message of tasks a worker still held when it left.
_LEFT = "Task failed"


class RushWorker(Taking, WorkerReader, LogReader, Sharing):
    """A member of a network that does tasks; registers on construction.

    One worker belongs to one thread at a time, like the loop that drives it; reading is thread-safe.
    Creating, finishing, failing and taking cost one round trip each, whatever the number of tasks.
    ``lease``: seconds after which a worker that went silent is declared lost and its tasks fail; renewed
    every third of that by a thread (``heartbeat=False``: somebody else renews it). A worker that was declared
    lost and is not dead comes back under its id with its next call; results of what it did before are
    refused. Raises StoreUnavailable, and ConfigError where a live worker has the id.
    """

    _journal: Journal | None = None

    def __init__(
        self,
        network: str,
        url: str | None = None,
        *,
        worker_id: str | None = None,
        heartbeat: bool = True,
        lease: float = 15.0,
        secret: str | bytes | None = None,
        credential_provider: Any = None,
    ) -> None:
        lease = _inputs.lease(lease)
        if worker_id is not None and (
            not _inputs.one_key(worker_id, "worker_id") or not worker_id.isprintable()
        ):
            raise ConfigError(f"worker_id={worker_id!r} must be printable text and not empty")
        store = Store(find_config(url, secret, credential_provider=credential_provider), network)
        store.large.serve_worker()
        card = WorkerCard(
            worker_id=worker_id or _names.random_name(),
            token=_names.random_token(),
            pid=os.getpid(),
            hostname=socket.gethostname(),
        )
        member = Member(store, card, lease, on_rejoin=self._let_all_go)
        member.join(WorkerState.RUNNING)
        self._assemble(store, member)
        self._lease_thread = LeaseThread(store, member) if heartbeat else None

    @classmethod
    def supervised(
        cls, store: Store, member: Member, on_time_limit: Callable[[float], None] | None = None
    ) -> RushWorker:
        """The worker of a process whose supervisor registered it and keeps its lease. ``on_time_limit`` hears
        for how many seconds a task taken just now may run."""
        self = cls.__new__(cls)
        self._assemble(store, member)
        self._lease_thread = None
        self.on_time_limit = on_time_limit
        return self

    def _assemble(self, store: Store, member: Member) -> None:
        self._begin_reading(store)
        self._begin_logs()
        self._threads = Threads()
        self._member = member
        self._begin_sharing()
        #: Seconds beyond a task's limit until others are to look at it: who ends tasks itself wants none.
        self._limit_grace = 0.0
        #: Attempt of each task this worker holds.
        self._held: dict[str, int] = {}

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a RushWorker cannot be pickled: elsewhere make RushWorker({self.network!r})")

    def __repr__(self) -> str:
        return f"<RushWorker {self.worker_id} of {self.network!r}>"

    @property
    def worker_id(self) -> str:
        """This worker's id."""
        return self._member.card.worker_id

    @property
    def aio(self) -> AsyncReader:
        """The reading methods as coroutine functions. What a worker writes belongs to one thread, its own."""
        return AsyncReader(self, self._threads)

    # --- creating -------------------------------------------------------------------------------

    def push_running_tasks(
        self, xss: Iterable[Fields], *, xs_extra: Fields | Iterable[Fields | None] | None = None
    ) -> list[str]:
        """Creates tasks already running on this worker; returns their keys. One round trip; up to 2500
        of them all or none.
        Raises WorkerLost where this worker may not write any more."""
        batch = self._encode(xss, xs_extra)
        if batch.keys:
            self._member.begin(batch)
            self._held.update(dict.fromkeys(batch.keys, 1))
        return batch.keys

    def push_running_task(self, xs: Fields, *, xs_extra: Fields | None = None) -> str:
        """Creates one task already running on this worker; returns its key."""
        plain = self._store.codec.encode_plain(xs) if xs_extra is None else None
        if plain is not None:
            key = _names.new_key()
            self._member.begin_one(key, head_of(key, plain))
            self._held[key] = 1
            return key
        return self.push_running_tasks([_inputs.one_task(xs, "xs")], xs_extra=xs_extra)[0]

    def _encode(self, xss: Iterable[Fields], xs_extra: Any) -> Encoded:
        batch = _inputs.task_batch(xss, "xss")
        return self._store.encode_tasks(batch, _inputs.matching(xs_extra, len(batch), "xs_extra", "xss"))

    # --- settling -------------------------------------------------------------------------------

    def finish_tasks(
        self,
        keys: Iterable[str],
        yss: Iterable[Fields],
        *,
        ys_extra: Fields | Iterable[Fields | None] | None = None,
    ) -> list[bool]:
        """Results in: True where they decided the task (also when the same are told again), False where
        something else had. One round trip, atomic. Raises UnknownKey before anything is written."""
        names = _inputs.key_list(keys)
        spilled: dict[str, bytes] = {}
        payloads = self._payloads(names, yss, ys_extra, spilled)
        return self._settle([self._verdict(k, "f", p) for k, p in zip(names, payloads, strict=True)], spilled)

    def finish_task(self, key: str, ys: Fields, *, ys_extra: Fields | None = None) -> bool:
        """The result of one task; see ``finish_tasks``."""
        plain = self._store.codec.encode_plain(ys) if ys_extra is None else None
        if plain is not None and type(key) is str and self._held.get(key) == 1:
            try:
                ours = self._member.finish_one(key, plain + NIL, lambda late: self._let_go_one(key, late[0]))
            except UnknownKey:
                return self._settle([self._verdict(key, "f", plain + NIL)], {})[0]
            self._let_go_one(key, ours)
            return ours
        verdict, spilled = self._finishing(key, ys, ys_extra)
        return self._settle([verdict], spilled)[0]

    def fail_tasks(self, keys: Iterable[str], conditions: Any = None) -> list[bool]:
        """Fails tasks: True where this worker decided the task. ``conditions``: one for all, or a list; each
        an exception, a text, or a dict with ``message``. Atomic; UnknownKey before anything is written."""
        names = _inputs.key_list(keys)
        packed = [self._store.encode_condition(c) for c in _inputs.conditions(conditions, len(names))]
        return self._settle([self._verdict(k, "x", p) for k, p in zip(names, packed, strict=True)], {})

    def fail_task(self, key: str, condition: Any = None) -> bool:
        """Fails one task; see ``fail_tasks``."""
        return self.fail_tasks([_inputs.one_key(key)], [condition])[0]

    def _payloads(self, keys: list[str], yss: Any, ys_extra: Any, spilled: dict[str, bytes]) -> list[bytes]:
        results = _inputs.task_batch(yss, "yss")
        _inputs.same_length(results, len(keys), "yss", "keys")
        extras = _inputs.matching(ys_extra, len(keys), "ys_extra", "keys")
        return self._store.encode_results(results, extras, spilled)

    def _finishing(self, key: str, ys: Fields, ys_extra: Fields | None) -> tuple[Verdict, dict[str, bytes]]:
        plain = self._store.codec.encode_plain(ys) if ys_extra is None else None
        if plain is not None:
            attempt = self._held.get(key) if type(key) is str else None
            if attempt is not None:
                return Verdict(key, attempt, "f", plain + NIL), {}
            return self._verdict(_inputs.one_key(key), "f", plain + NIL), {}
        spilled: dict[str, bytes] = {}
        extra = None if ys_extra is None else _inputs.one_task(ys_extra, "ys_extra")
        payload = self._store.encode_results([_inputs.one_task(ys, "ys")], [extra], spilled)[0]
        return self._verdict(_inputs.one_key(key), "f", payload), spilled

    def _verdict(self, key: str, kind: str, payload: bytes) -> Verdict:
        return Verdict(key, self._held.get(key, 1), kind, payload)

    def _settle(self, verdicts: list[Verdict], spilled: dict[str, bytes]) -> list[bool]:
        if not verdicts:
            return []
        try:
            decided = self._member.settle(verdicts, spilled, lambda late: self._let_go(verdicts, late))
        except UnknownKey as error:
            # Tasks of ours that are gone were reset, which is no mistake of the loop's.
            reset = {key for key in error.fields["keys"] if key in self._held}
            if len(reset) < len(error.fields["keys"]):
                raise
            left = [verdict for verdict in verdicts if verdict.key not in reset]
            answers = iter(self._settle(left, spilled))
            decided = [verdict.key not in reset and next(answers) for verdict in verdicts]
        self._let_go(verdicts, decided)
        return decided

    def _let_all_go(self) -> None:
        self._held.clear()

    def _let_go(self, verdicts: list[Verdict], decided: list[bool]) -> None:
        held = self._held
        for verdict, ours in zip(verdicts, decided, strict=True):
            if ours:
                held.pop(verdict.key, None)
            else:
                self._let_go_one(verdict.key, ours)

    def _let_go_one(self, key: str, ours: bool) -> None:
        self._held.pop(key, None)
        if not ours:
            said = f"StaleTaskWarning: the result of task {key} came too late and is discarded"
            _log.warning(StaleTaskWarning(said))

    # --- taking ---------------------------------------------------------------------------------

    def pop_task(self, timeout: float = 1.0) -> Task | None:
        """Takes the next queued task and marks it running here, waiting up to ``timeout`` seconds for one
        (woken by the push); None when none came, or when this worker is to leave."""
        limit = _inputs.seconds(timeout, "timeout", none=True)
        while values := self._member.claim(1, float("inf") if limit is None else limit):
            if tasks := self._taken(values):
                return tasks[0]
        return None

    def pop_tasks(self, n: int, timeout: float = 1.0) -> list[Task]:
        """Takes up to n queued tasks, as many as there are, waiting only for the first."""
        n = _inputs.count(n, "n", least=1)
        limit = _inputs.seconds(timeout, "timeout", none=True)
        while values := self._member.claim(n, float("inf") if limit is None else limit):
            if tasks := self._taken(values):
                return tasks
        return []

    def step(self, finish: tuple[str, Fields], push: Fields) -> str:
        """Finishes a task and creates the next, running, in ONE round trip; returns the new key. A result
        that came too late is logged, and the new task is created all the same."""
        key, ys = _pair(finish)
        codec = self._store.codec
        result, plain = codec.encode_plain(ys), codec.encode_plain(push)
        if result is None or plain is None or type(key) is not str or self._held.get(key) != 1:
            return self._any_step(key, ys, push)
        new = _names.new_key()
        head = head_of(new, plain)
        try:
            decided = self._member.step_one(key, result + NIL, new, head)
        except UnknownKey:
            # A task of ours that is gone was reset, which is no mistake of the loop's.
            self._member.begin_one(new, head)
            decided = False
        self._let_go_one(key, decided)
        self._held[new] = 1
        return new

    def _any_step(self, key: str, ys: Fields, push: Fields) -> str:
        verdict, spilled = self._finishing(key, ys, None)
        batch = self._encode([_inputs.one_task(push, "push")], None)
        try:
            decided = self._member.step(verdict, batch, spilled)
        except UnknownKey:
            if key not in self._held:
                raise
            self._member.begin(batch)
            decided = False
        self._let_go_one(key, decided)
        self._held[batch.keys[0]] = 1
        return batch.keys[0]

    def finish_and_pop(self, key: str, ys: Fields, timeout: float = 1.0) -> Task | None:
        """Finishes a task and takes the next in ONE round trip; only where the queue is empty it waits, like
        ``pop_task``."""
        verdict, spilled = self._finishing(key, ys, None)
        limit = _inputs.seconds(timeout, "timeout", none=True)
        deadline = time.monotonic() + (math.inf if limit is None else limit)
        if tasks := self._settle_and_take(verdict, spilled, limit):
            return tasks[0]
        left = deadline - time.monotonic()
        return self.pop_task(left) if left > 0 else None

    @overload
    def task(self, xs: str) -> Task: ...

    @overload
    def task(self, xs: Fields, *, xs_extra: Fields | None = None) -> AbstractContextManager[RunningTask]: ...

    def task(
        self, xs: str | Fields, *, xs_extra: Fields | None = None
    ) -> Task | AbstractContextManager[RunningTask]:
        """``with worker.task(xs) as t`` creates a task running here for the block. ``t.finish(ys)`` settles
        it; an exception fails it with type, message and traceback and goes on; leaving without finishing
        fails it. Given a key, like ``Rush.task``: the task as it is now."""
        return super().task(xs) if isinstance(xs, str) else self._running_task(xs, xs_extra)

    @contextmanager
    def _running_task(self, xs: Fields, xs_extra: Fields | None) -> Iterator[RunningTask]:
        running = RunningTask(self, self.push_running_task(xs, xs_extra=xs_extra), dict(xs))
        try:
            yield running
        except BaseException as error:
            if not running.settled:
                self.fail_task(running.key, error)
            raise
        if not running.settled:
            self.fail_task(running.key, "Task failed: left without finishing")

    @contextmanager
    def write_behind(self) -> Iterator[RushWorker]:
        """For the block, creating, finishing and failing tasks are sent at once and their replies checked
        later: in batches, and at the end. Until then they say True. Errors surface at a later call or at the
        end of the block; results that came too late are logged. Everything else waits as usual, and sees
        what was sent before it."""
        self._member.begin_behind()
        try:
            yield self
        except BaseException as error:
            try:
                self._member.end_behind()
            except RushlightError as late:
                error.add_note(f"besides, what was written behind: {late}")
            raise
        self._member.end_behind()

    # --- leaving --------------------------------------------------------------------------------

    @property
    def terminated(self) -> bool:
        """True where the worker is to leave, or may not write any more. Costs no round trip while others
        are made: it is never older than one second."""
        return self._member.leaving

    @property
    def should_stop_when_idle(self) -> bool:
        """True once the network drains (``push_tasks(terminate_workers=True)``) and the queue is empty."""
        return self._member.idle_stop

    def set_terminated(self) -> None:
        """Leaves the network; tasks still held fail. Idempotent."""
        if self._lease_thread is not None:
            self._lease_thread.stop()
            self._lease_thread = None
        if not self._member.gone:
            self._member.leave(_LEFT)
        self._held.clear()

    def close(self) -> None:
        """Leaves the network and closes the connections."""
        self.set_terminated()
        self._threads.close()
        self._store.close()


def _pair(finish: object) -> tuple[str, Fields]:
    if not isinstance(finish, tuple) or len(finish) != 2:
        raise ConfigError(f"finish must be a pair (key, ys), got {finish!r}")
    return finish
