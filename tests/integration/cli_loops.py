"""Worker loops that the tests of the command line run: good, bad, endless."""

from __future__ import annotations

import logging
import os
import threading


def count_up(worker, n=5):
    """Finish n tasks with results y = 0 ... n - 1."""
    for i in range(n):
        with worker.task({"i": i}) as task:
            task.finish({"y": float(i)})


def endless(worker):
    """Work until told to leave."""
    while not worker.terminated:
        with worker.task({"kind": "short"}) as task:
            threading.Event().wait(0.01)
            task.finish({"y": 1.0})


def stubborn(worker):
    """Finish one task, then never leave the next."""
    with worker.task({"kind": "short"}) as task:
        task.finish({"y": 1.0})
    with worker.task({"kind": "long"}):
        threading.Event().wait(600)


def crash(worker):
    """Say something and raise."""
    logging.getLogger("loop").warning("about to fail")
    raise RuntimeError("no luck\ntoday")


def vanish(worker):
    """Leave without a word while a task runs."""
    with worker.task({"i": 1}):
        os._exit(3)


def all_fail(worker, n=3):
    """Fail every task and go on."""
    for i in range(n):
        worker.fail_task(worker.push_running_task({"i": i}), f"bad value {i % 2}")


class Fragile:
    """Something that a worker cannot read."""

    def __reduce__(self):
        return refuse, ()


def refuse():
    """What reading a Fragile calls."""
    raise ImportError("not on this machine")


def cannot_start(worker, thing=Fragile()):  # noqa: B008 - it travels with the function
    """Never run: its default argument cannot be read."""
