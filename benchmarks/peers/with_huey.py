"""Huey on Redis, process workers."""

import os

import work
from huey import RedisHuey
from measure import Processes

PACKAGES = ("huey", "redis")


def instance(how):
    """A queue, and its tasks by name; ``how`` their results are waited for."""
    queue = RedisHuey("peers", url=os.environ["PEERS_URL"], notify_result=how == "notified")
    return queue, {name: queue.task(name=name)(function) for name, function in work.TASKS.items()}


#: The consumer's own.
huey, _ = instance(os.environ.get("PEERS_HUEY", "polled"))


class Shipped:
    settings = "`huey_consumer -w 2 -k process`, blocking queue, Result.get(blocking=True) as shipped"
    how = "polled"

    def start(self, workers):
        _, self.tasks = instance(self.how)
        self.processes = Processes()
        program = ("huey_consumer", "with_huey.huey", "-w", str(workers), "-k", "process", "-q")
        self.processes.run(*program, PEERS_HUEY=self.how)

    def many(self, task, n):
        results = [self.tasks[task](i) for i in range(n)]
        return [result.get(blocking=True, timeout=120) for result in results]

    def one(self, task, x):
        return self.tasks[task](x).get(blocking=True, timeout=60)

    def stop(self):
        self.processes.end()


class Notified(Shipped):
    settings = "the same with notify_result=True: a result wakes who waits for it"
    how = "notified"


VARIANTS = {"as shipped": Shipped, "notify_result": Notified}
