"""Workers come, renew their leases, leave, are stopped, are lost; each end is decided once."""

from __future__ import annotations

import select

import pytest

from ground import Ground, Tape, lose_reply
from harness import Background, keys_of
from rushlight import Rush
from rushlight._member import Member
from rushlight._names import random_token
from rushlight._records import Exit, WorkerState
from rushlight._store_ends import CRASHED, KILLED, WorkerEnd
from rushlight.errors import ConfigError, WorkerLost

REQUEUE = {"on_lost": "requeue"}


def end(member: Member, state: WorkerState = WorkerState.LOST, **exit_: object) -> WorkerEnd:
    """The report of a supervisor."""
    return WorkerEnd(member.card.worker_id, member.card.token, state, exit=Exit(**exit_))


def states(ground: Ground) -> dict[str, WorkerState]:
    """The state of every worker."""
    return ground.store.worker_states()


def messages(ground: Ground) -> dict[str, str]:
    """What each failed task says."""
    return {key: row[2]["message"] for key, row in ground.account().failed.items()}


# --- registering ------------------------------------------------------------------------------------


def test_registering_is_all_or_none(ground: Ground) -> None:
    """Where one id is taken by a live worker nobody of the batch becomes a member."""
    taken = ground.member("taken")
    cards = [ground.card("free"), ground.card("taken")]
    with pytest.raises(ConfigError, match="taken") as caught:
        ground.store.register(cards, WorkerState.RUNNING, 60.0)
    assert ["taken"] == caught.value.fields["worker_ids"]
    assert {"taken": WorkerState.RUNNING} == states(ground)
    assert not taken.leaving


def test_registering_again_is_the_same_life(ground: Ground) -> None:
    """The same token, also when its reply was lost, is one member, with its time of registration."""
    card = ground.card("ann")
    tape = Tape(ground.store)
    lose_reply(ground.store)
    ground.store.register([card], WorkerState.STARTING, 60.0)
    (first,) = ground.store.workers()
    tape.play()
    ground.store.register([card], WorkerState.RUNNING, 60.0)
    (second,) = ground.store.workers()
    assert (WorkerState.STARTING, WorkerState.RUNNING) == (first.state, second.state)
    assert first.started_at == second.started_at
    assert {"ann"} == ground.store.ran()


def test_a_start_that_was_stopped_does_not_run(ground: Ground) -> None:
    """Killed while it started, a worker cannot move on to running."""
    member = Member(ground.another(), ground.card("ann"), 60.0)
    member.join(WorkerState.STARTING)
    ground.store.stop(["ann"], kill=True)
    with pytest.raises(WorkerLost, match="ann"):
        member.join(WorkerState.RUNNING)
    assert {"ann": WorkerState.KILLED} == states(ground)


def test_a_word_to_leave_survives_the_start(ground: Ground) -> None:
    """Asked to leave while it started, a worker knows from its first moment on."""
    member = Member(ground.another(), ground.card("ann"), 60.0)
    member.join(WorkerState.STARTING)
    ground.store.stop(["ann"], kill=False)
    member.join(WorkerState.RUNNING)
    assert member.leaving


def test_a_reset_network_takes_nobody_back(ground: Ground) -> None:
    """Who registered before a reset does not bring the network to life by moving on to running."""
    member = Member(ground.another(), ground.card("ann"), 60.0)
    member.join(WorkerState.STARTING)
    ground.store.reset_all(["ann"])
    with pytest.raises(WorkerLost):
        member.join(WorkerState.RUNNING)
    assert [] == ground.raw.keys(ground.key("*"))


def test_an_id_is_free_again_after_its_end(ground: Ground) -> None:
    """The next life has a time, an exit report and claims of its own."""
    old = ground.member("ann")
    ground.push(2)
    ground.claim(old)
    ground.store.bury([end(old, exit_code=3, reason="gone")])
    new = ground.member("ann")
    (info,) = ground.store.workers()
    assert (WorkerState.RUNNING, None, None) == (info.state, info.exit_code, info.reason)
    assert 1 == len(ground.claim(new))


def test_an_id_is_free_once_its_lease_has_run_out(ground: Ground) -> None:
    """Also where nobody has noticed yet: who comes for the id declares its last holder lost."""
    old = ground.member("ann")
    (key,) = ground.begin(old)
    ground.expire(old)
    new = ground.member("ann")
    assert {"ann": WorkerState.RUNNING} == states(ground)
    assert {key: "failed"} == ground.states()
    assert not ground.finish(old, key)
    assert not new.gone


