"""The only place that spells a key of the server.

Every key of a network carries the hash tag ``{network}``, so that one network lives on one shard and
a script may touch all of it. ``CATALOGUE`` says what each key is, for readers, ``docs`` and tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import ConfigError, escaped

#: Suffix -> (type, what it holds). All live until ``reset``; ``bell:<worker>`` expires after a stop, and
#: ``answers`` a while after the last call.
CATALOGUE: dict[str, tuple[str, str]] = {
    "control": (
        "hash",
        (
            "epoch, which begins with the format; drain flag, `watch` deadline, which `ends` is too "
            "while all wait for ends of tasks alone, `line` once more than the plain queue is in use, "
            "`wide`, by which fields are found at once, a counter of places; "
            "per worker `w:<id>` its status letter and token, `r:<id>` that it has been "
            "running, `u:<id>` that it leaves to change its loop, `c:<id>` its last claim; `k:<id>` what a "
            "collector has handed out, when it was last heard, its process, `n:<id>` the number of its last "
            "packet, of that with which it began, and when it was gone; where collected results are not "
            "kept, `gone` tasks removed so far, `blank` empty places in `finished`, `base` places cut "
            "from its front (then `line` has it, too), per controller `s:<id>` the number of its last push; "
            "`lead` whose turn it is to change the number of workers, and until when"
        ),
    ),
    "index": ("hash", "task key -> '' while queued, running or failed; position in `finished` once there"),
    "queued": ("hash", "task key -> packed record waiting for a worker: the queued state itself"),
    "queue": ("list", "order of the queued tasks of priority 0: task keys, FIFO"),
    "ranked": ("zset", "order of the queued tasks of other priorities: score -priority"),
    "private": (
        "zset",
        "order of the tasks queued for one worker: scores are 0, members sort by worker and place",
    ),
    "delayed": ("zset", "retried tasks that wait: score is the time they become due, microseconds"),
    "waiting": ("hash", "task key -> the keys it waits for, of a queued task that may not start yet"),
    "dependents": ("hash", "task key -> the keys of those that wait for it"),
    "lapses": (
        "hash",
        "task key -> worker, number and condition of the last attempt, of a task tried again",
    ),
    "deadlines": ("zset", "running attempts that may not run for ever: score is the end, microseconds"),
    "bell": ("list", "a token while the queue is not empty: wakes one idle worker; more for a private task"),
    "running": ("hash", "task key -> packed record with worker, attempt and start: the running state itself"),
    "finished": (
        "list",
        (
            "packed records in completion order, append-only: the finished state itself; empty where a task "
            "was removed"
        ),
    ),
    "failed": ("hash", "task key -> time, condition and packed record: the failed state itself"),
    "failures": (
        "list",
        "keys in the order of their failures, append-only: the feed of `failed`; empty where one was removed",
    ),
    "collected": (
        "hash",
        "key of an ended task -> the collector it was given to, and the number of its call",
    ),
    "feeds": (
        "hash",
        "controller that waits for ends of calls -> how far it has read `finished` and `failures`",
    ),
    "names": ("hash", "name -> key of the latest call that has it, where collected results are not kept"),
    "broadcasts": ("hash", "number -> call that every worker of a controller makes once"),
    "launches": ("hash", "worker id -> launcher, job and time of a launch by a controller"),
    "workers": ("hash", "worker id -> registration time and card (pid, host, launcher, supervisor, policy)"),
    "ends": ("hash", "worker id -> how its process ended"),
    "usage": ("hash", "worker id -> time and sample of the memory and processor time its process uses"),
    "tallies": (
        "hash",
        "worker id -> tasks finished (`f:<id>`) and failed (`x:<id>`), and a wide value, as in `control`",
    ),
    "leases": ("zset", "worker id -> end of its lease by the server's clock, microseconds"),
    "budgets": ("hash", "budget -> units spent, units held, and per worker the unit it holds"),
    "boards": ("zset", "all leaderboards: scores are 0, members sort by board, score, arrival"),
    "standings": (
        "hash",
        "leaderboard -> its order; leaderboard and key -> its member in `boards`, and who put it there",
    ),
    "events": ("stream", "one entry, rewritten at a change while somebody watches: wakes all watchers"),
    "orders": ("stream", "commands to supervisors: kill, replace; capped"),
    "answers": (
        "hash",
        "what managers' last calls were answered, for calls sent twice, and who logged last; expires",
    ),
    "logs": ("stream", "what workers logged and printed; capped"),
    "shares": (
        "hash",
        "`total` weight of the lines in `logs`; per worker `w:<id>` that of its own, an id before its oldest",
    ),
    "specs": ("hash", "digest -> signed start arguments of worker loops; large ones in chunks, see blobs"),
    "blobs": (
        "hash",
        "digest -> encoded value above the spill size, or a manifest of its chunks <digest>:<i> or its file",
    ),
    "files": ("hash", "<blobs or specs>:<digest> -> signed reference to a file in large_object_dir"),
}

_NETWORK = re.compile(r"[^\s{}\x00-\x1f\x7f]{1,128}")


def check_network(name: object) -> str:
    """The network's name, if it can be one; raises ConfigError else."""
    if not isinstance(name, str) or not _NETWORK.fullmatch(name) or escaped(name) != name:
        raise ConfigError(
            f"network={name!r} is not a network name: use 1 to 128 characters without spaces, braces "
            "or control characters, such as 'branin' or 'team/study-3'",
            value=name,
        )
    return name


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one network: ``keys["running"]``, ``keys.bell(worker_id)``."""

    network: str

    def __getitem__(self, name: str) -> str:
        if name not in CATALOGUE:
            raise KeyError(name)
        return f"rl:{{{self.network}}}:{name}"

    def all(self) -> list[str]:
        """Every key that does not belong to a single worker."""
        return [self[name] for name in CATALOGUE]

    def bell(self, worker_id: str) -> str:
        """list: a token that wakes this one worker; that of a stop expires by itself."""
        return f"{self['bell']}:{worker_id}"

    def pattern(self) -> str:
        """A glob that matches every key of the network, as ACL rules and leak checks want it."""
        escaped = re.sub(r"([*?\[\]\\])", r"\\\1", self.network)
        return f"rl:{{{escaped}}}:*"


def networks_pattern() -> str:
    """A glob that matches one key of every network on a server."""
    return "rl:{*}:control"


def network_of(key: str) -> str:
    """The network a key belongs to."""
    return key[key.index("{") + 1 : key.rindex("}")]
