"""The line to the server: it breaks, the server restarts or forgets, and nothing is lost or done twice."""

from __future__ import annotations

import os
import pickle
import select
import struct
import threading
from collections.abc import Callable
from socket import SO_RCVTIMEO, SOL_SOCKET

import pytest

from ground import Ground, Stats
from harness import Background, Server, ended, run_python, wait_until
from rushlight import Rush, RushWorker
from rushlight._connect import StoreConfig
from rushlight._store import Store
from rushlight._wire import Link, command
from rushlight.errors import StoreError, StoreUnavailable, UnknownKey

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def drop_connections(ground: Ground) -> None:
    """The server closes every connection but ours."""
    ground.raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def blocked(ground: Ground) -> int:
    """Clients the server keeps waiting."""
    return int(ground.raw.info("clients")["blocked_clients"])


# --- scripts ----------------------------------------------------------------------------------------


def test_scripts_are_loaded_again_when_forgotten(ground: Ground) -> None:
    """A server that has none, or loses them at any time, is given them anew; nothing happens twice."""
    worker = ground.member()
    ground.raw.script_flush()
    keys = ground.push(2)
    ground.raw.script_flush()
    assert [keys[0]] == ground.claim(worker)
    ground.raw.script_flush()
    decided, values = worker.settle_and_claim(ground.finishing(keys[0]), {})
    assert (True, [keys[1]]) == (decided, ground.taken(values))
    ground.raw.script_flush()
    large = ground.store.encode_tasks([{"x": "a" * 100_000}] * 1200, [None] * 1200)
    ground.store.push(large)
    assert 1202 == len(ground.states())


def test_a_server_that_always_forgets_is_given_up(ground: Ground) -> None:
    """Loading again and again comes to an end, with the server's own words."""
    ground.push()
    link = ground.store.link
    load = link._load_scripts

    def load_in_vain():
        load()
        ground.raw.script_flush()

    link._load_scripts = load_in_vain
    ground.raw.script_flush()
    with pytest.raises(StoreError, match="NOSCRIPT"):
        ground.push()


# --- broken connections -----------------------------------------------------------------------------


def test_a_closed_connection_is_opened_again(ground: Ground) -> None:
    """Every verb works on after the server closed the line."""
    worker = ground.member()
    for _ in range(5):
        drop_connections(ground)
        (key,) = ground.push()
        drop_connections(ground)
        assert [key] == ground.claim(worker)
        drop_connections(ground)
        assert ground.finish(worker, key)
    drop_connections(ground)
    assert 5 == ground.store.totals().tasks.finished
    assert 5 == len(ground.store.view(["finished"]).finished)


def test_a_storm_of_broken_connections_loses_nothing(ground: Ground) -> None:
    """While all lines are cut again and again, every task is created once, taken once and finished once."""
    pushing, worker = ground.another(), ground.member()
    over = threading.Event()

    def cut():
        while not over.wait(0.005):
            drop_connections(ground)

    def push():
        keys = []
        for _ in range(150):
            batch = ground.encode()
            pushing.push(batch)
            keys += batch.keys
        return keys

    cutter, pusher = Background(cut), Background(push)
    done: list[str] = []
    while len(done) < 150:
        for key in ground.claim(worker, 3, timeout=20.0):
            assert ground.finish(worker, key)
            done.append(key)
    over.set()
    cutter.result()
    assert sorted(pusher.result()) == sorted(done)
    assert {"finished"} == set(ground.states().values())


def test_waiters_outlive_a_broken_connection(ground: Ground) -> None:
    """A worker and a watcher that wait when the line breaks go on waiting, and are woken."""
    worker, busy = ground.member(), ground.member()
    (held,) = ground.begin(busy)
    with Rush(ground.network, ground.url) as rush:
        taking = Background(ground.claim, worker, timeout=60.0)
        fetching = Background(rush.fetch_new_tasks, 60.0, as_="tasks")
        wait_until(lambda: blocked(ground) == 2)
        drop_connections(ground)
        wait_until(lambda: blocked(ground) == 2)
        keys = ground.push()
        assert keys == taking.result(30)
        assert ground.finish(busy, held)
        assert [held] == [task.key for task in fetching.result(30)]


