"""How controllers end that nobody ends: those that are open when the program ends, and those nobody holds any
more.

As with other executors, what was submitted is done all the same.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from .errors import RushlightError


class Ending(Protocol):
    """What can be ended."""

    _pid: int
    _way: Way

    def shutdown(self, wait: bool = True) -> None:  # noqa: FBT002 - as executors
        """Ends it, once its calls have ended."""


class Way:
    """From the parts of a controller, which have threads, back to it: does not keep it alive."""

    def __init__(self, target: Ending) -> None:
        self._find: Callable[[], Any] = weakref.ref(target)

    def keep(self, target: Ending) -> None:
        """From now on it does: a weak reference does not outlive that nobody holds the target."""
        self._find = lambda: target

    def to(self, name: str, otherwise: Any = None) -> Callable[..., Any]:
        """The method of that name, of a controller that is there."""

        def call(*args: Any) -> Any:
            target = self._find()
            return otherwise if target is None else getattr(target, name)(*args)

        return call


#: In the order in which they were made.
_open: weakref.WeakKeyDictionary[Ending, None] = weakref.WeakKeyDictionary()
#: Taken from finalizers, which run anywhere: no lock may be needed, and no thread started there.
_left: queue.SimpleQueue[Ending] = queue.SimpleQueue()
_janitor_of = 0


def begun(controller: Ending) -> None:
    """It is to be ended in the end."""
    global _janitor_of  # noqa: PLW0603 - one a process
    _open[controller] = None
    if _janitor_of != os.getpid():
        _janitor_of = os.getpid()
        threading.Thread(target=_tidy_up, name="rushlight-janitor", daemon=True).start()


def ended(controller: Ending) -> None:
    """It has been."""
    _open.pop(controller, None)


def left(controller: Ending) -> None:
    """Nobody holds it any more, and nobody has ended it. For ``__del__``."""
    if controller._pid == os.getpid():
        controller._way.keep(controller)
        _left.put(controller)


def _tidy_up() -> None:
    while True:
        _finish_in_background(_left.get())


def _finish_in_background(controller: Ending) -> None:
    # Waited for at the end of the program, unlike the janitor.
    threading.Thread(target=_finish, args=(controller,), name="rushlight-closer", daemon=False).start()


def _finish(controller: Ending) -> None:
    try:
        controller.shutdown()
    except RushlightError:
        return


def _finish_all() -> None:
    """At the end of the program."""
    # The last first: a fallback is older than those whose calls go on there.
    for controller in reversed(list(_open)):
        _finish(controller)
    while not _left.empty():
        _finish(_left.get())


atexit.register(_finish_all)
