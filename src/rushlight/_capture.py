"""What a worker process prints: whole lines for the log, the last of stderr for its exit report.

Owns the reading ends of the two pipes and the optional file. Bounded in memory whatever arrives; never
talks to the server and never blocks.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from .errors import ConfigError

#: A longer line is cut into pieces of this many bytes.
LINE_LIMIT = 8192
#: How much of stderr an exit report shows at most.
TAIL_BYTES = 8192
TAIL_LINES = 50
#: What may wait for the next flush; the rest is counted, not kept.
PENDING_LINES = 1000
PENDING_BYTES = 1 << 20
_CHUNK = 1 << 16
#: How much is still read from the pipe of a worker that has ended: more than a pipe holds, but not
#: without end, as somebody else may still write to it.
_LAST_CHUNKS = 32

Stream = Literal["stdout", "stderr"]
#: The level under which what was printed stands in the log, beside what was logged.
_LEVELS: dict[Stream, str] = {"stdout": "INFO", "stderr": "WARNING"}


class Lines:
    """Bytes in, text lines out. A line that carriage returns rewrite counts as its last state."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete now."""
        *whole, rest = (self._rest + data).split(b"\n")
        lines = [piece for line in whole for piece in _pieces(_last_state(line))]
        if len(rest) > LINE_LIMIT:
            rest = _last_state(rest)
        while len(rest) > LINE_LIMIT:
            lines.append(rest[: _cut(rest)])
            rest = rest[_cut(rest) :]
        self._rest = rest
        return [_text(line) for line in lines]

    def close(self) -> list[str]:
        """What was left without a line's end."""
        rest, self._rest = _last_state(self._rest), b""
        return [_text(rest)] if rest else []