def test_a_token_lost_with_its_connection_is_no_lost_task(ground: Ground) -> None:
    """The bell rang, but the line broke before the worker heard: it looks, and finds the task."""
    worker = ground.member()
    waiting = Background(ground.claim, worker, timeout=2.0)
    wait_until(lambda: blocked(ground) == 1)
    (link,) = ground_links(worker.store)
    read = link._read

    def deaf(n, *, asleep):
        read(n, asleep=asleep)
        link._read = read
        raise ConnectionResetError("the reply is lost")

    link._read = deaf
    # The waiter is in the old reader by now: its next wait is the one that goes wrong.
    ground.raw.rpush(ground.store.keys.bell(worker.card.worker_id), "1")
    wait_until(lambda: blocked(ground) == 1)
    keys = ground.push()
    assert keys == waiting.result(30)


def ground_links(store: Store) -> list[Link]:
    """Connections lent to waiters of a store."""
    from rushlight import _wire

    return [link for link in _wire._links if link.config is store.config and link is not store.link]


def test_orders_are_missed_by_nobody_who_comes_back(ground: Ground) -> None:
    """A listener says that its line is broken, as a StoreUnavailable, in whatever way it broke."""
    ground.push()
    listener = ground.store.listen()
    drop_connections(ground)
    assert select.select([listener.fileno()], [], [], 20)[0]
    with pytest.raises(StoreUnavailable):
        listener.read()
    listener.close()


# --- restarts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["valkey", "redis-7.0", "redis-6.2"])
def test_a_killed_server_comes_back_with_everything(
    own_server: Callable[..., Server], ground_on: Callable[[Server], Ground], kind: str
) -> None:
    """Killed in the middle and started on its data: what was told is kept, who waited is served, and every
    client goes on by itself."""
    server = own_server(*DURABLE, kind=kind)
    ground = ground_on(server)
    worker, waiter = ground.member(), ground.member()
    keys = ground.push(2)
    assert [keys[0]] == ground.claim(worker)
    assert ground.finish(worker, keys[0], y=1)
    assert [keys[1]] == ground.claim(worker)
    with Rush(ground.network, server.url) as rush:
        taking = Background(ground.claim, waiter, timeout=60.0)
        watching = Background(rush.wait_for_tasks, keys, 60.0)
        wait_until(lambda: blocked(ground) == 2)
        server.kill()
        finishing = Background(ground.finish, worker, keys[1], y=2)
        server.start()
        assert finishing.result(30)
        assert keys == watching.result(30).done
        wait_until(lambda: blocked(ground) >= 1)
        new = ground.push()
        assert new == taking.result(30)
        assert [1, 2] == [row[10]["y"] for row in ground.account().finished]
        assert not worker.leaving


def test_a_frozen_server_makes_nothing_twice(
    own_server: Callable[..., Server], ground_on: Callable[[Server], Ground]
) -> None:
    """A server that answers nobody for longer than the clients wait gets every call several times, and does
    each once."""
    server = own_server()
    ground = ground_on(server)
    pushing, claiming = ground.another(timeout=0.3), ground.another(timeout=0.3)
    worker = ground.member()
    keys = ground.push(2)
    pushing._open()
    pushing.link.trips = 0
    ground.claim(worker)
    worker.store = claiming
    batch = ground.encode(2)
    with server.frozen():
        calls = [
            Background(pushing.push, batch),
            Background(worker.settle_and_claim, ground.finishing(keys[0]), {}),
        ]
        wait_until(lambda: pushing.link.trips == claiming.link.trips == 1)
        # Both have given up their line, and open another that the server lets wait.
        wait_until(lambda: pushing.link._socket is None is claiming.link._socket)
    calls[0].result(30)
    decided, values = calls[1].result(30)
    assert (True, [keys[1]]) == (decided, ground.taken(values))
    assert batch.keys == ground.account().order
    assert {
        keys[0]: "finished",
        keys[1]: "running",
        batch.keys[0]: "queued",
        batch.keys[1]: "queued",
    } == ground.states()


