"""What one worker writes: creating, claiming and settling its tasks, one round trip each.

Every reply carries the worker's own standing (member or not, asked to leave, network draining), so a
worker learns it without asking. Never starts processes or threads.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ._names import random_token
from ._records import WorkerState
from ._scripts import MemberArgs
from ._store import Store
from ._store_reads import packed_worker
from ._store_roster import WorkerCard, WorkerEnd
from ._store_tasks import Encoded, in_calls, pack_text, unknown_keys
from ._wire import command, refusal
from .errors import ConfigError, StoreError, UnknownKey, WorkerLost

_log = logging.getLogger("rushlight")
#: Seconds a blocking wait lasts at most before the server is heard again.
_BLOCK = 5.0
#: Seconds for which an empty queue is believed to be empty as long as nobody rings: another worker may have
#: taken the token and be gone.
_BELIEF = 30.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A result or failure to be settled: ``kind`` f or x, and the encoded payload."""

    key: str
    attempt: int
    kind: str
    payload: bytes


_Pack = Callable[[MemberArgs], list[bytes]]


@dataclass(frozen=True, slots=True)
class _Sent:
    """A call whose reply is not here yet, and who hears the verdicts."""

    pack: _Pack
    late: Callable[[list[bool]], None] | None


class Member:
    """One life of a worker in the network."""

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
        #: Numbers of the last claim that was answered, and of the last that was asked for.
        self._number = self._asked = 0
        self._sure = True
        self._queue_empty = False
        self._looked = 0.0
        self._drain_heard = False
        self._due = math.inf
        #: Whether the network's line has more in use than the plain queue, as far as this worker has heard.
        self._full = False
        #: What is to be done with the replies of calls sent ahead; None where calls wait for theirs.
        self._behind: deque[_Sent] | None = None

    # --- standing -------------------------------------------------------------------------------

    def join(self, state: WorkerState) -> None:
        """Registers, or moves on from starting to running."""
        self._epoch = self.store.register([self.card], state, self.lease, known=bool(self._epoch))
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
                self._write(lambda member: [self.store.scripts.claim(member, self._worker, 0, 0, False)])

    # --- tasks ----------------------------------------------------------------------------------

    def begin(self, batch: Encoded) -> None:
        """Creates tasks running here. Raises WorkerLost where this life is over."""

        def pack(member: MemberArgs) -> list[bytes]:
            calls = self.store.keep_spilled(member[0], batch.spilled)
            return calls + [self.store.scripts.begin(member, self._first, *call) for call in in_calls(batch)]

        if self._behind is not None:
            self._send_ahead(pack, None)
        else:
            self._write(pack)

    def settle(
        self,
        verdicts: Sequence[Verdict],
        spilled: dict[str, bytes],
        late: Callable[[list[bool]], None] | None = None,
    ) -> list[bool]:
        """Finishes and fails tasks; True for each that this worker's attempt decided. Raises UnknownKey
        before anything is written. Behind, all are True for now, and ``late`` hears what became of them."""
        flat = [part for verdict in verdicts for part in self._told_of(verdict)]

        def pack(member: MemberArgs) -> list[bytes]:
            return [*self.store.keep_spilled(member[0], spilled), self.store.scripts.settle(member, *flat)]

        if self._behind is not None:
            self._send_ahead(pack, late)
            return [True] * len(verdicts)
        try:
            return [bool(decided) for decided in self._write(pack)[2]]
        except WorkerLost:
            return [False] * len(verdicts)

    def step(self, verdict: Verdict, batch: Encoded, spilled: dict[str, bytes]) -> bool:
        """Settles one task and creates the one of the batch; True if this worker decided the first."""
        told = self._told_of(verdict)

        def pack(member: MemberArgs) -> list[bytes]:
            call = self.store.scripts.step(member, told, self._first, batch.keys[0], batch.heads[0])
            return [*self.store.keep_spilled(member[0], batch.spilled | spilled), call]

        return bool(self._write(pack)[2][0])

    def settle_and_claim(self, verdict: Verdict, spilled: dict[str, bytes]) -> tuple[bool, list[bytes]]:
        """Settles one task and takes the next without waiting for one."""
        told = self._told_of(verdict)
        number = self._next_number()

        def pack(member: MemberArgs) -> list[bytes]:
            call = self.store.scripts.settle_claim(member, told, self._worker, number)
            return [*self.store.keep_spilled(member[0], spilled), call]

        reply = self._write(pack)
        self._learn_of_queue(1, reply[3], reply[4], number)
        return bool(reply[2][0]), reply[3]

    def claim(self, n: int, timeout: float) -> list[bytes]:
        """Takes up to n queued tasks, waiting up to ``timeout`` for the first; the running records.

        Where the queue was empty when last seen it waits first: a wait ends at once if tasks came since.
        """
        deadline = time.monotonic() + timeout
        woken = False
        while not self.gone:
            believed = self._queue_empty and time.monotonic() < self._looked + _BELIEF
            if not believed or woken or timeout <= 0:
                values = self._claim(n, woken=woken)
                if values or self._letter not in ("s", "r") or self._drains_first():
                    return values
            left = deadline - time.monotonic()
            if left <= 0:
                break
            due = max(0.001, self._due - time.monotonic())
            woken = self._wait_for_bell(min(left, _BLOCK, due))
            if not woken and not self._full and left <= _BLOCK:
                break
        return []

    def _drains_first(self) -> bool:
        """True the first time the queue is found to have drained: the caller is to hear of it at once. A
        caller that stays all the same waits like before, instead of spinning."""
        first = self._drain == 0 and not self._drain_heard
        self._drain_heard = self._drain == 0
        return first

    def _claim(self, n: int, *, woken: bool) -> list[bytes]:
        number = self._next_number()
        try:
            reply = self._write(
                lambda member: [self.store.scripts.claim(member, self._worker, number, n, woken)]
            )
        except WorkerLost:
            return []
        values: list[bytes] = reply[2]
        self._learn_of_queue(n, values, reply[3], number)
        return values

    def _next_number(self) -> int:
        """A claim that was given up without an answer is asked again under its number: the server may have
        carried it out, and then answers with the same tasks."""
        number = self._number + 1
        self._sure = self._asked != number
        self._asked = number
        return number

    def _learn_of_queue(self, n: int, values: list[bytes], due: int, number: int) -> None:
        """What a claim of n told: whether more is queued, and when a delayed task becomes due. Where tasks
        wait for a time or for one worker, an empty claim says nothing of the next; nor does an answer that
        may be that of an earlier call."""
        self._number = number
        self._looked = time.monotonic()
        self._queue_empty = self._sure and len(values) < n and not self._full
        self._due = time.monotonic() + due / 1e6 if due >= 0 else math.inf

    def _wait_for_bell(self, seconds: float) -> bool:
        """Blocks until the queue or an order rings; True also where the connection broke meanwhile, since
        the token may have gone with it."""
        keys = self.store.keys
        # Until it is known that nobody rang, a token may be in our hands: the next claim must look.
        self._queue_empty = False
        own = keys.bell(self.card.worker_id)
        # The bell of a queue that has drained rings on and on, for everybody to leave.
        bells = (own,) if self._drain_heard else (keys["bell"], own)
        with self.store.waiting_link() as link:
            trips = link.trips
            reply = link.call(command("BLPOP", *bells, f"{seconds:.3f}"), wait=seconds)
            broke = link.trips - trips > 1
        if reply is None and not broke:
            self._queue_empty = not self._drain_heard and not self._full
            return False
        return True

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

    def _send_ahead(self, pack: _Pack, late: Callable[[list[bool]], None] | None) -> None:
        calls = pack((self._epoch, self.card.worker_id, self.card.token, self._full))
        behind = self._behind if self._behind is not None else deque()
        behind.append(_Sent(pack, late))
        self._hear_behind(behind, self.store.link.post(b"".join(calls), len(calls)))

    def _hear_behind(self, behind: deque[_Sent], answers: list[list[Any]]) -> None:
        trouble: StoreError | UnknownKey | WorkerLost | None = None
        for replies in answers:
            sent = behind.popleft()
            try:
                reply = self._hear_late(sent, replies)
            except (StoreError, UnknownKey, WorkerLost) as error:
                # The others have answers too, and who waits for them.
                trouble = trouble or error
                continue
            if sent.late is not None:
                sent.late([bool(decided) for decided in reply[2]])
        if trouble is not None:
            raise trouble

    def _hear_late(self, sent: _Sent, replies: list[Any]) -> list[Any]:
        reply: list[Any] = replies[-1]
        for fault in replies:
            if isinstance(fault, Exception):
                raise refusal(fault, self.store.config)
        # After a reset of tasks only, or the first use of more than the plain queue, it is made again.
        anew = reply[0] == b"LINE" or (reply[0] == b"EPOCH" and reply[2])
        return self._write(sent.pack) if anew else self._judged(reply)

    # --- sending --------------------------------------------------------------------------------

    def _told_of(self, verdict: Verdict) -> tuple[str, str, bytes, bytes]:
        who = self._first if verdict.attempt == 1 else packed_worker(self.card.worker_id, verdict.attempt)
        return verdict.key, verdict.kind, who, verdict.payload

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

    def _write(self, pack: _Pack) -> list[Any]:
        """Sends the calls ``pack(member)`` makes, in one trip; the last reply. What it says of the worker is
        kept. After a reset of tasks only, a member goes on under the new epoch; WorkerLost where this life
        is over."""
        for _ in range(5):
            calls = pack((self._epoch, self.card.worker_id, self.card.token, self._full))
            reply: list[Any] = self.store.link.call_many(b"".join(calls), len(calls))[-1]
            if reply[0] == b"LINE":
                self._full = True
            elif reply[0] == b"EPOCH" and reply[2]:
                # Logs are written under the store's.
                self._epoch = self.store.epoch = self.store.heard(reply[1])
            elif reply[:2] == [b"GONE", b"l"] and self._rejoin():
                continue
            else:
                return self._judged(reply)
        raise StoreError(f"network {self.store.network!r} is being reset over and over")

    def _judged(self, reply: list[Any]) -> list[Any]:
        """The reply, if it is none of the refusals."""
        if reply[0] == b"UNKNOWN":
            raise unknown_keys([key.decode() for key in reply[1]], self.store.network)
        if reply[0] in (b"GONE", b"EPOCH"):
            self._letter = reply[1].decode() if reply[0] == b"GONE" else "l"
            raise self._over()
        return self._heard(reply)

    def _heard(self, reply: list[Any]) -> list[Any]:
        self._letter = reply[0].decode()
        self._drain = reply[1]
        self._told = time.monotonic()
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
