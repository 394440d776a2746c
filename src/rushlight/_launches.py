"""A controller's workers: launched, counted and let go in the background, each known by its id from the
start.

Owns the launches and the thread that tends them. What to do is decided in ``_scaling`` and ``_breaker``; what
a worker does, in ``_call_loop``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from . import _names
from ._breaker import Breaker
from ._launched import Known, Launch, fact_of, handles_of, note_of, unused
from ._manager import Rush
from ._scaling import Demand, Peak, Plan, ScaleLimits, Supply, WorkerFact, plan
from ._store_calls import Crew
from .errors import LauncherError, LaunchError
from .launchers import RUNNING, Handle, Launcher, WorkerCommand

_log = logging.getLogger("rushlight")
#: Seconds between two looks while something is under way, and while nothing is; how long the first look waits
#: for the calls that come with the first, so that one batch is launched for all.
_TICK, _REST, _GATHER = 0.1, 1.0, 0.005
#: A launcher is asked after so many times as long as its answer took, and the more seldom the longer nothing
#: has been launched: schedulers do not like to be asked. Seconds at most.
_POLL_SHARE, _POLL_AGE, _LONGEST_POLL = 20.0, 0.1, 5.0
#: Seconds workers get to leave before they are killed, and their processes for exit handlers of their own.
_EXIT_TIME, _LAST_WORDS = 10.0, 10.0
_FINAL: Final = ("t", "k", "l")


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
        #: What was launched here and may not have ended yet.
        self._handles: dict[str, Handle] = {}
        self._known = Known()
        self._peak = Peak(limits.settle)
        self.breaker = Breaker()
        self._lock = threading.RLock()
        self._wake, self._halt = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
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

    @property
    def error(self) -> LaunchError | None:
        """Why no worker is to be expected: launches have failed so often, and none is under way."""
        return None if self._known.launches else self.breaker.error

    def launch(self, n: int) -> list[str]:
        """Launches n workers now, whatever the limits. Raises RuntimeError once closed."""
        with self._lock:
            self._check_open()
            return self._launch(n)

    def step(self) -> bool:
        """Looks and acts once; True where workers were launched. Raises RuntimeError once closed."""
        with self._lock:
            self._check_open()
            now = time.monotonic()
            # The launcher first: of one that has ended by then, all that it did is seen by the look.
            self._poll(now)
            crew = self._look(now)
            self._queued, tasks = crew.queued, crew.queued + crew.running
            demand = Demand(crew.queued, crew.running, self._peak.tell(tasks, now))
            return self._act(plan(demand, self._supply(crew), self.limits, now), crew, now)

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

    def _poll(self, now: float) -> None:
        """Asks the launcher after those that have not registered, now and then."""
        asked = [launch for launch in self._known.launches.values() if launch.handle is not None]
        if not asked or now < self._known.next_poll:
            return
        handles = handles_of(asked)
        began = time.monotonic()
        states = dict(zip([h.id for h in handles], self._launcher.poll(handles), strict=True))
        took = time.monotonic() - began
        age = now - max(launch.since for launch in asked)
        self._known.next_poll = now + min(_LONGEST_POLL, max(_POLL_SHARE * took, _POLL_AGE * age))
        for launch in asked:
            assert launch.handle is not None
            state = states[launch.handle.id]
            first_run = state.phase == "running" and launch.running_since is None
            self._known.launches[launch.worker_id] = replace(
                launch, state=state, running_since=now if first_run else launch.running_since
            )

    def _look(self, now: float) -> Crew:
        """Compares what is known with who is there."""
        store = self._rush._store
        crew = store.crew()
        if crew.overdue:
            store.reap()
            crew = store.crew()
        if crew.epoch != self._known.epoch:
            # The network was reset, and its workers with it.
            self._known = Known(crew.epoch)
        self._adopt(crew, now)
        self._see_launches(crew, now)
        idle = self._known.idle
        for worker_id, mate in crew.members.items():
            if mate.busy or mate.letter != "r":
                idle.pop(worker_id, None)
            elif idle.get(worker_id, (now, -1))[1] != mate.ended:
                # New, or it has done something since the last look.
                idle[worker_id] = now, mate.ended
        for worker_id in idle.keys() - crew.members.keys():
            del idle[worker_id]
        return crew

    def _adopt(self, crew: Crew, now: float) -> None:
        """Takes in what other controllers of the network, also ones that are gone, have launched."""
        known = self._known
        for worker_id, noted in crew.launches.items():
            launch = known.launches.get(worker_id)
            # Of one noted before it was launched more is told later.
            news = worker_id not in known.ours or (launch is not None and launch.handle is None)
            known.ours.add(worker_id)
            if not news or noted.ran or noted.letter in _FINAL:
                continue
            told = msgspec.msgpack.decode(noted.told)
            if told["id"] and told["launcher"] == self._launcher.name:
                handle = Handle(**told | {"worker_ids": tuple(told["worker_ids"])})
                known.launches[worker_id] = Launch(worker_id, handle, now, adopted=True)
                known.next_poll = now
            elif launch is None:
                known.launches[worker_id] = Launch(worker_id, None, now, RUNNING, now, adopted=True)

    def _see_launches(self, crew: Crew, now: float) -> None:
        """What became of launches: workers that run, or that have ended."""
        known = self._known
        ended, tails = [], []
        for worker_id, noted in crew.launches.items():
            final = noted.letter in _FINAL
            if final:
                ended.append(worker_id)
                # One that was lost may come back, and is ours still.
                if noted.letter != "l":
                    known.ours.discard(worker_id)
            if noted.ran or final:
                launch = known.launches.pop(worker_id, None)
                if launch is None or launch.adopted:
                    continue
                if noted.ran:
                    self.breaker.succeed()
                elif noted.letter == "l":
                    tails.append(self._reason_of(worker_id))
        for worker_id in [wid for wid in known.launches if wid in crew.members and wid not in crew.launches]:
            # Its note is gone, but there it is.
            known.launches.pop(worker_id)
        self._rush._store.drop_launches(ended)
        self._failed(tails, now)

    def _reason_of(self, worker_id: str) -> str:
        reasons = {info.worker_id: info.reason for info in self._rush._store.workers()}
        return reasons.get(worker_id) or "it ended before it ran"

    def _supply(self, crew: Crew) -> Supply:
        known = self._known
        workers = [
            WorkerFact(
                worker_id,
                idle_since=known.idle[worker_id][0] if worker_id in known.idle else None,
                leaving=mate.letter == "d",
                ours=worker_id in known.ours,
            )
            for worker_id, mate in crew.members.items()
        ]
        coming = [one for one in known.launches.values() if one.worker_id not in crew.members]
        return Supply(workers, [fact_of(one) for one in coming])

    # --- acting -----------------------------------------------------------------------------------

    def _act(self, step: Plan, crew: Crew, now: float) -> bool:
        self._give_up(step.failed, crew, now)
        if step.cancel:
            self._terminate([self._known.launches.pop(worker_id) for worker_id in step.cancel])
            self._rush._store.drop_launches(step.cancel)
        if step.drain:
            self._rush.stop_workers("terminate", step.drain)
        n = self.breaker.allows(step.launch, len(self._known.launches), now)
        return bool(n and self._launch(n))

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

    def _failed(self, tails: Sequence[str], now: float) -> None:
        if not tails:
            return
        self.breaker.fail(tails, now)
        error = self.error
        if error is not None and not self._closed:
            self._on_broken(error)

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
        # Noted first: whoever goes on after us must know of every worker that may come.
        store.keep_launches(dict.fromkeys(worker_ids, note_of(Handle(self._launcher.name, ""))))
        self._known.ours.update(worker_ids)
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
        store.drop_launches(worker_ids)
        store.keep_launches({worker_id: note_of(by_worker[worker_id]) for worker_id in launched})
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
        not leave."""
        store, deadline = self._rush._store, time.monotonic() + _EXIT_TIME
        told: set[str] = set()
        while True:
            left = deadline - time.monotonic()
            standing = store.watch(min(max(left, 0.0), 5.0) + 2.0)
            crew = self._look(time.monotonic())
            live = self._known.ours & crew.members.keys()
            fresh = sorted(live if left <= 0 else live - told)
            told |= live
            if fresh:
                self._rush.stop_workers("kill" if kill or left <= 0 else "terminate", fresh)
            self._take_back(crew)
            if kill or left <= 0 or not live:
                return
            store.wait_event(standing.event, min(left, 5.0))

    def _take_back(self, crew: Crew) -> None:
        """Ends launches of which nobody has registered."""
        ending = unused(self._known.launches.values(), crew)
        self._terminate(ending)
        self._rush._store.drop_launches([self._known.launches.pop(one.worker_id).worker_id for one in ending])