def test_of_two_that_come_for_an_id_one_gets_it(ground: Ground) -> None:
    """Many at once: one member, the others are told that the id is taken."""

    def join(_n):
        member = Member(ground.another(), ground.card("ann"), 60.0)
        try:
            member.join(WorkerState.RUNNING)
        except ConfigError:
            return False
        return True

    assert 1 == sum(call.result() for call in [Background(join, n) for n in range(6)])


def test_a_token_of_another_life_opens_nothing(ground: Ground) -> None:
    """Whoever has the id but not the token writes nothing under it."""
    ann = ground.member("ann")
    (key,) = ground.begin(ann)
    thief = Member(ground.another(), ground.card("ann"), 60.0)
    thief._epoch = ground.store.epoch or ann._epoch
    with pytest.raises(WorkerLost):
        ground.begin(thief)
    assert [] == thief.claim(1, 0.0)
    assert "?" == ground.store.beat([("ann", random_token())], 60.0).letters
    assert {key: "running"} == ground.states()


# --- leases -----------------------------------------------------------------------------------------


def test_a_beat_renews_and_tells(ground: Ground) -> None:
    """One command for any number of workers: a letter each, and how many leases of anybody ran out."""
    live, asked, killed, silent = (ground.member() for _ in range(4))
    ground.store.stop([asked.card.worker_id], kill=False)
    ground.store.stop([killed.card.worker_id], kill=True)
    ground.expire(live, silent)
    members = [(m.card.worker_id, m.card.token) for m in (live, asked, killed)]
    beat = ground.store.beat([*members, ("nobody", "x")], 60.0)
    assert ("rdk?", 1) == (beat.letters, beat.overdue)
    assert [silent.card.worker_id] == ground.store.reap()
    assert WorkerState.RUNNING is states(ground)[live.card.worker_id]


def test_a_beat_brings_nothing_back(ground: Ground) -> None:
    """Of a network that was reset nothing is renewed and nothing is made."""
    member = ground.member()
    ground.store.beat([(member.card.worker_id, member.card.token)], 60.0)
    ground.another().reset_all([member.card.worker_id])
    assert "?" == ground.store.beat([(member.card.worker_id, member.card.token)], 60.0).letters
    assert [] == ground.raw.keys(ground.key("*"))


def test_a_lost_worker_is_found_once(ground: Ground) -> None:
    """Of all that look, one finds it; its tasks fail with the message everybody knows."""
    lost, live = ground.member(), ground.member()
    keys, others = ground.begin(lost, 2), ground.begin(live, 1)
    ground.expire(lost)
    stores = [ground.another() for _ in range(4)]
    found = [call.result() for call in [Background(store.reap) for store in stores]]
    assert [lost.card.worker_id] == [wid for ids in found for wid in ids]
    assert dict.fromkeys(keys, CRASHED) == messages(ground)
    assert "running" == ground.states()[others[0]]
    assert ["lease ran out", None] == [info.reason for info in ground.store.workers()]


def test_a_reap_sent_again_finds_the_same(ground: Ground) -> None:
    """At once, and after the id lives again, which it leaves alone."""
    lost = ground.member("ann")
    ground.begin(lost)
    ground.expire(lost)
    tape = Tape(ground.store)
    assert ["ann"] == ground.store.reap()
    assert [b"ann"] == tape.play()[-1][1]
    ground.member("ann")
    tape.play()
    assert [] == ground.store.reap()
    assert {"ann": WorkerState.RUNNING} == states(ground)


def test_lost_tasks_are_queued_again_where_wanted(ground: Ground) -> None:
    """At workers with that policy, tasks that have a try left go to the end of the queue; others fail."""
    lost = ground.member(**REQUEUE)
    again, last = ground.push(1, retries=1) + ground.push(1)
    waiting = ground.push(1)
    ground.claim(lost, 2)
    (own,) = ground.begin(lost)
    ground.expire(lost)
    ground.store.reap()
    assert {again: "queued", last: "failed", own: "failed", waiting[0]: "queued"} == ground.states()
    worker = ground.member(**REQUEUE)
    assert [*waiting, again] == ground.claim(worker, 5)
    assert 2 == ground.account().running[again][1]
    ground.expire(worker)
    ground.store.reap()
    assert {"failed"} == {state for key, state in ground.states().items()}
    assert 2 == ground.account().failed[again][4]


