"""``rushlight doctor`` on real servers: what a user reads and what a program gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ground import Ground
from harness import Server
from rushlight import Rush, RushWorker, WorkerState


@pytest.fixture
def own(own: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    """The same, for a user who has nothing else yet: no settings, and no embedded server."""
    monkeypatch.setenv("RUSHLIGHT_HOME", str(tmp_path / "home"))
    for name in ("RUSHLIGHT_URL", "REDIS_URL", "RUSHLIGHT_SECRET", "RUSHLIGHT_NETWORK"):
        monkeypatch.delenv(name, raising=False)
    return own


def doctor(*arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and check -> finding."""
    done = subprocess.run(
        [sys.executable, "-m", "rushlight", "doctor", "--json", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"NO_COLOR": "1"},
    )  # fmt: skip
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    return done.returncode, {finding["check"]: finding for finding in said["findings"]}


def test_the_embedded_server_is_well(network: str) -> None:
    """A fresh installation has nothing to mend, and a person is told so."""
    code, found = doctor("--network", network)
    assert 0 == code
    assert {"ok"} == {finding["level"] for finding in found.values()}
    assert "everysec" in found["persistence"]["found"]
    said = subprocess.run(
        [sys.executable, "-m", "rushlight", "doctor"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "Everything is as it should be." == said.splitlines()[-1]


def test_a_server_that_forgets(own: Callable[..., Server]) -> None:
    """An eviction policy is a problem, no persistence a warning; nothing is said twice."""
    server = own("--maxmemory-policy", "allkeys-lru")
    code, found = doctor("--url", server.url)
    assert 1 == code
    assert "problem" == found["memory policy"]["level"]
    assert "warning" == found["persistence"]["level"]
    with server.client() as raw:
        assert [] == raw.keys("*")


def test_a_server_whose_memory_is_short(own: Callable[..., Server]) -> None:
    """It is told before it is full."""
    server = own()
    with server.client() as raw:
        raw.config_set("maxmemory", int(raw.info("memory")["used_memory"] * 1.1))
    code, found = doctor("--url", server.url)
    assert (0, "warning") == (code, found["memory"]["level"])


def test_a_replica(own: Callable[..., Server]) -> None:
    """It cannot be written to, and is named as what it is."""
    master, replica = own(), own()
    replica.client().execute_command("REPLICAOF", "127.0.0.1", "1")
    code, found = doctor("--url", replica.url)
    assert (1, "problem") == (code, found["role"]["level"])
    assert 0 == doctor("--url", master.url)[0]


def test_nobody_there(own: Callable[..., Server], tmp_path: Path) -> None:
    """One problem, without the password."""
    code, found = doctor("--url", f"unix://:hidden-word@{tmp_path}/nowhere")
    assert (1, "problem") == (code, found["server reached"]["level"])
    assert "hidden-word" not in json.dumps(found)


def test_an_account_with_few_rights(own: Callable[..., Server]) -> None:
    """What it may not ask is left out; the rest is looked at."""
    server = own()
    with server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "ann", "on", ">word-for-ann", "~rl:*", "+@all", "-@dangerous")
    code, found = doctor("--url", f"unix://ann:word-for-ann@{server.socket}")
    assert 0 == code
    assert "warning" == found["memory and persistence"]["level"]
    assert "ok" == found["clock"]["level"]


def test_networks_and_workers(own: Callable[..., Server], network: str) -> None:
    """Networks are counted with their tasks; a worker of another release and Python is named."""
    server = own()
    ground = Ground(server, network)
    try:
        with Rush(network, server.url) as rush:
            rush.push_tasks([{"x": i} for i in range(3)])
        with RushWorker(network, server.url):
            code, found = doctor("--url", server.url, "--network", network)
            assert (0, "ok") == (code, found["workers"]["level"])
            assert "1 on this server, with 3 tasks" in found["networks"]["found"]
            member = ground.member()
            card = replace(member.card, worker_id="elder", release="0.0.1", python="2.7", hostname="attic")
            ground.store.register([card], WorkerState.RUNNING, 600.0)
            code, found = doctor("--url", server.url, "--network", network)
        assert 1 == code
        assert "attic" in found["Python of the workers"]["found"]
        assert "0.0.1" in found["release of the workers"]["found"]
    finally:
        ground.close()
