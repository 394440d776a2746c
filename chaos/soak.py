"""A day of use in an hour: a million tasks and ten thousand lives of workers, and nothing may grow.

    python chaos/soak.py                                 # the whole of it: 1,000,000 tasks, 10,000 lives
    python chaos/soak.py --tasks 6000 --lives 60         # the form the test suite runs

One manager, its supervisors and the embedded server live from beginning to end; the work goes on in rounds,
and each ends with a reset of the tasks, so that all that is still there is what the network itself costs.
Looked at after each round: memory and open files of the manager, of the supervisors, of two workers that live
through all of it, and of the server; its keys; its log. What must hold stands in ``judge``. Exit code 0 if it
does.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import redis

from rushlight import Rush
from rushlight._server import ensure_server, server_status, stop_server

NETWORK = "soak"
#: Workers that live through everything; workers that are made to die; workers that come, work and go.
ELDERS, MAYFLIES, GUESTS = 2, 6, 4
#: Shares of a round's tasks: through the queue, by ``step``, by write-behind. The rest are failures.
QUEUED, STEPPED, BEHIND = 0.30, 0.35, 0.34
#: How much may have grown between the first fifth of the rounds and the last: a share, and bytes.
SHARE, SPARE = 0.03, 2 << 20
#: Bytes of server memory one registered worker costs until the network is reset: its card and its end.
PER_WORKER = 1500
#: Bytes of server memory one line of the log costs.
PER_LINE = 250
LOG_LIMIT = 20_000
PATIENCE = 120.0


# --- what runs in the workers: sent with its code -----------------------------------------------------


def elder(worker):
    """Takes tasks; some of them mean: make and finish so many of your own, in one way or the other."""
    import logging

    log = logging.getLogger("soak")
    while not worker.terminated:
        task = worker.pop_task(timeout=5)
        if task is None:
            continue
        n, how = task.xs.get("n", 0), task.xs.get("how")
        if how == "step" and n:
            key = worker.push_running_task({"i": 0})
            for i in range(1, n):
                key = worker.step(finish=(key, {"y": i}), push={"i": i})
            worker.finish_task(key, {"y": n})
        elif how == "behind":
            with worker.write_behind():
                for i in range(n):
                    worker.finish_task(worker.push_running_task({"i": i}), {"y": i})
        elif how == "fail":
            for i in range(n):
                worker.fail_task(worker.push_running_task({"i": i}), ValueError(f"the {i}th"))
        if how:
            for i in range(250):
                log.warning("a line of the log, number %d", i)
                print("a line that was printed, number", i)
        worker.finish_task(task.key, {"y": 1})


def mayfly(worker, alternate):
    """Says that it lives, by a task of its own, and then takes tasks that never end."""
    import threading

    worker.finish_task(worker.push_running_task({"life": alternate}), {"y": 1})
    while not worker.terminated:
        task = worker.pop_task(timeout=30)
        if task is not None:
            threading.Event().wait()


def guest(worker):
    """Says that it lives, and leaves."""
    worker.finish_task(worker.push_running_task({"life": 2}), {"y": 1})
    print("that was it")


# --- what is seen -------------------------------------------------------------------------------------


@dataclass
class Sample:
    """One look at everything, after a round. ``rss`` and ``files`` by who it is."""

    tasks: int
    lives: int
    registered: int
    rss: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    server_memory: int = 0
    keys: int = 0
    log: int = 0


class Soak:
    """One run. ``home`` is the embedded server's."""

    def __init__(self, home: Path, tasks: int, lives: int, rounds: int) -> None:
        self.home = home
        self.rounds = rounds
        self.tasks_a_round = max(100, tasks // rounds)
        self.lives_a_round = max(GUESTS + MAYFLIES, lives // rounds)
        self.client = redis.Redis(unix_socket_path=str(ensure_server(home)))
        self.rush = Rush(NETWORK)
        self.samples: list[Sample] = []
        self.faults: list[str] = []
        self.tasks = self.lives = self.registered = self.turn = 0
        self.elders = self.rush.start_workers(elder, ELDERS, log_level="WARNING", lease=600)
        self.mayflies = self.rush.start_workers(mayfly, MAYFLIES, kwargs={"alternate": 0}, lease=600)
        self.registered = ELDERS + MAYFLIES
        self.launched = list(self.rush._launched)
        self.rush.wait_for_workers(ELDERS + MAYFLIES, timeout=PATIENCE)
        self._await(lambda: self._begun() == MAYFLIES)
        self.watched = self._processes()
        self.rush.reset(workers=False)

    def _processes(self) -> dict[str, psutil.Process]:
        info = {row["worker_id"]: row for row in self.rush.fetch_workers(as_="dicts")}
        elders = [psutil.Process(info[wid]["pid"]) for wid in self.elders]
        server = psutil.Process(server_status(self.home).pid)
        found = {f"elder {i + 1}": process for i, process in enumerate(elders)}
        found["supervisor of elders"] = psutil.Process(elders[0].ppid())
        found["supervisor of mayflies"] = psutil.Process(info[self.mayflies[0]]["pid"]).parent()
        return {"manager": psutil.Process(), **found, "server": server, "server's keeper": server.parent()}

    # --- the work -------------------------------------------------------------------------------

    def round(self) -> None:
        """A round's tasks and lives, the account of them, a look at everything, a clean table."""
        n = self.tasks_a_round
        orders = [("step", int(n * STEPPED)), ("behind", int(n * BEHIND))]
        xss: list[dict[str, Any]] = [
            {"how": how, "n": count // (2 * ELDERS)} for how, count in orders for _ in range(2 * ELDERS)
        ]
        failing = n // 100 + 1
        xss += [{"how": "fail", "n": failing}]
        xss += [{"x": i} for i in range(int(n * QUEUED))]
        own = sum(xs["n"] for xs in xss if "n" in xs) - failing
        # The private queues of elders: mayflies take what never ends, and would hold these.
        keys = self.rush.push_tasks(xss, workers=[self.elders[i % ELDERS] for i in range(len(xss))])
        guests = self._let_guests_come()
        cancelled, begun = self._let_mayflies_die(self.lives_a_round - guests)
        result = self.rush.wait_for_tasks(keys, timeout=PATIENCE)
        self._expect("tasks of the queue done", len(keys), len(result.done))
        self._await(lambda: len(self.rush.terminated_worker_ids) >= self.registered - ELDERS - MAYFLIES)
        expected = {
            "finished": len(keys) + own + begun + guests,
            "failed": failing + cancelled,
            "queued": 0,
            "running": 0,
        }
        self._account(expected)
        self.tasks += sum(expected.values())
        self.lives += begun + guests
        self.rush.reset(workers=False)
        self._look()

    def _account(self, expected: dict[str, int]) -> None:
        """Every task is there, in the state it should have, by counts and by tables."""
        rush = self.rush
        self._await(lambda: rush.counts().running == 0 and rush.counts().finished >= expected["finished"])
        counts = rush.counts()
        self._expect("counts", expected, {name: getattr(counts, name) for name in expected})
        seen = 0
        while (new := rush.fetch_new_tasks()).height:
            seen += new.height
        self._expect("new tasks", expected["finished"], seen)
        self._expect("finished tasks", expected["finished"], rush.fetch_finished_tasks().height)
        self._expect("failed tasks", expected["failed"], rush.fetch_failed_tasks().height)
        self._expect("no worker lost", [], rush.lost_worker_ids)
        rush.read_log()

    def _let_guests_come(self) -> int:
        """Workers that come by supervisors of their own, do a task, and go; they are not waited for."""
        launches = max(1, self.lives_a_round // 10 // GUESTS)
        for _ in range(launches):
            self.rush.start_workers(guest, GUESTS)
        self.registered += launches * GUESTS
        return launches * GUESTS

    def _let_mayflies_die(self, lives: int) -> tuple[int, int]:
        """Ends the lives of mayflies, by cancelling what they are at and by changing their loop, in turn.

        Returns how many tasks were cancelled, and how many lives began.
        """
        cancelled = begun = 0
        before = self._begun()
        while begun < lives:
            self.turn += 1
            if self.turn % 4:
                keys = self.rush.push_tasks([{"never": "ends"}] * MAYFLIES, workers=self.mayflies)
                self._await(lambda keys=keys: set(self.rush.states(keys)) == {"running"})
                cancelled += len(self.rush.cancel_tasks(keys))
            else:
                self.rush.update_loop(mayfly, self.mayflies, kwargs={"alternate": self.turn // 4 % 2})
            begun += MAYFLIES
            self._await(lambda begun=begun: self._begun() - before >= begun)
        return cancelled, begun

    def _begun(self) -> int:
        """Lives of mayflies so far: each finishes one task of its own when it begins."""
        tallies = self.client.hmget(f"rl:{{{NETWORK}}}:tallies", [f"f:{wid}" for wid in self.mayflies])
        return sum(int(n or 0) for n in tallies)

    def _await(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain; {self.faults}; supervisors: {self._supervisors()}")
            threading.Event().wait(0.005)

    def _supervisors(self) -> list[tuple[str, str]]:
        """What the launcher knows of those that were to live through all of it, and what they said."""
        return [
            (f"{state.phase} {state.reason}", batch.launcher.log_tail(handle))
            for batch in self.launched
            for handle, state in zip(batch.handles, batch.launcher.poll(batch.handles), strict=True)
        ]

    def _expect(self, what: str, expected: object, actual: object) -> None:
        if expected != actual:
            self.faults.append(f"round {len(self.samples) + 1}: {what}: expected {expected}, is {actual}")

    # --- looking --------------------------------------------------------------------------------

    def _look(self) -> None:
        gc.collect()
        sample = Sample(self.tasks, self.lives, self.registered)
        for name, process in self.watched.items():
            sample.rss[name] = process.memory_info().rss
            sample.files[name] = process.num_fds()
        sample.server_memory = self.client.info("memory")["used_memory"]
        keys = list(self.client.scan_iter(count=1000))
        sample.keys = len(keys)
        sample.log = self.client.xlen(f"rl:{{{NETWORK}}}:logs")
        self.samples.append(sample)

    def close(self) -> None:
        """Everybody leaves; what is left then is a fault."""
        self._expect("workers that live", ELDERS + MAYFLIES, self.rush.n_running_workers)
        self.rush.stop_workers()
        self.rush.reset()
        self.rush.close()
        left = [key for key in self.client.scan_iter(count=1000) if key.startswith(b"rl:")]
        self._expect("keys left", [], left)
        self.client.close()
        theirs = [process for name, process in self.watched.items() if "server" not in name][1:]
        _gone, alive = psutil.wait_procs(theirs, timeout=30)
        self._expect("processes left", [], alive)
        stop_server(self.home)
        self._expect("children left", [], psutil.Process().children(recursive=True))


def judge(samples: list[Sample]) -> list[str]:
    """What grew that must not: medians of the second fifth of the rounds beside those of the last fifth, as
    the first fifth is for warming up."""
    n = max(1, len(samples) // 5)
    early, late = samples[n : 2 * n] or samples[:1], samples[-n:]
    faults = []

    def compare(what: str, value: Callable[[Sample], int], allowed: Callable[[int], float]) -> None:
        before, after = (int(statistics.median(map(value, part))) for part in (early, late))
        if after > allowed(before):
            faults.append(f"{what} grew from {before:,} to {after:,}; allowed: {allowed(before):,.0f}")

    newcomers = late[-1].registered - early[0].registered
    for name in samples[0].rss:
        # The table of workers is the network's own; it is on the server, and the manager reads it.
        more = SPARE + (PER_WORKER * newcomers if name in ("server", "manager") else 0)
        compare(f"memory of {name}", lambda s, n=name: s.rss[n], lambda b, m=more: b * (1 + SHARE) + m)
        compare(f"open files of {name}", lambda s, n=name: s.files[n], lambda b: b + 2)
    # While the log fills up for the first time, it grows: that is so in short runs only.
    log = PER_LINE * max(0, late[-1].log - early[0].log)
    more = PER_WORKER * newcomers + log
    compare("data on the server", lambda s: s.server_memory, lambda b: b * (1 + SHARE) + more)
    compare("keys on the server", lambda s: s.keys, lambda b: b)
    faults += [f"the log has {s.log:,} lines" for s in samples if s.log > LOG_LIMIT * 1.1]
    return faults


def row(sample: Sample) -> str:
    """A sample as a line of the table."""
    rss = "  ".join(f"{value / 1e6:7.1f}" for value in sample.rss.values())
    files = " ".join(map(str, sample.files.values()))
    return (
        f"{sample.tasks:>9,} {sample.lives:>6,} {sample.registered:>6,}  {rss}"
        f"  {sample.server_memory / 1e6:7.1f}  {sample.keys:>3} {sample.log:>6,}  {files}"
    )


@contextmanager
def own_server() -> Iterator[Path]:
    """The home of an embedded server for this run alone; gone in the end, whatever happened."""
    folder = Path(tempfile.mkdtemp(prefix="rl-soak-", dir="/tmp")).resolve()
    for name in ("RUSHLIGHT_URL", "REDIS_URL", "RUSHLIGHT_SECRET"):
        os.environ.pop(name, None)
    os.environ["RUSHLIGHT_HOME"] = str(folder / "home")
    try:
        yield folder / "home"
    finally:
        stop_server(folder / "home")
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--lives", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=50)
    given = parser.parse_args()
    began = time.monotonic()
    with own_server() as home:
        soak = Soak(home, given.tasks, given.lives, given.rounds)
        names = ", ".join(soak.watched)
        print(
            f"memory in MB and open files of: {names}; data on the server in MB, its keys, lines of the log"
        )
        # Whatever happens: first the workers, which would start the server again, then the server.
        with soak.rush:
            for _ in range(given.rounds):
                soak.round()
                print(row(soak.samples[-1]), flush=True)
            soak.close()
        faults = [*soak.faults, *judge(soak.samples)]
    print(f"{soak.tasks:,} tasks and {soak.lives:,} lives in {time.monotonic() - began:,.0f} s")
    print("\n".join(faults) or "nothing grew, nothing was lost, nothing is left")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
