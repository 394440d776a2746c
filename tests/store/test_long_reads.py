"""Reading many finished tasks: in parts, of one instant, no more than once, and what is new only."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from ground import Ground, Stats
from harness import Background
from rushlight import Rush, RushWorker, TaskState, _blocks, _store_finished
from rushlight._store_calls import Collecting
from rushlight._store_feed import Leaving
from rushlight.errors import DecodeError

#: Large enough for many parts of small records.
MANY = 300


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads go in parts of about ten records, and decode some four at a time."""
    monkeypatch.setattr(_store_finished, "FIRST", 10)
    monkeypatch.setattr(_store_finished, "_PART", 1000)
    monkeypatch.setattr(_store_finished, "_SLICE", 400)


@pytest.fixture
def rush(ground: Ground) -> Iterator[Rush]:
    """A manager that has read nothing yet."""
    with Rush(ground.network, ground.url) as rush:
        yield rush


def finished(rush: Rush, n: int, start: int = 0) -> list[str]:
    """N finished tasks, whose x is their place."""
    return rush.push_finished_tasks(
        [{"x": i} for i in range(start, start + n)], [{"y": i / 2} for i in range(start, start + n)]
    )


def between_parts(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], at: int = 3) -> list[int]:
    """``act`` happens once, when so many parts have been asked for; the list tells how many were."""
    asked = [0]
    ask = _store_finished.FinishedReads._ask_part

    def ask_and_act(store: _store_finished.FinishedReads, *args: object) -> None:
        ask(store, *args)
        asked[0] += 1
        if asked[0] == at:
            act()

    monkeypatch.setattr(_store_finished.FinishedReads, "_ask_part", ask_and_act)
    return asked


@pytest.mark.parametrize("form", ["polars", "dicts", "tasks"])
def test_a_table_read_in_parts_is_that_of_small_steps(
    ground: Ground, rush: Rush, small_parts: None, form: str
) -> None:
    """Every row once and in order, whether all came at once, in parts, or as they were made."""
    watching = Rush(ground.network, ground.url)
    for at in range(0, MANY, 50):
        finished(rush, 50, at)
        watching.fetch_finished_tasks(as_=form)
    table = rush.fetch_finished_tasks(as_=form)
    other = watching.fetch_finished_tasks(as_=form)
    watching.close()
    if form == "polars":
        assert table.equals(other)
        assert list(range(MANY)) == table["x"].to_list()
    else:
        assert table == other
    assert rush.keys("finished") == [task.key for task in rush.fetch_finished_tasks(as_="tasks")]


ODD_NAMES = ["f1", "f0", "é", "class", "key", "two words"]
#: Those are also names that a class cannot have.
ODDER_NAMES = ["", 'a "quoted" one', "back\\slash", "new\nline", "\0"]


