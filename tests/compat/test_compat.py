"""Networks as earlier releases left them: this one reads and continues them, or refuses them as a whole."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from contents import ARRAY, BOARD, BUDGET, FAILED, NETWORK, QUEUED, RUNNING, SECRET, TAKEN, VALUES

from harness import Server, binaries
from rushlight import Rush, RushWorker, WorkerState
from rushlight._spec import load_spec, open_code
from rushlight._store_base import FORMAT
from rushlight.errors import DecodeError, StoreVersion

ASSETS = sorted(Path(__file__).with_name("assets").glob("format-*.json"))
#: Formats this release reads.
READ = {FORMAT}


def restore(raw: redis.Redis, asset: dict[str, Any], epoch: str | None = None) -> None:
    """Puts the keys of an asset on a server; under another epoch, where one is given."""
    for key, held in asset["keys"].items():
        parts = [base64.b64decode(part) for part in held["parts"]]
        match held["type"]:
            case "hash":
                raw.hset(key, items=parts)
            case "list":
                raw.rpush(key, *parts)
            case "set":
                raw.sadd(key, *parts)
            case "zset":
                raw.zadd(key, dict(zip(parts[::2], map(float, parts[1::2]), strict=True)))
            case "stream":
                # Only the log, whose entries have two fields.
                for i in range(0, len(parts), 5):
                    raw.execute_command("XADD", key, *parts[i : i + 5])
    if epoch is not None:
        raw.hset(f"rl:{{{NETWORK}}}:control", "epoch", epoch)


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    """A server of the test's own."""
    found = Server(str(binaries()["valkey"]))
    yield found
    found.close()