class Tail:
    """The last lines of a stream, within fixed bounds."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, data: bytes) -> None:
        self._bytes = (self._bytes + data)[-2 * TAIL_BYTES :]

    def text(self) -> str:
        """At most TAIL_LINES lines and TAIL_BYTES bytes; starts with a whole line where there is one."""
        lines = [_last_state(line) for line in self._bytes.split(b"\n")]
        if len(self._bytes) >= 2 * TAIL_BYTES and len(lines) > 1:
            del lines[0]
        kept = b"\n".join(lines[-TAIL_LINES - 1 :]).rstrip()
        if len(kept) > TAIL_BYTES:
            kept = kept[-TAIL_BYTES:]
            kept = kept.partition(b"\n")[2] or kept
        return _text(kept)


class LogFile:
    """A worker's own file: all it prints, byte for byte, lines of the two streams never mixed up."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}

    def write(self, stream: Stream, data: bytes) -> None:
        """Writes what is complete; raises OSError where that cannot be done."""
        data = self._rest[stream] + data
        end = len(data) if len(data) > LINE_LIMIT else data.rfind(b"\n") + 1
        self._rest[stream] = data[end:]
        if end:
            os.write(self._descriptor, data[:end])

    def finish(self) -> None:
        """Writes lines without an end, each with one."""
        for stream, rest in self._rest.items():
            if rest:
                self._rest[stream] = b""
                os.write(self._descriptor, rest + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


class Capture:
    """Both streams of one worker. Owns the descriptors it is given, and closes them.

    ``read`` after a descriptor became readable; ``take`` gives the entries since the last time, oldest
    first, as dicts of ``t level logger caller msg``.
    """

    def __init__(
        self, stdout: int, stderr: int, file: int | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._descriptors: dict[Stream, int] = {"stdout": stdout, "stderr": stderr}
        self._lines: dict[Stream, Lines] = {"stdout": Lines(), "stderr": Lines()}
        self._tail = Tail()
        self._file = LogFile(file) if file is not None else None
        self._clock = clock
        self._pending: deque[dict[str, Any]] = deque()
        self._size = 0
        self._dropped = 0
        for descriptor in self._descriptors.values():
            os.set_blocking(descriptor, False)

    @property
    def descriptors(self) -> dict[Stream, int]:
        """The descriptors still open."""
        return dict(self._descriptors)

    @property
    def pending(self) -> bool:
        return bool(self._pending or self._dropped)

    def read(self, stream: Stream) -> bool:
        """Reads what is there, at most one chunk; False when nothing was, or nothing more will come.

        At its end the stream's descriptor is closed and no longer among ``descriptors``.
        """
        descriptor = self._descriptors.get(stream)
        if descriptor is None:
            return False
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._end(stream)
            return False
        if stream == "stderr":
            self._tail.feed(data)
        self._keep(stream, data)
        self._add(stream, self._lines[stream].feed(data))
        return True

    def finish(self) -> None:
        """Reads what an ended process has left in its pipes, and closes them."""
        for stream in tuple(self._descriptors):
            for _ in range(_LAST_CHUNKS):
                if not self.read(stream):
                    break
            self._end(stream)
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.finish()
            self._file.close()
            self._file = None

    def note(self, level: str, message: str) -> None:
        """Adds a line of the supervisor's own."""
        self._append(level, "rushlight", message)

    def take(self) -> list[dict[str, Any]]:
        """The entries waiting, and one more where some had to be dropped."""
        entries = list(self._pending)
        if self._dropped:
            text = f"{self._dropped} lines dropped: the worker printed faster than the log takes"
            entries.append(self._entry("WARNING", "rushlight", text))
        self._pending.clear()
        self._size = self._dropped = 0
        return entries

    def give_back(self, entries: list[dict[str, Any]]) -> None:
        """Puts entries that could not be sent in front again, as far as there is room."""
        for entry in reversed(entries):
            if self._full():
                self._dropped += 1
            else:
                self._pending.appendleft(entry)
                self._size += len(entry["msg"])

    def tail(self) -> str:
        """The last lines of stderr."""
        return self._tail.text()

    def abandon(self) -> None:
        """In a forked child: closes the descriptors, which are the parent's business."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        if self._file is not None:
            self._file.close()
        self._descriptors, self._file = {}, None

    def _end(self, stream: Stream) -> None:
        descriptor = self._descriptors.pop(stream, None)
        if descriptor is not None:
            os.close(descriptor)
            self._add(stream, self._lines[stream].close())

    def _keep(self, stream: Stream, data: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.write(stream, data)
        except OSError as error:
            self._file.close()
            self._file = None
            self.note("ERROR", f"cannot go on writing the worker's log file: {error}")

    def _add(self, stream: Stream, lines: list[str]) -> None:
        for line in lines:
            self._append(_LEVELS[stream], stream, line)

    def _append(self, level: str, logger: str, message: str) -> None:
        if self._full():
            self._dropped += 1
            return
        self._pending.append(self._entry(level, logger, message))
        self._size += len(message)

    def _entry(self, level: str, logger: str, message: str) -> dict[str, Any]:
        return {"t": self._clock(), "level": level, "logger": logger, "caller": "", "msg": message}

    def _full(self) -> bool:
        return len(self._pending) >= PENDING_LINES or self._size >= PENDING_BYTES


def make_log_directory(directory: str | None) -> None:
    """Makes the directory for the workers' log files, if there are to be any; raises ConfigError."""
    if directory is not None:
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"log_dir={directory!r} cannot be made: {error}") from error


def open_log_file(directory: str | None, worker_id: str) -> int | None:
    """A descriptor that appends to the worker's log file; None where there is none, or it cannot be had."""
    if directory is None:
        return None
    path = os.path.join(directory, f"{worker_id.replace('/', '_')}.log")
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        print(f"rushlight worker: cannot write {path!r}: {error}", file=sys.stderr)
        return None


def _last_state(line: bytes) -> bytes:
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _pieces(line: bytes) -> list[bytes]:
    pieces = []
    while len(line) > LINE_LIMIT:
        pieces.append(line[: _cut(line)])
        line = line[_cut(line) :]
    return [*pieces, line]


def _cut(line: bytes) -> int:
    """Where to cut a long line: not inside a character of UTF-8."""
    for back in range(4):
        if line[LINE_LIMIT - back] & 0xC0 != 0x80:
            return LINE_LIMIT - back
    return LINE_LIMIT


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="backslashreplace")
