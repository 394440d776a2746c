"""What one worker process does: open its start arguments, run the loop, tell how that ended.

Owns the worker's life between its birth and its exit code. Registering it, watching it and reporting
its end is the supervisor's; tasks are RushWorker's.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import FrameType
from typing import Any, Protocol, runtime_checkable

from . import _inputs
from ._children import Channel, set_name
from ._connect import StoreConfig
from ._journal import Journal
from ._logs import NetworkHandler
from ._member import Member
from ._records import WorkerState
from ._spec import StartSpec, load_spec, open_code
from ._store import Store
from ._store_roster import WorkerCard
from ._verdict import Kind, Report
from ._worker import RushWorker
from .errors import RushlightError, WorkerLost, escaped

_TEXT_LIMIT = 4096
_TRACEBACK_LIMIT = 16384


@dataclass(frozen=True, slots=True)
class ChildJob:
    """What a worker process is told at its birth; ``spec`` where its supervisor has read it already,
    ``journal`` where that is to know what the process is at."""

    config: StoreConfig
    network: str
    card: WorkerCard
    spec_id: str
    channel: Channel
    spec: StartSpec | None = None
    journal: Journal | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker that has all it needs to run."""

    loop: Callable[..., Any]
    kwargs: dict[str, Any]
    worker: RushWorker
    log: NetworkHandler


@runtime_checkable
class Preparing(Protocol):
    """A loop that has something to do first, without which its worker has not come up."""

    def prepare(self, worker: RushWorker, /, **kwargs: Any) -> None:
        """Called with what the loop is called with, before it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a worker's loop ended, for the supervisor and for the exit code."""

    report: Report
    exit_code: int


def run(job: ChildJob) -> int:
    """Lives the worker's life and returns the exit code of its process.

    Waits for the supervisor's word that the worker is registered, so that whatever fails from here on
    can be reported of it.
    """
    _settle_in(job)
    if job.channel.wait() is None:
        return 1
    outcome = _live(job)
    sys.stdout.flush()
    sys.stderr.flush()
    job.channel.send(event="ended", report=asdict(outcome.report))
    return outcome.exit_code


def _live(job: ChildJob) -> Outcome:
    try:
        ready = _prepare(job)
    except BaseException as error:
        return _tell(error, ready=False)
    job.channel.send(event="running")
    try:
        ready.loop(ready.worker, **ready.kwargs)
    except BaseException as error:
        outcome = _tell(error, ready=True)
    else:
        outcome = Outcome(Report("returned"), 0)
    return _leave(job, ready, outcome)


def _settle_in(job: ChildJob) -> None:
    """Makes this a process of its own: streams, signals, name."""
    faulthandler.enable(file=2)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = open(  # noqa: SIM115
            descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    setattr(sys, "__stdin__", sys.stdin)  # noqa: B010 - typed as final, and about to be another
    set_name(job.card.worker_id)

    def ask_to_leave(_number: int, _frame: FrameType | None) -> None:
        job.channel.send(event="leave")

    signal.signal(signal.SIGTERM, ask_to_leave)
    _leave_forks_alone(ask_to_leave)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _leave_forks_alone(handler: Callable[[int, FrameType | None], None]) -> None:
    """A process the loop forks (a pool's) is none of ours: it dies of SIGTERM and says nothing. The signal is
    held back over the fork, as Python forgets one that meets the new process at its birth."""
    term, before = {signal.SIGTERM}, []

    def hold_back() -> None:
        before.append(signal.pthread_sigmask(signal.SIG_BLOCK, term))

    def go_on() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.pop())

    def be_ordinary() -> None:
        if signal.getsignal(signal.SIGTERM) is handler:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        go_on()

    os.register_at_fork(before=hold_back, after_in_parent=go_on, after_in_child=be_ordinary)


