"""Controllers that belong together: one whose calls go on in another, and its branches for what calls need.

Owns which calls have gone, and brings their ends back. How a call is told elsewhere is ``_passing``'s.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ._call_options import NIL, CallOptions
from ._calls import Shelf
from ._crew import CrewVerbs
from ._futures import CallFuture, Register
from ._passing import Passed, translate
from ._results import Ends
from ._sending import Outgoing
from ._store_feed import Leaving
from ._unread import UNREADABLE
from .errors import ConfigError, StoreError
from .launchers import Launcher


class Kin(CrewVerbs):
    """A controller's fallback and branches."""

    fallback: Kin | None
    _branches: dict[str, Kin]
    _moved: set[str]
    _closing: threading.RLock
    _register: Register
    _ends: Ends
    _shelf: Shelf
    _shutdown: bool
    _ephemeral: bool

    if TYPE_CHECKING:

        def __init__(self, network: str, url: str | None, **settings: Any) -> None: ...

        @property
        def network(self) -> str: ...

        def _submit(
            self,
            options: CallOptions,
            fn: Callable[..., Any],
            args: tuple[Any, ...],
            kwargs: Mapping[str, Any],
        ) -> CallFuture: ...

        def _send(self, call: Outgoing) -> CallFuture: ...

        def _read(
            self, key: str, error: BaseException | None, leaving: Leaving | None = None, *, final: bool
        ) -> None: ...

        def shutdown(self) -> None: ...

        def terminate(self) -> None: ...

    def _family(self) -> list[CrewVerbs]:
        found: list[CrewVerbs] = [self]
        for one in (self.fallback, *self._branches.values()):
            found += [] if one is None else one._family()
        return found

    def _branch(self, resources: Sequence[Any]) -> Kin:
        """Where calls go that need these resources: a controller of its own for each, the next the fallback
        of the one before."""
        fallback: Kin | None = None
        for i in range(len(resources), 0, -1):
            name = "+".join(_name_of(one) for one in resources[:i]) + ("" if i == len(resources) else "+")
            with self._closing:
                if name not in self._branches:
                    wanted = resources[i - 1]
                    changes = wanted if isinstance(wanted, Mapping) else {"launcher": wanted}
                    self._branches[name] = self._another(name, fallback, changes)
                fallback = self._branches[name]
        assert fallback is not None
        return fallback

    def _another(self, name: str, fallback: Kin | None, changes: Mapping[str, Any]) -> Kin:
        """A controller like this one, but for some settings, on a network beside this one's."""
        config = self._rush._store.config
        settings = self._settings.arguments | {"min_workers": 0} | dict(changes)
        network = f"{self.network}~{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}"
        made: Kin = type(self)(network, config.url, fallback=fallback, secret=config.secret, **settings)
        made._ephemeral = self._ephemeral
        return made

    def _pass_on(self, row: Sequence[Any]) -> bool:
        """A call has crashed for the last time: whether it goes on in the fallback. The same again for one
        that has been passed on. What is no call that can be read stays."""
        target, key = self.fallback, row[3]
        if target is None or target._shutdown:
            return False
        with self._closing:
            if key in self._moved:
                return True
            self._moved.add(key)
        try:
            passed = translate(row, self._rush._store, target._rush._store, target._shelf)
        except Exception as error:
            with self._closing:
                self._moved.discard(key)
            if isinstance(error, StoreError) and not isinstance(error, UNREADABLE):
                raise
            return False
        try:
            inner = target._take_over(passed)
        except RuntimeError:
            # It was shut down meanwhile.
            with self._closing:
                self._moved.discard(key)
            return False
        if row[9] <= self._feed.began:
            # Nobody counts it any more.
            self._feed.expect(key)
        inner.add_done_callback(partial(self._came_back, key, row[7]))
        self._collector.hide([key])
        return True

    def _take_over(self, passed: Passed) -> CallFuture:
        """Goes on with another controller's call, under its name."""
        said = CallOptions.checked(**passed.options).packed()
        head = b"".join((said, msgspec.msgpack.encode(passed.key), passed.xs, NIL))
        future = self._send(Outgoing(passed.key, head, passed.spilled))
        self._sender.flush()
        view = self._rush._store.look_up(passed.key)
        for row in self._rush._store.rows(view.finished):
            # A controller that is gone had passed it on before.
            self._feed.forget(passed.key)
            future._end(self._ends.value(row), None)
        for failed, condition in zip(view.failed, view.conditions, strict=True):
            self._feed.forget(passed.key)
            future._end(None, self._ends.error(failed, condition))
        return future

    def _came_back(self, key: str, seq: int, done: Future[Any]) -> None:
        future = self._register.take(key)
        self._feed.forget(key, seq)
        if future is None:
            return
        if done.cancelled():
            future._end_cancelled()
        else:
            # Nobody reads it there: it is this one's to be read.
            future._end(done._result, done._exception)


def checked_fallback(fallback: Any) -> Any:
    """Raises ConfigError for what no call can go on in."""
    if fallback is not None and not isinstance(fallback, Kin):
        raise ConfigError(f"fallback={fallback!r} must be another Controller")
    return fallback


def _name_of(resources: Any) -> str:
    """What tells resources from others, also in another process."""
    if isinstance(resources, Mapping):
        return ",".join(f"{name}={_name_of(resources[name])}" for name in sorted(resources))
    if isinstance(resources, Launcher):
        told = {name: value for name, value in vars(resources).items() if not name.startswith("_")}
        return f"{resources.name}({_name_of(told)})"
    return repr(resources)
