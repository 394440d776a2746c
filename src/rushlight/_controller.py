"""The controller's face of a network: calls of functions as futures, done by workers that it keeps.

Puts together what does the work: ``_calls`` (a call as a task), ``_sending``, ``_feed`` (futures),
``_collecting`` (results, each once), ``_launches`` (workers). Holds no state that matters: kill its
process, make another, and everything goes on.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import msgspec

from . import _endings, _names, _telemetry
from ._broadcast import broadcast
from ._call_loop import CallLoop
from ._call_options import NIL, PLAIN, SETTINGS, CallOptions, Options, Settings
from ._calls import Constant, Shelf, encode_call
from ._clearing import FORGETS, Presence
from ._collecting import Collector
from ._crew import CANCELLED, deadline_of
from ._feed import Feed
from ._futures import CallFuture, Register
from ._kin import Kin, checked_fallback
from ._launches import Launches
from ._loopspec import make_spec
from ._manager import Rush
from ._mapping import checked_map, in_order
from ._missing import Missing
from ._peers import Peers
from ._results import Ends, status_of_error
from ._sending import Outgoing, Sender
from ._store import Store
from ._store_feed import Leaving
from .errors import LaunchError
from .launchers import Launcher

T = TypeVar("T")


class Controller(Kin, concurrent.futures.Executor):
    """A ``concurrent.futures`` executor whose calls are tasks of a network, done by workers that it
    launches and lets go.

    ``network=None``: one of its own, which is gone after ``shutdown``; else what is there is gone on with,
    such as that of a controller whose process was killed. ``launcher``: as in ``Rush.start_workers``. Between
    ``min_workers`` and ``max_workers`` (default: the CPUs) are kept, one for each of the ``tasks_per_worker``
    calls; one that idled for ``idle_timeout`` seconds leaves, as does one that has lived ``max_lifetime``
    seconds or done ``max_tasks_per_worker`` calls, between two calls. One that holds more than ``max_memory``
    bytes is killed at once, which is a crash of its call. A launch that was not heard of ``launch_timeout``
    seconds after its process began has failed. A call whose worker crashed is tried on another,
    ``max_crashes`` times. ``seed``: every call has random numbers of its own, the same whoever makes it.
    ``on_worker_start``: called first in every worker, ``packages`` imported
    before. ``reset``: what is put back after each call, of ``globals``, ``environment``, ``directory`` and
    ``warnings``. Thread-safe.
    """

    def __init__(
        self,
        network: str | None = None,
        url: str | None = None,
        *,
        launcher: str | Launcher | None = None,
        min_workers: int = 0,
        max_workers: int | None = None,
        idle_timeout: float | None = 300.0,
        max_tasks_per_worker: int | None = None,
        max_lifetime: float | None = None,
        launch_timeout: float = 60.0,
        max_crashes: int = 5,
        fallback: Controller | None = None,
        seed: Any = None,
        on_worker_start: Callable[..., Any] | None = None,
        packages: Sequence[str] = (),
        max_memory: int | None = None,
        reset: Sequence[str] = (),
        tasks_per_worker: float = 1.0,
        max_queued: int | None = None,
        max_queued_bytes: int | None = None,
        lease: float = 15.0,
        secret: str | bytes | None = None,
        retention: Literal["collect", "archive"] = "archive",
    ) -> None:
        given = locals()
        self._settings = Settings.checked(**{name: given[name] for name in SETTINGS})
        self.fallback = checked_fallback(fallback)
        self._ephemeral = network is None
        self._rush = Rush(network, url, secret=secret)
        self._begin()

    def _begin(self) -> None:
        store = self._rush._store
        self._prefix = f"{_names.random_token()}-"
        self._next = 0
        self._closing, self._ending = threading.RLock(), threading.RLock()
        self._way = way = _endings.Way(self)
        self._register = Register()
        self._ends = Ends(store, self.network)
        self._shelf = Shelf(store)
        self._forgets = self._settings.retention == "collect"
        self._presence = presence = Presence((FORGETS if self._forgets else "") + _names.random_token())
        pass_on = way.to("_pass_on", otherwise=False)
        self._collector = Collector(self._another_store(), self._ends, self.network, pass_on, presence)
        kept = self._register, self._ends, self._collector
        self._feed = Feed(self._another_store(), *kept, pass_on, presence, self._prefix)
        presence.word = self._feed.word
        self._feed.out.weighs = self._settings.max_queued_bytes is not None
        self._sender = Sender(self._another_store(), way.to("_not_sent"), presence.sending)
        presence.search = Missing(store, self._register, self._feed, self._sender.flush)
        self._peers = Peers(store, presence.token)
        self._launches = Launches(
            self._rush,
            self._rush._launcher(self._settings.launcher),
            self._settings.scale,
            way.to("_keep_spec"),
            way.to("_broken"),
            self._peers,
        )
        self._backlog: deque[str] = deque()
        self._moved: set[str] = set()
        self._branches: dict[str, Kin] = {}
        self._shutdown = self._hasty = self._closed = False
        self._collector.begin()
        self._feed.attach()
        self._feed.nudge()
        _endings.begun(self)
        if self._settings.scale.min_workers or self._feed.outstanding:
            self._launches.nudge()

    def _another_store(self) -> Store:
        store = self._rush._store
        return Store(store.config, store.network, spill_size=store.spill_size, connect=False)

    def _keep_spec(self) -> str:
        s = self._settings
        spec = make_spec(
            self._rush._store,
            CallLoop(s.limits, s.reset),
            kwargs={"on_start": s.on_worker_start, "seeded": s.seed is not None},
            packages=s.packages,
            seed=s.seed,
            lease=s.lease,
        )
        return self._rush._keep(replace(spec, max_crashes=s.max_crashes, max_memory=s.limits.max_memory))

    def __repr__(self) -> str:
        return f"<Controller {self.network!r}>"

    def __del__(self) -> None:
        if not self.__dict__.get("_shutdown", True):
            _endings.left(self)

    @property
    def network(self) -> str:
        """The network's name."""
        return self._rush.network

    # --- submitting -----------------------------------------------------------------------------

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Schedules ``fn(*args, **kwargs)`` on a worker; returns its future at once.

        ``fn`` is uploaded once, by content. Raises EncodeError for what cannot be pickled, RuntimeError after
        ``shutdown``.
        """
        return self._submit(PLAIN, fn, args, kwargs)

    def options(self, **options: Any) -> Options:
        """The same verbs with options for the calls: ``options(timeout=60).submit(fn)``."""
        return Options(self, CallOptions.checked(**options))

    def push(
        self, name: str, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        """``submit`` under a name."""
        return self._submit(CallOptions.checked(name=name), fn, args, kwargs)

    def _submit(
        self, options: CallOptions, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> CallFuture:
        if options.resources:
            branch = self._branch(options.resources)
            return branch._submit(replace(options, resources=()), fn, args, kwargs)
        ref = self._shelf.refer(fn)
        return self._schedule(options, ref, args, kwargs)

    def _schedule(
        self,
        options: CallOptions,
        ref: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        many: bool = False,
    ) -> CallFuture:
        self._check_open()
        store = self._rush._store
        spilled: dict[str, bytes] = {}
        key = self._new_key() if options.name is None else self._free_key(options.name)
        xs = encode_call(store, ref, args, kwargs, spilled, many=many, own=key if self._forgets else None)
        said = NIL if options is PLAIN else options.packed()
        head = b"".join((said, msgspec.msgpack.encode(key), xs, _telemetry.context()))
        self._make_room()
        return self._send(Outgoing(key, head, spilled, options.worker, options.name is None))

    def _check_open(self) -> None:
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _send(self, call: Outgoing) -> CallFuture:
        future = CallFuture(call.key, self, self._register)
        self._feed.admit(call.key, call.size)
        self._register.add(future)
        self._sender.send(call, alone=self._feed.own <= 1)
        self._launches.nudge()
        return future

    def _make_room(self) -> None:
        """Waits while as many calls are under way as may be."""
        calls, size = self._settings.max_queued, self._settings.max_queued_bytes
        while not self._feed.has_room(calls, size) and not self._shutdown:
            self._raise_if_broken()
            self._feed.wait(1.0, count=self._feed.ended_count)

    def _new_key(self) -> str:
        self._next += 1
        return f"{self._prefix}{self._next:x}"

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        progress: Any = None,
        error: Literal["raise", "warn", "return"] = "raise",
    ) -> Iterator[T]:
        """The values of ``fn`` for the items, in their order, as they come.

        All items are submitted at once. ``timeout``: seconds from now after which a value that is not there
        raises TimeoutError. ``chunksize``: items per call, for functions that take next to no time.
        ``progress``: True for a bar on stderr, or a function of (done, all). ``error``: a call
        that failed raises its error and the rest is cancelled; or it warns, or is silent, and the error
        itself is the value.
        """
        chunksize = checked_map(chunksize, error)
        deadline = deadline_of(timeout)
        ref = self._shelf.refer(fn)
        items = zip(*iterables, strict=False)
        if chunksize == 1:
            futures = [self._schedule(PLAIN, ref, args, {}) for args in items]
        else:
            chunks = iter(lambda: tuple(itertools.islice(items, chunksize)), ())
            futures = [self._schedule(PLAIN, ref, chunk, {}, many=True) for chunk in chunks]
        for future in futures:
            future._mapped = True
        return in_order(futures, deadline, chunked=chunksize > 1, error=error, progress=progress)

    def walk(self, fn: Callable[..., T], *iterables: Iterable[Any]) -> list[concurrent.futures.Future[T]]:
        """``submit`` for each of the items; returns the futures."""
        ref = self._shelf.refer(fn)
        return [self._schedule(PLAIN, ref, args, {}) for args in zip(*iterables, strict=False)]

    def constants(self, **values: Any) -> dict[str, Constant]:
        """Uploads values once, by content; returns what stands for each in the arguments of calls."""
        self._check_open()
        return {name: self._shelf.constant(name, value) for name, value in values.items()}

    def broadcast(
        self, fn: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> list[concurrent.futures.Future[T]]:
        """Has every worker make this call once: those that are there, whose futures are returned, and those
        that come later, before anything else. One that comes and fails in it has not come up."""
        self._check_open()
        return [*broadcast(self, self._shelf, fn, args, kwargs)]

    # --- ending ---------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT002 - as executors
        """Takes no more calls; ends the workers once those that were made have ended, and with ``wait``
        returns only then. ``cancel_futures``: calls that wait for a worker are taken back. Idempotent."""
        if self._way.forked:
            return
        with self._closing:
            first, self._shutdown = not self._shutdown, True
        self._feed.seal()
        if first and cancel_futures:
            self._cancel_waiting()
        if wait:
            self._finish()
        elif first:
            threading.Thread(target=self._finish, name="rushlight-closer", daemon=False).start()

    def terminate(self) -> None:
        """Ends everything now: calls are cancelled, workers killed, launches taken back."""
        if self._way.forked:
            return
        # Who waits for calls waits no longer.
        self._shutdown = self._hasty = True
        self._feed.seal()
        self._launches.pause()
        for branch in self._branches.values():
            branch.terminate()
        with self._ending:
            if not self._closed:
                self.cancel(all=True)
                for future in self._register.take_all():
                    future._end_cancelled()
                self._close()

    def _finish(self) -> None:
        with self._ending:
            if self._closed:
                return
            self._sender.flush()
            while self._feed.own and not self._hasty:
                if self._launches.error is not None and not self._workers_left():
                    break
                self._feed.wait(1.0, count=self._feed.ended_count)
            # A fallback was made before the branch whose calls go on there.
            for branch in reversed(self._branches.values()):
                branch.shutdown()
            if not self._hasty:
                self._close()

    def _close(self) -> None:
        self._closed = True
        _endings.ended(self)
        self._sender.close()
        self._feed.close()
        self._collector.close()
        # The last of several controllers ends the workers; each that leaves says so before it looks.
        self._launches.close(workers=self._hasty or not self._peers.there(belief=0.0), kill=self._hasty)
        if self._ephemeral:
            self._rush.reset()
        self._rush.close()

    def _cancel_waiting(self) -> None:
        self._sender.flush()
        queued = [key for key in self._rush.keys("queued") if self._register.get(key) is not None]
        for key in self._rush._store.drop(CANCELLED, queued) if queued else []:
            future = self._register.take(key)
            if future is not None:
                future._end_cancelled()

    # --- for the parts ----------------------------------------------------------------------------

    def _cancel_calls(self, keys: Sequence[str]) -> Sequence[str]:
        if self._closed:
            return ()
        self._sender.flush()
        return self._rush._store.drop(CANCELLED, keys)

    def _is_running(self, key: str) -> bool:
        if self._closed:
            return False
        self._sender.flush()
        return self._rush._store.look([key])[0] == "running"

    def _read(
        self, key: str, error: BaseException | None, leaving: Leaving | None = None, *, final: bool
    ) -> None:
        if key in self._moved and self.fallback is not None:
            self.fallback._read(key, error, leaving, final=final)
        else:
            self._collector.read(key, status_of_error(error), leaving, final=final)

    def _not_sent(self, keys: Sequence[str], error: Exception) -> None:
        for key in keys:
            self._feed.forget(key)
            future = self._register.take(key)
            if future is not None:
                future._end(None, error)

    def _broken(self, error: LaunchError) -> None:
        """Launches come to nothing. Where no worker is left, nobody is to wait in vain."""
        if not self._workers_left():
            for future in self._register.take_all():
                future._end(None, error)
