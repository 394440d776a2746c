"""Verbs about workers: joining, leases, ends, stopping, orders, logs, start arguments, reset."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from ._names import new_sending
from ._records import WorkerInfo, WorkerState, WorkerUsage
from ._store_base import new_epoch, pairs
from ._store_ends import CRASHED, KILLED, EndVerbs
from ._store_reads import ReadVerbs
from ._trust import PYTHON
from ._usage import Sample
from ._version import __version__
from ._wire import command
from .errors import ConfigError, DataMissing, WorkerLost

LETTERS = {
    "s": WorkerState.STARTING,
    "r": WorkerState.RUNNING,
    "d": WorkerState.RUNNING,
    "t": WorkerState.TERMINATED,
    "k": WorkerState.KILLED,
    "i": WorkerState.STARTING,
    "l": WorkerState.LOST,
}
#: What a network's log keeps, and what it leaves to each worker when many share it: lines, of which a long
#: one counts once more for every KiB.
LOG_LIMIT, LOG_SHARE = 20_000, 500
#: Entries of the log that are read in one trip.
LOG_PAGE = 1000
#: Why a worker is lost of whose process nobody knows.
_SILENT = "lease ran out"
#: What a card of an early release does not say.
_UNTOLD = {"release": "", "python": ""}


@dataclass(frozen=True, slots=True)
class WorkerCard:
    """What a worker says of itself when it registers. ``token`` names this life of the id; ``lease`` is
    filled in by ``register``. ``release`` and ``python`` are the versions it runs."""

    worker_id: str
    token: str
    pid: int
    hostname: str
    launcher: str = "process"
    supervisor: str = ""
    on_lost: str = "fail"
    spec: str = ""
    crashes: int = 0
    lease: float = 0.0
    release: str = __version__
    python: str = PYTHON


@dataclass(frozen=True, slots=True)
class Beat:
    """Answer to a renewal: a letter per worker (``LETTERS``; '?' is not a member), leases run out."""

    letters: str
    overdue: int


class RosterVerbs(EndVerbs, ReadVerbs):
    """The network's workers."""

    def register(
        self, cards: Sequence[WorkerCard], state: WorkerState, lease: float, *, known: bool = False
    ) -> str:
        """Makes workers members, all or none, and returns the epoch. With the same tokens again it moves
        them on. ConfigError if a live worker has the id, WorkerLost if this life was ended meanwhile.
        ``known``: they have been here before, so that a network reset since does not take them."""
        letter = "s" if state is WorkerState.STARTING else "r"
        args: list[Any] = []
        for card in cards:
            told = {
                name: getattr(card, name) for name in card.__slots__ if name not in ("worker_id", "token")
            }
            told["lease"] = lease
            args += (card.worker_id, card.token, letter, msgspec.msgpack.encode(told))
        command = self.scripts.register(known, new_epoch(), int(lease * 1e6), *args)
        reply = self.link.call(command)
        if reply[0] == b"FORMAT":
            self.heard(reply[1])
        if reply[0] == b"TAKEN" and self.reap():
            # Its holder had been gone for longer than its lease, and nobody had looked.
            reply = self.link.call(command)
        if reply[0] == b"TAKEN":
            taken = [name.decode() for name in reply[1]]
            raise ConfigError(
                f"worker_id {taken[0]!r} is taken by a live worker of network {self.network!r}: take another",
                worker_ids=taken,
            )
        if reply[0] == b"GONE":
            gone = [name.decode() for name in reply[1]]
            why = "is not known any more: the network was reset" if known else "was stopped while it started"
            raise WorkerLost(f"worker {gone[0]!r} {why}", worker_id=gone[0])
        self.epoch = self.heard(reply[1])
        return self.epoch

    def beat(
        self, members: Sequence[tuple[str, str]], lease: float, samples: Mapping[str, Sample] | None = None
    ) -> Beat:
        """Renews the leases of (id, token) pairs, all in one command; ``samples`` by id go along. Of a
        network that was reset all letters are '?': nothing is created."""
        told = {name: sample.packed() for name, sample in (samples or {}).items()}
        flat = [part for name, token in members for part in (name, token, told.get(name, b""))]
        reply = self.link.call(self.scripts.beat(self.epoch, int(lease * 1e6), *flat))
        if reply[0] == b"EPOCH":
            if not reply[1]:
                return Beat("?" * len(members), 0)
            self.epoch = self.heard(reply[1])
            return self.beat(members, lease, samples)
        return Beat(reply[1].decode(), reply[2])

    def reap(self) -> list[str]:
        """Declares workers lost whose lease ran out; returns those this call found. A network that is gone
        does not come back for it."""
        condition = self.encode_condition({"message": CRASHED, "type": "WorkerLost", "reason": _SILENT})
        call = self.new_call()
        while self.epoch or self._adopt():
            reply = self.link.call(self.scripts.reap(self.epoch, call, condition))
            if reply[0] != b"EPOCH":
                return [wid.decode() for wid in reply[1]]
            self.epoch = ""
        return []

    def _adopt(self) -> bool:
        """Takes the epoch the network has; False if it has none, and then nothing is to be done."""
        return bool(self._open(create=False))

    def stop(
        self, worker_ids: Sequence[str], *, kill: bool, own: Literal["", "away", "back"] = ""
    ) -> tuple[list[str], list[str]]:
        """Asks workers to leave, or ends them now; returns those stopped and those that were not live.
        ``own``: said by their supervisor, to whom one whose task was stopped comes back; ``back``: all do.
        Those are meant that go by these ids now: where a reset comes between, no later ones."""
        letter = "k" if kill else {"": "d", "away": "a", "back": "u"}[own]
        condition = self.encode_condition({"message": KILLED, "type": "WorkerKilled"})
        call, epochs = self.new_call(), set[str]()
        lives = self._lives(worker_ids)

        def pack(epoch: str) -> bytes:
            epochs.add(epoch)
            # Within an epoch a worker whose process is replaced meanwhile is still the one that is meant.
            meant = lives if len(epochs) > 1 else dict.fromkeys(lives, "")
            return self.scripts.stop(epoch, call, letter, condition, meant)

        reply = self.write(pack)
        return [wid.decode() for wid in reply[1]], [wid.decode() for wid in reply[2]]

    def _lives(self, worker_ids: Sequence[str]) -> dict[str, str]:
        """What tells those that go by these ids now from others; '-' where nobody does."""
        names = dict.fromkeys(worker_ids)
        if not names:
            return {}
        found = self.link.call(command("HMGET", self.keys["control"], *(f"w:{wid}" for wid in names)))
        return {wid: told[1:].decode() if told else "-" for wid, told in zip(names, found, strict=True)}

    def workers(self) -> list[WorkerInfo]:
        """Everybody who ever registered, in the order of registration, at one instant."""
        names = ("workers", "control", "ends", "tallies", "running")
        commands: list[tuple[Any, ...]] = [("HGETALL", self.keys[name]) for name in names]
        commands.append(("ZRANGE", self.keys["leases"], 0, -1, "WITHSCORES"))
        *hashes, leases = self.transaction(*commands)
        cards, control, ends, tallies, running = (dict(pairs(h)) for h in hashes)
        self.heard(control.get(b"epoch"))
        due = dict(pairs(leases))
        at_work = {row[0]: row[3] for row in self.running_rows(list(running.values()))}
        infos = [_info(wid, card, control, ends, tallies, due, at_work) for wid, card in cards.items()]
        return sorted(infos, key=lambda info: (info.started_at or 0.0, info.worker_id))

    def usage(self) -> list[WorkerUsage]:
        """What workers used when they were sampled last, by id."""
        found = self.link.call(command("HGETALL", self.keys["usage"]))
        rows = [(wid.decode(), *msgspec.msgpack.decode(b"\x92" + said)) for wid, said in pairs(found)]
        return [WorkerUsage(wid, at / 1e6, **sample) for wid, at, sample in sorted(rows, key=_first)]

    def worker_states(self) -> dict[str, WorkerState]:
        """The state of every worker; one small command."""
        fields = self.link.call(command("HGETALL", self.keys["control"]))
        control = dict(pairs(fields))
        self.heard(control.get(b"epoch"))
        return {
            name[2:].decode(): LETTERS[chr(value[0])]
            for name, value in control.items()
            if name.startswith(b"w:")
        }

    def ran(self) -> set[str]:
        """The workers that have ever been running, whatever became of them."""
        fields = self.link.call(command("HKEYS", self.keys["control"]))
        return {name[2:].decode() for name in fields if name.startswith(b"r:")}

    def unburied(self, worker_ids: Sequence[str]) -> list[str]:
        """Of these workers, those under a supervisor that has not reported the end of their process."""
        cards, ends = self.transaction(
            ("HMGET", self.keys["workers"], *worker_ids), ("HMGET", self.keys["ends"], *worker_ids)
        )
        return [
            wid
            for wid, card, end in zip(worker_ids, cards, ends, strict=True)
            if end is None and card is not None and msgspec.msgpack.decode(b"\x92" + card)[1]["supervisor"]
        ]

    def cards(self) -> dict[str, WorkerCard]:
        """What every worker said of itself when it last registered; without tokens."""
        stored = self.link.call(command("HGETALL", self.keys["workers"]))
        cards = {}
        for wid, card in pairs(stored):
            told = _UNTOLD | msgspec.msgpack.decode(b"\x92" + card)[1]
            cards[wid.decode()] = WorkerCard(wid.decode(), "", **told)
        return cards

    def last_order(self) -> str:
        """Where a supervisor begins to listen."""
        found = self.link.call(command("XREVRANGE", self.keys["orders"], "+", "-", "COUNT", 1))
        return found[0][0].decode() if found else "0-0"

    def add_logs(self, worker_id: str, entries: Sequence[Mapping[str, Any]]) -> None:
        """Appends to the capped log; of a network that was reset nothing is written."""
        packed = [msgspec.msgpack.encode(entry) for entry in entries]
        if packed and self.epoch:
            sending, kept = new_sending(), self.new_call()[1]
            self.link.call(
                self.scripts.log(self.epoch, sending, kept, LOG_LIMIT, LOG_SHARE, worker_id, *packed)
            )

    def logs(self, after: str = "-") -> list[tuple[str, str, dict[str, Any]]]:
        """Log entries (id, worker id, entry) after an id, oldest first."""
        start, found = after if after == "-" else f"({after}", list[tuple[str, str, dict[str, Any]]]()
        while True:
            # In pages, or a process that reads a full log now and then grows for hours: what so many small
            # pieces leave behind is not used again.
            page = self.link.call(command("XRANGE", self.keys["logs"], start, "+", "COUNT", LOG_PAGE))
            found += map(_log_entry, page)
            if len(page) < LOG_PAGE:
                return found
            start = f"({found[-1][0]}"

    def wait_logs(self, after: str, seconds: float) -> bool:
        """Blocks until there are log entries after an id; False when the time ran out."""
        milliseconds = max(1, int(seconds * 1000))
        parts = ("XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", self.keys["logs"], after)
        with self.waiting_link() as link:
            return link.call(command(*parts), wait=seconds) is not None

    def keep_spec(self, digest: str, sealed: bytes) -> None:
        """Stores start arguments under their digest."""
        self.write(lambda epoch: self.scripts.keep_spec(epoch, digest, sealed))

    def name_spec(self, digest: str, worker_ids: Sequence[str]) -> None:
        """Makes start arguments those of workers that were told none, and has these workers change to
        them."""
        said = {"op": "reload", "worker_ids": list(worker_ids), "spec": digest}
        order = msgspec.msgpack.encode(said) if worker_ids else b""
        call = self.new_call()
        self.write(lambda epoch: self.scripts.current(epoch, call, digest, order))

    def await_spec(self, seconds: float) -> str:
        """The digest of the start arguments for workers that were told none; waits for it, '' where it did
        not come in time. Woken by the event."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            standing = self.watch(min(max(left, 0.0), 5.0) + 2.0)
            found = self.link.call(command("HGET", self.keys["control"], "loop"))
            if found or left <= 0:
                return found.decode() if found else ""
            self.wait_event(standing.event, min(left, 5.0))

    def spec(self, digest: str) -> bytes:
        """Start arguments by digest; DataMissing if the network does not have them."""
        found: bytes | None = self.link.call(command("HGET", self.keys["specs"], digest))
        if found is None:
            raise DataMissing(
                f"network {self.network!r} has no start arguments {digest!r}: was it reset after this worker "
                "was launched?",
                keys=[digest],
            )
        return found

    def reset_tasks(self) -> None:
        """Deletes the tasks and what belongs to them; workers stay members."""
        if self._adopt():
            reply = self.link.call(self.scripts.reset_tasks(self.epoch, new_epoch()))
            self.epoch = ""
            # Else it was reset during this call: by somebody, or by this call, sent twice.
            if reply[0] == b"ok":
                self.large.remove_files(reply[2])

    def reset_all(self, worker_ids: Sequence[str]) -> list[str]:
        """Deletes every key, given the ids of all workers; returns ids it was not told of, deleting
        nothing."""
        if not self._adopt():
            return []
        # The events go once those who wait for them have been woken.
        reset = self.scripts.reset_all(self.epoch, tuple(worker_ids))
        reply, _ = self.link.call_many(reset + command("UNLINK", self.keys["events"]), 2)
        if reply[0] == b"WORKERS":
            return [wid.decode() for wid in reply[1]]
        # EPOCH: it was reset during this call: by somebody, or by this call, sent twice.
        self.epoch = ""
        self.large.remove_files(reply[2] if reply[0] == b"ok" else ())
        return []


def _first(row: tuple[Any, ...]) -> Any:
    return row[0]


def _log_entry(entry: Any) -> tuple[str, str, dict[str, Any]]:
    identity, fields = entry
    found = dict(pairs(fields))
    return identity.decode(), found[b"w"].decode(), msgspec.msgpack.decode(found[b"e"])


def _info(
    wid: bytes,
    stored: bytes,
    control: Mapping[bytes, bytes],
    ends: Mapping[bytes, bytes],
    tallies: Mapping[bytes, bytes],
    due: Mapping[bytes, bytes],
    at_work: Mapping[str, str],
) -> WorkerInfo:
    registered, card = msgspec.msgpack.decode(b"\x92" + stored)
    name = wid.decode()
    report = msgspec.msgpack.decode(b"\x92" + ends[wid])[1] if wid in ends else {}
    signal = report.get("signal")
    state = LETTERS[chr(control[b"w:" + wid][0])]
    # Whose process ended has a report, with a reason or without.
    unseen = _SILENT if state is WorkerState.LOST and wid not in ends else None
    return WorkerInfo(
        worker_id=name,
        pid=card["pid"],
        hostname=card["hostname"],
        state=state,
        launcher=card["launcher"],
        heartbeat=float(due[wid]) / 1e6 - card["lease"] if wid in due else None,
        started_at=registered / 1e6,
        current_task=at_work.get(name),
        n_finished=int(tallies.get(b"f:" + wid, 0)),
        n_failed=int(tallies.get(b"x:" + wid, 0)),
        exit_code=report.get("exit_code") if signal is None else -signal,
        reason=report.get("reason") or unseen,
    )