@pytest.fixture(params=ASSETS, ids=lambda path: path.stem)
def asset(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a release has left."""
    return json.loads(request.param.read_text(encoding="utf-8"))


@pytest.fixture
def rush(server: Server, asset: dict[str, Any]) -> Iterator[Rush]:
    """A manager on a network some release has left, in a format this one reads."""
    if asset["format"] not in READ:
        pytest.skip("refused, as another test shows")
    with server.client() as raw:
        restore(raw, asset)
    with Rush(NETWORK, server.url, secret=SECRET) as manager:
        yield manager


def test_this_format_has_its_assets() -> None:
    """A format is stored by the release that brings it (``make_assets.py``)."""
    assert f"format-{FORMAT}" in [path.stem for path in ASSETS]


def test_every_task_is_read(rush: Rush) -> None:
    """Values of all types, failures, and where each task stands."""
    finished = rush.fetch_finished_tasks(as_="tasks")
    assert VALUES == [task.xs["value"] for task in finished[:-1]]
    assert VALUES == [task.ys["same"] for task in finished[:-1]]
    assert [type(v) for v in VALUES] == [type(task.ys["same"]) for task in finished[:-1]]
    last = finished[-1]
    assert ARRAY.dtype == last.ys["same"].dtype
    np.testing.assert_array_equal(ARRAY, last.ys["same"])
    assert ({"note": "own"}, {"cost": 1}, "ann", 1) == (
        last.xs_extra, last.ys_extra, last.worker_id, last.attempt,
    )  # fmt: skip
    failed = {task.xs["name"]: task.condition for task in rush.fetch_failed_tasks(as_="tasks")}
    assert {name: condition["message"] for name, condition in failed.items()} == FAILED
    assert "ZeroDivisionError" == failed["failed by an error"]["type"]
    assert sorted(QUEUED) == sorted(task.xs["name"] for task in rush.fetch_queued_tasks(as_="tasks"))
    assert sorted(RUNNING) == sorted(task.xs["name"] for task in rush.fetch_running_tasks(as_="tasks"))
    assert len(finished) == rush.fetch_finished_tasks().height


def test_workers_logs_and_boards_are_read(rush: Rush) -> None:
    """Who was there and how it ended, what was logged, who leads."""
    states = {info.worker_id: info.state for info in rush._store.workers()}
    assert {"ann": WorkerState.RUNNING, "bob": WorkerState.TERMINATED} == states
    assert ["a line"] == rush.read_log()["msg"].to_list()
    assert [name for name, _ in BOARD] == [row[0] for row in rush.leaderboard("best").top(3)]
    assert 42 == rush.seed_sequence(rush.keys("finished")[0]).entropy


def test_work_goes_on(rush: Rush, server: Server) -> None:
    """A worker of today takes what was queued, in its order, and what was for the old worker once that is
    no more; the budget goes on where it stood."""
    with RushWorker(NETWORK, server.url, secret=SECRET, worker_id="eve") as eve:
        taken = [task for task in eve.pop_tasks(10, timeout=5) if task.xs["name"] != "tried once"]
        assert TAKEN == [task.xs["name"] for task in taken]
        assert [True] * len(taken) == eve.finish_tasks([t.key for t in taken], [{"y": 1}] * len(taken))
        budget = eve.budget(BUDGET, "units")
        assert [True] * (BUDGET - 1) == [budget.take() for _ in range(BUDGET - 1)]
        rush.stop_workers("kill", ["ann"])
        message = {
            task.xs.get("name"): task.condition["message"] for task in rush.fetch_failed_tasks(as_="tasks")
        }
        assert "Worker was killed" == message["running"]
        assert message["waits"].startswith("Prerequisite failed")
        # The unit the old worker had taken comes back with it.
        assert [True, False] == [budget.take(), budget.take()]
        freed = eve.pop_task(timeout=5)
        assert "for one worker" == freed.xs["name"]


def test_start_arguments_are_read(rush: Rush, server: Server, asset: dict[str, Any]) -> None:
    """A loop can be had again by its signature; a pickle of another Python says so instead of crashing."""
    with server.client() as raw:
        (spec_id,) = raw.hkeys(rush._store.keys["specs"])
    spec = load_spec(rush._store, spec_id.decode())
    if asset["python"].split(".")[:2] == [str(n) for n in sys.version_info[:2]]:
        loop, kwargs, _ = open_code(rush._store, spec)
        assert 3 == loop(None, **kwargs)
    else:
        with pytest.raises(DecodeError, match="minor version"):
            open_code(rush._store, spec)


CALLS: dict[str, Callable[[Rush], Any]] = {
    "push": lambda rush: rush.push_tasks([{"x": 1}]),
    "fetch": lambda rush: rush.fetch_tasks(),
    "fetch new": lambda rush: rush.fetch_new_tasks(),
    "counts": lambda rush: rush.counts(),
    "states": lambda rush: rush.states(["a"]),
    "task": lambda rush: rush.task("a"),
    "wait": lambda rush: rush.wait_for_tasks(["a"], timeout=1),
    "workers": lambda rush: rush.worker_info,
    "stop": lambda rush: rush.stop_workers(),
    "reset": lambda rush: rush.reset(),
    "start": lambda rush: rush.start_workers(print, 1),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_later_format_is_refused(server: Server, call: str) -> None:
    """By whatever a manager does with it, and by workers; nothing of it is changed."""
    asset = json.loads(ASSETS[-1].read_text(encoding="utf-8"))
    with server.client() as raw:
        restore(raw, asset, epoch=f"{FORMAT + 1}.abcdefghijkl")
        before = {key: raw.dump(key) for key in raw.keys("*")}
        with Rush(NETWORK, server.url, secret=SECRET) as rush:
            with pytest.raises(StoreVersion, match=f"format {FORMAT + 1}") as caught:
                CALLS[call](rush)
            assert {"found": FORMAT + 1, "supported": FORMAT} == caught.value.fields
        with pytest.raises(StoreVersion):
            RushWorker(NETWORK, server.url, secret=SECRET)
        assert before == {key: raw.dump(key) for key in raw.keys("*")}
