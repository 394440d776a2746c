"""A manager: making one, queueing, creating in final states, emptying, resetting, travelling."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable

import pytest
import redis

from rushlight import Counts, Rush, RushWorker, TaskState
from rushlight.errors import ConfigError, DataMissing, RushlightError, UnknownKey

Wait = Callable[..., None]


def counts(rush: Rush) -> tuple[int, int, int, int]:
    """Queued, running, finished, failed."""
    now = rush.counts()
    return now.queued, now.running, now.finished, now.failed


# --- construction ---------------------------------------------------------------------------------


def test_a_manager_knows_its_network_and_server(network: str, server: redis.Redis) -> None:
    """It is connected at once, says where, and has written nothing."""
    with Rush(network) as rush:
        assert network == rush.network
        assert rush.url is None
        assert network in repr(rush)
        assert Counts() == rush.counts()
    assert 0 == server.dbsize()


def test_a_nameless_network_gets_a_readable_name(home: object) -> None:
    """``network=None``: random, and different every time."""
    with Rush() as one, Rush() as two:
        assert one.network != two.network
        assert "-" in one.network and one.network.isprintable()


def test_a_url_leads_to_the_same_network(rush: Rush, network: str, server: redis.Redis) -> None:
    """Through a URL or without one: it is the server that counts."""
    path = server.connection_pool.connection_kwargs["path"]
    rush.push_tasks([{"x": 1}])
    with Rush(network, f"unix://{path}") as other:
        assert (1, f"unix://{path}") == (other.n_queued_tasks, other.url)


def test_the_environment_names_the_server(
    network: str, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``RUSHLIGHT_URL`` before ``REDIS_URL`` before the embedded server; an argument before all."""
    url = f"unix://{server.connection_pool.connection_kwargs['path']}"
    monkeypatch.setenv("REDIS_URL", url)
    with Rush(network) as rush:
        assert url == rush.url
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("RUSHLIGHT_URL", url)
    with Rush(network) as rush:
        assert url == rush.url
    monkeypatch.setenv("RUSHLIGHT_URL", "redis://127.0.0.1:1/0")
    with Rush(network, url) as rush:
        assert url == rush.url


def test_closing_twice_is_closing(network: str) -> None:
    """``close`` is idempotent, inside and after a ``with``."""
    with Rush(network) as rush:
        rush.close()
    rush.close()


# --- creating tasks -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 10])
def test_tasks_pushed_before_any_worker_wait(rush: Rush, n: int) -> None:
    """Queued tasks need nobody: counts, keys, states and tables of a network without workers."""
    keys = rush.push_tasks([{"x1": i, "x2": 2 * i} for i in range(n)])
    assert n == len(set(keys))
    assert (n, 0, 0, 0) == counts(rush)
    assert (n, n, 0, 0, 0) == (
        *(rush.n_tasks, rush.n_queued_tasks, rush.n_running_tasks),
        *(rush.n_finished_tasks, rush.n_failed_tasks),
    )
    assert keys == rush.keys() == rush.keys("queued")
    assert [] == rush.keys("running") == rush.keys("finished") == rush.keys("failed")
    table = rush.fetch_queued_tasks()
    assert [(i, 2 * i) for i in range(n)] == table.select("x1", "x2").rows()
    assert n == rush.fetch_tasks().height
    for fetch in (rush.fetch_running_tasks, rush.fetch_finished_tasks, rush.fetch_failed_tasks):
        assert fetch().is_empty()


