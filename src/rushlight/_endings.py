"""How controllers end that nobody ends: those that are open when the program ends, those nobody holds any
more, and the copies of them in a process that was forked.

As with other executors, what was submitted is done all the same.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

from .errors import RushlightError


class Ending(Protocol):
    """What can be ended."""

    _way: Way

    def shutdown(self, wait: bool = True) -> None:  # noqa: FBT002 - as executors
        """Ends it, once its calls have ended."""


class Way:
    """From the parts of a controller, which have threads, back to it: does not keep it alive. ``pid``: of the
    process they are in."""

    def __init__(self, target: Ending) -> None:
        self.pid = os.getpid()
        self._find: Callable[[], Any] = weakref.ref(target)

    @property
    def forked(self) -> bool:
        """Whether this is a fork of the controller's process."""
        return self.pid != os.getpid()

    def keep(self, target: Ending) -> None:
        """From now on it does: a weak reference does not outlive that nobody holds the target."""
        self._find = lambda: target

    def to(self, name: str, otherwise: Any = None) -> Callable[..., Any]:
        """The method of that name, of a controller that is there."""

        def call(*args: Any) -> Any:
            target = self._find()
            return otherwise if target is None else getattr(target, name)(*args)

        return call


class Parents:
    """Stands for the parts of a controller in a process that was forked from its own, where the threads are
    missing and the rest is in use elsewhere."""

    def __init__(self, network: str, pid: int, *parts: Any) -> None:
        self.network = network
        self.refusal = (
            f"this controller of network {network!r} belongs to process {pid}, of which this one is a fork: "
            f"make one here, Controller({network!r})"
        )
        # What is open in both processes is closed by nobody but its owner.
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(self.refusal)


_PARTS: Final = ("_rush", "_shelf", "_ends", "_collector", "_feed", "_sender", "_launches", "_peers")
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
    if not controller._way.forked:
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


def _disown_all() -> None:
    global _left  # noqa: PLW0603 - its lock may be held by a thread that is not here
    _left = queue.SimpleQueue()
    for controller in list(_open):
        _disown(controller)
    _open.clear()


def _disown(controller: Any) -> None:
    controller._shutdown = controller._closed = True
    parts = [getattr(controller, part) for part in _PARTS]
    parents = Parents(controller.network, controller._way.pid, *parts)
    controller._register.disown(RuntimeError(parents.refusal))
    for part in _PARTS:
        setattr(controller, part, parents)


atexit.register(_finish_all)
os.register_at_fork(after_in_child=_disown_all)