def test_without_the_policy_retries_do_not_matter(ground: Ground) -> None:
    """A lost worker's tasks fail, whatever tries they have."""
    lost = ground.member()
    (key,) = ground.push(1, retries=5)
    ground.claim(lost)
    ground.expire(lost)
    ground.store.reap()
    assert {key: "failed"} == ground.states()


@pytest.mark.parametrize("first", ["finish", "reap"])
def test_finish_and_loss_race(ground: Ground, first: str) -> None:
    """Whoever comes first decides, and the other changes nothing; at once, one of them."""
    worker = ground.member()
    (key,) = ground.begin(worker)
    ground.expire(worker)
    if first == "finish":
        assert ground.finish(worker, key)
        assert [worker.card.worker_id] == ground.store.reap()
        assert {key: "finished"} == ground.states()
    else:
        ground.store.reap()
        assert not ground.finish(worker, key)
        assert {key: "failed"} == ground.states()


def test_finish_and_kill_at_once_decide_once(ground: Ground) -> None:
    """In many rounds of both at the same time every task has one end, and the worker knows which."""
    for _ in range(30):
        worker = ground.member()
        keys = ground.begin(worker, 3)
        calls = [Background(ground.finish, worker, keys[0]), Background(ground.fail, worker, keys[1])]
        calls[0].result()
        killer = Background(ground.store.stop, [worker.card.worker_id], kill=True)
        mine = ground.finish(worker, keys[2])
        failed = calls[1].result()
        killer.result()
        now = ground.account()
        found = now.states()
        assert ("finished" if mine else "failed") == found[keys[2]]
        assert ("no" if failed else KILLED) == now.failed[keys[1]][2]["message"]
        worker.store.close()


# --- ends -------------------------------------------------------------------------------------------


def test_leaving_fails_what_is_held(ground: Ground) -> None:
    """A worker that leaves is terminated, gives back its lease, and its tasks fail, whatever the policy."""
    worker = ground.member("ann", **REQUEUE)
    ground.push(1, retries=3)
    (key,) = ground.claim(worker)
    worker.leave("I must go")
    assert {"ann": WorkerState.TERMINATED} == states(ground)
    assert {key: "I must go"} == messages(ground)
    assert 0 == ground.raw.zcard(ground.key("leases"))


def test_an_end_sent_again_ends_nothing(ground: Ground) -> None:
    """At once, and after the id lives again."""
    worker = ground.member("ann")
    ground.begin(worker)
    tape = Tape(ground.store)
    lose_reply(ground.store)
    ground.store.bury([end(worker, exit_code=1)])
    before = ground.account()
    assert [] == tape.play()[-1][1]
    new = ground.member("ann")
    (key,) = ground.begin(new)
    assert [] == tape.play()[-1][1]
    assert {"ann": WorkerState.RUNNING} == states(ground)
    assert "running" == ground.states()[key]
    assert before.failed.keys() == ground.account().failed.keys()


def test_the_first_end_stands(ground: Ground) -> None:
    """A killed or lost worker's process dies later: its report is kept, its state stays."""
    killed, lost, left = ground.member("killed"), ground.member("lost"), ground.member("left")
    ground.store.stop(["killed"], kill=True)
    ground.expire(lost)
    ground.store.reap()
    left.leave("bye")
    ends = [end(m, signal=9, reason="was killed") for m in (killed, lost, left)]
    assert [] == ground.store.bury(ends)
    assert {
        "killed": WorkerState.KILLED,
        "lost": WorkerState.LOST,
        "left": WorkerState.TERMINATED,
    } == states(ground)
    assert {-9} == {info.exit_code for info in ground.store.workers()}


def test_a_crash_is_reported_with_its_tasks(ground: Ground) -> None:
    """The tasks of a dead process carry what is known of its end; the tallies count them."""
    worker = ground.member()
    keys = ground.begin(worker, 2)
    ground.finish(worker, keys[0])
    crash = end(worker, signal=11, stderr="Segmentation fault", reason="died from SIGSEGV")
    assert [worker.card.worker_id] == ground.store.bury([crash])
    said = ground.account().failed[keys[1]][2]
    assert (CRASHED, 11, "Segmentation fault") == (said["message"], said["signal"], said["stderr"])
    (info,) = ground.store.workers()
    assert (1, 1, -11) == (info.n_finished, info.n_failed, info.exit_code)


