"""What is known of a controller's workers: those that are there, those that were launched and what became of
them, also by other controllers.

Looks and remembers; never launches or ends anybody (that is ``_launches``), and decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from ._breaker import Breaker
from ._launched import Known, Launch, fact_of, handles_of, told_of
from ._manager import Rush
from ._peers import Peers
from ._scaling import Supply, WorkerFact
from ._store_calls import Crew
from .errors import LaunchError
from .launchers import RUNNING, Launcher

#: A launcher is asked after so many times as long as its answer took, and the more seldom the longer nothing
#: has been launched: schedulers do not like to be asked. Seconds at most.
_POLL_SHARE, _POLL_AGE, _LONGEST_POLL = 20.0, 0.1, 5.0
_FINAL: Final = ("t", "k", "l")


class Lookout:
    """The workers and launches of one network, as they were seen last."""

    def __init__(
        self, rush: Rush, launcher: Launcher, on_broken: Callable[[LaunchError], None], peers: Peers
    ) -> None:
        self._rush = rush
        self._launcher = launcher
        self._on_broken = on_broken
        self._peers = peers
        self._known = Known()
        self._closed = False
        self.breaker = Breaker()

    @property
    def error(self) -> LaunchError | None:
        """Why no worker is to be expected: launches have failed so often, and none is under way."""
        return None if self._known.launches else self.breaker.error

    def _poll(self, now: float) -> None:
        """Asks the launcher after those that have not registered, now and then."""
        there = self._there()
        asked = [
            one for one in self._known.launches.values() if one.handle is not None and one.owner not in there
        ]
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
            if worker_id in known.owners and (launch is None or launch.handle is not None):
                continue
            handle, owner = told_of(noted.told)
            known.owners[worker_id] = owner
            if noted.ran or noted.letter in _FINAL:
                continue
            if handle.id and handle.launcher == self._launcher.name:
                known.launches[worker_id] = Launch(worker_id, handle, now, adopted=True, owner=owner)
                known.next_poll = now
            elif launch is None:
                known.launches[worker_id] = Launch(
                    worker_id, None, now, RUNNING, now, adopted=True, owner=owner
                )

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
                    known.owners.pop(worker_id, None)
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

    def _there(self) -> Collection[str]:
        """The controllers that look after what they have launched."""
        if any(owner not in ("", self._peers.token) for owner in self._known.owners.values()):
            return self._peers.there()
        return ()

    def _supply(self, crew: Crew) -> Supply:
        known, there = self._known, self._there()
        workers = [
            WorkerFact(
                worker_id,
                idle_since=known.idle[worker_id][0] if worker_id in known.idle else None,
                leaving=mate.letter == "d",
                ours=worker_id in known.owners,
                kept=known.owners.get(worker_id) in there,
            )
            for worker_id, mate in crew.members.items()
        ]
        coming = [one for one in known.launches.values() if one.worker_id not in crew.members]
        return Supply(workers, [fact_of(one, there) for one in coming])

    def _failed(self, tails: Sequence[str], now: float) -> None:
        if not tails:
            return
        self.breaker.fail(tails, now)
        error = self.error
        if error is not None and not self._closed:
            self._on_broken(error)
