"""Tasks that are removed once their results were collected: those that may, and nothing else with them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ground import Ground, Tape, hold_to_be_gone
from rushlight import Rush, RushWorker
from rushlight._member import Member
from rushlight._records import TaskState
from rushlight._store import Store
from rushlight._store_calls import Collecting
from rushlight._store_feed import Leaving
from rushlight._store_tasks import Encoded
from rushlight.errors import DataMissing, UnknownKey, WorkerLost

from .resending import batch, numbered


def ended(ground: Ground, *keys: str, fail: Sequence[str] = ()) -> Member:
    """Tasks that a worker has done."""
    member = ground.member()
    ground.store.push(batch(*keys))
    for key in keys:
        ground.claim(member)
        (ground.fail if key in fail else ground.finish)(member, key)
    return member


def collector(name: str = "~a", handed_out: int = 0) -> Collecting:
    """One that has handed out so many of its calls; others are named without ~."""
    return Collecting(name, "host:1:1", handed_out)


def forget(
    store: Store, *keys: str, word: str = "", handed_out: int = 1, failure: int | str = ""
) -> list[bool]:
    """Asks for tasks to be removed, for a collector whose first call was handed out."""
    return store.forget(collector(handed_out=handed_out), word, [Leaving(key, failure) for key in keys])


def sizes(ground: Ground) -> dict[str, int]:
    """What is kept of tasks on the server, in entries."""
    hashes = ("index", "failed", "collected", "lapses", "names", "blobs", "deadlines")
    count = {name: ground.raw.zcard if name == "deadlines" else ground.raw.hlen for name in hashes}
    return {name: n for name in hashes if (n := count[name](ground.key(name)))}


def test_what_was_handed_out_is_removed(ground: Ground) -> None:
    """Nothing is left of finished and failed tasks but their empty places; other tasks stay as they are."""
    ended(ground, "a", "b", "c", fail=["b"])
    ground.store.push(batch("d"))
    assert [True, True] == ground.store.collect(collector(), 1, ["a", "b"])
    assert [True, True] == [*forget(ground.store, "a"), *forget(ground.store, "b", failure=0)]
    assert {"c": "finished", "d": "queued"} == ground.states()
    assert {"index": 2} == sizes(ground)
    assert (1, [b""]) == (
        ground.raw.llen(ground.key("finished")),
        ground.raw.lrange(ground.key("failures"), 0, 0),
    )
    assert (1, 1, 0) == (
        ground.store.totals().tasks.finished,
        ground.store.totals().tasks.queued,
        ground.store.totals().tasks.failed,
    )
    assert 2 == ground.store.uncollected()


def test_a_task_that_is_named_twice_counts_once(ground: Ground) -> None:
    """Counts stay right where a call names a task twice, or others have named it before."""
    ended(ground, "a", "b", "c", fail=["b"])
    assert [True, True] == ground.store.collect(collector(), 1, ["a", "b"])
    tasks = [Leaving("a"), Leaving("b", 0)]
    for _ in range(2):
        assert [True] * 4 == ground.store.forget(collector(handed_out=1), "", [*tasks, *tasks])
        assert {"c": "finished"} == ground.states()
        assert (1, 0) == (ground.store.totals().tasks.finished, ground.store.totals().tasks.failed)
        assert (1, 3) == (ground.store.uncollected(), ground.store.place().created)


def test_what_was_not_handed_out_stays(ground: Ground) -> None:
    """A result that its collector may not have given to anybody, or that nobody has collected, or that was
    collected for an archive, is not removed, whoever asks."""
    ended(ground, "a", "b", "c")
    assert [True] == ground.store.collect(collector(), 1, ["a"])
    assert [True] == ground.store.collect(collector("archive"), 1, ["b"])
    assert [False, True, True] == forget(ground.store, "a", "b", "c", handed_out=0)
    assert ["a", "b", "c"] == sorted(ground.states())
    hold_to_be_gone(ground.store, "~a")
    assert [True] == ground.store.collect(collector("~b"), 1, ["a"])
    assert [True] == ground.store.forget(collector("~b", 1), "", [Leaving("a")])
    assert ["b", "c"] == sorted(ground.states())


def test_nothing_goes_that_a_controller_has_not_read(ground: Ground) -> None:
    """A controller that waits says how far it has read; what lies behind stays until it has read on, waits
    for nothing, or is gone."""
    store = ground.store
    store.collect(collector("b"), 1, [], "begin")
    ended(ground, "a", "b", "c", "d", fail=["b"])
    assert [True] * 4 == store.collect(collector(), 1, ["a", "b", "c", "d"])
    assert [False, False] == [*forget(store, "a"), *forget(store, "b", failure=0)]
    store.collect(collector("b"), 2, [], "1 0")
    assert [True, False, False] == [*forget(store, "a", "c"), *forget(store, "b", failure=0)]
    store.collect(collector("b"), 3, [], "0 0")
    store.collect(collector("b"), 4, [], "1 1")
    assert [True, False] == [*forget(store, "b", failure=0), *forget(store, "c")]
    store.collect(collector("b"), 5, [], "idle 0")
    assert [True] == forget(store, "c")
    store.collect(collector("b"), 6, [], "begin")
    hold_to_be_gone(store, "b")
    assert [True] == forget(store, "d")
    assert {} == sizes(ground)


def test_a_push_makes_an_idle_controller_wait(ground: Ground) -> None:
    """What a controller pushes after it had nothing to wait for is kept until it has read the end, also if
    the word that it is idle comes late."""
    store = ground.store
    store.collect(collector("~c2"), 1, [], "begin")
    tape = Tape(store)
    store.collect(collector("~c2"), 1, [], "idle 0")
    said = len(tape.sent) - 1
    store.push(numbered("a"))
    tape.play(said)
    member = ground.member()
    assert ground.finish(member, *ground.claim(member))
    assert [True] == store.collect(collector(), 1, ["a"])
    assert [False] == forget(store, "a")
    store.collect(collector("~c2"), 2, [], "idle 1")
    assert [True] == forget(store, "a")


def test_a_task_that_is_gone_is_not_made_again(ground: Ground) -> None:
    """A push that arrives again after its task was done, collected and removed creates nothing; neither is
    anything decided for it, and its worker hears that it was."""
    tape = Tape(ground.store)
    ground.store.push(numbered("a"))
    pushed = len(tape.sent) - 1
    member = ground.member()
    ground.claim(member)
    results = Tape(member)
    assert ground.finish(member, "a")
    assert [True] == ground.store.collect(collector(), 1, ["a"])
    forget(ground.store, "a", word="")
    ground.store.collect(collector("~c2"), 1, [], "idle 1")
    assert [True] == forget(ground.store, "a")
    assert [b"ok", 1] == tape.play(pushed)[0]
    assert [0] == results.play()[0][2]
    assert not ground.finish(member, "a")
    assert {} == ground.states()


def test_a_task_that_is_tried_again_is_not_removed(ground: Ground) -> None:
    """A failed task that goes back to the queue after its failure was collected stays, and can be removed
    once it has ended again."""
    member = ended(ground, "a", fail=["a"])
    assert [True] == ground.store.collect(collector(), 1, ["a"])
    assert ["a"] == ground.store.retry(["a"], ignore=True, next_seed=False)
    assert [True] == forget(ground.store, "a", failure=0)
    assert {"a": "queued"} == ground.states()
    ground.claim(member)
    assert ground.finish(member, "a", 2)
    assert [True] == forget(ground.store, "a", failure=0)
    assert {} == sizes(ground)


def test_values_stored_apart_go_with_their_task(ground: Ground) -> None:
    """The fields of large values that are a task's own are removed with it, and no others."""
    ended(ground, "a")
    ground.store.large.send("blobs", ground.store.epoch, {"mine": b"v" * 5_000_000, "other": b"v"})
    assert [True] == ground.store.collect(collector(), 1, ["a"])
    fields = ("mine", "mine:0", "mine:1")
    assert [True] == ground.store.forget(collector(handed_out=1), "", [Leaving("a", "", fields)])
    assert [b"other"] == ground.raw.hkeys(ground.key("blobs"))


