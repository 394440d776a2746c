"""What a worker process has done with the tasks in its hands, in memory that outlives it.

A worker that takes several tasks at once tells the server of them later. Should its process die before, its
supervisor reads here which results there are and which tasks were never begun. Writing costs no system call.
Both see the same pages; the worker alone writes, and the supervisor reads once the worker is dead.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

#: Bytes; pages that are never written to are never there.
SIZE = 1 << 20
#: The words at the beginning: number of the claim, bytes of the list of tasks (0: none are in hand), tasks
#: begun, and in one, so that they change together, where the results end (above) and how many there are (16
#: bits).
_NUMBER, _TASKS, _BEGUN, _RESULTS, _WORDS = range(5)
_HEAD = 8 * _WORDS
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Left:
    """What a worker left behind. ``number``: the last claim whose tasks it had in hand. ``results``: key,
    attempt, kind and payload of tasks it was done with. ``unbegun``: keys it never began, in order."""

    number: int = 0
    results: tuple[tuple[str, int, str, bytes], ...] = ()
    unbegun: tuple[str, ...] = ()


class Journal:
    """One worker process's; made before the process is."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._memory = mmap.mmap(-1, size)
        self._words = memoryview(self._memory)[:_HEAD].cast("Q")
        self._end = _HEAD
        self._results = 0

    def open(self, number: int, tasks: Sequence[tuple[str, int]]) -> None:
        """These tasks (key, attempt) of claim ``number`` are in hand; none of them is begun yet."""
        packed = msgspec.msgpack.encode(tasks)
        words = self._words
        # Until all is written there are none.
        words[_TASKS] = 0
        self._end, self._results = _HEAD + len(packed), 0
        self._memory[_HEAD : self._end] = packed
        words[_NUMBER], words[_BEGUN], words[_RESULTS] = number, 0, self._end << 16
        words[_TASKS] = len(packed)

    def begin(self, n: int) -> None:
        """The n-th of the tasks, counted from 1, is begun."""
        self._words[_BEGUN] = n

    def add(self, kind: str, payload: bytes) -> bool:
        """The result of the next task; False where there is no room for it."""
        packed = _encode((kind, payload))
        end = self._end + len(packed)
        if end > self._size:
            return False
        self._memory[self._end : end] = packed
        self._end = end
        self._results += 1
        self._words[_RESULTS] = end << 16 | self._results
        return True

    def clear(self) -> None:
        """Nothing is in hand that the server does not know of."""
        self._words[_TASKS] = 0

    def read(self) -> Left:
        """What the worker left behind."""
        number, length, begun, marks = self._words[:_WORDS]
        if not length:
            return Left(number)
        start, end, n = _HEAD + length, marks >> 16, marks & 0xFFFF
        tasks = msgspec.msgpack.decode(self._memory[_HEAD:start], type=list[tuple[str, int]])
        array = b"\xdc" + n.to_bytes(2, "big") + self._memory[start:end]
        said = msgspec.msgpack.decode(array, type=list[tuple[str, bytes]])
        results = tuple((*task, *result) for task, result in zip(tasks, said, strict=False))
        return Left(number, results, tuple(key for key, _ in tasks[begun:]))

    def close(self) -> None:
        self._words.release()
        self._memory.close()
