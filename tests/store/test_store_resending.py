"""Whatever is said to a server may be said twice: at once, because a reply was lost, or late, when a packet
of long ago arrives. Every verb and every script has a row in ``resending.ROWS``."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import Server
from rushlight import _names
from rushlight._member import Member
from rushlight._muster import LIVE
from rushlight._records import WorkerState
from rushlight._scripts import KEYS
from rushlight._store import Store
from rushlight._store_calls import Collecting
from rushlight.errors import RushlightError
from store.conftest import binary_of
from store.resending import MEANWHILE, READS, ROWS, Row, Stage, again, batch, line, picture, timeless

#: Public names that need no row, and why.
WITHOUT_ROW = {
    "Store.removes": "what a call has heard",
    "Store.missed": "what a call has heard",
    "Store.began": "what a call has heard",
    "Store.close": "closes connections",
    "Store.heard": "looks at a text",
    "Store.rows": "reads bytes",
    "Store.new_call": "makes a name",
    "Store.waiting_link": "lends a connection",
    "Store.encode_tasks": "makes bytes",
    "Store.encode_results": "makes bytes",
    "Store.encode_condition": "makes bytes",
    "Store.keep_spilled": "part of push, begin and settle, in their rows",
    "Store.push_many": "sends what push does of a fresh batch; test_store_create breaks it off",
    "Store.write_parts": "sends what write does, as push_many does alone",
    "Store.save_snapshot": "the server refuses to begin a snapshot while it writes one, and says so",
    "Store.require_trust": "looks at the settings",
    "Store.running_rows": "reads bytes",
    "Store.running_row": "reads bytes",
    "Store.listen": "only reads; a line that breaks is told to the supervisor, which listens anew",
    "Member.begin_behind": "sends nothing",
    "Member.end_behind": "hears what begin and settle sent: test_store_connections has cut connections",
    "Member.claimed": "sends nothing",
    "Member.gone": "sends nothing",
    "Member.expects_none": "sends nothing",
}

Meanwhile = Callable[[Stage], None]

serial = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for all stages."""
    server = Server(binary_of("valkey"))
    yield server
    server.close()


