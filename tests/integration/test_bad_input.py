"""What cannot be is refused: with the value, the place and a way out, before anything is written."""

from __future__ import annotations

import contextlib
import math
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import redis

from harness import Server
from rushlight import Rush, RushWorker
from rushlight._server import find_binary
from rushlight.errors import (
    ConfigError,
    EncodeError,
    RushlightError,
    SecretRequired,
    StoreError,
    StoreUnavailable,
    UnknownKey,
)

Call = Callable[[Rush, RushWorker], Any]


def contents(server: redis.Redis, network: str) -> dict[bytes, bytes]:
    """Everything stored for a network, but leases, which time alone renews."""
    keys = [key for key in server.scan_iter(count=1000) if network.encode() in key]
    return {key: server.dump(key) for key in sorted(keys) if not key.endswith(b":leases")}


def loop(worker):
    """A loop that can be started."""
    worker.pop_task(timeout=60)


async def awaited(worker):
    """No loop, though it looks like one."""


def yielding(worker):
    """Nor is this."""
    yield


class Unpicklable:
    """Something with a lock inside."""

    def __init__(self) -> None:
        self.layers = [1, threading.Lock()]

    def run(self, worker):
        """A loop that cannot be sent."""


#: What is called, and what the error must speak of.
REFUSED: dict[str, tuple[Call, str]] = {
    "a worker may not be silent for ever": (
        lambda r, w: RushWorker(r.network, lease=math.inf),
        "lease=inf.*at most",
    ),
    "nor may one that is started": (lambda r, w: r.start_workers(loop, lease=math.inf), "lease=inf.*at most"),
    "NumPy's truths are no numbers": (
        lambda r, w: r.push_tasks([{"x": 1}], priority=np.bool_(True)),
        "priority must be int",
    ),
    "a dict is no batch": (lambda r, w: r.push_tasks({"x": 1}), r"xss.*list of dicts.*\[xs\]"),
    "half a surrogate pair is no key": (
        lambda r, w: r.states(["a\ud800"]),
        r"keys\[0\] is not valid Unicode",
    ),
    "half a surrogate pair is no worker": (
        lambda r, w: r.push_tasks([{"x": 1}], workers="a\ud800"),
        r"workers is not valid Unicode",
    ),
    "half a surrogate pair is no network": (lambda r, w: Rush("a\ud800"), "is not a network name"),
    "half a surrogate pair is no address": (
        lambda r, w: Rush("a", "redis://\ud800"),
        "url is not valid Unicode",
    ),
    "half a surrogate pair is no secret": (
        lambda r, w: Rush("a", secret="\ud800" * 9),
        "secret: not valid Unicode",
    ),
    "a text is no batch": (lambda r, w: r.push_tasks("abc"), r"xss.*str 'abc'"),
    "a number is no batch": (lambda r, w: r.push_tasks(5), r"xss.*int 5"),
    "a list is no task": (lambda r, w: r.push_tasks([{"x": 1}, [2]]), r"xss\[1\].*list \[2\]"),
    "names are text": (lambda r, w: r.push_tasks([{1: 2}]), r"xss\[0\].*1 \(int\)"),
    "extras differ in number": (
        lambda r, w: r.push_tasks([{}, {}], xs_extra=[{}]),
        r"xs_extra has 1.*xss has 2",
    ),
    "extras are dicts": (lambda r, w: r.push_tasks([{}], xs_extra=[3]), r"xs_extra\[0\].*int 3"),
    "extras are no text": (lambda r, w: r.push_tasks([{}], xs_extra="e"), r"xs_extra.*'e'"),
    "retries are whole": (lambda r, w: r.push_tasks([{}], max_retries=1.5), r"max_retries.*1\.5"),
    "retries are not negative": (lambda r, w: r.push_tasks([{}], max_retries=-1), r"max_retries=-1"),
    "retries differ in number": (
        lambda r, w: r.push_tasks([{}], max_retries=[1, 2]),
        r"max_retries has 2.*xss",
    ),
    "results differ in number": (lambda r, w: r.push_finished_tasks([{}, {}], [{}]), r"yss has 1.*xss has 2"),
    "result extras differ in number": (
        lambda r, w: r.push_finished_tasks([{}], [{}], ys_extra=[{}, {}]),
        r"ys_extra has 2.*xss has 1",
    ),
    "conditions differ in number": (
        lambda r, w: r.push_failed_tasks([{}], ["a", "b"]),
        r"conditions has 2.*xss",
    ),
    "a number is no condition": (lambda r, w: r.push_failed_tasks([{}], [7]), r"condition.*int 7"),
    "a condition has a message": (lambda r, w: r.push_failed_tasks([{}], {"text": "a"}), r"'message'"),
    "a state nobody has": (
        lambda r, w: r.fetch_tasks(["done"]),
        r"'done'.*queued, running, finished, failed",
    ),
    "keys of a state nobody has": (lambda r, w: r.keys("done"), r"'done'.*queued"),
    "states are a list": (lambda r, w: r.fetch_tasks(4), r"states.*int 4"),
    "keys are a list": (lambda r, w: r.states("abc"), r"keys.*list.*'abc'"),
    "keys are text": (lambda r, w: r.states(["a", 3]), r"keys\[1\].*int 3"),
    "a key is text": (lambda r, w: r.task(3), r"key.*int 3"),
    "a wait for one key": (lambda r, w: r.wait_for_tasks("abc"), r"keys.*'abc'"),
    "fields are a list": (lambda r, w: r.fetch_tasks(fields="x"), r"fields"),
    "fields are text": (lambda r, w: r.fetch_tasks(fields=[1]), r"fields"),
    "workers are a list": (lambda r, w: r.stop_workers(worker_ids="w"), r"worker_ids.*'w'"),
    "a way to stop nobody knows": (lambda r, w: r.stop_workers("softly"), r"'softly'.*kill.*terminate"),
    "a loop is a function": (lambda r, w: r.start_workers("loop"), r"loop.*'loop'"),
    "nobody awaits a loop": (lambda r, w: r.start_workers(awaited), r"nobody awaits.*awaited"),
    "nor runs through it": (lambda r, w: r.start_workers(yielding), r"plain function.*yielding"),
    "a loop takes its arguments": (
        lambda r, w: r.start_workers(loop, kwargs={"speed": 1}),
        r"loop\(worker\) cannot be called with \(worker, speed=...\)",
    ),
    "a loop takes a worker": (lambda r, w: r.worker_script(lambda: 1), r"cannot be called with \(worker\)"),
    "at least one worker": (lambda r, w: r.start_workers(loop, 0), r"n_workers=0"),
    "workers are counted": (lambda r, w: r.start_workers(loop, "4"), r"n_workers='4'"),
    "arguments are a dict": (lambda r, w: r.start_workers(loop, kwargs=[1]), r"kwargs.*list \[1\]"),
    "globals are a dict": (lambda r, w: r.start_workers(loop, globals=[1]), r"globals.*list \[1\]"),
    "packages are a list": (lambda r, w: r.start_workers(loop, packages="numpy"), r"packages.*'numpy'"),
    "a lease is positive": (lambda r, w: r.start_workers(loop, lease=0), r"lease=0"),
    "restarts are counted": (lambda r, w: r.start_workers(loop, max_restarts=-1), r"max_restarts=-1"),
    "a policy nobody knows": (lambda r, w: r.start_workers(loop, on_lost="cry"), r"'cry'.*fail.*requeue"),
    "a launcher nobody knows": (lambda r, w: r.start_workers(loop, launcher="rocket"), r"rocket"),
    "a launcher is no number": (lambda r, w: r.start_workers(loop, launcher=3), r"launcher"),
    "restarting what nobody launched": (
        lambda r, w: r.restart_workers([w.worker_id]),
        r"not started by a launcher",
    ),
    "a log level nobody knows": (lambda r, w: r.start_workers(loop, log_level="chatty"), r"'chatty'"),
    "a directory that is not there": (lambda r, w: r.start_workers(loop, log_dir="/no/dir"), r"/no/dir"),
    "results differ in number from keys": (
        lambda r, w: w.finish_tasks([r.keys()[0]], []),
        r"yss has 0.*keys has 1",
    ),
    "a result is a dict": (lambda r, w: w.finish_task(r.keys()[0], 3), r"ys.*int 3"),
    "a task is a dict": (lambda r, w: w.push_running_task([1]), r"xs.*list \[1\]"),
    "none is less than one": (lambda r, w: w.pop_tasks(0), r"n=0"),
    "time is a number": (lambda r, w: w.pop_task(timeout="1"), r"timeout='1'"),
    "a step takes a pair": (lambda r, w: w.step(finish="key", push={}), r"finish.*'key'"),
    "a step takes a dict": (lambda r, w: w.step(finish=(r.keys()[0], {}), push=1), r"push.*int 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_refused(
    rush: Rush, worker: RushWorker, network: str, server: redis.Redis, case: str
) -> None:
    """A ConfigError, which is a ValueError, that speaks of what was wrong; the server holds what it held."""
    call, spoken = REFUSED[case]
    rush.push_tasks([{"x": 1}])
    before = contents(server, network)
    with pytest.raises(ConfigError, match=spoken) as caught:
        call(rush, worker)
    assert isinstance(caught.value, ValueError)
    assert before == contents(server, network)


#: Calls with a task or worker the network does not have.
UNKNOWN: dict[str, Call] = {
    "finish": lambda r, w: w.finish_task("ghost", {}),
    "finish one of two": lambda r, w: w.finish_tasks([r.keys()[0], "ghost"], [{}, {}]),
    "fail": lambda r, w: w.fail_task("ghost"),
    "step": lambda r, w: w.step(finish=("ghost", {}), push={}),
    "finish and pop": lambda r, w: w.finish_and_pop("ghost", {}),
    "task": lambda r, w: r.task("ghost"),
    "wait": lambda r, w: r.wait_for_tasks(["ghost"]),
    "stop": lambda r, w: r.stop_workers("terminate", ["ghost"]),
    "restart": lambda r, w: r.restart_workers(["ghost"]),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_keys_are_named(
    rush: Rush, worker: RushWorker, network: str, server: redis.Redis, case: str
) -> None:
    """An UnknownKey, which is a KeyError, with the keys; nothing is changed, created or taken."""
    rush.push_tasks([{"x": 1}])
    worker.push_running_task({"x": 2})
    before = [rush.counts(), rush.worker_info["state"].to_list()]
    with pytest.raises(UnknownKey, match="'ghost'") as caught:
        UNKNOWN[case](rush, worker)
    assert isinstance(caught.value, KeyError)
    assert ["ghost"] == caught.value.keys
    assert before == [rush.counts(), rush.worker_info["state"].to_list()]


#: Calls with a value that cannot be stored, and the path the error must name.
UNSTORABLE: dict[str, tuple[Call, str]] = {
    "an input": (
        lambda r, w: r.push_tasks([{"a": 1}, {"model": Unpicklable()}]),
        r'xs\["model"\]\.layers\[1\].*task 2 of 2',
    ),
    "an extra": (lambda r, w: r.push_tasks([{}], xs_extra={"e": [Unpicklable()]}), r'xs_extra\["e"\]\[0\]'),
    "a result": (lambda r, w: r.push_finished_tasks([{}], [{"y": Unpicklable()}]), r'ys\["y"\]\.layers\[1\]'),
    "a worker's input": (lambda r, w: w.push_running_task({"x": Unpicklable()}), r'\["x"\]\.layers\[1\]'),
    "a condition": (lambda r, w: r.push_failed_tasks([{}], {"message": "a", "b": Unpicklable()}), r'\["b"\]'),
    "a loop": (lambda r, w: r.start_workers(Unpicklable().run), r"loop.*lock"),
    "an argument": (
        lambda r, w: r.start_workers(lambda worker, m: None, kwargs={"m": Unpicklable()}),
        r'\["m"\]\.layers\[1\]',
    ),
    "a global": (lambda r, w: r.start_workers(loop, globals={"g": Unpicklable()}), r'\["g"\]\.layers\[1\]'),
}


@pytest.mark.parametrize("case", UNSTORABLE)
def test_what_cannot_be_stored_is_named_by_its_path(
    rush: Rush, worker: RushWorker, network: str, server: redis.Redis, case: str
) -> None:
    """An EncodeError says where in the value the culprit sits; of the whole batch nothing is written."""
    call, path = UNSTORABLE[case]
    before = contents(server, network)
    with pytest.raises(EncodeError, match=path):
        call(rush, worker)
    assert before == contents(server, network)


@pytest.mark.parametrize(
    ("url", "spoken"),
    [
        ("http://host", "http"),
        ("localhost:6379", "scheme"),
        ("redis://host:port/0", "port"),
        ("redis://[::1", "brackets"),
        ("redis://host/abc", "'/abc' is no database"),
        ("redis://host/0?colour=red", "colour"),
        ("unix://", "path"),
        ("redis+sentinel://host:26379", "service"),
        (6379, "6379"),
    ],
)
def test_urls_that_cannot_be_are_refused(network: str, url: Any, spoken: str) -> None:
    """What is wrong with it, and what would be right."""
    with pytest.raises(ConfigError, match=spoken):
        Rush(network, url)


def test_a_password_in_a_bad_url_is_not_shown(network: str) -> None:
    """Not even where the URL makes no sense."""
    for url in ("http://me:hush@host", "redis://me:hush@host:port/0", "redis://:hush@127.0.0.1:1/0"):
        with pytest.raises(RushlightError) as caught:
            Rush(network, url)
        assert "hush" not in str(caught.value)
        assert "hush" not in repr(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "unix:///nowhere/at/all.sock", "rediss://127.0.0.1:1/0"]
)
def test_a_server_that_is_not_there_is_told(network: str, url: str) -> None:
    """StoreUnavailable with the address; trying again may help."""
    with pytest.raises(StoreUnavailable) as caught:
        Rush(network, url, connect_timeout=2)
    assert url in str(caught.value)
    assert caught.value.address == url
    assert caught.value.transient
    with pytest.raises(StoreUnavailable):
        RushWorker(network, url)


def test_a_database_that_is_not_there_is_told(network: str, server: redis.Redis) -> None:
    """The server's own words, as one of our errors."""
    path = server.connection_pool.connection_kwargs["path"]
    with pytest.raises(StoreError, match=r"index|range"):
        Rush(network, f"unix://{path}?db=9999")


@pytest.mark.parametrize("secret", ["short", b"", 12345678, "hex:zz"])
def test_a_secret_that_cannot_be_is_refused(network: str, secret: Any) -> None:
    """Without showing it."""
    with pytest.raises(ConfigError, match="secret") as caught:
        Rush(network, secret=secret)
    assert "short" not in str(caught.value)


@pytest.mark.parametrize("limit", ["connect_timeout", "timeout", "patience"])
@pytest.mark.parametrize("value", [-1, "long", None, math.nan])
def test_limits_that_cannot_be_are_refused(network: str, limit: str, value: Any) -> None:
    """Seconds are numbers, at least zero."""
    with pytest.raises(ConfigError, match=limit):
        Rush(network, **{limit: value})


@pytest.mark.parametrize("limit", ["connect_timeout", "timeout"])
@pytest.mark.parametrize("value", [0, math.inf])
def test_an_answer_is_waited_for_some_time(network: str, limit: str, value: float) -> None:
    """Neither not at all nor for ever."""
    with pytest.raises(ConfigError, match=f"{limit}.*at least 0.001 and at most"):
        Rush(network, **{limit: value})


@pytest.fixture
def small_server() -> Iterator[Server]:
    """A server that may be filled up."""
    server = Server(find_binary(), "--maxmemory-policy", "noeviction")
    yield server
    server.close()


def test_a_full_server_is_told_and_nothing_is_half_written(small_server: Server, home: object) -> None:
    """A push that does not fit fails as a whole, with the server's reason; what was there can still be read,
    and is taken up again when there is room."""
    client = small_server.client()
    with Rush("full", small_server.url) as rush:
        (key,) = rush.push_tasks([{"x": 1}])
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)
        with pytest.raises(StoreError, match="maxmemory"):
            rush.push_tasks([{"x": "a" * 1000} for _ in range(1000)])
        assert [key] == rush.keys()
        client.config_set("maxmemory", 0)
        rush.push_tasks([{"x": 2}])
        assert 2 == rush.n_queued_tasks
        rush.reset()
    assert 0 == client.dbsize()
    client.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that takes connections and is no Redis."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_a_server_that_says_nothing_is_told(network: str, listener: socket.socket) -> None:
    """It takes the connection and never answers: the connect timeout ends that."""
    url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    with pytest.raises(StoreUnavailable) as caught:
        Rush(network, url, connect_timeout=0.3)
    assert url in str(caught.value)


