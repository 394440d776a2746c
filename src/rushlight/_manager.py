"""The manager's face of a network: queues tasks, reads results, starts and stops workers.

Holds no state that matters: kill it, make another, and everything is as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import _inputs, _names
from ._aio import AsyncReader, Threads, awaitable
from ._archive import Archiving
from ._boards import BoardReader
from ._fleet import Fleet
from ._logs import LogReader
from ._plan import find_config
from ._queueing import Queueing
from ._roster import WorkerReader
from ._seeding import SeedReader
from ._store import Store
from .errors import ConfigError

Fields = Mapping[str, Any]
#: How often a reset meets a worker that registered meanwhile before it gives up.
_RESETS = 20


class Rush(Fleet, Queueing, Archiving, WorkerReader, LogReader, BoardReader, SeedReader):
    """A network seen by its manager.

    ``network=None`` makes a random readable name. ``url=None`` takes the one of ``plan``,
    ``RUSHLIGHT_URL``, ``REDIS_URL``, or the embedded server. Connects at once: StoreUnavailable within
    ``connect_timeout`` seconds, StoreVersion for a server that is too old. Creating one writes nothing.
    Thread-safe and fork-safe; picklable, then it connects again on first use. Workers started here as
    local processes end with this process. ``credential_provider``: asked for user and password at every
    connection, as redis-py does; as the text ``"module:name"``, workers find it too.
    """

    def __init__(
        self,
        network: str | None = None,
        url: str | None = None,
        *,
        secret: str | bytes | None = None,
        connect_timeout: float = 5.0,
        timeout: float = 10.0,
        patience: float = 30.0,
        spill_size: int = 65536,
        credential_provider: Any = None,
    ) -> None:
        limits: dict[str, Any] = {
            "connect_timeout": _inputs.patience(connect_timeout, "connect_timeout"),
            "timeout": _inputs.patience(timeout, "timeout"),
            "patience": _inputs.seconds(patience, "patience"),
        }
        spill_size = _inputs.count(spill_size, "spill_size", least=64)
        config = find_config(url, secret, credential_provider=credential_provider, **limits)
        name = _names.random_name() if network is None else network
        self._begin(Store(config, name, spill_size=spill_size))

    def _begin(self, store: Store) -> None:
        self._begin_reading(store)
        self._begin_logs()
        self._begin_fleet()
        self._threads = Threads()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._store,)

    def __repr__(self) -> str:
        return f"<Rush {self.network!r} at {self._store.config.address}>"

    def close(self) -> None:
        """Ends local workers started by this object and closes the connections. Idempotent."""
        self._end_fleet()
        self._threads.close()
        self._store.close()

    @property
    def aio(self) -> AsyncRush:
        """The methods as coroutine functions: ``await rush.aio.fetch_tasks()``, ``async for task in
        rush.aio.stream()``."""
        return AsyncRush(self, self._threads)

    @property
    def url(self) -> str | None:
        """The server's URL without its password; None for the embedded server."""
        return self._store.config.public_url

    @property
    def snapshot_schedule(self) -> list[tuple[int, int]]:
        """When the server writes snapshots: (seconds, changes) pairs; settable, ``None`` for never. Raises
        StoreError where the server does not allow it."""
        return self._store.snapshots()

    @snapshot_schedule.setter
    def snapshot_schedule(self, schedule: Iterable[tuple[int, int]] | None) -> None:
        pairs = [tuple(pair) for pair in schedule or ()]
        for pair in pairs:
            if len(pair) != 2 or not all(isinstance(number, int) and number > 0 for number in pair):
                raise ConfigError(f"snapshot_schedule: {pair!r} is not a pair (seconds, changes)")
        self._store.set_snapshots([(seconds, changes) for seconds, changes in pairs])

    def save_snapshot(self) -> None:
        """Has the server write a snapshot of all it holds to its disk, beside other work; does not wait for
        it (``server_info()["rdb_bgsave_in_progress"]``). Raises StoreError where the server does not allow
        it."""
        self._store.save_snapshot()

    # --- tasks ----------------------------------------------------------------------------------

    def push_finished_tasks(
        self,
        xss: Iterable[Fields],
        yss: Iterable[Fields],
        *,
        xs_extra: Fields | Iterable[Fields | None] | None = None,
        ys_extra: Fields | Iterable[Fields | None] | None = None,
    ) -> list[str]:
        """Creates tasks with known results: a warm start, an import. They have no worker."""
        batch, results = _inputs.task_batch(xss, "xss"), _inputs.task_batch(yss, "yss")
        _inputs.same_length(results, len(batch), "yss", "xss")
        extras = _inputs.matching(xs_extra, len(batch), "xs_extra", "xss")
        more = _inputs.matching(ys_extra, len(batch), "ys_extra", "xss")
        encoded = self._store.encode_tasks(batch, extras)
        payloads = self._store.encode_results(results, more, encoded.spilled)
        if encoded.keys:
            self._store.record(encoded, "f", payloads)
        return encoded.keys

    def push_failed_tasks(
        self,
        xss: Iterable[Fields],
        conditions: Any = None,
        *,
        xs_extra: Fields | Iterable[Fields | None] | None = None,
    ) -> list[str]:
        """Creates tasks that failed; ``conditions``: one for all or a list, default ``Task failed``."""
        batch = _inputs.task_batch(xss, "xss")
        extras = _inputs.matching(xs_extra, len(batch), "xs_extra", "xss")
        said = [self._store.encode_condition(c) for c in _inputs.conditions(conditions, len(batch), "xss")]
        encoded = self._store.encode_tasks(batch, extras)
        if encoded.keys:
            self._store.record(encoded, "x", said)
        return encoded.keys

    def reset(self, *, workers: bool = True) -> None:
        """Stops all workers and deletes every key of the network; ``workers=False``: only the tasks, and
        workers go on. Results of the old network are refused from now on.

        Waits up to ten seconds for killed workers' processes to be gone.
        """
        if not workers:
            self._store.reset_tasks()
            return
        known: list[str] = []
        for _ in range(_RESETS):
            self.stop_workers("kill")
            known += self._store.reset_all(known)
            if not self._store.worker_states():
                self._forget_handles()
                return
        raise ConfigError(
            f"workers keep joining network {self.network!r}: stop what launches them, then reset"
        )


class AsyncRush(AsyncReader):
    """What a manager can do, awaitable; see AsyncReader. An await of a call that writes, given up, leaves
    open whether it was carried out."""

    push_tasks = awaitable(Rush.push_tasks, waits=True)
    push_finished_tasks = awaitable(Rush.push_finished_tasks)
    push_failed_tasks = awaitable(Rush.push_failed_tasks)
    empty_queue = awaitable(Rush.empty_queue)
    export = awaitable(Rush.export, waits=True)
    freeze = awaitable(Rush.freeze, waits=True)
    retry_tasks = awaitable(Rush.retry_tasks)
    cancel_tasks = awaitable(Rush.cancel_tasks)
    start_workers = awaitable(Rush.start_workers, waits=True)
    restart_workers = awaitable(Rush.restart_workers, waits=True)
    update_loop = awaitable(Rush.update_loop, waits=True)
    worker_script = awaitable(Rush.worker_script)
    wait_for_workers = awaitable(Rush.wait_for_workers, waits=True)
    stop_workers = awaitable(Rush.stop_workers, waits=True)
    save_snapshot = awaitable(Rush.save_snapshot)
    reset = awaitable(Rush.reset, waits=True)
    seed_sequence = awaitable(Rush.seed_sequence)


def _reopened(store: Store) -> Rush:
    rush = Rush.__new__(Rush)
    rush._begin(store)
    return rush
