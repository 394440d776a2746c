"""Every argument of a controller does what it says: those of which no other module tells."""

from __future__ import annotations

import inspect
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from rushlight import Controller, InlineController, _endings
from rushlight.errors import ConfigError, LaunchError, SignatureMismatch, StoreUnavailable
from rushlight.launchers import Handle, HandleState, LocalLauncher, WorkerCommand

PATIENCE = 60.0
TESTS = Path(__file__).resolve().parent.parent


class Silent(LocalLauncher):
    """Starts processes that say nothing."""

    name = "silent"

    def launch(self, command: WorkerCommand, n: int) -> list[Handle]:
        argv = (sys.executable, "-c", "import signal; signal.pause()")
        return super().launch(WorkerCommand(argv, worker_ids=command.worker_ids, outlive=True), n)


class Counting:
    """A scheduler's queue that nothing leaves."""

    name = "counting"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def launch(self, command: WorkerCommand, n: int) -> list[Handle]:
        self.batches.append(n)
        return [Handle(self.name, worker_id, (worker_id,)) for worker_id in command.worker_ids]

    def poll(self, handles: list[Handle]) -> list[HandleState]:
        return [HandleState("pending")] * len(handles)

    def terminate(self, handles: list[Handle]) -> None:
        pass

    def log_tail(self, handle: Handle) -> str:
        return ""


def test_every_argument_has_its_test() -> None:
    """The checklist has a row for each argument of the signature, in its order; and no other."""
    listed = (TESTS / "CHECKLIST.md").read_text().partition("## The arguments of a controller")[2]
    rows = re.findall(r"^\| `(\w+)` \| .* \| .*::test_.* \|$", listed.partition("\n## ")[0], re.MULTILINE)
    arguments = [name for name in inspect.signature(Controller).parameters if name != "self"]
    assert arguments == rows
    assert {*inspect.signature(InlineController).parameters} <= {*arguments}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"max_workers": 0}, "max_workers=0"),
        ({"min_workers": 3, "max_workers": 2}, "min_workers=3 is more than max_workers=2"),
        ({"max_memory": 1.5}, "max_memory=1.5"),
        ({"max_queued_bytes": "2GB"}, "max_queued_bytes='2GB'"),
        ({"max_lifetime": 0}, "max_lifetime=0 must be a number of seconds, at least 0.001 or None"),
        ({"tasks_per_worker": 0}, "tasks_per_worker=0 must be a number, at least 1e-06"),
        ({"fallback": 5}, "fallback=5 must be another Controller"),
        ({"launcher": "nope"}, "launcher='nope' is not known; there are local"),
        ({"launcher": object()}, "it lacks launch, poll, terminate, log_tail"),
        ({"packages": "numpy"}, "packages must be a list of str"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be(network: str, given: dict[str, Any], told: str) -> None:
    """Each is refused with its name and its value; of the controller that was not made nothing is left."""
    with pytest.raises(ConfigError, match=re.escape(told)):
        Controller(network, **given)
    assert _endings._left.empty()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda c: c.submit("abs"), "fn must be callable, got 'abs'"),
        (lambda c: c.map(5, [1]), "fn must be callable"),
        (lambda c: c.walk(5, [1]), "fn must be callable"),
        (lambda c: c.broadcast(5), "fn must be callable"),
        (lambda c: c.options(timeot=3), "'timeot' is no option of a call: there are name, timeout"),
        (lambda c: c.push("", abs, -1), "name='' must be a text that is not empty"),
        (lambda c: c.options(resources=[5]), "resources=5 must be a dict of settings, or a launcher"),
        (lambda c: c.map(abs, [1], error="x"), "error='x'"),
        (lambda c: c.wait("some"), "mode='some'"),
    ],
)
def test_calls_that_cannot_be(
    controllers: Callable[..., Controller], call: Callable[[Controller], Any], told: str
) -> None:
    """They are refused at once, and no worker hears of them."""
    controller = controllers(max_workers=1, launcher=Counting())
    with pytest.raises(ConfigError, match=re.escape(told)):
        call(controller)
    assert controller.empty


def test_a_network_of_its_own_is_gone_in_the_end(server: redis.Redis) -> None:
    """Without a name there is one, and no key of it after ``shutdown``."""
    with Controller(max_workers=1) as controller:
        assert 3 == controller.submit(abs, -3).result(PATIENCE)
        assert [1] * 2 == [
            server.exists(f"rl:{{{controller.network}}}:{key}") for key in ("control", "index")
        ]
    assert [] == list(server.scan_iter(match=f"rl:{{{controller.network}}}:*", count=1000))


