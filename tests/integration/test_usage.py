"""What workers use, sampled while they work; and the same figures for Prometheus."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import pytest

from rushlight import Rush, RushWorker, WorkerUsage
from rushlight._usage import MemoryLimit, Sampler, resident
from rushlight.integrations.prometheus import NetworkCollector, start_exporter


def burn(worker: RushWorker) -> None:
    """Holds some memory and a processor until it is to leave."""
    held = bytearray(60 << 20)
    while not worker.terminated:
        sum(range(10_000))
    del held


def test_a_process_is_sampled_from_outside() -> None:
    """Memory, its peak, processor time and its share of a processor, whatever the process does."""
    code = "held = bytearray(50 << 20); print('ready', flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    times = iter((0.0, 10.0, 20.0))
    sampler = Sampler(clock=lambda: next(times))
    try:
        assert process.stdout is not None
        assert b"ready\n" == process.stdout.readline()
        first = sampler.sample(process.pid)
        second = sampler.sample(process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert first is not None
    assert second is not None
    assert 50 << 20 < second.memory <= second.peak_memory
    assert (None, True) == (first.cpu_percent, second.cpu_percent is not None)
    assert round(100 * (second.cpu_seconds - first.cpu_seconds) / 10, 1) == second.cpu_percent
    assert sampler.sample(process.pid) is None


def test_memory_is_looked_at_the_sooner_the_less_is_left() -> None:
    """A process has no time to grow far beyond its limit between two looks; one that is far from it is let
    alone; above it the reason has both numbers, and what to do."""
    mine = resident(os.getpid())
    assert mine is not None
    far, near = MemoryLimit(mine << 10), MemoryLimit(mine + (64 << 20))
    assert (None, None) == (far.look(os.getpid(), 100.0), near.look(os.getpid(), 100.0))
    assert 100.0 < near.next_look < 100.1 < far.next_look <= 100.5
    reason = MemoryLimit(1 << 20).look(os.getpid(), 100.0)
    assert reason is not None
    assert "more than max_memory=1048576 (1.0 MiB): raise max_memory" in reason
    gone = MemoryLimit(1)
    assert gone.look(2**22 + 1, 100.0) is None
    assert float("inf") == gone.next_look


def test_workers_are_sampled_with_their_leases(rush: Rush, wait_until: Callable[..., None]) -> None:
    """Their supervisor sends a sample of each along with the renewal, also of one that never lets go of the
    processor; and one that has ended is still in the table."""
    ids = rush.start_workers(burn, 2, lease=0.3)
    rush.wait_for_workers(2)

    def sampled() -> list[WorkerUsage]:
        return [
            one for one in rush.fetch_worker_usage(as_="tasks") if one.cpu_percent and one.memory > 60 << 20
        ]

    wait_until(lambda: sorted(ids) == [one.worker_id for one in sampled()])
    one = sampled()[0]
    assert one.memory <= one.peak_memory
    assert abs(one.sampled_at - rush._store.clock().server) < 30
    rush.stop_workers()
    table = rush.fetch_worker_usage()
    assert sorted(ids) == table["worker_id"].to_list()
    assert ["worker_id", "sampled_at", "memory", "peak_memory", "cpu_seconds", "cpu_percent"] == table.columns
    rush.reset()
    assert 0 == rush.fetch_worker_usage().height


def test_a_plain_worker_samples_itself(rush: Rush, wait_until: Callable[..., None]) -> None:
    """With the thread that renews its lease."""
    with RushWorker(rush.network, lease=0.3) as worker:
        wait_until(lambda: [worker.worker_id] == rush.fetch_worker_usage()["worker_id"].to_list())
    (used,) = rush.fetch_worker_usage(as_="dicts")
    assert used["memory"] > 1 << 20


def test_prometheus_is_told_everything(rush: Rush, worker: RushWorker) -> None:
    """A scrape over HTTP has the counts of tasks and workers, and what live workers use."""
    done, failed = worker.push_running_tasks([{"x": 1}, {"x": 2}])
    worker.finish_task(done, {"y": 1})
    worker.fail_task(failed)
    rush.push_tasks([{"x": 3}] * 4)
    rush._store.keep_launches({worker.worker_id: b"came", "one": b"coming", "two": b"coming"})
    rush._store.beat(
        [(worker.worker_id, worker._member.card.token)],
        600.0,
        {worker.worker_id: Sampler().sample(os.getpid())},
    )
    stop = start_exporter(rush, port=(port := free_port()))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
    finally:
        stop()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    where = f'network="{rush.network}"'
    expected = {
        f'rushlight_tasks{{{where},state="queued"}}': 4.0,
        f'rushlight_tasks{{{where},state="running"}}': 0.0,
        f"rushlight_tasks_finished_total{{{where}}}": 1.0,
        f"rushlight_tasks_failed_total{{{where}}}": 1.0,
        f'rushlight_workers{{{where},state="running"}}': 1.0,
        f'rushlight_workers{{{where},state="lost"}}': 0.0,
        f"rushlight_launches{{{where}}}": 2.0,
    }
    assert expected == {name: float(lines[name]) for name in expected}
    assert float(lines[f'rushlight_worker_memory_bytes{{{where},worker="{worker.worker_id}"}}']) > 1 << 20
    assert f'rushlight_worker_cpu_seconds_total{{{where},worker="{worker.worker_id}"}}' in lines


@pytest.mark.parametrize("tasks", [1, 1000])
def test_a_scrape_costs_the_same_however_many_tasks(rush: Rush, tasks: int) -> None:
    """Five round trips."""
    rush.push_finished_tasks([{"x": 1}] * tasks, [{"y": 1}] * tasks)
    collector = NetworkCollector(rush)
    list(collector.collect())
    before = rush._store.link.trips
    list(collector.collect())
    assert 5 == rush._store.link.trips - before


def free_port() -> int:
    """A port of the loopback interface nobody listens on."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