def test_numbers_of_tasks_go_on(ground: Ground) -> None:
    """Tasks that come after others were removed have later numbers than all that are there."""
    ended(ground, "a", "b", "c")
    assert [True, True] == ground.store.collect(collector(), 1, ["a", "b"])
    forget(ground.store, "a", "b")
    ground.store.push(batch("d"))
    ground.store.record(Encoded(batch("e").keys, batch("e").heads, {}), "f", [ground.payload(y=1)])
    with Rush(ground.network, ground.url) as rush:
        assert ["c", "d", "e"] == rush.keys()
        assert ["c", "e"] == rush.keys("finished")
    assert 5 == ground.store.place().created


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "not plain"])
@pytest.mark.parametrize("removed", [["a", "b"], ["b"]], ids=["in front", "between"])
def test_numbers_of_tasks_that_workers_make_go_on(ground: Ground, removed: list[str], plain: bool) -> None:
    """Whoever makes a task, and by whatever call, its number is later than those of all before it."""
    member = ended(ground, "a", "b", "c")
    if not plain:
        ground.store.push(batch("other", p=1))
        assert ["other"] == ground.claim(member)
    before = ground.store.place().created
    assert [True] * len(removed) == ground.store.collect(collector(), 1, removed)
    forget(ground.store, *removed)
    member.begin(batch("d"))
    member.step(ground.finishing("d", y=1), batch("e"), {})
    member.begin(batch("f", "g"))
    member.step_one("f", ground.payload(y=1), "h", batch("h").heads[0])
    rows = [*ground.store.view([TaskState.RUNNING]).running]
    rows += ground.store.rows(ground.store.whole_view([TaskState.FINISHED]).finished)
    numbers = {row[3]: row[7] - before for row in rows}
    assert [1, 2, 3, 4, 5] == [numbers[key] for key in "defgh"]
    assert before + 5 == ground.store.place().created


