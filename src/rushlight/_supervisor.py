"""One small process that looks after the worker processes it makes.

Owns their birth, their output, their end and what the network hears of it. Runs none of the user's
code and starts no thread: nothing a worker does can stop it, and forking stays safe.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from . import _children
from ._capture import Stream, open_log_file
from ._child import ChildJob
from ._children import Channel, Guard
from ._connect import StoreConfig
from ._journal import Journal
from ._options import Options, Specs
from ._process import EXIT_TIME, NEVER, SIGNALS, Slot, WorkerProcess, bear
from ._records import Exit, WorkerState
from ._spec import StartSpec
from ._store import OrderListener, Store
from ._store_ends import WorkerEnd
from ._store_roster import WorkerCard
from ._uplink import Uplink
from ._watch import Parent, SignalPipe, Watch
from .errors import ConfigError, DataMissing, RushlightError, StoreError, WorkerLost

_DRAIN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Seconds the ends of workers are tried to be reported when nothing else is left to do.
_LAST_TRIES = 10.0
#: Seconds before a crashed worker is started again, doubled each time.
_RESTART_PAUSE = 0.1
_OWN_FILES, _FILES_PER_WORKER = 64, 6
#: Why a worker that is no member any more is killed, by its letter in the server's answer.
_OUT = {"k": "stopped by a manager", "l": "declared lost, as its lease ran out", "?": "the network was reset"}


class Supervisor:
    """Keeps the workers of its options running until the last one has ended."""

    def __init__(self, store: Store, config: StoreConfig, options: Options) -> None:
        self._store = store
        self._config = config
        self._options = options
        self._uplink = Uplink(store)
        self._specs = Specs(store)
        self._workers: list[Slot] = []
        self._watch = Watch()
        self._listening: tuple[OrderListener, int] | None = None
        self._guard = Guard()
        self._signals: SignalPipe | None = None
        self._parent: Parent | None = None
        self._stopping = False
        self._give_up_at = NEVER
        self._failed = False

    def run(self) -> int | ChildJob:
        """Looks after the workers until none is left and returns the exit code: 0 if none failed.

        Returns once more in every forked worker process, with what that process has to do.
        """
        try:
            self._uplink.open()
            first = self._options.spec_id or self._store.await_spec(NEVER)
            spec = self._specs.load(first)
        except RushlightError as error:
            self._refuse(self._options.worker_ids, error)
            return 1
        self._open(first, spec)
        while not self._over():
            job = self._start_due()
            if job is not None:
                return job
            self._watch.turn(self._time_left())
            self._renew()
            self._enforce_limits()
        return self._close()

    # --- beginning and end ----------------------------------------------------------------------

    def _refuse(self, worker_ids: Sequence[str], error: Exception) -> None:
        """Makes a start that cannot be visible: as workers that ended before they ran."""
        print(f"rushlight worker: {error}", file=sys.stderr)
        if isinstance(error, DataMissing):
            # The network was reset: it is not to come back for the sake of this message.
            return
        spec_id = self._options.spec_id
        spec = self._specs.known(spec_id)
        cards = [self._options.card(spec_id, spec, worker_id, os.getpid()) for worker_id in worker_ids]
        told = Exit(1, None, str(error), f"{type(error).__name__}: {error}")
        ends = [WorkerEnd(card.worker_id, card.token, WorkerState.LOST, exit=told) for card in cards]
        with contextlib.suppress(RushlightError):
            self._store.register(cards, WorkerState.STARTING, self._uplink.lease)
            self._store.bury(ends)

    def _open(self, first: str, spec: StartSpec) -> None:
        self._uplink.lease = spec.lease
        _children.allow_descriptors(_OWN_FILES + _FILES_PER_WORKER * len(self._options.worker_ids))
        self._signals = SignalPipe(SIGNALS)
        self._watch.add(self._signals.fileno(), partial(self._on_signals, self._signals))
        self._listen()
        # Pages stay shared with forked processes while nobody writes to them, and the collector would. What
        # imports leave to be collected is not worth the time it takes to look for it.
        gc.freeze()
        self._start_guard()
        if self._options.parent is not None:
            self._parent = Parent(self._options.parent)
            for descriptor in self._parent.descriptors():
                self._watch.add(descriptor, partial(self._on_parent, self._parent))
            self._on_parent(self._parent)
        for name in self._options.worker_ids:
            start_at = None if self._stopping else 0.0
            self._workers.append(Slot(name, first, spec.max_restarts, start_at))

    def _over(self) -> bool:
        if any(worker.process is not None or worker.start_at is not None for worker in self._workers):
            return False
        if not self._uplink.busy:
            return True
        now = time.monotonic()
        self._give_up_at = min(self._give_up_at, now + _LAST_TRIES)
        return now >= self._give_up_at

    def _close(self) -> int:
        self._guard.stop()
        unsaid = self._uplink.unsaid_ends
        if unsaid:
            print(f"rushlight worker: the end of {unsaid} workers could not be reported", file=sys.stderr)
        self._uplink.close()
        self._let_go(restore=False)
        return 1 if self._failed or unsaid else 0

    def _let_go(self, *, restore: bool) -> None:
        """Closes what a supervisor alone has open: at its end, and in every new worker."""
        self._watch.close()
        if self._signals is not None:
            self._signals.close(restore=restore)
        if self._parent is not None:
            self._parent.close()

    # --- birth ----------------------------------------------------------------------------------

    def _start_due(self) -> ChildJob | None:
        """Starts the workers that are due; returns the job of a new worker in its own process."""
        if self._uplink.away or self._uplink.busy:
            return None
        now = time.monotonic()
        born: list[tuple[Slot, WorkerProcess]] = []
        for worker in self._workers:
            if worker.start_at is not None and worker.start_at <= now and worker.process is None:
                worker.start_at = None
                try:
                    process = self._bear(worker)
                except (OSError, RushlightError) as error:
                    self._failed = True
                    self._refuse([worker.worker_id], error)
                    continue
                if isinstance(process, ChildJob):
                    return process
                born.append((worker, process))
        if born:
            self._admit(born)
        return None

    def _bear(self, worker: Slot) -> WorkerProcess | ChildJob:
        spec = self._specs.load(worker.spec_id)
        if worker.reload:
            worker.reload, worker.restarts_left = False, spec.max_restarts
        card = self._options.card(worker.spec_id, spec, worker.worker_id, 0)
        log = open_log_file(spec.log_dir, worker.worker_id)
        # A process that is started anew does not see this one's memory.
        journal = None if self._options.spawn else Journal()
        process = bear(card, log, journal, spec.max_memory)
        if isinstance(process, Channel):
            if log is not None:
                os.close(log)
            return self._become(card, process, journal)
        worker.process = process
        self._guard.add(process.born.pid)
        for stream, descriptor in process.capture.descriptors.items():
            self._watch.add(descriptor, partial(self._on_output, process, stream))
        self._watch.add(process.born.channel.fileno(), partial(self._on_message, worker, process))
        if process.born.pidfd is not None:
            self._watch.add(process.born.pidfd, partial(self._on_end, worker, process))
        return process

    def _become(self, card: WorkerCard, channel: Channel, journal: Journal | None) -> ChildJob:
        """In the new process: lets go of all that is the supervisor's."""
        if self._options.spawn:
            _children.start_anew(channel)
        self._let_go(restore=True)
        self._guard.abandon()
        for process in self._processes():
            process.abandon()
        spec = self._specs.known(card.spec)
        return ChildJob(self._config, self._options.network, card, card.spec, channel, spec, journal)

    def _admit(self, born: list[tuple[Slot, WorkerProcess]]) -> None:
        """Registers new processes, all in one command, and lets them begin; or ends them."""
        try:
            self._uplink.register([process.card for _, process in born])
        except (ConfigError, WorkerLost) as error:
            print(f"rushlight worker: {error}", file=sys.stderr)
            self._failed = True
            for _, process in born:
                process.kill(str(error))
            return
        except StoreError as error:
            self._uplink.lose(error)
            self._listen()
            for worker, process in born:
                process.kill(str(error))
                worker.start_at = time.monotonic()
            return
        for _, process in born:
            process.admitted = True
            options, card = self._options, process.card
            if options.spawn:
                process.born.channel.send(network=options.network, spec_id=card.spec, card=asdict(card))
            process.born.channel.send(event="go")

    # --- what happens ---------------------------------------------------------------------------

    def _on_output(self, process: WorkerProcess, stream: Stream) -> None:
        descriptor = process.capture.descriptors[stream]
        process.capture.read(stream)
        if stream not in process.capture.descriptors:
            self._watch.remove(descriptor)

    def _on_message(self, worker: Slot, process: WorkerProcess) -> None:
        messages = process.hear()
        if messages is None:
            self._watch.remove(process.born.channel.fileno())
            return
        for message in messages:
            if message["event"] == "leave":
                self._uplink.ask_to_leave([worker.worker_id])
            elif message["event"] == "limit":
                self._uplink.look_in(message["seconds"])

    def _on_end(self, worker: Slot, process: WorkerProcess) -> None:
        watched = [*process.descriptors(), *process.capture.descriptors.values()]
        verdict = process.end()
        if verdict is None:
            return
        self._guard.remove(process.born.pid)
        self._watch.remove(*watched)
        left = process.left()
        process.abandon()
        worker.process = None
        if not process.admitted:
            return
        card = process.card
        again = bool(verdict.failed and process.ran and worker.restarts_left and not self._stopping)
        end = WorkerEnd(card.worker_id, card.token, verdict.state, verdict.message, verdict.exit, again, left)
        self._uplink.ended(end, process.capture.take())
        if again:
            lives = self._specs.known(card.spec).max_restarts - worker.restarts_left
            worker.restarts_left -= 1
            worker.start_at = time.monotonic() + _RESTART_PAUSE * 2 ** min(lives, 6)
        else:
            self._failed = self._failed or verdict.failed

    def _on_orders(self) -> None:
        for order in self._uplink.orders():
            for worker in self._workers:
                if worker.worker_id not in order.worker_ids:
                    continue
                if order.op == "replace" and worker.process is not None:
                    self._interrupt(worker.process, order.token)
                elif order.op == "reload":
                    self._reload(worker, order.spec)
                elif order.op == "kill":
                    worker.start_at, worker.restarts_left, worker.reload = None, 0, False
                    if worker.process is not None:
                        worker.process.kill(_OUT["k"])

    def _reload(self, worker: Slot, spec_id: str) -> None:
        """The worker leaves after the task at hand, and begins again with other start arguments."""
        worker.spec_id, worker.reload = spec_id, True
        if worker.process is not None and not self._stopping:
            self._uplink.ask_to_change(worker.worker_id)

    def _interrupt(self, process: WorkerProcess, token: str) -> None:
        """Ends the life the token names: a task of it ran too long, or was cancelled. The network expects the
        worker back, which does not count as a restart."""
        if process.card.token == token:
            process.kill("its task was stopped")

    def _on_signals(self, signals: SignalPipe) -> None:
        for number in signals.read():
            if number == signal.SIGQUIT or (number in _DRAIN and self._stopping):
                self._stop_now(f"told to stop by {number.name}")
            elif number in _DRAIN:
                self._drain(number.name)
        # Where there are no pidfds, SIGCHLD tells that some process has ended, but not which.
        for worker in self._workers:
            if worker.process is not None and worker.process.born.pidfd is None:
                self._on_end(worker, worker.process)
        if self._guard.pidfd is None:
            self._start_guard()

    def _on_parent(self, parent: Parent) -> None:
        if parent.ended():
            self._stop_now("the process that launched it has ended")

    # --- what is done about it ------------------------------------------------------------------

    def _renew(self) -> None:
        """Tells the server what is due, and ends workers it says are members no more."""
        members = [process for process in self._processes() if process.admitted]
        letters = self._uplink.tend(
            [process.card for process in members],
            [(process.card.worker_id, process.capture) for process in members],
        )
        self._listen()
        for worker_id in self._uplink.take_interrupted():
            for worker in self._workers:
                if worker.worker_id == worker_id and not self._stopping:
                    worker.start_at = time.monotonic()
        for process, letter in zip(members, letters, strict=False):
            if letter == "i":
                self._interrupt(process, process.card.token)
            elif letter in _OUT:
                process.kill(_OUT[letter])
            elif letter == "t":
                process.limit(EXIT_TIME, f"did not exit within {EXIT_TIME:g} s after it had left")

    def _enforce_limits(self) -> None:
        now = time.monotonic()
        for process in self._processes():
            process.enforce(now)

    def _drain(self, signal_name: str) -> None:
        """Lets the workers finish the task at hand, then leave, within the grace."""
        self._stopping, self._uplink.come_back = True, False
        grace = self._options.grace
        for worker in self._workers:
            worker.start_at = None
        for process in self._processes():
            self._uplink.ask_to_leave([process.card.worker_id])
            process.limit(grace, f"did not leave within {grace:g} s after {signal_name}")

    def _stop_now(self, reason: str) -> None:
        self._stopping, self._uplink.come_back = True, False
        if self._parent is not None:
            # They stay readable from now on.
            self._watch.remove(*self._parent.descriptors())
        for worker in self._workers:
            worker.start_at = None
            if worker.process is not None:
                worker.process.stop(reason)

    def _start_guard(self) -> None:
        """Starts the guard, or another one if somebody killed it."""
        if not self._guard.ended():
            return
        self._watch.remove(self._guard.pidfd)
        self._guard.start([process.born.pid for process in self._processes()])
        if self._guard.pidfd is not None:
            self._watch.add(self._guard.pidfd, self._start_guard)

    def _processes(self) -> list[WorkerProcess]:
        return [worker.process for worker in self._workers if worker.process is not None]

    def _listen(self) -> None:
        """Selects on the listener there is now."""
        listener = self._uplink.listener
        if self._listening is not None and self._listening[0] is not listener:
            self._watch.remove(self._listening[1])
            self._listening = None
        if self._listening is None and listener is not None:
            self._listening = listener, listener.fileno()
            self._watch.add(listener.fileno(), self._on_orders)

    def _time_left(self) -> float | None:
        """Seconds until something is due without anything happening; None for never."""
        now = time.monotonic()
        processes = self._processes()
        flush = any(process.capture.pending for process in processes if process.admitted)
        due = [now + self._uplink.time_left(flush=flush), self._give_up_at]
        due += [process.due for process in processes]
        if not self._uplink.away and not self._uplink.busy:
            due += [worker.start_at for worker in self._workers if worker.start_at is not None]
        left = min(due) - now
        return None if left == NEVER else max(0.0, left)
