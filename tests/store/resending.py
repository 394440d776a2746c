"""The table of everything that is said to a server, and the ground on which each of it is said twice.

A row is one call of a verb. ``test_store_resending`` says it once, says it with a reply lost on the way, and
lets its packets arrive again later; it fails when a verb or a script has no row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import redis

from ground import Ground, hold_to_be_gone
from harness import Server
from rushlight._boards import Leaderboard
from rushlight._budget import Budget, Calls
from rushlight._journal import Left
from rushlight._member import Member
from rushlight._records import Exit, TaskState, WorkerState
from rushlight._scripts import Packer
from rushlight._seeding import fix_root
from rushlight._store import Store
from rushlight._store_calls import Collecting
from rushlight._store_ends import WorkerEnd
from rushlight._store_feed import Leaving
from rushlight._store_finished import View
from rushlight._store_roster import WorkerCard
from rushlight._store_tasks import Encoded
from rushlight._wire import Link
from rushlight.errors import WorkerLost

#: A time of the server's clock as a record holds it.
_TIME = re.compile(rb"\xcf\x00\x06.{6}", re.DOTALL)


def batch(*keys: str, spilled: dict[str, bytes] | None = None, **opts: Any) -> Encoded:
    """Tasks under keys of the test's choice; they share their options."""
    encode = msgspec.msgpack.encode
    heads = [encode(opts or None) + encode(key) + encode({"x": key}) + b"\xc0" for key in keys]
    workers = (opts["w"],) if "w" in opts else ()
    return Encoded(list(keys), heads, spilled or {}, workers, plain=not opts)


def numbered(key: str, number: int = 1) -> Encoded:
    """A task that is sent once, also where it is gone when its packet comes again."""
    return replace(batch(key), sending=lambda: f"~c2 {number}")


class Stage:
    """A network in full use: tasks in every state, workers of every kind, budgets, boards, logs, orders.

    ``store`` is a manager, ``ann`` and ``ben`` are workers; ``sup`` is one under a supervisor. Names and
    tokens are the same on every stage, so that two stages can be compared.
    """

    def __init__(self, server: Server, network: str, directory: str) -> None:
        self.ground = Ground(server, network)
        self.raw: redis.Redis = self.ground.raw
        self.store: Store = self.ground.store
        self.store._open()
        self.ann, self.ben = self.life("ann"), self.life("ben")
        self.sup = self.life("sup", supervisor="s1", on_lost="requeue")
        self.directory = directory
        self._calls: dict[str, Calls] = {}
        self._fill()

    def card(self, wid: str, life: int = 1, **said: Any) -> WorkerCard:
        return WorkerCard(wid, f"{wid}-{life:06}", 1, "host", **said)

    def life(self, wid: str, life: int = 1, **said: Any) -> Member:
        """A running worker of that id."""
        member = Member(self.ground.another(), self.card(wid, life, **said), 600.0)
        member.join(WorkerState.RUNNING)
        return member

    def _fill(self) -> None:
        store, ground = self.store, self.ground
        self.ann.begin(batch("r1"))
        self.ben.begin(batch("r2", "d1"))
        self.sup.begin(batch("r3"))
        ground.finish(self.ben, "d1", y=1)
        store.record(batch("x1", "x2", r=1), "x", [ground.condition()] * 2)
        store.push(batch("t1", r=2))
        store.push(batch("t2", t=500.0))
        assert ["t1", "t2"] == ground.claim(self.ann, 2)
        store.push(batch("q1", "q2", "q3"))
        store.push(batch("p1", p=5))
        store.push(batch("a1", a=["q1"]))
        store.push(batch("w1", w="ben"))
        store.name_spec("one", ["sup"])
        self.take(self.ben)
        self.board().add("k", 1.0)
        store.add_logs("ben", [{"t": 1.0, "msg": "before"}])

    def budget(self, member: Member) -> Budget:
        return Budget(member, self._calls.setdefault(member.card.token, Calls()), "b", 5)

    def take(self, member: Member) -> bool:
        return self.budget(member).take(timeout=0)

    def board(self) -> Leaderboard:
        return Leaderboard(
            self.store, lambda pack: self.store.write(lambda epoch: pack((epoch, "", ""))), "l", "max"
        )

    def close(self) -> None:
        """No key is left; nobody waits for processes that there never were."""
        store = self.ground.another()
        store.reset_all(store.reset_all([]))
        left = list(self.raw.scan_iter(match=f"rl:{{{self.ground.network}}}:*"))
        self.ground.disconnect()
        assert [] == left