def test_a_name_is_given_to_one_call(ground: Ground) -> None:
    """A name belongs to a call until that was collected or removed; a call that was never made has none."""
    store = ground.store
    assert "n\x1f1" == store.name_call("n", "n\x1f1")
    assert "n\x1f2" == store.name_call("n", "n\x1f2")
    ended(ground, "n\x1f2")
    assert "n\x1f2" == store.name_call("n", "n\x1f3")
    assert "n\x1f2" == store.named("n")
    assert [True] == store.collect(collector(), 1, ["n\x1f2"])
    assert [True] == forget(store, "n\x1f2")
    assert store.named("n") is None
    assert {} == sizes(ground)


def test_readers_go_on_behind_what_was_removed(ground: Ground) -> None:
    """Who has read tasks keeps them, and reads on; who comes later finds those that are there. Nobody gets a
    row twice."""
    with Rush(ground.network, ground.url) as early, RushWorker(ground.network, ground.url) as late:
        ended(ground, "a", "b", "c")
        table = early.fetch_finished_tasks()
        assert ["a", "b", "c"] == early.fetch_new_tasks()["key"].to_list()
        assert ["a", "b", "c"] == [early._take_streamed().key for _ in range(3) if early._await_streamed(0)]  # type: ignore[union-attr]
        assert [True, True] == ground.store.collect(collector(), 1, ["a", "c"])
        forget(ground.store, "a", "c")
        ended(ground, "d", "e", "f", fail=["e"])
        assert ["b", "d", "f"] == late.fetch_finished_tasks()["key"].to_list()
        assert [True] == ground.store.collect(collector(), 2, ["d"])
        forget(ground.store, "d", handed_out=2)
        ended(ground, "g")
        assert ["f", "g"] == early.fetch_new_tasks()["key"].to_list()
        assert ["a", "b", "c", "f", "g"] == early.fetch_finished_tasks()["key"].to_list()
        assert ["b", "d", "f", "g"] == late.fetch_finished_tasks()["key"].to_list()
        assert ["b", "d", "f", "g"] == late.keys("finished")
        assert {"e", "f", "g"} == {task.key for task in early.stream(timeout=0)}
        assert 3 == table.height
        assert [None, "finished", "failed"] == early.states(["a", "b", "e"])
        assert (3, 1) == (early.n_finished_tasks, early.n_failed_tasks)
        assert ["b", "f", "g"] == [
            task.key for task in Rush(ground.network, ground.url).fetch_tasks("finished", as_="tasks")
        ]


