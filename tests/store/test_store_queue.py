"""Emptying the queue, resetting, reading, and being woken."""

from __future__ import annotations

import pytest

from ground import Ground, Stats, Tape, blocked, lose_reply
from harness import Background, keys_of, wait_until
from rushlight import Rush, _reader, _waits
from rushlight._records import Counts, TaskState
from rushlight._store_base import new_epoch
from rushlight.errors import DataMissing, UnknownKey

GONE = {"message": "Removed from queue"}


# --- emptying ---------------------------------------------------------------------------------------


def test_the_queue_is_emptied_in_order(ground: Ground) -> None:
    """Every queued task fails, in queue order; the others are left alone."""
    worker = ground.member()
    keys = ground.push(3)
    ground.claim(worker)
    (own,) = ground.begin(worker)
    assert keys[1:] == ground.store.drop(GONE)
    assert {keys[0]: "running", keys[1]: "failed", keys[2]: "failed", own: "running"} == ground.states()
    found = ground.account()
    assert ([], keys[1:]) == (found.order, found.failures)
    assert {"Removed from queue"} == {row[2]["message"] for row in found.failed.values()}
    assert [] == ground.store.drop(GONE)


def test_a_drop_sent_again_drops_no_new_task(ground: Ground) -> None:
    """By name it may arrive late; nothing else falls to it."""
    keys = ground.push(2)
    tape = Tape(ground.store)
    assert [keys[0]] == ground.store.drop(GONE, [keys[0]])
    tape.play()
    assert {keys[0]: "failed", keys[1]: "queued"} == ground.states()
    assert [keys[0]] == ground.account().failures


def test_a_drop_whose_reply_is_lost_happens_once(ground: Ground) -> None:
    """Each task fails once."""
    keys = ground.push(3)
    lose_reply(ground.store)
    ground.store.drop(GONE)
    assert keys == ground.account().failures


def test_claim_and_drop_at_once_decide_once(ground: Ground) -> None:
    """Every task is either taken or dropped."""
    worker, store = ground.member(), ground.another()
    for _ in range(20):
        keys = ground.push(5)
        claiming = Background(ground.claim, worker, 3)
        dropped = store.drop(GONE)
        taken = claiming.result()
        assert sorted(keys) == sorted([*taken, *dropped])
        found = ground.states()
        assert {"running"} >= {found[key] for key in taken}
        assert {"failed"} >= {found[key] for key in dropped}
        store.drop(GONE)


# --- resetting --------------------------------------------------------------------------------------


def test_a_reset_leaves_no_key(ground: Ground) -> None:
    """Tasks in all states, workers, bells, logs, large values: all gone."""
    worker = ground.member("ann")
    ground.store.push(ground.store.encode_tasks([{"x": "a" * 100_000}], [None]))
    ground.push(2)
    ground.claim(worker)
    keys = ground.begin(worker, 2)
    ground.finish(worker, keys[0])
    ground.fail(worker, keys[1])
    worker.store.add_logs("ann", [{"text": "hello"}])
    ground.store.watch(60.0)
    ground.store.drop(GONE)
    ground.store.stop(["ann"], kill=False)
    assert 8 < len(keys_of(ground.raw, ground.network))
    assert ["ann"] == ground.store.reset_all([])
    assert 8 < len(keys_of(ground.raw, ground.network))
    lose_reply(ground.store)
    assert [] == ground.store.reset_all(["ann"])
    assert [] == keys_of(ground.raw, ground.network)


def test_after_a_reset_the_network_begins_anew(ground: Ground) -> None:
    """Other managers go on in the new epoch, with new numbers, without an error."""
    other = ground.another()
    ground.push(3)
    other.push(ground.encode())
    ground.store.reset_all([])
    batch = ground.encode()
    other.push(batch)
    assert dict.fromkeys(batch.keys, "queued") == ground.states()


def test_a_late_reset_deletes_nothing_new(ground: Ground) -> None:
    """Bytes of a reset that arrive after the network began anew are refused; both kinds."""
    ground.push()
    tape = Tape(ground.store)
    ground.store.reset_tasks()
    keys = ground.push()
    for at in range(len(tape.sent)):
        tape.play(at)
    assert dict.fromkeys(keys, "queued") == ground.states()
    at = len(tape.sent)
    ground.store.reset_all([])
    keys = ground.push()
    tape.play(at + 1)
    assert dict.fromkeys(keys, "queued") == ground.states()


@pytest.mark.parametrize("workers", [True, False])
def test_a_reset_wakes_who_waits(ground: Ground, monkeypatch: pytest.MonkeyPatch, workers: bool) -> None:
    """A wait for tasks that are gone ends with the reset, and one for new tasks goes on in the network that
    begins after it; neither looks by itself."""
    for module in (_reader, _waits):
        monkeypatch.setattr(module, "BLOCK", 600.0)
    with Rush(ground.network, ground.url) as rush, Rush(ground.network, ground.url) as other:
        keys = rush.push_tasks([{"x": 1}])
        gone, new = Background(rush.wait_for_tasks, keys, 600.0), Background(other.fetch_new_tasks, 600.0)
        wait_until(lambda: blocked(ground) == 2)
        ground.store.reset_all([]) if workers else ground.store.reset_tasks()
        with pytest.raises(DataMissing, match="reset"):
            gone.result()
        assert ([] == keys_of(ground.raw, ground.network)) == workers
        wait_until(lambda: blocked(ground) == 1)
        with Rush(ground.network, ground.url) as third:
            third.push_finished_tasks([{"x": 2}], [{"y": 2}])
        assert [2] == new.result()["y"].to_list()


