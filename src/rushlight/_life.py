"""One life of a worker: how it joins and leaves, how its writes are sent, what the replies say of it.

Every reply carries the worker's own standing (member or not, asked to leave, network draining), so a
worker learns it without asking. Never starts processes or threads.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ._connect import refusal
from ._names import random_token
from ._records import WorkerState
from ._scripts import MemberArgs
from ._stems import Stems
from ._store import Store
from ._store_ends import WorkerEnd
from ._store_reads import packed_worker
from ._store_roster import WorkerCard
from ._store_tasks import pack_text, unknown_keys
from .errors import ConfigError, StoreError, UnknownKey, WorkerLost

_log = logging.getLogger("rushlight")
Pack = Callable[[MemberArgs], list[bytes]]
#: Who hears the verdicts of a call whose reply is not here yet.
Late = Callable[[list[bool]], None]


class Life:
    """A worker's standing, and the sending of its writes; ``Member`` says what it writes."""

    def __init__(
        self, store: Store, card: WorkerCard, lease: float, on_rejoin: Callable[[], None] | None = None
    ) -> None:
        """``on_rejoin`` makes this worker come back under its id when it was declared lost: it hears that its
        tasks are not its own any more. Without, a lost worker's life is over."""
        self._on_rejoin = on_rejoin
        self.store = store
        self.card = card
        self.lease = lease
        self._worker = pack_text(card.worker_id)
        self._first = packed_worker(card.worker_id, 1)
        self._epoch = ""
        self._letter = "s"
        self._drain = -1
        self._told = 0.0
        #: Whether the network's line has more in use than the plain queue, as far as this worker has heard.
        self._full = False
        #: Calls of which all but the last arguments are packed; None where they must be made (anew).
        self._stems: Stems | None = None
        #: How calls sent ahead are made again, and who hears the verdicts; None where calls wait for theirs.
        self._behind: deque[tuple[Pack, Late | None]] | None = None

    # --- standing -------------------------------------------------------------------------------

    def join(self, state: WorkerState) -> None:
        """Registers, or moves on from starting to running."""
        self._epoch = self.store.register([self.card], state, self.lease, known=bool(self._epoch))
        self._stems = None
        self._letter = "s" if state is WorkerState.STARTING else "r"
        # Whether it was asked to leave meanwhile, only the server knows.
        self._told = 0.0

    def leave(self, message: str) -> None:
        """Ends the membership; tasks still held fail with the message."""
        end = WorkerEnd(self.card.worker_id, self.card.token, WorkerState.TERMINATED, message)
        self.store.bury_or_replace([end])
        self._letter = "t"

    @property
    def gone(self) -> bool:
        """True once the network told that this life is over."""
        return self._letter not in ("s", "r", "d")

    @property
    def leaving(self) -> bool:
        """True where the worker is to leave: asked to, killed, lost, or the network was reset."""
        self._refresh()
        return self._letter not in ("s", "r")

    @property
    def idle_stop(self) -> bool:
        """True where workers are to leave once the queue is empty, and it is."""
        self._refresh()
        return self._drain == 0

    def _refresh(self) -> None:
        if not self.gone and time.monotonic() - self._told > 1.0:
            with contextlib.suppress(WorkerLost):
                self._write(lambda member: [self.store.scripts.claim(member, self._worker, 0, False, 0)])

    # --- writing behind ---------------------------------------------------------------------------

    def begin_behind(self) -> None:
        """From now on creating and settling do not wait for their replies."""
        if self._behind is not None:
            raise ConfigError("write_behind() is in force already: it cannot be nested")
        self._behind = deque()

    def end_behind(self) -> None:
        """Waits for all replies and raises the first error among them."""
        behind, self._behind = self._behind or deque(), None
        try:
            answers = self.store.link.await_posts()
        except BaseException:
            self.store.link.give_up_posts()
            raise
        self._hear_behind(behind, answers)

    def _send_ahead(self, pack: Pack, late: Late | None, call: bytes | None = None) -> None:
        calls = [call] if call is not None else pack(self._arguments())
        behind = self._behind if self._behind is not None else deque()
        behind.append((pack, late))
        answers = self.store.link.post(b"".join(calls), len(calls))
        if answers:
            self._hear_behind(behind, answers)

    def _hear_behind(self, behind: deque[tuple[Pack, Late | None]], answers: list[list[Any]]) -> None:
        trouble: StoreError | UnknownKey | WorkerLost | None = None
        for replies in answers:
            pack, late = behind.popleft()
            if type(replies[-1]) is int and len(replies) == 1:
                self._heard(replies[-1])
                continue
            try:
                reply = self._hear_late(pack, replies)
            except (StoreError, UnknownKey, WorkerLost) as error:
                # The others have answers too, and who waits for them.
                trouble = trouble or error
                continue
            if late is not None:
                late(verdicts_of(reply))
        if trouble is not None:
            raise trouble

    def _hear_late(self, pack: Pack, replies: list[Any]) -> Any:
        reply = replies[-1]
        for fault in replies:
            if isinstance(fault, Exception):
                raise refusal(fault, self.store.config)
        if type(reply) is list and (reply[0] == b"LINE" or (reply[0] == b"EPOCH" and reply[2])):
            # After a reset of tasks only, or the first use of more than the plain queue, it is made again.
            return self._write(pack)
        return self._judged(reply)

    # --- sending ---------------------------------------------------------------------------------

    def _arguments(self) -> MemberArgs:
        return self._epoch, self.card.worker_id, self.card.token, self._full

    def _make_stems(self) -> Stems:
        self._stems = Stems(self.store.scripts, self._arguments(), self._worker, self._first)
        return self._stems

    def _rejoin(self) -> bool:
        """Begins a new life after having been declared lost; False where that may not be."""
        if self._on_rejoin is None:
            return False
        self.card = replace(self.card, token=random_token())
        try:
            self.join(WorkerState.RUNNING)
        except (ConfigError, WorkerLost):
            # Somebody else goes by this id by now, or the network was reset.
            self._letter, self._on_rejoin = "l", None
            return False
        _log.warning("worker %s had been declared lost and has come back", self.card.worker_id)
        self._on_rejoin()
        return True

    def _ask(self, call: bytes, pack: Pack) -> Any:
        """As ``_write``, where the one call that ``pack`` makes is packed already."""
        reply = self.store.link.call(call)
        return self._write(pack, reply) if type(reply) is list else self._heard(reply)

    def _write(self, pack: Pack, reply: Any = None) -> Any:
        """Sends the calls ``pack(member)`` makes, in one trip; the last reply. What it says of the worker is
        kept. After a reset of tasks only, a member goes on under the new epoch; WorkerLost where this life
        is over. ``reply``: what a first try was told."""
        for _ in range(5):
            if reply is None:
                calls = pack(self._arguments())
                reply = self.store.link.call_many(b"".join(calls), len(calls))[-1]
            if type(reply) is not list:
                return self._heard(reply)
            if reply[0] == b"LINE":
                self._full = True
            elif reply[0] == b"EPOCH" and reply[2]:
                # Logs are written under the store's.
                self._epoch = self.store.epoch = self.store.heard(reply[1])
            elif reply[:2] != [b"GONE", b"l"] or not self._rejoin():
                return self._judged(reply)
            self._stems = reply = None
        raise StoreError(f"network {self.store.network!r} is being reset over and over")

    def _judged(self, reply: Any) -> Any:
        """The reply, if it is none of the refusals."""
        if type(reply) is not list:
            return self._heard(reply)
        if reply[0] == b"UNKNOWN":
            raise unknown_keys([key.decode() for key in reply[1]], self.store.network)
        if reply[0] in (b"GONE", b"EPOCH"):
            self._letter = reply[1].decode() if reply[0] == b"GONE" else "l"
            raise self._over()
        return self._heard(reply)

    def _heard(self, reply: Any) -> Any:
        """The reply, what it says of this worker noted. Anything but a list is an answer to a running worker
        of a network that does not drain."""
        self._told = time.monotonic()
        if type(reply) is not list:
            self._letter, self._drain = "r", -1
            return reply
        self._letter = reply[0].decode()
        self._drain = reply[1]
        if self._letter == "l":
            self._rejoin()
        return reply

    def _over(self) -> WorkerLost:
        why = {"k": "was killed", "t": "has left", "l": "was declared lost, or the network was reset"}
        return WorkerLost(
            f"worker {self.card.worker_id!r} {why.get(self._letter, 'is no member')}: it may not write to "
            f"network {self.store.network!r} any more",
            worker_id=self.card.worker_id,
        )


def verdicts_of(reply: Any) -> list[bool]:
    """What became of each task. Where all was plain the reply is no list, and the one task was decided; or it
    has their number instead of a list, and all were."""
    if type(reply) is not list:
        return [True]
    return [True] * reply[2] if type(reply[2]) is int else [bool(decided) for decided in reply[2]]
