"""What stays of results that were collected: everything (``archive``), or nothing (``collect``)."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import redis

from ground import hold_to_be_gone
from harness import Server, run_python
from rushlight import Controller, Rush, _clearing
from rushlight._server import find_binary
from rushlight.errors import ConfigError, DataMissing, TaskTimeout, WorkerCrashed

PATIENCE = 60.0
#: What holds anything of tasks on the server, in entries.
HASHES = ("index", "queued", "running", "failed", "collected", "lapses", "names", "blobs", "waiting")

KILLED = """
import sys
from rushlight import Controller

if __name__ == "__main__":
    controller = Controller(sys.argv[1], sys.argv[2], max_workers=2, idle_timeout=5, retention="collect")
    futures = [controller.submit(pow, 2, i) for i in range(300)]
    for _ in range(50):
        print("popped", controller.pop(timeout=60).value, flush=True)
    print("read", sum(future.result() is not None for future in futures[:20]), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def server() -> Iterator[Server]:
    """One for a test alone, as all of its memory is looked at."""
    found = Server(find_binary())
    yield found
    found.close()


class Stock:
    """What a network holds."""

    def __init__(self, raw: redis.Redis, network: str) -> None:
        self._raw = raw
        self._network = network

    def sizes(self) -> dict[str, int]:
        """Entries of containers, where there are any, and records in the lists."""
        found = {name: int(self._raw.hlen(f"rl:{{{self._network}}}:{name}")) for name in HASHES}
        for name in ("finished", "failures"):
            found[name] = len(list(filter(None, self._raw.lrange(f"rl:{{{self._network}}}:{name}", 0, -1))))
        return {name: n for name, n in found.items() if n}


def square(x: int) -> int:
    """A call that takes no time."""
    return x * x


def double(data: bytes) -> bytes:
    """A call of large values."""
    return data + data


def fail(x: int) -> None:
    """A call that fails."""
    raise ValueError(x)


def test_a_server_holds_what_is_not_collected(server: Server, wait_until: Callable[..., None]) -> None:
    """Of thousands of calls whose results were read nothing is left on the server; memory is what it was
    before them, but for a few bytes each; the same calls for an archive are all there."""
    with server.client() as raw:
        grown = {}
        for retention in ("collect", "archive"):
            with Controller(retention, server.url, max_workers=2, retention=retention) as controller:
                assert [x * x for x in range(300)] == list(controller.map(square, range(300)))
                before = int(raw.info("memory")["used_memory"])
                for _ in range(5):
                    for _ in controller.map(square, range(1000)):
                        pass
                stock = Stock(raw, retention)
                if retention == "collect":
                    wait_until(lambda stock=stock: stock.sizes() == {})
                grown[retention] = int(raw.info("memory")["used_memory"]) - before
                assert 0 == len(controller)
                assert 5300 == controller.summary().success
                rush = Rush(retention, server.url)
                found = rush.fetch_finished_tasks(as_="tasks")
                assert (0 if retention == "collect" else 5300) == rush.n_finished_tasks == len(found)
                rush.close()
        assert 5000 * 30 > grown["collect"]
        assert 5000 * 100 < grown["archive"]


def test_what_is_not_collected_stays(server: Server, wait_until: Callable[..., None]) -> None:
    """One result that nobody asks for stays, in front of all that are removed, until somebody does."""
    with (
        server.client() as raw,
        Controller("c", server.url, max_workers=2, retention="collect") as controller,
    ):
        kept = controller.push("kept", square, 3)
        assert 9 == kept.result(PATIENCE)
        for _ in controller.map(square, range(500)):
            pass
        stock = Stock(raw, "c")
        wait_until(lambda: stock.sizes() == {"index": 1, "finished": 1, "names": 1})
        assert ["kept"] == [result.name for result in controller.collect()]
        wait_until(lambda: stock.sizes() == {})


def test_what_is_no_call_stays(server: Server, wait_until: Callable[..., None]) -> None:
    """Tasks that somebody else has put into the network are not removed, also where they were given out."""
    with (
        server.client() as raw,
        Rush("c", server.url) as rush,
        Controller("c", server.url, max_workers=1, retention="collect") as controller,
    ):
        rush.push_finished_tasks([{"x": 1}], [{"y": 2}])
        for i in range(3):
            assert i * i == controller.submit(square, i).result(PATIENCE)
            assert len(controller.collect()) > 0
        wait_until(lambda: controller.collect() == [] and Stock(raw, "c").sizes()["index"] == 1)
        assert [2] == rush.fetch_finished_tasks()["y"].to_list()


def test_all_ways_to_end_are_removed(server: Server, wait_until: Callable[..., None]) -> None:
    """Errors, crashes, time limits, cancelled calls and those that were tried again leave nothing either, and
    are told as ever."""
    with (
        server.client() as raw,
        Controller("c", server.url, max_workers=2, max_crashes=1, retention="collect") as c,
    ):
        error = c.submit(fail, 1)
        crash = c.submit(os._exit, 3)
        late = c.options(timeout=0.2).submit(time.sleep, 60)
        again = c.options(max_retries=2).submit(fail, 2)
        running = c.submit(time.sleep, 60)
        assert isinstance(error.exception(PATIENCE), ValueError)
        assert isinstance(crash.exception(PATIENCE), WorkerCrashed)
        assert isinstance(late.exception(PATIENCE), TaskTimeout)
        assert isinstance(again.exception(PATIENCE), ValueError)
        wait_until(running.running)
        assert running.cancel()
        assert c.wait(timeout=PATIENCE)
        assert Counter(error=2, crash=1, timeout=1, cancel=1) == Counter(r.status for r in c.collect())
        stock = Stock(raw, "c")
        wait_until(lambda: stock.sizes() == {})
        assert 4 == c.submit(square, 2).result(PATIENCE)


def test_large_values_go_with_their_calls(server: Server, wait_until: Callable[..., None]) -> None:
    """Arguments and results that are stored apart are removed with their call, and with no other: calls of
    the same arguments do not share them, and what was uploaded for all stays."""
    data = os.urandom(200_000)
    with (
        server.client() as raw,
        Controller("c", server.url, max_workers=2, retention="collect") as controller,
    ):
        constant = controller.constants(data=data)["data"]
        first, second = controller.submit(double, data), controller.submit(double, data)
        assert 2 * data == first.result(PATIENCE) == second.result(PATIENCE)
        stock = Stock(raw, "c")
        assert 4 == stock.sizes()["blobs"]
        assert controller.pop(PATIENCE) is not None
        wait_until(lambda: stock.sizes().get("blobs") == 2)
        assert 2 * data == controller.collect()[0].value
        wait_until(lambda: stock.sizes() == {})
        assert 2 * data == controller.submit(double, constant).result(PATIENCE)


def test_futures_of_one_are_told_what_another_collects(
    server: Server, wait_until: Callable[..., None]
) -> None:
    """Of several controllers some collect what others have submitted, and remove it: every result is
    collected once, and every future ends."""

    def open_one(retention: str) -> Controller:
        return Controller("c", server.url, max_workers=2, retention=retention)

    with (
        server.client() as raw,
        open_one("collect") as one,
        open_one("collect") as two,
        open_one("archive") as three,
    ):
        got: list[list[int]] = [[], []]
        over = threading.Event()

        def collect(mine: list[int], controller: Controller) -> None:
            while not over.is_set():
                mine += [result.value for result in controller.collect()]
                controller.pop(timeout=0.01)

        def pop(mine: list[int], controller: Controller) -> None:
            while not over.is_set():
                result = controller.pop(timeout=0.1)
                mine += [] if result is None else [result.value]

        threads = [threading.Thread(target=pop, args=pair) for pair in zip(got, (one, two), strict=True)]
        for thread in threads:
            thread.start()
        futures = []
        for i in range(0, 900, 3):
            for k, controller in enumerate((one, two, three)):
                futures.append(controller.submit(square, i + k))
            if i == 450:
                assert i * i == futures[i].result(PATIENCE)
        assert [i * i for i in range(900)] == [future.result(PATIENCE) for future in futures]
        wait_until(lambda: sum(map(len, got)) == 900)
        over.set()
        for thread in threads:
            thread.join()
        assert [i * i for i in range(900)] == sorted(got[0] + got[1])
        wait_until(lambda: Stock(raw, "c").sizes() == {})
        assert 0 == len(three)


def test_a_killed_controller_leaves_what_was_not_collected(
    server: Server, wait_until: Callable[..., None]
) -> None:
    """Killed in the middle, what it had been given and had not asked beyond comes again, what it had had does
    not, and the one that goes on removes what the killed one has left."""
    process = run_python(KILLED, "c", server.url)
    assert process.stdout is not None
    lines = [process.stdout.readline().split() for _ in range(51)]
    assert ["read", "20"] == lines[-1]
    process.kill()
    process.communicate(timeout=PATIENCE)
    had = [int(value) for _, value in lines[:-1]]
    with (
        server.client() as raw,
        Controller("c", server.url, max_workers=2, retention="collect") as controller,
    ):
        assert controller.wait(timeout=PATIENCE)
        rest: list[int] = []

        def all_there() -> bool:
            rest.extend(result.value for result in controller.collect())
            return len(had) + len(rest) >= 300

        wait_until(all_there)
        # The last that was popped may not have been had: it was not asked beyond.
        assert [2**i for i in range(300)] == sorted({*had, *rest})
        assert {*had[:-1]}.isdisjoint(rest)
        assert len(rest) == len(set(rest))
        wait_until(lambda: Stock(raw, "c").sizes() == {})


@pytest.mark.slow
def test_who_stood_still_hears_that_results_are_gone(
    server: Server, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that was held to be gone finds results removed that its futures wait for: they say so, and
    what it submits from then on is its own again."""
    with (
        Controller("c", server.url, max_workers=1, retention="collect") as still,
        Controller("c", server.url, max_workers=1, retention="collect") as other,
        Rush("c", server.url) as rush,
    ):
        assert 9 == still.submit(square, 3).result(PATIENCE)
        go_on = threading.Event()
        turn = still._feed._turn
        monkeypatch.setattr(still._feed, "_turn", lambda: turn() if go_on.is_set() else go_on.wait(0.01))
        monkeypatch.setattr(still._collector, "do", lambda: None)
        lost = [still.submit(square, i) for i in range(3)]
        wait_until(lambda: {"finished"} == {*rush.states([future.name for future in lost])})
        hold_to_be_gone(other._collector._store, still._presence.token)
        wait_until(lambda: other.collect() == [] and rush.n_tasks == 0)
        monkeypatch.undo()
        go_on.set()
        for future in lost:
            with pytest.raises(DataMissing, match="collected by another"):
                future.result(PATIENCE)
        assert still.wait(timeout=PATIENCE)
        assert 16 == still.submit(square, 4).result(PATIENCE)


def test_names_are_free_once_their_result_was_collected(
    server: Server, wait_until: Callable[..., None]
) -> None:
    """A name is unique until its result is collected, in all controllers of a network; then it can be used
    again, and cancelled by."""
    with server.client() as raw, Controller("c", server.url, max_workers=1, retention="collect") as one:
        for value in range(3):
            future = one.push("name", square, value)
            with (
                Controller("c", server.url, retention="collect") as two,
                pytest.raises(ConfigError, match="in use"),
            ):
                two.push("name", square, 7)
            assert value * value == future.result(PATIENCE)
            assert [("name", value * value)] == [(r.name, r.value) for r in one.collect()]
        one.push("name", time.sleep, 60)
        assert ["name"] == one.cancel("name")
        assert ["cancel"] == [result.status for result in one.collect()]
        wait_until(lambda: Stock(raw, "c").sizes() == {})


def test_what_is_kept_is_one_of_two(server: Server) -> None:
    """Anything else is refused, with the two that there are."""
    with pytest.raises(ConfigError, match=r"'collect'.*'archive'"):
        Controller("c", server.url, retention="forever")  # type: ignore[arg-type]


@pytest.mark.slow
def test_workers_of_long_ago_are_forgotten(
    server: Server, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many workers there have been, the server keeps something of the last to end alone."""
    monkeypatch.setattr(_clearing, "_ENDED_KEPT", 1)
    monkeypatch.setattr(_clearing, "_LOOK_AGAIN", 0.0)
    with (
        server.client() as raw,
        Controller(
            "c", server.url, max_workers=1, max_tasks_per_worker=1, retention="collect", idle_timeout=60
        ) as one,
    ):
        workers = [one.submit(os.getpid).result(PATIENCE) for _ in range(4)]
        assert 4 == len({*workers})

        def few_are_left() -> bool:
            one.collect()
            one._collector._clearing.sweep()
            return bool(raw.hlen("rl:{c}:workers") <= 2)

        wait_until(few_are_left, PATIENCE)
