"""arq: asyncio workers that poll."""

import asyncio
import os

import work
from arq import create_pool, func
from arq.connections import RedisSettings
from measure import Processes

PACKAGES = ("arq", "redis")


async def noop(_ctx, x):
    return work.noop(x)


async def spin(_ctx, x):
    return work.spin(x)


class WorkerSettings:
    functions = (func(noop, name="noop"), func(spin, name="spin"))
    redis_settings = RedisSettings.from_dsn(os.environ["PEERS_URL"])
    poll_delay = float(os.environ.get("PEERS_POLL", "0.5"))


class Shipped:
    settings = "2 x `arq`, 10 jobs at a time each, poll_delay 0.5 s in workers and results, as shipped"
    poll = 0.5

    def start(self, workers):
        self.processes = Processes()
        for _ in range(workers):
            self.processes.run("arq", "with_arq.WorkerSettings", PEERS_POLL=str(self.poll))
        self.loop = asyncio.new_event_loop()
        self.pool = self.loop.run_until_complete(create_pool(RedisSettings.from_dsn(os.environ["PEERS_URL"])))

    async def _many(self, task, n):
        jobs = await asyncio.gather(*(self.pool.enqueue_job(task, i) for i in range(n)))
        return [await job.result(timeout=120, poll_delay=self.poll) for job in jobs]

    def many(self, task, n):
        # As many connections at a time as the pool likes: in groups, since it opens one per waiting call.
        found = []
        for at in range(0, n, 500):
            some = min(500, n - at)
            found += [at + x for x in self.loop.run_until_complete(self._many(task, some))]
        return found

    def one(self, task, x):
        async def single():
            job = await self.pool.enqueue_job(task, x)
            return await job.result(timeout=60, poll_delay=self.poll)

        return self.loop.run_until_complete(single())

    def stop(self):
        self.loop.run_until_complete(self.pool.aclose())
        self.processes.end()


class Polling(Shipped):
    settings = "the same with poll_delay 1 ms in workers and results"
    poll = 0.001


VARIANTS = {"as shipped": Shipped, "polls every ms": Polling}
