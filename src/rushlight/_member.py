"""What one worker writes: creating, claiming and settling its tasks, one round trip each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ._life import Late, Life, Pack, verdicts_of
from ._scripts import MemberArgs
from ._store import Store
from ._store_reads import packed_worker
from ._store_roster import WorkerCard
from ._store_tasks import Encoded, in_calls
from ._wire import command
from .errors import WorkerLost

#: Seconds a blocking wait lasts at most before the server is heard again, and at least: Redis 6.2 takes a
#: thousandth for none, and waits for ever.
_BLOCK, _LEAST = 5.0, 0.01
#: Seconds for which an empty queue is believed to be empty as long as nobody rings: another worker may have
#: taken the token and be gone.
_BELIEF = 30.0
#: Seconds after a task for which a wait brings the next with it. Not longer, as whoever dies unheard
#: meanwhile, or is stopped, is given a task that somebody else would have done.
_SOON = 0.5


class Verdict(NamedTuple):
    """A result or failure to be settled: ``kind`` f or x, and the encoded payload."""

    key: str
    attempt: int
    kind: str
    payload: bytes


class _Otherwise(BaseException):
    """A result was not answered in the plain way: a signal, never an error."""

    def __init__(self, reply: Any) -> None:
        super().__init__()
        self.reply = reply


def _expect_plain(reply: Any) -> None:
    if type(reply) is not int:
        raise _Otherwise(reply)


class Member(Life):
    """One life of a worker, and what it does."""

    def __init__(
        self, store: Store, card: WorkerCard, lease: float, on_rejoin: Callable[[], None] | None = None
    ) -> None:
        super().__init__(store, card, lease, on_rejoin)
        #: Numbers of the last claim that was answered, and of the last that was asked for.
        self._number = self._asked = 0
        self._sure = True
        self._queue_empty = False
        self._looked = 0.0
        self._drain_heard = False
        #: Whether a task was taken since the last wait that could have brought one with it, and whether the
        #: queue was empty behind the last one that was taken.
        self._warm = self._dry = False
        self._bells: dict[tuple[float, bool], bytes] = {}
        self._due = math.inf

    def begin(self, batch: Encoded) -> None:
        """Creates tasks running here. Raises WorkerLost where this life is over."""

        def pack(member: MemberArgs) -> list[bytes]:
            calls = self.store.keep_spilled(member[0], batch.spilled)
            return calls + [self.store.scripts.begin(member, self._first, *call) for call in in_calls(batch)]

        if len(batch) == 1 and not batch.spilled:
            self.begin_one(batch.keys[0], batch.heads[0])
        elif self._behind is not None:
            self._send_ahead(pack, None)
        else:
            self._write(pack)

    def begin_one(self, key: str, head: bytes) -> None:
        """The same for one task, the quick way."""

        def pack(member: MemberArgs) -> list[bytes]:
            return [self.store.scripts.begin(member, self._first, key, head)]

        call = (self._stems or self._make_stems()).begin(key.encode(), head)
        if self._behind is not None:
            self._send_ahead(pack, None, call)
        else:
            self._ask(call, pack)

    def settle(
        self,
        verdicts: Sequence[Verdict],
        spilled: dict[str, bytes],
        late: Late | None = None,
    ) -> list[bool]:
        """Finishes and fails tasks; True for each that this worker's attempt decided. Raises UnknownKey
        before anything is written. Behind, all are True for now, and ``late`` hears what became of them."""
        if len(verdicts) == 1 and not spilled and is_plain(verdicts[0]):
            return [self.finish_one(verdicts[0].key, verdicts[0].payload, late)]
        flat = [part for verdict in verdicts for part in self._told_of(verdict)]

        def pack(member: MemberArgs) -> list[bytes]:
            return [*self.store.keep_spilled(member[0], spilled), self.store.scripts.settle(member, *flat)]

        if self._behind is not None:
            self._send_ahead(pack, late)
            return [True] * len(verdicts)
        try:
            return verdicts_of(self._write(pack))
        except WorkerLost:
            return [False] * len(verdicts)

    def finish_one(self, key: str, payload: bytes, late: Late | None = None) -> bool:
        """Finishes one task in its first attempt, the quick way; see ``settle``."""

        def pack(member: MemberArgs) -> list[bytes]:
            return [self.store.scripts.settle(member, "f", self._first, key, payload)]

        call = (self._stems or self._make_stems()).finish(key.encode(), payload)
        if self._behind is not None:
            self._send_ahead(pack, late, call)
            return True
        try:
            reply = self._ask(call, pack)
        except WorkerLost:
            return False
        return type(reply) is int or verdicts_of(reply)[0]

    def step(self, verdict: Verdict, batch: Encoded, spilled: dict[str, bytes]) -> bool:
        """Settles one task and creates the one of the batch; True if this worker decided the first."""
        if not spilled and not batch.spilled and is_plain(verdict):
            return self.step_one(verdict.key, verdict.payload, batch.keys[0], batch.heads[0])
        told = self._told_of(verdict)

        def pack(member: MemberArgs) -> list[bytes]:
            call = self.store.scripts.step(member, self._first, told, batch.keys[0], batch.heads[0])
            return [*self.store.keep_spilled(member[0], batch.spilled | spilled), call]

        return verdicts_of(self._write(pack))[0]

    def step_one(self, key: str, payload: bytes, new: str, head: bytes) -> bool:
        """Finishes one task in its first attempt and creates another, the quick way; see ``step``."""

        def pack(member: MemberArgs) -> list[bytes]:
            return [self.store.scripts.step(member, self._first, ("f", self._first, key, payload), new, head)]

        stems = self._stems or self._make_stems()
        reply = self._ask(stems.step(key.encode(), payload, new.encode(), head), pack)
        return type(reply) is int or verdicts_of(reply)[0]

    def settle_and_claim(self, verdict: Verdict, spilled: dict[str, bytes]) -> tuple[bool, list[bytes]]:
        """Settles one task and takes the next without waiting for one."""
        number = self._next_number()

        def pack(member: MemberArgs) -> list[bytes]:
            call = self.store.scripts.settle_claim(member, self._worker, 1, self._told_of(verdict), number)
            return [*self.store.keep_spilled(member[0], spilled), call]

        if spilled or not is_plain(verdict):
            reply = self._write(pack)
        else:
            stems = self._stems or self._make_stems()
            reply = self._ask(stems.finish_claim(verdict.key.encode(), verdict.payload, number), pack)
        if type(reply) is list:
            self._learn_of_queue(1, reply[3], reply[4], number)
            return verdicts_of(reply)[0], reply[3]
        self._learn_of_queue(1, values := [reply] if type(reply) is bytes else [], -1, number)
        return True, values

    @property
    def expects_none(self) -> bool:
        """True where the queue was empty when last looked at, behind a task that was taken or settled just
        now."""
        return self._dry and not self._full

    @property
    def claimed(self) -> int:
        """Number of the last claim that was answered."""
        return self._number

    def exchange(
        self, verdicts: Sequence[Verdict], spilled: dict[str, bytes], n: int
    ) -> tuple[list[bool], list[bytes]]:
        """Settles tasks and takes up to n, its share of the queue at most, without waiting; of several it may
        begin with the others later than with the first."""
        who: bytes = b""
        flat: list[str | bytes]
        if verdicts and all(map(is_plain, verdicts)):
            who = self._first
            flat = [verdict.key for verdict in verdicts]
            flat += [verdict.payload for verdict in verdicts]
        else:
            flat = [part for verdict in verdicts for part in self._told_of(verdict)]
        number = self._next_number()

        def pack(member: MemberArgs) -> list[bytes]:
            call = self.store.scripts.exchange(member, self._worker, n, number, who, *flat)
            return [*self.store.keep_spilled(member[0], spilled), call]

        reply = self._write(pack)
        self._learn_of_queue(1, reply[3], reply[4], number)
        return verdicts_of(reply), reply[3]

    def hand_back(
        self,
        at: tuple[str, int] | None,
        keys: Sequence[str],
        verdicts: Sequence[Verdict],
        spilled: dict[str, bytes],
    ) -> list[bool]:
        """Settles tasks, and puts others of the last claim, which it has not begun, back where they were.
        ``at``: key and attempt of the task it is at."""
        flat = [part for verdict in verdicts for part in self._told_of(verdict)]
        current = (b"", "") if at is None else (packed_worker(self.card.worker_id, at[1]), at[0])

        def pack(member: MemberArgs) -> list[bytes]:
            call = self.store.scripts.hand_back(member, self._number, current, keys, *flat)
            return [*self.store.keep_spilled(member[0], spilled), call]

        return verdicts_of(self._write(pack))

    def finish_and_wait(self, verdict: Verdict, seconds: float) -> tuple[bool, list[bytes]]:
        """``settle_and_claim`` of a plain result where none is likely to be queued: brings the next task when
        it comes, in one trip, or nothing after so many seconds."""
        stems, number = self._stems or self._make_stems(), self._next_number()
        finish = stems.finish(verdict.key.encode(), verdict.payload)
        claim = stems.claim(number, woken=True)
        try:
            _, _, reply = self._wait_behind(finish, claim, 3, min(seconds, _SOON), _expect_plain)
        except _Otherwise as other:
            # What there is to be said of it is to be said at once. The claim may have been made.
            return self._settle_otherwise(verdict, other.reply), self._claim(1, woken=True)
        return True, self._brought(1, reply, number)

    def _settle_otherwise(self, verdict: Verdict, reply: Any) -> bool:
        def pack(member: MemberArgs) -> list[bytes]:
            return [self.store.scripts.settle(member, *self._told_of(verdict))]

        try:
            return verdicts_of(self._write(pack, reply))[0]
        except WorkerLost:
            return False

    def claim(self, n: int, timeout: float) -> list[bytes]:
        """Takes up to n queued tasks, waiting up to ``timeout`` for the first; the running records.

        Where the queue was empty when last seen it waits first: a wait ends at once if tasks came since. The
        first wait behind a task brings the next with it, as that is likely to come soon.
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
            seconds = min(left, _BLOCK, max(0.001, self._due - time.monotonic()))
            if self._warm:
                values = self._wait_and_claim(n, min(seconds, _SOON))
                if values or self._letter not in ("s", "r") or self._drains_first():
                    return values
                continue
            woken = self._wait_for_bell(seconds)
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
        pack = self._claiming(n, number, woken=woken)
        try:
            if n == 1 and not woken:
                reply = self._ask((self._stems or self._make_stems()).claim(number), pack)
            else:
                reply = self._write(pack)
        except WorkerLost:
            return []
        return self._claimed(n, reply, number)

    def _claiming(self, n: int, number: int, *, woken: bool) -> Pack:
        return lambda member: [self.store.scripts.claim(member, self._worker, n, woken, number)]

    def _claimed(self, n: int, reply: Any, number: int) -> list[bytes]:
        values: list[bytes]
        values, due = ([reply], -1) if type(reply) is bytes else reply[2:4]
        self._learn_of_queue(n, values, due, number)
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
        self._warm, self._dry = self._warm or bool(values), len(values) < n
        self._queue_empty = self._sure and len(values) < n and not self._full
        self._due = time.monotonic() + due / 1e6 if due >= 0 else math.inf

    def _wait_for_bell(self, seconds: float) -> bool:
        """Blocks until the queue or an order rings; True also where the connection broke meanwhile, since
        the token may have gone with it."""
        # Until it is known that nobody rang, a token may be in our hands: the next claim must look.
        self._queue_empty = False
        with self.store.waiting_link() as link:
            trips = link.trips
            reply = link.call(self._bell(max(seconds, _LEAST)), wait=seconds, instead=self._bell(_LEAST))
            broke = link.trips - trips > 1
        if reply is None and not broke:
            self._queue_empty = not self._drain_heard and not self._full
            return False
        return True

    def _wait_and_claim(self, n: int, seconds: float) -> list[bytes]:
        """The same, and what is there to be taken then, in one trip."""
        number = self._next_number()
        claim = b"".join(self._claiming(n, number, woken=True)(self._arguments()))
        _, reply = self._wait_behind(b"", claim, 2, seconds)
        return self._brought(n, reply, number)

    def _wait_behind(
        self,
        ahead: bytes,
        claim: bytes,
        n: int,
        seconds: float,
        first: Callable[[Any], object] | None = None,
    ) -> list[Any]:
        """Waits for the bell with commands ahead of it and behind it: the server answers a wait and what is
        asked behind it together."""
        self._queue_empty = self._warm = False
        ask, instead = ahead + self._bell(max(seconds, _LEAST)) + claim, ahead + self._bell(_LEAST) + claim
        with self.store.waiting_link() as link:
            return link.call_many(ask, n, wait=seconds, instead=instead, first=first)

    def _brought(self, n: int, reply: Any, number: int) -> list[bytes]:
        """The records of a claim that followed a wait."""
        try:
            if type(reply) is list:
                reply = self._write(self._claiming(n, number, woken=True), reply)
            else:
                self._heard(reply)
            values = self._claimed(n, reply, number)
        except WorkerLost:
            return []
        # The last one of the queue comes without a word about the rest.
        self._dry = self._dry or type(reply) is bytes
        return values

    def _bell(self, seconds: float) -> bytes:
        """The wait for the queue's bell, or this worker's. Whoever's connection broke looks at once."""
        packed = self._bells.get((seconds, self._drain_heard))
        if packed is None:
            keys = self.store.keys
            own = keys.bell(self.card.worker_id)
            # The bell of a queue that has drained rings on and on, for everybody to leave.
            bells = (own,) if self._drain_heard else (keys["bell"], own)
            packed = command("BLPOP", *bells, f"{seconds:.3f}")
            if seconds in (_SOON, _LEAST):
                self._bells[seconds, self._drain_heard] = packed
        return packed

    def _told_of(self, verdict: Verdict) -> tuple[str, bytes, str, bytes]:
        who = self._first if verdict.attempt == 1 else packed_worker(self.card.worker_id, verdict.attempt)
        return verdict.kind, who, verdict.key, verdict.payload


def is_plain(verdict: Verdict) -> bool:
    """A result of a first attempt: what ``Stems`` are made for."""
    return verdict.kind == "f" and verdict.attempt == 1
