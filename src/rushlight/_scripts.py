"""The Lua files as typed, content-addressed commands.

Owns loading and packing; which script to call, and what its reply means, is the store's business.
Scripts are addressed by their digest, so that two releases can share one server.
"""

from __future__ import annotations

import hashlib
import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import hiredis

from ._keys import CATALOGUE, Keys

Argument = str | bytes | int | float

_FINISHING = ("index", "running", "finished", "tallies", "events")
_SETTLING = (*_FINISHING, "failed", "failures")
_LINE = (
    "queued", "queue", "ranked", "private", "delayed", "bell", "leases", "waiting", "dependents", "lapses",
    "deadlines",
)  # fmt: skip
_LOSING = ("control", "running", "failed", "failures", "tallies", "workers", "events", *_LINE)
_TASK_DATA = (
    "index", "queued", "queue", "ranked", "private", "delayed", "bell", "running", "finished", "failed",
    "failures", "tallies", "blobs", "waiting", "dependents", "lapses", "deadlines", "budgets",
    "boards", "standings", "collected", "feeds", "names",
)  # fmt: skip
_RESET_FIRST = ("control", "files", "workers", "events")
#: The keys each call declares, in the order its script names them. A suffix tells two uses of one file apart.
KEYS: dict[str, tuple[str, ...]] = {
    "open": ("control", "events"),
    "begin": ("control", "index", "running", "queued"),
    "push": ("control", *_SETTLING, *_LINE, "feeds"),
    "record": ("control", "index", "finished", "failed", "failures", "events"),
    "settle": ("control", *_SETTLING, "queued"),
    "settle:finish": ("control", *_FINISHING, "queued"),
    "settle:full": ("control", *_SETTLING, *_LINE),
    "step": ("control", *_SETTLING, "queued"),
    "step:finish": ("control", *_FINISHING, "queued"),
    "step:full": ("control", *_SETTLING, *_LINE),
    "claim": ("control", "running", "events", "queued", "queue", "bell"),
    "claim:full": ("control", "running", "events", *_LINE),
    "settle_claim": ("control", *_SETTLING, "queued", "queue", "bell"),
    "settle_claim:finish": ("control", *_FINISHING, "queued", "queue", "bell"),
    "settle_claim:full": ("control", *_SETTLING, *_LINE),
    "exchange": ("control", *_SETTLING, "queued", "queue", "bell", "leases"),
    "exchange:full": ("control", *_SETTLING, *_LINE),
    "hand_back": (*_LOSING, "orders", "index", "finished"),
    "drop": (*_LOSING, "orders", "answers"),
    "retry": ("control", *_SETTLING, *_LINE, "answers"),
    "look": ("control", "index", "queued", "running", "finished", "failed", "lapses"),
    "watch": ("control", "queued", "running", "finished", "failures", "leases", "events", "deadlines"),
    "counts": ("control", "queued", "running", "finished", "failed", "leases", "deadlines"),
    "register": ("control", "workers", "ends", "leases", "events", "tallies", "budgets"),
    "beat": ("control", "leases", "deadlines", "usage"),
    "reap": (*_LOSING, "orders", "answers"),
    "bury": (*_LOSING, "ends"),
    "stop": (*_LOSING, "orders", "answers"),
    "keep:specs": ("control", "specs"),
    "keep:blobs": ("control", "blobs"),
    "chunks:specs": ("control", "specs"),
    "chunks:blobs": ("control", "blobs"),
    "refer:specs": ("control", "specs", "files"),
    "refer:blobs": ("control", "blobs", "files"),
    "current": ("control", "events", "orders", "answers"),
    "log": ("control", "logs", "shares", "answers"),
    "together": (),
    "collect": ("control", "collected", "index", "feeds", "finished", "failures"),
    "uncollect": ("control", "collected", "feeds"),
    "dismiss": ("control", "workers", "ends", "usage", "tallies", "launches"),
    "forget": (
        "control", "index", "finished", "failed", "failures", "collected", "feeds", "lapses", "deadlines",
        "names", "blobs", "files",
    ),
    "name": ("control", "names", "index", "collected"),
    "launches": ("control", "launches"),
    "lead": ("control",),
    "crew": ("control", "queued", "running", "leases", "launches", "tallies"),
    "keep:broadcasts": ("control", "broadcasts"),
    "root": ("control", "queued"),
    "take": ("control", "queued", "tallies", "budgets", "events"),
    "give_back": ("control", "queued", "tallies", "budgets", "events"),
    "budget": ("control", "tallies", "budgets"),
    "board_add": ("control", "queued", "boards", "standings"),
    "board": ("boards", "standings"),
    "reset:all": (*_RESET_FIRST, *(key for key in CATALOGUE if key not in _RESET_FIRST)),
    "reset:tasks": ("control", "files", "events", *_TASK_DATA),
}  # fmt: skip
#: Epoch, worker id, token, and whether the network's line has more in use than the plain queue.
MemberArgs = tuple[str, str, str, bool]
#: Epoch, worker id, token; the last two are empty where a manager writes.
Author = tuple[str, str, str]
#: What names a call of a manager's, and for how many milliseconds its answer is kept for another asking.
Call = tuple[str, int]
#: Who sends, and the how many-th of theirs it is, as text that compares like the number.
Sending = tuple[str, str]
NAMES = tuple(dict.fromkeys(name.partition(":")[0] for name in KEYS))


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua file, its shared parts put in front."""

    name: str
    body: str
    sha: str


@dataclass(frozen=True, slots=True)
class _Definition:
    """A function or variable of a shared part, and the words its text is made of."""

    name: str
    text: str
    words: frozenset[str]


def _read(name: str) -> str:
    # Not importlib.resources, whose own imports take longer than all that is read here.
    found = pkgutil.get_data("rushlight", f"lua/{name}.lua")
    if found is None:
        raise FileNotFoundError(f"rushlight/lua/{name}.lua")
    return found.decode()


@cache
def load(name: str) -> Script:
    """The script ``lua/<name>.lua``. Each ``-- include:`` line stands for what the code behind it needs of
    the named files and no later line brings: every function costs at every call, used or not."""
    before, *rest = re.split(r"(?m)^-- include: (.*)\n", _read(name))
    body, words = "", set[str]()
    for parts, code in zip(reversed(rest[::2]), reversed(rest[1::2]), strict=True):
        words.update(re.findall(r"\w+", code))
        body = _needed(parts.split(), words) + code + body
    body = before + body
    return Script(name, body, hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest())


def _needed(parts: list[str], words: set[str]) -> str:
    """The definitions of the parts that ``words`` name, or one of them does; takes their names off."""
    kept: list[str] = []
    for part in reversed(parts):
        for one in _definitions(part):
            if one.name in words:
                kept.append(one.text)
                words |= one.words
                words.discard(one.name)
    return "".join(reversed(kept))


@cache
def _definitions(part: str) -> tuple[_Definition, ...]:
    """What ``lua/lib/<part>.lua`` has, the last first, as each may use those before it."""
    found = []
    for text in reversed(re.split(r"(?m)^(?=local )", _read(f"lib/{part}"))[1:]):
        words = re.findall(r"\w+", text)
        name = words[2] if words[1] == "function" else words[1]
        found.append(_Definition(name, text, frozenset(words)))
    return tuple(found)


class Packer:
    """The keys of one network, and calls packed with them.

    A script's keys are the same for every call, so they are given once, here; only ``stop`` and
    ``reset`` also touch keys of single workers.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._heads: dict[str, tuple[Argument, ...]] = {}

    def _pack(self, name: str, args: tuple[Argument, ...], more: tuple[str, ...] = ()) -> bytes:
        head = self._heads.get(name)
        if head is None:
            keys = [self._keys[key] for key in KEYS[name]]
            head = self._heads[name] = (b"EVALSHA", load(name.partition(":")[0]).sha, len(keys), *keys)
        if more:
            head = (*head[:2], len(KEYS[name]) + len(more), *head[3:], *more)
        packed: bytes = hiredis.pack_command((*head, *args))  # type: ignore[arg-type]
        return packed

    def stem(self, name: str, args: tuple[Argument, ...], more: int) -> bytes:
        """How a call begins that ``more`` arguments follow: what is the same in thousands of calls is packed
        once. An argument is ``$``, its length, and it, each of both behind its line end."""
        count, _, rest = self._pack(name, args).partition(b"\r\n")
        return b"*%d\r\n%b" % (int(count[1:]) + more, rest)


