"""Figures of a network for Prometheus: ``pip install "rushlight[prometheus]"``.

Figures are read from the network when they are asked for, so one exporter serves all workers on all hosts and
can be stopped and started anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from rushlight._manager import Rush
from rushlight._records import TaskState, WorkerState
from rushlight.errors import MissingExtra

try:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
except ImportError as error:
    raise MissingExtra(
        'prometheus_client is missing: pip install "rushlight[prometheus]"', extra="prometheus"
    ) from error

__all__ = ["NetworkCollector", "start_exporter"]

_USAGE = (
    ("memory_bytes", "Resident memory of the worker's process", "memory"),
    ("peak_memory_bytes", "Most memory the worker's process ever had", "peak_memory"),
)


class NetworkCollector:
    """A collector for a ``prometheus_client`` registry: ``REGISTRY.register(NetworkCollector(rush))``.

    Tasks and workers by state; launches of controllers that are under way; tasks finished and failed so far;
    memory and processor time of each live worker. Five round trips per scrape, however many tasks there are.
    Counters begin anew when the network is reset.
    """

    def __init__(self, rush: Rush) -> None:
        self._rush = rush

    def describe(self) -> list[Metric]:
        """Nothing is read when the collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All figures, as they are now. Raises StoreError where the server cannot be reached."""
        network = self._rush.network
        counts = self._rush.counts()
        tasks = GaugeMetricFamily("rushlight_tasks", "Tasks by state", labels=("network", "state"))
        for state in TaskState:
            tasks.add_metric((network, state.value), getattr(counts, state.value))
        yield tasks
        for name, what, value in (
            ("rushlight_tasks_finished", "Tasks finished since the network began", counts.finished),
            ("rushlight_tasks_failed", "Tasks that have failed and were not tried again", counts.failed),
        ):
            family = CounterMetricFamily(name, what, labels=("network",))
            family.add_metric((network,), value)
            yield family
        infos = self._rush.fetch_workers(as_="tasks")
        states = Counter(info.state for info in infos)
        workers = GaugeMetricFamily("rushlight_workers", "Workers by state", labels=("network", "state"))
        for of_workers in WorkerState:
            workers.add_metric((network, of_workers.value), states[of_workers])
        yield workers
        launches = GaugeMetricFamily(
            "rushlight_launches",
            "Workers that controllers launched and that have not come",
            labels=("network",),
        )
        noted = self._rush._store.crew().launches.values()
        launches.add_metric((network,), sum(not launch.letter for launch in noted))
        yield launches
        live = {i.worker_id for i in infos if i.state in (WorkerState.STARTING, WorkerState.RUNNING)}
        yield from self._usage(network, live)

    def _usage(self, network: str, live: set[str]) -> Iterator[Metric]:
        used = [one for one in self._rush.fetch_worker_usage(as_="tasks") if one.worker_id in live]
        for name, what, attribute in _USAGE:
            gauge = GaugeMetricFamily(f"rushlight_worker_{name}", what, labels=("network", "worker"))
            for one in used:
                gauge.add_metric((network, one.worker_id), getattr(one, attribute))
            yield gauge
        spent = CounterMetricFamily(
            "rushlight_worker_cpu_seconds",
            "Processor time of the worker's process",
            labels=("network", "worker"),
        )
        for one in used:
            spent.add_metric((network, one.worker_id), one.cpu_seconds)
        yield spent


def start_exporter(rush: Rush, port: int = 9464, host: str = "127.0.0.1") -> Callable[[], None]:
    """Serves the network's figures on ``http://host:port/metrics`` from a thread; returns what ends it.
    Raises OSError where the port is taken."""
    registry = CollectorRegistry()
    collector: Any = NetworkCollector(rush)
    registry.register(collector)
    server, thread = start_http_server(port, host, registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
