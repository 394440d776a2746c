"""A controller's workers: launched, counted and let go in the background, each known by its id from the
start.

Owns the thread that tends them, and all that is done about them. What is known is ``_lookout``'s; what to do
is decided in ``_scaling`` and ``_breaker``; what a worker does, in ``_call_loop``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from . import _names
from ._launched import Launch, handles_of, note_of, unused
from ._lookout import Lookout
from ._manager import Rush
from ._peers import Peers, Turn
from ._scaling import Demand, Peak, Plan, ScaleLimits, plan
from ._store_calls import Crew
from .errors import LauncherError, LaunchError
from .launchers import Handle, Launcher, WorkerCommand

_log = logging.getLogger("rushlight")
#: Seconds between two looks while something is under way, and while nothing is; how long the first look waits
#: for the calls that come with the first, so that one batch is launched for all.
_TICK, _REST, _GATHER = 0.1, 1.0, 0.005
#: Seconds workers get to leave before they are killed, and their processes for exit handlers of their own.
_EXIT_TIME, _LAST_WORDS = 10.0, 10.0


class Launches(Lookout):
    """The workers of one network, kept at the number its tasks want."""

    def __init__(
        self,
        rush: Rush,
        launcher: Launcher,
        limits: ScaleLimits,
        make_spec: Callable[[], str],
        on_broken: Callable[[LaunchError], None],
        peers: Peers,
    ) -> None:
        super().__init__(rush, launcher, on_broken, peers)
        self.limits = limits
        self._make_spec = make_spec
        #: What was launched here and may not have ended yet.
        self._handles: dict[str, Handle] = {}
        self._peak = Peak(limits.settle)
        self._lock = threading.RLock()
        self._wake, self._halt = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._queued = 0

    # --- for the controller -----------------------------------------------------------------------

    def nudge(self) -> None:
        """There may be something to do: calls came."""
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed and not self._halt.is_set():
                    self._thread = threading.Thread(target=self._run, name="rushlight-scaler", daemon=True)
                    self._thread.start()
        # Asking costs less than telling, which is done for every call.
        if not self._wake.is_set():
            self._wake.set()

    def pause(self) -> None:
        """Ends the background thread; ``resume`` begins again."""
        with self._lock:
            self._halt.set()
            thread, self._thread = self._thread, None
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def resume(self) -> None:
        """Looks after the workers in the background. Raises RuntimeError once closed."""
        with self._lock:
            self._check_open()
            self._halt.clear()
        self.nudge()

    def launch(self, n: int) -> list[str]:
        """Launches n workers now, whatever the limits. Raises RuntimeError once closed."""
        with self._lock:
            self._check_open()
            return self._launch(n)

    def step(self) -> bool:
        """Looks and acts once; True where workers were launched. Raises RuntimeError once closed."""
        with self._lock:
            self._check_open()
            if not self._decide()[0]:
                return False
            with self._peers.turn() as turn:
                # What others have done until it was ours counts as well.
                return bool(turn) and self._act(*self._decide(), turn)

    def close(self, *, workers: bool, kill: bool = False) -> None:
        """Ends the thread for good and, where asked to, takes back launches that have not started and ends
        the workers that controllers launched here."""
        self._closed = True
        self.pause()
        with self._lock:
            if workers:
                self._dismiss(kill=kill)
                self._await_end()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("cannot launch workers after shutdown")

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._halt.is_set():
            self._wake.clear()
            self._halt.wait(_GATHER)
            try:
                with self._lock:
                    if self._halt.is_set():
                        return
                    self.step()
            except Exception as error:
                # Whatever it is: without this thread every call would wait for ever.
                _log.warning("workers cannot be looked after for now: %s: %s", type(error).__name__, error)
            self._halt.wait(_TICK)
            if not (self._queued or self._known.launches or self.breaker.failures):
                self._wake.wait(_REST)

    # --- looking ----------------------------------------------------------------------------------

    def _decide(self) -> tuple[Plan, Crew, float]:
        """What to do, as of this look."""
        now = time.monotonic()
        # The launcher first: of one that has ended by then, all that it did is seen by the look.
        self._poll(now)
        crew = self._look(now)
        self._queued, tasks = crew.queued, crew.queued + crew.running
        demand = Demand(crew.queued, crew.running, self._peak.tell(tasks, now))
        step = plan(demand, self._supply(crew), self.limits, now)
        n = self.breaker.allows(step.launch, len(self._known.launches) - len(step.failed), now)
        return replace(step, launch=n), crew, now

    # --- acting -----------------------------------------------------------------------------------

    def _act(self, step: Plan, crew: Crew, now: float, turn: Turn) -> bool:
        self._give_up(step.failed, crew, now)
        if step.cancel:
            self._terminate([self._known.launches.pop(worker_id) for worker_id in step.cancel])
            self._rush._store.drop_launches(step.cancel)
        if step.drain:
            self._rush.stop_workers("terminate", step.drain)
        n = self.breaker.allows(step.launch, len(self._known.launches), now)
        return bool(n and self._launch(n, turn))

    def _give_up(self, failed: Sequence[str], crew: Crew, now: float) -> None:
        """Launches that have ended, or were not heard of in time."""
        told, tails, late = list[str](), list[str](), list[Launch]()
        for worker_id in failed:
            launch = self._known.launches.pop(worker_id)
            if launch.handle is None:
                # Nobody here can tell what became of it.
                continue
            told.append(worker_id)
            tail = self._launcher.log_tail(launch.handle)
            if launch.state.phase != "exited":
                late.append(launch)
                tail = tail or f"no word from worker {worker_id} within {self.limits.launch_timeout:g} s"
            tails.append(tail or f"the worker's process {launch.state.reason or 'ended'}")
        # One process or job may be that of others, which did register.
        self._terminate(unused(late, crew))
        self._rush._store.drop_launches(told)
        self._failed(tails, now)

    def _terminate(self, launches: Iterable[Launch]) -> None:
        handles = handles_of(launches)
        if handles:
            self._launcher.terminate(handles)

    def _launch(self, n: int, turn: Turn | None = None) -> list[str]:
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
        # Noted first: whoever looks after us must know of every worker that may come.
        note = note_of(Handle(self._launcher.name, ""), self._peers.token)
        if not store.keep_launches(dict.fromkeys(worker_ids, note), "" if turn is None else turn.name):
            return []
        if turn is not None:
            # A launcher may take its time.
            turn.end()
        self._known.owners.update(dict.fromkeys(worker_ids, self._peers.token))
        try:
            handles = self._launcher.launch(command, n)
        except Exception as error:
            store.drop_launches(worker_ids)
            said = error.fields.get("log_tail") if isinstance(error, LauncherError) else None
            self._failed([str(said or error or type(error).__name__)], now)
            return []
        by_worker = {wid: handle for handle in handles for wid in handle.worker_ids or worker_ids}
        launched = [worker_id for worker_id in worker_ids if worker_id in by_worker]
        for worker_id in launched:
            self._known.launches[worker_id] = Launch(worker_id, by_worker[worker_id], now)
        self._known.next_poll = now
        store.keep_launches({wid: note_of(by_worker[wid], self._peers.token) for wid in launched})
        store.drop_launches([wid for wid in worker_ids if wid not in by_worker])
        self._remember(handles)
        if len(launched) < n:
            name = self._launcher.name
            self._failed(
                [f"launcher {name!r} told of {len(launched)} of the {n} workers it was to start"], now
            )
        return launched

    def _remember(self, handles: Sequence[Handle]) -> None:
        states = self._launcher.poll(list(self._handles.values()))
        over = [one for one, state in zip(self._handles, states, strict=True) if state.phase == "exited"]
        for identity in over:
            del self._handles[identity]
        self._handles |= {handle.id: handle for handle in handles}

    def _await_end(self) -> None:
        """Waits for the processes too, where the launcher can: a shutdown leaves nothing behind."""
        wait = getattr(self._launcher, "wait", None)
        handles = list(self._handles.values())
        if wait is not None and not wait(handles, _LAST_WORDS):
            self._launcher.terminate(handles)

    def _dismiss(self, *, kill: bool) -> None:
        """Ends the workers that controllers launched, also those that register only now; kills those that do
        not leave. Those of a controller that has come meanwhile are its own, but for a ``kill``."""
        store, deadline = self._rush._store, time.monotonic() + _EXIT_TIME
        told: set[str] = set()
        while True:
            left = deadline - time.monotonic()
            standing = store.watch(min(max(left, 0.0), 5.0) + 2.0)
            crew = self._look(time.monotonic())
            spared = () if kill else self._there()
            live = {wid for wid, owner in self._known.owners.items() if owner not in spared}
            live &= crew.members.keys()
            fresh = sorted(live if left <= 0 else live - told)
            told |= live
            if fresh:
                self._rush.stop_workers("kill" if kill or left <= 0 else "terminate", fresh)
            self._take_back(crew, spared)
            if kill or left <= 0 or not live:
                return
            store.wait_event(standing.event, min(left, 5.0))

    def _take_back(self, crew: Crew, spared: Collection[str]) -> None:
        """Ends launches of which nobody has registered."""
        ours = [one for one in self._known.launches.values() if one.owner not in spared]
        ending = unused(ours, crew)
        self._terminate(ending)
        self._rush._store.drop_launches([self._known.launches.pop(one.worker_id).worker_id for one in ending])
