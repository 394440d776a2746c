"""One call in a process of its own: what it returned, or how the process ended.

The process is forked from this one, which has loaded the code and not run it. Whatever happens there (a crash
of native code, ``os._exit``, SIGKILL, an endless loop) ends that process alone; nothing it started is left.
Knows nothing of tasks; ``_loops`` does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self

from . import _children
from ._capture import Tail
from ._children import Born, Channel, Guard, Status
from ._logs import NetworkHandler

_CHUNK = 1 << 18
#: How much is still read of what an ended process has printed: more than a pipe holds, but not without end.
_LAST_CHUNKS = 32
#: Seconds between two looks at a process where the system has no pidfds.
_LOOK = 0.05
_SIZE = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Ended:
    """``answer``: the bytes the call returned, None where its process ended without. ``stderr``: its last
    lines."""

    answer: bytes | None
    status: Status
    timed_out: bool
    stderr: str


class Isolation:
    """Runs calls in processes of their own, one at a time, from the thread that enters it."""

    def __init__(self) -> None:
        self._guard = Guard()

    def __enter__(self) -> Self:
        self._guard.start([])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guard.stop()

    def run(self, call: Callable[[], bytes], limit: float | None) -> Ended:
        """Runs the call in a new process and waits for its end, ``limit`` seconds at most. What it prints
        goes to this process's stdout and stderr."""
        for handler in logging.getLogger().handlers:
            # What waits there would be sent by the copy in the new process too.
            handler.flush()
        if self._guard.ended():
            self._guard.start([])
        born = _children.fork()
        if isinstance(born, Channel):
            _live(born, call)
        watch = _Watch(born, limit)
        try:
            self._guard.add(born.pid)
            born.channel.send(event="go")
            return watch.until_end()
        finally:
            watch.close()
            self._guard.remove(born.pid)


def _live(channel: Channel, call: Callable[[], bytes]) -> NoReturn:
    """The life of the new process. Leaves by ``os._exit``: what this process registered for its own end is
    not the copy's business."""
    code = 1
    try:
        _settle_in()
        if channel.wait() is not None:
            answer = call()
            for handler in logging.getLogger().handlers:
                handler.flush()
            sys.stdout.flush()
            sys.stderr.flush()
            channel._socket.sendall(_SIZE.pack(len(answer)) + answer)
            code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _settle_in() -> None:
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = open(  # noqa: SIM115
            descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        setattr(sys, name, stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, NetworkHandler):
            # Its thread is not here, and may have held the lock of its event.
            handler._wake, handler._buffer = threading.Event(), []


class _Watch:
    """Attends to one process from its birth to its end."""

    def __init__(self, born: Born, limit: float | None) -> None:
        self._born = born
        self._limit = limit
        self._deadline = None if limit is None else time.monotonic() + limit
        self._answer = bytearray()
        self._tail = Tail()
        self._status: Status | None = None
        self._timed_out = False
        self._selector = selectors.DefaultSelector()
        for descriptor in (born.stdout, born.stderr):
            os.set_blocking(descriptor, False)
        for source in (born.stdout, born.stderr, born.channel.fileno(), born.pidfd):
            if source is not None:
                self._selector.register(source, selectors.EVENT_READ)

    def until_end(self) -> Ended:
        while self._status is None:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._timed_out, self._deadline = True, None
                _children.kill_group(self._born.pid)
            events = self._selector.select(self._time_left())
            for key, _ in events:
                self._read(key.fd)
            if self._born.pidfd is None or any(key.fd == self._born.pidfd for key, _ in events):
                self._status = _children.reap(self._born.pid)
        for source in list(self._selector.get_map().values()):
            for _ in range(_LAST_CHUNKS):
                if source.fd == self._born.pidfd or not self._read(source.fd):
                    break
        while self._born.channel.fileno() in self._selector.get_map() and self._read(
            self._born.channel.fileno()
        ):
            continue
        return Ended(self._complete(), self._status, self._timed_out, self._tail.text())

    def close(self) -> None:
        """Ends the process if it still runs, and lets go of all descriptors."""
        while self._status is None:
            _children.kill_group(self._born.pid)
            self._status = _children.reap(self._born.pid)
            if self._status is None:
                threading.Event().wait(0.001)
        self._selector.close()
        os.close(self._born.stdout)
        os.close(self._born.stderr)
        self._born.abandon()

    def _time_left(self) -> float | None:
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        if self._born.pidfd is None:
            return _LOOK if left is None else min(left, _LOOK)
        return left

    def _read(self, descriptor: int) -> bool:
        """Reads what is there; False when nothing was, or nothing more will come."""
        if descriptor == self._born.pidfd:
            return False
        try:
            if descriptor == self._born.channel.fileno():
                data = self._born.channel._socket.recv(_CHUNK)
                self._answer += data
            else:
                data = os.read(descriptor, _CHUNK)
                self._pass_on(descriptor, data)
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(descriptor)
        return bool(data)

    def _pass_on(self, descriptor: int, data: bytes) -> None:
        if descriptor == self._born.stderr:
            self._tail.feed(data)
        target = 2 if descriptor == self._born.stderr else 1
        # Nobody may be reading what this worker prints; the task is not to suffer from it.
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(target, data) :]

    def _complete(self) -> bytes | None:
        if len(self._answer) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self._answer)
        answer = bytes(memoryview(self._answer)[_SIZE.size :])
        return answer if len(answer) == size else None
