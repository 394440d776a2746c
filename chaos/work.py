"""The work of a run: what managers push, what workers do with it, and what each writes down of it.

Everything here is what a user's program might do, by the public interface alone. A manager is a program:
``python -m chaos.work NAME NETWORK URL SEED``.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

from chaos.ledger import Ledger, Program
from rushlight import Rush, RushWorker, worker_loop
from rushlight.errors import RushlightError

#: Names the folder of the ledgers.
FOLDER = "RUSHLIGHT_CHAOS_LEDGER"
LEASE = 3.0
#: Workers a manager keeps up.
WORKERS = 3
_MOST_QUEUED = 150


def answer(name: str) -> int:
    """The one right result of a task."""
    return zlib.crc32(name.encode())


def do(id: str, kind: str, nap: float = 0.0) -> dict[str, Any]:  # noqa: A002 - a column of the table
    """A task."""
    _ran(id)
    if kind == "hang":
        time.sleep(600)
    time.sleep(nap)
    if kind == "boom":
        raise ValueError(f"boom {id}")
    if kind == "exit":
        os._exit(7)
    return {"y": answer(id), **({"large": "v" * 100_000} if kind == "large" else {})}


_ledgers: dict[int, Ledger] = {}


def own_ledger(who: str) -> Ledger:
    """This process's; a forked one has its own."""
    if os.getpid() not in _ledgers:
        _ledgers[os.getpid()] = Ledger(os.environ[FOLDER], who)
    return _ledgers[os.getpid()]


def _ran(name: str) -> None:
    ledger = own_ledger("worker")
    ledger.write("ran", id=name)
    ledger.alive()


def serve(worker: RushWorker) -> None:
    """Takes tasks and writes down which results were taken."""
    ledger = own_ledger("worker")
    ledger.write("worker", worker_id=worker.worker_id, pid=os.getpid())
    rng = random.Random(os.getpid())
    task = None
    while task is not None or not worker.terminated:
        task = task or worker.pop_task(timeout=1.0)
        ledger.alive()
        if task is None:
            continue
        key, name, task_id = task.key, task.attempt, task.xs["id"]
        try:
            ys = do(**task.xs)
        except ValueError as error:
            worker.fail_task(key, error)
            task = None
            continue
        if worker.terminated or rng.random() < 0.5:
            task = None
            won = worker.finish_task(key, ys)
        else:
            task = worker.finish_and_pop(key, ys, timeout=0.5)
            # What became of the first it does not tell.
            won = None
        if won is not None:
            ledger.write("finished" if won else "refused", key=key, id=task_id, attempt=name)


def search(worker: RushWorker) -> None:
    """Makes its own tasks, as a decentralised search does, in all the ways there are."""
    ledger = own_ledger("worker")
    ledger.write("worker", worker_id=worker.worker_id, pid=os.getpid())
    rng = random.Random(os.getpid())
    name = f"{worker.worker_id}-{os.getpid()}"
    for n in range(1_000_000):
        if worker.terminated:
            return
        ids = [f"{name}-{n}-{i}" for i in range(rng.choice((1, 1, 3)))]
        ledger.write("intend", ids=ids)
        if rng.random() < 0.2:
            with worker.write_behind():
                keys = [worker.push_running_task({"id": i, "kind": "plain"}) for i in ids]
                for key, i in zip(keys, ids, strict=True):
                    worker.finish_task(key, {"y": answer(i)})
            ledger.write("pushed", ids=ids, keys=keys)
        else:
            keys = worker.push_running_tasks([{"id": i, "kind": "plain"} for i in ids])
            ledger.write("pushed", ids=ids, keys=keys)
            won = worker.finish_tasks(keys, [{"y": answer(i)} for i in ids])
            for key, i, mine in zip(keys, ids, won, strict=True):
                ledger.write("finished" if mine else "refused", key=key, id=i, attempt=1)
        ledger.alive()
        time.sleep(rng.uniform(0.01, 0.05))


LOOPS: tuple[Callable[..., Any], ...] = (serve, search, worker_loop(do))


