"""Parsl's high-throughput executor on one machine."""

import tempfile

import parsl
import work
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

PACKAGES = ("parsl",)


class Local:
    settings = "HighThroughputExecutor, 2 workers by LocalProvider, loopback, python_app and result"

    def start(self, workers):
        self.folder = tempfile.TemporaryDirectory()
        executor = HighThroughputExecutor(
            label="htex",
            address="127.0.0.1",
            max_workers_per_node=workers,
            encrypted=False,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        parsl.load(Config(executors=[executor], run_dir=self.folder.name, strategy="none", usage_tracking=0))
        self.tasks = {name: parsl.python_app(function) for name, function in work.TASKS.items()}

    def many(self, task, n):
        return [future.result() for future in [self.tasks[task](i) for i in range(n)]]

    def one(self, task, x):
        return self.tasks[task](x).result()

    def stop(self):
        parsl.dfk().cleanup()
        parsl.clear()
        self.folder.cleanup()


VARIANTS = {"HTEX": Local}
