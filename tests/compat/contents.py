"""What the stored networks hold, said in Python: their bytes are in ``assets``, made by ``make_assets.py``.

Whoever changes this file makes other assets than those that stand there: add a new list instead.
"""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import numpy as np

#: The network and the secret of every asset.
NETWORK, SECRET = "compat", b"a secret for the assets"
#: One finished task per value: each type the contract names, without those of optional libraries.
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**70,
    -(2**63),
    1.5,
    float("inf"),
    "text: ä, \N{SNOWMAN}, ''",
    b"\x00\xff",
    [1, [2.5, None], "three"],
    (1, (2, "x")),
    {"a": 1, "b": {"c": [True]}},
    {1: "one", (2, 3): "pair"},
    {1, 2, 3},
    frozenset({"x"}),
    dt.datetime(2026, 11, 28, 10, 30, 1, 123456, tzinfo=dt.UTC),
    dt.datetime(1969, 12, 31, 23, 59, 59),  # noqa: DTZ001 - a time without a zone is a value, too
    dt.date(2026, 11, 28),
    dt.timedelta(days=-1, microseconds=5),
    Decimal("-1.10"),
    uuid.UUID("12345678-1234-5678-1234-567812345678"),
    np.float32(0.5),
    np.int64(-7),
    "a" * 100_000,  # is stored apart
]
ARRAY = np.arange(6, dtype="<f4").reshape(2, 3)
#: The names of tasks by what became of them; each has ``xs={"name": name}``.
QUEUED = ["plain-1", "plain-2", "urgent", "lazy", "for one worker", "waits", "tried once"]
RUNNING = ["running", "running with a limit"]
FAILED = {"failed by a word": "no luck", "failed by an error": "division by zero"}
#: In which order a worker that comes later gets those that may be taken.
TAKEN = ["urgent", "plain-1", "plain-2", "lazy"]
BOARD = [("ann", 3.0), ("bob", 2.0), ("eve", 1.0)]
BUDGET = 5


def loop(worker: Any, n: int = 1) -> int:
    """The loop whose start arguments are stored."""
    return n
