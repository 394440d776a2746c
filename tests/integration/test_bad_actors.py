"""A worker that behaves badly: the others go on, nothing of theirs is lost, and everybody sees who it was."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest
import redis

from harness import Server
from rushlight import Rush, RushWorker, worker_loop
from rushlight._server import find_binary
from rushlight._store_roster import LOG_LIMIT
from rushlight.errors import ConfigError, EncodeError

Wait = Callable[..., None]


@pytest.fixture
def small_server() -> Iterator[Server]:
    """A server with room for little."""
    server = Server(str(find_binary()), "--maxmemory", "60mb", "--maxmemory-policy", "noeviction")
    yield server
    server.close()


def serve(worker):
    """Do tasks from the queue, and say so."""
    log = logging.getLogger("good")
    while not worker.terminated:
        task = worker.pop_task(timeout=5)
        if task is not None:
            log.info("did %s", task.xs["x"])
            worker.finish_task(task.key, {"y": task.xs["x"]})


def flood(worker):
    """Log and print without end, until told to leave; then say how much it was."""
    import sys

    log, n = logging.getLogger("bad"), 0
    key = worker.push_running_task({"x": "flood"})
    while not worker.terminated:
        for _ in range(500):
            n += 1
            log.warning("line %d", n)
            print("line", n)
    sys.stdout.flush()
    worker.finish_task(key, {"y": n})


def test_a_flood_of_log_lines(rush: Rush, server: redis.Redis, network: str, wait_until: Wait) -> None:
    """It loses its own lines and is told so by name; the others' lines and tasks are all there."""
    (good,) = rush.start_workers(serve, log_level="info")
    first = rush.push_tasks([{"x": i} for i in range(50)])
    assert first == rush.wait_for_tasks(first, timeout=60).done
    (bad,) = rush.start_workers(flood, log_level="info")
    rush.wait_for_workers(worker_ids=[bad])
    logs = f"rl:{{{network}}}:logs"
    wait_until(lambda: LOG_LIMIT <= server.xlen(logs), 90)
    more = rush.push_tasks([{"x": i} for i in range(50, 60)], workers=good)
    assert more == rush.wait_for_tasks(more, timeout=60).done
    rush.stop_workers("terminate", [bad])
    wait_until(lambda: bad in rush.terminated_worker_ids)
    rush.stop_workers("terminate", [good])
    wait_until(lambda: good in rush.terminated_worker_ids)
    log = rush.read_log()
    said = log.filter(pl.col("worker_id") == good)["msg"].to_list()
    assert [f"did {i}" for i in range(60)] == [text for text in said if text.startswith("did")]
    assert log.height <= 1.1 * LOG_LIMIT
    told = log.filter((pl.col("worker_id") == bad) & (pl.col("logger") == "rushlight"))["msg"].to_list()
    assert any("dropped: the worker logged more than" in text for text in told)
    newest = log.filter((pl.col("worker_id") == bad) & (pl.col("logger") == "bad"))["msg"].to_list()
    assert newest == sorted(newest, key=lambda text: int(text.split()[1]))


def test_results_for_tasks_of_others(rush: Rush, network: str, wait_until: Wait) -> None:
    """Running, queued and finished ones: all refused, the tasks go on, and the log says who it was."""
    with RushWorker(network) as honest:
        running = honest.push_running_task({"x": 1})
        finished = honest.push_running_task({"x": 2})
        honest.finish_task(finished, {"y": "mine"})
        (queued,) = rush.push_tasks([{"x": 3}])

        def meddle(worker, keys):
            said = [worker.finish_tasks(keys, [{"y": "theirs"}] * 3), worker.fail_tasks(keys)]
            worker.finish_task(worker.push_running_task({"x": "told"}), {"y": [*said[0], *said[1]]})

        (bad,) = rush.start_workers(meddle, kwargs={"keys": [running, queued, finished]})
        wait_until(lambda: bad in rush.terminated_worker_ids)
        (told,) = (ys for ys in rush.fetch_finished_tasks()["y"] if ys != "mine")
        assert [False] * 6 == list(told)
        assert ["running", "queued", "finished"] == rush.states([running, queued, finished])
        assert honest.finish_task(running, {"y": "mine"})
        assert ["mine", "mine"] == [rush.task(key).ys["y"] for key in (finished, running)]
        log = rush.read_log([bad])
        for key in (running, queued, finished):
            assert 2 == log.filter(pl.col("msg").str.contains(f"{key} came too late")).height


def contents(server: redis.Redis) -> dict[bytes, bytes]:
    """Everything stored, but what time alone changes."""
    names = [name for name in server.scan_iter() if not name.endswith((b":leases", b":events"))]
    return {name: server.dump(name) for name in names}


STRANGE = ["", "no such task", "a\0b", "x" * 100_000, "\ud800", "../../etc/passwd", "rl:{other}:queue"]