@pytest.mark.parametrize("n", [1, 10])
def test_pushed_tasks_are_done_by_workers_that_come_later(rush: Rush, n: int) -> None:
    """First the tasks, then a worker: all of them finished, with the columns of a finished task."""

    def serve(worker):
        while not worker.terminated:
            task = worker.pop_task(timeout=5)
            if task is not None:
                worker.finish_task(task.key, {"y": task.xs["x1"] + task.xs["x2"]})

    keys = rush.push_tasks([{"x1": i, "x2": 2} for i in range(n)])
    rush.start_workers(serve)
    assert keys == rush.wait_for_tasks(keys, timeout=60).done
    assert (0, 0, n, 0) == counts(rush)
    table = rush.fetch_finished_tasks()
    assert ["key", "x1", "x2", "y", "worker_id"] == table.columns[:5]
    assert keys == table["key"].to_list() == rush.keys("finished")
    assert [i + 2 for i in range(n)] == table["y"].to_list()
    assert [TaskState.FINISHED] * n == rush.states(keys)


def test_empty_batches_write_nothing(rush: Rush, server: redis.Redis) -> None:
    """No tasks is an answer: no keys come back, and none appear on the server."""
    assert [] == rush.push_tasks([])
    assert [] == rush.push_finished_tasks([], [])
    assert [] == rush.push_failed_tasks([])
    assert [] == rush.empty_queue()
    assert [] == rush.states([])
    assert "done" == rush.wait_for_tasks([]).reason
    assert 0 == server.dbsize()


def test_one_extra_serves_all_tasks_or_each_has_its_own(rush: Rush) -> None:
    """A dict is given to every task, a list has one for each; None is no extra."""
    rush.push_tasks([{"x": 1}, {"x": 2}], xs_extra={"stamp": 7.5})
    rush.push_tasks([{"x": 3}, {"x": 4}], xs_extra=[{"stamp": 8.0}, None])
    assert [7.5, 7.5, 8.0, None] == rush.fetch_queued_tasks()["stamp"].to_list()


def test_tasks_are_created_finished(rush: Rush) -> None:
    """A warm start: results known from before, with both kinds of extras, and no worker."""
    keys = rush.push_finished_tasks(
        [{"x": 1}, {"x": 2}],
        [{"y": 10}, {"y": 20}],
        xs_extra={"source": "archive"},
        ys_extra=[{"t": 1}, {"t": 2}],
    )
    assert (0, 0, 2, 0) == counts(rush)
    rows = rush.fetch_finished_tasks(as_="dicts")
    assert keys == [row["key"] for row in rows]
    assert [(1, 10, "archive", 1, None), (2, 20, "archive", 2, None)] == [
        (row["x"], row["y"], row["source"], row["t"], row["worker_id"]) for row in rows
    ]


def test_tasks_are_created_failed(rush: Rush) -> None:
    """One reason for all, one each, or the default."""
    rush.push_failed_tasks([{"x": 1}, {"x": 2}], "bad", xs_extra={"e": 1})
    rush.push_failed_tasks([{"x": 3}, {"x": 4}], [ValueError("worse"), {"message": "worst"}])
    rush.push_failed_tasks([{"x": 5}])
    assert (0, 0, 0, 5) == counts(rush)
    table = rush.fetch_failed_tasks()
    assert ["bad", "bad", "worse", "worst", "Task failed"] == table["condition"].to_list()
    assert [None, None, "ValueError", None, None] == table["condition_type"].to_list()
    assert [1, 1, None, None, None] == table["e"].to_list()


def test_an_empty_dict_is_a_task(rush: Rush, worker: RushWorker) -> None:
    """A task without inputs is one, and a result without values too."""
    (key,) = rush.push_tasks([{}])
    worker.finish_task(worker.pop_task().key, {})
    assert ({}, {}) == (rush.task(key).xs, rush.task(key).ys)
    assert 1 == rush.fetch_finished_tasks().height


def test_a_generator_is_a_batch(rush: Rush) -> None:
    """Any iterable of dicts will do."""
    keys = rush.push_tasks({"x": i} for i in range(3))
    assert [0, 1, 2] == [rush.task(key).xs["x"] for key in keys]


# --- emptying -------------------------------------------------------------------------------------


