"""A controller's workers: launched, counted and let go in the background, each known by its id from the
start.

Owns the launches and the thread that tends them. What to do is decided in ``_scaling``; what a worker does,
in ``_call_loop``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from . import _names
from ._manager import Rush
from ._records import WorkerInfo, WorkerState
from ._scaling import Demand, LaunchFact, Plan, ScaleLimits, Supply, WorkerFact, plan
from .errors import LauncherError, LaunchError, RushlightError, StoreError
from .launchers import Handle, HandleState, Launcher, WorkerCommand

_log = logging.getLogger("rushlight")
#: Seconds between two looks while something is under way, and while nothing is.
_TICK, _REST = 0.1, 1.0
#: Seconds between two looks at least.
_SPACING = 0.05
#: Failed launches in a row, with none that came up between, after which no more are tried for a while;
#: seconds until the next try, doubled each time, and at most.
_BREAKS, _PAUSE, _LONGEST_PAUSE = 3, 1.0, 60.0
#: Seconds a worker's process may take for its own exit handlers once the worker has left.
_LAST_WORDS = 10.0
_LIVE: Final = (WorkerState.STARTING, WorkerState.RUNNING)


@dataclass(frozen=True, slots=True)
class Launch:
    """A worker that was launched: who started it, and when."""

    worker_id: str
    handle: Handle
    since: float
    running_since: float | None = None
    adopted: bool = False


@dataclass(slots=True)
class Breaker:
    """Stops a launcher that only fails. ``error`` while it is open."""

    failures: int = 0
    retry_at: float = 0.0
    pause: float = _PAUSE
    error: LaunchError | None = None

    def fail(self, tail: str, now: float) -> None:
        self.failures += 1
        if self.failures >= _BREAKS:
            self.retry_at, self.pause = now + self.pause, min(2 * self.pause, _LONGEST_PAUSE)
            last = tail.strip().splitlines()[-1:] or ["it said nothing"]
            self.error = LaunchError(
                f"{self.failures} launches of workers in a row came to nothing; the last one: {last[0]}",
                log_tail=tail,
                failures=self.failures,
            )

    def succeed(self) -> None:
        self.failures, self.pause, self.error = 0, _PAUSE, None

    def closed(self, now: float) -> bool:
        return self.failures < _BREAKS or now >= self.retry_at


@dataclass(slots=True)
class _Known:
    """What the thread has seen so far. Times are of the monotonic clock."""

    launches: dict[str, Launch] = field(default_factory=dict)
    ours: set[str] = field(default_factory=set)
    idle_since: dict[str, float] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    up: set[str] = field(default_factory=set)


class Launches:
    """The workers of one network, kept at the number its tasks want."""

    def __init__(
        self,
        rush: Rush,
        launcher: Launcher,
        limits: ScaleLimits,
        make_spec: Callable[[], str],
        on_broken: Callable[[LaunchError], None],
    ) -> None:
        self._rush = rush
        self._launcher = launcher
        self.limits = limits
        self._make_spec = make_spec
        self._on_broken = on_broken
        self._phases: dict[str, HandleState] = {}
        #: What was launched here and may not have ended yet.
        self._handles: dict[str, Handle] = {}
        self._known = _Known()
        self.breaker = Breaker()
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._paused = False

    # --- for the controller -----------------------------------------------------------------------

    def nudge(self) -> None:
        """There may be something to do: calls came."""
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed and not self._paused:
                    self._thread = threading.Thread(target=self._run, name="rushlight-scaler", daemon=True)
                    self._thread.start()
        # Asking costs less than telling, which is done for every call.
        if not self._wake.is_set():
            self._wake.set()

    def pause(self) -> None:
        """Ends the background thread; ``resume`` begins again."""
        with self._lock:
            self._paused = True
            self._stop.set()
            thread, self._thread = self._thread, None
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def resume(self) -> None:
        self._paused = False
        self._stop.clear()
        self.nudge()

    @property
    def paused(self) -> bool:
        return self._paused

    def launch(self, n: int) -> list[str]:
        """Launches n workers now, whatever the limits."""
        with self._lock:
            return self._launch(n)

    def step(self) -> bool:
        """Looks and acts once; True where workers were launched."""
        with self._lock:
            now = time.monotonic()
            infos = self._rush._store.workers()
            self._learn(infos, now)
            counts = self._rush._store.totals().tasks
            supply = self._supply(infos)
            step = plan(Demand(counts.queued, counts.running), supply, self.limits, now)
            return self._act(step, now)

    def close(self, *, workers: bool, kill: bool = False) -> None:
        """Ends the thread, takes back launches that have not started and, where asked to, ends the workers
        that controllers launched here."""
        self._closed = True
        self.pause()
        with self._lock:
            if not workers:
                return
            self._adopt()
            infos = self._rush._store.workers()
            live = [
                info.worker_id for info in infos if info.worker_id in self._known.ours and info.state in _LIVE
            ]
            known = {info.worker_id for info in infos}
            unheard = [one.handle for one in self._known.launches.values() if one.worker_id not in known]
            if live:
                self._rush.stop_workers("kill" if kill else "terminate", live)
            self._launcher.terminate(unheard)
            if not kill:
                self._await_exit(live)
            self._await_end()
            self._rush._store.drop_launches([*live, *self._known.launches])

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed and not self._paused:
            self._wake.clear()
            try:
                self.step()
            except StoreError as error:
                _log.warning("workers cannot be looked after for now: %s", error)
            except RushlightError as error:
                _log.warning("workers cannot be launched: %s", error)
            busy = bool(self._known.launches) or self.breaker.failures > 0
            # However fast calls come.
            self._stop.wait(_SPACING)
            self._wake.wait(_TICK if busy else _REST)

    def _adopt(self) -> None:
        """Takes in what other controllers of the network, also ones that are gone, have launched."""
        for worker_id, packed in self._rush._store.launches().items():
            if worker_id not in self._known.ours:
                self._known.ours.add(worker_id)
                told = msgspec.msgpack.decode(packed)
                handle = Handle(told["launcher"], told["id"], tuple(told["worker_ids"]), told["details"])
                if told["launcher"] == self._launcher.name:
                    launch = Launch(worker_id, handle, time.monotonic(), adopted=True)
                    self._known.launches[worker_id] = launch

    def _learn(self, infos: Sequence[WorkerInfo], now: float) -> None:
        """Compares what is known with who is there."""
        self._adopt()
        known = self._known
        ended: list[str] = []
        for info in infos:
            launch = known.launches.get(info.worker_id)
            if info.state is WorkerState.RUNNING:
                if launch is not None:
                    known.launches.pop(info.worker_id)
                if info.worker_id in known.ours and info.worker_id not in known.up:
                    known.up.add(info.worker_id)
                    self.breaker.succeed()
            elif info.state not in _LIVE and info.worker_id in known.ours:
                known.launches.pop(info.worker_id, None)
                ended.append(info.worker_id)
                known.ours.discard(info.worker_id)
                if info.worker_id not in known.up and not (launch is not None and launch.adopted):
                    known.up.add(info.worker_id)
                    if info.worker_id in self._rush._store.ran():
                        self.breaker.succeed()
                    elif info.state is WorkerState.LOST:
                        self._failed(info.reason or "it ended before it ran", now)
            if info.state is WorkerState.RUNNING and info.current_task is None:
                known.idle_since.setdefault(info.worker_id, now)
            else:
                known.idle_since.pop(info.worker_id, None)
        self._rush._store.drop_launches(ended)
        self._poll(now)

    def _poll(self, now: float) -> None:
        launches = list(self._known.launches.values())
        if not launches:
            return
        by_handle = {launch.handle.id: launch.handle for launch in launches}
        states = dict(zip(by_handle, self._launcher.poll(list(by_handle.values())), strict=True))
        self._phases = {launch.worker_id: states[launch.handle.id] for launch in launches}
        for launch in launches:
            if self._phases[launch.worker_id].phase == "running" and launch.running_since is None:
                self._known.launches[launch.worker_id] = replace(launch, running_since=now)

    def _supply(self, infos: Sequence[WorkerInfo]) -> Supply:
        known = self._known
        registered = {info.worker_id for info in infos if info.state in _LIVE}
        workers = [
            WorkerFact(
                info.worker_id,
                idle_since=known.idle_since.get(info.worker_id),
                leaving=info.worker_id in known.leaving,
                ours=info.worker_id in known.ours,
            )
            for info in infos
            if info.state in _LIVE
        ]
        launches = [
            LaunchFact(one.worker_id, self._phases[one.worker_id].phase, one.since, one.running_since)
            for one in known.launches.values()
            if one.worker_id not in registered
        ]
        return Supply(workers, launches)

    def _act(self, step: Plan, now: float) -> bool:
        for worker_id in step.failed:
            launch = self._known.launches.pop(worker_id)
            state = self._phases[worker_id]
            tail = self._launcher.log_tail(launch.handle)
            if state.phase != "exited":
                self._launcher.terminate([launch.handle])
                tail = tail or f"no word from worker {worker_id} within {self.limits.launch_timeout:g} s"
            self._failed(tail or f"the worker's process {state.reason}", now)
        self._rush._store.drop_launches(step.failed)
        cancelled = [self._known.launches.pop(worker_id).handle for worker_id in step.cancel]
        if cancelled:
            self._launcher.terminate(cancelled)
            self._rush._store.drop_launches(step.cancel)
        if step.drain:
            self._known.leaving.update(step.drain)
            self._rush.stop_workers("terminate", step.drain)
        if step.launch and self.breaker.closed(now):
            self._launch(step.launch)
            return True
        return False

    def _failed(self, tail: str, now: float) -> None:
        self.breaker.fail(tail, now)
        if self.breaker.error is not None:
            self._on_broken(self.breaker.error)

    def _launch(self, n: int) -> list[str]:
        store = self._rush._store
        worker_ids = tuple(_names.random_name() for _ in range(n))
        command = WorkerCommand.build(
            store.network,
            self._make_spec(),
            environment=self._rush._environment(),
            worker_ids=worker_ids,
            outlive=True,
        )
        now = time.monotonic()
        try:
            handles = self._launcher.launch(command, n)
        except LauncherError as error:
            self._failed(str(error.fields.get("log_tail") or error), now)
            return []
        notes: dict[str, bytes] = {}
        states = self._launcher.poll(list(self._handles.values()))
        over = [one for one, state in zip(self._handles, states, strict=True) if state.phase == "exited"]
        for identity in over:
            del self._handles[identity]
        self._handles |= {handle.id: handle for handle in handles}
        for handle in handles:
            for worker_id in handle.worker_ids or worker_ids:
                self._known.launches[worker_id] = Launch(worker_id, handle, now)
                self._known.ours.add(worker_id)
                told: dict[str, Any] = {
                    "launcher": handle.launcher, "id": handle.id, "worker_ids": list(handle.worker_ids),
                    "details": dict(handle.details),
                }  # fmt: skip
                notes[worker_id] = msgspec.msgpack.encode(told)
        store.keep_launches(notes)
        return list(worker_ids)

    def _await_end(self) -> None:
        """Waits for the processes too, where the launcher can: a shutdown leaves nothing behind."""
        wait = getattr(self._launcher, "wait", None)
        handles = list(self._handles.values())
        if wait is not None and not wait(handles, _LAST_WORDS):
            self._launcher.terminate(handles)

    def _await_exit(self, worker_ids: Sequence[str], seconds: float = 10.0) -> None:
        """Waits for workers that were asked to leave; kills those that do not."""
        store, deadline = self._rush._store, time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            standing = store.watch(min(max(left, 0.0), 5.0) + 2.0)
            live = [i.worker_id for i in store.workers() if i.worker_id in worker_ids and i.state in _LIVE]
            if not live:
                return
            if left <= 0:
                self._rush.stop_workers("kill", live)
                return
            store.wait_event(standing.event, min(left, 5.0))
