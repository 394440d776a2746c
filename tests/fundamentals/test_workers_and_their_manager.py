"""What a manager does: it starts workers, waits for them, reads what they did, and stops them."""

from __future__ import annotations

import pickle

from rushlight import Rush, WorkerState


def test_workers_run_a_loop(rush: Rush) -> None:
    """A loop is a function of a worker; the manager starts it in as many processes as asked for."""

    def squares(worker, upto):
        for x in range(upto):
            with worker.task({"x": x}) as task:
                task.finish({"y": x**2})

    ids = rush.start_workers(squares, 2, kwargs={"upto": 3})
    rush.wait_for_workers(worker_ids=ids)
    while len(rush.terminated_worker_ids) < 2:
        rush.fetch_new_tasks(timeout=1)
    table = rush.fetch_finished_tasks()
    assert sorted([0, 1, 4] * 2) == sorted(table["y"])
    assert set(ids) == set(table["worker_id"])


def test_workers_take_tasks_from_the_queue(rush: Rush) -> None:
    """Queued tasks wait for whoever is free; the manager waits for their ends, not for the workers'."""

    def serve(worker):
        while not worker.terminated:
            task = worker.pop_task()
            if task is not None:
                worker.finish_task(task.key, {"y": task.xs["x"] + 1})

    keys = rush.push_tasks([{"x": x} for x in range(10)])
    rush.start_workers(serve, 2)
    result = rush.wait_for_tasks(keys, timeout=60)
    assert ("done", keys) == (result.reason, result.done)
    assert set(range(1, 11)) == set(rush.fetch_finished_tasks()["y"])


def test_a_failing_loop_is_a_visible_failure(rush: Rush) -> None:
    """An error that leaves the loop ends its worker; the task at hand fails with the error's own words."""

    def fragile(worker):
        task = worker.pop_task(timeout=30)
        raise ArithmeticError(f"cannot do {task.xs['x']}")

    (key,) = rush.push_tasks([{"x": 13}])
    (worker_id,) = rush.start_workers(fragile)
    assert [key] == rush.wait_for_tasks([key], timeout=60).failed
    assert "cannot do 13" == rush.task(key).condition["message"]
    (info,) = rush.fetch_workers(as_="tasks")
    assert (worker_id, WorkerState.LOST, 1) == (info.worker_id, info.state, info.exit_code)
    assert "ArithmeticError: cannot do 13" in info.reason


def test_asked_to_leave_a_worker_finishes_first(rush: Rush) -> None:
    """``terminate`` is a wish: a loop sees it in ``worker.terminated`` when it comes round."""

    def patient(worker):
        with worker.task({"x": 1}) as task:
            while not worker.terminated:
                worker.pop_task(timeout=0.1)
            task.finish({"y": "done properly"})

    (worker_id,) = rush.start_workers(patient)
    rush.wait_for_workers(1)
    rush.stop_workers("terminate")
    assert ["done properly"] == rush.fetch_new_tasks(timeout=30)["y"].to_list()
    rush.wait_for_tasks(rush.keys())
    assert 0 == rush.n_failed_tasks
    while worker_id not in rush.terminated_worker_ids:
        rush.fetch_new_tasks(timeout=1)


def test_killed_workers_are_gone_and_their_tasks_failed(rush: Rush) -> None:
    """``kill`` is an order: the processes are gone when the call returns, the tasks say what happened."""

    def stubborn(worker):
        worker.push_running_task({"x": 1})
        while True:
            worker.pop_task(timeout=5)

    ids = rush.start_workers(stubborn, 2)
    rush.wait_for_workers(2)
    while rush.n_running_tasks < 2:
        rush.fetch_new_tasks(timeout=0.1)
    assert set(ids) == set(rush.stop_workers("kill"))
    assert {"Worker was killed"} == set(rush.fetch_failed_tasks()["condition"])
    assert set(ids) == set(rush.killed_worker_ids)


def test_a_manager_can_be_replaced_by_another(network: str) -> None:
    """The network is on the server: a manager that has gone, or was pickled, is no loss."""
    with Rush(network) as first:
        keys = first.push_tasks([{"x": 1}, {"x": 2}])
        luggage = pickle.dumps(first)
    with Rush(network) as second:
        assert keys == second.keys("queued")
    again = pickle.loads(luggage)
    assert (network, 2) == (again.network, again.n_queued_tasks)
    again.close()


def test_reset_leaves_an_empty_network(rush: Rush) -> None:
    """After ``reset`` there are no tasks, no workers, and no keys on the server."""
    rush.start_workers(lambda worker: worker.pop_task(timeout=60))
    rush.wait_for_workers(1)
    rush.push_finished_tasks([{"x": 1}], [{"y": 1}])
    rush.reset()
    assert (0, 0, []) == (rush.n_tasks, rush.n_workers, rush.fetch_tasks(as_="dicts"))
