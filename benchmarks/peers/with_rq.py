"""RQ: enqueue_many in one pipeline; results by the blocking read of each job's stream."""

import os

from measure import Processes
from redis import Redis
from rq import Queue
from work import TASKS

PACKAGES = ("rq", "redis")
URL = os.environ["PEERS_URL"]


class Forking:
    settings = "2 x `rq worker`, a fork per job (its default), enqueue_many, latest_result(timeout)"
    kind = "rq.worker.Worker"

    def start(self, workers):
        self.processes = Processes()
        for _ in range(workers):
            self.processes.run("rq", "worker", "-u", URL, "-w", self.kind, "--logging_level", "ERROR")
        self.queue = Queue(connection=Redis.from_url(URL))

    def many(self, task, n):
        function = TASKS[task]
        jobs = self.queue.enqueue_many([Queue.prepare_data(function, args=(i,)) for i in range(n)])
        return [job.latest_result(timeout=60).return_value for job in jobs]

    def one(self, task, x):
        return self.queue.enqueue(TASKS[task], x).latest_result(timeout=60).return_value

    def stop(self):
        self.processes.end()


class Simple(Forking):
    settings = "2 x `rq worker -w SimpleWorker`, no fork, enqueue_many, latest_result(timeout)"
    kind = "rq.worker.SimpleWorker"


VARIANTS = {"fork per job": Forking, "SimpleWorker": Simple}
