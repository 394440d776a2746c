"""Calls that go on elsewhere after a crash: in a fallback, or with more of what they need."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rushlight import Controller, Rush
from rushlight.errors import ConfigError, WorkerCrashed

PATIENCE = 60.0


def need(megabytes: int, payload: Any = None) -> tuple[int, Any]:
    """A call that crashes where it may not have so much memory."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < megabytes:
        os.kill(os.getpid(), signal.SIGKILL)
    return soft, payload


def allow(n: int) -> Any:
    """A hook for workers: sets what ``need`` looks at."""

    def set_limit() -> None:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))

    return set_limit


@pytest.fixture
def pair(network: str) -> Iterator[tuple[Controller, Controller]]:
    """A small controller and the big one that it falls back on."""
    with (
        Controller(f"{network}-big", max_workers=1, max_crashes=0, on_worker_start=allow(900)) as big,
        Controller(network, max_workers=1, max_crashes=1, on_worker_start=allow(500), fallback=big) as small,
    ):
        yield small, big
    with Rush(f"{network}-big") as rush:
        rush.reset()


def test_a_call_that_crashes_goes_on_in_the_fallback(pair: tuple[Controller, Controller]) -> None:
    """Its future has the value all the same, whatever its arguments are; what works here stays here."""
    small, big = pair
    constants = small.constants(table=list(range(100)))
    futures = [
        small.submit(need, 400),
        small.submit(need, 800),
        small.submit(need, 800, {"a": (1, 2)}),
        small.submit(need, 800, constants["table"]),
        small.submit(need, 800, b"x" * 200_000),
    ]
    values = [future.result(PATIENCE) for future in futures]
    assert [500, 900, 900, 900, 900] == [soft for soft, _ in values]
    assert [None, None, {"a": (1, 2)}, list(range(100)), b"x" * 200_000] == [payload for _, payload in values]
    assert small.wait(timeout=PATIENCE)
    results = small.collect()
    assert 5 == len(results)
    assert {small.network: 1, big.network: 4} == {
        name: sum(result.controller == name for result in results) for name in (small.network, big.network)
    }
    assert 5 == small.summary().success


def test_a_call_that_has_gone_on_is_not_made_again(pair: tuple[Controller, Controller]) -> None:
    """A controller that was killed had passed it on, and the next one does so again: the result is there."""
    small, big = pair
    future = small.push("twice", need, 800)
    assert 900 == future.result(PATIENCE)[0]
    (row,) = small._rush._store.look_up("twice").failed
    small._moved.clear()
    assert small._pass_on(row)
    assert big.wait(timeout=PATIENCE)
    assert (0, 0) == (small._feed.own, big._feed.own)
    assert 1 == len([name for name in big._rush.keys("finished") if name.startswith("twice")])


def test_constants_go_on_from_inside_of_a_call(network: str) -> None:
    """A call that has a controller with a fallback: constants in its calls go there as such, though
    they are values where it runs."""

    def inner() -> int:
        from rushlight import Controller

        with (
            Controller(max_workers=1) as big,
            Controller(max_workers=1, max_crashes=0, on_worker_start=allow(500), fallback=big) as small,
        ):
            table = small.constants(table=list(range(100)))["table"]
            return len(small.submit(need, 800, table).result(PATIENCE)[1])

    with Controller(network, max_workers=1) as outer:
        assert 100 == outer.submit(inner).result(PATIENCE)


def test_the_last_crash_of_all_is_told(pair: tuple[Controller, Controller]) -> None:
    """Where the fallback cannot do it either, its crash is the call's."""
    small, _ = pair
    error = small.push("hopeless", need, 1000).exception(PATIENCE)
    assert isinstance(error, WorkerCrashed)
    (result,) = small.collect()
    assert ("hopeless", "crash") == (result.name, result.status)


def test_a_call_asks_for_more_each_time(network: str) -> None:
    """``resources=[small, big]``: a call that crashes with the first goes on with the next."""

    def crash_unless_second() -> int:
        limit = int(os.environ["RUSHLIGHT_TEST_LEVEL"])
        if limit < 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return limit

    with Controller(network, max_workers=1, max_crashes=0) as controller:
        small = {"launcher": LevelLauncher(1)}
        big = {"launcher": LevelLauncher(2), "max_memory": 10**9}
        future = controller.options(resources=[small, big]).submit(crash_unless_second)
        assert 2 == future.result(PATIENCE)
        assert 2 == controller.options(resources=big).submit(crash_unless_second).result(PATIENCE)
        networks = [one.network for one in controller._family()]
        with pytest.raises(ConfigError, match="colour"):
            controller.options(resources={"colour": "red"})
    for name in networks:
        with Rush(name) as rush:
            rush.reset()


@pytest.mark.slow
def test_a_call_that_needs_more_memory_gets_it(network: str) -> None:
    """One that is killed for what it holds goes on where it may hold more."""

    def hold() -> int:
        held = []
        for _ in range(60):
            held.append(bytearray(4 << 20))
            threading.Event().wait(0.005)
        return sum(map(len, held)) >> 20

    with Controller(network, max_workers=1) as controller:
        sizes = [{"max_memory": most << 20, "max_crashes": 0} for most in (128, 1024)]
        assert 240 == controller.options(resources=sizes, name="large").submit(hold).result(PATIENCE)
        names = [one.network for one in controller._family()]
        (result,) = controller.collect()
        assert ("large", "success", names[-1]) == (result.name, result.status, result.controller)
    for name in names:
        with Rush(name) as rush:
            rush.reset()


@pytest.mark.parametrize("how", ["fallback", "resources"])
def test_shutdown_waits_for_what_goes_on_elsewhere(network: str, how: str) -> None:
    """A call that crashes once ``shutdown`` has begun goes on in the fallback all the same."""

    def crash_unless(level: int) -> int:
        if int(os.environ.get("RUSHLIGHT_TEST_LEVEL", "1")) < level:
            os._exit(3)
        return level

    with Controller(f"{network}-b", max_workers=1, launcher=LevelLauncher(2)) as big:
        with Controller(network, max_workers=1, max_crashes=0, fallback=big) as small:
            options = {"resources": [{"max_crashes": 0}, {"launcher": LevelLauncher(2)}]}
            made = small.options(**options) if how == "resources" else small
            future = made.submit(crash_unless, 2)
            names = [one.network for one in small._family()]
        assert 2 == future.result(PATIENCE)
    for name in names:
        with Rush(name) as rush:
            rush.reset()


class LevelLauncher:
    """Local workers that know their level."""

    def __init__(self, level: int) -> None:
        from rushlight.launchers import LocalLauncher

        self.name = f"level-{level}"
        self.level = level
        self._local = LocalLauncher()

    def launch(self, command: Any, n: int) -> Any:
        from dataclasses import replace

        environment = {**command.environment, "RUSHLIGHT_TEST_LEVEL": str(self.level)}
        return self._local.launch(replace(command, environment=environment), n)

    def poll(self, handles: Any) -> Any:
        return self._local.poll(handles)

    def terminate(self, handles: Any) -> None:
        self._local.terminate(handles)

    def log_tail(self, handle: Any) -> str:
        return self._local.log_tail(handle)

    def wait(self, handles: Any, timeout: float) -> bool:
        return self._local.wait(handles, timeout)

    def __del__(self) -> None:
        if sys.meta_path is not None:
            self._local.close()
