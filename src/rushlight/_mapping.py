"""The values of many calls in order: what ``map`` returns.

Knows futures, and nothing of how calls are made.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Literal

from . import _inputs
from ._futures import cancel_all
from .errors import ConfigError

Progress = Callable[[int, int], object]


def checked_map(chunksize: int, error: str) -> int:
    """The chunk size; raises ConfigError for what ``map`` cannot do."""
    if error not in ("raise", "warn", "return"):
        raise ConfigError(f"error={error!r} must be 'raise', 'warn' or 'return'")
    return _inputs.count(chunksize, "chunksize", least=1)


def in_order(
    futures: Sequence[Future[Any]],
    deadline: float | None,
    *,
    chunked: bool,
    error: Literal["raise", "warn", "return"],
    progress: Any,
) -> Iterator[Any]:
    """The values as they are asked for; what nobody will ask for any more is cancelled."""
    report = _reporter(progress, len(futures))
    return _values(deque(futures), deadline, report, chunked=chunked, error=error)


def _values(
    left: deque[Future[Any]], deadline: float | None, report: Progress | None, *, chunked: bool, error: str
) -> Iterator[Any]:
    total = len(left)
    failed: BaseException | None = None
    try:
        while left:
            value, raised = _outcome(left[0], deadline, error)
            left.popleft()
            failed = failed or raised
            if report is not None:
                report(total - len(left), total)
            if chunked and raised is None:
                yield from value
            else:
                yield value
        if failed is not None and error == "warn":
            text = f"a call of this map failed, and its error is the value: {failed!r}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
    finally:
        if report is not None:
            report(-1, total)
        cancel_all(reversed(left))
        left.clear()


def _outcome(future: Future[Any], deadline: float | None, error: str) -> tuple[Any, BaseException | None]:
    patience = None if deadline is None else deadline - time.monotonic()
    if error == "raise":
        return future.result(patience), None
    raised = future.exception(patience)
    return (future.result(), None) if raised is None else (raised, raised)


def _reporter(progress: Any, total: int) -> Progress | None:
    """A function of (done, all); done is -1 at the end."""
    if progress is None or progress is False:
        return None
    if progress is True:
        return _bar(total)
    if not callable(progress):
        raise ConfigError(f"progress={progress!r} must be True, or a function of (done, all)")
    return lambda done, of: progress(done, of) if done >= 0 else None


def _bar(total: int) -> Progress:
    from rich.console import Console
    from rich.progress import Progress as Bars

    bars = Bars(console=Console(stderr=True))
    bar = bars.add_task("calls", total=total)
    bars.start()

    def report(done: int, _all: int) -> None:
        if done < 0:
            bars.stop()
        else:
            bars.update(bar, completed=done)

    return report
