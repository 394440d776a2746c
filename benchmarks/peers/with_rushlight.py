"""Rushlight: a queue that a manager pushes to and reads from, and searches that create their tasks."""

import multiprocessing
import os
import time

import work

from rushlight import Controller, Rush, RushWorker, worker_loop

PACKAGES = ("rushlight", "redis", "hiredis")
URL = os.environ["PEERS_URL"]


def noop(x):
    return work.noop(x)


def spin(x):
    return work.spin(x)


TASKS = {"noop": noop, "spin": spin}


def perform(task, x):
    """Both tasks in one loop: its name rides in the inputs, as in a queue of several functions."""
    return TASKS[task](x)


class Queue:
    settings = (
        "start_workers(worker_loop(f, seeded=False), 2): several short tasks at once; push_tasks in one "
        "call, results from stream()"
    )

    def start(self, workers):
        self.rush = Rush(None, URL)
        self.rush.start_workers(self.loop(), workers, packages=())
        self.rush.wait_for_workers(workers)
        self.stream = self.rush.stream()

    def loop(self):
        return worker_loop(perform, seeded=False)

    def many(self, task, n):
        self.rush.push_tasks([{"task": task, "x": i} for i in range(n)])
        return [next(self.stream).ys["y"] for _ in range(n)]

    def one(self, task, x):
        self.rush.push_tasks([{"task": task, "x": x}])
        return next(self.stream).ys["y"]

    def stop(self):
        self.rush.reset()
        self.rush.close()


def one_by_one(worker):
    """A loop that takes one task at a time, and sends each result with the question for the next."""
    task = None
    while not worker.terminated:
        if task is None:
            task = worker.pop_task(timeout=1)
        else:
            task = worker.finish_and_pop(task.key, {"y": perform(**task.xs)}, timeout=1)


class OneByOne(Queue):
    settings = "the same, the loop takes one task per round trip (finish_and_pop)"

    def loop(self):
        return one_by_one


class Calls:
    settings = "Controller(min_workers=2, max_workers=2), submit and result of each"

    def start(self, workers):
        self.controller = Controller(None, URL, min_workers=workers, max_workers=workers)

    def many(self, task, n):
        return [future.result() for future in [self.controller.submit(TASKS[task], i) for i in range(n)]]

    def one(self, task, x):
        return self.controller.submit(TASKS[task], x).result()

    def stop(self):
        self.controller.shutdown()


class Map(Calls):
    settings = "the same, map(chunksize=64)"

    def many(self, task, n):
        return list(self.controller.map(TASKS[task], range(n), chunksize=64))


def search(worker, n):
    """A random search of so many tasks."""
    for i in range(n):
        key = worker.push_running_task({"x1": i * 0.1, "x2": i * 0.2})
        worker.finish_task(key, {"y": i * 0.3})


class Search:
    settings = "RushWorker: push_running_task + finish_task, a round trip each"

    def start(self, workers):
        self.workers = workers
        self.rush = Rush(None, URL)
        self.worker = RushWorker(self.rush.network, URL)

    def trials(self, n):
        search(self.worker, n)

    def together(self, n):
        # Forked from this process, which has imported everything: what the others do, too.
        crew = [
            multiprocessing.get_context("fork").Process(target=second, args=(self.rush.network, n))
            for _ in range(self.workers)
        ]
        start = time.perf_counter()
        for process in crew:
            process.start()
        for process in crew:
            process.join()
        return n * self.workers, time.perf_counter() - start

    def load(self, n):
        with Rush(None, URL) as other:
            other.push_finished_tasks([{"x1": 0.1, "x2": 0.2}] * n, [{"y": 0.3}] * n)
            other.fetch_finished_tasks()  # polars is imported, as the others have imported what they use
            with Rush(other.network, URL) as fresh:
                start = time.perf_counter()
                found = len(fresh.fetch_finished_tasks())
                spent = time.perf_counter() - start
            other.reset()
        return found, spent

    def stop(self):
        self.worker.close()
        self.rush.reset()
        self.rush.close()


def second(network, n):
    with RushWorker(network, URL) as worker:
        search(worker, n)


class Steps(Search):
    settings = "RushWorker: step, finishing one and creating the next in a round trip"

    def trials(self, n):
        key = self.worker.push_running_task({"x1": 0.0, "x2": 0.0})
        for i in range(n):
            key = self.worker.step(finish=(key, {"y": i * 0.3}), push={"x1": i * 0.1, "x2": i * 0.2})
        self.worker.finish_task(key, {"y": 0.0})

    together = load = None


class Behind(Search):
    settings = "RushWorker: push_running_task + finish_task inside write_behind()"

    def trials(self, n):
        with self.worker.write_behind():
            search(self.worker, n)

    together = load = None


VARIANTS = {
    "queue": Queue,
    "queue, one by one": OneByOne,
    "controller": Calls,
    "controller, chunks of 64": Map,
    "search": Search,
    "search, step": Steps,
    "search, write_behind": Behind,
}
