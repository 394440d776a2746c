"""One connection to the server: sends packed bytes, reads replies, comes back after a failure.

Every command that goes through here may be sent twice, so only commands that are idempotent under
resending may: that is the scripts' and the readers' promise. Fork- and thread-safe.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import hiredis

from . import _scripts
from ._cancel import Interrupted, check
from ._connect import StoreConfig, check_server, passes, refusal, unavailable
from ._dial import NotLetIn
from ._sockets import CHUNK, adaptive, set_timeout, shut
from ._whereabouts import Whereabouts
from .errors import StoreUnavailable

#: Posts that may be without an answer before some are waited for.
_MOST_OWED = 128
#: How often a call follows nodes of a cluster to another before it waits between tries.
_MOST_REDIRECTS = 5
#: How often a call loads the scripts anew, on a server that forgets them again and again.
_MOST_LOADS = 10
#: What a new connection may mend.
_TROUBLE = (OSError, hiredis.HiredisError)
T = TypeVar("T")
First = Callable[[Any], object] | None

_links: weakref.WeakSet[Link] = weakref.WeakSet()


def command(*parts: str | bytes | float) -> bytes:
    """One command in the server's protocol."""
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]
    return packed


class Link:
    """A connection that reconnects. Calls are serialised by a lock; each returns its replies.

    Errors of the server arrive as StoreError, a server that stays away as StoreUnavailable after
    ``patience`` seconds. After a fork the child makes a connection of its own.
    """

    def __init__(
        self, config: StoreConfig, whereabouts: Whereabouts | None = None, *, checked: bool = False
    ) -> None:
        self.config = config
        self.whereabouts = whereabouts or Whereabouts()
        self._checked = checked
        self._lock = threading.Lock()
        self._socket: Any = None
        self._reader: Any = None
        self._receive: Any = None
        self._first: First = None  # hears the first reply of the wait that is under way
        self._limit = 0.0  # seconds that the socket waits
        #: Counts round trips, for those who prove that an operation costs as few as it should.
        self.trips = 0
        #: Posts without an answer yet, oldest first, and answers nobody has taken yet.
        self._owed: deque[tuple[bytes, int]] = deque()
        self._answers: list[list[Any]] = []
        self._resent = False
        #: True once the call on this connection was given up by another thread: nothing is sent any more.
        self.interrupted = False
        _links.add(self)

    def connect(self) -> None:
        """Connects now; raises StoreUnavailable or StoreVersion."""
        with self._lock:
            if self._socket is None:
                try:
                    self._open(self.config.connect_timeout)
                except OSError as error:
                    raise unavailable(self.config, error) from error

    def call(self, command: bytes, *, wait: float | None = None, instead: bytes = b"") -> Any:
        """Sends one packed command and returns its reply. ``wait``: how long it may block on purpose;
        ``instead``: what to ask where the connection broke, if not the same again."""
        with self._lock:
            trouble = replies = None
            # Nearly always there is a connection and all goes well.
            if self._socket is not None and not self.interrupted:
                try:
                    replies = self._exchange(command, 1, wait)
                    if type(replies[0]) is not hiredis.ReplyError:
                        return replies[0]
                except _TROUBLE as error:
                    trouble = error
                except BaseException:
                    # The reply may still be on its way: nobody must read it as the answer to another call.
                    self._drop()
                    raise
            return self._call(command, 1, wait, trouble, replies, instead)[0]

    def call_many(
        self, commands: bytes, n: int, *, wait: float | None = None, instead: bytes = b"", first: First = None
    ) -> list[Any]:
        """Sends n packed commands in one trip and returns their replies, in order; else as ``call``.
        ``first`` hears the first one when it is there, also twice; what it raises ends the call."""
        with self._lock:
            self._first = first
            return self._call(commands, n, wait, instead=instead)

    def call_parts(self, parts: Iterable[tuple[bytes, int]]) -> list[Any]:
        """The same with commands in parts (packed, and how many), each sent before the next is made."""
        with self._lock:
            sent: list[bytes] = []
            total, trouble, replies = 0, None, None
            direct = self._socket is not None and not self._owed and not self.interrupted
            try:
                for commands, n in parts:
                    sent.append(commands)
                    total += n
                    if direct and trouble is None:
                        trouble = self._send_part(commands)
                if direct and trouble is None:
                    replies = self._exchange(b"", total, None)
            except _TROUBLE as error:
                trouble = error
            except BaseException:
                self._drop()
                raise
            return self._call(b"".join(sent), total, None, trouble, replies)

    def _send_part(self, commands: bytes) -> Exception | None:
        try:
            self._socket.sendall(commands)
        except OSError as error:
            return error
        return None

    def _call(
        self,
        commands: bytes,
        n: int,
        wait: float | None,
        trouble: Exception | None = None,
        replies: list[Any] | None = None,
        instead: bytes = b"",
    ) -> list[Any]:
        """``trouble`` or ``replies``: what came of a first try."""
        loads, tries = 0, [commands] if trouble is None and replies is None else []
        while True:
            if replies is None:
                replies = self._insist(
                    lambda: self._exchange(tries.pop() if tries else instead or commands, n, wait), trouble
                )
            fault = next((reply for reply in replies if type(reply) is hiredis.ReplyError), None)
            if fault is None:
                return replies
            if not str(fault).startswith("NOSCRIPT") or loads == _MOST_LOADS:
                raise refusal(fault, self.config)
            loads += 1
            trouble = replies = None
            self._insist(self._load_scripts)

    def post(self, commands: bytes, n: int) -> list[list[Any]]:
        """Sends n packed commands without waiting for their replies. Returns the replies of earlier posts
        that are here by now, oldest first; errors of the server stand among them. What a lost connection left
        unanswered is sent again, in order."""
        with self._lock:
            self._owed.append((commands, n))
            self._resent = False
            if self._socket is None or len(self._owed) > _MOST_OWED or self.interrupted:
                self._insist(self._send_last)
            else:
                try:
                    self._socket.sendall(commands)
                except OSError as error:
                    self._insist(self._send_last, error)
                except BaseException:
                    self._drop()
                    raise
            return self._take_answers() if self._answers else []

    def await_posts(self) -> list[list[Any]]:
        """Waits for the replies to all posts; those not returned yet, oldest first."""
        with self._lock:
            if self._owed:
                self._insist(lambda: self._read_owed(0))
            return self._take_answers()

    def give_up_posts(self) -> None:
        """Forgets posts without an answer: nobody will ask for it. Each may have been carried out or not."""
        with self._lock:
            if self._owed:
                self._drop()
            self._owed.clear()
            self._answers.clear()

    def _insist(self, action: Callable[[], T], trouble: Exception | None = None) -> T:
        """Does it, on a new connection where the old one fails, for up to ``patience`` seconds. ``trouble``:
        what came of a first try."""
        give_up: float | None = None
        pause = 0.02
        redirects = 0
        while True:
            try:
                if trouble is None:
                    if self._socket is None:
                        self._open(self.config.connect_timeout)
                    if self.interrupted:
                        raise Interrupted
                    return action()
            except NotLetIn as error:
                self._drop()
                raise unavailable(self.config, error) from error
            except StoreUnavailable as error:
                if not error.transient:
                    raise
                trouble = error
            except _TROUBLE as error:
                trouble = error
            except BaseException:
                # A reply may still be on its way: nobody must read it as the answer to another call.
                self._drop()
                raise
            self._drop()
            if self.interrupted:
                raise Interrupted
            check()
            if self.whereabouts.learn(str(trouble)) and redirects < _MOST_REDIRECTS:
                redirects += 1
                trouble = None
                continue
            now = time.monotonic()
            give_up = give_up if give_up is not None else now + self.config.patience
            if now + pause > give_up:
                raise unavailable(self.config, trouble) from trouble
            time.sleep(pause)
            pause = min(pause * 2, 1.0)
            trouble = None

    def _take_answers(self) -> list[list[Any]]:
        answers, self._answers = self._answers, []
        return answers

    def _send_last(self) -> None:
        # A connection made just now has sent all that is owed.
        if not self._resent:
            self._socket.sendall(self._owed[-1][0])
        self._resent = False
        if len(self._owed) > _MOST_OWED:
            self._read_owed(_MOST_OWED // 2)

    def _read_owed(self, leave: int) -> None:
        self._allow(None)
        while len(self._owed) > leave:
            replies = self._read(self._owed[0][1])
            for reply in replies:
                # These only a new connection mends: it loads the scripts and sends all again.
                if type(reply) is hiredis.ReplyError and (passes(reply) or str(reply).startswith("NOSCRIPT")):
                    raise ConnectionError(str(reply))
            self._owed.popleft()
            self._answers.append(replies)

    def send(self, command: bytes) -> int:
        """Sends without reading; returns the descriptor to wait on. The answer is read by ``receive``."""
        with self._lock:
            try:
                if self._socket is None:
                    self._open(self.config.connect_timeout)
                self._socket.sendall(command)
            except OSError as error:
                self._drop()
                raise unavailable(self.config, error) from error
            self.trips += 1
            return int(self._socket.fileno())

    def receive(self) -> list[Any]:
        """What has arrived of the answer to ``send``: the one reply, or nothing while it is not whole."""
        with self._lock:
            if self._socket is None:
                raise unavailable(self.config, ConnectionError("the connection is closed"))
            try:
                data = self._socket.recv(CHUNK)
                if not data:
                    raise ConnectionError("the server closed the connection")
            except OSError as error:
                self._drop()
                raise unavailable(self.config, error) from error
            self._reader.feed(data)
            reply = self._reader.gets()
            if isinstance(reply, hiredis.ReplyError):
                if passes(reply):
                    self.whereabouts.learn(str(reply))
                    self._drop()
                    raise unavailable(self.config, reply)
                raise refusal(reply, self.config)
            return [] if reply is False else [reply]

    def interrupt(self) -> None:
        """For another thread than the one that waits here: its call, and any later one, raises
        Interrupted."""
        self.interrupted = True
        shut(self._socket)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def __del__(self) -> None:
        # Whoever lets go of a link is done with it: no reason for Python to warn of an open socket.
        if self._socket is not None:
            self._socket.close()

    def forget(self) -> None:
        """In a forked child: lets go of the parent's socket without a word on it."""
        self._lock = threading.Lock()
        if self._socket is not None:
            os.close(self._socket.detach())
        self._socket = self._reader = None
        self._owed.clear()
        self._answers.clear()

    def _open(self, limit: float) -> None:
        plain: Any = self.config.connect(timeout=limit, moved_to=self.whereabouts.moved_to)
        try:
            if not self._checked:
                check_server(plain, self.config)
                self._checked = True
            set_timeout(plain, self.config.timeout)
            self._limit = self.config.timeout
        except BaseException:
            plain.close()
            raise
        self._socket = plain
        self._reader = hiredis.Reader(notEnoughData=False)
        self._receive = adaptive(plain) if self.config.adaptive else partial(plain.recv, CHUNK)
        if self._owed:
            if any(b"EVALSHA" in commands for commands, _ in self._owed):  # which must not fail in between
                self._load_scripts()
            self._socket.sendall(b"".join(commands for commands, _ in self._owed))
            self._resent = True

    def _exchange(self, commands: bytes, n: int, wait: float | None) -> list[Any]:
        self.trips += 1
        self._resent = False
        if commands:
            self._socket.sendall(commands)
        if self._owed:
            self._read_owed(0)
        if wait is not None or self._limit != self.config.timeout:
            self._allow(wait)
        replies = self._read(n, asleep=wait is not None)
        for reply in replies:
            if type(reply) is hiredis.ReplyError and passes(reply):
                raise ConnectionError(str(reply))
        return replies

    def _allow(self, wait: float | None) -> None:
        """Time for a call that may block so long, in whole seconds, so that the next finds it so."""
        limit, self._limit = self._limit, self.config.timeout + (0 if wait is None else math.ceil(wait))
        if limit != self._limit:
            set_timeout(self._socket, self._limit)

    def _read(self, n: int, *, asleep: bool = False) -> list[Any]:
        reader = self._reader
        replies: list[Any] = []
        try:
            while True:
                reply = reader.gets()
                if reply is False:
                    data = self._socket.recv(CHUNK) if asleep else self._receive()
                    if not data:
                        raise ConnectionError("the server closed the connection")
                    reader.feed(data)
                else:
                    replies.append(reply)
                    if len(replies) == n:
                        return replies
                    if asleep and self._first is not None and len(replies) == 1:
                        self._first(reply)
        except BlockingIOError as error:
            raise TimeoutError(f"no answer within {self.config.timeout:g} s") from error

    def _load_scripts(self) -> None:
        # One by one: the server compiles the first while the last are put together.
        for name in _scripts.NAMES:
            self._socket.sendall(command(b"SCRIPT", b"LOAD", _scripts.load(name).body))
        for reply in self._read(len(_scripts.NAMES)):
            if isinstance(reply, hiredis.ReplyError):
                raise ConnectionError(str(reply)) if passes(reply) else refusal(reply, self.config)

    def _drop(self) -> None:
        sock, self._socket, self._reader = self._socket, None, None
        shut(sock)
        if sock is not None:
            sock.close()


def _forget_all() -> None:
    for link in list(_links):
        link.forget()


os.register_at_fork(after_in_child=_forget_all)