def test_emptying_fails_what_is_queued(rush: Rush, worker: RushWorker) -> None:
    """Queued tasks fail with a reason, running ones go on; again and again."""
    first = rush.push_tasks([{"x": 1}, {"x": 2}])
    running = worker.pop_task().key
    assert first[1:] == rush.empty_queue()
    more = rush.push_tasks([{"x": 3}, {"x": 4}])
    assert more == rush.empty_queue()
    assert (0, 1, 0, 3) == counts(rush)
    assert {"Removed from queue"} == set(rush.fetch_failed_tasks()["condition"])
    assert [TaskState.RUNNING] == rush.states([running])


# --- resetting ------------------------------------------------------------------------------------


def test_reset_stops_workers_in_full_production(rush: Rush, server: redis.Redis, wait_until: Wait) -> None:
    """Whatever the workers write meanwhile: afterwards there is nothing, and nothing comes back."""

    def produce(worker):
        while not worker.terminated:
            key = worker.push_running_task({"x": 1})
            worker.finish_task(key, {"y": 1})

    rush.start_workers(produce, 2)
    rush.wait_for_workers(2)
    pids = rush.worker_info["pid"].to_list()
    assert not rush.fetch_new_tasks(timeout=30).is_empty()
    rush.reset()
    assert ([], [], 0) == (rush.worker_ids, rush.keys(), rush.n_tasks)
    assert rush.fetch_finished_tasks().is_empty()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in pids))
    assert 0 == server.dbsize()


def test_a_reset_of_the_tasks_leaves_the_workers(rush: Rush, wait_until: Wait) -> None:
    """Old keys are unknown, the worker is still there and does what comes next."""

    def serve(worker):
        while not worker.terminated:
            task = worker.pop_task(timeout=5)
            if task is not None:
                worker.finish_task(task.key, {"y": 1})

    (worker_id,) = rush.start_workers(serve)
    keys = rush.push_tasks([{"x": 1}, {"x": 2}])
    rush.wait_for_tasks(keys, timeout=60)
    rush.reset(workers=False)
    assert [None, None] == rush.states(keys)
    assert (0, [worker_id]) == (rush.n_tasks, rush.running_worker_ids)
    assert rush.fetch_tasks().is_empty()
    new = rush.push_tasks([{"x": 3}])
    assert new == rush.wait_for_tasks(new, timeout=60).done
    assert [3] == rush.fetch_finished_tasks()["x"].to_list()


def test_a_lost_worker_brings_no_reset_task_back(rush: Rush, network: str, wait_until: Wait) -> None:
    """A task that a reset deleted is not failed later, when its worker turns out to be lost."""
    with RushWorker(network, heartbeat=False, lease=0.3) as worker:
        worker.push_running_task({"x": 1})
        rush.reset(workers=False)
        wait_until(lambda: rush.lost_worker_ids == [worker.worker_id])
        assert (0, 0, 0, 0) == counts(rush)
        assert rush.fetch_tasks().is_empty()


def test_every_reader_notices_a_reset(rush: Rush, network: str, worker: RushWorker) -> None:
    """Objects that had read the old tasks begin anew, whoever did the reset."""
    worker.finish_task(worker.push_running_task({"x": 1}), {"y": 1})
    with Rush(network) as other:
        assert 1 == rush.fetch_new_tasks().height == other.fetch_new_tasks().height
        other.reset(workers=False)
        worker.finish_tasks(worker.push_running_tasks([{"x": 2}, {"x": 3}]), [{"y": 2}, {"y": 3}])
        for reader in (rush, other, worker):
            assert [2, 3] == reader.fetch_new_tasks()["y"].to_list()
            assert [2, 3] == reader.fetch_finished_tasks()["y"].to_list()


