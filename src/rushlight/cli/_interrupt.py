"""Ctrl-C and SIGTERM as requests that the run's own loop obeys. Never ends the process itself."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

#: Signals that ask a run to stop.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequests:
    """Counts the requests to stop while the ``with`` block runs.

    After the second one a third ends the process at once, as it would anywhere else: the workers die
    with it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count >= 2:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
