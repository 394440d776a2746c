"""Packets lost, doubled, held back and delivered in the wrong order, by a proxy between clients and server:
not one task twice, not one lost."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

import pytest
from chaos.proxy import FaultProxy

from ground import Ground
from harness import Background, Server, wait_until
from rushlight import Rush, RushWorker
from rushlight.errors import WorkerLost

N = 60


@pytest.fixture
def proxy(any_server: Server, ground: Ground) -> Iterator[FaultProxy]:
    """In front of the server; gone in the end, as are its connections."""
    proxy = FaultProxy(str(any_server.socket))
    yield proxy
    proxy.close()


def is_script(request: list[bytes]) -> bool:
    """Whether a request is a call of a script with keys: nothing that only asks about the server."""
    return request[0] == b"EVALSHA"


def spoil(proxy: FaultProxy, how: str, n: int = 1, chosen: Callable[[list[bytes]], bool] = is_script) -> None:
    """The next n calls of scripts go wrong in one way."""
    proxy.orders.chosen = chosen
    if how == "late":
        proxy.orders.late = 0.05
        how = "twice"
    setattr(proxy.orders, how, n)


FAULTS = ("lose_replies", "lose_requests", "twice", "late", "hold")


@pytest.mark.parametrize("how", FAULTS)
def test_work_goes_on_and_each_task_is_done_once(ground: Ground, proxy: FaultProxy, how: str) -> None:
    """Every third call goes wrong while tasks are queued, created, taken and finished: in the end each is
    there once, under a number of its own, with its own result, and each answer was that of its call."""
    with (
        Rush(ground.network, proxy.url) as rush,
        RushWorker(ground.network, proxy.url, heartbeat=False, lease=600.0) as worker,
    ):
        keys, done = [], []
        for i in range(N // 3):
            spoil(proxy, how, i % 3 == 0)
            keys += rush.push_tasks([{"i": i}])
            spoil(proxy, how, i % 3 == 1)
            task = worker.pop_task(timeout=30.0)
            assert task is not None
            done.append(task.key)
            spoil(proxy, how, i % 3 == 2)
            own = worker.push_running_task({"i": N + i})
            spoil(proxy, how, i % 2)
            assert [True, True] == worker.finish_tasks([task.key, own], [{"y": i}, {"y": N + i}])
            keys.append(own)
            done.append(own)
            if i % 5 == 0:
                proxy.release()
        proxy.release()
        assert sorted(keys) == sorted(done)
    found = ground.account()
    assert dict.fromkeys(keys, "finished") == found.states()
    assert all(row[4]["i"] == row[10]["y"] for row in found.finished)
    assert (
        proxy.counts.lost_replies + proxy.counts.lost_requests + proxy.counts.twice + proxy.counts.held
        > N // 3
    )


def test_many_at_once_through_a_bad_line(ground: Ground, proxy: FaultProxy) -> None:
    """Workers and managers in threads, a line that loses, doubles and holds back at random: every task is
    taken by one worker and finished once."""
    over, calls = threading.Event(), itertools.count()

    def every_third(request: list[bytes]) -> bool:
        # Else, on a slow machine, each try of a call goes wrong until its patience is over.
        return is_script(request) and next(calls) % 3 == 0

    def work(n: int) -> list[str]:
        mine = []
        with RushWorker(ground.network, proxy.url, worker_id=f"w{n}", heartbeat=False, lease=600.0) as worker:
            while not over.is_set():
                task = worker.pop_task(timeout=0.2)
                if task is not None:
                    assert worker.finish_task(task.key, {"y": task.xs["i"]})
                    mine.append(task.key)
        return mine

    def push(n: int) -> list[str]:
        with Rush(ground.network, proxy.url) as rush:
            return [key for i in range(N) for key in rush.push_tasks([{"i": (n, i)}])]

    workers, pushers = [Background(work, n) for n in range(3)], [Background(push, n) for n in range(2)]
    while not all(pusher.done for pusher in pushers):
        for how in FAULTS:
            spoil(proxy, how, 1, every_third)
            over.wait(0.02)
        proxy.release()
    proxy.orders.hold = 0
    proxy.release()
    keys = [key for pusher in pushers for key in pusher.result(60)]
    wait_until(lambda: ground.store.totals().tasks.finished == 2 * N, 60)
    over.set()
    done = [key for worker in workers for key in worker.result(60)]
    assert sorted(keys) == sorted(done)
    assert dict.fromkeys(keys, "finished") == ground.states()


def held_back(proxy: FaultProxy, call: Callable[[], object], chosen: Callable[[list[bytes]], bool]) -> None:
    """Makes a call whose first packet is held; the second one, sent after the line broke, does its work."""
    proxy.orders.chosen, proxy.orders.hold = chosen, 1
    call()
    assert 0 == proxy.orders.hold


def test_packets_from_before_a_reset_do_nothing_after_it(ground: Ground, proxy: FaultProxy) -> None:
    """Held back in front of a reset and let go behind it, neither a task nor a result comes of them."""
    worker = RushWorker(ground.network, proxy.url, heartbeat=False, lease=600.0)
    with Rush(ground.network, proxy.url) as rush:
        rush.push_tasks([{"i": 0}])
        held_back(proxy, lambda: rush.push_tasks([{"i": 1}]), is_script)
        held_back(proxy, lambda: worker.push_running_task({"i": 2}), is_script)
        task = worker.pop_task()
        assert task is not None
        held_back(proxy, lambda: worker.finish_task(task.key, {"y": 1}), is_script)
        rush.reset(workers=False)
        new = rush.push_tasks([{"i": 3}])
        replies = proxy.release()
        assert 3 == len(replies)
        assert dict.fromkeys(new, "queued") == ground.states()
        worker.close()


def test_a_result_held_back_beyond_its_attempt_is_refused(ground: Ground, proxy: FaultProxy) -> None:
    """The worker is declared lost while its result is on the way, and another attempt goes on: the packet
    that comes at last decides nothing."""
    slow = ground.member("slow", on_lost="requeue")
    with RushWorker(ground.network, proxy.url, worker_id="next", heartbeat=False, lease=600.0) as worker:
        (key,) = ground.push(retries=1)
        assert [key] == ground.claim(slow)
        through = ground.another()
        late = Background(_finish_through, proxy, through.config, slow, ground, key)
        wait_until(lambda: proxy.counts.held == 1)
        late.result(30)
        ground.expire(slow)
        assert ["slow"] == ground.store.reap()
        task = worker.pop_task()
        assert task is not None
        assert (key, 2) == (task.key, task.attempt)
        proxy.release()
        assert {key: "running"} == ground.states()
        assert worker.finish_task(key, {"y": "second"})
        assert "second" == ground.account().finished[0][10]["y"]
    with pytest.raises(WorkerLost):
        slow.begin(ground.encode())


def _finish_through(proxy: FaultProxy, config: object, slow: object, ground: Ground, key: str) -> None:
    """Sends a member's result to the proxy, which holds it, and hears no more of it."""
    import socket

    call = ground.store.scripts.settle(
        (slow._epoch, "slow", slow.card.token, True), "f", slow._first, key, ground.payload(y="first")
    )
    proxy.orders.chosen, proxy.orders.hold = is_script, 1
    with socket.create_connection(("127.0.0.1", proxy.port)) as plain:
        plain.sendall(call)
        wait_until(lambda: proxy.counts.held == 1)
