"""What a supervisor waits for: descriptors with their handlers, signals, the process that launched it.

Owns waiting. Knows nothing of workers and never talks to the server.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterable
from types import FrameType

from . import _children


class Watch:
    """Calls a handler whenever its descriptor is readable."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, descriptor: int, handler: Callable[[], object]) -> None:
        """The descriptor must be taken out before another one can have its number."""
        self._selector.register(descriptor, selectors.EVENT_READ, handler)

    def remove(self, *descriptors: int | None) -> None:
        """Takes descriptors out, also closed ones; others are left alone."""
        for descriptor in descriptors:
            if descriptor is not None and descriptor in self._selector.get_map():
                self._selector.unregister(descriptor)

    def turn(self, seconds: float | None) -> None:
        """Waits at most so long and calls the handlers of what is readable."""
        for key, _ in self._selector.select(seconds):
            # A handler before may have taken this one out, and even closed what it is about.
            if self._selector.get_map().get(key.fd) is key:
                key.data()

    def close(self) -> None:
        self._selector.close()


class Parent:
    """The process that must not be outlived. The pipe on stdin that it holds open tells of its end, and its
    pidfd, as processes it forked may hold that pipe too."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._pidfd: int | None = None
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = _children.open_pidfd(pid)
        os.set_blocking(0, False)

    def descriptors(self) -> list[int]:
        """What to select on; readable for good once it has ended."""
        return [0] if self._pidfd is None else [0, self._pidfd]

    def ended(self) -> bool:
        """Whether it has: then this process has another parent by now, or the pipe's end was closed."""
        if os.getppid() != self._pid:
            return True
        try:
            return os.read(0, 4096) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)


class SignalPipe:
    """Signals as something to select on; nothing of the process is interrupted by them any more."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._numbers = tuple(numbers)
        self._read, self._write = socket.socketpair()
        for end in (self._read, self._write):
            end.setblocking(False)
        for number in self._numbers:
            signal.signal(number, _noted)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        return self._read.fileno()

    def read(self) -> list[signal.Signals]:
        """The signals that have come."""
        return [signal.Signals(number) for number in self._read.recv(4096)]

    def close(self, *, restore: bool = False) -> None:
        """``restore``: the signals get Python's own handlers again, as a worker is to have them."""
        signal.set_wakeup_fd(-1)
        if restore:
            for number in self._numbers:
                usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, usual)
        self._read.close()
        self._write.close()


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Does nothing: the wake-up descriptor has the number already."""