@pytest.fixture
def stage(server: Server, no_leaks: None, tmp_path: Path) -> Iterator[Callable[[], Stage]]:
    """``stage()``: a network in full use, the same each time."""
    made: list[Stage] = []

    def make() -> Stage:
        made.append(Stage(server, f"stage-{next(serial)}", str(tmp_path)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ready(stage: Callable[[], Stage], row: Row) -> Stage:
    """A stage on which the row's call may be made."""
    made = stage()
    if row.before is not None:
        row.before(made)
    return made


@contextmanager
def excused(row: Row, what: str) -> Iterator[None]:
    """The row says that it does not hold in this case, and why: then it must not hold."""
    if what not in row.late:
        yield
        return
    with pytest.raises((AssertionError, RushlightError)):
        yield


def test_every_verb_and_every_script_has_a_row(stage: Callable[[], Stage]) -> None:
    """A verb or a script that is added without a row in the table makes this fail."""
    verbs = {
        f"{owner.__name__}.{name}"
        for owner in (Store, Member)
        for name, _ in inspect.getmembers(owner)
        if not name.startswith("_")
    }
    assert [] == sorted(verbs - {row.verb for row in ROWS} - WITHOUT_ROW.keys())
    assert [] == sorted(WITHOUT_ROW.keys() - verbs)
    packed: set[str] = set()
    for row in ROWS:
        one = ready(stage, row)
        with line() as heard:
            row.act(one)
        packed |= heard.packed
    assert [] == sorted(KEYS.keys() - packed)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_a_lost_reply_changes_nothing(stage: Callable[[], Stage], row: Row) -> None:
    """Sent again because an answer was lost, whichever of its trips that was, a call answers the same and
    leaves the same as said once."""
    clean = ready(stage, row)
    with line() as heard:
        answer = row.act(clean)
    left = timeless(picture(clean))
    assert heard.sent
    for lost in range(len(heard.sent)):
        other = ready(stage, row)
        with excused(row, "resent"), line(lost):
            assert answer == row.act(other), f"reply {lost} was lost"
            assert left == timeless(picture(other)), f"reply {lost} was lost"


# --- what goes on before a packet arrives again -------------------------------------------------------


def nothing(_: Stage) -> None:
    """The packet comes right behind the first."""


def work(stage: Stage) -> None:
    """Everything that can go on does: what failed is tried again, what is queued is taken and decided, new
    tasks come, boards, budgets, logs and orders move on."""
    store, ground = stage.store, stage.ground
    ben = stage.life("eva", 7)
    store.retry([key for key in store.failures(0)[1] if key], ignore=True, next_seed=False)
    store.push(batch("z1", "z2", "z3", "z4"))
    for n in range(4):
        for key in ground.claim(ben, 2):
            state = store.look_up(key).running[0]
            verdict = ground.finishing if n % 2 else ground.failing
            ben.settle([verdict(key, state[1])], {})
    stage.take(ben)
    stage.board().add("k", 3.0)
    store.name_spec("three", [])
    store.add_logs("ben", [{"t": 3.0, "msg": "later"}])
    store.collect(Collecting("c1", "host:1:1", handed_out=1), 2, ["x2"])
    store.lead("turn", 0.0)


def next_lives(stage: Stage) -> None:
    """Every worker is lost, and lives again under its id, with tasks in hand."""
    members = (stage.ann, stage.ben, stage.sup)
    stage.ground.expire(*members)
    stage.store.reap()
    stage.store.push(batch("z1", "z2", "z3", "z4"))
    for wid in ("ann", "ben", "sup", "eve"):
        if stage.store.worker_states().get(wid) not in LIVE:
            member = stage.life(wid, 9, supervisor="s9")
            stage.ground.claim(member, 1)


def lives_over(stage: Stage) -> None:
    """As before, and those lives have ended too."""
    next_lives(stage)
    stage.store.stop(["ann", "ben", "sup", "eve"], kill=True)


def tasks_reset(stage: Stage) -> None:
    """The tasks are gone, others have come."""
    stage.store.reset_tasks()
    stage.store.push(batch("z1", "z2"))


def all_reset(stage: Stage) -> None:
    """Nothing is left."""
    stage.store.reset_all(stage.store.reset_all([]))


CASES = {case.__name__: case for case in (nothing, work, next_lives, lives_over, tasks_reset, all_reset)}


#: Many stages in all: the everyday tests keep to the packets right behind, and those after a reset.
SLOW = dict.fromkeys(("work", "next_lives", "lives_over", "tasks_reset"), pytest.mark.slow)


@pytest.mark.parametrize(
    ("row", "meanwhile"),
    # What only reads is to write nothing; what goes on besides is no matter.
    [
        pytest.param(row, CASES[name], id=f"{row.title}-{name}", marks=SLOW.get(name, ()))
        for row in ROWS
        for name in (MEANWHILE[:1] if row in READS else MEANWHILE)
    ],
)
def test_a_late_packet_changes_nothing(stage: Callable[[], Stage], row: Row, meanwhile: Meanwhile) -> None:
    """The packets of a call that was heard arrive again after other work: nothing is changed by them."""
    one = ready(stage, row)
    with line() as heard:
        row.act(one)
    meanwhile(one)
    before = picture(one)
    with excused(row, meanwhile.__name__):
        again(one, heard)
        assert before == picture(one)
    if meanwhile is all_reset and "all_reset" not in row.late:
        assert [] == list(one.raw.scan_iter(match=f"rl:{{{one.ground.network}}}:*"))


# --- what is lost once, and comes again when the network is another -----------------------------------


@contextmanager
def lost_until(store: Store, meanwhile: Callable[[], None]) -> Iterator[None]:
    """In the block the reply to the store's second exchange is lost; this happens before it is sent again."""
    exchange, numbers = store.link._exchange, itertools.count(1)

    def exchanging(commands: bytes, n: int, wait: float | None) -> list[object]:
        replies = exchange(commands, n, wait)
        if next(numbers) == 2:
            meanwhile()
            raise ConnectionError("the reply is lost")
        return replies

    store.link._exchange = exchanging  # type: ignore[method-assign]
    try:
        yield
    finally:
        store.link._exchange = exchange  # type: ignore[method-assign]


@pytest.mark.parametrize("kill", [True, False])
def test_a_stop_that_is_sent_again_after_a_reset_stops_nobody(stage: Callable[[], Stage], kill: bool) -> None:
    """Its reply is lost, the network is reset, a worker comes under the same id: it is not the one that was
    meant, and no order names it."""
    one = stage()

    other = one.ground.another()

    def another_network() -> None:
        other.reset_all(other.reset_all([]))
        one.ann = one.life("ann", 2)

    with lost_until(one.store, another_network):
        assert ([], ["ann"]) == one.store.stop(["ann"], kill=kill)
    assert {"ann": WorkerState.RUNNING} == one.store.worker_states()
    one.ann._told = -1e9
    assert not one.ann.leaving
    assert 0 == one.raw.xlen(one.ground.key("orders"))


@pytest.mark.parametrize("kill", [True, False])
def test_a_stop_that_is_sent_again_after_a_reset_of_the_tasks_holds(
    stage: Callable[[], Stage], kill: bool
) -> None:
    """Workers live through that: who was meant is stopped, once."""
    one = stage()
    with lost_until(one.store, one.ground.another().reset_tasks):
        assert (["ann"], []) == one.store.stop(["ann"], kill=kill)
    one.ann._told = -1e9
    assert one.ann.leaving


def test_a_log_line_of_long_ago_is_no_news(stage: Callable[[], Stage]) -> None:
    """However many others a worker has said since, in however many lives up to seven."""
    one = stage()
    with line() as heard:
        one.store.add_logs("ann", [{"t": 1.0, "msg": "first"}])
    for _ in range(7):
        _names._maker.reseed()
        for n in range(3):
            one.store.add_logs("ann", [{"t": 2.0, "msg": f"later {n}"}])
    again(one, heard)
    said = [entry["msg"] for _, wid, entry in one.store.logs() if wid == "ann"]
    assert ["first", *["later 0", "later 1", "later 2"] * 7] == said


def test_a_score_of_long_ago_is_no_news(stage: Callable[[], Stage]) -> None:
    """Neither behind a later one of its author, nor behind one of somebody else."""
    one = stage()
    with line() as heard:
        one.board().add("k", 2.0)
    one.board().add("k", 3.0)
    again(one, heard)
    assert [("k", 3.0)] == one.board().top()
    _names._maker.reseed()
    one.board().add("k", 4.0)
    again(one, heard)
    assert [("k", 4.0)] == one.board().top()