def test_the_beginning_of_a_network_wakes_who_waits(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits on a name that holds nothing hears of its first worker and of its first task."""
    for module in (_reader, _waits):
        monkeypatch.setattr(module, "BLOCK", 600.0)
    with Rush(ground.network, ground.url) as rush:
        new = Background(rush.fetch_new_tasks, 600.0)
        wait_until(lambda: blocked(ground) == 1)
        worker = ground.member()
        ground.finish(worker, *ground.begin(worker), y=3)
        assert [3] == new.result()["y"].to_list()


def test_a_late_beginning_leaves_nothing(ground: Ground) -> None:
    """The first packet of a network arrives again after a reset: what it makes expires, as nobody asked for
    it."""
    tape = Tape(ground.store)
    ground.push()
    ground.store.reset_all([])
    tape.play(0)
    assert [ground.key("control").encode()] == keys_of(ground.raw, ground.network)
    assert 0 < ground.raw.pttl(ground.key("control")) <= 60_000


@pytest.mark.parametrize("how", ["push", "register", "refused", "reap"])
def test_who_writes_keeps_a_network_that_others_began(ground: Ground, how: str) -> None:
    """Somebody began it and was never heard of again: the first who writes has it for good."""
    other = ground.another()
    if how == "refused":
        other.push(ground.encode())
        ground.store.reset_all([])
    begun = new_epoch()
    ground.store.link.call(ground.store.scripts.open(begun))
    assert 0 < ground.raw.pttl(ground.key("control"))
    if how == "register":
        ground.member()
    elif how == "reap":
        other.reap()
    if how != "register":
        other.push(ground.encode())
    assert -1 == ground.raw.pttl(ground.key("control"))
    assert begun.encode() == ground.raw.hget(ground.key("control"), "epoch")


def test_a_reset_of_tasks_whose_reply_is_lost_happens_once(ground: Ground) -> None:
    """What others create after it is not taken for the old."""
    ground.push(2)
    late: list[str] = []
    link = ground.store.link
    exchange = link._exchange

    def another_comes_between(commands, n, wait):
        replies = exchange(commands, n, wait)
        if b"tasks" in commands and not late:
            other = ground.another()
            batch = ground.encode()
            late.extend(batch.keys)
            other.push(batch)
            raise ConnectionResetError("the reply is lost")
        return replies

    link._exchange = another_comes_between
    ground.store.reset_tasks()
    assert dict.fromkeys(late, "queued") == ground.states()
    assert late


def test_a_reset_of_tasks_keeps_the_workers(ground: Ground) -> None:
    """Members go on, under their names; what they held is gone, and so are old claims."""
    worker = ground.member("ann")
    ground.push(2)
    (key,) = ground.claim(worker)
    ground.store.reset_tasks()
    assert {} == ground.states()
    keys = ground.push()
    assert keys == ground.claim(worker)
    with pytest.raises(UnknownKey):
        ground.finish(worker, key)
    assert ground.finish(worker, keys[0])
    assert not worker.leaving
    assert "r" == ground.store.beat([("ann", worker.card.token)], 60.0).letters


def test_logs_go_on_after_a_reset_of_tasks(ground: Ground) -> None:
    """A worker that works on is heard of."""
    worker = ground.member("ann")
    ground.begin(worker)
    ground.store.reset_tasks()
    ground.begin(worker)
    worker.store.add_logs("ann", [{"text": "still here"}])
    assert ["still here"] == [entry["text"] for _, _, entry in ground.store.logs()]


# --- reading ----------------------------------------------------------------------------------------


def everything(ground: Ground) -> dict[str, str]:
    """Two tasks in each state, by key."""
    worker = ground.member("ann")
    running = ground.begin(worker, 6)
    assert all(ground.finish(worker, key, y=1) for key in running[:2])
    assert all(ground.fail(worker, key) for key in running[2:4])
    ground.push(2)
    return ground.states()


def test_looking_tells_each_state(ground: Ground) -> None:
    """In the order asked for, None for a stranger; nothing for nothing."""
    expected = everything(ground)
    keys = [*expected, "stranger", *expected]
    assert [expected.get(key) for key in keys] == ground.store.look(keys)
    assert [] == ground.store.look([])


def test_one_task_is_looked_up_in_any_state(ground: Ground) -> None:
    """One view with one task; an empty one for a stranger."""
    for key, state in everything(ground).items():
        view = ground.store.look_up(key)
        rows = {name: getattr(view, name) for name in ("queued", "running", "failed")}
        rows["finished"] = ground.store.rows(view.finished)
        assert {state: [key]} == {name: [row[3] for row in found] for name, found in rows.items() if found}
        assert (state == "failed") == bool(view.conditions)
    empty = ground.store.look_up("stranger")
    assert not (empty.queued or empty.running or empty.finished or empty.failed)


def test_views_and_counts_agree(ground: Ground) -> None:
    """All states at one instant, each task once, rows of one shape."""
    expected = everything(ground)
    view = ground.store.view(list(TaskState))
    groups = {
        "queued": view.queued,
        "running": view.running,
        "finished": ground.store.rows(view.finished),
        "failed": view.failed,
    }
    assert expected == {row[3]: state for state, rows in groups.items() for row in rows}
    assert {12} == {len(row) for rows in groups.values() for row in rows}
    totals = ground.store.totals()
    assert (Counts(2, 2, 2, 2), 1, 0) == (totals.tasks, totals.live_workers, totals.overdue)
    assert view.epoch == totals.epoch != ""


def test_views_are_of_one_instant(ground: Ground) -> None:
    """While tasks move as fast as they can, a view shows each exactly once."""
    worker = ground.member()
    keys = ground.push(400)

    def work():
        taken = ground.claim(worker)
        while taken:
            _, values = worker.settle_and_claim(ground.finishing(taken[0]), {})
            taken = ground.taken(values)

    working = Background(work)
    while not working.done:
        view = ground.store.view(list(TaskState))
        done = ground.store.rows(view.finished)
        seen = [row[3] for rows in (view.queued, view.running, done) for row in rows]
        assert sorted(keys) == sorted(seen)
    working.result()
    assert 400 == ground.store.totals().tasks.finished


def test_a_network_that_is_not_there_is_empty(ground: Ground) -> None:
    """Reading makes nothing."""
    assert Counts() == ground.store.totals().tasks
    view = ground.store.view(list(TaskState))
    assert ("", [], [], [], []) == (view.epoch, view.queued, view.running, view.finished, view.failed)
    assert [None] == ground.store.look(["x"])
    assert ([], [], {}) == (ground.store.workers(), ground.store.reap(), ground.store.worker_states())
    ground.store.watch(1.0)
    assert [] == keys_of(ground.raw, ground.network)


# --- being woken ------------------------------------------------------------------------------------


CHANGES = ["finish", "fail", "record", "drop", "reap", "kill", "leave", "join"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_watcher_is_woken_by_every_change(ground: Ground, change: str) -> None:
    """Whatever happens to a task or a worker, who waits hears of it, and not before."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    ground.push()
    standing = ground.store.watch(60.0)
    waiting = Background(ground.store.wait_event, standing.event, 60.0)
    wait_until(lambda: ground.raw.info("clients")["blocked_clients"] == 1)
    acts = {
        "finish": lambda: ground.finish(worker, key),
        "fail": lambda: ground.fail(worker, key),
        "record": lambda: ground.store.record(ground.encode(), "f", [ground.payload()]),
        "drop": lambda: ground.store.drop(GONE),
        "reap": lambda: (ground.expire(worker), ground.another().reap()),
        "kill": lambda: ground.another().stop([worker.card.worker_id], kill=True),
        "leave": lambda: worker.leave("bye"),
        "join": ground.member,
    }
    acts[change]()
    assert waiting.result(30)


def test_a_change_between_look_and_wait_is_not_missed(ground: Ground) -> None:
    """The wait ends at once if something happened since the look."""
    worker = ground.member()
    keys = ground.begin(worker, 3)
    standing = ground.store.watch(60.0)
    for key in keys:
        ground.finish(worker, key)
    assert ground.store.wait_event(standing.event, 3600.0)
    after = ground.store.watch(60.0)
    assert 3 == after.finished
    assert not ground.store.wait_event(after.event, 0.05)


def test_nobody_pays_where_nobody_watches(ground: Ground) -> None:
    """Without a watcher, and after its time, changes write no events."""
    worker = ground.member()
    events = ground.raw.xrange(ground.key("events"))
    keys = ground.begin(worker, 2)
    ground.finish(worker, keys[0])
    ground.store.watch(0.001)
    wait_until(lambda: int(ground.raw.hget(ground.key("control"), "watch")) < server_now(ground))
    with Stats(ground.raw) as stats:
        ground.finish(worker, keys[1])
    assert "xadd" not in stats.calls
    assert events == ground.raw.xrange(ground.key("events"))


def test_the_longest_watch_counts(ground: Ground) -> None:
    """A short watch does not shorten a longer one."""
    ground.push()
    ground.store.watch(3600.0)
    before = ground.raw.hget(ground.key("control"), "watch")
    ground.store.watch(1.0)
    assert before == ground.raw.hget(ground.key("control"), "watch")


def server_now(ground: Ground) -> int:
    """The server's clock, in microseconds."""
    seconds, micros = ground.raw.time()
    return int(seconds * 1_000_000 + micros)
