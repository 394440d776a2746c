"""Machines that die and networks that part: what was confirmed, what is gone, and who goes on.

A machine's death is the death of the server's process together with all that was not yet on its disk: the
append-only file is cut back to what the server had reported as safe, or to any byte behind it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from chaos.proxy import FaultProxy

from harness import Server, account
from rushlight import Rush, RushWorker
from rushlight.errors import DataMissing

Wait = Callable[..., None]
Processes = Callable[[str], list[psutil.Process]]


def written(server: Server) -> Path:
    """The file the server appends to."""
    (path,) = server.folder.glob("appendonlydir/*.incr.aof")
    return path


def is_synced(client: redis.Redis) -> bool:
    """Whether all this client has written is safe on the disk now, by the server's own account; in a
    transaction, as it would see to it first else."""
    ((here, _replicas),) = client.pipeline(transaction=True).execute_command("WAITAOF", 1, 0, 0).execute()
    return bool(here == 1)


def safe(server: Server) -> int:
    """Waits until all that was written is on the disk; the size of the file then."""
    with server.client() as client:
        for change in (client.incr, client.delete):
            change("mark")
            assert client.execute_command("WAITAOF", 1, 0, 20_000)[0] == 1
    return written(server).stat().st_size


def everything(rush: Rush) -> dict[str, Any]:
    """All tasks, each with its state and result."""
    return {task.key: (str(task.state), task.ys) for task in rush.fetch_tasks(as_="tasks")}


def fill(rush: Rush, worker: RushWorker, n: int) -> None:
    """Tasks of every state; each call that returns was confirmed."""
    rush.push_tasks([{"x": i} for i in range(n)], max_retries=1)
    for i in range(n):
        key = worker.push_running_task({"x": i})
        if i % 3:
            worker.finish_task(key, {"y": i})
        elif i % 2:
            worker.fail_task(key, "no")
    for _ in range(n // 3):
        worker.finish_task(worker.pop_task().key, {"y": "popped"})


def test_a_machine_dies_within_the_last_second(own: Callable[..., Server]) -> None:
    """``everysec``: whatever byte the disk had come to, all that was safe is there, of the last second there
    is a beginning, every task is in one state and its books agree, and work goes on."""
    server = own("--appendonly", "yes", "--appendfsync", "everysec")
    with Rush("study", server.url) as rush, RushWorker("study", server.url, lease=600.0) as worker:
        fill(rush, worker, 12)
        sure = everything(rush)
        floor = safe(server)
        fill(rush, worker, 12)
        more = everything(rush)
    server.kill()
    whole = written(server).read_bytes()
    assert len(whole) > floor
    rng = random.Random(1)
    counts = set()
    for size in sorted(
        {floor, floor + 1, len(whole) - 1, *(rng.randrange(floor, len(whole)) for _ in range(12))}
    ):
        written(server).write_bytes(whole[:size])
        server.start()
        with server.client() as client, Rush("study", server.url) as rush:
            assert account(client, "study").states().keys() <= more.keys()
            found = everything(rush)
            counts.add(len(found))
            assert sure.keys() <= found.keys()
            # What was decided stays decided; what was queued or running may have gone on since.
            assert all(found[key] == told for key, told in sure.items() if told[0] in ("finished", "failed"))
            (key,) = rush.push_tasks([{"x": "after"}], priority=1)
            with RushWorker("study", server.url) as again:
                assert key == again.pop_task().key
                assert again.finish_task(key, {"y": 1})
        server.kill()
    assert len(counts) > 3, "the cuts were all at one place"
    server.start()


def test_a_result_that_was_lost_is_sent_again(own: Callable[..., Server]) -> None:
    """The machine forgot a result it had confirmed: the worker that still is there may say it once more."""
    server = own("--appendonly", "yes", "--appendfsync", "everysec")
    with Rush("study", server.url) as rush, RushWorker("study", server.url, lease=600.0) as worker:
        key = worker.push_running_task({"x": 1})
        floor = safe(server)
        assert worker.finish_task(key, {"y": 1})
        server.kill()
        whole = written(server).read_bytes()
        written(server).write_bytes(whole[:floor])
        server.start()
        assert ["running"] == rush.states([key])
        assert worker.finish_task(key, {"y": 1})
        assert [1] == rush.fetch_finished_tasks()["y"].to_list()


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_what_is_confirmed_is_on_the_disk(own: Callable[..., Server], policy: str) -> None:
    """``always``: before the answer, each time, so that a machine's death takes nothing. Else maybe later."""
    server = own("--appendonly", "yes", "--appendfsync", policy)
    with Rush("study", server.url) as rush, RushWorker("study", server.url, lease=600.0) as worker:
        safe(server)
        at_once = []
        with server.client() as client:
            for i in range(60):
                worker.finish_task(worker.push_running_task({"x": i}), {"y": i})
                # The server counts by client: this one writes too, behind the others.
                client.set("mark", i)
                at_once.append(is_synced(client))
        told = everything(rush)
        size = written(server).stat().st_size
    assert (policy == "always") == all(at_once)
    server.kill()
    if policy == "always":
        written(server).write_bytes(written(server).read_bytes()[:size])
    server.start()
    with Rush("study", server.url) as rush:
        assert told == everything(rush)


