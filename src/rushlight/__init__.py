"""Rushlight: asynchronous, decentralised computing over Redis or Valkey.

General layout, lowest first; a module imports only from those above it in this list:

    errors, _records                 what there is to say
    _codec, _trust, _keys, _names    values as bytes, signed code, the spelling of keys
    _server, _connect, _wire         the embedded server; reaching a server; one connection
    lua/, _scripts, _store*, _member what a transition is, and every round trip as a verb
    _tables, _logs, _reader, _roster what has been read, as tables
    _seeding, _boards, _budget       seeds, leaderboards and budgets; _sharing has them for workers
    _worker, launchers/              a worker's face; how processes are started
    _child, _supervisor              the life of worker processes
    _isolated, _loops                calls in processes of their own; ready-made worker loops
    _manager                         a manager's face
    _calls, _call_loop               calls of functions as tasks, and the loop that makes them
    _controller                      a controller's face: futures, scaling
    cli/                             the command line

Names without an underscore here are public. Errors live in ``rushlight.errors``, launchers in
``rushlight.launchers``; the names users write are also here.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import errors, launchers, rng
from ._codec import register_type
from ._loops import isolated_loop, worker_loop
from ._plan import plan
from ._records import Counts, Task, TaskState, WaitResult, WorkerInfo, WorkerState, WorkerUsage
from ._version import __version__
from ._worker import RushWorker
from .errors import (
    CodecError,
    ConfigError,
    DataMissing,
    DecodeError,
    EncodeError,
    LauncherError,
    LaunchError,
    MissingExtra,
    RushlightError,
    SecretRequired,
    SignatureMismatch,
    StaleTaskWarning,
    StoreError,
    StoreUnavailable,
    StoreVersion,
    StoreWarning,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskLost,
    TaskTimeout,
    UnknownKey,
    WaitTimeout,
    WorkerCrashed,
    WorkerError,
    WorkerLost,
    WorkerStartError,
)
from .launchers import Handle, HandleState, Launcher, LocalLauncher, WorkerCommand

if _TYPE_CHECKING:
    from ._archive import Archive
    from ._controller import Controller
    from ._group import ControllerGroup
    from ._inline import InlineController
    from ._manager import Rush
    from ._results import TaskResult, to_frame

__all__ = [
    "Archive",
    "CodecError",
    "ConfigError",
    "Controller",
    "ControllerGroup",
    "Counts",
    "DataMissing",
    "DecodeError",
    "EncodeError",
    "Handle",
    "HandleState",
    "InlineController",
    "LaunchError",
    "Launcher",
    "LauncherError",
    "LocalLauncher",
    "MissingExtra",
    "Rush",
    "RushWorker",
    "RushlightError",
    "SecretRequired",
    "SignatureMismatch",
    "StaleTaskWarning",
    "StoreError",
    "StoreUnavailable",
    "StoreVersion",
    "StoreWarning",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskFailed",
    "TaskLost",
    "TaskResult",
    "TaskState",
    "TaskTimeout",
    "UnknownKey",
    "WaitResult",
    "WaitTimeout",
    "WorkerCommand",
    "WorkerCrashed",
    "WorkerError",
    "WorkerInfo",
    "WorkerLost",
    "WorkerStartError",
    "WorkerState",
    "WorkerUsage",
    "__version__",
    "errors",
    "isolated_loop",
    "launchers",
    "plan",
    "register_type",
    "rng",
    "to_frame",
    "worker_loop",
]

#: Of no use to workers, which import this package too: loaded when they are asked for.
_LATER = {
    "Archive": "_archive",
    "Controller": "_controller",
    "ControllerGroup": "_group",
    "InlineController": "_inline",
    "Rush": "_manager",
    "TaskResult": "_results",
    "to_frame": "_results",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = found
    return found
