"""What everybody says happened, in files outside of the server: one per process, appended line by line.

A line is written before the next thing is done, by one ``write``: a process that is killed loses none.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self


class Ledger:
    """One process's file. Times are of the machine's monotonic clock, which nobody turns."""

    def __init__(self, folder: str, who: str) -> None:
        self.who = who
        path = os.path.join(folder, f"{who}.{os.getpid()}.jsonl")
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._last = 0.0

    def write(self, what: str, **said: Any) -> None:
        line = {"t": round(time.monotonic(), 4), "who": self.who, "what": what, **said}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def alive(self) -> None:
        """Something has just worked; said four times a second at most."""
        now = time.monotonic()
        if now - self._last > 0.25:
            self._last = now
            self.write("alive")

    def close(self) -> None:
        os.close(self._file)


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """All lines of all files, in no order."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open() as file:
            for line in file:
                # A process may have been killed within the write of its last line.
                if line.endswith("\n"):
                    yield json.loads(line)


class Account:
    """Lines, sorted by what they say."""

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> Self:
        """Sorts them; lines of one process in its order."""
        found = cls()
        for line in lines:
            found._take(line)
        return found

    def _take(self, line: Mapping[str, Any]) -> None:
        raise NotImplementedError


class Program:
    """What the driver tells a program by signals: SIGUSR1 to rest, SIGTERM to come to an end."""

    def __init__(self) -> None:
        self.resting = self.over = False
        signal.signal(signal.SIGUSR1, self._rest)
        signal.signal(signal.SIGTERM, self._stop)

    def _rest(self, *_: object) -> None:
        self.resting = True

    def _stop(self, *_: object) -> None:
        self.over = True