@pytest.mark.parametrize("form", ["polars", "tasks"])
def test_names_may_be_any_and_change_amid_a_long_read(
    rush: Rush, small_parts: None, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Records of the same names are decoded together; those of others, in between, are read as well."""
    together: list[int] = []
    field_values = _blocks.field_values
    monkeypatch.setattr(
        _blocks, "field_values", lambda objects: together.append(len(objects)) or field_values(objects)
    )
    xss = [dict.fromkeys(ODD_NAMES, i) for i in range(60)]
    xss[20] |= {"more": 20}
    del xss[30]["f0"]
    xss[40:] = [dict.fromkeys(ODDER_NAMES, i) for i in range(40, 60)]
    yss = [{} if i in (7, 8) else {"y": i} for i in range(60)]
    rush.push_finished_tasks(xss, yss, xs_extra=[{"e": i} if i > 50 else None for i in range(60)])
    table = rush.fetch_finished_tasks(as_=form)
    tasks = table if form == "tasks" else rush.fetch_finished_tasks(as_="tasks")
    assert xss == [task.xs for task in tasks]
    assert yss == [task.ys for task in tasks]
    assert [None] * 51 == [task.xs_extra for task in tasks[:51]]
    # Inputs and results of some of the first forty.
    assert 8 <= sum(together) < 80
    if form == "polars":
        assert [xs.get("class") for xs in xss] == table["class"].to_list()
        assert [xs.get("f1") for xs in xss] == table["f1"].to_list()
        assert [xs.get("new\nline") for xs in xss] == table["new\nline"].to_list()


def test_a_long_read_costs_a_trip_per_part(ground: Ground, rush: Rush, small_parts: None) -> None:
    """Each record is transferred once; no part is large, and a new connection that reads loads no script."""
    finished(rush, MANY)
    with Stats(ground.raw) as stats:
        rush.fetch_finished_tasks()
    size = sum(map(len, ground.raw.lrange(ground.key("finished"), 0, -1)))
    parts = stats.calls["lrange"]
    assert 1 + size // 2000 < parts < 3 + size // 500
    assert [] == [name for name in stats.calls if name.startswith("script")]
    with Stats(ground.raw) as stats:
        rush.fetch_finished_tasks()
    assert 1 == stats.calls["lrange"]


def test_a_long_read_leaves_no_connection_to_wait_for(ground: Ground, rush: Rush, small_parts: None) -> None:
    """Others of the same object are served while a part is on its way."""
    finished(rush, MANY)
    parts = rush._store.finished_parts(rush._store.view([TaskState.FINISHED]))
    assert next(parts)
    assert MANY == rush.counts().finished
    parts.close()
    assert MANY == rush.fetch_finished_tasks().height


def test_long_reads_are_of_one_instant(ground: Ground, rush: Rush, small_parts: None) -> None:
    """While tasks move from state to state as fast as they can, every first read shows each exactly once."""
    worker = ground.member()
    keys = sorted(ground.push(MANY))

    def work() -> None:
        taken = ground.claim(worker)
        while taken:
            _, values = worker.settle_and_claim(ground.finishing(taken[0]), {})
            taken = ground.taken(values)

    working = Background(work)
    while not working.done:
        with Rush(ground.network, ground.url) as fresh:
            assert keys == sorted(fresh.fetch_tasks()["key"])
    working.result()
    assert MANY == rush.fetch_finished_tasks().height


def test_a_long_read_ends_where_its_view_ended(
    rush: Rush, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What finished while it went on comes with the next."""
    finished(rush, MANY)
    between_parts(monkeypatch, lambda: finished(rush, 50, MANY))
    assert MANY == rush.fetch_tasks().height
    assert list(range(MANY + 50)) == rush.fetch_finished_tasks()["x"].to_list()


@pytest.mark.parametrize("workers", [True, False])
def test_a_reset_amid_a_long_read(
    ground: Ground, rush: Rush, small_parts: None, monkeypatch: pytest.MonkeyPatch, workers: bool
) -> None:
    """The table has the new tasks only: none of what was read before."""
    finished(rush, MANY)
    rush.fetch_new_tasks()
    finished(rush, MANY, MANY)
    new: list[str] = []

    def reset() -> None:
        with Rush(ground.network, ground.url) as other:
            other.reset(workers=workers)
            # More than there were: their number does not give them away.
            new.extend(finished(other, 2 * MANY + 10))

    between_parts(monkeypatch, reset)
    assert new == rush.fetch_new_tasks()["key"].to_list()
    assert new == rush.fetch_finished_tasks()["key"].to_list()
    assert new == [task.key for task in rush.stream(timeout=0.1)]


@pytest.mark.parametrize("cut", [50, 150, MANY])
def test_tasks_removed_amid_a_long_read(
    ground: Ground, rush: Rush, small_parts: None, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """What was removed before it was read is not there, all else once and in order, also what comes later."""
    keys = finished(rush, MANY)
    store, kept = ground.another(), {keys[3], keys[cut - 2], keys[cut - 1]}
    store.collect(Collecting("~c", "host:1:1"), 1, keys[:cut])

    def remove() -> None:
        gone = [Leaving(key) for key in keys[:cut] if key not in kept]
        store.forget(Collecting("~c", "host:1:1", 1), "", gone)
        store.forget(Collecting("~c", "host:1:1", 1), "", [Leaving(keys[3])])

    between_parts(monkeypatch, remove)
    for form in ("tasks", "polars"):
        table = rush.fetch_finished_tasks(as_=form)
        found = [task.key for task in table] if form == "tasks" else table["key"].to_list()
        # Some had been read before.
        assert found == sorted(set(found), key=keys.index)
        assert {*keys[cut - 2 :]} <= {*found}
        assert cut == 50 or len(found) < MANY
    new = finished(rush, 20, MANY)
    assert new == rush.fetch_finished_tasks()["key"].to_list()[-20:]
    with Rush(ground.network, ground.url) as other:
        assert [*keys[cut - 2 :], *new] == other.fetch_finished_tasks()["key"].to_list()
        assert [*keys[cut - 2 :], *new] == [task.key for task in other.stream(timeout=0)]
        assert {"x": MANY} == other.task(new[0]).xs
    ground.states()


def test_a_connection_lost_amid_a_long_read(
    ground: Ground, rush: Rush, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part is asked for again, and no row is there twice or missing."""
    finished(rush, MANY)
    cut: list[int] = []
    between_parts(monkeypatch, lambda: cut.append(ground.raw.client_kill_filter(_type="normal", skipme=True)))
    assert list(range(MANY)) == rush.fetch_finished_tasks()["x"].to_list()
    assert 2 <= cut[0]


def test_a_record_that_cannot_be_read_ends_the_read_with_its_error(
    ground: Ground, rush: Rush, small_parts: None
) -> None:
    """Whatever lies in the list: the error is a DecodeError, again and again, and nothing else breaks."""
    finished(rush, 40)
    good = msgspec.msgpack.decode(ground.raw.lindex(ground.key("finished"), 0))
    assert 12 == len(good)
    bad = [b"\xc1", b"junk", msgspec.msgpack.encode(good[:11]), msgspec.msgpack.encode([*good, 1])]
    for at, value in [(0, 5), (1, "a"), (3, None), (4, []), (6, 2**64 - 1), (8, -1), (10, 1.5), (4, {1: 2})]:
        bad.append(msgspec.msgpack.encode([*good[:at], value, *good[at + 1 :]]))
    for record in bad:
        ground.raw.rpush(ground.key("finished"), record)
        for form in ("polars", "tasks"):
            with pytest.raises(DecodeError, match="record"):
                rush.fetch_finished_tasks(as_=form)
        assert 41 == rush.counts().finished
        ground.raw.rpop(ground.key("finished"))
    assert list(range(40)) == rush.fetch_finished_tasks()["x"].to_list()


def test_one_new_among_many_is_read_alone(
    ground: Ground, rush: Rush, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every way to read results transfers and decodes what is new to it, and nothing that was there."""
    finished(rush, 3000)
    decoded: list[int] = []
    rows = _store_finished.FinishedReads.rows
    monkeypatch.setattr(
        _store_finished.FinishedReads,
        "rows",
        lambda store, records, names=None: decoded.append(len(records)) or rows(store, records, names),
    )
    stream = rush.stream(timeout=0.0)
    assert 3000 == len(list(stream))
    assert 3000 == rush.fetch_new_tasks().height
    # A slice at a time, and each once.
    assert (3000, 2048) == (sum(decoded), max(decoded))
    with RushWorker(ground.network, ground.url, heartbeat=False, lease=600.0) as worker:
        reads = {
            "fetch_finished_tasks": rush.fetch_finished_tasks,
            "fetch_new_tasks": rush.fetch_new_tasks,
            "fetch_tasks": lambda: rush.fetch_tasks(["running", "finished"]),
            "keys": lambda: rush.keys("finished"),
            "stream": lambda: list(rush.stream(timeout=0.0)),
            "dicts": lambda: rush.fetch_finished_tasks(as_="dicts"),
        }
        for name, read in reads.items():
            worker.finish_task(worker.push_running_task({"x": 1}), {"y": 1})
            decoded.clear()
            before = ground.raw.info("stats")["total_net_output_bytes"]
            read()
            assert (name, 1) == (name, sum(decoded))
            # All of them are 300,000 bytes; an answer to INFO is some 5,000.
            assert 30_000 > ground.raw.info("stats")["total_net_output_bytes"] - before
