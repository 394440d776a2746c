"""A master, its replica and three sentinels, all real, on loopback: the master is killed under work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from test_cluster import answers, free_ports

from harness import binaries, serve, wait_until
from rushlight import Rush
from rushlight._sentinel import SentinelUrl
from rushlight.errors import ConfigError, StoreUnavailable

SERVICE = "study-master"
WORD, WATCHWORD = "word-for-the-data", "word-for-sentinels"
DATA = ("--save", "", "--requirepass", WORD, "--primaryauth", WORD)


@dataclass
class Guarded:
    """The processes, by port; the first one is the master at first."""

    folder: Path
    data_ports: list[int]
    sentinel_ports: list[int]
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        return f"redis+sentinel://:{WORD}@{hosts}/{SERVICE}?sentinel_password={WATCHWORD}"

    def start(self, port: int, *options: str, sentinel: str = "") -> None:
        """A server, or with a configuration a sentinel."""
        home = self.folder / str(port)
        home.mkdir(exist_ok=True)
        arguments = [*("--port", str(port), "--bind", "127.0.0.1", "--dir", str(home)), *options]
        if sentinel:
            (home / "sentinel.conf").write_text(sentinel)
            arguments = [str(home / "sentinel.conf"), "--sentinel", *arguments]
        self.processes[port] = subprocess.Popen(
            [str(binaries()["valkey"]), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        client = redis.Redis(port=port, protocol=2, password=WATCHWORD if sentinel else WORD)
        wait_until(lambda: answers(client))
        client.close()

    def ask(self, port: int, *words: str) -> Any:
        with redis.Redis(
            port=port, protocol=2, password=WATCHWORD if port in self.sentinel_ports else WORD
        ) as client:
            return client.execute_command(*words)

    def master(self) -> int:
        """Whom the sentinels call the master, once they agree."""
        told = {
            int(self.ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
            for port in self.sentinel_ports
        }
        return told.pop() if len(told) == 1 else 0

    def end(self) -> None:
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()


@pytest.fixture
def guarded(home: Path) -> Iterator[Guarded]:
    """One master, one replica in step with it, three sentinels that know both."""
    with tempfile.TemporaryDirectory(prefix="rlt-", dir="/tmp") as folder:
        ports = free_ports(5)
        found = Guarded(Path(folder), ports[:2], ports[2:])
        try:
            data = (
                "--save",
                "",
                "--requirepass",
                WORD,
                "--primaryauth",
                WORD,
                "--repl-diskless-sync-delay",
                "0",
            )
            first, second = found.data_ports
            found.start(first, *data)
            found.start(second, *data, "--replicaof", f"127.0.0.1 {first}")
            for port in found.sentinel_ports:
                found.start(port, "--requirepass", WATCHWORD, sentinel=watching(first))
            wait_until(lambda: in_step(found, first), 30)
            for port in found.sentinel_ports:
                wait_until(lambda port=port: knows_all(found, port), 30)
            yield found
        finally:
            found.end()


def watching(master: int) -> str:
    """What a sentinel is told."""
    return (
        f"sentinel monitor {SERVICE} 127.0.0.1 {master} 2\n"
        f"sentinel auth-pass {SERVICE} {WORD}\n"
        f"sentinel sentinel-pass {WATCHWORD}\n"
        f"sentinel down-after-milliseconds {SERVICE} 500\n"
        f"sentinel failover-timeout {SERVICE} 4000\n"
    )


def in_step(guarded: Guarded, master: int) -> bool:
    """Whether the replica has all the master has."""
    with redis.Redis(port=master, protocol=2, password=WORD) as client:
        told = client.info("replication")
    return told["connected_slaves"] == 1 and told["slave0"]["state"] == "online"


def knows_all(guarded: Guarded, port: int) -> bool:
    """Whether a sentinel has met the replica and the other sentinels."""
    told = guarded.ask(port, "SENTINEL", "MASTER", SERVICE)
    # Releases of redis-py differ in what they make of the answer.
    facts = dict(zip(told[::2], told[1::2], strict=True)) if isinstance(told, list) else told
    found = {name.decode() if isinstance(name, bytes) else name: value for name, value in facts.items()}
    return int(found["num-slaves"]) >= 1 and int(found["num-other-sentinels"]) == 2


@pytest.mark.slow
def test_work_goes_on_after_a_failover(guarded: Guarded) -> None:
    """The master is killed under work: managers and workers find the new one by themselves, every task that
    was in step is done once, and the old master, back as a replica, is not written to."""
    first, second = guarded.data_ports
    with Rush("failover", url=guarded.url) as rush:
        assert not [word for word in (WORD, WATCHWORD) if word in f"{rush!r} {rush.url}"]
        rush.start_workers(serve, 2)
        rush.wait_for_workers(2, timeout=60)
        before = rush.push_tasks([{"x": i} for i in range(50)])
        assert "done" == rush.wait_for_tasks(before, timeout=60).reason
        assert 1 == guarded.ask(first, "WAIT", "1", "10000")
        guarded.processes[first].send_signal(signal.SIGKILL)
        guarded.processes[first].wait()
        after = rush.push_tasks([{"x": i} for i in range(50, 100)])
        assert second == guarded.master()
        assert "done" == rush.wait_for_tasks(after, timeout=60).reason
        done = [row["y"] for row in rush.fetch_finished_tasks(as_="dicts")]
        assert list(range(100)) == sorted(done)
        guarded.start(first, *DATA)
        wait_until(lambda: "slave" == info(first)["role"], 60)
        more = rush.push_tasks([{"x": 100}])
        assert "done" == rush.wait_for_tasks(more, timeout=60).reason
        assert 2 == rush.n_running_workers
        rush.reset()
        assert [] == guarded.ask(second, "KEYS", "*")


def info(port: int) -> dict[str, Any]:
    """What a server says of its part in the replication."""
    with redis.Redis(port=port, protocol=2, password=WORD) as client:
        return client.info("replication")


@pytest.mark.slow
def test_a_client_that_waits_hears_of_the_failover(guarded: Guarded) -> None:
    """A wait that began before the master died ends when the task is finished on the new one."""
    first, _ = guarded.data_ports
    code = (
        "import sys; from rushlight import RushWorker\n"
        "worker = RushWorker('waiting', sys.argv[1])\n"
        "task = worker.pop_task(timeout=60)\n"
        "print('taken', flush=True); sys.stdin.readline()\n"
        "worker.finish_task(task.key, {'y': 1}); worker.close()\n"
    )
    with Rush("waiting", url=guarded.url) as rush:
        (key,) = rush.push_tasks([{"x": 1}])
        worker = subprocess.Popen(
            [sys.executable, "-c", code, guarded.url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ),
        )  # fmt: skip
        assert worker.stdout is not None and worker.stdin is not None
        assert "taken\n" == worker.stdout.readline()
        assert 1 == guarded.ask(first, "WAIT", "1", "10000")
        guarded.processes[first].send_signal(signal.SIGKILL)
        guarded.processes[first].wait()
        worker.stdin.write("\n")
        worker.stdin.flush()
        assert "done" == rush.wait_for_tasks([key], timeout=60).reason
        assert 0 == worker.wait(60)
        worker.stdin.close()
        worker.stdout.close()
        rush.reset()


def test_no_sentinel_answers() -> None:
    """Told at once, without either password."""
    with pytest.raises(StoreUnavailable) as caught:
        Rush(
            "nobody", url=f"redis+sentinel://:{WORD}@127.0.0.1:1,127.0.0.1:2/x?sentinel_password={WATCHWORD}"
        )
    assert not [word for word in (WORD, WATCHWORD) if word in repr(caught.value) + str(caught.value.fields)]


def test_a_url_with_everything() -> None:
    """Nodes with and without ports, accounts, database, TLS: each where it belongs."""
    found = SentinelUrl.parse(
        "redis+sentinel://ann:a%40b@one,two:77,[::1]:78/main/3"
        "?sentinel_username=eve&sentinel_password=c&ssl=true&ssl_ca_certs=/ca.pem"
    )
    assert (("one", 26379), ("two", 77), ("::1", 78)) == found.nodes
    assert ("main", True) == (found.service, found.tls)
    assert {"db": 3, "username": "ann", "password": "a@b", "ssl_ca_certs": "/ca.pem"} == found.master
    assert {"username": "eve", "password": "c", "ssl_ca_certs": "/ca.pem"} == found.sentinels


@pytest.mark.parametrize(
    "url", ["redis+sentinel://host", "redis+sentinel://host:x/main", "redis+sentinel://h/m/db"]
)
def test_a_url_that_says_too_little(url: str) -> None:
    """Refused as wrong usage, naming what is missing."""
    with pytest.raises(ConfigError, match=r"redis\+sentinel"):
        SentinelUrl.parse(url)
