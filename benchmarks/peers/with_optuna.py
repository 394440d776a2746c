"""Optuna's storages: ask, two floats suggested at random, tell."""

import multiprocessing
import os
import tempfile
import time

import optuna
from optuna.samplers import RandomSampler

PACKAGES = ("optuna", "redis", "SQLAlchemy")
optuna.logging.set_verbosity(optuna.logging.ERROR)


def storage_of(kind, folder):
    from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalRedisBackend

    if kind == "redis":
        return JournalStorage(JournalRedisBackend(os.environ["PEERS_URL"]))
    if kind == "file":
        return JournalStorage(JournalFileBackend(os.path.join(folder, "journal.log")))
    if kind == "rdb":
        return RDBStorage(f"sqlite:///{folder}/study.db")
    return InMemoryStorage()


def work_off(study, n):
    for _ in range(n):
        trial = study.ask()
        x1, x2 = trial.suggest_float("x1", -5, 10), trial.suggest_float("x2", 0, 15)
        study.tell(trial, x1 + x2)


def second(kind, folder, name, n):
    storage = storage_of(kind, folder)
    work_off(optuna.load_study(study_name=name, storage=storage, sampler=RandomSampler()), n)


class Store:
    kind = "memory"
    settings = "InMemoryStorage, RandomSampler, ask + 2 suggest_float + tell"

    def start(self, workers):
        self.workers = workers
        self.folder = tempfile.TemporaryDirectory()
        self.storage = storage_of(self.kind, self.folder.name)
        self.study = optuna.create_study(storage=self.storage, sampler=RandomSampler())

    def trials(self, n):
        work_off(self.study, n)

    def stop(self):
        self.folder.cleanup()


class Shared(Store):
    def together(self, n):
        # Processes that have imported everything, so that only their trials are timed.
        context = multiprocessing.get_context("fork")
        name = self.study.study_name
        told = (self.kind, self.folder.name, name, n)
        crew = [context.Process(target=second, args=told) for _ in range(self.workers)]
        start = time.perf_counter()
        for process in crew:
            process.start()
        for process in crew:
            process.join()
        return n * self.workers, time.perf_counter() - start

    def load(self, n):
        study = optuna.create_study(storage=self.storage)
        range_of = optuna.distributions.FloatDistribution
        given = {
            "params": {"x1": 0.1, "x2": 0.2},
            "distributions": {"x1": range_of(-5, 10), "x2": range_of(0, 15)},
        }
        study.add_trials([optuna.trial.create_trial(**given, value=0.3) for _ in range(n)])
        start = time.perf_counter()
        fresh = storage_of(self.kind, self.folder.name)
        found = len(optuna.load_study(study_name=study.study_name, storage=fresh).trials)
        return found, time.perf_counter() - start


class Redis(Shared):
    kind = "redis"
    settings = "JournalStorage(JournalRedisBackend), RandomSampler, ask + 2 suggest_float + tell"


class File(Shared):
    kind = "file"
    settings = "JournalStorage(JournalFileBackend) on local disk, RandomSampler, ask + 2 suggest_float + tell"


class Rdb(Shared):
    kind = "rdb"
    settings = "RDBStorage(sqlite) on local disk, RandomSampler, ask + 2 suggest_float + tell"


VARIANTS = {"in memory": Store, "journal, Redis": Redis, "journal, file": File, "RDB, sqlite": Rdb}
