"""One life of a worker as its supervisor sees it: the process, its words, its deadline, its end.

Owns what is known of a single process. Decides nothing about the worker's next life and never talks
to the server.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, replace
from typing import Any

from . import _children
from ._capture import Capture
from ._children import Born, Channel
from ._journal import Journal, Left
from ._store_roster import WorkerCard
from ._usage import MemoryLimit
from ._verdict import Report, Verdict, judge

#: Held back from a process between its birth and its own handlers.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD)
#: Seconds a worker may take to exit after its loop has ended.
EXIT_TIME = 10.0
#: And where all are to end now.
_LAST_MOMENT = 2.0
NEVER = float("inf")


@dataclass(slots=True)
class WorkerProcess:
    """A process that is a worker, or becomes one once it is ``admitted`` to the network.

    ``ran``: its loop was begun. ``leaving``: and has returned. ``killed``: why it was killed from here.
    ``deadline``: monotonic time at which it is to be killed, because of ``overdue``. ``journal``: where it
    writes what it is at, if it does. ``memory``: the most it may have.
    """

    card: WorkerCard
    born: Born
    capture: Capture
    admitted: bool = False
    ran: bool = False
    leaving: bool = False
    report: Report | None = None
    killed: str | None = None
    deadline: float = NEVER
    overdue: str = ""
    journal: Journal | None = None
    memory: MemoryLimit | None = None
    own_fault: bool = False

    def limit(self, seconds: float, overdue: str) -> None:
        """Gives the process so long from now, unless it has less already."""
        deadline = time.monotonic() + seconds
        if deadline < self.deadline and self.killed is None:
            self.deadline, self.overdue = deadline, overdue

    @property
    def due(self) -> float:
        """When it is to be looked at again, if nothing happens."""
        if self.memory is None or self.killed is not None:
            return self.deadline
        return min(self.deadline, self.memory.next_look)

    def enforce(self, now: float) -> None:
        """Kills it where its time is over, or it has more memory than it may."""
        if self.deadline <= now:
            self.kill(self.overdue)
        elif self.memory is not None and self.killed is None and self.memory.next_look <= now:
            reason = self.memory.look(self.born.pid, now)
            if reason is not None:
                self.own_fault = True
                self.kill(reason)

    def kill(self, reason: str) -> None:
        """Kills the process and its group; its end is still to be noticed."""
        self.killed = self.killed or reason
        self.deadline = NEVER
        _children.kill_group(self.born.pid)

    def stop(self, reason: str) -> None:
        """Kills the process, unless it is about to exit by itself: the network may know already that its
        worker has left, and the user's code may have something to do at its exit."""
        self.hear()
        if self.leaving:
            self.limit(_LAST_MOMENT, f"{reason}, and it did not exit within {_LAST_MOMENT:g} s")
        else:
            self.kill(reason)

    def hear(self) -> list[dict[str, Any]] | None:
        """Takes in what the process has said of itself; the messages, None once it says no more."""
        messages = self.born.channel.receive()
        if messages is None:
            return None
        for message in messages:
            if message["event"] == "running":
                self.ran = True
            elif message["event"] == "leaving":
                self.leaving = True
            elif message["event"] == "ended":
                self.report = Report(**message["report"])
                self.limit(EXIT_TIME, f"did not exit within {EXIT_TIME:g} s after its loop had ended")
        return messages

    def descriptors(self) -> list[int]:
        """What there is to select on, besides the output."""
        pidfd = [] if self.born.pidfd is None else [self.born.pidfd]
        return [*pidfd, self.born.channel.fileno()]

    def end(self) -> Verdict | None:
        """What the end of the process means; None while it runs. ``capture`` holds all it printed then."""
        status = _children.reap(self.born.pid)
        if status is None:
            return None
        while self.hear():
            pass
        self.capture.finish()
        return judge(status, self.report, self.killed, self.capture.tail(), own_fault=self.own_fault)

    def left(self) -> Left | None:
        """What it was at when it ended; None where nobody knows."""
        return None if self.journal is None else self.journal.read()

    def abandon(self) -> None:
        """Lets go of all descriptors, after the end or in another worker's process."""
        self.capture.abandon()
        self.born.abandon()
        if self.journal is not None:
            self.journal.close()


@dataclass(slots=True)
class Slot:
    """One worker id to be kept alive. ``start_at``: when to start it (again), None for not. ``reload``: it is
    to begin again with the start arguments ``spec_id``."""

    worker_id: str
    spec_id: str
    restarts_left: int
    start_at: float | None = 0.0
    process: WorkerProcess | None = None
    reload: bool = False


def bear(
    card: WorkerCard, log: int | None, journal: Journal | None, max_memory: int | None
) -> WorkerProcess | Channel:
    """Makes a process; in the new one returns its end of the channel, with signals still held back."""
    born: Born | Channel | None = None
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        born = _children.fork()
    finally:
        if not isinstance(born, Channel):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if isinstance(born, Channel):
        return born
    capture = Capture(born.stdout, born.stderr, log)
    memory = None if max_memory is None else MemoryLimit(max_memory)
    return WorkerProcess(replace(card, pid=born.pid), born, capture, journal=journal, memory=memory)