class SharingScripts(Packer):
    """What workers share beside tasks: the root of their seeds, budgets, leaderboards."""

    def root(self, author: Author, seed: str) -> bytes:
        return self._pack("root", (*author, seed))

    def take(self, member: Author, budget: str, number: int, n: int, process: str) -> bytes:
        return self._pack("take", (*member, budget, number, n, process))

    def give_back(self, member: Author, budget: str, number: int) -> bytes:
        return self._pack("give_back", (*member, budget, number))

    def budget(self, budget: str) -> bytes:
        return self._pack("budget", (budget,))

    def board_add(
        self, author: Author, board: str, order: str, key: str, sending: Sending, *ranks: bytes
    ) -> bytes:
        return self._pack("board_add", (*author, board, order, key, *sending, *ranks))

    def board(self, board: str, what: str, argument: str | int = "") -> bytes:
        return self._pack("board", (board, what, argument))


class RosterScripts(Packer):
    """Workers: joining, leases, ends, orders, what they run and log."""

    def register(self, known: bool, proposed: str, lease: int, *workers: Argument) -> bytes:
        return self._pack("register", (int(known), proposed, lease, *workers))

    def beat(self, epoch: str, lease: int, *workers: str | bytes) -> bytes:
        return self._pack("beat", (epoch, lease, *workers))

    def reap(self, epoch: str, call: Call, condition: bytes) -> bytes:
        return self._pack("reap", (epoch, *call, condition))

    def bury(self, epoch: str, come_back: bool, *ends: Argument) -> bytes:
        return self._pack("bury", (epoch, int(come_back), *ends))

    def stop(self, epoch: str, call: Call, letter: str, condition: bytes, lives: Mapping[str, str]) -> bytes:
        bells = tuple(self._keys.bell(worker_id) for worker_id in lives)
        told = (*lives, *lives.values())
        return self._pack("stop", (epoch, *call, letter, condition, *told), bells)

    def dismiss(self, epoch: str, workers: Sequence[tuple[str, bytes]]) -> bytes:
        bells = tuple(self._keys.bell(worker_id) for worker_id, _ in workers)
        return self._pack("dismiss", (epoch, *(part for worker in workers for part in worker)), bells)

    def keep_spec(self, epoch: str, *pairs: Argument) -> bytes:
        return self._pack("keep:specs", (epoch, *pairs))

    def current(self, epoch: str, call: Call, digest: str, order: bytes) -> bytes:
        return self._pack("current", (epoch, *call, digest, order))

    def log(
        self, epoch: str, sending: Sending, kept: int, limit: int, share: int, worker_id: str, *entries: bytes
    ) -> bytes:
        return self._pack("log", (epoch, *sending, kept, limit, share, worker_id, *entries))

    def keep_broadcasts(self, epoch: str, *pairs: Argument) -> bytes:
        return self._pack("keep:broadcasts", (epoch, *pairs))

    def launches(self, epoch: str, turn: str, *pairs: Argument) -> bytes:
        return self._pack("launches", (epoch, turn, *pairs))

    def lead(self, epoch: str, turn: str, microseconds: int) -> bytes:
        return self._pack("lead", (epoch, turn, microseconds))

    def crew(self) -> bytes:
        return self._pack("crew", ())