@pytest.mark.parametrize("key", STRANGE, ids=range(len(STRANGE)))
def test_keys_that_are_none(
    rush: Rush, worker: RushWorker, server: redis.Redis, network: str, key: str
) -> None:
    """Refused by name, and nothing of the kind is written anywhere."""
    own = worker.push_running_task({"x": 1})
    before = contents(server)
    for call in (
        lambda: worker.finish_task(key, {"y": 1}),
        lambda: worker.fail_task(key),
        lambda: worker.finish_tasks([own, key], [{"y": 1}] * 2),
        lambda: rush.cancel_tasks([key]),
        lambda: rush.retry_tasks([key]),
        lambda: rush.push_tasks([{"x": 1}], after=[[key]]),
        lambda: rush.task(key),
    ):
        with pytest.raises(ConfigError):
            call()
    assert before == contents(server)


def test_a_worker_that_never_renews(rush: Rush, network: str, wait_until: Wait) -> None:
    """It is lost once its lease has run out; its task goes on elsewhere, under its name no more."""
    silent = RushWorker(network, heartbeat=False, lease=0.5)
    (key,) = rush.push_tasks([{"x": 1}], max_retries=1)
    assert key == silent.pop_task().key
    wait_until(lambda: silent.worker_id in rush.lost_worker_ids)
    (row,) = (row for row in rush.fetch_workers(as_="tasks") if row.worker_id == silent.worker_id)
    assert ("lost", None, 1) == (row.state, row.current_task, row.n_failed)
    assert silent.worker_id == rush.task(key).worker_id
    silent.close()


def hoard(worker):
    """Take all there is, and stand still."""
    worker.pop_tasks(100)
    threading.Event().wait()


def test_a_worker_that_takes_everything_and_hangs(rush: Rush, wait_until: Wait) -> None:
    """Its tasks' time limits end it, again and again; others do what is put back, and the table says who."""
    keys = rush.push_tasks([{"x": i} for i in range(20)], timeout=0.5, max_retries=20)
    (bad,) = rush.start_workers(hoard)
    wait_until(lambda: rush.n_running_tasks == 20)
    assert {bad} == set(rush.fetch_running_tasks()["worker_id"])
    rush.start_workers(serve, 1)
    assert keys == rush.wait_for_tasks(keys, timeout=90).done
    assert bad not in set(rush.fetch_finished_tasks()["worker_id"])


def test_a_hoard_without_limits_is_seen_and_ended(rush: Rush, wait_until: Wait) -> None:
    """Where no limit was given, the tables show who holds what since when, and killing it frees the rest."""
    rush.push_tasks([{"x": i} for i in range(20)])
    (bad,) = rush.start_workers(hoard)
    wait_until(lambda: rush.n_running_tasks == 20)
    held = rush.fetch_running_tasks()
    assert {bad} == set(held["worker_id"])
    assert all(start <= time.time() + 60 for start in held["started_at"])
    assert rush.worker_info["current_task"][0] in rush.keys("running")
    assert [bad] == rush.stop_workers("kill", [bad])
    assert {"Worker was killed"} == set(rush.fetch_failed_tasks()["condition"])
    assert (0, 20) == (rush.n_running_tasks, rush.n_failed_tasks)


NOT_UNICODE = "no file of the name \udcff\ud800"
ESCAPED = "no file of the name \\udcff\\ud800"


def fail_strangely(worker):
    """Log, fail a task and end the loop with words that are no Unicode, as names of files may be."""
    logging.getLogger(NOT_UNICODE).error(NOT_UNICODE)
    worker.fail_task(worker.push_running_task({"x": 1}), ValueError(NOT_UNICODE))
    worker.push_running_task({"x": 2})
    raise OSError(NOT_UNICODE)


@pytest.mark.parametrize("form", ["polars", "pandas", "arrow", "dicts", "tasks"])
def test_words_that_are_no_unicode(rush: Rush, form: str) -> None:
    """They are shown escaped wherever they come up: they harm neither other workers nor anybody's tables."""

    def both(worker):
        task = worker.pop_task(timeout=60)
        fail_strangely(worker) if task.xs["bad"] else worker.finish_task(task.key, {"y": 1})

    ids = rush.start_workers(both, 2)
    rush.wait_for_workers(2)
    (bad,) = rush.push_tasks([{"bad": True}])
    assert [bad] == rush.wait_for_tasks([bad], timeout=60).failed
    (good,) = rush.push_tasks([{"bad": False}])
    assert [good] == rush.wait_for_tasks([good], timeout=60).done
    table = rush.fetch_tasks(as_=form)
    assert 4 == len(table)
    failed = rush.fetch_failed_tasks(as_="tasks")
    assert [ESCAPED] * 3 == [task.condition["message"] for task in failed]
    assert sorted(ids) == sorted(rush.worker_info["worker_id"])
    assert f"OSError: {ESCAPED}" in rush.worker_info["reason"].to_list()
    assert ESCAPED in rush.read_log()["msg"].to_list()


