"""Results are given out once, also where a collector is killed, refused or not answered."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ground import hold_to_be_gone
from harness import Server, run_python
from rushlight import Controller
from rushlight._server import find_binary
from rushlight.errors import StoreError, StoreUnavailable

PATIENCE = 60.0

COLLECTOR = """
import sys
from rushlight import Controller

if __name__ == "__main__":
    controller = Controller(sys.argv[1], max_workers=1, idle_timeout=1)
    controller.push("one", len, "a")
    while controller.pop(1) is None:
        pass
    if sys.argv[2] == "asks":
        assert controller.pop() is None
    print("had it", flush=True)
    sys.stdin.read()
"""


def take_in_hand(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has it hold a result that it cannot give out, as the server is away just then."""

    def away(row: Any) -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(controller._ends, "value", away)
        with pytest.raises(StoreUnavailable):
            controller.pop()


@pytest.mark.parametrize(("how", "again"), [("asks", []), ("asks not", ["one"])])
def test_who_asks_for_more_has_had_what_he_was_given(network: str, how: str, again: list[str]) -> None:
    """Killed right after it asked and there was nothing more: no other gets the result; killed before it
    asked, the next one does."""
    process = run_python(COLLECTOR, network, how)
    assert process.stdout is not None
    assert "had it\n" == process.stdout.readline()
    process.kill()
    process.communicate(timeout=PATIENCE)
    with Controller(network, max_workers=1) as controller:
        assert again == [result.name for result in controller.collect()]


def test_a_refused_collector_gets_its_results_later() -> None:
    """A server that is full refuses to note who collects; once there is room, the same controller gets what
    it asked for in vain, whichever way it asks."""
    server = Server(find_binary(), "--maxmemory-policy", "noeviction")
    try:
        with server.client() as raw, Controller("full", server.url, max_workers=1) as controller:
            for name, ask in (("a", controller.pop), ("b", controller.collect)):
                controller.push(name, len, name)
                assert controller.wait(timeout=PATIENCE)
                raw.config_set("maxmemory", 1)
                with pytest.raises(StoreError, match="maxmemory"):
                    ask()
                raw.config_set("maxmemory", 0)
            assert ["a", "b"] == [result.name for result in controller.collect()]
            assert 0 == len(controller)
    finally:
        server.close()


@pytest.mark.parametrize("heard", [True, False])
def test_an_answer_that_does_not_come_loses_nothing(
    network: str, monkeypatch: pytest.MonkeyPatch, *, heard: bool
) -> None:
    """Where a collector does not hear whether a result is its own, it asks again before all else."""
    with Controller(network, max_workers=1) as controller:
        controller.push("one", len, "a")
        assert controller.wait(timeout=PATIENCE)
        store = controller._collector._store
        collect = store.collect

        def fails(*args: Any) -> list[bool]:
            if heard:
                collect(*args)
            raise StoreUnavailable("no answer")

        monkeypatch.setattr(store, "collect", fails)
        with pytest.raises(StoreUnavailable):
            controller.pop()
        monkeypatch.setattr(store, "collect", collect)
        assert controller.wait("one", timeout=PATIENCE)
        assert ["one"] == [result.name for result in controller.collect()]
        assert controller.pop() is None


def test_what_is_taken_back_twice_is_given_out(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed collector held comes to one that had read past it, also if taking it back had to be sent
    again and its first answer got lost."""
    with Controller(network, max_workers=1) as controller:
        process = run_python(COLLECTOR, network, "asks not")
        assert process.stdout is not None
        assert "had it\n" == process.stdout.readline()
        assert controller.pop() is None
        process.kill()
        process.communicate(timeout=PATIENCE)
        uncollect = controller._collector._store.uncollect

        def again(*args: Any) -> int:
            uncollect(*args)
            return uncollect(*args)

        monkeypatch.setattr(controller._collector._store, "uncollect", again)
        monkeypatch.setattr(controller._collector, "_looked", 0.0)
        assert ["one"] == [result.name for result in controller.collect()]


def test_a_value_that_cannot_be_read_for_now_is_read_later(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the server is away a value stored apart is not there: that is no error of the call."""
    with Controller(network, max_workers=1) as controller:
        controller.push("one", len, "abc")
        assert controller.wait(timeout=PATIENCE)
        take_in_hand(controller, monkeypatch)
        result = controller.pop()
        assert result is not None
        assert ("success", 3) == (result.status, result.value)


def test_who_stood_still_gives_out_nothing_that_was_taken_back(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that was held to be gone while it had a result in its hands leaves it to those who have it
    by now, and collects again what is new."""
    with Controller(network, max_workers=1) as still, Controller(network, max_workers=1) as other:
        for name in ("one", "two"):
            still.push(name, len, "abc")
        assert still.wait(timeout=PATIENCE)
        take_in_hand(still, monkeypatch)
        hold_to_be_gone(other._collector._store, still._presence.token)
        assert ["one", "two"] == [result.name for result in other.collect()]
        still._collector._given_at = -math.inf
        assert still.pop() is None
        still.push("three", len, "abc")
        assert still.wait(timeout=PATIENCE)
        assert ["three"] == [result.name for result in still.collect()]


def test_what_was_taken_back_and_nobody_has_is_collected_again(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody else has taken it meanwhile, who stood still finds it, once."""
    with Controller(network, max_workers=1) as still, Controller(network, max_workers=1) as other:
        still.push("one", len, "abc")
        assert still.wait(timeout=PATIENCE)
        take_in_hand(still, monkeypatch)
        hold_to_be_gone(other._collector._store, still._presence.token)
        still._collector._given_at = -math.inf
        assert ["one"] == [result.name for result in still.collect()]
        assert [] == other.collect()
        assert still.pop() is None