def test_a_server_that_stays_away_is_told_with_its_address(
    own_server: Callable[..., Server], ground_on: Callable[[Server], Ground]
) -> None:
    """After ``patience`` a call ends with StoreUnavailable, and works again once the server is back."""
    server = own_server(*DURABLE)
    ground = ground_on(server)
    store = ground.another(patience=0.2)
    keys = ground.push()
    server.kill()
    with pytest.raises(StoreUnavailable, match=str(server.socket)) as caught:
        store.totals()
    assert caught.value.transient
    server.start()
    assert 1 == store.totals().tasks.queued
    assert dict.fromkeys(keys, "queued") == ground.states()


@pytest.mark.parametrize("kind", ["valkey", "redis-7.0", "redis-6.2"])
def test_a_server_that_cannot_write_to_its_disk_is_waited_for(
    own_server: Callable[..., Server], ground_on: Callable[[Server], Ground], kind: str
) -> None:
    """It refuses writes until it can: workers and managers wait, as for one that is away, and go on by
    themselves; one that waits no longer is told the reason."""
    server = own_server(kind=kind)
    ground = ground_on(server)
    ground.raw.config_set("save", "3600 1")
    worker = ground.member()
    (key,) = ground.begin(worker)
    in_the_way = server.folder / "dump.rdb" / "in the way"
    in_the_way.mkdir(parents=True)

    def save(outcome: str) -> None:
        ground.raw.bgsave()
        wait_until(lambda: ground.raw.info("persistence")["rdb_last_bgsave_status"] == outcome)

    save("err")
    impatient = ground.another(patience=0.1)
    with pytest.raises(StoreUnavailable, match="MISCONF"):
        impatient.push(ground.encode())
    assert {key: "running"} == ground.states()
    trips = worker.store.link.trips
    finishing, pushing = Background(ground.finish, worker, key, y=1), Background(ground.push)
    wait_until(lambda: worker.store.link.trips > trips + 2)
    assert not finishing.done
    assert not pushing.done
    in_the_way.rmdir()
    in_the_way.parent.rmdir()
    save("ok")
    assert finishing.result(30)
    assert {key: "finished", pushing.result(30)[0]: "queued"} == ground.states()


# --- waiting without polling ------------------------------------------------------------------------


def test_waiting_asks_nothing(ground: Ground) -> None:
    """A worker, a reader, a waiter for tasks and a listener for orders send nothing while nothing happens."""
    worker, busy = ground.member(), ground.member()
    keys = ground.begin(busy, 2)
    with Rush(ground.network, ground.url) as rush, Rush(ground.network, ground.url) as other:
        listener = ground.store.listen()
        calls = [
            Background(ground.claim, worker, timeout=60.0),
            Background(rush.fetch_new_tasks, 60.0),
            Background(other.wait_for_tasks, keys, 60.0),
        ]
        wait_until(lambda: blocked(ground) == 4)
        with Stats(ground.raw) as stats:
            threading.Event().wait(1.0)
        assert {} == stats.calls
        ground.finish(busy, keys[0])
        ground.fail(busy, keys[1])
        ground.push()
        for call in calls:
            call.result(30)
        listener.close()


# --- threads, forks, pickles ------------------------------------------------------------------------


def test_threads_share_one_manager(ground: Ground) -> None:
    """Calls of many threads on one Rush do not mix up their replies."""
    with Rush(ground.network, ground.url) as rush:

        def work(n: int) -> None:
            for i in range(40):
                (key,) = rush.push_tasks([{"n": n, "i": i}])
                assert {"n": n, "i": i} == rush.task(key).xs
                assert ["queued"] == rush.states([key])

        for call in [Background(work, n) for n in range(5)]:
            call.result()
        assert 200 == rush.n_queued_tasks
        assert {(n, i) for n in range(5) for i in range(40)} == {
            (row["n"], row["i"]) for row in rush.fetch_queued_tasks(as_="dicts")
        }


