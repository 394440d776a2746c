"""Workers that are started by hand: the shell line, the command, and what it says where it cannot begin."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from rushlight import Rush
from rushlight.errors import ConfigError, EncodeError

Wait = Callable[..., None]
PASSWORD = "p$w`d'\"\\ with ${HOME} and spaces %41"


def serve(worker, suffix=""):
    """Do tasks from the queue until told to leave."""
    while not worker.terminated:
        task = worker.pop_task(timeout=5)
        if task is not None:
            worker.finish_task(task.key, {"y": f"{task.xs['x']}{suffix}"})


@contextmanager
def shell(line: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A shell that runs a line, ended with all it started."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", line], env={**os.environ, **environment}, start_new_session=True
    )
    try:
        yield process
    finally:
        process.wait(60)


def command(*args: str) -> subprocess.CompletedProcess[str]:
    """``python -m rushlight worker`` and what it said."""
    line = [sys.executable, "-m", "rushlight", "worker", *args]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_a_script_starts_workers_anywhere(rush: Rush, network: str) -> None:
    """A shell line is all another host needs: its workers register, have leases, and do tasks."""
    line = rush.worker_script(serve, n_workers=2, kwargs={"suffix": "!"}, lease=6)
    assert "\n" not in line.strip()
    assert rush.worker_info.is_empty()
    with shell(line):
        rush.wait_for_workers(2)
        assert rush.worker_info["heartbeat"].null_count() == 0
        keys = rush.push_tasks([{"x": 1}, {"x": 2}])
        assert keys == rush.wait_for_tasks(keys, timeout=60).done
        assert {"1!", "2!"} == set(rush.fetch_finished_tasks()["y"])
        rush.stop_workers("terminate")
    assert 2 == rush.n_terminated_workers


def test_workers_of_a_script_can_be_killed(rush: Rush) -> None:
    """They are nobody's children, and stop like any."""
    with shell(rush.worker_script(serve)):
        rush.wait_for_workers(1)
        assert 1 == len(rush.stop_workers("kill"))
    assert 1 == rush.n_killed_workers


def test_a_script_outlives_its_manager(rush: Rush, network: str) -> None:
    """It was made by a manager that has gone: the workers come, and stay."""
    with Rush(network) as author:
        line = author.worker_script(serve)
    with shell(line):
        rush.wait_for_workers(1)
        rush.wait_for_tasks(rush.push_tasks([{"x": 1}]), timeout=60)
        rush.stop_workers("terminate")
    assert 1 == rush.n_finished_tasks


def test_a_script_survives_any_name(server: redis.Redis) -> None:
    """Whatever the network is called, the shell hands it on unchanged."""
    network = "o'brien$HOME`id`\"\\;&|*?!"
    with Rush(network) as rush:
        words = shlex.split(rush.worker_script(serve))
        assert any(network in word for word in words)
        with shell(rush.worker_script(serve)):
            rush.wait_for_workers(1)
            rush.stop_workers("terminate")
        rush.reset()
    assert 0 == server.dbsize()


@pytest.fixture
def locked_url(server: redis.Redis) -> Iterator[str]:
    """The server's URL while it demands a password with everything in it a shell could stumble over."""
    from urllib.parse import quote

    path = server.connection_pool.connection_kwargs["path"]
    server.acl_setuser(
        "guest", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], channels=["*"], commands=["+@all"]
    )
    try:
        yield f"unix://guest:{quote(PASSWORD, safe='')}@{path}"
    finally:
        server.acl_deluser("guest")


def test_a_script_holds_no_password(server: redis.Redis, locked_url: str) -> None:
    """Neither the line nor a process's arguments show it: ``RUSHLIGHT_URL`` brings it."""
    with Rush("locked", locked_url) as rush:
        line = rush.worker_script(serve)
        for secret in (PASSWORD, "p%24w", "p$w"):
            assert secret not in line
            assert secret not in repr(rush)
            assert secret not in str(rush.url)
        with shell(line, RUSHLIGHT_URL=locked_url):
            rush.wait_for_workers(1)
            rush.stop_workers("terminate")
        rush.start_workers(serve)
        rush.wait_for_workers(2)
        rush.reset()
    assert 0 == server.dbsize()


def test_a_wrong_password_is_told_without_it(server: redis.Redis, locked_url: str) -> None:
    """The error has the address, not the password."""
    from rushlight.errors import StoreError

    url = locked_url.replace("p%24w", "wrong")
    with pytest.raises(StoreError) as caught:
        Rush("locked", url)
    assert "wrong" not in str(caught.value).replace("WRONGPASS", "").replace("wrong password", "")
    assert "server.sock" in str(caught.value)


def test_a_secret_reaches_the_workers(server: redis.Redis, network: str) -> None:
    """``secret=`` signs the loop; workers this manager starts can read it."""
    url = f"unix://{server.connection_pool.connection_kwargs['path']}"
    with Rush(network, url, secret="a secret of ours") as rush:
        rush.start_workers(serve)
        rush.wait_for_workers(1)
        line = rush.worker_script(serve)
        assert "a secret of ours" not in line
        with shell(line, RUSHLIGHT_SECRET="a secret of ours"):
            rush.wait_for_workers(2)
            rush.stop_workers("kill")


def test_a_worker_without_a_network_says_so() -> None:
    """One line, no traceback, wrong usage."""
    done = command(f"--spec={'0' * 32}")
    assert (2, "") == (done.returncode, done.stdout)
    assert "--network" in done.stderr
    assert 1 == done.stderr.strip().count("\n") + 1


def test_a_worker_for_nothing_says_so(network: str, server: redis.Redis) -> None:
    """Start arguments the network does not have: told on stderr, with both names. Perhaps the network was
    reset meanwhile, so nothing of it comes back."""
    done = command(f"--network={network}", "--spec=feedbeef", "--worker-id=lonely")
    assert 1 == done.returncode
    assert network in done.stderr and "feedbeef" in done.stderr
    assert "Traceback" not in done.stderr
    assert 0 == server.dbsize()


@pytest.mark.parametrize(
    "args",
    [
        ["--workers=0"],
        ["--grace=-1"],
        ["--worker-id=a", "--worker-id=a"],
        ["--workers=many"],
        ["--colour=red"],
    ],
)
def test_a_command_that_cannot_be_is_wrong_usage(network: str, args: list[str]) -> None:
    """Exit code 2 and one line, and nothing is registered."""
    done = command(f"--network={network}", "--spec=x", *args)
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert args[0].partition("=")[0] in done.stderr


def test_a_script_of_what_cannot_travel_is_refused(rush: Rush, server: redis.Redis) -> None:
    """Before anything is written."""
    from threading import Lock

    lock = Lock()
    with pytest.raises(EncodeError, match="lock"):
        rush.worker_script(lambda worker: lock)
    with pytest.raises(ConfigError, match="n_workers"):
        rush.worker_script(serve, n_workers=0)
    assert 0 == server.dbsize()
