"""What each verb costs: round trips of the client, and commands the server carries out: nothing hides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

import pytest

from ground import Ground, Stats
from harness import Background, wait_until
from rushlight import Rush, RushWorker
from rushlight._listening import Listener
from rushlight._store_feed import Ended

#: What a script may do inside; a client that sent one of these by itself is seen by the trips of its links.
WAITS = ("blpop", "xread")


class Meter:
    """Round trips of a manager or worker, on all its lines, and the scripts and waits the server counted."""

    def __init__(self, ground: Ground, face: Rush | RushWorker) -> None:
        self._store = face._store
        self._stats = Stats(ground.raw)

    def _trips(self) -> int:
        return self._store.link.trips + sum(link.trips for link in self._store._idle)

    def __enter__(self) -> Self:
        self._before = self._trips()
        self._stats.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._stats.__exit__(*error)
        self.trips = self._trips() - self._before

    def calls(self, *names: str) -> int:
        """How many of these commands the server carried out."""
        return sum(self._stats.calls.get(name, 0) for name in names)

    @property
    def commands(self) -> dict[str, int]:
        """All commands the server carried out, also inside of scripts."""
        return self._stats.calls

    @property
    def sent(self) -> int:
        """Scripts called and waits begun, by anybody."""
        return self.calls("evalsha", "eval", *WAITS)


@pytest.fixture
def rush(ground: Ground) -> Iterator[Rush]:
    """It has read what there is, and has met the network."""
    with Rush(ground.network, ground.url) as rush:
        rush.push_tasks([{"x": 0}])
        rush.empty_queue()
        rush.fetch_tasks()
        rush.fetch_new_tasks()
        yield rush


@pytest.fixture
def worker(ground: Ground) -> Iterator[RushWorker]:
    """Its lease is long and nobody renews it: every command is a call of the test's."""
    with RushWorker(ground.network, ground.url, heartbeat=False, lease=600.0) as worker:
        worker.finish_task(worker.push_running_task({"x": 0}), {"y": 0})
        worker.push_running_task({"x": 0})
        yield worker


def test_creating_and_settling_cost_one_trip_each(ground: Ground, worker: RushWorker) -> None:
    """One, also for many tasks at once."""
    for n in (1, 100):
        with Meter(ground, worker) as m:
            keys = worker.push_running_tasks([{"x": 1}] * n)
        assert (1, 1) == (m.trips, m.sent)
        with Meter(ground, worker) as m:
            worker.finish_tasks(keys, [{"y": 1}] * n)
        assert (1, 1) == (m.trips, m.sent)
    (key,) = worker.push_running_tasks([{"x": 1}])
    with Meter(ground, worker) as m:
        worker.fail_task(key, "no")
    assert (1, 1) == (m.trips, m.sent)


def test_a_step_costs_one_trip(ground: Ground, worker: RushWorker) -> None:
    """Finishing and creating in one."""
    key = worker.push_running_task({"x": 1})
    with Meter(ground, worker) as m:
        worker.step(finish=(key, {"y": 1}), push={"x": 2})
    assert (1, 1) == (m.trips, m.sent)


def test_taking_costs_one_trip(ground: Ground, rush: Rush, worker: RushWorker) -> None:
    """One where there are tasks, whatever their number, and one together with a finish."""
    rush.push_tasks([{"x": i} for i in range(10)])
    with Meter(ground, worker) as m:
        task = worker.pop_task()
    assert (1, 1, 0) == (m.trips, m.sent, m.calls("blpop"))
    with Meter(ground, worker) as m:
        assert worker.finish_and_pop(task.key, {"y": 1}) is not None
    assert (1, 1) == (m.trips, m.sent)
    with Meter(ground, worker) as m:
        assert 8 == len(worker.pop_tasks(20))
    assert (1, 1) == (m.trips, m.sent)


def test_a_wait_that_is_served_costs_two_trips(ground: Ground, rush: Rush, worker: RushWorker) -> None:
    """Once a worker knows that the queue is empty: the wait, and the claim it ends with."""
    assert worker.pop_task(timeout=0.01) is None
    with Meter(ground, worker) as m:
        waiting = Background(worker.pop_task, 60.0)
        wait_until(lambda: ground.raw.info("clients")["blocked_clients"] == 1)
        rush.push_tasks([{"x": 1}])
        assert waiting.result(30) is not None
    assert 2 == m.trips
    assert 1 == m.calls("blpop")


def test_an_idle_worker_costs_one_trip_per_wait(ground: Ground, worker: RushWorker) -> None:
    """After the first look nothing but the wait itself."""
    assert worker.pop_task(timeout=0.01) is None
    with Meter(ground, worker) as m:
        for _ in range(5):
            assert worker.pop_task(timeout=0.01) is None
    assert (5, 5, 0) == (m.trips, m.calls("blpop"), m.calls("evalsha"))


