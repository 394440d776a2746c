"""The seeds of a network's tasks: the same whoever runs them, in whatever order."""

# ruff: noqa: NPY002 - NumPy's old global state is among what is tested

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.random import SeedSequence

from rushlight import Rush, RushWorker, worker_loop
from rushlight.errors import ConfigError, UnknownKey


def draw(x: int) -> dict[str, Any]:
    """Numbers from both global generators."""
    return {"a": random.random(), "b": float(np.random.rand())}


@contextmanager
def running(rush: Rush, n: int, **options: Any) -> Iterator[None]:
    """Workers that draw, for a block."""
    ids = rush.start_workers(worker_loop(draw), n, **options)
    rush.wait_for_workers(worker_ids=ids)
    try:
        yield
    finally:
        rush.stop_workers("kill", ids)


def drawn(rush: Rush, keys: list[str]) -> list[tuple[float, float]]:
    """What the tasks have drawn, once they are done."""
    assert "done" == rush.wait_for_tasks(keys, timeout=30).reason
    results = [rush.task(key).ys or {} for key in keys]
    return [(ys["a"], ys["b"]) for ys in results]


def expected(root: Any, n: int) -> list[tuple[float, float]]:
    """The numbers of the first n tasks under this root, made with nothing but NumPy."""
    root = root if isinstance(root, SeedSequence) else SeedSequence(root)
    pairs = []
    for i in range(n):
        child = SeedSequence(root.entropy, spawn_key=(*root.spawn_key, i))
        words = child.generate_state(16)
        number = random.Random(int.from_bytes(words[:8].astype("<u4").tobytes(), "little")).random()
        pairs.append((number, np.random.RandomState(words[8:]).rand()))
    return pairs


@pytest.mark.slow
def test_neither_the_number_of_workers_nor_the_order_matters(rush: Rush) -> None:
    """With a root seed task i draws the same numbers on one worker or three, also what is pushed later, and
    also backwards."""
    with running(rush, 1, seed=42):
        first = drawn(rush, rush.push_tasks([{"x": i} for i in range(6)]))
        assert expected(42, 8) == first + drawn(rush, rush.push_tasks([{"x": 6}, {"x": 7}]))
    rush.reset()
    keys = rush.push_tasks([{"x": i} for i in range(8)], priority=list(range(8)))
    with running(rush, 3, seed=42):
        assert expected(42, 8) == drawn(rush, keys)


def test_the_root_can_be_a_sequence(rush: Rush, worker: RushWorker) -> None:
    """A network can be one branch of a larger study."""
    root = SeedSequence(7).spawn(3)[2]
    with running(rush, 1, seed=root):
        pass
    rush.push_tasks([{"x": 1}, {"x": 2}])
    for i, child in enumerate(root.spawn(2)):
        task = worker.pop_task()
        assert task is not None
        assert i + 1 == task.seq
        assert child.generate_state(4).tolist() == worker.seed_sequence(task).generate_state(4).tolist()


def test_a_network_without_a_seed_has_one(rush: Rush, worker: RushWorker) -> None:
    """It is the network's own: the same for all that ask, different for each task, and new after a reset."""
    first, second = worker.push_running_tasks([{"x": 1}, {"x": 2}])
    seeds = [worker.seed_sequence(first), worker.seed_sequence(second), rush.seed_sequence(first)]
    assert seeds[0].entropy == seeds[1].entropy == seeds[2].entropy
    assert [(0,), (1,), (0,)] == [seed.spawn_key for seed in seeds]
    rush.reset(workers=False)
    key = worker.push_running_task({"x": 1})
    assert worker.seed_sequence(key).entropy != seeds[0].entropy
    assert worker.seed_sequence(key).entropy == rush.seed_sequence(key).entropy


def test_a_given_root_outlives_a_reset_of_tasks(rush: Rush, worker: RushWorker) -> None:
    """After ``reset(workers=False)`` the numbering begins anew, and so do the seeds."""
    with running(rush, 1, seed=5):
        pass
    before = worker.seed_sequence(worker.push_running_task({"x": 1}))
    rush.reset(workers=False)
    after = worker.seed_sequence(worker.push_running_task({"x": 1}))
    assert (5, (0,)) == (before.entropy, before.spawn_key) == (after.entropy, after.spawn_key)