def in_fork(function: Callable[[], object]) -> int:
    """Runs it in a forked child; its exit code (0: done, 1: an error)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    deadline = threading.Event()
    for _ in range(3000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        deadline.wait(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


def test_a_fork_goes_on_by_itself(ground: Ground) -> None:
    """Parent and child use the same object at once, each on a line of its own, and make no key twice."""
    with Rush(ground.network, ground.url) as rush:
        rush.push_tasks([{"x": 0}])

        def child():
            for i in range(20):
                rush.push_tasks([{"x": i}])
                rush.fetch_tasks(as_="dicts")

        pushing = Background(lambda: [rush.push_tasks([{"x": i}]) for i in range(50)])
        assert 0 == in_fork(child)
        pushing.result()
        assert 71 == rush.n_queued_tasks
        assert 71 == len(ground.states())


def test_a_fork_while_others_read_does_not_hang(ground: Ground) -> None:
    """Threads of the parent may be in the middle of anything when a child is forked; it can read even so."""
    with Rush(ground.network, ground.url) as rush:
        worker = ground.member()
        for key in ground.begin(worker, 5):
            ground.finish(worker, key)
        rush.fetch_finished_tasks(as_="dicts")
        with ground.server.frozen():
            reading = Background(rush.fetch_finished_tasks, as_="dicts")
            link_busy = rush._store.link._lock.locked
            wait_until(link_busy)
            pid = os.fork()
            if pid == 0:
                # The server is let go by the parent.
                os._exit(0 if len(rush.fetch_finished_tasks(as_="dicts")) == 5 else 1)
        assert 5 == len(reading.result(30))
        wait = Background(os.waitpid, pid, 0)
        try:
            assert 0 == os.waitstatus_to_exitcode(wait.result(30)[1])
        finally:
            if not wait.done:
                os.kill(pid, 9)


def test_a_manager_can_be_sent_to_another_process(ground: Ground) -> None:
    """Pickled, it connects on first use, wherever that is."""
    with Rush(ground.network, ground.url) as rush:
        rush.push_tasks([{"x": 1}])
        with pickle.loads(pickle.dumps(rush)) as copy:
            assert (1, ground.network) == (copy.n_queued_tasks, copy.network)
        code = (
            "import pickle, sys\n"
            "rush = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
            "rush.push_tasks([{'x': 2}])\n"
            "print(rush.n_queued_tasks)\n"
            "rush.close()\n"
        )
        assert "2\n" == ended(run_python(code, pickle.dumps(rush).hex()))
        assert 2 == rush.n_queued_tasks


def test_unpickling_reaches_for_no_server(own_server: Callable[..., Server], network: str) -> None:
    """A pickled manager whose server is away can be unpickled; the first call says what is missing."""
    server = own_server()
    with Rush(network, server.url, connect_timeout=0.2, patience=0.2) as rush:
        data = pickle.dumps(rush)
    server.kill()
    with pickle.loads(data) as copy, pytest.raises(StoreUnavailable, match=str(server.socket)):
        copy.counts()


def test_closing_twice_is_closing(ground: Ground) -> None:
    """``close`` may be called again, and the object used again."""
    rush = Rush(ground.network, ground.url)
    rush.push_tasks([{"x": 1}])
    rush.close()
    rush.close()
    assert 1 == rush.n_queued_tasks
    rush.close()


def test_closing_while_others_wait_leaves_no_connection(ground: Ground) -> None:
    """A manager closed under a thread that waits: when that wait ends nothing stays open."""
    ground.push()
    rush = Rush(ground.network, ground.url)
    waiting = Background(rush.fetch_new_tasks, 1.0)
    wait_until(lambda: blocked(ground) == 1)
    rush.close()
    waiting.result(30)
    rush.close()
    mine = [link for link in ground_links(rush._store) if link._socket is not None]
    assert [] == mine


def test_writing_behind_survives_broken_connections(ground: Ground) -> None:
    """What was sent ahead and got no answer is sent again, in order, once."""
    with RushWorker(ground.network, ground.url, heartbeat=False, lease=600.0) as worker:
        with worker.write_behind():
            for i in range(300):
                if i % 50 == 25:
                    drop_connections(ground)
                key = worker.push_running_task({"i": i})
                worker.finish_task(key, {"y": i})
        found = ground.account()
        assert list(range(300)) == [row[10]["y"] for row in found.finished]
        found.states()


def test_writing_behind_waits_for_a_server_that_still_reads_its_data(
    own_server: Callable[..., Server], ground_on: Callable[[Server], Ground]
) -> None:
    """A server that comes back and is still loading is one that is away: what was sent ahead is sent again
    once it is there."""
    slow = ("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
    server = own_server(*DURABLE, *slow)
    ground = ground_on(server)
    for i in range(100):
        ground.raw.set(f"other-{i}", "x" * 1000)
    ground.raw.bgrewriteaof()
    wait_until(lambda: not ground.raw.info("persistence")["aof_rewrite_in_progress"])
    with RushWorker(ground.network, ground.url, heartbeat=False, lease=600.0) as worker:
        with worker.write_behind():
            keys = [worker.push_running_task({"i": i}) for i in range(20)]
            server.kill()
            starting = Background(server.start)
            for key in keys:
                worker.finish_task(key, {"y": 1})
        starting.result(30)
        assert {"finished"} == {str(state) for state in worker.states(keys)}
    ground.raw.delete(*(f"other-{i}" for i in range(100)))


def test_writing_behind_ends_cleanly_when_the_server_stays_away(
    own_server: Callable[..., Server], network: str
) -> None:
    """The block tells it at its end; the next one starts from nothing and is not confused by old replies."""
    server = own_server(*DURABLE)
    worker = RushWorker(network, server.url, heartbeat=False, lease=600.0)
    object.__setattr__(worker._store.config, "patience", 0.2)
    with pytest.raises(StoreUnavailable), worker.write_behind():
        worker.push_running_task({"x": 0})
        server.kill()
    server.start()
    object.__setattr__(worker._store.config, "patience", 30.0)
    with worker.write_behind():
        keys = [worker.push_running_task({"x": i}) for i in range(5)]
        for key in keys:
            worker.finish_task(key, {"y": 1})
    assert {"finished"} == {str(state) for state in worker.states(keys)}
    worker.close()


def test_writing_behind_tells_the_first_error_and_hears_all(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    """One refused call among many does not keep the others from being heard, each as its own."""
    with RushWorker(ground.network, ground.url, heartbeat=False, lease=600.0) as worker:
        decided = worker.push_running_task({"x": 1})
        worker.fail_task(decided, "no")
        with pytest.raises(UnknownKey, match="nonsense"), worker.write_behind():
            worker.finish_task("nonsense", {"y": 1})
            keys = [worker.push_running_task({"x": i}) for i in range(40)]
            for key in keys:
                worker.finish_task(key, {"y": 1})
            worker.finish_task(decided, {"y": 1})
        assert {"finished"} == {str(state) for state in worker.states(keys)}
        stale = [record for record in caplog.records if "StaleTaskWarning" in record.getMessage()]
        assert [True] == [decided in record.getMessage() for record in stale]


def test_a_config_shows_no_secret() -> None:
    """Neither password nor secret is in its text."""
    config = StoreConfig.find("redis://user:hidden-word@host:1/0", "hidden-secret")
    assert "hidden" not in repr(config) + config.address


def test_patience_for_a_wait_ends_with_it(ground: Ground) -> None:
    """A connection that has waited on purpose gives an ordinary call no more time than any other does."""

    def allowed() -> float:
        """Seconds an answer may take now."""
        seconds, microseconds = struct.unpack("ll", link._socket.getsockopt(SOL_SOCKET, SO_RCVTIMEO, 16))
        return float(seconds + microseconds / 1e6)

    link = Link(StoreConfig.find(ground.url, timeout=7.0))
    blocking, ping = command("BLPOP", ground.key("bell"), "0.010"), command("PING")
    for ordinary in (lambda: link.call(ping), lambda: link.post(ping, 1)):
        assert link.call(blocking, wait=5.0) is None
        assert 12 == round(allowed())
        ordinary()
        link.await_posts()
        assert 7 == round(allowed())
    link.close()
