"""The doctor's judgement: facts in, findings out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rushlight import __version__
from rushlight._doctor import Facts, WorkerSeen, diagnose, worst
from rushlight._records import WorkerState
from rushlight._store_base import FORMAT
from rushlight._store_server import Clock, NetworkFound
from rushlight._trust import PYTHON
from rushlight.errors import StoreUnavailable, StoreVersion

INFO = {
    "redis_version": "7.0.15", "redis_mode": "standalone", "role": "master", "maxmemory_policy": "noeviction",
    "used_memory": 1 << 20, "maxmemory": 0, "aof_enabled": 1, "maxclients": 10_000, "connected_clients": 3,
    "aof_last_write_status": "ok", "rdb_last_bgsave_status": "ok",
}  # fmt: skip
WELL = Facts(
    address="redis://host:6379/0",
    info=INFO,
    settings={"appendfsync": "everysec", "save": ""},
    clock=Clock(server=1000.0, here=1000.0, trip=0.0001),
    networks=[NetworkFound("study", FORMAT, 10, 2, 0)],
    network="study",
    workers=[WorkerSeen("w", WorkerState.RUNNING, __version__, PYTHON, "here")],
    packages={"redis": "8.0"},
)


def with_info(**changes: Any) -> Facts:
    """A server that says something else of itself."""
    return replace(WELL, info={**INFO, **changes})


def with_worker(**changes: Any) -> Facts:
    """A worker that is not as it should be."""
    return replace(WELL, workers=[replace(WELL.workers[0], **changes)])


def test_a_set_up_that_is_well() -> None:
    """Nothing is wrong, and what was looked at is said."""
    findings = diagnose(WELL)
    assert "ok" == worst(findings)
    assert all(finding.found and not finding.advice for finding in findings)
    assert {"server reached", "clock", "memory policy", "persistence", "networks", "workers"} <= {
        finding.check for finding in findings
    }


CASES = [
    (with_info(maxmemory_policy="allkeys-lru"), "memory policy", "problem", "noeviction"),
    (with_info(used_memory=900, maxmemory=1000), "memory", "warning", "maxmemory"),
    (with_info(aof_enabled=0), "persistence", "warning", "appendonly"),
    (replace(with_info(aof_enabled=0), settings={"save": "3600 1"}), "persistence", "warning", "appendonly"),
    (with_info(aof_last_write_status="err"), "writing to disk", "problem", "disk"),
    (with_info(rdb_last_bgsave_status="err"), "writing to disk", "problem", "disk"),
    (with_info(role="slave"), "role", "problem", "master"),
    (with_info(connected_clients=9000), "connections", "warning", "maxclients"),
    (replace(WELL, info={}), "memory and persistence", "warning", "+info"),
    (replace(WELL, clock=Clock(1000.0, 1003.0, 0.001)), "clock", "warning", "NTP"),
    (replace(WELL, clock=Clock(1003.0, 1000.0, 0.001)), "clock", "warning", "NTP"),
    (replace(WELL, clock=Clock(1000.0, 1000.0, 0.05)), "round trip", "warning", "nearer"),
    (replace(WELL, signs=False), "secret", "problem", "RUSHLIGHT_SECRET"),
    (with_worker(python="2.7"), "Python of the workers", "problem", "one for all"),
    (with_worker(release="0.0.1"), "release of the workers", "warning", "one release"),
    (with_worker(state=WorkerState.LOST), "lost workers", "warning", "rushlight logs"),
    (
        replace(WELL, networks=[NetworkFound("old", FORMAT, 7, 0, 200_000)]),
        "leftover network",
        "warning",
        "rushlight reset --network old",
    ),
    (
        replace(WELL, networks=[NetworkFound("new", FORMAT + 1, 7, 0, 0)]),
        "network format",
        "warning",
        "the release that wrote it",
    ),
]


@pytest.mark.parametrize(
    ("facts", "check", "level", "advice"), CASES, ids=[f"{case[1]}-{i}" for i, case in enumerate(CASES)]
)
def test_one_thing_is_wrong(facts: Facts, check: str, level: str, advice: str) -> None:
    """It is the only finding that is not well, and says the way out."""
    (finding,) = [finding for finding in diagnose(facts) if finding.level != "ok"]
    assert (check, level) == (finding.check, finding.level)
    assert advice in finding.advice
    assert level == worst(diagnose(facts))


def test_what_is_no_trouble() -> None:
    """A network that rests for an hour, one with workers however long, workers that have left with another
    release, and rights that are missing."""
    networks = [NetworkFound("resting", FORMAT, 1, 0, 3600), NetworkFound("served", FORMAT, 1, 1, 10**6)]
    gone = replace(WELL.workers[0], state=WorkerState.TERMINATED, release="0.0.1", python="2.7")
    assert "ok" == worst(diagnose(replace(WELL, networks=networks, workers=[gone])))
    assert "ok" == worst(diagnose(replace(WELL, networks=None, settings=None)))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (StoreUnavailable("cannot reach it: Connection refused"), "firewall"),
        (StoreUnavailable("cannot reach it: WRONGPASS invalid username-password pair"), "password"),
        (StoreUnavailable("cannot reach it: certificate verify failed"), "ssl_ca_certs"),
        (StoreVersion("the server does not know BLMOVE"), "6.2"),
    ],
)
def test_a_server_that_cannot_be_reached(error: Any, advice: str) -> None:
    """The one problem, with a way out that fits; nothing is said of what could not be seen."""
    findings = diagnose(Facts(address="redis://host", trouble=error))
    assert ["installation", "server reached"] == [finding.check for finding in findings]
    assert "problem" == worst(findings)
    assert advice in findings[1].advice
