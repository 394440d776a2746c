"""streaQ on Redis streams."""

import asyncio
import os

import work
from measure import Processes
from streaq import Worker

PACKAGES = ("streaq", "coredis")
worker = Worker(redis_url=os.environ["PEERS_URL"])


@worker.task(name="noop")
async def noop(x: int) -> int:
    return work.noop(x)


@worker.task(name="spin")
async def spin(x: int) -> int:
    return work.spin(x)


TASKS = {"noop": noop, "spin": spin}


class Shipped:
    settings = (
        "`streaq run -w 2`, 16 tasks at a time each, enqueue_many; batches by MGET, singles by result()"
    )

    def start(self, workers):
        self.processes = Processes()
        self.processes.run("streaq", "run", "with_streaq:worker", "-w", str(workers))
        self.loop = asyncio.new_event_loop()
        self.inside = worker.__aenter__()
        self.loop.run_until_complete(self.inside)

    async def _many(self, task, n):
        tasks = [TASKS[task].enqueue(i) for i in range(n)]
        await worker.enqueue_many(tasks)
        names = [worker.results_key + one.id for one in tasks]
        found = {}
        while len(found) < n:
            missing = [name for name in names if name not in found][:1000]
            for name, raw in zip(missing, await worker.redis.mget(missing), strict=True):
                if raw is not None:
                    found[name] = (await worker.deserialize(raw))["r"]
            await asyncio.sleep(0.001)
        return list(found.values())

    def many(self, task, n):
        return self.loop.run_until_complete(self._many(task, n))

    def one(self, task, x):
        async def single():
            sent = await TASKS[task].enqueue(x)
            return (await sent.result(60)).result

        return self.loop.run_until_complete(single())

    def stop(self):
        self.processes.end()


VARIANTS = {"as shipped": Shipped}