class Scripts(SharingScripts, RosterScripts):
    """The scripts of one network: each method packs one call."""

    def open(self, epoch: str, *, confirm: bool = False) -> bytes:
        return self._pack("open", (epoch, int(confirm)))

    def begin(self, member: MemberArgs, who: bytes, *tasks: Argument) -> bytes:
        return self._pack("begin", (*member[:3], who, *tasks))

    def push(
        self,
        epoch: str,
        workers: tuple[str, ...],
        drain: bool,
        most: int | str,
        *tasks: Argument,
    ) -> bytes:
        bells = tuple(self._keys.bell(worker_id) for worker_id in workers)
        return self._pack("push", (epoch, int(drain), most, *tasks), bells)

    def record(self, epoch: str, *tasks: Argument) -> bytes:
        return self._pack("record", (epoch, *tasks))

    def settle(self, member: MemberArgs, *verdicts: Argument) -> bytes:
        name = variant("settle", member, failing="x" in verdicts[::4])
        return self._pack(name, (*member[:3], *verdicts))

    def step(self, member: MemberArgs, who: bytes, verdict: tuple[Argument, ...], *task: Argument) -> bytes:
        name = variant("step", member, failing=verdict[0] == "x")
        return self._pack(name, (*member[:3], who, *verdict, *task))

    def claim(self, member: MemberArgs, worker: bytes, n: int, woken: bool, number: int) -> bytes:
        return self._pack(
            variant("claim", member), (*member[:3], worker, n, int(woken), claim_number(number))
        )

    def settle_claim(
        self, member: MemberArgs, worker: bytes, n: int, verdict: tuple[Argument, ...], number: int
    ) -> bytes:
        name = variant("settle_claim", member, failing=verdict[0] == "x")
        return self._pack(name, (*member[:3], worker, n, *verdict, claim_number(number)))

    def exchange(self, member: MemberArgs, worker: bytes, n: int, number: int, *verdicts: Argument) -> bytes:
        return self._pack(
            variant("exchange", member), (*member[:3], worker, n, claim_number(number), *verdicts)
        )

    def hand_back(
        self,
        member: MemberArgs,
        number: int,
        current: tuple[bytes, str],
        keys: Sequence[str],
        *verdicts: Argument,
    ) -> bytes:
        args = (*member[:3], claim_number(number), *current, len(keys), *keys, *verdicts)
        return self._pack("hand_back", args)

    def drop(
        self, epoch: str, call: Call, condition: bytes, *, every: bool, keys: tuple[str, ...] = ()
    ) -> bytes:
        return self._pack("drop", (epoch, *call, condition, int(every), *keys))

    def retry(self, epoch: str, call: Call, ignore: bool, next_seed: bool, *keys: str) -> bytes:
        return self._pack("retry", (epoch, *call, int(ignore), int(next_seed), *keys))

    def collect(
        self, epoch: str, collector: str, number: int, handed_out: int, process: str, word: str,
        sending: int, *keys: str,
    ) -> bytes:  # fmt: skip
        return self._pack("collect", (epoch, collector, number, handed_out, process, word, sending, *keys))

    def forget(
        self, epoch: str, collector: str, handed_out: int, process: str, word: str, sending: int,
        *tasks: Argument,
    ) -> bytes:  # fmt: skip
        return self._pack("forget", (epoch, collector, handed_out, process, word, sending, *tasks))

    def name(self, epoch: str, name: str, key: str) -> bytes:
        return self._pack("name", (epoch, name, key))

    def uncollect(
        self, epoch: str, collector: str, heard: int | str, sending: int | str, *pairs: Argument
    ) -> bytes:
        return self._pack("uncollect", (epoch, collector, heard, sending, *pairs))

    def look(self, records: bool, *keys: str) -> bytes:
        return self._pack("look", (int(records), *keys))

    def watch(self, microseconds: int, form: str, *, ends: bool = False) -> bytes:
        return self._pack("watch", (microseconds, form, int(ends)))

    def counts(self) -> bytes:
        return self._pack("counts", ())

    def chunks(self, place: str, epoch: str, digest: str, n: int, manifest: bytes) -> bytes:
        return self._pack(f"chunks:{place}", (epoch, digest, n, manifest))

    def keep_blobs(self, epoch: str, *pairs: Argument) -> bytes:
        return self._pack("keep:blobs", (epoch, *pairs))

    def refer(self, place: str, epoch: str, digest: str, manifest: bytes, field: str) -> bytes:
        return self._pack(f"refer:{place}", (epoch, digest, manifest, field))

    def together(self, keys: tuple[str, ...], *parts: Argument) -> bytes:
        return self._pack("together", parts, keys)

    def reset_all(self, epoch: str, ids: tuple[str, ...]) -> bytes:
        bells = tuple(self._keys.bell(worker_id) for worker_id in ids)
        return self._pack("reset:all", (epoch, "all", "", *ids), bells)

    def reset_tasks(self, epoch: str, new_epoch: str) -> bytes:
        return self._pack("reset:tasks", (epoch, "tasks", new_epoch))


def claim_number(number: int) -> str:
    """As text that compares like the number."""
    return f"{number:014x}"


def variant(name: str, member: MemberArgs, *, failing: bool = True) -> str:
    """Networks that use nothing but the plain queue save the keys of all the rest, and those of failures
    where none is settled."""
    if member[3]:
        return f"{name}:full"
    return name if failing else f"{name}:finish"
