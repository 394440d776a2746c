"""Plans in several threads and asyncio tasks at once, and blocks inside blocks."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import redis

from harness import Background
from rushlight import Rush, plan
from rushlight.errors import ConfigError


def n_workers() -> int | None:
    """What the plan in force says."""
    return plan.current().n_workers


def test_blocks_of_many_threads_do_not_mix(network: str) -> None:
    """Each thread has its own, whatever the order in which they begin and end; nothing is left of them."""
    n = 8
    together = threading.Barrier(n)

    def block(mine: int) -> list[int | None]:
        seen = []
        for _ in range(5):
            together.wait(60)
            scope = plan(n_workers=mine)
            together.wait(60)
            with scope:
                together.wait(60)
                seen.append(n_workers())
            together.wait(60)
            seen.append(n_workers())
        return seen

    calls = [Background(block, mine) for mine in range(1, n + 1)]
    for mine, call in enumerate(calls, start=1):
        assert [mine, None] * 5 == call.result()
    assert not plan.is_set()


def test_blocks_of_many_coroutines_do_not_mix(network: str) -> None:
    """Likewise where one thread turns to one task after the other; what a task begins inherits its plan."""

    async def child() -> int | None:
        await asyncio.sleep(0)
        return n_workers()

    async def block(mine: int) -> list[int | None]:
        with plan(n_workers=mine):
            seen = []
            for _ in range(5):
                await asyncio.sleep(0)
                seen.append(n_workers())
            seen.append(await asyncio.create_task(child()))
            seen.append(await asyncio.to_thread(n_workers))
        return [*seen, n_workers()]

    async def all_of_them() -> list[list[int | None]]:
        return await asyncio.gather(*(block(mine) for mine in range(1, 6)))

    assert [[mine] * 7 + [None] for mine in range(1, 6)] == asyncio.run(all_of_them())
    assert not plan.is_set()


def test_a_block_hides_the_plan_of_the_process(network: str) -> None:
    """Inside a block a new plan of the process changes nothing; other threads see that one, and never the
    block's."""
    plan(n_workers=1)
    with plan(n_workers=2):
        plan(n_workers=3)
        assert 2 == n_workers()
        assert 3 == Background(n_workers).result()
    assert 3 == n_workers()


def test_a_plan_may_be_used_for_several_blocks(network: str) -> None:
    """One after the other and inside one another; outside the one before is in force."""
    plan(n_workers=1)
    scope = plan(n_workers=2)
    for _ in range(2):
        with scope as outer:
            assert (2, outer) == (n_workers(), plan.current())
            with scope, plan(log_level="debug"):
                assert n_workers() is None
            assert 2 == n_workers()
        assert 1 == n_workers()


def test_a_plan_that_is_refused_leaves_the_one_before(network: str, tmp_path: Path) -> None:
    """Also within a block."""
    plan(n_workers=1)
    with plan(n_workers=2):
        with pytest.raises(ConfigError, match="large_object_dir"):
            plan(large_object_dir=str(tmp_path / "nowhere"))
        with pytest.raises(ConfigError, match="log_level"):
            plan(log_level="loud")
        assert 2 == n_workers()
    assert 1 == n_workers()


def test_clearing_ends_what_is_in_force_here(network: str) -> None:
    """The process's plan and that of the block one is in; leaving the block then is no error."""
    plan(n_workers=1)
    with plan(n_workers=2):
        plan.clear()
        assert not plan.is_set()
    assert not plan.is_set()


def test_an_argument_goes_before_the_plan(
    network: str, server: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Argument, plan, environment: for address, secret and directory alike."""
    url = f"unix://{server.connection_pool.connection_kwargs['path']}"
    monkeypatch.setenv("RUSHLIGHT_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("RUSHLIGHT_SECRET", "that of the environment")
    with plan(url=url, secret="that of the plan, long enough"):
        with Rush(network) as rush:
            assert url == rush.url
            assert b"that of the plan, long enough" == rush._store.config.key()
        with Rush(network, secret="that of the argument, longer") as rush:
            assert b"that of the argument, longer" == rush._store.config.key()


def test_a_plan_does_not_show_secrets(network: str, server: redis.Redis) -> None:
    """Neither the address, which may hold a password, nor the secret is in its text."""
    url = f"unix://{server.connection_pool.connection_kwargs['path']}"
    with plan(url=url, secret="correct horse battery staple") as current:
        assert "horse" not in repr(current)
        assert url not in repr(current)