# --- pictures -----------------------------------------------------------------------------------------


def picture(stage: Stage) -> dict[str, Any]:
    """All that a network holds, container by container. Left out is what only wakes somebody, what only
    serves those who ask again, and the time at which leases and turns run out."""
    client = stage.raw
    found: dict[str, Any] = {}
    for key in client.scan_iter(match=f"rl:{{{stage.ground.network}}}:*", count=1000):
        name, kind = key.decode().rpartition("}:")[2], client.type(key).decode()
        if name in ("events", "answers") or name.startswith("bell"):
            continue
        if kind == "hash":
            found[name] = client.hgetall(key)
        elif kind == "zset":
            found[name] = client.zrange(key, 0, -1, withscores=True)
        elif kind == "list":
            found[name] = client.lrange(key, 0, -1)
        elif kind == "set":
            found[name] = sorted(client.smembers(key))
        else:
            found[name] = [fields for _, fields in client.xrange(key)]
    if "standings" in found:
        # Who put a key on a board serves those who ask again.
        found["standings"] = {k: v for k, v in found["standings"].items() if k[:1] != b"\0"}
    control = found.get("control", {})
    for name in (b"watch", b"ends"):
        control.pop(name, None)
    if b"lead" in control:
        control[b"lead"] = msgspec.msgpack.decode(control[b"lead"])[0]
    for name, value in control.items():
        if name.startswith(b"k:"):
            # When a collector was heard last.
            control[name] = [part for i, part in enumerate(msgspec.msgpack.decode(value)) if i != 1]
    if "leases" in found:
        found["leases"] = sorted(wid for wid, _ in found["leases"])
    return found


def timeless(found: dict[str, Any]) -> dict[str, Any]:
    """A picture that can be compared with that of another stage."""

    def masked(value: Any) -> Any:
        if not isinstance(value, bytes):
            return value
        return b"<file>" if value[:2] == b"\xc1F" else _TIME.sub(b"<time>", value)

    made: dict[str, Any] = {}
    for name, held in found.items():
        if isinstance(held, dict):
            made[name] = {field: masked(value) for field, value in held.items()}
        elif name in ("deadlines", "delayed"):
            made[name] = [member for member, _ in held]
        else:
            made[name] = [masked(value) for value in held]
    control = made.get("control", {})
    if b"epoch" in control:
        control[b"epoch"] = b"<epoch>"
    return made


# --- the line, with its faults ------------------------------------------------------------------------


@dataclass
class Line:
    """What was sent on all links in a block, and how often."""

    sent: list[tuple[bytes, int]] = field(default_factory=list)
    packed: set[str] = field(default_factory=set)


@contextmanager
def line(lose: int | None = None) -> Iterator[Line]:
    """In the block every exchange with a server is written down. Of exchange number ``lose`` the reply is
    lost: the server has carried it out, the client hears that its line broke."""
    exchange, pack = Link._exchange, Packer._pack
    heard = Line()

    def exchanging(self: Link, commands: bytes, n: int, wait: float | None) -> list[Any]:
        number = len(heard.sent)
        heard.sent.append((commands, n))
        replies = exchange(self, commands, n, wait)
        if number == lose:
            raise ConnectionError("the reply is lost")
        return replies

    def packing(self: Packer, name: str, *args: Any) -> bytes:
        heard.packed.add(name)
        return pack(self, name, *args)

    Link._exchange, Packer._pack = exchanging, packing  # type: ignore[method-assign]
    try:
        yield heard
    finally:
        Link._exchange, Packer._pack = exchange, pack  # type: ignore[method-assign]