def waiters(client: redis.Redis) -> int:
    """How many clients wait for an event."""
    return sum("b" in known["flags"] and known["cmd"] == "xread" for known in client.client_list())


def stay(worker):
    """Hold one running task until told to leave."""
    worker.push_running_task({"x": 1})
    while not worker.terminated:
        worker.pop_task(timeout=1)


def test_a_server_that_keeps_nothing_dies(
    own: Callable[..., Server], wait_until: Wait, processes: Processes
) -> None:
    """``appendonly no``: the network is gone. Waits say so, workers end, nobody writes to what is no more."""
    server = own("--appendonly", "no")
    with Rush("forgotten", server.url) as rush:
        rush.start_workers(stay, 2, lease=1)
        rush.wait_for_workers(2)
        wait_until(lambda: rush.n_running_tasks == 2)
        keys = rush.push_tasks([{"x": 1}], after=[[rush.keys("running")[0]]])
        caught: list[BaseException] = []

        def wait() -> None:
            try:
                rush.wait_for_tasks(keys, timeout=60)
            except BaseException as error:
                caught.append(error)

        with server.client() as client:
            before = waiters(client)
            waiting = threading.Thread(target=wait)
            waiting.start()
            wait_until(lambda: waiters(client) > before)
        server.kill()
        server.start()
        waiting.join(60)
        assert [DataMissing] == [type(error) for error in caught]
        wait_until(lambda: [] == processes("forgotten"))
        assert 0 == rush.n_tasks == rush.n_workers
        with server.client() as client:
            assert [] == list(client.scan_iter())
        # The name can be used again.
        (key,) = rush.push_tasks([{"x": 2}])
        with RushWorker("forgotten", server.url) as worker:
            assert key == worker.pop_task().key
        rush.reset()


def far(worker):
    """Take a task, and give its result when a file says so."""
    import threading
    from pathlib import Path

    task = worker.pop_task(timeout=60)
    while not Path(task.xs["flag"]).exists():
        threading.Event().wait(0.02)
    worker.finish_task(task.key, {"y": "far"})
    while not worker.terminated:
        worker.pop_task(timeout=1)


def test_a_partition(
    own: Callable[..., Server], tmp_path: Path, wait_until: Wait, processes: Processes
) -> None:
    """A host cannot reach the server for longer than the lease: its workers are lost, their tasks go on
    elsewhere. When the line is back their results are refused, their processes end, its manager goes on."""
    server = own()
    proxy = FaultProxy(str(server.socket))
    try:
        with Rush("parted", server.url) as near, Rush("parted", proxy.url) as away:
            (lost,) = away.start_workers(far, lease=1, on_lost="requeue")
            away.wait_for_workers(1)
            (key,) = near.push_tasks([{"flag": str(tmp_path / "flag")}], max_retries=1)
            wait_until(lambda: near.states([key]) == ["running"])
            proxy.freeze()
            wait_until(lambda: near.lost_worker_ids == [lost])
            with RushWorker("parted", server.url) as worker:
                task = worker.pop_task(timeout=30)
                assert (key, 2) == (task.key, task.attempt)
                # The far one has its result too, and tries to say it.
                (tmp_path / "flag").touch()
                assert worker.finish_task(key, {"y": "near"})
                proxy.thaw()
                wait_until(lambda: [] == processes("parted"))
            assert ["near"] == away.fetch_finished_tasks()["y"].to_list()
            assert (1, 0) == (near.n_tasks, near.n_running_workers)
            with server.client() as client:
                assert {key: "finished"} == account(client, "parted").states()
            near.reset()
    finally:
        proxy.close()
