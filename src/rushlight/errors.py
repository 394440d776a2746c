"""Every error Rushlight raises on purpose, and the warnings it gives.

RushlightError                       message defaults to the class docstring
├─ ConfigError (ValueError)          a bad argument, URL or combination of them
│  └─ UnknownKey (KeyError)          a task key or worker id this network does not have
├─ MissingExtra (ImportError)        an optional dependency; names the install line
├─ StoreError                        the server refused; ``__cause__`` is the client's error
│  ├─ StoreUnavailable               cannot connect, or gave up waiting (``transient``)
│  ├─ StoreVersion                   server or data format too old or too new
│  └─ DataMissing                    data we own is gone (evicted or reset)
├─ CodecError
│  ├─ EncodeError                    a value cannot be stored; names its path
│  ├─ DecodeError                    bytes that are not ours
│  ├─ SecretRequired                 code or pickles, and no secret to sign or verify them with
│  └─ SignatureMismatch              code or pickles that somebody else signed
├─ TaskError
│  ├─ TaskFailed · TaskLost · TaskCancelled · TaskTimeout (TimeoutError)
├─ WorkerError
│  ├─ WorkerStartError · WorkerCrashed · WorkerLost
├─ LauncherError
│  └─ LaunchError
└─ WaitTimeout (TimeoutError)        a wait of ours ran out

Each carries fields beside its text, survives pickling, and says in ``transient`` whether trying
again can help.
"""

from __future__ import annotations

from typing import Any, ClassVar


def escaped(text: str) -> str:
    """Text as valid Unicode: a lone half of a surrogate pair, as names of files may have, is shown as its
    escape. Whatever stands in a message, everybody can read it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


class RushlightError(Exception):
    """Something Rushlight could not do."""

    transient: ClassVar[bool] = False

    def __init__(self, message: str | None = None, **fields: Any) -> None:
        text = message or (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(text)
        self.fields = fields
        for name, value in fields.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self.args[0]), self.fields)

    def __str__(self) -> str:
        return str(self.args[0])


def _rebuild(cls: type[RushlightError], message: str, fields: dict[str, Any]) -> RushlightError:
    return cls(message, **fields)


class ConfigError(RushlightError, ValueError):
    """An argument, URL or combination of settings that cannot work."""


class UnknownKey(ConfigError, KeyError):
    """A task key or worker id that this network does not have (``keys``)."""


class MissingExtra(RushlightError, ImportError):
    """An optional dependency is not installed (``extra``)."""


class StoreError(RushlightError):
    """The server refused a command."""


class StoreUnavailable(StoreError):
    """The server cannot be reached (``address``, without its password)."""

    transient = True


class StoreVersion(StoreError):
    """The server, or the data format found on it, is too old or too new."""


class DataMissing(StoreError):
    """Data of this network is gone from the server (``keys``)."""


class CodecError(RushlightError):
    """A value could not be turned into bytes or back."""


class EncodeError(CodecError):
    """A value cannot be stored (``path`` says where it sits)."""


class DecodeError(CodecError):
    """Bytes that are not a value of ours (``data``: the first of them)."""


class SecretRequired(CodecError):
    """Code and pickled values need a secret to be signed and verified with."""


class SignatureMismatch(CodecError):
    """Code or a pickled value is not signed with this network's secret."""


class TaskError(RushlightError):
    """A task did not finish (``key``)."""


class TaskFailed(TaskError):
    """A task failed (``key``, ``kind``, ``traceback``: of the error in the worker)."""


class TaskLost(TaskError):
    """A task's worker was lost (``key``, ``worker_id``)."""


class TaskCancelled(TaskError):
    """A task was cancelled (``key``)."""


class TaskTimeout(TaskError, TimeoutError):
    """A task ran longer than it may (``key``, ``timeout``)."""


class WorkerError(RushlightError):
    """A worker did not do as it should (``worker_id``)."""


class WorkerStartError(WorkerError):
    """A worker ended before it was running (``worker_id``, ``exit_code``, ``log_tail``)."""


class WorkerCrashed(WorkerError):
    """A worker's process died (``exit_code``, ``signal``, ``hostname``, ``log_tail``, ``attempts``)."""


class WorkerLost(WorkerError):
    """A worker was declared lost and may not write any more (``worker_id``)."""


class LauncherError(RushlightError):
    """A launcher's command failed (``command``, ``output``)."""


class LaunchError(LauncherError):
    """Workers could not be launched (``log_tail``)."""


class WaitTimeout(RushlightError, TimeoutError):
    """A wait ran out of time (``timeout``, ``remaining``)."""


class StaleTaskWarning(UserWarning):
    """A result came too late: another writer had decided the task."""


class StoreWarning(UserWarning):
    """The server works, but its settings put data at risk."""
