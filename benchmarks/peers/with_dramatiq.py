"""Dramatiq on Redis with its result backend."""

import os

import dramatiq
import work
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from measure import Processes

PACKAGES = ("dramatiq", "redis")
url = os.environ["PEERS_URL"]
broker = RedisBroker(url=url)
broker.add_middleware(Results(backend=RedisBackend(url=url)))
dramatiq.set_broker(broker)
TASKS = {
    name: dramatiq.actor(function, actor_name=name, store_results=True)
    for name, function in work.TASKS.items()
}


class Eight:
    settings = "`dramatiq -p 2 -t 8` (its default of 8 threads), result backend, group().get_results()"
    threads = 8

    def start(self, workers):
        self.processes = Processes()
        self.processes.run("dramatiq", "with_dramatiq", "-p", str(workers), "-t", str(self.threads))

    def many(self, task, n):
        batch = dramatiq.group([TASKS[task].message(i) for i in range(n)]).run()
        return list(batch.get_results(block=True, timeout=120_000))

    def one(self, task, x):
        return TASKS[task].send(x).get_result(block=True, timeout=60_000)

    def stop(self):
        self.processes.end()


class One(Eight):
    settings = "`dramatiq -p 2 -t 1`, result backend, group().get_results()"
    threads = 1


VARIANTS = {"2 x 8 threads": Eight, "2 x 1 thread": One}