def test_asking_whether_to_leave_costs_nothing(ground: Ground, worker: RushWorker) -> None:
    """It rides on the other replies."""
    worker.push_running_task({"x": 1})
    with Meter(ground, worker) as m:
        for _ in range(50):
            assert not worker.terminated
            assert not worker.should_stop_when_idle
    # No more than one a second.
    assert 1 >= m.trips


def test_many_tasks_are_created_with_the_commands_of_one(
    ground: Ground, rush: Rush, worker: RushWorker
) -> None:
    """A thousand plain tasks take the server no more commands than two, in whatever state they begin."""
    ways: list[Callable[[int], object]] = [
        lambda n: rush.push_tasks([{"x": 1}] * n),
        lambda n: rush.push_finished_tasks([{"x": 1}] * n, [{"y": 1}] * n),
        lambda n: rush.push_failed_tasks([{"x": 1}] * n),
        lambda n: worker.push_running_tasks([{"x": 1}] * n),
    ]
    rush.push_tasks([{"x": 0}])  # the bell has rung
    for create in ways:
        found = []
        for n in (2, 1000):
            with Meter(ground, rush) as m:
                create(n)
            found.append(m.commands)
        assert found[0] == found[1]


def test_queueing_costs_one_trip(ground: Ground, rush: Rush) -> None:
    """One, also where the server carries out several scripts for it."""
    for n, scripts in ((1, 1), (2500, 1), (6000, 6)):
        with Meter(ground, rush) as m:
            rush.push_tasks([{"x": 1}] * n)
        assert (1, scripts) == (m.trips, m.sent)


def test_large_values_cost_one_trip_more(ground: Ground, rush: Rush, worker: RushWorker) -> None:
    """They go ahead of what refers to them."""
    key = worker.push_running_task({"x": 1})
    with Meter(ground, worker) as m:
        worker.finish_task(key, {"y": "a" * 100_000})
    assert 2 == m.trips
    with Meter(ground, rush) as m:
        rush.push_tasks([{"x": "b" * 100_000}])
    assert 2 == m.trips


def test_reading_costs_one_trip(ground: Ground, rush: Rush, worker: RushWorker) -> None:
    """Tables of any states, new results, counts, single tasks: one each."""
    keys = worker.push_running_tasks([{"x": i} for i in range(10)])
    worker.finish_tasks(keys[:4], [{"y": 1}] * 4)
    worker.fail_tasks(keys[4:6])
    rush.push_tasks([{"x": 1}] * 3)
    calls = {
        "fetch_tasks": rush.fetch_tasks,
        "running and finished": lambda: rush.fetch_tasks(["running", "finished"]),
        "fetch_finished_tasks": rush.fetch_finished_tasks,
        "fetch_queued_tasks": rush.fetch_queued_tasks,
        "fetch_running_tasks": rush.fetch_running_tasks,
        "fetch_failed_tasks": rush.fetch_failed_tasks,
        "fetch_new_tasks": rush.fetch_new_tasks,
        "counts": rush.counts,
        "n_tasks": lambda: rush.n_tasks,
        "states": lambda: rush.states(keys),
        "task": lambda: rush.task(keys[0]),
        "keys": lambda: rush.keys("finished"),
    }
    trips = {}
    for name, call in calls.items():
        with Meter(ground, rush) as m:
            call()
        trips[name] = m.trips
    assert dict.fromkeys(calls, 1) == trips
    # Who has gone is found out first.
    with Meter(ground, rush) as m:
        assert 1 == len(rush.worker_info)
    assert 2 == m.trips


def test_reading_again_transfers_what_is_new(ground: Ground, rush: Rush, worker: RushWorker) -> None:
    """A reader that has seen thousands of results is sent the one that is new, not all."""
    keys = worker.push_running_tasks([{"x": "a" * 100}] * 2001)
    worker.finish_tasks(keys[:2000], [{"y": 1}] * 2000)
    assert 2001 == len(rush.fetch_finished_tasks(as_="dicts"))
    worker.finish_task(keys[2000], {"y": 2})
    before = ground.raw.info("stats")["total_net_output_bytes"]
    assert 2 == rush.fetch_finished_tasks(as_="dicts")[-1]["y"]
    # All of them are 300,000 bytes; an answer to INFO is some 5,000.
    assert 50_000 > ground.raw.info("stats")["total_net_output_bytes"] - before


def test_reading_what_is_new_costs_two_commands(ground: Ground, rush: Rush, worker: RushWorker) -> None:
    """The new records, and the look at the epoch behind them: the look before them was the last read's."""
    for form in ("polars", "tasks"):
        rush.fetch_finished_tasks(as_=form)
        worker.finish_task(worker.push_running_task({"x": 1}), {"y": 1})
        with Meter(ground, rush) as m:
            rush.fetch_finished_tasks(as_=form)
        assert {"lrange": 1, "hmget": 1} == m.commands
        assert 1 == m.trips