def _prepare(job: ChildJob) -> Ready:
    """Everything before the loop's first line; what fails here is a failed start."""
    store = Store(job.config, job.network)
    spec = job.spec or load_spec(store, job.spec_id)
    store.large.serve_worker(spec.large_object_dir)
    store.codec.limit(spec.max_value_size)
    member = Member(store, replace(job.card, pid=os.getpid()), spec.lease)
    # Registered already; said again so that this connection knows the network's epoch.
    member.join(WorkerState.STARTING)
    log = _open_log(store, job.card.worker_id, spec.log_level)
    try:
        _set_paths(spec)
        for package in spec.packages:
            importlib.import_module(package)
        loop, kwargs, names = open_code(store, spec)
        _set_globals(loop, names)
        worker = RushWorker.supervised(store, member, partial(_tell_limit, job.channel))
        worker._journal = job.journal
        _inputs.check_call(loop, worker, kwargs)
        if isinstance(loop, Preparing):
            loop.prepare(worker, **kwargs)
        member.join(WorkerState.RUNNING)
    except BaseException:
        log.close()
        raise
    return Ready(loop, kwargs, worker, log)


def _tell_limit(channel: Channel, seconds: float) -> None:
    channel.send(event="limit", seconds=seconds)


def _open_log(store: Store, worker_id: str, level: str | int | None) -> NetworkHandler:
    """Sends what is logged at or above the level to the network; None leaves the level as Python has it."""
    handler = NetworkHandler(partial(store.add_logs, worker_id))
    root = logging.getLogger()
    root.addHandler(handler)
    if level is not None:
        root.setLevel(level.upper() if isinstance(level, str) else level)
    return handler


def _leave(job: ChildJob, ready: Ready, outcome: Outcome) -> Outcome:
    """Flushes the log and leaves the network. A worker whose loop failed stays a member: its supervisor
    ends it, with the failure."""
    try:
        ready.log.close()
        if outcome.report.kind == "returned":
            job.channel.send(event="leaving")
            ready.worker.set_terminated()
    except RushlightError:
        # The supervisor's own report says the rest, once the server is back.
        traceback.print_exc()
    return outcome


def _tell(error: BaseException, *, ready: bool) -> Outcome:
    """What an exception means that ended the loop, or kept it from beginning."""
    if isinstance(error, SystemExit) and error.code in (None, 0) and ready:
        return Outcome(Report("returned"), 0)
    # Our own frame on top says nothing to those who read it.
    shown = error.__traceback__.tb_next if ready and error.__traceback__ is not None else error.__traceback__
    text = escaped("".join(traceback.format_exception(type(error), error, shown)))
    print(text, file=sys.stderr, end="")
    name = type(error).__name__
    message = _text(error)
    reason = f"{name}: {message}" if message else name
    if isinstance(error, KeyboardInterrupt):
        return Outcome(Report("stopped", "interrupted by SIGINT"), 128 + signal.SIGINT)
    if isinstance(error, WorkerLost):
        return Outcome(Report("stopped", reason), 1)
    home = type(error).__module__
    path = type(error).__qualname__ if home == "builtins" else f"{home}.{type(error).__qualname__}"
    kind: Kind = "failed" if ready else "unready"
    report = Report(kind, reason, message or name, path, text[-_TRACEBACK_LIMIT:])
    code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
    return Outcome(report, (code & 0xFF) or 1)


def _text(error: BaseException) -> str:
    try:
        return escaped(str(error)[:_TEXT_LIMIT])
    except Exception as second:
        return f"<its text cannot be had: {type(second).__name__}>"


def _set_paths(spec: StartSpec) -> None:
    """Lets the manager's own modules be found here, in its order, as far as they exist here."""
    if spec.directory and os.path.isdir(spec.directory):
        with contextlib.suppress(PermissionError):
            os.chdir(spec.directory)
    paths = [path for path in spec.paths if os.path.exists(path) and path not in sys.path]
    sys.path[:0] = paths


def _set_globals(loop: Callable[..., Any], names: Mapping[str, Any]) -> None:
    """Defines names where the innermost function of the loop looks them up."""
    if not names:
        return
    function: Any = loop
    while True:
        if isinstance(function, partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif hasattr(function, "__func__"):
            function = function.__func__
        else:
            break
    space = getattr(function, "__globals__", None)
    if space is None:
        space = getattr(type(function).__call__, "__globals__", None)
    if space is None:
        raise TypeError(f"globals= needs a loop that is a Python function, not {type(function).__name__}")
    space.update(names)
