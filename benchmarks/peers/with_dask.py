"""Dask distributed on one machine."""

from distributed import Client, LocalCluster
from work import TASKS

PACKAGES = ("distributed", "dask")


class Local:
    settings = "LocalCluster(2 processes of 1 thread), map(pure=False) and gather"

    def start(self, workers):
        self.cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        )
        self.client = Client(self.cluster)

    def many(self, task, n):
        return self.client.gather(self.client.map(TASKS[task], range(n), pure=False))

    def one(self, task, x):
        return self.client.submit(TASKS[task], x, pure=False).result()

    def stop(self):
        self.client.close()
        self.cluster.close()


VARIANTS = {"LocalCluster": Local}
