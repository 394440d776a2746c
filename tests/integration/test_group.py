"""Several controllers behind one set of verbs."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator

import pytest

from rushlight import Controller, ControllerGroup
from rushlight.errors import ConfigError

PATIENCE = 60.0


def square(x: int) -> int:
    """A call that takes no time."""
    return x * x


def stay() -> None:
    """Never ends."""
    threading.Event().wait(600)


def crash() -> None:
    """Ends its worker."""
    import os

    os._exit(3)


@pytest.fixture
def group(network: str) -> Iterator[ControllerGroup]:
    """Two members, of one worker each, on networks of their own."""
    with ControllerGroup(
        {
            "cpu": Controller(f"{network}-cpu", max_workers=1, max_crashes=0),
            "gpu": Controller(f"{network}-gpu", max_workers=1, max_crashes=0),
        }
    ) as found:
        yield found
        found.terminate()
        for name in found:
            with_network(found, name)


def with_network(group: ControllerGroup, name: str) -> None:
    """Removes what a member has left."""
    from rushlight import Rush

    with Rush(group[name].network) as rush:
        rush.reset()


def test_it_has_every_verb_of_a_controller() -> None:
    """With the same parameters, and ``controller`` besides."""
    for name, verb in inspect.getmembers(Controller, inspect.isfunction):
        if name.startswith("_"):
            continue
        own = inspect.signature(getattr(ControllerGroup, name)).parameters
        theirs = inspect.signature(verb).parameters
        assert {*theirs, "controller"} == set(own), name
    for name, member in inspect.getmembers(Controller, lambda found: isinstance(found, property)):
        assert name == "network" or isinstance(getattr(ControllerGroup, name), property), member


def test_calls_go_to_the_member_that_is_named(group: ControllerGroup) -> None:
    """To the first by default; results say whose they are, and each is collected once, from any."""
    first = group.submit(square, 2)
    second = group.submit(square, 3, controller="gpu")
    assert (4, 9) == (first.result(PATIENCE), second.result(PATIENCE))
    del first, second
    group.push("a", square, 4)
    group.push("a", square, 5, controller="gpu")
    assert group.wait(timeout=PATIENCE)
    found = {(result.controller, result.value) for result in group.collect()}
    assert {("cpu", 16), ("gpu", 25), ("cpu", 4), ("gpu", 9)} == found
    assert [] == group.collect()
    assert [0, 1, 4] == list(group.map(square, range(3), controller="gpu"))
    assert [0, 1] == [future.result(PATIENCE) for future in group.walk(square, range(2), controller="gpu")]
    assert {"cpu", "gpu"} == set(group.workers()["controller"])


def test_a_pop_takes_turns(group: ControllerGroup) -> None:
    """No member's results keep another's waiting."""
    for i in range(3):
        group.push(f"c{i}", square, i)
        group.push(f"g{i}", square, i, controller="gpu")
    assert group.wait(timeout=PATIENCE)
    taken = [group.pop() for _ in range(6)]
    owners = [result.controller for result in taken if result is not None]
    assert {"cpu", "gpu"} == set(owners[:2]) == set(owners[2:4]) == set(owners[4:])
    assert group.pop() is None
    assert (6, 6) == (group.summary().tasks, group.summary().success)
    assert 3 == group.summary(controller="gpu").tasks


def test_a_wait_is_woken_by_any_member(group: ControllerGroup) -> None:
    """A pop that waits, and a wait for one, end with the first result of whichever member."""
    assert group.pop(0.0) is None
    assert not group.wait("one", timeout=0.0)
    with pytest.raises(ConfigError, match="mode"):
        group.wait("some")
    group.push("g", square, 6, controller="gpu")
    assert group.wait("one", timeout=PATIENCE)
    found = group.pop(PATIENCE)
    assert found is not None
    assert ("gpu", 36) == (found.controller, found.value)
    popped: list[object] = []
    thread = threading.Thread(target=lambda: popped.append(group.pop(PATIENCE)))
    thread.start()
    group.push("h", square, 7, controller="gpu")
    thread.join(PATIENCE)
    assert 49 == popped[0].value


def test_cancelling_and_crashes(group: ControllerGroup) -> None:
    """Named calls are cancelled wherever they are; a crash is counted at its member."""
    group.push("long", stay, controller="gpu")
    group.push("waits", square, 1, controller="gpu")
    assert {"waits", "long"} == set(group.cancel(["waits", "long", "unknown"]))
    group.push("bad", crash)
    assert group.wait(timeout=PATIENCE, controller="cpu")
    assert 1 == group.crashes("bad")
    assert {"cancel": 2, "crash": 1} == {
        "cancel": sum(result.status == "cancel" for result in group.collect(controller="gpu")),
        "crash": sum(result.status == "crash" for result in group.collect(controller="cpu")),
    }


def test_counts_and_backlogs(group: ControllerGroup) -> None:
    """Counts are sums; a backlog belongs to its member; the group is saturated where all are."""
    assert group.empty
    assert 0 == len(group)
    group["cpu"].descale()
    group["gpu"].descale()
    group.submit(square, 1)
    assert (1, False, False) == (len(group), group.empty, group.saturated)
    group.submit(square, 1, controller="gpu")
    assert (2, True) == (len(group), group.saturated)
    group.push_backlog("later", controller="gpu")
    assert [] == group.pop_backlog(controller="gpu")
    group.autoscale(controller="gpu")
    assert group.wait(timeout=PATIENCE, controller="gpu")
    group.collect(controller="gpu")
    assert ["later"] == group.pop_backlog(controller="gpu")
    group.autoscale()


def test_one_member_can_end_before_the_others(group: ControllerGroup) -> None:
    """The others go on."""
    group.shutdown(controller="gpu")
    assert 81 == group.submit(square, 9).result(PATIENCE)
    with pytest.raises(RuntimeError):
        group.submit(square, 9, controller="gpu")


@pytest.mark.parametrize("which", ["tpu", ["cpu", "tpu"], 5])
def test_who_is_no_member(group: ControllerGroup, which: object) -> None:
    """Is named, before anything happens."""
    with pytest.raises(ConfigError, match="controller"):
        group.collect(controller=which)
    with pytest.raises(ConfigError, match="one member"):
        group.submit(square, 1, controller=["cpu", "gpu"])


def test_what_makes_no_group(network: str) -> None:
    """No member, things that are no controllers, or two controllers of one network."""
    for wrong in ({}, {"a": None}, [None]):
        with pytest.raises(ConfigError, match="at least one Controller"):
            ControllerGroup(wrong)
    with (
        Controller(network, max_workers=1) as one,
        Controller(network, max_workers=1) as two,
        pytest.raises(ConfigError, match="one network"),
    ):
        ControllerGroup({"a": one, "b": two})