def test_a_wait_learns_of_a_reset(rush: Rush, network: str) -> None:
    """Tasks that are waited for and reset by somebody else: an error, not a wait for ever."""
    keys = rush.push_tasks([{"x": 1}])
    raised: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(RushlightError) as caught:
            rush.wait_for_tasks(keys, timeout=60)
        raised.append(caught.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    with Rush(network) as other:
        other.reset()
    waiting.join(30)
    assert isinstance(raised[0], (DataMissing, UnknownKey))


def test_an_empty_network_can_be_reset(rush: Rush, server: redis.Redis) -> None:
    """Nothing to delete is fine, twice."""
    rush.reset()
    rush.reset(workers=False)
    assert 0 == server.dbsize()


# --- travelling -----------------------------------------------------------------------------------


def test_a_manager_travels_and_connects_again(rush: Rush, network: str) -> None:
    """Pickled and read back it works like new, and its reader begins at the beginning."""
    rush.push_finished_tasks([{"x": 1}], [{"y": 1}])
    rush.fetch_new_tasks()
    with pickle.loads(pickle.dumps(rush)) as again:
        assert network == again.network
        assert [1] == again.fetch_new_tasks()["y"].to_list()
        again.push_tasks([{"x": 2}])
    assert 1 == rush.n_queued_tasks


def _in_a_fork(rush: Rush, answers: multiprocessing.SimpleQueue[object]) -> None:
    answers.put((rush.n_queued_tasks, rush.push_tasks([{"x": os.getpid()}])))


def test_a_manager_works_in_forks_and_their_parent(rush: Rush) -> None:
    """Forked copies and the original use the same object at once, each on a connection of its own."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    rush.push_tasks([{"x": 0}])
    forks = [context.Process(target=_in_a_fork, args=(rush, answers)) for _ in range(4)]
    for fork in forks:
        fork.start()
    mine = [rush.push_tasks([{"x": i}])[0] for i in range(20)]
    theirs = [answers.get()[1][0] for _ in forks]
    for fork in forks:
        fork.join(30)
        assert 0 == fork.exitcode
    assert 25 == rush.n_queued_tasks
    assert set(mine) | set(theirs) < set(rush.keys())


def test_threads_share_a_manager(rush: Rush) -> None:
    """Many threads push and read through one object."""
    errors: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for i in range(25):
                (key,) = rush.push_finished_tasks([{"x": i}], [{"y": name}])
                assert [TaskState.FINISHED] == rush.states([key])
                assert key in rush.fetch_finished_tasks()["key"].to_list()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [] == errors
    table = rush.fetch_finished_tasks()
    assert {(name, 25) for name in range(4)} == set(table["y"].value_counts().rows())
    assert 100 == table["key"].n_unique()


def test_server_figures_are_a_dict(rush: Rush) -> None:
    """What the server tells of itself."""
    info = rush.server_info()
    assert isinstance(info, dict)
    assert "used_memory" in info


@pytest.mark.parametrize("name", ["", "two words", "a{b}", 7, "x" * 200, "new\nline"])
def test_a_name_that_cannot_be_is_refused(home: object, name: object) -> None:
    """Network names are short text without spaces and braces; the error says which name it was."""
    with pytest.raises(ConfigError, match="network"):
        Rush(name)


def test_a_snapshot_can_be_asked_for(rush: Rush, wait_until: Wait) -> None:
    """The server writes all it holds to its disk."""
    rush.push_tasks([{"x": 1}])
    before = rush.server_info()["rdb_saves"]
    rush.save_snapshot()
    wait_until(lambda: rush.server_info()["rdb_saves"] == before + 1)
    assert "ok" == rush.server_info()["rdb_last_bgsave_status"]


def test_the_schedule_of_snapshots_can_be_set(rush: Rush) -> None:
    """Read back as it was set; None is never; what is no schedule is refused and changes nothing."""
    before = rush.snapshot_schedule
    try:
        rush.snapshot_schedule = [(3600, 7), (60, 10_000)]
        assert [(3600, 7), (60, 10_000)] == sorted(rush.snapshot_schedule, reverse=True)
        with pytest.raises(ConfigError, match="snapshot_schedule"):
            rush.snapshot_schedule = [(0, 1)]
        assert 2 == len(rush.snapshot_schedule)
        rush.snapshot_schedule = None
        assert [] == rush.snapshot_schedule
    finally:
        rush.snapshot_schedule = before