@pytest.mark.parametrize("form", ["polars", "pandas", "arrow", "dicts", "tasks"])
def test_columns_of_strange_names(rush: Rush, worker: RushWorker, form: str) -> None:
    """Whatever text a column is called by, every form of table can be made."""
    names = ["a\0b", "", " ", "key", "state", "x" * 5000, "\x1b[31m", "é\u202e"]
    worker.finish_task(worker.push_running_task({"x": 1}), dict.fromkeys(names, 1))
    assert 1 == len(rush.fetch_tasks(as_=form))


def test_messages_without_end(rush: Rush, worker: RushWorker) -> None:
    """A message is cut where nobody would read on, as every table has it; data in a condition is refused."""
    text = "a" * 10_000_000 + "the end"
    for condition in (text, ValueError(text), {"message": text, "more": text}):
        worker.fail_task(worker.push_running_task({"x": 1}), condition)
    for message in rush.fetch_failed_tasks()["condition"]:
        assert len(message) < 40_000
        assert message.startswith("aaa")
        assert "(10000007 characters)" in message
        assert message.endswith("the end")
    key = worker.push_running_task({"x": 1})
    with pytest.raises(EncodeError, match="1048576 at most"):
        worker.fail_task(key, {"message": "no", "data": bytes(2_000_000)})
    assert ["running"] == rush.states([key])

    def fail(x):
        raise ValueError("b" * 10_000_000)

    rush.start_workers(worker_loop(fail))
    keys = rush.push_tasks([{"x": 1}])
    assert keys == rush.wait_for_tasks(keys, timeout=60).failed
    assert len(rush.task(keys[0]).condition["message"]) < 40_000


def enormous(size):
    """A value of so many bytes."""
    return b"x" * size


def test_a_value_above_the_limit(rush: Rush, wait_until: Wait) -> None:
    """It fails its task, by name and with both sizes, and nothing of it is sent; the worker goes on."""
    (worker_id,) = rush.start_workers(worker_loop(enormous), max_value_size=1_000_000)
    rush.wait_for_workers(1)
    keys = rush.push_tasks([{"size": 1_000}, {"size": 5_000_000}, {"size": 999_990}])
    result = rush.wait_for_tasks(keys, timeout=60)
    assert ([keys[1]], [keys[0], keys[2]]) == (result.failed, result.done)
    failed = rush.task(keys[1])
    assert worker_id == failed.worker_id
    assert "EncodeError" == failed.condition["type"]
    assert 'ys["y"] is 5000005 bytes long, and max_value_size is 1000000' in failed.condition["message"]
    with pytest.raises(ConfigError, match="max_value_size"):
        rush.start_workers(worker_loop(enormous), max_value_size=0)


def test_a_value_the_server_has_no_room_for(small_server: Server, home: Path, wait_until: Wait) -> None:
    """It fails its task with the server's reason, takes no room for good, and the others' tasks go on."""
    with Rush("small", small_server.url) as rush:
        ids = rush.start_workers(worker_loop(enormous), 2)
        rush.wait_for_workers(2)
        big = rush.push_tasks([{"size": 100_000_000}])
        small = rush.push_tasks([{"size": 1000}] * 20)
        result = rush.wait_for_tasks([*big, *small], timeout=60)
        assert (big, small) == (result.failed, result.done)
        assert "memory" in rush.task(big[0]).condition["message"]
        assert rush.task(big[0]).worker_id in ids
        # There is room again for what is of a size that can be.
        more = rush.push_tasks([{"size": 9_000_000}])
        assert more == rush.wait_for_tasks(more, timeout=60).done
        assert sorted(ids) == sorted(rush.running_worker_ids)
        rush.stop_workers()
        rush.reset()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_value_of_a_gibibyte(network: str, home: Path) -> None:
    """It is stored and named, it holds up nobody else's tasks, and nobody reads it who does not want to."""
    with Rush(network) as rush:
        (bad,) = rush.start_workers(worker_loop(enormous))
        rush.wait_for_workers(1)
        (huge,) = rush.push_tasks([{"size": 1 << 30}])
        with RushWorker(network) as good:
            done = 0
            while rush.states([huge]) != ["finished"]:
                good.finish_task(good.push_running_task({"i": done}), {"y": done})
                done += 1
                assert ["failed"] != rush.states([huge]), rush.task(huge).condition
        assert done > 100
        own = psutil.Process().memory_info().rss
        table = rush.fetch_finished_tasks(fields=["key", "worker_id", "i"])
        assert (done + 1, bad) == (table.height, table.filter(pl.col("key") == huge)["worker_id"][0])
        assert psutil.Process().memory_info().rss - own < 200 << 20
        (row,) = (row for row in rush.fetch_workers(as_="tasks") if row.worker_id == bad)
        assert 1 == row.n_finished
        assert 1 << 30 == len(rush.task(huge).ys["y"])
