"""A run from the start of its workers until the last one has left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rushlight import Rush
from rushlight.errors import WaitTimeout, WorkerStartError

from ._interrupt import StopRequests
from ._live import Display
from ._progress import FINAL, Ending, Picture, Progress, Record, all_left, casualties, count_states
from ._waiting import own_workers

#: Seconds between two looks at a network where much happens, and where nothing does.
BUSY, QUIET = 0.1, 0.5
#: Seconds that workers have to finish the task at hand after ``--timeout``.
GRACE = 30.0

_SEVERITY = ("", "terminate", "kill")
_NOTES = {
    "interrupted": "stopping: workers finish the task at hand (Ctrl-C again kills them)",
    "timeout": f"time is up: workers finish the task at hand; what is left in {GRACE:.0f} s is killed",
    "killed": "killing the workers",
    "died": "a worker could not start: killing the others",
}


@dataclass(slots=True)
class Watch:
    """A run that is going on: what is watched, and what its workers have been told so far."""

    rush: Rush
    screen: Display
    stops: StopRequests
    progress: Progress
    worker_ids: tuple[str, ...]
    timeout: float | None
    started: float
    arrived: bool = False
    told: Literal["", "terminate", "kill"] = ""
    reason: str = "done"
    #: The workers that know of ``told``; one that registers later is told then.
    obeying: set[str] = field(default_factory=set)
    start_error: WorkerStartError | None = None
    #: Some workers were stopped before they came; nobody waits for them.
    cut_short: bool = False

    def expects_nobody(self, n_known: int) -> bool:
        """Whether all have come that will; a network that is reset forgets workers that had come."""
        return (
            self.arrived or self.cut_short or self.start_error is not None or n_known == len(self.worker_ids)
        )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


def follow(watch: Watch) -> list[Record]:
    """Watch until every worker has left; the workers as they were in the end.

    Woken by whatever changes in the network; :data:`QUIET` bounds only how late a signal or the
    timeout is noticed, :data:`BUSY` how often a busy network is asked.
    """
    while True:
        changes = watch.rush.changes()
        watch.progress.add(watch.rush.fetch_new_tasks(as_="dicts"), time.monotonic())
        workers = own_workers(watch.rush, watch.worker_ids)
        watch.screen.show(_picture(watch, workers))
        if watch.expects_nobody(len(workers)) and all_left(workers):
            break
        _obey(watch, workers)
        _greet(watch)
        if changes.wait(QUIET):
            time.sleep(BUSY)
    watch.progress.add(watch.rush.fetch_new_tasks(as_="dicts"), time.monotonic())
    return workers


def next_order(
    stops: int, seconds: float, timeout: float | None, *, broken: bool
) -> tuple[Literal["", "terminate", "kill"], str]:
    """What the workers should have been told by now, and why."""
    if stops >= 2 or (timeout is not None and seconds >= timeout + GRACE):
        return "kill", "killed"
    if broken:
        return "kill", "died"
    if stops == 1:
        return "terminate", "interrupted"
    if timeout is not None and seconds >= timeout:
        return "terminate", "timeout"
    return "", "done"


def _obey(watch: Watch, workers: Sequence[Record]) -> None:
    order, reason = next_order(
        watch.stops.count, watch.seconds, watch.timeout, broken=watch.start_error is not None
    )
    if _SEVERITY.index(order) > _SEVERITY.index(watch.told):
        watch.told, watch.reason = order, reason
        watch.obeying.clear()
        watch.screen.say(_NOTES[reason])
    if not watch.told:
        return
    live = {str(w["worker_id"]) for w in workers if str(w["state"]) not in FINAL}
    news = sorted(live - watch.obeying)
    if news:
        watch.rush.stop_workers(watch.told, worker_ids=news)
        watch.obeying.update(news)


def _greet(watch: Watch) -> None:
    """Until all workers have come: notice at once when one cannot."""
    if watch.arrived or watch.cut_short or watch.start_error is not None:
        return
    try:
        watch.rush.wait_for_workers(worker_ids=watch.worker_ids, timeout=0)
        watch.arrived = True
    except WaitTimeout:
        return
    except WorkerStartError as error:
        if watch.told:
            watch.cut_short = True
        else:
            watch.start_error = error


def _picture(watch: Watch, workers: Sequence[Record]) -> Picture:
    counts = watch.rush.counts()
    states = count_states(workers)
    states["starting"] += len(watch.worker_ids) - len(workers)
    return Picture(
        seconds=watch.seconds,
        tasks={s: getattr(counts, s) for s in ("queued", "running", "finished", "failed")},
        workers=states,
        rate=watch.progress.rate(time.monotonic()),
        best=watch.progress.best_value,
    )


def ending_of(watch: Watch, workers: Sequence[Record]) -> Ending:
    """How the run ended, from what its workers left behind."""
    died = [] if watch.told == "kill" and watch.start_error is None else casualties(workers)
    n_failed = sum(int(w["n_failed"] or 0) for w in workers)
    failures = _messages(watch.rush, watch.worker_ids) if n_failed or died or watch.told else Counter[str]()
    reason = "died" if died or watch.start_error else watch.reason
    if watch.arrived and len(workers) < len(watch.worker_ids):
        reason = "reset"
    return Ending(
        reason=reason,
        seconds=watch.seconds,
        workers=workers,
        died=died,
        n_finished=sum(int(w["n_finished"] or 0) for w in workers),
        n_failed=max(n_failed, failures.total()),
        failures=failures,
        start_error=watch.start_error,
    )


def _messages(rush: Rush, worker_ids: tuple[str, ...]) -> Counter[str]:
    wanted = set(worker_ids)
    failed = rush.fetch_failed_tasks(as_="dicts")
    return Counter(str(t["condition"]) for t in failed if t["worker_id"] in wanted)
