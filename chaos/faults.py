"""What goes wrong, and how it is mended. Three lanes run beside each other: processes, network, server."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable

import psutil

from chaos.place import Site

Fault = Callable[[Site, random.Random, threading.Event], None]


def kill_worker(site: Site, rng: random.Random, over: threading.Event) -> None:
    _kill(site, "workers", rng)


def kill_supervisor(site: Site, rng: random.Random, over: threading.Event) -> None:
    _kill(site, "supervisors", rng)


def kill_manager(site: Site, rng: random.Random, over: threading.Event) -> None:
    _kill(site, "managers", rng)


def stop_worker(site: Site, rng: random.Random, over: threading.Event) -> None:
    _stop(site, "workers", rng, over)


def stop_supervisor(site: Site, rng: random.Random, over: threading.Event) -> None:
    _stop(site, "supervisors", rng, over)


def stop_manager(site: Site, rng: random.Random, over: threading.Event) -> None:
    _stop(site, "managers", rng, over)


def kill_controller(site: Site, rng: random.Random, over: threading.Event) -> None:
    _kill(site, "controllers", rng)


def stop_controller(site: Site, rng: random.Random, over: threading.Event) -> None:
    _stop(site, "controllers", rng, over)


def _kill(site: Site, role: str, rng: random.Random) -> None:
    process = site.pick(role, rng)
    if process is not None:
        site.ledger.write("kill", role=role, pid=process.pid)
        with contextlib.suppress(psutil.Error):
            process.kill()


def _stop(site: Site, role: str, rng: random.Random, over: threading.Event) -> None:
    """Longer than a lease, as often as not."""
    process = site.pick(role, rng)
    if process is None:
        return
    site.ledger.write("stopped", role=role, pid=process.pid)
    with contextlib.suppress(psutil.Error):
        process.suspend()
        try:
            over.wait(rng.uniform(0.2, 7.0))
        finally:
            process.resume()


def cut_all(site: Site, rng: random.Random, over: threading.Event) -> None:
    site.ledger.write("cut", n=site.proxy.cut())


def cut_some(site: Site, rng: random.Random, over: threading.Event) -> None:
    site.ledger.write("cut", n=site.proxy.cut(0.3, rng))


def delay(site: Site, rng: random.Random, over: threading.Event) -> None:
    """Every packet comes late, for a while."""
    site.proxy.orders.delay = rng.choice((0.002, 0.02, 0.1))
    over.wait(rng.uniform(0.5, 3.0))
    site.proxy.orders.delay = 0.0


def partition(site: Site, rng: random.Random, over: threading.Event) -> None:
    """Nothing passes; connections stay open."""
    site.proxy.freeze()
    over.wait(rng.choice((0.5, 2.0, 6.0, 13.0)))
    site.proxy.thaw()


def lose_replies(site: Site, rng: random.Random, over: threading.Event) -> None:
    site.proxy.orders.lose_replies += rng.randint(1, 20)


def lose_requests(site: Site, rng: random.Random, over: threading.Event) -> None:
    site.proxy.orders.lose_requests += rng.randint(1, 20)


def twice(site: Site, rng: random.Random, over: threading.Event) -> None:
    """Requests arrive a second time, from another connection: ahead of the first, or up to seconds later."""
    site.proxy.orders.late = rng.choice((0.0, 0.05, 1.0, 4.0))
    site.proxy.orders.twice += rng.randint(1, 60)


def hold(site: Site, rng: random.Random, over: threading.Event) -> None:
    """Requests are held, while their senders send them again; then the first ones arrive after all."""
    site.proxy.orders.hold += rng.randint(1, 10)
    over.wait(rng.uniform(0.1, 3.0))
    site.proxy.orders.hold = 0
    site.proxy.release()


def kill_server(site: Site, rng: random.Random, over: threading.Event) -> None:
    """It comes back from its append-only file."""
    site.ledger.write("kill", role="server", pid=site.server.pid)
    site.server.kill()
    over.wait(rng.uniform(0.0, 4.0))
    site.server.start()


def restart_server(site: Site, rng: random.Random, over: threading.Event) -> None:
    site.server.end()
    over.wait(rng.uniform(0.0, 1.0))
    site.server.start()


def stop_server(site: Site, rng: random.Random, over: threading.Event) -> None:
    site.ledger.write("stopped", role="server", pid=site.server.pid)
    site.server.stop()
    over.wait(rng.choice((0.2, 1.0, 4.0, 11.0)))
    site.server.go_on()


def fill_memory(site: Site, rng: random.Random, over: threading.Event) -> None:
    site.server.limit_memory(spare=rng.choice((1, 50_000)))
    over.wait(rng.uniform(0.5, 4.0))
    site.server.limit_memory(spare=0)


def fill_disk(site: Site, rng: random.Random, over: threading.Event) -> None:
    """With ``appendfsync always`` the server ends by itself. Else it refuses to write and leaves a hole in
    its file, which it does not read at its next start: whoever made room has the file written anew."""
    site.server.disk.fill()
    over.wait(rng.uniform(0.5, 5.0))
    site.server.disk.clear()
    if site.server.answers():
        site.server.rewrite()
    else:
        site.server.kill()
        site.server.start()


def turn_server_clock(site: Site, rng: random.Random, over: threading.Event) -> None:
    """Forward by more than a lease, or back; and home again."""
    site.server.turn(rng.choice((-20.0, -2.0, 2.0, 20.0)))
    over.wait(rng.uniform(1.0, 6.0))
    site.server.turn(0.0)
    over.wait(1.0)


def turn_client_clocks(site: Site, rng: random.Random, over: threading.Event) -> None:
    spare = site.clock.with_suffix(".new")
    for seconds in (rng.choice((-3600.0, -5.0, 5.0, 3600.0)), 0.0):
        spare.write_text(f"{seconds:+.1f}\n")
        spare.replace(site.clock)
        over.wait(rng.uniform(1.0, 4.0))


PROCESSES: dict[Fault, int] = {
    kill_worker: 8, kill_supervisor: 3, kill_manager: 2, stop_worker: 3, stop_supervisor: 3, stop_manager: 1,
    kill_controller: 2, stop_controller: 1,
}  # fmt: skip
NETWORK: dict[Fault, int] = {
    cut_all: 2, cut_some: 4, delay: 2, partition: 1, lose_replies: 5, lose_requests: 2, twice: 5, hold: 3,
}  # fmt: skip
SERVER: dict[Fault, int] = {
    kill_server: 3, restart_server: 1, stop_server: 2, fill_memory: 2, fill_disk: 2, turn_server_clock: 2,
    turn_client_clocks: 1,
}  # fmt: skip


class Lane(threading.Thread):
    """One fault after another, until it is over. Stops at the first that cannot be mended."""

    def __init__(self, site: Site, faults: dict[Fault, int], pause: tuple[float, float], seed: str) -> None:
        super().__init__(name=f"chaos-{seed}", daemon=True)
        self.site = site
        self.faults = faults
        self.pause = pause
        self.rng = random.Random(seed)
        self.over = threading.Event()
        self.counts: Counter[str] = Counter()
        self.trouble: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.over.wait(self.rng.uniform(*self.pause)):
                fault = self.rng.choices(list(self.faults), list(self.faults.values()))[0]
                self.site.ledger.write("fault", name=fault.__name__)
                fault(self.site, self.rng, self.over)
                self.counts[fault.__name__] += 1
                self.site.ledger.write("mended", name=fault.__name__)
        except BaseException as error:
            self.trouble = error

    def finish(self) -> None:
        self.over.set()
        self.join(60)
        if self.trouble is not None:
            raise self.trouble


def lanes(site: Site, part: int) -> list[Lane]:
    """The lanes of one part of the run; what cannot be done here is left out."""
    left_out = {fill_disk: not site.server.disk.small, turn_server_clock: not site.server.clocked}
    server = {fault: weight for fault, weight in SERVER.items() if not left_out.get(fault)}
    kinds = ((PROCESSES, (0.1, 1.5)), (NETWORK, (0.1, 1.0)), (server, (1.0, 5.0)))
    return [Lane(site, faults, pause, f"{site.seed}-{part}-{n}") for n, (faults, pause) in enumerate(kinds)]
