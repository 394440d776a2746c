"""Celery on Redis, prefork, set up for short tasks as its guide to optimizing says."""

import os

import work
from celery import Celery, group
from measure import Processes

PACKAGES = ("celery", "kombu", "redis")
url = os.environ["PEERS_URL"]
app = Celery("with_celery", broker=url, backend=url)
app.conf.update(worker_prefetch_multiplier=128, worker_disable_rate_limits=True, result_expires=600)
TASKS = {name: app.task(function, name=name) for name, function in work.TASKS.items()}


class Prefork:
    settings = "`celery worker -c 2` (prefork), prefetch 128, no gossip, mingle, heartbeat; one group, joined"

    def start(self, workers):
        self.processes = Processes()
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR")
        self.processes.run("celery", "-A", "with_celery", "worker", "-c", str(workers), *quiet)

    def many(self, task, n):
        return group(TASKS[task].s(i) for i in range(n))().get(timeout=120)

    def one(self, task, x):
        return TASKS[task].delay(x).get(timeout=60)

    def stop(self):
        self.processes.end()


VARIANTS = {"prefork": Prefork}