def again(stage: Stage, heard: Line) -> None:
    """All packets arrive once more, on another connection. Waits are left out: a late one is a wait of
    nobody, which the server ends with its connection."""
    late = Link(stage.store.config)
    try:
        for commands, n in heard.sent:
            if b"BLPOP" not in commands and b"BLOCK" not in commands:
                late.call_many(commands, n)
    finally:
        late.close()


# --- the table ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A call of ``verb``; its answer must be comparable between stages. ``before`` sets the stage further.

    ``late``: what a packet that arrives again may change all the same, by what went on meanwhile, and why.
    """

    verb: str
    act: Callable[[Stage], Any]
    before: Callable[[Stage], Any] | None = None
    name: str = ""
    late: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.verb} {self.name}".strip()


def _bury(stage: Stage, wid: str, letter: WorkerState, **said: Any) -> Any:
    end = WorkerEnd(wid, f"{wid}-000001", letter, exit=Exit(signal=9), **said)
    # Which ends were news is told once; nobody but tests asks.
    return stage.store.bury_or_replace([end])[1]


def _bury_for_good(stage: Stage, wid: str) -> None:
    stage.store.bury([WorkerEnd(wid, f"{wid}-000001", WorkerState.LOST)])


def _plain_worker(stage: Stage) -> Member:
    """A worker of a network that uses nothing but the plain queue."""
    stage.store.reset_tasks()
    stage.store.push(batch("n1", "n2"))
    stage.ann.begin(batch("m1"))
    stage.ann._full = False
    return stage.ann


def _settle(stage: Stage, *verdicts: Any) -> Any:
    return stage.ann.settle(list(verdicts), {})


NEW_NETWORK = (
    "a first word to a name that holds nothing begins a network: nothing is left that could know better"
)
UNCONFIRMED = "what it begins is gone within a minute, as nobody confirms it"
NO_ROOM = (
    "a task that found no room may find some later; its caller has it pushed again under its key, or knows it"
)
GHOST = "an id nobody has any more is taken, by a life that is none: it is lost when its lease runs out"
TURN = "a turn that is over is waited for once more, for the few seconds it may take"
#: What is told of a launch, before it was made.
NOTE = msgspec.msgpack.encode({"launcher": "local", "id": ""})


def _lead(stage: Stage) -> None:
    stage.store.lead("turn", 500.0)


def _collect(stage: Stage) -> Any:
    return stage.store.collect(Collecting("c1", "host:1:1"), 1, ["d1", "x1"])


def _collect_and_go(stage: Stage) -> Any:
    """What it was given before is in its books."""
    given = _collect(stage)
    stage.store.collect(Collecting("c1", "host:1:1", 1), 1, [])
    hold_to_be_gone(stage.store, "c1")
    return given


def _forget_and_go(stage: Stage) -> Any:
    gone = stage.store.forget(Collecting("~c1", "host:1:1", 1), "", [Leaving("d1")])
    hold_to_be_gone(stage.store, "~c1")
    return gone


def _spilled(stage: Stage) -> Any:
    store, spilled = stage.store, dict[str, bytes]()
    stored = store.codec.encode_fields({"x": "v" * 100_000}, "xs", spilled)
    store.large.send("blobs", store.epoch, spilled)
    found = store.codec.decode(stored)["x"]
    return store.load_spilled([found])


def _send(stage: Stage, directory: str) -> None:
    stage.store.large.send("blobs", stage.store.epoch, {"digest": b"v" * 5_000_000}, directory)


def _chunks(stage: Stage, place: Any) -> None:
    store = stage.store
    store.large.send(place, store.epoch, {"digest": b"v" * 5_000_000})
    # Of another object one chunk came, and then there was no room for the rest.
    store.large.keep(store.epoch, {"given-up:0": b"v"})
    store.link.call(store.scripts.chunks(place, store.epoch, "given-up", 2, b""))


def _together(stage: Stage) -> Any:
    store = stage.store
    return store.link.call(store.scripts.together((store.keys["queued"],), "HLEN", 0))


def _both(stage: Stage, verdict: Any) -> Any:
    decided, values = stage.ann.settle_and_claim(verdict, {})
    return decided, stage.ground.taken(values)


def _wait(stage: Stage, key: str) -> Any:
    decided, values = stage.ann.finish_and_wait(stage.ground.finishing(key, y=1), 5.0)
    return decided, stage.ground.taken(values)


def _exchange(stage: Stage, *verdicts: Any) -> Any:
    decided, values = stage.ann.exchange(list(verdicts), {}, 2)
    return decided, stage.ground.taken(values)


def _gone(call: Callable[[], Any]) -> bool:
    """Whether the call hears that this life is over."""
    try:
        call()
    except WorkerLost:
        return True
    return False


def _left(stage: Stage) -> Left:
    """The one task is done, the other was never begun."""
    return Left(stage.sup.claimed, (("p1", 1, "f", stage.ground.payload(y=1)),), ("q1",))


MANAGER: tuple[Row, ...] = (
    Row("Store.push", lambda s: s.store.push(batch("n1", "n2"))),
    Row("Store.push_one", lambda s: s.store.push_one("n1", batch("n1").heads[0], "new"), name="new"),
    Row("Store.push_one", lambda s: s.store.push_one("n1", batch("n1").heads[0], "")),
    Row("Store.push", lambda s: s.store.push(batch("n1", "n2", p=3, r=1, a=["q2"]))),
    Row("Store.push", lambda s: s.store.push(batch("n1", w="ann")), name="private"),
    Row("Store.push", lambda s: s.store.push(batch("n1"), drain=True), name="drain"),
    Row("Store.push", lambda s: s.store.push(numbered("n1")), name="numbered"),
    Row("Store.push", lambda s: s.store.push(replace(batch("n1", "n2"), fresh=True)), name="fresh"),
    Row("Store.push", lambda s: s.store.push(batch("n1", spilled={"digest": b"large"})), name="large"),
    Row(
        "Store.push_some",
        lambda s: s.store.push_some(batch("n1", "n2", "n3"), 8),
        late=dict.fromkeys(("work", "lives_over"), NO_ROOM),
    ),
    Row("Store.record", lambda s: s.store.record(batch("n1"), "f", [s.ground.payload(y=1)])),
    Row("Store.record", lambda s: s.store.record(batch("n1"), "x", [s.ground.condition()]), name="failed"),
    Row("Store.drop", lambda s: s.store.drop({"message": "gone"}), name="all"),
    Row("Store.drop", lambda s: s.store.drop({"message": "gone"}, ["q1", "r1", "r3", "x1"]), name="some"),
    Row("Store.retry", lambda s: s.store.retry(["x1", "x2", "q1"], ignore=False, next_seed=False)),
    Row("Store.retry", lambda s: s.store.retry(["x1"], ignore=True, next_seed=True), name="seed"),
    Row("Store.stop", lambda s: s.store.stop(["ann", "sup", "nobody"], kill=True), name="kill"),
    Row("Store.stop", lambda s: s.store.stop(["ann", "sup"], kill=False), name="terminate"),
    Row("Store.stop", lambda s: s.store.stop(["sup"], kill=False, own="away"), name="away"),
    Row("Store.stop", lambda s: s.store.stop(["sup"], kill=False, own="back"), name="back"),
    Row("Store.reset_tasks", lambda s: s.store.reset_tasks()),
    Row("Store.reset_all", lambda s: s.store.reset_all(["ann", "ben", "sup"])),
    Row("Store.reset_all", lambda s: sorted(s.store.reset_all([])), name="refused"),
    Row("Store.write", lambda s: fix_root(s.store, "[1,2,3]"), name="root"),
    Row("Store.write", lambda s: s.board().add("k", 2.0), name="board"),
    Row("Store.write", lambda s: bool(s.store._open()), name="open", late={"all_reset": UNCONFIRMED}),
    Row("Store.collect", _collect),
    Row(
        "Store.forget",
        lambda s: s.store.forget(Collecting("~c1", "host:1:1", 1), "", [Leaving("d1"), Leaving("x1", 0)]),
        lambda s: s.store.collect(Collecting("~c1", "host:1:1"), 1, ["d1", "x1"]),
    ),
    Row("Store.name_call", lambda s: s.store.name_call("n", "n\x1f1")),
    Row("Store.collect", _collect_and_go, name="of one that is gone"),
    Row(
        "Store.forget",
        _forget_and_go,
        lambda s: s.store.collect(Collecting("~c1", "host:1:1"), 1, ["d1", "x1"]),
        name="of one that is gone",
    ),
    Row(
        "Store.push",
        lambda s: (s.store.push(numbered("n1")), hold_to_be_gone(s.store, "~c2")),
        name="of one that is gone",
    ),
    Row("Store.uncollect", lambda s: hold_to_be_gone(s.store, "c1"), _collect),
    Row(
        "Store.uncollect",
        lambda s: (hold_to_be_gone(s.store, "c1"), _collect(s)),
        _collect,
        name="that begins again",
    ),
    Row("Store.dismiss", lambda s: s.store.dismiss(0), lambda s: s.store.stop(["ann", "ben"], kill=True)),
    Row("Store.leave_collecting", lambda s: s.store.leave_collecting("c1", {"d1": b"c1:1"}), _collect),
    Row("Store.keep_broadcast", lambda s: s.store.keep_broadcast("b1", b"call")),
    Row("Store.lead", lambda s: s.store.lead("turn", 5.0), late={"work": TURN}),
    Row("Store.lead", lambda s: s.store.lead("turn", 0.0), _lead, name="its end"),
    Row(
        "Store.lead",
        lambda s: s.store.lead("another turn", 5.0),
        _lead,
        name="another's",
        late={"work": TURN},
    ),
    Row("Store.keep_launches", lambda s: s.store.keep_launches({"eve": NOTE})),
    Row(
        "Store.keep_launches", lambda s: s.store.keep_launches({"eve": NOTE}, "turn"), _lead, name="in a turn"
    ),
    Row("Store.keep_launches", lambda s: s.store.keep_launches({"eve": NOTE}, "old"), _lead, name="too late"),
    Row("Store.drop_launches", lambda s: s.store.drop_launches(["sup"])),
    Row("Store.keep_spec", lambda s: s.store.keep_spec("two", b"sealed")),
    Row("Store.keep_code", lambda s: s.store.keep_code(b"c" * 2_000_000)),
    Row("Store.keep_code", lambda s: s.store.keep_code(b"c" * 9_000_000), name="chunks"),
    Row("Store.keep_code", lambda s: s.store.keep_code(b"c" * 5_000_000, s.directory), name="file"),
    Row("LargeObjects.send", lambda s: _send(s, s.directory), name="file"),
    Row("LargeObjects.send", lambda s: _chunks(s, "blobs"), name="chunks"),
    Row("LargeObjects.send", lambda s: _chunks(s, "specs"), name="chunks of code"),
    Row("Store.name_spec", lambda s: s.store.name_spec("two", ["sup"])),
    Row(
        "Store.add_logs",
        lambda s: s.store.add_logs("ann", [{"t": 2.0, "msg": "said"}]),
    ),
)
WORKERS: tuple[Row, ...] = (
    Row(
        "Store.register",
        lambda s: bool(s.store.register([s.card("eve")], WorkerState.RUNNING, 600.0)),
        late={"all_reset": NEW_NETWORK},
    ),
    Row(
        "Store.register",
        lambda s: bool(s.store.register([s.card("eve")], WorkerState.STARTING, 600.0)),
        name="starting",
        late={"all_reset": NEW_NETWORK},
    ),
    Row(
        "Store.register",
        lambda s: bool(s.store.register([s.card("ann", 2)], WorkerState.RUNNING, 600.0)),
        lambda s: s.ground.expire(s.ann),
        name="taken over",
        late={"lives_over": GHOST, "all_reset": NEW_NETWORK},
    ),
    Row("Store.beat", lambda s: s.store.beat([("ann", "ann-000001"), ("ben", "no")], 600.0).letters),
    Row("Store.reap", lambda s: s.store.reap(), lambda s: s.ground.expire(s.ann, s.sup)),
    Row("Store.bury", lambda s: _bury_for_good(s, "ann")),
    Row("Store.bury_or_replace", lambda s: _bury(s, "sup", WorkerState.LOST, comes_back=True)),
    Row(
        "Store.bury_or_replace",
        lambda s: _bury(s, "sup", WorkerState.LOST),
        lambda s: s.store.drop({"message": "no"}, ["r3"]),
        name="interrupted",
    ),
    Row(
        "Store.bury_or_replace",
        lambda s: _bury(s, "sup", WorkerState.LOST, left=_left(s)),
        lambda s: s.sup.exchange([], {}, 2),
        name="with tasks in hand",
    ),
    Row("Member.join", lambda s: s.ann.join(WorkerState.RUNNING), late={"lives_over": GHOST}),
    Row("Member.leave", lambda s: s.ann.leave("left")),
    Row("Member.leaving", lambda s: s.ann.leaving, lambda s: setattr(s.ann, "_told", -1e9)),
    Row("Member.idle_stop", lambda s: s.ann.idle_stop, lambda s: setattr(s.ann, "_told", -1e9)),
    Row("Member.begin", lambda s: s.ann.begin(batch("n1", "n2"))),
    Row("Member.begin", lambda s: s.ann.begin(batch("n1", spilled={"digest": b"large"})), name="large"),
    Row("Member.begin_one", lambda s: s.ann.begin_one("n1", batch("n1").heads[0])),
    Row("Member.finish_one", lambda s: s.ann.finish_one("r1", s.ground.payload(y=1))),
    Row(
        "Member.finish_one",
        lambda s: s.ann.finish_one("m1", s.ground.payload(y=1)),
        _plain_worker,
        name="plain",
    ),
    Row("Member.settle", lambda s: _settle(s, s.ground.finishing("r1", y=1), s.ground.finishing("t2", y=2))),
    Row("Member.settle", lambda s: _settle(s, s.ground.failing("r1")), name="fail"),
    Row("Member.settle", lambda s: _settle(s, s.ground.failing("t1")), name="fail with retries left"),
    Row("Member.settle", lambda s: _settle(s, s.ground.finishing("r2", y=1)), name="not its own"),
    Row("Member.settle", lambda s: _settle(s, s.ground.finishing("m1", y=1)), _plain_worker, name="plain"),
    Row("Member.settle", lambda s: _settle(s, s.ground.failing("m1")), _plain_worker, name="plain fail"),
    Row("Member.step", lambda s: s.ann.step(s.ground.finishing("r1", y=1), batch("n1"), {})),
    Row("Member.step_one", lambda s: s.ann.step_one("r1", s.ground.payload(y=1), "n1", batch("n1").heads[0])),
    Row("Member.step", lambda s: s.ann.step(s.ground.failing("t1"), batch("n1"), {}), name="fail"),
    Row(
        "Member.step",
        lambda s: s.ann.step(s.ground.finishing("m1", y=1), batch("n3"), {}),
        _plain_worker,
        name="plain",
    ),
    Row(
        "Member.step",
        lambda s: s.ann.step(s.ground.failing("m1"), batch("n3"), {}),
        _plain_worker,
        name="plain fail",
    ),
    Row("Member.settle_and_claim", lambda s: _both(s, s.ground.finishing("r1", y=1))),
    Row("Member.settle_and_claim", lambda s: _both(s, s.ground.failing("t1")), name="fail"),
    Row(
        "Member.settle_and_claim",
        lambda s: _both(s, s.ground.finishing("m1", y=1)),
        _plain_worker,
        name="plain",
    ),
    Row(
        "Member.settle_and_claim",
        lambda s: _both(s, s.ground.failing("m1")),
        _plain_worker,
        name="plain fail",
    ),
    Row("Member.finish_and_wait", lambda s: _wait(s, "m1"), _plain_worker),
    Row("Member.finish_and_wait", lambda s: _wait(s, "r1"), name="not plain"),
    Row("Member.exchange", lambda s: _exchange(s, s.ground.finishing("r1", y=1), s.ground.failing("t1"))),
    Row("Member.exchange", lambda s: _exchange(s, s.ground.finishing("r1", y=1), s.ground.finishing("t2"))),
    Row("Member.exchange", lambda s: _exchange(s, s.ground.finishing("m1")), _plain_worker, name="plain"),
    Row(
        "Member.hand_back",
        lambda s: s.ann.hand_back(("p1", 1), ["q1"], [s.ground.finishing("r1", y=1)], {}),
        lambda s: s.ann.exchange([], {}, 2),
    ),
    Row(
        "Member.hand_back",
        lambda s: _gone(lambda: s.sup.hand_back(("p1", 1), ["q1"], [], {})),
        lambda s: (s.sup.exchange([], {}, 2), s.store.drop({"message": "no"}, ["p1"])),
        name="stopped",
    ),
    Row("Member.claim", lambda s: s.ground.claim(s.ann, 2)),
    Row("Member.claim", lambda s: s.ground.claim(s.ann, 2, 1.0), name="waiting"),
    Row("Member.claim", lambda s: s.ground.claim(s.ann, 2), _plain_worker, name="plain"),
    Row("Budget.take", lambda s: s.take(s.ann)),
    Row("Budget.give_back", lambda s: s.budget(s.ben).give_back()),
)


def _next_view(stage: Stage) -> View:
    """What has finished by the next event, which has been."""
    standing = replace(stage.store.watch(5.0), event="0-0")
    return stage.store.next_finished_view(0, standing, 0.05)


#: What goes on before a packet arrives again; ``test_store_resending`` has the functions.
MEANWHILE = ("nothing", "work", "next_lives", "lives_over", "tasks_reset", "all_reset")
READS: tuple[Row, ...] = (
    Row(
        "Store.view",
        lambda s: [len(s.store.view(list(TaskState)).queued), s.store.view([TaskState.FAILED]).conditions],
    ),
    Row("Store.whole_view", lambda s: len(s.store.whole_view([TaskState.FINISHED]).finished)),
    Row(
        "Store.finished_parts",
        lambda s: len(list(s.store.finished_parts(s.store.view([TaskState.FINISHED])))),
    ),
    Row("Store.finished_view", lambda s: len(s.store.finished_view(0).finished)),
    Row("Store.finished_view", lambda s: s.store.finished_view(0, failures=0).failures, name="failures"),
    Row("Store.next_finished_view", lambda s: len(_next_view(s).finished)),
    Row("Store.look", lambda s: s.store.look(["q1", "r1", "d1", "x1", "no"])),
    Row("Store.look_for_finished", lambda s: s.store.look_for_finished(["q1", "r1", "d1"])),
    Row("Store.look_up", lambda s: s.store.look_up("x1").conditions),
    Row("Store.failures", lambda s: s.store.failures(0)[1]),
    Row("Store.failed_by_key", lambda s: s.store.failed_by_key(["x1", "q1"])[1]),
    Row("Store.lapses", lambda s: s.store.lapses(["x1", "t1"])),
    Row("Store.totals", lambda s: s.store.totals().tasks),
    Row("Store.watch", lambda s: s.store.watch(5.0).queued),
    Row("Store.wait_event", lambda s: s.store.wait_event("0-0", 0.05)),
    Row("Store.usage", lambda s: s.store.usage()),
    Row("Store.workers", lambda s: [(w.worker_id, w.state, w.current_task) for w in s.store.workers()]),
    Row("Store.worker_states", lambda s: s.store.worker_states()),
    Row("Store.ran", lambda s: s.store.ran()),
    Row("Store.unburied", lambda s: s.store.unburied(["ann", "sup"])),
    Row("Store.cards", lambda s: sorted(s.store.cards())),
    Row("Store.last_order", lambda s: bool(s.store.last_order())),
    Row("Store.logs", lambda s: [entry for _, _, entry in s.store.logs()]),
    Row("Store.wait_logs", lambda s: s.store.wait_logs("0-0", 0.05)),
    Row("Store.await_spec", lambda s: s.store.await_spec(1.0)),
    Row("Store.spec", lambda s: s.store.spec("two"), lambda s: s.store.keep_spec("two", b"sealed")),
    Row("Store.load_code", lambda s: len(s.store.load_code(s.store.keep_code(b"c" * 2_000_000)))),
    Row("Store.load_spilled", _spilled),
    Row("Store.budget", lambda s: s.store.budget("b")),
    Row("Store.board_length", lambda s: s.store.board_length("l")),
    Row("Store.board_rank", lambda s: s.store.board_rank("l", "k")),
    Row("Store.board_top", lambda s: s.store.board_top("l", 5)),
    Row("Store.transaction", lambda s: s.store.transaction(("HLEN", s.store.keys["queued"]))),
    Row("Store.transaction", _together, name="of a full server"),
    Row("Store.place", lambda s: s.store.place().unended),
    Row("Store.since", lambda s: len(s.store.since(0, 0, 10)[1].finished)),
    Row("Store.ended", lambda s: len(s.store.ended(0, 0, 100, 1.0).finished)),
    Row("Store.ended_after", lambda s: len(s.store.ended_after("0-0", 0.0, 0, 0, 100).finished)),
    Row(
        "Store.ended_after",
        lambda s: len(s.store.ended_after("0-0", 0.05, 0, 0, 100).finished),
        name="waiting",
    ),
    Row("Store.collected", lambda s: s.store.collected(["d1", "x1"])),
    Row("Store.marks", lambda s: s.store.marks(["d1", "x1"])),
    Row("Store.named", lambda s: s.store.named("n"), lambda s: s.store.name_call("n", "k")),
    Row("Store.broadcasts", lambda s: s.store.broadcasts()),
    Row("Store.uncollected", lambda s: s.store.uncollected()),
    Row("Store.has_controllers", lambda s: s.store.has_controllers()),
    Row("Store.collectors", lambda s: [c.token for c in s.store.collectors()[1]]),
    Row("Store.given_to", lambda s: s.store.given_to(Collecting("c0", "host:1:1"))),
    Row("Store.crew", lambda s: replace(s.store.crew(), epoch="")),
    Row("Store.settings", lambda s: s.store.settings("maxmemory")),
    Row("Store.networks", lambda s: s.ground.network in [found.name for found in s.store.networks()]),
    Row("Store.clock", lambda s: s.store.clock().server > 0),
    Row("Store.info", lambda s: s.store.info()["maxmemory"]),
    Row("Store.snapshots", lambda s: s.store.snapshots()),
    Row("Store.set_snapshots", lambda s: s.store.set_snapshots([])),
)


ROWS = (*MANAGER, *WORKERS, *READS)
