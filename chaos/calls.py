"""Programs with a controller: they submit calls under names, and collect what nobody has collected.

``python -m chaos.calls NAME NETWORK URL SEED``; as ``last``, one that collects whatever the others, all of
them killed, have left behind.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from chaos.ledger import Program
from chaos.work import LEASE, do, own_ledger
from rushlight import Controller
from rushlight.errors import RushlightError, StoreError

#: Times a call is tried on another worker after a crash.
CRASHES = 2
#: Calls a program leaves behind without collecting them.
_LEFT = 5
_MOST = 60
#: Seconds for everything to be collected once nothing is wrong any more.
_PATIENCE = 60.0


class Caller(Program):
    """Submits, collects, reads futures, maps and cancels, whatever happens."""

    def __init__(self, name: str, controller: Controller, seed: str) -> None:
        super().__init__()
        self.controller = controller
        self.rng = random.Random(seed)
        self.ledger = own_ledger(name)
        self.stem = f"{name}.{os.getpid()}"
        self.serial = 0
        self.held: deque[tuple[str, concurrent.futures.Future[Any]]] = deque(maxlen=30)

    def run(self) -> None:
        """Until it is told to rest, when it collects all there is; and to end, when it makes its last calls
        and waits to be killed."""
        acts = (
            [self.submit] * 6 + [self.pop] * 5 + [self.collect, self.read, self.map, self.cancel, self.look]
        )
        while not self.resting:
            self.attempt(self.rng.choice(acts))
            time.sleep(self.rng.uniform(0.0, 0.1))
        self.drain()
        while not self.over:
            time.sleep(0.05)
        self._submit([("plain", {})] * _LEFT)
        self.ledger.write("left behind")
        while True:
            signal.pause()

    def drain(self) -> None:
        """Collects until nothing is left, and says how much is."""
        left = -1
        self.attempt(lambda: self._submit([("plain", {})]))
        deadline = time.monotonic() + _PATIENCE
        while left and time.monotonic() < deadline:
            self.attempt(self.collect)
            self.attempt(lambda: self.controller.wait("one", timeout=0.5))
            with contextlib.suppress(RushlightError):
                left = len(self.controller)
        # Who has asked once more has surely had all.
        self.attempt(self.collect)
        self.ledger.write("drained", left=left)

    def attempt(self, act: Callable[[], object]) -> None:
        """A user's program that goes on when a call fails."""
        try:
            act()
        except (RushlightError, TimeoutError, concurrent.futures.CancelledError) as error:
            name = getattr(act, "__name__", "act")
            self.ledger.write("error", act=name, type=type(error).__name__, text=str(error)[:300])
        else:
            self.ledger.alive()

    def submit(self) -> None:
        """A few calls with all kinds of options."""
        if len(self.controller) > _MOST:
            return
        wanted: list[tuple[str, dict[str, Any]]] = []
        for _ in range(self.rng.choice((1, 1, 4, 12))):
            kind = self.rng.choices(("plain", "boom", "large", "exit"), (90, 5, 3, 0.5))[0]
            chance = self.rng.random()
            options: dict[str, Any] = {}
            if chance < 0.1:
                options["priority"] = self.rng.choice((-1, 5))
            elif chance < 0.2:
                options["max_retries"] = 2
            elif chance < 0.23:
                kind, options["timeout"] = "hang", 1.0
            wanted.append((kind, options))
        self._submit(wanted)

    def _submit(self, wanted: list[tuple[str, dict[str, Any]]]) -> None:
        futures = []
        for kind, options in wanted:
            self.serial += 1
            name = f"{self.stem}-{self.serial}"
            nap = self.rng.choice((0.0, 0.0, 0.01, 0.2))
            self.ledger.write("call", name=name, kind=kind, limited="timeout" in options)
            futures.append((name, self.controller.options(**options).push(name, do, name, kind, nap)))
        # Asked for the number of calls, it has sent those it had.
        len(self.controller)
        refused = {name for name, future in futures if future.done() and _refused(future)}
        self.ledger.write("submitted", names=[name for name, _ in futures if name not in refused])
        self.held.extend(one for one in futures if one[0] not in refused)

    def pop(self) -> None:
        result = self.controller.pop(timeout=self.rng.choice((0.0, 0.2)))
        self._took([] if result is None else [result])

    def collect(self) -> None:
        self._took(self.controller.collect())

    def _took(self, results: list[Any]) -> None:
        said = [
            {
                "name": one.name,
                "status": one.status,
                "y": (one.value or {}).get("y"),
                "why": str(one.exception),
            }
            for one in results
        ]
        self.ledger.write("took", pid=os.getpid(), results=said)

    def read(self) -> None:
        """Waits for a future, as the user of an executor does."""
        if self.held:
            name, future = self.held.popleft()
            error = future.exception(timeout=2.0)
            if error is None:
                self.ledger.write("read", name=name, y=future.result()["y"])

    def map(self) -> None:
        self.serial += 1
        ids = [f"{self.stem}-{self.serial}-{i}" for i in range(4)]
        self.ledger.write("mapped", ids=ids)
        found = self.controller.map(do, ids, ["plain"] * 4, timeout=5.0, error="return")
        for name, value in zip(ids, found, strict=True):
            if not isinstance(value, BaseException):
                self.ledger.write("read", name=name, y=value["y"])

    def cancel(self) -> None:
        if self.held and self.rng.random() < 0.5:
            name, _ = self.rng.choice(self.held)
            self.ledger.write("uncall", name=name)
            self.controller.cancel([name])

    def look(self) -> None:
        self.controller.summary()
        self.controller.crashes(f"{self.stem}-{self.serial}")
        self.controller.workers()


def _refused(future: concurrent.futures.Future[Any]) -> bool:
    """Whether a call may not have reached the network."""
    return not future.cancelled() and isinstance(future.exception(), StoreError)


def main() -> None:
    """It begins anew until the server is there."""
    name, network, url, seed = sys.argv[1:]
    # One keeps what was collected, beside others that do not.
    retention = "archive" if name == "c0" else "collect"
    while True:
        with contextlib.suppress(RushlightError):
            controller = Controller(
                network,
                url,
                max_workers=2,
                idle_timeout=4.0,
                max_crashes=CRASHES,
                lease=LEASE,
                retention=retention,
            )
            break
        time.sleep(0.2)
    caller = Caller(name, controller, seed)
    if name == "last":
        caller.drain()
        controller.shutdown()
    else:
        caller.run()


if __name__ == "__main__":
    main()
