"""Clocks that are wrong or jump: the server's decides, and a jump loses nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.server import ChaosServer, faketime

from ground import Ground
from harness import Background, wait_until
from rushlight import Rush, RushWorker

DAY = 86400.0


@pytest.fixture
def clocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosServer]:
    """A server whose wall clock can be turned."""
    if not faketime(Path()):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no libfaketime on this machine")
    server = ChaosServer(tmp_path_factory.mktemp("rlk"))
    yield server
    server.close()


@pytest.fixture
def ground(clocked: ChaosServer, network: str) -> Iterator[Ground]:
    """A network on it."""
    ground = Ground(clocked, network)
    yield ground
    ground.close()


def turn(ground: Ground, server: ChaosServer, seconds: float) -> None:
    """Turns the server's clock, and waits until it goes by the new time."""
    server.turn(seconds)
    wait_until(lambda: abs(ground.raw.time()[0] - time.time() - seconds) < 60)


def test_a_jump_forward_ends_what_was_not_renewed(ground: Ground, clocked: ChaosServer) -> None:
    """Whoever renews first after the jump stays; of the others somebody finds that their lease is over, and
    their tasks have failed or wait for their next attempt."""
    kept, lost = ground.member("kept"), ground.member("lost", on_lost="requeue")
    ground.begin(kept)
    keys = [*ground.push(1, retries=1), *ground.push(1)]
    assert keys == ground.claim(lost, 2)
    turn(ground, clocked, DAY)
    assert "r" == ground.store.beat([("kept", kept.card.token)], 600.0).letters
    assert ["lost"] == ground.store.reap()
    states = ground.states()
    assert ["queued", "failed"] == [states[key] for key in keys]
    assert not ground.finish(lost, keys[0])
    assert [keys[0]] == ground.claim(kept)
    assert ground.finish(kept, keys[0], 2, y=1)


def test_a_jump_back_ends_nothing(ground: Ground, clocked: ChaosServer) -> None:
    """Leases and time limits last longer by as much; work, order and waits go on."""
    worker = ground.member()
    (limited,) = ground.begin(worker)
    waiting = Background(ground.claim, ground.member(), timeout=60.0)
    wait_until(lambda: ground.raw.info("clients")["blocked_clients"] == 1)
    turn(ground, clocked, -DAY)
    keys = ground.push()
    assert keys == waiting.result(30)
    assert ground.finish(worker, limited, y=1)
    more = ground.push(3)
    assert more == ground.claim(worker, 3)
    assert all(ground.finish(worker, key, y=1) for key in more)
    assert [] == ground.store.reap()
    assert [limited, *more] == [row[3] for row in ground.account().finished]
    turn(ground, clocked, 0.0)
    assert [] == ground.store.reap()


def test_a_turn_does_not_outlast_a_jump_back(ground: Ground, clocked: ChaosServer) -> None:
    """Controllers do not wait a day for one that was killed in its turn."""
    assert ground.store.lead("of one that is killed", 30.0)
    assert not ground.store.lead("another", 5.0)
    turn(ground, clocked, -DAY)
    assert ground.store.lead("another", 5.0)
    assert not ground.store.lead("a third", 5.0)


def test_a_participant_whose_clock_is_wrong_harms_nothing(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day ahead, a day behind, or jumping: leases and the times in tables are the server's."""
    true = time.time
    wrong = [DAY]
    monkeypatch.setattr(time, "time", lambda: true() + wrong[0])
    with (
        Rush(ground.network, ground.url) as rush,
        RushWorker(ground.network, ground.url, worker_id="ann", lease=1.0) as worker,
    ):
        for wrong[0] in (DAY, -DAY, 0.0, DAY):
            key = worker.push_running_task({"x": 1})
            assert worker.finish_task(key, {"y": 1})
            assert [] == rush.detect_lost_workers()
        renewed = float(rush.worker_info["heartbeat"][0])
        wait_until(lambda: float(rush.worker_info["heartbeat"][0]) > renewed)
        assert ["ann"] == rush.running_worker_ids
        server = ground.raw.time()[0]
        task = rush.task(key)
        assert all(abs(at - server) < 60 for at in (task.created_at, task.started_at, task.finished_at))


def test_a_killed_server_with_a_clock_of_its_own_leaves_nothing(clocked: ChaosServer) -> None:
    """The memory that the library of the clock shares between processes goes with it."""
    shared = f"*faketime*_{clocked.pid}"
    assert 2 == len(list(Path("/dev/shm").glob(shared)))
    clocked.kill()
    assert [] == list(Path("/dev/shm").glob(shared))
