"""joblib with its loky processes: one parent, nothing shared or kept."""

from joblib import Parallel, delayed
from work import TASKS

PACKAGES = ("joblib",)


class OneByOne:
    settings = "Parallel(n_jobs=2, batch_size=1), loky, one context for all"
    batch_size = 1

    def start(self, workers):
        self.parallel = Parallel(n_jobs=workers, batch_size=self.batch_size)
        self.parallel.__enter__()

    def many(self, task, n):
        return self.parallel(delayed(TASKS[task])(i) for i in range(n))

    def one(self, task, x):
        return self.parallel([delayed(TASKS[task])(x)])[0]

    def stop(self):
        self.parallel.__exit__(None, None, None)


class Auto(OneByOne):
    settings = "Parallel(n_jobs=2, batch_size='auto'), loky: thousands of no-ops in a message"
    batch_size = "auto"


VARIANTS = {"batch_size=1": OneByOne, "batch_size=auto": Auto}
