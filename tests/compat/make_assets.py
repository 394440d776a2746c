"""Writes the bytes and keys of this release's networks into ``assets/format-N.json``.

    python tests/compat/make_assets.py

Run once per format, by the release that brings it; what stands there is never written again.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from contents import ARRAY, BOARD, BUDGET, FAILED, NETWORK, SECRET, VALUES, loop  # noqa: E402

from harness import Server, binaries  # noqa: E402
from rushlight import Rush, RushWorker, __version__  # noqa: E402
from rushlight._keys import CATALOGUE, Keys  # noqa: E402
from rushlight._store_base import FORMAT  # noqa: E402
from rushlight._store_calls import Collecting  # noqa: E402
from rushlight._usage import Sampler  # noqa: E402

MEMBERS = ("ann", "bob")
#: Seconds, about thirty years: leases and limits of what is stored are never over.
AGES = 1e9
LINE = {"t": 1.0, "level": "INFO", "logger": "loop", "caller": "", "msg": "a line"}
#: Keys that no network holds at rest: what wakes somebody, and what is for supervisors that live.
FLEETING = {"bell", "events", "orders", "files", "answers"}
ASSET = HERE / "assets" / f"format-{FORMAT}.json"


def fill(url: str) -> None:
    """A network with everything in it, and a worker at work whose lease outlasts us."""
    with Rush(NETWORK, url, secret=SECRET) as rush:
        ann, bob = (RushWorker(NETWORK, url, secret=SECRET, worker_id=name, lease=AGES) for name in MEMBERS)
        rush.worker_script(loop, kwargs={"n": 3}, seed=42)
        bob.close()
        rush.push_finished_tasks([{"value": v} for v in VALUES], [{"same": v} for v in VALUES])
        key = ann.push_running_task({"value": ARRAY}, xs_extra={"note": "own"})
        ann.finish_task(key, {"same": ARRAY}, ys_extra={"cost": 1})
        word, error = ann.push_running_tasks([{"name": name} for name in FAILED])
        said = list(FAILED.values())
        ann.fail_task(word, said[0])
        ann.fail_task(error, ZeroDivisionError(said[1]))
        rush.push_tasks([{"name": "tried once"}], max_retries=3, backoff=3600.0)
        ann.fail_task(take(ann), "not yet")
        rush.push_tasks([{"name": "running with a limit"}], timeout=AGES)
        take(ann)
        running = ann.push_running_task({"name": "running"})
        rush.push_tasks([{"name": "plain-1"}, {"name": "plain-2"}])
        rush.push_tasks([{"name": "urgent"}], priority=9)
        rush.push_tasks([{"name": "lazy"}], priority=-9)
        rush.push_tasks([{"name": "for one worker"}], workers="ann")
        rush.push_tasks([{"name": "waits"}], after=[running])
        assert ann.budget(BUDGET, "units").take()
        for name, score in BOARD:
            ann.leaderboard("best").add(name, score)
        ann._store.add_logs("ann", [LINE])
        rush._store.collect(Collecting("collector", "host:1"), 1, [key])
        rush._store.keep_broadcast("1", b"\x80")
        sample = Sampler().sample(os.getpid())
        rush._store.beat([("ann", ann._member.card.token)], AGES, {"ann": sample} if sample else {})
        rush._store.keep_launches({"launched": b"\x80"})
        # No word of leaving: it is at work in what is stored.
        ann._lease_thread.stop()
        ann._store.close()


def take(worker: RushWorker) -> str:
    """The key of the next task."""
    task = worker.pop_task(timeout=5)
    assert task is not None
    return task.key


def stored(raw: redis.Redis) -> dict[str, Any]:
    """All keys, each as its type and its bytes."""
    readers = {
        b"hash": lambda key: flat(sorted(raw.hgetall(key).items())),
        b"list": lambda key: raw.lrange(key, 0, -1),
        b"set": lambda key: sorted(raw.smembers(key)),
        b"zset": lambda key: flat((m, repr(s).encode()) for m, s in raw.zrange(key, 0, -1, withscores=True)),
        b"stream": lambda key: flat((i, *flat(fields.items())) for i, fields in raw.xrange(key)),
    }
    found = {}
    for key in sorted(raw.keys("*")):
        kind = raw.type(key)
        parts = [base64.b64encode(part).decode() for part in readers[kind](key)]
        found[key.decode()] = {"type": kind.decode(), "parts": parts}
    return found


def flat(groups: Iterable[Iterable[bytes]]) -> list[bytes]:
    """All parts of all groups, in one list."""
    return [part for group in groups for part in group]


def main() -> None:
    """Refuses to write what is there."""
    if ASSET.exists():
        sys.exit(f"{ASSET} is there, and is to stay as it is")
    with tempfile.TemporaryDirectory():
        server = Server(str(binaries()["valkey"]))
        try:
            fill(server.url)
            with server.client() as raw:
                keys = stored(raw)
        finally:
            server.close()
    missing = {name for name in CATALOGUE if Keys(NETWORK)[name] not in keys} - FLEETING
    if missing:
        sys.exit(f"the network holds no {', '.join(sorted(missing))}: add it to fill()")
    ASSET.parent.mkdir(exist_ok=True)
    asset = {"release": __version__, "format": FORMAT, "python": sys.version.split()[0], "keys": keys}
    ASSET.write_text(json.dumps(asset, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