def test_a_reset_between_two_reads_is_noticed(ground: Ground, rush: Rush, worker: RushWorker) -> None:
    """Though only the epoch behind the records is asked for: all is read anew."""
    worker.finish_task(worker.push_running_task({"x": 1}), {"y": 1})
    assert 2 == rush.fetch_finished_tasks().height
    with Rush(ground.network, ground.url) as other:
        other.reset()
        assert 0 == rush.fetch_finished_tasks().height
        other.push_finished_tasks([{"x": i} for i in range(5)], [{"y": i} for i in range(5)])
        assert list(range(5)) == rush.fetch_finished_tasks()["y"].to_list()
        other.reset()
        other.push_finished_tasks([{"x": i} for i in range(7)], [{"y": -i} for i in range(7)])
        assert [-i for i in range(7)] == rush.fetch_finished_tasks()["y"].to_list()


def test_running_tasks_that_are_still_there_are_not_decoded_again(
    ground: Ground, rush: Rush, worker: RushWorker
) -> None:
    """Each table shows them as they are, and none shares anything with another that can be changed."""
    keys = worker.push_running_tasks([{"x": [i]} for i in range(3)])
    decoded: list[int] = []
    codec = rush._store.codec

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(codec, name)

        def decode_records(self, parts: list[bytes], *names: object) -> object:
            decoded.append(len(parts))
            return codec.decode_records(parts, *names)

    rush._store.codec = Counting()  # type: ignore[assignment]
    first = rush.fetch_tasks(["running"], as_="tasks")
    for task in first:
        if task.key in keys:
            task.xs["x"].append("changed")
    for form in ("tasks", "dicts", "polars"):
        again = rush.fetch_tasks(["running"], as_=form)
        rows = [task.xs for task in again] if form == "tasks" else again["x"] if form == "polars" else again
        found = list(rows) if form == "polars" else [row["x"] for row in rows]
        assert [0, [0], [1], [2]] == [x.to_list() if hasattr(x, "to_list") else x for x in found]
    assert [4] == decoded
    worker.finish_task(keys[1], {"y": 1})
    worker.push_running_task({"x": 3})
    assert [0, [0], [2], 3] == [row["x"] for row in rush.fetch_tasks(["running"], as_="dicts")]
    assert [4, 1] == decoded
    worker.fail_task(keys[0])
    assert [0, [2], 3] == [row["x"] for row in rush.fetch_tasks(["running"], as_="dicts")]
    assert [4, 1] == decoded


def test_a_beat_is_one_command_for_all(ground: Ground) -> None:
    """However many workers a supervisor has."""
    members = [ground.member() for _ in range(20)]
    pairs = [(member.card.worker_id, member.card.token) for member in members]
    ground.store.beat(pairs, 600.0)
    before = ground.store.link.trips
    with Stats(ground.raw) as stats:
        assert "r" * 20 == ground.store.beat(pairs, 600.0).letters
    assert (1, 1) == (ground.store.link.trips - before, stats.calls["evalsha"])


def test_waiting_for_a_result_costs_three_trips(ground: Ground, rush: Rush, worker: RushWorker) -> None:
    """A look, the word that somebody waits, and the wait, whose answer brings what came."""
    key = worker.push_running_task({"x": 1})
    rush.fetch_new_tasks()
    with Meter(ground, rush) as m:
        waiting = Background(rush.fetch_new_tasks, 60.0, as_="tasks")
        wait_until(lambda: ground.raw.info("clients")["blocked_clients"] == 1)
        worker.finish_task(key, {"y": 1})
        assert [key] == [task.key for task in waiting.result(30)]
    assert 3 == m.trips


def test_a_stream_waits_in_three_trips(ground: Ground, rush: Rush, worker: RushWorker) -> None:
    """A look, the word that somebody waits, and the wait, whose answer brings what has ended; one more for
    what a failure said."""
    good, bad = worker.push_running_tasks([{"x": 1}, {"x": 2}])
    list(rush.stream(timeout=0.0))
    for key, end, trips in ((good, worker.finish_task, 3), (bad, worker.fail_task, 4)):
        with Meter(ground, rush) as m:
            waiting = Background(next, rush.stream())
            wait_until(lambda: ground.raw.info("clients")["blocked_clients"] == 1)
            end(key, {"message": "no"})
            assert key == waiting.result(30).key
        assert trips == m.trips


def test_ends_that_were_seen_and_not_taken_are_seen_again_at_once(ground: Ground) -> None:
    """Who looks again from the same places is told the same, and does not wait for what comes next."""
    (key,) = ground.begin(member := ground.member())
    ground.fail(member, key)
    listener = Listener(ground.store)
    assert ([], [key]) == _keys_of(listener.look(0, 0, 5.0))
    with Stats(ground.raw) as stats:
        assert ([], [key]) == _keys_of(listener.look(0, 0, 5.0))
    assert not {"xread", "blpop"} & stats.calls.keys()


def _keys_of(ended: Ended) -> tuple[list[str], list[str]]:
    return [row[3] for row in ended.finished], [row[3] for row in ended.failed]