def test_the_server_is_the_one_that_is_named(
    network: str, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ``url`` goes before all other settings, for workers as well; one where nobody is, is told."""
    path = server.connection_pool.connection_kwargs["path"]
    monkeypatch.setenv("RUSHLIGHT_URL", "redis://127.0.0.1:1/0")
    with Controller(network, f"unix://{path}", max_workers=1) as controller:
        assert 3 == controller.submit(abs, -3).result(PATIENCE)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
        Controller(network)


def test_a_process_that_says_nothing_has_failed(controllers: Callable[..., Controller]) -> None:
    """A launch whose process runs and is not heard of in time is ended, and told."""
    launcher = Silent()
    controller = controllers(max_workers=3, launcher=launcher, launch_timeout=0.3)
    error, *_ = [future.exception(PATIENCE) for future in controller.walk(abs, range(3))]
    assert isinstance(error, LaunchError)
    assert re.search(r"no word from worker [\w-]+ within 0.3 s", str(error))
    controller.terminate()
    assert not [one for one in launcher._processes.values() if one.popen.poll() is None]


def test_what_a_worker_does_before_its_first_call(controllers: Callable[..., Controller]) -> None:
    """It imports the packages, then calls the hook once, with the worker where it takes one."""

    def begin(worker: Any) -> None:
        os.environ["BEGUN"] = os.environ.get("BEGUN", "") + f"{worker.worker_id} {'colorsys' in sys.modules}"

    controller = controllers(max_workers=1, packages=["colorsys"], on_worker_start=begin)
    told = set(controller.map(lambda _: os.environ["BEGUN"], range(3)))
    (worker_id,) = controller.workers()["worker_id"]
    assert {f"{worker_id} True"} == told


def test_a_package_that_is_missing_is_told(controllers: Callable[..., Controller]) -> None:
    """Calls end with the name of what the workers cannot import."""
    controller = controllers(max_workers=1, packages=["no_such_package"])
    error = controller.submit(abs, -1).exception(PATIENCE)
    assert isinstance(error, LaunchError)
    assert "No module named 'no_such_package'" in str(error)


def test_one_worker_for_several_calls(controllers: Callable[..., Controller]) -> None:
    """As many workers as calls divided by ``tasks_per_worker``, in one batch."""
    launcher = Counting()
    controller = controllers(max_workers=9, launcher=launcher, tasks_per_worker=3)
    controller.descale()
    controller.walk(abs, range(8))
    assert controller.scale()
    assert [3] == launcher.batches


@pytest.mark.parametrize("size", [30_000, 3_000_000])
def test_what_is_under_way_can_be_bounded_in_bytes(
    controllers: Callable[..., Controller], wait_until: Callable[..., None], size: int
) -> None:
    """With ``max_queued_bytes`` a submission waits while calls of so many bytes have not ended, values that
    are stored apart included; ``shutdown`` refuses one that waits."""
    controller = controllers(max_workers=1, launcher=Counting(), max_queued_bytes=2 * size)
    futures = [controller.push(f"call-{i}", len, bytes(size)) for i in range(2)]
    refused: list[str] = []

    def push(name: str) -> None:
        try:
            futures.append(controller.push(name, len, b""))
        except RuntimeError as error:
            refused.append(str(error))

    third = threading.Thread(target=push, args=("third",))
    third.start()
    wait_until(lambda: controller._feed._watchers)
    assert futures[0].cancel()
    third.join(PATIENCE)
    assert 3 == len(futures)
    controller.push("fourth", len, bytes(size))
    fifth = threading.Thread(target=push, args=("fifth",))
    fifth.start()
    wait_until(lambda: controller._feed._watchers)
    controller.terminate()
    fifth.join(PATIENCE)
    assert ["cannot schedule new futures after shutdown"] == refused


def test_the_lease_is_the_workers(controllers: Callable[..., Controller]) -> None:
    """Workers are lost after so many seconds of silence."""
    controller = controllers(max_workers=1, lease=3.5)
    controller.submit(abs, -1).result(PATIENCE)
    assert [3.5] == [card.lease for card in controller._rush._store.cards().values()]


def test_a_secret_is_the_workers_too(controllers: Callable[..., Controller], network: str) -> None:
    """What is pickled travels under it both ways; nobody else can read it, or have it read."""
    controller = controllers(max_workers=1, secret="between us")
    future = controller.submit(lambda value: value, {1, 2})
    assert {1, 2} == future.result(PATIENCE)
    with Controller(network, secret="another one") as stranger:
        (result,) = stranger.collect()
        assert isinstance(result.exception, SignatureMismatch)
