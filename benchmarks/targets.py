"""What the project means to reach, in the order of the table. Rows name their target by its key.

"Two pings" are two PINGs, one after the other, by hiredis on a plain blocking socket of the same kind, in the
same run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """The work in words, the unit of its figure, and the bound: at most, or (``least``) at least."""

    work: str
    unit: str
    bound: float
    least: bool = False

    @property
    def reach(self) -> str:
        return f"{'>=' if self.least else '<='} {self.bound:,g}"

    def reached(self, figure: float) -> bool:
        return figure >= self.bound if self.least else figure <= self.bound


_PINGS = "x two pings"

TARGETS = {
    # One client, one task per call.
    "create_finish": Target("create + finish, wall", _PINGS, 1.15),
    "create_finish_cpu": Target("create + finish, client CPU", "x CPU of two pings", 1.3),
    "create_finish_adaptive": Target("create + finish, idle cores, adaptive waiting", _PINGS, 0.55),
    "step": Target("step: finish one, create the next", _PINGS, 0.6),
    "step_adaptive": Target("step, idle cores, adaptive waiting", _PINGS, 0.3),
    "write_behind": Target("write-behind create + finish", _PINGS, 0.16),
    "pop_finish": Target("pop + finish", _PINGS, 1.15),
    "finish_and_pop": Target("finish_and_pop", _PINGS, 0.6),
    # What is ours of these figures: see decision 13. The worst of the operations whose answer is awaited.
    "client_over_hand": Target("our client over the same calls by hand, worst operation", "x", 1.5),
    "calls_over_fewest": Target("our calls over the fewest commands, worst operation", "x", 1.5),
    # Many tasks per call.
    "push_bulk": Target("push_tasks of 10,000 in one call", "us/task", 2),
    "fetch_cold_3": Target("cold fetch of 100,000, 3 columns, to polars", "ms", 100),
    "fetch_cold_13": Target("cold fetch of 100,000, 13 columns, to polars", "ms", 250),
    "fetch_cold_1m_3": Target("cold fetch of 1,000,000, 3 columns", "ms", 1000),
    "fetch_cold_1m_13": Target("cold fetch of 1,000,000, 13 columns", "ms", 2500),
    "fetch_memory_3": Target("peak memory of that fetch, 3 columns", "x the table", 3),
    "fetch_memory_13": Target("peak memory of that fetch, 13 columns", "x the table", 3),
    "fetch_new_100k_3": Target("fetch, one new among 100,000, 3 columns", "us", 150),
    "fetch_new_100k_100": Target("fetch, one new among 100,000, 100 columns", "us", 150),
    "fetch_new_1m_3": Target("fetch, one new among 1,000,000, 3 columns", "us", 150),
    "fetch_new_1m_100": Target("fetch, one new among 1,000,000, 100 columns", "us", 150),
    "fetch_new_flat": Target("the slowest of these four", "x the fastest", 1.3),
    "fetch_states": Target("fetch running and finished: 1 new, 100 running, 100,000", "us", 400),
    # Workers.
    "branin": Target("Branin random search, 2 local workers, 2 cores", "tasks/s", 20_000, least=True),
    "server_memory": Target("server memory per finished task", "bytes", 200),
    "queue_one": Target("no-op queue tasks, 2 workers, one by one", "x process pool", 1.3, least=True),
    "queue_batched": Target("no-op queue tasks, 2 workers, in batches", "tasks/s", 100_000, least=True),
    "start_workers": Target("start_workers(4) to registered", "s", 0.25),
    "idle_worker": Target("idle worker: memory beyond the loop's own imports", "MB", 25),
    "wake_up": Target("wake-up: finish to fetch_new_tasks returning elsewhere", "pings", 3),
}
