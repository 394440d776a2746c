"""What workers log and print: the handler that sends it, and how it is read back.

Entries live in one capped stream of the network: ``t`` (POSIX seconds, the worker's clock), ``level``,
``logger``, ``caller``, ``msg``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from . import _inputs
from ._store import Store
from ._tables import check_request, log_table
from .errors import ConfigError, RushlightError, escaped

#: Entries sent in one trip, and seconds an entry waits at most for company.
_BATCH = 100
_WAIT = 0.5
#: Longest text of one entry; a flood of bytes is cut, and says so.
_LONGEST = 32_768
#: So many entries of one worker are sent in so many seconds; the rest are counted, not sent.
_FLOOD, _SPAN = 2000, 1.0


class Sluice:
    """Lets so many through in a span of time, and counts the others. The clock is given."""

    def __init__(self, most: int, span: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._span, self._clock = most, span, clock
        self._until = 0.0
        self._passed = 0
        self.held_back = 0

    def passes(self) -> bool:
        """Whether one more may pass."""
        now = self._clock()
        if now >= self._until:
            self._until, self._passed = now + self._span, 0
        self._passed += 1
        self.held_back += self._passed > self._most
        return self._passed <= self._most

    def take(self, *, last: bool) -> int:
        """How many were held back since it was asked last: after their span, or at once with ``last``."""
        if not last and self._clock() < self._until:
            return 0
        held_back, self.held_back = self.held_back, 0
        return held_back


class NetworkHandler(logging.Handler):
    """Sends records to the network's log: in batches, at once from ERROR on, and at ``close``.

    ``send`` takes a list of entries. A server that is away costs entries, never the worker's work; a flood is
    cut, and its size told.
    """

    def __init__(self, send: Callable[[list[dict[str, Any]]], None], level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._send = send
        self._buffer: list[dict[str, Any]] = []
        self._busy = threading.local()
        self._wake = threading.Event()
        self._closed = False
        self._sluice = Sluice(_FLOOD, _SPAN)
        self._thread = threading.Thread(target=self._flush_now_and_then, name="rushlight-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        # What sending logs itself would never end.
        if getattr(self._busy, "sending", False):
            return
        if not self._sluice.passes():
            self._wake.set()
            return
        try:
            entry = entry_of(record, self.format(record))
        except Exception:
            self.handleError(record)
            return
        self._buffer.append(entry)
        if record.levelno >= logging.ERROR or len(self._buffer) >= _BATCH:
            self.flush()
        else:
            self._wake.set()

    def flush(self) -> None:
        with self.lock if self.lock is not None else contextlib.nullcontext():
            entries, self._buffer = self._buffer, []
            dropped = self._sluice.take(last=self._closed)
            if dropped:
                entries.append(_flooded(dropped))
            if not entries:
                return
            self._busy.sending = True
            try:
                self._send(entries)
            except RushlightError:
                self._lost(len(entries))
            finally:
                self._busy.sending = False

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self.flush()
        super().close()

    def _lost(self, n: int) -> None:
        if logging.raiseExceptions and logging.lastResort is not None:
            text = f"{n} log entries could not be sent to the network"
            logging.lastResort.handle(logging.makeLogRecord({"msg": text, "levelno": logging.WARNING}))

    def _flush_now_and_then(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            if not self._closed:
                # Company for the entry that woke us; close() and errors do not wait for this.
                threading.Event().wait(_WAIT)
                self.flush()
            if self._sluice.held_back:
                self._wake.set()


def _flooded(dropped: int) -> dict[str, Any]:
    text = f"{dropped} entries dropped: the worker logged more than {_FLOOD / _SPAN:g} a second"
    return {"t": time.time(), "level": "WARNING", "logger": "rushlight", "caller": "", "msg": text}


def entry_of(record: logging.LogRecord, text: str) -> dict[str, Any]:
    """A log record as the network keeps it; fields of the user's own stay behind."""
    return {
        "t": record.created,
        "level": escaped(record.levelname),
        "logger": escaped(record.name),
        "caller": escaped(f"{record.module}.{record.funcName}:{record.lineno}"),
        "msg": escaped(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text)} characters)"),
    }