def test_ends_of_many_are_one_call(ground: Ground) -> None:
    """All at once, each with its own fate."""
    one, two = ground.member(**REQUEUE), ground.member()
    ground.push(2, retries=1)
    (again,), (lost,) = ground.claim(one), ground.claim(two)
    ended = ground.store.bury([end(one), end(two)])
    assert [one.card.worker_id, two.card.worker_id] == ended
    assert {again: "queued", lost: "failed"} == ground.states()


def test_ends_of_a_reset_network_are_nobodys(ground: Ground) -> None:
    """A supervisor's report that comes after a reset makes nothing."""
    worker = ground.member()
    store = worker.store
    ground.store.reset_all([worker.card.worker_id])
    assert [] == store.bury([end(worker)])
    assert [] == ground.raw.keys(ground.key("*"))


# --- stopping ---------------------------------------------------------------------------------------


def test_asking_to_leave_leaves_the_tasks(ground: Ground) -> None:
    """The worker stays a member and finishes what it holds."""
    worker = ground.member("ann")
    (key,) = ground.begin(worker)
    assert (["ann"], []) == ground.store.stop(["ann"], kill=False)
    assert ground.finish(worker, key)
    assert worker.leaving and not worker.gone
    assert {"ann": WorkerState.RUNNING} == states(ground)


def test_a_kill_ends_at_once(ground: Ground) -> None:
    """Killed, its tasks failed whatever the policy, its lease gone, an order given to its supervisor."""
    worker = ground.member("ann", **REQUEUE)
    listener = ground.store.listen()
    ground.push(1, retries=3)
    (key,) = ground.claim(worker)
    assert (["ann"], []) == ground.store.stop(["ann"], kill=True)
    assert {key: KILLED} == messages(ground)
    assert {"ann": WorkerState.KILLED} == states(ground)
    assert select.select([listener.fileno()], [], [], 20)[0]
    (order,) = listener.read()
    assert ("kill", ("ann",)) == (order.op, order.worker_ids)
    listener.close()


def test_a_second_stop_stops_nobody(ground: Ground) -> None:
    """Those that are not live any more are told apart."""
    ground.member("ann")
    assert (["ann"], ["ben"]) == ground.store.stop(["ann", "ben"], kill=True)
    assert ([], ["ann", "ben"]) == ground.store.stop(["ann", "ben"], kill=True)
    assert {"ann": WorkerState.KILLED} == states(ground)


def test_a_kill_follows_a_wish_to_leave(ground: Ground) -> None:
    """One that was asked and does not go can still be killed."""
    ground.member("ann")
    ground.store.stop(["ann"], kill=False)
    assert (["ann"], []) == ground.store.stop(["ann"], kill=True)
    assert {"ann": WorkerState.KILLED} == states(ground)


def test_thousands_of_workers_can_be_stopped_and_reset(ground: Ground) -> None:
    """A network in which very many workers have been is stopped and reset like any other."""
    cards = [ground.card(f"w{n}") for n in range(9000)]
    for at in range(0, len(cards), 1000):
        ground.store.register(cards[at : at + 1000], WorkerState.RUNNING, 600.0)
    ids = [card.worker_id for card in cards]
    stopped, _ = ground.store.stop(ids, kill=True)
    assert 9000 == len(stopped)
    assert [] == ground.store.reset_all(ids)
    assert [] == ground.raw.keys(ground.key("*"))


def test_looking_for_the_lost_begins_no_network(ground: Ground) -> None:
    """A manager that still knows a network which is gone counts nobody there, and leaves nothing behind."""
    ground.push()
    ground.raw.delete(*keys_of(ground.raw, ground.network))
    assert [] == ground.store.reap()
    assert [] == keys_of(ground.raw, ground.network)
    with Rush(ground.network, ground.url) as other:
        ground.push()
        assert 1 == other.n_tasks
        ground.raw.delete(*keys_of(ground.raw, ground.network))
        assert (0, 0, []) == (other.n_tasks, other.n_workers, other.lost_worker_ids)
    assert [] == keys_of(ground.raw, ground.network)
