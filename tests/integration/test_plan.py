"""Plans: defaults for code that starts workers on somebody's behalf."""

from __future__ import annotations

import threading

import pytest
import redis

from rushlight import Rush, plan
from rushlight.errors import ConfigError, StoreUnavailable, WaitTimeout


def stay(worker):
    """Be a member until told to leave."""
    while not worker.terminated:
        worker.pop_task(timeout=5)


def test_a_plan_is_set_read_and_cleared(network: str) -> None:
    """As a call it holds for the process, until it is cleared."""
    assert not plan.is_set()
    assert plan.current().n_workers is None
    plan(n_workers=3, log_level="debug", start_timeout=7.0)
    assert plan.is_set()
    now = plan.current()
    assert (3, "debug", 7.0) == (now.n_workers, now.log_level, now.start_timeout)
    plan.clear()
    assert not plan.is_set()


def test_a_plan_of_a_block_ends_with_it(network: str) -> None:
    """``with plan(...)``: inside it is in force, afterwards what was before is."""
    plan(n_workers=2)
    with plan(n_workers=5):
        assert 5 == plan.current().n_workers
        with plan(log_level="info"):
            assert "info" == plan.current().log_level
        assert 5 == plan.current().n_workers
    assert 2 == plan.current().n_workers


def test_a_plan_of_a_block_ends_with_an_error_too(network: str) -> None:
    """However the block is left."""
    with pytest.raises(KeyError), plan(n_workers=5):
        raise KeyError
    assert not plan.is_set()


def test_a_plan_for_the_process_holds_in_its_threads(network: str) -> None:
    """``plan(...)`` in one thread is the default in all."""
    plan(n_workers=4)
    seen: list[int | None] = []
    thread = threading.Thread(target=lambda: seen.append(plan.current().n_workers))
    thread.start()
    thread.join(10)
    assert [4] == seen


def test_workers_start_as_planned(rush: Rush) -> None:
    """Number, level and timeout come from the plan where the call says nothing."""
    plan(n_workers=2, log_level="info", start_timeout=0.1)
    ids = rush.start_workers(stay)
    assert 2 == len(ids)
    with pytest.raises(WaitTimeout) as caught:
        rush.wait_for_workers(3)
    assert 0.1 == caught.value.timeout
    rush.wait_for_workers(worker_ids=ids, timeout=60)
    assert 1 == len(rush.start_workers(stay, 1))


def test_the_planned_level_makes_workers_talk(rush: Rush) -> None:
    """A plan's ``log_level`` reaches the workers."""

    def loop(worker):
        import logging

        logging.getLogger("lab").error("heard")
        worker.pop_task(timeout=60)

    with plan(log_level="error"):
        rush.start_workers(loop)
    assert "heard" in next(rush.follow_log(timeout=30))


def test_the_planned_url_is_used(network: str, server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the argument, before the environment."""
    url = f"unix://{server.connection_pool.connection_kwargs['path']}"
    monkeypatch.setenv("RUSHLIGHT_URL", "redis://127.0.0.1:1/0")
    with plan(url=url), Rush(network) as rush:
        assert url == rush.url


def test_a_plan_checks_its_server_at_once(network: str) -> None:
    """A server that is not there is found out where the plan is made, not where it is used."""
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
        plan(url="redis://127.0.0.1:1/0")
    assert not plan.is_set()


@pytest.mark.parametrize(
    "bad",
    [
        {"n_workers": 0},
        {"n_workers": "x"},
        {"start_timeout": -1},
        {"url": "http://x"},
        {"secret": "short"},
        {"launcher": "no-such"},
        {"launcher": 5},
    ],
)
def test_a_plan_that_cannot_be_is_refused(network: str, bad: dict[str, object]) -> None:
    """The error names the argument, and the plan before stays."""
    with pytest.raises(ConfigError):
        plan(**bad)
    assert not plan.is_set()
