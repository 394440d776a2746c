"""Random search on the Branin function: the smallest asynchronous search there is.

    rushlight run examples/random_search.py:random_search --network branin --workers 4 --minimize y

Nobody hands out work: every worker process makes its own points, evaluates them and stores the
results, until all of them together have done ``n``.
"""

import math
import random
import time


def branin(x1, x2):
    """Three equal minima of 0.397887, one of them at (pi, 2.275)."""
    valley = x2 - 5.1 / (4 * math.pi**2) * x1**2 + 5 / math.pi * x1 - 6
    return {"y": valley**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x1) + 10}


def random_search(worker, n=400, cost=0.05):
    """Evaluate random points until the network holds ``n`` results (what is under way then is finished, too).

    ``cost`` is the time in seconds that an evaluation pretends to take.
    """
    while not worker.terminated and worker.n_finished_tasks < n:
        xs = {"x1": random.uniform(-5, 10), "x2": random.uniform(0, 15)}
        with worker.task(xs) as task:
            time.sleep(cost)
            task.finish(branin(**xs))
