"""ProcessPoolExecutor: pipes between one parent and its children, nothing shared or kept."""

from concurrent.futures import ProcessPoolExecutor

from work import TASKS

PACKAGES = ()


class OneByOne:
    settings = "ProcessPoolExecutor(2), submit and result"

    def start(self, workers):
        self.pool = ProcessPoolExecutor(workers)

    def many(self, task, n):
        return [future.result() for future in [self.pool.submit(TASKS[task], i) for i in range(n)]]

    def one(self, task, x):
        return self.pool.submit(TASKS[task], x).result()

    def stop(self):
        self.pool.shutdown()


class Chunks(OneByOne):
    settings = "ProcessPoolExecutor(2).map(chunksize=64)"

    def many(self, task, n):
        return list(self.pool.map(TASKS[task], range(n), chunksize=64))


VARIANTS = {"submit": OneByOne, "map, chunks of 64": Chunks}
