"""Ray on one machine."""

import os

import ray
import work

PACKAGES = ("ray",)


class Remote:
    settings = "ray.init(num_cpus=2), remote functions, ray.get of all"

    def start(self, workers):
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        self.tasks = {name: ray.remote(function) for name, function in work.TASKS.items()}

    def many(self, task, n):
        return ray.get([self.tasks[task].remote(i) for i in range(n)])

    def one(self, task, x):
        return ray.get(self.tasks[task].remote(x))

    def stop(self):
        ray.shutdown()


class Doer:
    def noop(self, x):
        return work.noop(x)

    def spin(self, x):
        return work.spin(x)


class Actors(Remote):
    settings = "ray.init(num_cpus=2), two actors in turns, ray.get of all"

    def start(self, workers):
        super().start(workers)
        kind = ray.remote(Doer)
        self.actors = [kind.remote() for _ in range(workers)]

    def many(self, task, n):
        calls = [getattr(actor, task).remote for actor in self.actors]
        return ray.get([calls[i % len(calls)](i) for i in range(n)])

    def one(self, task, x):
        return ray.get(getattr(self.actors[0], task).remote(x))


VARIANTS = {"tasks": Remote, "actors": Actors}
