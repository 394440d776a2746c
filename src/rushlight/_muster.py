"""Waiting for workers to come, and making them go, from a manager.

Any manager can stop any worker: all it takes is the network. Only startup failures of what this manager
launched itself are also looked for in its launchers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from . import _inputs
from ._plan import plan
from ._records import WorkerInfo, WorkerState
from ._store import Store
from .errors import ConfigError, UnknownKey, WaitTimeout, WorkerStartError
from .launchers import Handle, Launcher

#: Seconds a kill waits for the processes to be gone, and a wait for workers lasts by default.
_KILL_TIME = 10.0
_START_TIME = 60.0
_STEP = 5.0
#: Launches that are remembered before those of which nothing is to be learnt any more are forgotten.
_REMEMBERED = 50


@dataclass(frozen=True, slots=True)
class Launched:
    """Workers started together, and what the launcher knows them by."""

    launcher: Launcher
    handles: list[Handle]
    worker_ids: tuple[str, ...]

    @property
    def over(self) -> bool:
        """True once nothing of it runs or is pending any more."""
        return all(state.phase == "exited" for state in self.launcher.poll(self.handles))


class Muster:
    """Calling the roll of a network's workers, and dismissing them."""

    _store: Store

    def _begin_muster(self) -> None:
        self._launched: list[Launched] = []
        #: Lives that ended before a restart, by worker id: what they were says nothing of the next one.
        self._past: dict[str, float | None] = {}
        #: Failed starts (id and time) that were raised already.
        self._told: set[tuple[str, float | None]] = set()
        self._launch_lock = threading.Lock()
        self._forget_at = _REMEMBERED

    def _forget_launches(self) -> None:
        """Forgets launches that are over and whose workers all ran, once there are many: whatever is asked
        later, they are no answer to it."""
        if len(self._launched) < self._forget_at:
            return
        ran = self._store.ran()
        with self._launch_lock:
            self._launched = [
                batch for batch in self._launched if not (ran.issuperset(batch.worker_ids) and batch.over)
            ]
            self._forget_at = max(_REMEMBERED, 2 * len(self._launched))

    # --- waiting --------------------------------------------------------------------------------

    def wait_for_workers(
        self,
        n: int | None = None,
        worker_ids: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Waits until n workers of the network (of ``worker_ids``, where given) have been running; with only
        ``worker_ids``, all of them.

        Raises WorkerStartError at once when one of them ended before it ran, with the tail of what it said;
        WaitTimeout after ``timeout`` seconds (default: the plan's, else 60; 0 looks once).
        """
        named = None if worker_ids is None else _inputs.key_list(worker_ids, "worker_ids")
        needed = _needed(n, named)
        limit = timeout if timeout is not None else plan.current().start_timeout
        limit = _START_TIME if limit is None else _inputs.seconds(limit, "timeout") or 0.0
        deadline = time.monotonic() + limit
        history: set[tuple[str, float | None]] | None = set() if named is not None else None
        while True:
            left = max(0.0, deadline - time.monotonic())
            standing = self._store.watch(min(left, _STEP) + 2.0)
            infos = self._current_lives()
            arrived, ended = _arrivals(infos, self._store.ran(), named)
            if len(arrived) >= needed:
                return
            if history is None:
                history = self._old_failures(ended)
            self._raise_start_error(infos, named, [info for info in ended if _life(info) not in history])
            if left <= 0:
                missing = [wid for wid in named or [] if wid not in arrived]
                raise WaitTimeout(
                    f"{len(arrived)} of {needed} worker(s) had come to network {self._store.network!r} after "
                    f"{limit:g} s" + (f"; missing: {', '.join(missing[:5])}" if missing else ""),
                    timeout=limit,
                    remaining=needed - len(arrived),
                )
            # A launcher's process can die without a word to the server: look at it now and then.
            self._store.wait_event(standing.event, min(left, 0.25 if self._watching() else _STEP))

    def _watching(self) -> bool:
        return any(not batch.over for batch in list(self._launched))

    def _current_lives(self) -> list[WorkerInfo]:
        """The workers, without those of whom only a life before their restart is known yet."""
        return [
            info for info in self._store.workers() if self._past.get(info.worker_id, 0.0) != info.started_at
        ]

    def _old_failures(self, ended: list[WorkerInfo]) -> set[tuple[str, float | None]]:
        """Failed starts that are no news to a wait for any workers: raised before, or other managers'."""
        mine = {wid for batch in list(self._launched) for wid in batch.worker_ids}
        lives = {_life(info) for info in ended}
        return {life for life in lives if life in self._told or life[0] not in mine}

    def _raise_start_error(
        self, infos: list[WorkerInfo], named: list[str] | None, ended: list[WorkerInfo]
    ) -> None:
        if ended:
            first = ended[0]
            self._told.add(_life(first))
            raise WorkerStartError(
                f"worker {first.worker_id!r} ended before it ran: {first.reason or first.state}",
                worker_id=first.worker_id,
                exit_code=first.exit_code,
                log_tail=first.reason or "",
            )
        known = {info.worker_id for info in infos}
        launched = list(self._launched)
        # A worker that was restarted is the business of its last launch only.
        last = {wid: batch for batch in launched for wid in batch.worker_ids}
        for batch in launched:
            unheard = [wid for wid in batch.worker_ids if last[wid] is batch and wid not in known]
            silent = [wid for wid in unheard if named is None or wid in named]
            if not silent:
                continue
            for handle, state in zip(batch.handles, batch.launcher.poll(batch.handles), strict=True):
                if state.phase == "exited":
                    # It may have registered its workers and ended between the two looks.
                    if any(info.worker_id == silent[0] for info in self._current_lives()):
                        return
                    tail = batch.launcher.log_tail(handle).strip()
                    raise WorkerStartError(
                        f"worker {silent[0]!r} was never heard of: its supervisor {state.reason}"
                        + (f": {tail.splitlines()[-1]}" if tail else ""),
                        worker_id=silent[0],
                        exit_code=state.code,
                        log_tail=tail,
                    )

    def _more_may_come(self) -> bool:
        """Whether workers may still appear: launched and not yet heard of, or nobody has ever been here."""
        if not self._store.worker_states():
            return True
        known = {info.worker_id for info in self._current_lives()}
        return any(
            any(wid not in known for wid in batch.worker_ids) and not batch.over
            for batch in list(self._launched)
        )

    # --- stopping -------------------------------------------------------------------------------

    def stop_workers(
        self,
        type: Literal["kill", "terminate"] = "kill",  # noqa: A002 - a public name
        worker_ids: Iterable[str] | None = None,
    ) -> list[str]:
        """Stops workers, all or the named ones, whoever started them and wherever they run; returns the ids
        of those that were live.

        ``"terminate"``: they finish the task at hand and leave; does not wait. ``"kill"``: they are members
        no more, their running tasks fail ``Worker was killed``, and their processes are killed; waits up to
        ten seconds for those to be gone. Raises UnknownKey for ids the network never had.
        """
        if type not in ("kill", "terminate"):
            raise ConfigError(f"type={type!r} must be 'kill' or 'terminate'")
        named = None if worker_ids is None else _inputs.key_list(worker_ids, "worker_ids")
        states = self._registered_states(named)
        if named is None:
            wanted = [wid for wid, state in states.items() if state in LIVE]
        else:
            wanted = named
            self._check_known(wanted, states)
        if not wanted:
            return []
        stopped, _idle = self._store.stop(wanted, kill=type == "kill")
        if type == "kill" and stopped:
            self._await_ends(stopped)
        return stopped

    def _registered_states(self, named: list[str] | None) -> dict[str, WorkerState]:
        """The states of all workers, once those launched here just now have registered: they could not be
        stopped before. Waits ten seconds at most."""
        deadline = time.monotonic() + _KILL_TIME
        while True:
            left = deadline - time.monotonic()
            standing = self._store.watch(min(max(left, 0.0), _STEP) + 2.0)
            states = self._store.worker_states()
            coming = [
                wid
                for batch in list(self._launched)
                for wid in batch.worker_ids
                if wid not in states and (named is None or wid in named) and not batch.over
            ]
            if not coming or left <= 0:
                return states
            self._store.wait_event(standing.event, min(left, 0.25))

    def _await_ends(self, worker_ids: list[str]) -> None:
        """Waits for the supervisors' reports that killed workers' processes are gone."""
        deadline = time.monotonic() + _KILL_TIME
        while (left := deadline - time.monotonic()) > 0:
            standing = self._store.watch(min(left, _STEP) + 2.0)
            # A supervisor that is gone itself reports nothing any more.
            gone = {wid for batch in list(self._launched) if batch.over for wid in batch.worker_ids}
            if not set(self._store.unburied(worker_ids)) - gone:
                return
            self._store.wait_event(standing.event, min(left, _STEP))

    def _check_known(self, worker_ids: Iterable[str], known: Mapping[str, Any]) -> None:
        unknown = [wid for wid in worker_ids if wid not in known]
        if unknown:
            raise UnknownKey(f"network {self._store.network!r} has no worker {unknown[0]!r}", keys=unknown)


LIVE = (WorkerState.STARTING, WorkerState.RUNNING)


def _needed(n: int | None, named: list[str] | None) -> int:
    if n is None and named is None:
        raise ConfigError("give n, worker_ids or both")
    if n is None:
        return len(named or [])
    n = _inputs.count(n, "n", least=0)
    if named is not None and n > len(named):
        raise ConfigError(f"n={n} workers cannot come of the {len(named)} in worker_ids")
    return n


def _life(info: WorkerInfo) -> tuple[str, float | None]:
    """What tells a worker from an earlier or later one under its id."""
    return info.worker_id, info.started_at


def _arrivals(
    infos: list[WorkerInfo], ran: set[str], named: list[str] | None
) -> tuple[set[str], list[WorkerInfo]]:
    """The workers that have been running, and those that ended before they ever were."""
    mine = [info for info in infos if named is None or info.worker_id in named]
    ended = [info for info in mine if info.worker_id not in ran and info.state not in LIVE]
    return {info.worker_id for info in mine if info.worker_id in ran}, ended