@pytest.mark.parametrize("failed", [[], ["a"]])
def test_who_waits_for_a_task_that_is_removed_hears_so(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, failed: list[str]
) -> None:
    """Who waits for a task hears that it is gone, where it ended and was removed between two looks."""
    ground.store.push(batch("a", "b"))
    member = ground.member()
    ground.claim(member, 2)

    def at_once(*_: object) -> bool:
        (ground.fail if failed else ground.finish)(member, "a")
        assert [True] == ground.store.collect(collector(), 1, ["a"])
        assert [True] == forget(ground.store, "a", failure=0 if failed else "")
        return True

    with Rush(ground.network, ground.url) as rush:
        monkeypatch.setattr(rush._store, "wait_event", at_once)
        with pytest.raises(DataMissing, match="keeps no results") as caught:
            rush.wait_for_tasks(["a", "b"], timeout=60)
        assert ["a"] == caught.value.fields["keys"]
        with pytest.raises(UnknownKey):
            rush.wait_for_tasks(["a"])


def known(ground: Ground) -> set[str]:
    """The workers of which anything is kept."""
    fields = {
        field.decode()
        for name in ("control", "workers", "ends", "usage", "tallies")
        for field in ground.raw.hkeys(ground.key(name))
    }
    keys = (key.decode().rpartition(":bell:")[2] for key in ground.raw.scan_iter(match=ground.key("bell:*")))
    return {wid for wid in (f"w{n}" for n in range(20)) if any(f.endswith(wid) for f in {*fields, *keys})}


def gone(ground: Ground, n: int) -> list[Member]:
    """Workers that have done a task each, with nothing left out of what is kept of them, and were killed."""
    members = [ground.member(f"w{i}") for i in range(n)]
    for i, member in enumerate(members):
        ended_by(ground, member, f"task-{i}")
        ground.store.beat([(member.card.worker_id, member.card.token)], 600.0)
        ground.store.stop([member.card.worker_id], kill=True)
    return members


def ended_by(ground: Ground, member: Member, key: str) -> None:
    """It does a task."""
    ground.store.push(batch(key))
    assert [key] == ground.claim(member)
    assert ground.finish(member, key)


def test_workers_that_have_ended_are_forgotten_but_for_the_last(ground: Ground) -> None:
    """All that is known of the first to end goes; those that are there stay, however long they have been, and
    so does one whose launch is still noted. What a forgotten one says comes to nothing."""
    old = ground.member("w19")
    members = gone(ground, 9)
    ground.store.keep_launches({"w1": b"note"})
    ground.store.dismiss(10)
    assert {"w19", *(f"w{n}" for n in range(9))} == known(ground)
    ground.store.dismiss(4)
    assert {"w19", "w1", "w5", "w6", "w7", "w8"} == known(ground)
    assert {"w19", "w1", "w5", "w6", "w7", "w8"} == {info.worker_id for info in ground.store.workers()}
    ground.store.push(batch("next"))
    assert [] == members[0].claim(1, 0)
    with pytest.raises(WorkerLost):
        members[0].begin(batch("more"))
    assert members[0].gone
    assert "w0" not in known(ground)
    assert ["next"] == ground.claim(old)


def test_a_worker_that_lives_again_is_not_forgotten(ground: Ground) -> None:
    """Not even if it has ended and come back since somebody looked."""
    gone(ground, 2)
    said = ground.raw.hget(ground.key("control"), "w:w0")
    again = ground.member("w0")
    store = ground.store
    store.write(lambda epoch: store.scripts.dismiss(epoch, [("w0", said)]))
    ended_by(ground, again, "next")
    assert {"w0", "w1"} == known(ground)
