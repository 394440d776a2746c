"""Code and pickles on the server that are not what the network's own people put there: they are never run and
told plainly; and no worker ends for a value it cannot read."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

import rushlight._trust as trust_module
from rushlight import Rush, RushWorker, worker_loop
from rushlight import _ext as ext
from rushlight.errors import SignatureMismatch, WorkerStartError

Wait = Callable[..., None]


class Own:
    """A class of the user's: its objects are pickled."""


class Bomb:
    """Says that it was unpickled, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def specs_of(server: redis.Redis, network: str) -> str:
    """The key that holds start arguments."""
    return f"rl:{{{network}}}:specs"


def refused(rush: Rush, ids: list[str]) -> str:
    """Why the workers did not start."""
    with pytest.raises(WorkerStartError) as caught:
        rush.wait_for_workers(worker_ids=ids, timeout=60)
    return str(caught.value)


def start_with(rush: Rush, monkeypatch: pytest.MonkeyPatch, change: Callable[[str], None]) -> list[str]:
    """Workers whose start arguments were changed between their launch and their first look."""
    launch = Rush._launch

    def changed(self: Rush, chosen: Any, spec_id: str, *others: Any) -> None:
        change(spec_id)
        launch(self, chosen, spec_id, *others)

    monkeypatch.setattr(Rush, "_launch", changed)
    return rush.start_workers(worker_loop(str))


def test_start_arguments_that_were_changed(
    rush: Rush, server: redis.Redis, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit, or the end cut off: the worker does not start, and says why."""
    key = specs_of(server, network)
    for damage in (lambda raw: raw[:-1], lambda raw: raw[:90] + bytes([raw[90] ^ 1]) + raw[91:]):
        with monkeypatch.context() as patch:
            ids = start_with(
                rush, patch, lambda s, damage=damage: server.hset(key, s, damage(server.hget(key, s)))
            )
            assert "SignatureMismatch: not to be trusted, and not read" in refused(rush, ids)
        rush.reset()


def test_start_arguments_of_another_time(
    rush: Rush, server: redis.Redis, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Genuine ones of the same network under another's id (a replay) are not what was to be run."""
    old = rush.start_workers(lambda worker: None)
    rush.wait_for_workers(worker_ids=old)
    key = specs_of(server, network)
    (sealed,) = server.hvals(key)
    ids = start_with(rush, monkeypatch, lambda spec_id: server.hset(key, spec_id, sealed))
    assert "are other start arguments than were stored there" in refused(rush, ids)


def test_start_arguments_of_another_network(
    rush: Rush, server: redis.Redis, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same secret does not make them ours."""
    with Rush(f"{network}-other") as other:
        ids = other.start_workers(lambda worker: None)
        other.wait_for_workers(worker_ids=ids)
        (sealed,) = server.hvals(specs_of(server, other.network))
        other.reset()
    ids = start_with(
        rush, monkeypatch, lambda spec_id: server.hset(specs_of(server, network), spec_id, sealed)
    )
    assert f"signed for the network '{network}-other', not for '{network}'" in refused(rush, ids)


def test_a_loop_of_another_python(rush: Rush, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager of another minor version: the worker names both, and what to do."""
    monkeypatch.setattr(trust_module, "PYTHON", "3.9")
    ids = rush.start_workers(worker_loop(str))
    why = refused(rush, ids)
    assert "worker loop was pickled by Python 3.9" in why or "loop arguments was pickled by Python 3.9" in why
    assert "run manager and workers on the same minor version" in why


@pytest.mark.parametrize("retries", [0, 2])
def test_a_task_that_cannot_be_read_fails_alone(
    network: str, wait_until: Wait, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    """Pushed under another secret: it fails with the reason, the workers go on, and their log tells."""
    monkeypatch.setenv("RUSHLIGHT_SECRET", "the secret of the network")
    with Rush(network) as rush, Rush(network, secret="the secret of a stranger") as stranger:
        ids = rush.start_workers(worker_loop(lambda x: 1), 2)
        rush.wait_for_workers(2)
        bad = stranger.push_tasks([{"x": Own()}] * 5, max_retries=retries)
        good = rush.push_tasks([{"x": Own()}] * 5)
        result = rush.wait_for_tasks([*bad, *good], timeout=60)
        assert (bad, good) == (result.failed, result.done)
        failed = stranger.task(bad[0])
        assert ("SignatureMismatch", retries + 1) == (failed.condition["type"], failed.attempt)
        assert "signed with another secret" in failed.condition["message"]
        assert sorted(ids) == rush.running_worker_ids
        wait_until(lambda: any("cannot be read, and fails" in line for line in rush.read_log()["msg"]))
        # Whoever pops by hand is given the next that can be read.
        with RushWorker(network) as worker:
            rush.stop_workers("kill", ids)
            stranger.push_tasks([{"x": Own()}] * 2)
            (mine,) = rush.push_tasks([{"x": 1}])
            assert mine == worker.pop_task(timeout=30).key
            assert [] == worker.pop_tasks(5, timeout=0)


def test_a_pickle_that_nobody_signed_is_not_run(
    rush: Rush, worker: RushWorker, server: redis.Redis, network: str, tmp_path: Path
) -> None:
    """Written into a queued task by whoever can write to the server: the task fails, nothing is executed."""
    (key,) = rush.push_tasks([{"x": "here"}])
    queued = f"rl:{{{network}}}:queued"
    bomb = msgspec.msgpack.encode(msgspec.msgpack.Ext(ext.PICKLE, pickle.dumps(Bomb(tmp_path / "ran"))))
    raw = server.hget(queued, key)
    assert raw.count(b"\xa4here") == 1
    server.hset(queued, key, raw.replace(b"\xa4here", bomb))
    assert worker.pop_task(timeout=0.5) is None
    assert ["failed"] == rush.states([key])
    with pytest.raises(SignatureMismatch):
        rush.fetch_tasks()
    assert not (tmp_path / "ran").exists()
