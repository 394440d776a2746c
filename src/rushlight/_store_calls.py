"""Verbs of controllers: who has collected ended calls, launches, broadcasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from ._store_base import pairs
from ._store_feed import FeedVerbs, Leaving
from ._wire import command

#: Seconds after which a collector on another host is gone that has not been heard.
SILENCE: Final = 60.0
#: The letters of workers that have ended, and how many of them are forgotten by one call.
_ENDED: Final = (b"t", b"k", b"l")
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Mate:
    """A worker that is there: the letter of its state (d: asked to leave), whether it is at a task, and how
    many it has ended."""

    letter: str
    busy: bool
    ended: int


@dataclass(frozen=True, slots=True)
class Noted:
    """A launch: what its controller told of it, the letter of its worker ('' until that has registered), and
    whether that has been running."""

    told: bytes
    letter: str
    ran: bool


@dataclass(frozen=True, slots=True)
class Crew:
    """Tasks to do, workers and launches; ``overdue``: leases that have run out and were not reaped."""

    epoch: str
    queued: int
    running: int
    overdue: int
    members: dict[str, Mate]
    launches: dict[str, Noted]


@dataclass(frozen=True, slots=True)
class Collecting:
    """Who collects: what names it, its process, and the number of the call up to which all that it was
    given has been handed out for good. ``heard``: when it last said so, POSIX seconds of the server's
    clock."""

    token: str
    process: str
    handed_out: int = 0
    heard: float = 0.0

    def is_silent(self, now: float) -> bool:
        """Whether it has not said for long that it is there, which it does every third of that time."""
        return now - self.heard > SILENCE


class CallVerbs(FeedVerbs):
    """What controllers say and ask beside what managers do."""

    #: Whether tasks of this network are removed once they were collected, as ``collect`` has heard last.
    removes: bool = False
    #: Whether the collector's controller had been held to be gone, although it waits for ends of calls.
    missed: bool = False
    #: With which of its packets the collector has begun: another one once it was held to be gone; 0 where it
    #: is, and the call has done nothing.
    began: int = 0
    #: How many packets of the collector were sent.
    _sent: int = 0

    # --- collecting -------------------------------------------------------------------------------

    def collected(self, keys: Sequence[str]) -> list[bool]:
        """Whether each was given to a collector."""
        return [mark is not None for mark in self.marks(keys)]

    def marks(self, keys: Sequence[str]) -> list[bytes | None]:
        """Which collector each was given to, and under which number of its calls; None for none."""
        if not keys:
            return []
        found: list[bytes | None] = self.link.call(command("HMGET", self.keys["collected"], *keys))
        return found

    def uncollected(self) -> int:
        """How many tasks, in any state, no collector was given, at one instant."""
        held = [("HLEN", self.keys[name]) for name in ("queued", "running", "failed", "collected")]
        blank = ("HGET", self.keys["control"], "blank")
        *lengths, collected, finished, gone = self.transaction(*held, ("LLEN", self.keys["finished"]), blank)
        total: int = sum(lengths) + finished - int(gone or 0) - collected
        return total

    def collectors(self) -> tuple[float, list[Collecting]]:
        """The server's time, and everybody who collects, or has and did not say goodbye."""
        (seconds, micro), fields = self.transaction(("TIME",), ("HGETALL", self.keys["control"]))
        found = []
        for name, value in pairs(fields):
            if name.startswith(b"k:"):
                handed_out, heard, process = msgspec.msgpack.decode(value)
                found.append(Collecting(name[2:].decode(), process, handed_out, heard / 1e6))
        return int(seconds) + int(micro) / 1e6, found

    def has_controllers(self) -> bool:
        """Whether anybody has said of late that it collects."""
        now, found = self.collectors()
        return not all(one.is_silent(now) for one in found)

    def given_to(self, collector: Collecting) -> dict[str, bytes]:
        """What a collector was given and has not said to have handed out. Looks at all that was collected."""
        found: dict[str, bytes] = {}
        cursor, mine = "0", f"{collector.token}:".encode()
        while True:
            parts = ("HSCAN", self.keys["collected"], cursor, "COUNT", 1000)
            at, fields = self.link.call(command(*parts))
            for key, given in pairs(fields):
                if given.startswith(mine) and int(given[len(mine) :]) > collector.handed_out:
                    found[key.decode()] = given
            cursor = at.decode()
            if cursor == "0":
                return found

    def collect(self, collector: Collecting, number: int, keys: Sequence[str], word: str = "") -> list[bool]:
        """Gives ended tasks to a collector; True for each that no other was given. The same again for a
        call of the same number. ``word``: how far the collector's controller has read (``Presence``)."""
        said = (collector.token, number, collector.handed_out, collector.process, word, self._next_packet())
        _, verdicts, gone, missed, self.began = self.write(
            lambda epoch: self.scripts.collect(epoch, *said, *keys)
        )
        self.removes, self.missed = gone != b"", bool(missed)
        return [bool(verdict) for verdict in verdicts]

    def _next_packet(self) -> int:
        """Of one collector: its calls are made one after the other, by one store."""
        self._sent += 1
        return self._sent

    def forget(self, collector: Collecting, word: str, tasks: Sequence[Leaving]) -> list[bool]:
        """Removes tasks whose results were handed out for good, once all controllers have read so far; False
        for each that is to be asked for again."""
        said = (collector.token, collector.handed_out, collector.process, word, self._next_packet())
        flat = [part for task in tasks for part in (task.key, task.failure, len(task.fields), *task.fields)]
        _, verdicts, files = self.write(lambda epoch: self.scripts.forget(epoch, *said, *flat))
        self.large.remove_files(files)
        return [bool(verdict) for verdict in verdicts]

    def name_call(self, name: str, key: str) -> str:
        """Gives a name to a call that is about to be made, unless an uncollected call has it; returns the key
        of the call that has it."""
        found: bytes = self.write(lambda epoch: self.scripts.name(epoch, name, key))[1]
        return found.decode()

    def named(self, name: str) -> str | None:
        """The key of the latest call that was given this name by ``name_call``, unless it was removed."""
        found = self.link.call(command("HGET", self.keys["names"], name))
        return None if found is None else found.decode()

    def uncollect(self, gone: Collecting, given: Mapping[str, bytes]) -> bool:
        """Gives back what a collector was given, by key, as it is gone. False where it was heard since."""
        return self._uncollect(gone.token, round(gone.heard * 1e6), "", given)

    def leave_collecting(self, token: str, given: Mapping[str, bytes]) -> None:
        """The same of this store's own collector, which says goodbye."""
        self._uncollect(token, "", self._next_packet(), given)

    def _uncollect(
        self, token: str, heard: int | str, sending: int | str, given: Mapping[str, bytes]
    ) -> bool:
        flat = [part for pair in given.items() for part in pair]
        reply = self.write(lambda epoch: self.scripts.uncollect(epoch, token, heard, sending, *flat))
        return bool(reply[1] >= 0)

    # --- workers ----------------------------------------------------------------------------------

    def keep_broadcast(self, number: str, call: bytes) -> None:
        """Notes a call that every worker is to make once."""
        self.write(lambda epoch: self.scripts.keep_broadcasts(epoch, number, call))

    def broadcasts(self) -> dict[str, bytes]:
        """The calls noted, in the order of their numbers."""
        found = self.link.call(command("HGETALL", self.keys["broadcasts"]))
        return dict(sorted((n.decode(), call) for n, call in pairs(found)))

    def lead(self, turn: str, seconds: float) -> bool:
        """Takes a turn at changing the number of workers, for so long at most; 0 ends it. False where it is
        another's."""
        reply = self.write(lambda epoch: self.scripts.lead(epoch, turn, int(seconds * 1e6)))
        return bool(reply[1])

    def keep_launches(self, launches: Mapping[str, bytes], turn: str = "") -> bool:
        """Notes launches by the ids of their workers; in a turn, unless that is over: then False."""
        flat = [part for pair in launches.items() for part in pair]
        reply = self.write(lambda epoch: self.scripts.launches(epoch, turn, *flat))
        return bool(reply[1])

    def crew(self) -> Crew:
        """Tasks to do, workers and launches at one instant."""
        epoch, queued, running, overdue, members, at_work, noted = self.link.call(self.scripts.crew())
        busy = set(at_work)
        triples = zip(members[::3], members[1::3], members[2::3], strict=True)
        quads = zip(noted[::4], noted[1::4], noted[2::4], noted[3::4], strict=True)
        return Crew(
            self.heard(epoch),
            queued,
            running,
            overdue,
            {wid.decode(): Mate(letter.decode(), wid in busy, n) for wid, letter, n in triples},
            {wid.decode(): Noted(told, letter.decode(), bool(ran)) for wid, told, letter, ran in quads},
        )

    def drop_launches(self, worker_ids: Sequence[str]) -> None:
        """Forgets launches that came to nothing, or whose workers have ended."""
        if worker_ids:
            self.link.call(command("HDEL", self.keys["launches"], *worker_ids))

    def dismiss(self, kept: int) -> None:
        """Forgets workers that have ended, but for the last ``kept`` of them, or a few more: it is to be
        worth the look."""
        if self.link.call(command("HLEN", self.keys["workers"])) < kept + max(1, kept // 10):
            return
        fields, cards, ends = self.transaction(
            *(("HGETALL", self.keys[name]) for name in ("control", "workers", "ends"))
        )
        # Of one that was lost nobody may have said when.
        times = {wid: _stamp_of(said) for told in (cards, ends) for wid, said in pairs(told)}
        ended = [
            (name[2:].decode(), said)
            for name, said in pairs(fields)
            if name.startswith(b"w:") and said[:1] in _ENDED and name[2:] in times
        ]
        ended.sort(key=lambda worker: times[worker[0].encode()])
        left = ended[: max(0, len(ended) - kept)]
        for i in range(0, len(left), _AT_ONCE):
            some = left[i : i + _AT_ONCE]
            self.write(partial(self.scripts.dismiss, workers=some))


def _stamp_of(said: bytes) -> int:
    """The time that stands before what is said of a worker."""
    time: int = msgspec.msgpack.decode(b"\x92" + said)[0]
    return time
