"""What starting costs: how much is imported, how much is asked, until a worker is at its loop. Counted, not
timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rushlight import Rush, RushWorker
from rushlight._loopspec import make_spec
from rushlight._names import random_name, random_token
from rushlight._options import Specs
from rushlight._spec import keep_spec
from rushlight._store import Store
from rushlight._store_roster import WorkerCard
from rushlight._uplink import Uplink

#: What is loaded beside the standard library, by workers and by those who only start and hear them.
LIBRARIES = {"rushlight", "hiredis", "msgspec", "typing_extensions", "cloudpickle"}
#: Parts of the standard library that take long to import, and that nothing needs until something is asked.
LATER = {"asyncio", "ssl", "zoneinfo", "importlib.resources", "importlib.metadata"}
FIRST = """
import sys
before = set(sys.modules)
from rushlight import Controller
with Controller(max_workers=1) as controller:
    assert controller.submit(abs, -1).result() == 1
    print(*sorted(set(sys.modules) - before))
"""


def libraries(modules: set[str]) -> set[str]:
    """Those that are not Python's own."""
    return {name.partition(".")[0] for name in modules} - sys.stdlib_module_names


def tell(worker: RushWorker, before: set[str]) -> None:
    """A loop that makes a task of how it found its process."""
    found = {"modules": sorted(set(sys.modules) - before), "trips": worker._store.link.trips}
    worker.finish_task(worker.push_running_task({}), found)


def bare_modules() -> set[str]:
    """What an interpreter has loaded that was asked for nothing."""
    return told("import sys; print(*sys.modules)")


def told(code: str) -> set[str]:
    """The words that Python code prints, in a process of its own."""
    line = [sys.executable, "-c", code]
    return set(subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout.split())


def test_a_worker_loads_what_its_loop_needs(rush: Rush) -> None:
    """Its process has loaded four libraries and no slow part of Python when its loop begins, and asked the
    server twice, each time to say how far it is."""
    rush.start_workers(tell, kwargs={"before": bare_modules()})
    rush.fetch_new_tasks(timeout=60)
    (found,) = rush.fetch_finished_tasks(as_="tasks")
    modules = set(found.ys["modules"])
    assert set() == libraries(modules) - LIBRARIES
    assert set() == modules & {*LATER, "subprocess", "tempfile"}
    assert 2 == found.ys["trips"]


def test_a_first_result_needs_no_client_library(home: Path) -> None:
    """With the embedded server, from the import to the first result of a call."""
    modules = told(FIRST)
    assert set() == libraries(modules) - LIBRARIES
    assert set() == modules & LATER


def test_a_supervisor_asks_little_until_its_workers_are_registered(rush: Rush) -> None:
    """What was ordered last, what to start, and the registration, whatever the number of workers."""
    spec_id = keep_spec(rush._store, make_spec(rush._store, tell, kwargs={"before": set()}))
    store = Store(rush._store.config, rush.network)
    uplink = Uplink(store)
    uplink.open()
    Specs(store).load(spec_id)
    uplink.register([WorkerCard(random_name(), random_token(), 1, "host") for _ in range(4)])
    assert 3 == store.link.trips
    uplink.close()
