"""A store on a server of each kind, members of its network, and the proof that nothing is left."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ground import Ground
from harness import KINDS, Server, binaries


def binary_of(kind: str) -> str:
    """The server program; a test that needs one that is not here is skipped, in CI it fails."""
    path = binaries()[kind]
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no {kind} server on this machine")
    return str(path)


@pytest.fixture(scope="session")
def session_home() -> Iterator[Path]:
    """A home with nothing in it but the user's key."""
    with tempfile.TemporaryDirectory(prefix="rlt-", dir="/tmp") as folder:
        yield Path(folder).resolve()


@pytest.fixture(autouse=True)
def settings(session_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a user who has set nothing but a home."""
    monkeypatch.setenv("RUSHLIGHT_HOME", str(session_home))
    for name in ("RUSHLIGHT_URL", "REDIS_URL", "RUSHLIGHT_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", params=KINDS)
def any_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server of each kind, for all tests."""
    server = Server(binary_of(request.param))
    yield server
    server.close()


@pytest.fixture
def own_server() -> Iterator[Callable[..., Server]]:
    """``own_server(*options, kind="valkey")``: a server of the test's own, which it may kill."""
    started: list[Server] = []

    def start(*options: str, kind: str = "valkey") -> Server:
        started.append(Server(binary_of(kind), *options))
        return started[-1]

    yield start
    for server in started:
        server.close()


def _open_sockets() -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


def _children() -> set[str]:
    """Processes this one has started and not waited for."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for children in tasks for pid in children.read_text().split()}


@pytest.fixture
def no_leaks(session_home: Path) -> Iterator[None]:
    """After the test: no process, thread, connection or file that was not there before."""
    children, sockets, threads = _children(), _open_sockets(), set(threading.enumerate())
    yield
    if _open_sockets() > sockets:
        gc.collect()
    assert sockets >= _open_sockets(), "a connection was left open"
    new = set(threading.enumerate()) - threads
    assert [] == [thread.name for thread in new if thread.name.startswith("rushlight-")]
    assert _children() <= children
    assert {path.name for path in session_home.iterdir()} <= {"key"}


@pytest.fixture
def network(no_leaks: None) -> str:
    """A name nobody else uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def ground(any_server: Server, network: str) -> Iterator[Ground]:
    """A network on each kind of server."""
    ground = Ground(any_server, network)
    yield ground
    ground.close()


@pytest.fixture
def ground_on(network: str) -> Iterator[Callable[[Server], Ground]]:
    """``ground_on(server)``: a network on a server of the test's own, with which it goes."""
    made: list[Ground] = []

    def on(server: Server) -> Ground:
        made.append(Ground(server, network))
        return made[-1]

    yield on
    for ground in made:
        ground.disconnect()
