"""What became of calls, as their submitter sees it: results, and the errors futures raise.

Decides what a record's end means (success, error, crash, cancel, timeout); never talks to a server but for
values that were stored apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from . import _seeds
from ._calls import decode_value, open_error
from ._store import Store
from ._store_ends import CRASHED, KILLED
from .errors import (
    ConfigError,
    DataMissing,
    DecodeError,
    RushlightError,
    StoreError,
    StoreUnavailable,
    TaskCancelled,
    TaskFailed,
    TaskTimeout,
    WorkerCrashed,
)

Status = Literal["success", "error", "crash", "cancel", "timeout"]


#: Between a name and the number of its use, from the second on, in the keys of calls.
AGAIN: Final = "\x1f"


def name_of(key: str) -> str:
    """The name of the call under a key."""
    return key.partition(AGAIN)[0]


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One call that has ended. ``value`` where ``status`` is ``success``, else ``exception``, with the remote
    ``traceback`` as text. ``warnings`` and ``stdout``: what the call warned of and printed. ``seconds``: how
    long it ran; ``cpu_seconds``, ``peak_memory`` (bytes, of its worker's process so far) where known. Times
    are POSIX seconds of the server's clock. ``attempt`` counts tries from 1."""

    name: str
    status: Status
    value: Any = None
    exception: BaseException | None = None
    traceback: str | None = None
    warnings: tuple[str, ...] = ()
    stdout: str = ""
    seconds: float | None = None
    worker_id: str | None = None
    hostname: str | None = None
    pid: int | None = None
    attempt: int = 1
    seed: Any = None
    controller: str = ""
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    created_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def ok(self) -> bool:
        return self.status == "success"


def to_frame(results: Iterable[TaskResult]) -> Any:
    """Results as a polars frame, one row each; values and exceptions polars has no type for are objects."""
    import polars as pl

    rows = list(results) if isinstance(results, Iterable) else [results]
    for row in rows:
        if not isinstance(row, TaskResult):
            raise ConfigError(f"results must be a list of TaskResult, got {row!r:.80}")
    names = [name for name in TaskResult.__slots__ if name not in ("value", "exception", "seed")]
    frame = pl.DataFrame(
        {
            name: [list(getattr(row, name)) if name == "warnings" else getattr(row, name) for row in rows]
            for name in names
        },
        schema_overrides=_SCHEMA,
        strict=False,
    )
    try:
        values = pl.Series("value", [row.value for row in rows], strict=True)
    except Exception:
        values = pl.Series("value", [row.value for row in rows], dtype=pl.Object)
    said = [None if row.exception is None else repr(row.exception) for row in rows]
    return frame.insert_column(2, values).insert_column(3, pl.Series("exception", said, dtype=pl.String))


_SCHEMA: Final[dict[str, Any]] = {}


