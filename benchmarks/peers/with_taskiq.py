"""taskiq on Redis streams with its result backend."""

import asyncio
import os

import taskiq
import work
from measure import Processes
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

PACKAGES = ("taskiq", "taskiq-redis", "redis")
url = os.environ["PEERS_URL"]
broker = RedisStreamBroker(url).with_result_backend(RedisAsyncResultBackend(url, result_ex_time=600))


@broker.task(task_name="noop")
async def noop(x: int) -> int:
    return work.noop(x)


@broker.task(task_name="spin")
async def spin(x: int) -> int:
    return work.spin(x)


TASKS = {"noop": noop, "spin": spin}


class Shipped:
    settings = "`taskiq worker -w 2`, stream broker, wait_result polls every 0.2 s, as shipped"
    interval, periodicity = 0.2, 0.1

    def start(self, workers):
        self.processes = Processes()
        quiet = ("--log-level", "ERROR")
        self.processes.run("taskiq", "worker", "with_taskiq:broker", "-w", str(workers), *quiet)
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(broker.startup())

    async def _many(self, task, n):
        sent = []
        for at in range(0, n, 100):
            sent += await asyncio.gather(*(TASKS[task].kiq(i) for i in range(at, min(n, at + 100))))
        results = await taskiq.gather(*sent, timeout=120, periodicity=self.periodicity)
        return [result.return_value for result in results]

    def many(self, task, n):
        return self.loop.run_until_complete(self._many(task, n))

    def one(self, task, x):
        async def single():
            sent = await TASKS[task].kiq(x)
            return (await sent.wait_result(check_interval=self.interval, timeout=60)).return_value

        return self.loop.run_until_complete(single())

    def stop(self):
        self.loop.run_until_complete(broker.shutdown())
        self.processes.end()


class Polling(Shipped):
    settings = "the same, results polled for every ms"
    interval = periodicity = 0.001


VARIANTS = {"as shipped": Shipped, "polls every ms": Polling}
