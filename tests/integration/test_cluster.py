"""Networks on a Redis Cluster: three real masters on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from harness import serve
from harness import wait_until as until
from rushlight import Rush

SLOTS = (0, 5461, 10922, 16384)


def free_ports(n: int) -> list[int]:
    """Ports whose cluster bus (10,000 above) is a port too."""
    held = []
    while len(held) < n:
        sock = socket.create_server(("127.0.0.1", 0))
        if sock.getsockname()[1] < 55_000:
            held.append(sock)
        else:
            sock.close()
    ports = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[redis.Redis]]:
    """Three masters that share the slots."""
    binary = shutil.which("redis-server")
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is needed here")
        pytest.skip("redis-server is not installed")
    folder = tmp_path_factory.mktemp("cluster")
    nodes, clients = [], []
    try:
        for port in free_ports(3):
            home = Path(folder, str(port))
            home.mkdir()
            options = ["--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", ""]
            nodes.append(subprocess.Popen([binary, *options, "--dir", str(home)], stdout=subprocess.DEVNULL))
            clients.append(redis.Redis(port=port, protocol=2))
        for client in clients:
            until(lambda client=client: answers(client))
        for i, client in enumerate(clients):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", SLOTS[i], SLOTS[i + 1] - 1)
            port = client.connection_pool.connection_kwargs["port"]
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        for client in clients:
            until(lambda client=client: "ok" == client.execute_command("CLUSTER INFO")["cluster_state"])
        yield clients
    finally:
        for client in clients:
            client.close()
        for node in nodes:
            node.terminate()
            node.wait()


def answers(client: redis.Redis) -> bool:
    """Whether the node is there yet."""
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.slow
def test_networks_live_on_their_shards(cluster: list[redis.Redis], home: Path) -> None:
    """Each network is found on the master that has its slot, by its manager and its workers alike."""
    port = cluster[0].connection_pool.connection_kwargs["port"]
    used = set()
    for name in ("aa", "bb", "cc", "dd"):
        with Rush(name, url=f"redis+cluster://127.0.0.1:{port}") as rush:
            rush.start_workers(serve, 2)
            keys = rush.push_tasks([{"x": i} for i in range(10)])
            assert "done" == rush.wait_for_tasks(keys, timeout=60).reason
            used.add(next(i for i, client in enumerate(cluster) if client.dbsize()))
            rush.reset()
            assert [0, 0, 0] == [client.dbsize() for client in cluster]
    assert len(used) > 1


def move_slot(cluster: list[redis.Redis], network: str) -> None:
    """Moves the slot of a network, keys and all, to the next master, as an operator does it."""
    slot = cluster[0].execute_command("CLUSTER", "KEYSLOT", f"rl:{{{network}}}:control")
    owner = next(i for i in range(3) if SLOTS[i] <= slot < SLOTS[i + 1])
    source, target = cluster[owner], cluster[(owner + 1) % 3]
    old, new = (node.execute_command("CLUSTER MYID") for node in (source, target))
    port = target.connection_pool.connection_kwargs["port"]
    target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old)
    source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new)
    while keys := source.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
        source.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 10_000, "KEYS", *keys)
    for node in (target, source, *cluster):
        node.execute_command("CLUSTER SETSLOT", slot, "NODE", new)


@pytest.mark.slow
def test_work_goes_on_while_a_slot_moves(cluster: list[redis.Redis], home: Path) -> None:
    """Managers, waits and workers follow their network to another master; every task is done once."""
    port = cluster[0].connection_pool.connection_kwargs["port"]
    with Rush("moving", url=f"redis+cluster://127.0.0.1:{port}") as rush:
        rush.start_workers(serve, 2)
        rush.wait_for_workers(2, timeout=60)
        before = rush.push_tasks([{"x": i} for i in range(300)])
        move_slot(cluster, "moving")
        after = rush.push_tasks([{"x": i} for i in range(300, 400)])
        assert "done" == rush.wait_for_tasks(before + after, timeout=60).reason
        assert list(range(400)) == sorted(row["y"] for row in rush.fetch_finished_tasks(as_="dicts"))
        assert 2 == rush.n_running_workers
        rush.reset()
    assert [0, 0, 0] == [client.dbsize() for client in cluster]
