"""What surrounds a call in a worker: what it prints and warns of, what it costs, what is put back after it.

Knows nothing of tasks. Streams, warnings and the environment belong to the process, so there is one scope a
process, entered by one call at a time.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TextIO

from ._usage import MAXRSS, resident
from .errors import ConfigError

#: Characters of what a call prints, and warnings, that its result keeps.
_PRINTED: Final = 65536
_WARNINGS: Final = 50
_WARNING_TEXT: Final = 2048


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker leaves: after so many calls, seconds of life, seconds without work, or with so many bytes
    of memory. One that has more while it makes a call is killed, by its supervisor.
    ``kept``: while a controller is there, it is asked to leave when it is to."""

    max_tasks: int | None = None
    max_lifetime: float | None = None
    idle_timeout: float | None = None
    max_memory: int | None = None
    kept: bool = False

    def served(self, done: int, age: float) -> bool:
        """True where it has served long enough. Asked between calls."""
        return (
            (self.max_tasks is not None and done >= self.max_tasks)
            or (self.max_lifetime is not None and age >= self.max_lifetime)
            or self.too_large()
        )

    def too_large(self) -> bool:
        """True where this process holds more memory than it may."""
        return self.max_memory is not None and (resident(os.getpid()) or 0) > self.max_memory

    def check_memory(self) -> None:
        """Raises ConfigError where no call could be made within the limit."""
        if self.too_large():
            raise ConfigError(
                f"max_memory={self.max_memory} is less than the {resident(os.getpid())} bytes that a worker "
                "holds before its first call: raise it, or import less",
                value=self.max_memory,
            )

    def idle_left(self, idle: float) -> float:
        """Seconds until it has idled long enough."""
        return math.inf if self.idle_timeout is None else self.idle_timeout - idle

    def life_left(self, age: float) -> float:
        """Seconds until it has lived long enough."""
        return math.inf if self.max_lifetime is None else self.max_lifetime - age


@dataclass(frozen=True, slots=True)
class Reset:
    """What is as before after each call: globals (of ``__main__`` and of the function's module), environment
    variables, the working directory, warning filters."""

    globals: bool = False
    environment: bool = False
    directory: bool = False
    warnings: bool = False

    @classmethod
    def of(cls, names: Iterable[str]) -> Reset:
        """From their names. Raises ConfigError for others."""
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            if name not in cls.__slots__:
                raise ConfigError(f"reset={name!r} must be of {', '.join(map(repr, cls.__slots__))}")
        return cls(**dict.fromkeys(wanted, True))

    @property
    def any(self) -> bool:
        return self.globals or self.environment or self.directory or self.warnings


class Meter:
    """What a call costs: wall and CPU seconds, and the peak of the process's memory so far, in bytes."""

    __slots__ = ("_cpu", "_start", "told")

    def __init__(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._cpu = usage.ru_utime + usage.ru_stime
        self._start = time.perf_counter()
        self.told: dict[str, Any] = {}

    def stop(self) -> None:
        if self.told:
            return
        seconds = time.perf_counter() - self._start
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.told = {
            "seconds": seconds,
            "cpu_seconds": usage.ru_utime + usage.ru_stime - self._cpu,
            "peak_memory": usage.ru_maxrss * MAXRSS,
            "pid": os.getpid(),
        }


class Scope:
    """``open`` before a call's function and arguments are read, ``begin`` before it is made, ``end`` after
    it."""

    def __init__(self, reset: Reset) -> None:
        self._reset = reset
        self._streams = sys.stdout
        self._tee = sys.stdout = _Tee(sys.stdout)
        self._warned: list[str] = []
        self._shown, warnings.showwarning = warnings.showwarning, self._note
        # What no other filter names is heard each time, not only the first time it is met.
        warnings.simplefilter("always", append=True)
        self._heard_each = warnings.filters[-1]
        self._restore: list[Callable[[], None]] = []

    def close(self) -> None:
        """Leaves the process as it was found."""
        if sys.stdout is self._tee:
            sys.stdout = self._streams
        warnings.showwarning = self._shown
        if self._heard_each in warnings.filters:
            warnings.filters.remove(self._heard_each)  # type: ignore[attr-defined]

    def open(self) -> None:
        self._warned = []
        if self._tee.size:
            self._tee.take()
        if self._reset.any:
            self._restore = list(self._snapshots())

    def begin(self, function: Callable[..., Any]) -> None:
        space = getattr(function, "__globals__", None)
        if self._reset.globals and space is not None:
            self._restore.append(_keeper(space))

    def end(self) -> dict[str, Any]:
        """What the call printed and warned of; puts back what is to be put back."""
        told: dict[str, Any] = {}
        if self._tee.size:
            told["stdout"] = self._tee.take()
        if self._warned:
            told["warnings"] = self._warned
        while self._restore:
            self._restore.pop()()
        return told

    def _note(
        self, message: Any, category: Any, filename: str, lineno: int, *rest: Any, **named: Any
    ) -> None:
        if len(self._warned) < _WARNINGS:
            self._warned.append(told_of(f"{category.__name__}: {message}", _WARNING_TEXT))
        self._shown(message, category, filename, lineno, *rest, **named)

    def _snapshots(self) -> Iterable[Callable[[], None]]:
        reset = self._reset
        if reset.globals:
            yield _keeper(sys.modules["__main__"].__dict__)
        if reset.environment:
            yield _environment_keeper(dict(os.environ))
        if reset.directory:
            yield _directory_keeper()
        if reset.warnings:
            yield _filters_keeper(list(warnings.filters))


class _Tee:
    """A text stream that passes everything on, and keeps the first of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._kept: list[str] = []
        self.size = 0

    def write(self, text: str) -> int:
        if self.size < _PRINTED:
            with self._lock:
                self._kept.append(text[: _PRINTED - self.size])
                self.size += len(self._kept[-1])
        return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def take(self) -> str:
        with self._lock:
            text, self._kept, self.size = "".join(self._kept), [], 0
        return text

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def told_of(text: str, limit: int) -> str:
    """The text, cut in its middle where it is too long, and always valid Unicode."""
    if len(text) > limit:
        text = (
            f"{text[: limit // 2]}\n[... {len(text) - limit} characters left out ...]\n{text[-limit // 2 :]}"
        )
    return text.encode("utf-8", "backslashreplace").decode()


def _keeper(space: dict[str, Any]) -> Callable[[], None]:
    before = dict(space)

    def restore() -> None:
        for name in [name for name in space if name not in before]:
            del space[name]
        space.update(before)

    return restore


def _environment_keeper(before: dict[str, str]) -> Callable[[], None]:
    def restore() -> None:
        if os.environ != before:
            os.environ.clear()
            os.environ.update(before)

    return restore


def _directory_keeper() -> Callable[[], None]:
    before = os.open(".", os.O_RDONLY)

    def restore() -> None:
        with contextlib.suppress(OSError):
            os.fchdir(before)
        os.close(before)

    return restore


def _filters_keeper(before: list[Any]) -> Callable[[], None]:
    def restore() -> None:
        if warnings.filters != before:
            warnings.filters[:] = before  # type: ignore[index]
            # The cache of what was shown is good for the filters it was made under.
            warnings._filters_mutated()  # type: ignore[attr-defined]

    return restore
