"""What every test needs: a server of its own session, a network of its own, and proof that nothing is left.

Real servers and processes throughout. A test asks for ``rush`` and uses the public interface only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest
import redis

from harness import Server, binaries
from rushlight import Controller, Rush, RushWorker, plan
from rushlight._server import ensure_server, stop_server
from rushlight.launchers import LocalLauncher

# A busy machine may take any time for an example.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

SETTINGS = ("RUSHLIGHT_URL", "REDIS_URL", "RUSHLIGHT_SECRET")


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition that no event tells of, at most this long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.02)


def processes_of(network: str) -> list[psutil.Process]:
    """Supervisors and workers of a network, also orphans: their command line names it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            told = process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid()
            if told and any(network in word for word in process.cmdline()):
                found.append(process)
    return found


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """``wait_until(condition, seconds=30)``."""
    return until


@pytest.fixture
def processes() -> Callable[[str], list[psutil.Process]]:
    """``processes(network)``: what runs for it on this machine."""
    return processes_of


@pytest.fixture(scope="session")
def shared_home() -> Iterator[Path]:
    """The home of an embedded server for all tests; gone in the end, with the server."""
    folder = Path(tempfile.mkdtemp(prefix="rl-", dir="/tmp")).resolve()
    try:
        yield folder / "home"
    finally:
        with contextlib.suppress(FileNotFoundError):
            stop_server(folder / "home")
        shutil.rmtree(folder)


@pytest.fixture
def home(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of a user who has none: the embedded server is used."""
    monkeypatch.setenv("RUSHLIGHT_HOME", str(shared_home))
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return shared_home


@pytest.fixture
def controllers(network: str) -> Iterator[Callable[..., Controller]]:
    """Makes controllers of the test's network, which are terminated in the end."""
    made: list[Controller] = []

    def make(**given: Any) -> Controller:
        made.append(Controller(network, **given))
        return made[-1]

    yield make
    for controller in made:
        controller.terminate()
        if isinstance(controller._launches._launcher, LocalLauncher):
            controller._launches._launcher.close()


@pytest.fixture
def own(home: Path) -> Iterator[Callable[..., Server]]:
    """``own(*options)``: a server of the test's own."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        started.append(Server(str(binaries()["valkey"]), *options))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def server(home: Path) -> Iterator[redis.Redis]:
    """A plain client of the server, to see what is stored."""
    client = redis.Redis(unix_socket_path=str(ensure_server(home)))
    yield client
    client.close()


@pytest.fixture
def network(server: redis.Redis) -> Iterator[str]:
    """The name of a network, of which nothing is left after the test: keys, processes, a plan."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    plan.clear()
    # By its own name: a test may have changed the settings.
    with Rush(name, f"unix://{server.connection_pool.connection_kwargs['path']}") as rush:
        rush.reset()
    try:
        until(lambda: not processes_of(name), 15)
        assert [] == [key for key in server.scan_iter(count=1000) if name.encode() in key]
    finally:
        for process in processes_of(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def rush(network: str) -> Iterator[Rush]:
    """A manager on a fresh network."""
    with Rush(network) as manager:
        yield manager


@pytest.fixture
def worker(network: str) -> Iterator[RushWorker]:
    """A worker in this process: what a loop is given."""
    with RushWorker(network) as member:
        yield member