def test_the_first_root_stays(rush: Rush) -> None:
    """The same seed may be given again; another is refused by name, and starts nothing."""
    with running(rush, 1, seed=3), running(rush, 1, seed=3), running(rush, 1):
        pass
    known = rush.worker_ids
    with pytest.raises(ConfigError, match=r"has the root seed 3, not 4"):
        rush.start_workers(worker_loop(draw), 1, seed=4)
    assert known == rush.worker_ids


def test_a_root_comes_too_late_once_tasks_have_had_seeds(rush: Rush, worker: RushWorker) -> None:
    """Seeds that were handed out are not changed behind anybody's back."""
    worker.seed_sequence(worker.push_running_task({"x": 1}))
    with pytest.raises(ConfigError, match="root seed 4"):
        rush.start_workers(worker_loop(draw), 1, seed=4)


@pytest.mark.parametrize("seed", [-1, "a", 1.5, [1, 2]])
def test_what_is_no_seed_starts_nothing(rush: Rush, seed: Any, server: Any) -> None:
    """Refused before anything is written."""
    with pytest.raises(ConfigError, match="seed="):
        rush.start_workers(worker_loop(draw), 1, seed=seed)
    assert [] == [key for key in server.scan_iter(count=1000) if rush.network.encode() in key]


def test_tasks_can_bring_their_own_seeds(rush: Rush, worker: RushWorker) -> None:
    """An explicit seed is in force as it is, of any size; it is shown by the task, everywhere it is read."""
    child = SeedSequence(9).spawn(2)[1]
    keys = rush.push_tasks([{"x": i} for i in range(4)], seeds=[None, 5, 2**90, child])
    tasks = worker.pop_tasks(4)
    assert [None, 5, 2**90] == [task.seed for task in tasks[:3]]
    assert (9, (1,)) == (tasks[3].seed.entropy, tasks[3].seed.spawn_key)
    sequences = [worker.seed_sequence(task) for task in tasks]
    assert [5, 2**90, 9] == [sequence.entropy for sequence in sequences[1:]]
    assert [(0,), (), (), (1,)] == [sequence.spawn_key for sequence in sequences]
    worker.finish_tasks(keys, [{}] * 4)
    assert [None, 5, 2**90] == [task.seed for task in rush.fetch_finished_tasks(as_="tasks")][:3]


def test_a_retry_can_have_the_next_seed(rush: Rush, worker: RushWorker) -> None:
    """A retry has the seed of the first attempt, unless it is to have the next one."""
    (key,) = rush.push_tasks([{"x": 1}], max_retries=5)
    seen = []
    for next_seed in (False, True, True, None):
        task = worker.pop_task()
        assert task is not None
        seen.append((task.attempt, task.reseeded, worker.seed_sequence(task).spawn_key))
        if next_seed is not None:
            rush.cancel_tasks([key])
            assert [key] == rush.retry_tasks([key], next_seed=next_seed)
    assert [(1, 0, (0,)), (2, 0, (0,)), (3, 1, (0, 1)), (4, 2, (0, 2))] == seen


def test_any_task_can_be_run_again_with_its_numbers(rush: Rush, worker: RushWorker) -> None:
    """``rush.seeded`` puts a finished task's seed in force, for a look at what it did."""
    rush.push_tasks([{"x": 1}])
    task = worker.pop_task()
    assert task is not None
    state = random.getstate()
    with worker.seeded(task):
        ys = draw(**task.xs)
    assert state == random.getstate()
    worker.finish_task(task.key, ys)
    with rush.seeded(rush.fetch_finished_tasks(as_="tasks")[0]):
        assert ys == draw(**task.xs)
    with rush.seeded(task.key):
        assert ys == draw(**task.xs)


def test_a_popped_task_costs_no_round_trip(rush: Rush, worker: RushWorker) -> None:
    """Once the root is known: the number of the task is in its record."""
    rush.push_tasks([{"x": i} for i in range(3)])
    tasks = worker.pop_tasks(3)
    worker.seed_sequence(tasks[0])
    trips = worker._store.link.trips
    for task in tasks:
        worker.seed_sequence(task)
    assert trips == worker._store.link.trips


def test_a_task_that_is_not_there_has_no_seed(worker: RushWorker) -> None:
    """An unknown key is an error, as everywhere."""
    with pytest.raises(UnknownKey, match="nowhere"):
        worker.seed_sequence("nowhere")
