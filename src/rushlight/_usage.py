"""What worker processes use: memory and processor time, sampled from outside, whatever they do; and when one
has more memory than it may.

Reads ``/proc``; where there is none, nothing is known of other processes, and little of one's own.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import msgspec

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
#: ``ru_maxrss`` is in bytes on macOS, in KiB elsewhere.
MAXRSS = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one moment. ``memory`` and ``peak_memory`` in bytes (resident, shared pages included);
    ``cpu_seconds`` since its start, user and system; ``cpu_percent`` of one processor since the sample
    before."""

    memory: int
    peak_memory: int
    cpu_seconds: float
    cpu_percent: float | None = None

    def packed(self) -> bytes:
        return msgspec.msgpack.encode(asdict(self))


class Sampler:
    """Samples processes, and knows of each when it was sampled last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[int, tuple[float, float]] = {}

    def sample(self, pid: int) -> Sample | None:
        """None for a process that is gone, or of which nothing can be known here."""
        found = _read(pid)
        if found is None:
            self._last.pop(pid, None)
            return None
        now = self._clock()
        then, spent = self._last.get(pid, (now, found.cpu_seconds))
        self._last[pid] = (now, found.cpu_seconds)
        if now <= then:
            return found
        share = max(0.0, found.cpu_seconds - spent) / (now - then)
        return Sample(found.memory, found.peak_memory, found.cpu_seconds, round(100 * share, 1))

    def keep_only(self, pids: set[int]) -> None:
        """Forgets all other processes."""
        for pid in self._last.keys() - pids:
            del self._last[pid]


def resident(pid: int) -> int | None:
    """Bytes of memory that a process has now. Where the system does not tell: of this process the most it
    ever had, of another, and of one that is gone, None."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return _own().memory if pid == os.getpid() else None


#: Bytes a second by which the memory of a process is thought to grow at most, and the seconds between two
#: looks at it: no fewer, no more.
_GROWTH, _LEAST_PAUSE, _MOST_PAUSE = 2 << 30, 0.02, 0.5


@dataclass(slots=True)
class MemoryLimit:
    """The most bytes of memory that a process may have, and when to look again: the sooner, the less is
    left. ``next_look`` is of the monotonic clock."""

    most: int
    next_look: float = 0.0

    def look(self, pid: int, now: float) -> str | None:
        """Why the process is to be ended, where it has more than it may."""
        memory = resident(pid)
        if memory is None:
            # It is gone; or nothing can be known here, now or later.
            self.next_look = float("inf")
            return None
        left = self.most - memory
        if left < 0:
            return (
                f"killed because it held {_mebibytes(memory)} of memory, more than max_memory={self.most} "
                f"({_mebibytes(self.most)}): raise max_memory, or have each call hold less at once"
            )
        self.next_look = now + min(max(left / _GROWTH, _LEAST_PAUSE), _MOST_PAUSE)
        return None


def _mebibytes(n: int) -> str:
    return f"{n / (1 << 20):.1f} MiB"


def _read(pid: int) -> Sample | None:
    memory = resident(pid)
    try:
        if memory is None:
            raise ProcessLookupError
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in brackets may hold anything.
            words = file.read().rpartition(b")")[2].split()
        with open(f"/proc/{pid}/status", "rb") as file:
            peak = next((int(line.split()[1]) * 1024 for line in file if line.startswith(b"VmHWM")), memory)
    except (OSError, IndexError, ValueError):
        return _own() if pid == os.getpid() else None
    return Sample(memory, peak, (int(words[11]) + int(words[12])) / _TICK)


def _own() -> Sample:
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = used.ru_maxrss * MAXRSS
    return Sample(peak, peak, used.ru_utime + used.ru_stime)