class LogReader:
    """Reading the network's log."""

    _store: Store

    def _begin_logs(self) -> None:
        self._printed = "-"

    def read_log(
        self,
        worker_ids: Sequence[str] | None = None,
        *,
        time_difference: bool = False,
        as_: str = "polars",
    ) -> Any:
        """What workers logged and printed, oldest first: columns ``worker_id level timestamp logger caller
        msg``, with ``time_difference`` also the seconds since the worker's entry before."""
        wanted = None if worker_ids is None else set(_inputs.key_list(worker_ids, "worker_ids"))
        check_request(as_)
        entries = [(wid, e) for _, wid, e in self._store.logs() if wanted is None or wid in wanted]
        rows = _log_rows(sorted(entries, key=lambda entry: entry[1]["t"]), time_difference)
        return log_table(rows, as_, time_difference=time_difference)

    def print_log(self) -> None:
        """Prints the log entries this object has not printed before."""
        for _, worker_id, entry in self._new_entries():
            print(format_entry(worker_id, entry))

    def follow_log(
        self,
        timeout: float | None = None,
        *,
        worker_ids: Sequence[str] | None = None,
        as_: Literal["lines", "dicts"] = "lines",
    ) -> Iterator[Any]:
        """Log entries as they come, of all workers or the named ones, beginning with those not printed yet;
        woken by the event. Formatted lines, or dicts with the columns of ``read_log``. Ends when none came
        for ``timeout`` seconds (None: never)."""
        limit = _inputs.seconds(timeout, "timeout", none=True)
        wanted = None if worker_ids is None else set(_inputs.key_list(worker_ids, "worker_ids"))
        if as_ not in ("lines", "dicts"):
            raise ConfigError(f"as_={as_!r} must be 'lines' or 'dicts'", value=as_)
        return self._follow(math.inf if limit is None else limit, wanted, lines=as_ == "lines")

    def _follow(self, limit: float, wanted: set[str] | None, *, lines: bool) -> Iterator[Any]:
        shape: Callable[[str, Mapping[str, Any]], Any] = format_entry if lines else _log_row
        deadline = time.monotonic() + limit
        while True:
            found = [(w, e) for _, w, e in self._new_entries() if wanted is None or w in wanted]
            for worker_id, entry in found:
                yield shape(worker_id, entry)
            if found:
                deadline = time.monotonic() + limit
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._store.wait_logs("0-0" if self._printed == "-" else self._printed, min(left, 5.0))

    def _new_entries(self) -> list[tuple[str, str, dict[str, Any]]]:
        entries = self._store.logs(self._printed)
        if entries:
            self._printed = entries[-1][0]
        # What a worker logs and what it prints come by two ways.
        return sorted(entries, key=lambda entry: entry[2]["t"])


def format_entry(worker_id: str, entry: Mapping[str, Any]) -> str:
    """One line: worker, time, level, logger, message."""
    stamp = datetime.fromtimestamp(entry["t"], UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    return f"[{worker_id}] {stamp} {entry['level']} {entry['logger']}: {entry['msg']}"


def _log_row(worker_id: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    row = {"worker_id": worker_id, "level": entry["level"], "timestamp": entry["t"]}
    return row | {name: entry[name] for name in ("logger", "caller", "msg")}


def _log_rows(entries: list[tuple[str, dict[str, Any]]], difference: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    last: dict[str, float] = {}
    for worker_id, entry in entries:
        row = _log_row(worker_id, entry)
        if difference:
            row["time_difference"] = entry["t"] - last.get(worker_id, entry["t"])
        last[worker_id] = entry["t"]
        rows.append(row)
    return rows