class Manager(Program):
    """Pushes, reads, retries, cancels, and keeps workers up, whatever happens."""

    def __init__(self, name: str, rush: Rush, seed: str) -> None:
        super().__init__()
        self.name = name
        self.rush = rush
        self.rng = random.Random(seed)
        self.ledger = own_ledger(name)
        self.reader = f"{name}.{os.getpid()}"
        self.mine: list[str] = []
        self.serial = 0
        self.looked_at = 0.0

    def run(self) -> None:
        """Until it is told to rest, when it only reads, and to end; then what is new is read once more."""
        acts = [self.push] * 6 + [self.push_few] * 2 + [self.fetch] * 4 + [self.wait] * 2
        acts += [self.look, self.retry, self.cancel, self.replace]
        while not self.over:
            if not self.resting:
                self.attempt(self.keep_workers)
            self.attempt(self.fetch if self.resting else self.rng.choice(acts))
            time.sleep(self.rng.uniform(0.0, 0.1))
        deadline = time.monotonic() + 60
        while not self.attempt(self.fetch) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.ledger.write("closed", reader=self.reader)

    def attempt(self, act: Callable[[], None]) -> bool:
        """A user's program that goes on when a call fails."""
        try:
            act()
        except RushlightError as error:
            self.ledger.write("error", act=act.__name__, type=type(error).__name__, text=str(error)[:300])
            return False
        self.ledger.alive()
        return True

    def tasks(self, n: int) -> list[dict[str, Any]]:
        xss = []
        for _ in range(n):
            self.serial += 1
            kind = self.rng.choices(("plain", "boom", "large", "exit"), (90, 5, 3, 0.5))[0]
            nap = self.rng.choice((0.0, 0.0, 0.01, 0.2))
            xss.append({"id": f"{self.reader}-{self.serial}", "kind": kind, "nap": nap})
        return xss

    def push(self) -> None:
        """A batch with all kinds of options."""
        if self.rush.n_queued_tasks > _MOST_QUEUED:
            return
        xss = self.tasks(self.rng.choice((1, 1, 5, 20)))
        options: dict[str, Any] = {}
        chance = self.rng.random()
        if chance < 0.2:
            options["max_retries"] = self.rng.choice((1, 3))
        elif chance < 0.3:
            options["priority"] = self.rng.choice((-1, 1, 5))
        elif chance < 0.4 and self.mine:
            options["after"] = [self.rng.choice(self.mine)]
        elif chance < 0.5:
            options["workers"] = self.rng.choice(self.rush.running_worker_ids or [None])
        elif chance < 0.55:
            xss[0]["kind"] = "hang"
            options["timeout"] = 1.0
        self._push(xss, **options)

    def push_few(self) -> None:
        """Waits until there is room."""
        self._push(self.tasks(3), max_queued=_MOST_QUEUED, queue_timeout=2.0)

    def _push(self, xss: list[dict[str, Any]], **options: Any) -> None:
        ids = [xs["id"] for xs in xss]
        self.ledger.write("intend", ids=ids, limited="timeout" in options)
        keys = self.rush.push_tasks(xss, **options)
        self.ledger.write("pushed", ids=ids, keys=keys)
        self.mine = (self.mine + keys)[-200:]

    def fetch(self) -> None:
        keys = [task.key for task in self.rush.fetch_new_tasks(timeout=0.1, as_="tasks")]
        if keys:
            self.ledger.write("saw", reader=self.reader, keys=keys)

    def wait(self) -> None:
        wanted = self.rng.sample(self.mine, min(3, len(self.mine)))
        found = self.rush.wait_for_tasks(wanted, timeout=2.0)
        self.ledger.write("waited", done=found.done, failed=found.failed)

    def look(self) -> None:
        counts = self.rush.counts()
        self.ledger.write("counts", **{name: int(getattr(counts, name)) for name in ("queued", "finished")})
        self.rush.detect_lost_workers()

    def retry(self) -> None:
        if self.mine:
            self.rush.retry_tasks(self.rng.sample(self.mine, min(5, len(self.mine))))

    def cancel(self) -> None:
        if self.mine and self.rng.random() < 0.5:
            keys = self.rng.sample(self.mine, 1)
            self.ledger.write("cancel", keys=keys)
            self.rush.cancel_tasks(keys)

    def replace(self) -> None:
        """One worker, of anybody's, goes."""
        running = self.rush.running_worker_ids
        if running and self.rng.random() < 0.5:
            wid = self.rng.choice(running)
            how = self.rng.choice(("terminate", "kill"))
            self.ledger.write("stop", worker_id=wid, how=how)
            self.rush.stop_workers(how, [wid])

    def keep_workers(self) -> None:
        if time.monotonic() - self.looked_at < 1.0:
            return
        self.looked_at = time.monotonic()
        live = self.rush.n_running_workers + self.rush.n_starting_workers
        missing = min(WORKERS, _most_workers() - live)
        if missing > 0:
            loop = self.rng.choice(LOOPS)
            policy = self.rng.choice(("fail", "requeue"))
            self.rush.start_workers(
                loop, missing, lease=LEASE, on_lost=policy, max_restarts=self.rng.choice((0, 2))
            )


def _most_workers() -> int:
    return int(os.environ.get("RUSHLIGHT_CHAOS_WORKERS", "9"))


def main() -> None:
    """A manager's program: it begins anew until the server is there."""
    name, network, url, seed = sys.argv[1:]
    while True:
        with contextlib.suppress(RushlightError):
            rush = Rush(network, url)
            break
        time.sleep(0.2)
    with rush:
        Manager(name, rush, seed).run()


if __name__ == "__main__":
    main()
