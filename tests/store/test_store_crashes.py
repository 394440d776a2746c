"""Tasks that outlive the crashes of their workers (``max_crashes``), and tasks nobody takes in time."""

from __future__ import annotations

import msgspec

from ground import Ground, new_tasks
from rushlight._member import Member
from rushlight._records import Exit, WorkerState
from rushlight._store_calls import Collecting
from rushlight._store_ends import WorkerEnd
from rushlight._store_tasks import Encoded


def crash(ground: Ground, member: Member, state: WorkerState = WorkerState.LOST) -> None:
    """The supervisor's report that a worker's process has died."""
    end = WorkerEnd(member.card.worker_id, member.card.token, state, exit=Exit(signal=9))
    ground.store.bury([end])


def test_a_task_survives_so_many_crashes(ground: Ground) -> None:
    """It goes back to the line for each, on a network that uses the plain queue alone, and fails with the
    next."""
    (key,) = ground.push()
    for _ in range(2):
        member = ground.member(crashes=2)
        assert 1 == len(member.claim(1, 0))
        crash(ground, member)
        assert {key} == set(ground.account().queued)
    member = ground.member(crashes=2)
    (record,) = member.claim(1, 5.0)
    assert 3 == ground.store.running_rows([record])[0][1]
    crash(ground, member)
    assert {key} == set(ground.account().failed)


def test_crashes_and_retries_are_counted_apart(ground: Ground) -> None:
    """A crash takes no retry away, and a retry no crash."""
    (key,) = ground.push(retries=1)
    first = ground.member(crashes=1)
    first.claim(1, 0)
    crash(ground, first)
    second = ground.member(crashes=1)
    second.claim(1, 0)
    assert ground.fail(second, key, 2)
    assert {key} == set(ground.account().queued)
    second.claim(1, 0)
    crash(ground, second)
    assert {key} == set(ground.account().failed)


def test_who_kills_decides(ground: Ground) -> None:
    """A worker killed by its supervisor, whose time was over, costs its task an attempt; one that a manager
    kills takes its task along."""
    keys = ground.push(2)
    first, second = ground.member(crashes=1), ground.member(crashes=1)
    first.claim(1, 0)
    second.claim(1, 0)
    crash(ground, first, WorkerState.KILLED)
    ground.store.stop([second.card.worker_id], kill=True)
    account = ground.account()
    assert ({keys[0]}, {keys[1]}) == (set(account.queued), set(account.failed))


def test_what_nobody_collected_is_counted_at_one_instant(ground: Ground) -> None:
    """Tasks and marks are read together: marks that come in between two looks would make it negative."""
    worker = ground.member()
    keys = ground.begin(worker, 3)
    ground.push(2)
    ground.finish(worker, keys[0])
    ground.fail(worker, keys[1])
    ground.store.collect(Collecting("one", "host:1:1"), 1, keys[:2])
    trips = ground.store.link.trips
    assert 3 == ground.store.uncollected()
    assert 1 == ground.store.link.trips - trips


def waiting(ground: Ground, seconds: float) -> str:
    """A task that may wait so long."""
    encode = msgspec.msgpack.encode
    head = encode({"q": seconds}) + encode("late") + encode({"x": 1}) + b"\xc0"
    ground.store.push(Encoded(["late"], [head], {}, plain=False))
    return "late"


def test_a_task_that_nobody_takes_in_time(ground: Ground) -> None:
    """It fails once its time is over and somebody looks; before, and once it was taken, it does not."""
    waiting(ground, 600.0)
    ground.store.reap()
    assert {"late"} == set(ground.account().queued)
    ground.store.drop({"message": "away"}, ["late"])
    ground.store.reset_tasks()
    key = waiting(ground, 1e-6)
    assert ground.store.watch(1.0).overdue == 1
    ground.store.reap()
    (failed,) = ground.account().failed.values()
    assert "not started within" in failed[2]["message"]
    assert 0 == ground.store.watch(1.0).overdue
    ground.store.reset_tasks()
    waiting(ground, 1e-6)
    ground.member().claim(1, 0)
    ground.store.reap()
    assert {key} == set(ground.account().running)


def test_each_result_goes_to_one_collector(ground: Ground) -> None:
    """Who asks second gets nothing, who asks again the same; what one that is gone held is given back."""
    store = ground.store
    store.write(store.scripts.keep_spec)
    store.record(new_tasks(*"abcd"), "f", [ground.payload()] * 4)
    one, two = Collecting("one", "host:1:1"), Collecting("two", "host:2:2")
    assert [False] == store.collect(one, 1, ["never sent"])
    assert [True, True] == store.collect(one, 1, ["a", "b"])
    assert [True, True] == store.collect(one, 1, ["a", "b"])
    assert [False, True] == store.collect(two, 1, ["a", "c"])
    assert [True] == store.collect(Collecting("one", "host:1:1", handed_out=1), 2, ["d"])
    assert 4 == ground.raw.hlen(ground.key("collected"))
    _, found = store.collectors()
    assert {"one": 1, "two": 0} == {collector.token: collector.handed_out for collector in found}
    (gone,) = [collector for collector in found if collector.token == "one"]
    held = store.given_to(gone)
    assert {"d"} == set(held)
    assert store.uncollect(gone, held)
    assert [True] == store.collect(two, 2, ["d"])