class Ends:
    """Turns ended records into results. ``hosts``: where each worker runs, asked once per worker."""

    def __init__(self, store: Store, controller: str) -> None:
        self._store = store
        self._controller = controller
        self._hosts: dict[str, str] = {}

    def value(self, row: Sequence[Any]) -> Any:
        """What a finished call returned. Raises what unpickling raises, but nothing that ends a thread."""
        try:
            return decode_value(self._store, row[10] or {})
        except (SystemExit, GeneratorExit) as error:
            raise DecodeError(
                f"the value of task {row[3]!r} cannot be read: it raised {error!r}", key=row[3]
            ) from error

    def finished(self, row: Sequence[Any]) -> TaskResult:
        """The result of a finished record."""
        told: Mapping[str, Any] = row[11] or {}
        try:
            value, error = self.value(row), None
        except StoreUnavailable:
            # The value is there.
            raise
        except Exception as unreadable:
            value, error = None, unreadable
        return self._result(row, told, "success" if error is None else "error", value, error)

    def failed(self, row: Sequence[Any], condition: Mapping[str, Any]) -> TaskResult:
        """The result of a failed record."""
        status = status_of(condition)
        return self._result(row, condition, status, None, self.error(row, condition))

    def _result(
        self,
        row: Sequence[Any],
        told: Mapping[str, Any],
        status: Status,
        value: Any,
        error: BaseException | None,
    ) -> TaskResult:
        try:
            found = TaskResult(
                name=name_of(row[3]),
                status=status,
                value=value,
                exception=error,
                traceback=told.get("traceback"),
                warnings=tuple(told.get("warnings", ())),
                stdout=told.get("stdout", ""),
                seconds=told.get("seconds", (row[9] - row[8]) / 1e6 if row[8] else None),
                worker_id=row[0],
                hostname=self.host(row[0]),
                pid=told.get("pid"),
                attempt=row[1],
                seed=_seeds.public((row[2] or {}).get("s")),
                controller=self._controller,
                cpu_seconds=told.get("cpu_seconds"),
                peak_memory=told.get("peak_memory"),
                created_at=_time(row[6]),
                started_at=_time(row[8]),
                finished_at=_time(row[9]),
            )
            # What is summed up of all results.
            float(found.seconds or 0)
            return found
        except StoreError:
            raise
        except Exception as unreadable:
            error = _unreadable(row[3], unreadable)
            return TaskResult(name_of(row[3]), "error", exception=error, controller=self._controller)

    def host(self, worker_id: str | None) -> str | None:
        if worker_id is None:
            return None
        if worker_id not in self._hosts:
            self._hosts |= {wid: card.hostname for wid, card in self._store.cards().items()}
        return self._hosts.get(worker_id)

    def error(self, row: Sequence[Any], condition: Mapping[str, Any]) -> BaseException:
        """The error a failed record stands for."""
        try:
            return self._error(row, condition)
        except StoreError:
            raise
        except Exception as unreadable:
            return _unreadable(row[3], unreadable)

    def _error(self, row: Sequence[Any], condition: Mapping[str, Any]) -> BaseException:
        key, message = row[3], str(condition.get("message", "Task failed"))
        status = status_of(condition)
        if status == "cancel":
            return TaskCancelled(f"task {key!r} was cancelled", key=key)
        if status == "timeout":
            return TaskTimeout(f"task {key!r}: {message}", key=key, timeout=condition.get("timeout"))
        if status == "crash":
            return self._crash(row, condition)
        error = open_error(self._store, condition["pickled"]) if "pickled" in condition else None
        trace = condition.get("traceback")
        if error is None:
            kind = condition.get("type")
            text = f"{kind}: {message}" if kind else message
            error = TaskFailed(text, key=key, kind=kind, traceback=trace)
        if trace:
            error.add_note(f"raised in worker {row[0]}, whose traceback is:\n\n{trace.rstrip()}")
        return error

    def _crash(self, row: Sequence[Any], condition: Mapping[str, Any]) -> WorkerCrashed:
        host = self.host(row[0])
        tail = str(condition.get("stderr", "")).strip()
        how = condition.get("reason") or condition["message"]
        attempts = row[1]
        text = f"task {row[3]!r}: worker {row[0]} on {host} crashed: {how}"
        if attempts > 1:
            text += f" ({attempts} attempts)"
        if tail:
            text += f"; the last it said: {tail.splitlines()[-1]}"
        return WorkerCrashed(
            text,
            key=row[3],
            worker_id=row[0],
            exit_code=condition.get("exit_code"),
            signal=condition.get("signal"),
            hostname=host,
            log_tail=tail,
            attempts=attempts,
        )


def status_of(condition: Mapping[str, Any]) -> Status:
    """What a condition means. An error of the call itself is told by its worker, with its process."""
    if "pid" in condition:
        return "error"
    kind = str(condition.get("type"))
    if kind in ("TaskCancelled", "TaskRemoved"):
        return "cancel"
    if kind == "TaskTimeout":
        return "timeout"
    if kind in _CRASHES or condition.get("message") in (CRASHED, KILLED):
        return "crash"
    return "error"


def status_of_error(error: BaseException | None) -> Status:
    """The status of a call by what its future raises."""
    kinds: tuple[tuple[type, Status], ...] = (
        (WorkerCrashed, "crash"), (TaskTimeout, "timeout"), (TaskCancelled, "cancel"),
    )  # fmt: skip
    found: Status = "success" if error is None else "error"
    return next((status for kind, status in kinds if isinstance(error, kind)), found)


_CRASHES: Final = {"WorkerCrashed", "WorkerLost", "WorkerKilled"}


def _unreadable(key: str, error: Exception) -> DecodeError:
    """What is told of a call beside its value is not what workers write."""
    return DecodeError(f"what is told of task {key!r} cannot be read: {error!r}", key=key)


def gone(network: str) -> RushlightError:
    """The error of calls whose records are not there any more."""
    return DataMissing(f"network {network!r} was reset before the call had ended")


def _time(microseconds: int) -> float | None:
    return microseconds / 1e6 if microseconds else None