def test_a_server_of_another_kind_is_told(network: str, listener: socket.socket) -> None:
    """It speaks, but not our language: an error of ours, not of a client library's parser."""

    def speak() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
    with pytest.raises(StoreError, match=r"127\.0\.0\.1"):
        Rush(network, url, connect_timeout=1)
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def test_a_remote_server_without_any_secret_gets_no_code(network: str, home: object) -> None:
    """Nobody could tell whose code it is: refused, with the ways out, before anything is written. Plain data
    needs no secret; what would be pickled does."""
    with socket.create_server(("127.0.0.2", 0)) as free:
        port = free.getsockname()[1]
    served = Server(find_binary(), "--bind", "127.0.0.2", "--port", str(port))
    client = served.client()
    with Rush(network, f"redis://127.0.0.2:{port}/0") as rush:
        for call in (
            lambda: rush.start_workers(loop),
            lambda: rush.worker_script(loop),
            lambda: rush.push_tasks([{"x": complex}]),
        ):
            with pytest.raises(SecretRequired, match="secret") as caught:
                call()
            assert "RUSHLIGHT_SECRET" in str(caught.value)
            assert 0 == client.dbsize()
        rush.push_tasks([{"x": 1}])
        assert [1] == rush.fetch_queued_tasks()["x"].to_list()
    client.close()
    served.close()


def test_code_signed_with_another_secret_is_not_run(
    rush: Rush, network: str, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker refuses it, and that is a visible failure of its start."""
    url = f"unix://{server.connection_pool.connection_kwargs['path']}"
    with Rush(network, url, secret="the manager's secret") as manager:
        words = shlex.split(manager.worker_script(loop))
        monkeypatch.setenv("RUSHLIGHT_SECRET", "the worker's secret")
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert 1 == done.returncode
    assert "secret" in done.stderr
    assert ["lost"] == rush.worker_info["state"].to_list()
