"""What every benchmark stands on: a server of its own, yardsticks, interleaved ratios, the load beside it.

A program of rows is a module with ``rows(options)`` that yields ``Row`` and ends in
``kit.main(__doc__, rows)``. It then takes ``--socket tcp|unix``, ``--pin``, ``--small`` and ``--json`` like
every other, and ``table.py`` runs it. What a row is measured against stands in ``targets.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from raw import RawSocket
from targets import TARGETS

from rushlight._server_home import find_binary
from rushlight._server_keeper import die_with_parent

#: Inputs and results of a task, where nothing else is said.
XS, YS = {"x1": 0.1, "x2": 0.2}, {"y": 0.3}
#: Connections of a server beside those of the workers of a test.
SPARE = 200
#: The core that ``--pin`` puts everything on.
CORE = 0


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked for. ``small``: as little as shows that the program works."""

    socket: str = "tcp"
    pin: bool = False
    small: bool = False

    @property
    def setting(self) -> str:
        """In the words of the table."""
        return ("TCP" if self.socket == "tcp" else "Unix") + (", one core" if self.pin else "")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure. ``target``: its name in ``targets.py``; ``yardstick``: what it was measured beside
    and what that cost in the same run, in words; ``spread``: the lowest and the highest of the rounds;
    ``beside``: other figures of the same work; ``floors``: figures of what lies below it (``floors.py``)."""

    target: str
    figure: float
    yardstick: str = ""
    spread: tuple[float, float] | None = None
    beside: dict[str, float] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)
    setting: str = ""
    note: str = ""

    def as_record(self) -> dict[str, Any]:
        """For JSON, with the target's words and the verdict."""
        aim = TARGETS[self.target]
        said = {"work": aim.work, "unit": aim.unit, "reach": aim.reach, "reached": aim.reached(self.figure)}
        return {**asdict(self), **said}


# --- time and CPU -------------------------------------------------------------------------------------

Times = list[tuple[float, float]]


def timed(
    action: Callable[[], object], n: int, end: Callable[[], object] | None = None
) -> tuple[float, float]:
    """Microseconds of wall and of this process's CPU per call; ``end`` belongs to the last."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(n):
        action()
    if end is not None:
        end()
    return (time.perf_counter() - wall) / n * 1e6, (time.process_time() - cpu) / n * 1e6


@dataclass(frozen=True, slots=True)
class Ratio:
    """Work against a yardstick: medians over interleaved rounds, in microseconds, and of their ratios.
    ``floors``: the ratios of wall and CPU of what lies below the work."""

    us: float
    yard_us: float
    wall: float
    wall_spread: tuple[float, float]
    cpu_us: float
    yard_cpu_us: float
    cpu: float
    cpu_spread: tuple[float, float]
    server_us: float | None = None
    floors: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def row(self, target: str, yardstick: str, *, cpu: bool = False, note: str = "") -> Row:
        """As a row of the table: the ratio of wall times, or of the client's CPU."""
        yard = self.yard_cpu_us if cpu else self.yard_us
        beside = {
            "us": self.us,
            "cpu_us": self.cpu_us,
            "yard_us": self.yard_us,
            "yard_cpu_us": self.yard_cpu_us,
        }
        if self.server_us is not None:
            beside["server_us"] = self.server_us
        return Row(
            target,
            round(self.cpu if cpu else self.wall, 3),
            f"{yardstick}: {yard:.1f} us{' CPU' if cpu else ''}",
            tuple(round(r, 3) for r in (self.cpu_spread if cpu else self.wall_spread)),
            {name: round(value, 2) for name, value in beside.items()},
            {name: round(ratios[cpu], 3) for name, ratios in self.floors.items()},
            note=note,
        )


def against(
    action: Callable[[], object],
    yardstick: Callable[[], object],
    n: int = 300,
    rounds: int = 21,
    server: Server | None = None,
    floors: Mapping[str, Callable[[], object]] | None = None,
    end: Callable[[], object] | None = None,
) -> Ratio:
    """All in turns, ``rounds`` times ``n`` calls, after a warm-up. With a server, also its CPU per call of
    the work. ``floors``: what else to measure against the yardstick; ``end``: what ends each turn."""
    below = floors or {}
    for warmed in (action, yardstick, *below.values()):
        timed(warmed, max(1, n // 6), end)
    ours, yards, served = [], [], 0.0
    found: dict[str, Times] = {name: [] for name in below}
    for _ in range(rounds):
        before = server.cpu() if server else 0.0
        ours.append(timed(action, n, end))
        served += (server.cpu() if server else 0.0) - before
        yards.append(timed(yardstick, n))
        for name, floor in below.items():
            found[name].append(timed(floor, n, end))
    wall, cpu = (ratios(ours, yards, i) for i in (0, 1))
    return Ratio(
        us=statistics.median(a[0] for a in ours),
        yard_us=statistics.median(b[0] for b in yards),
        wall=statistics.median(wall),
        wall_spread=quartiles(wall),
        cpu_us=statistics.median(a[1] for a in ours),
        yard_cpu_us=statistics.median(b[1] for b in yards),
        cpu=statistics.median(cpu),
        cpu_spread=quartiles(cpu),
        server_us=served / (rounds * n) * 1e6 if server else None,
        floors={
            name: (statistics.median(ratios(times, yards, 0)), statistics.median(ratios(times, yards, 1)))
            for name, times in found.items()
        },
    )


def ratios(ours: Times, yards: Times, which: int) -> list[float]:
    """Round by round, of wall times (0) or CPU (1)."""
    return [a[which] / b[which] if b[which] else 0.0 for a, b in zip(ours, yards, strict=True)]


def quartiles(values: Iterable[float]) -> tuple[float, float]:
    """The spread of a table: the middle half of the rounds lies between the two."""
    found = sorted(values)
    if len(found) < 4:
        return found[0], found[-1]
    cuts = statistics.quantiles(found, n=4)
    return cuts[0], cuts[2]


# --- the server -------------------------------------------------------------------


class Server:
    """A server of this run alone, with the options of the embedded one, on a Unix socket and a loopback
    port."""

    def __init__(self, folder: Path, kind: str, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.path = str(folder / "s")
        self.kind = kind
        command = [find_binary(), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", self.path, "--dir", str(folder), "--logfile", str(folder / "log")]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
        command += ["--maxmemory-policy", "noeviction", "--hash-max-ziplist-entries", "64", *options]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509, no threads run yet
        )
        self.pid = self._process.pid
        deadline = time.monotonic() + 20
        while True:
            try:
                self.raw = RawSocket(self.address)
                break
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start: {(folder / 'log').read_text()}") from None
                time.sleep(0.01)

    @property
    def address(self) -> str | tuple[str, int]:
        return ("127.0.0.1", self.port) if self.kind == "tcp" else self.path

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0" if self.kind == "tcp" else f"unix://{self.path}"

    def cpu(self) -> float:
        """Seconds of CPU it has used, to the nanosecond: the kernel's run time of all its threads."""
        total = 0
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{self.pid}/task/{task}/schedstat") as told:
                total += int(told.read().split()[0])
        return total / 1e9

    def close(self) -> None:
        self.raw.close()
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def own_server(options: Options = Options(), *extra: str) -> Iterator[Server]:
    """A fresh server, which ``Rush("x")`` without a URL uses too; gone at the end, with all it held.
    ``extra``: options of the server program."""
    # Without bytecode files every process would compile the package anew, which no user's does.
    for name in ("REDIS_URL", "RUSHLIGHT_SECRET", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="rlb-", dir="/tmp") as folder:
        server = Server(Path(folder), options.socket, *extra)
        kept = {name: os.environ.get(name) for name in ("RUSHLIGHT_URL", "RUSHLIGHT_HOME")}
        os.environ["RUSHLIGHT_HOME"] = str(Path(folder) / "home")
        os.environ["RUSHLIGHT_URL"] = server.url
        if options.pin:
            pin(server.pid)
        try:
            yield server
        finally:
            server.close()
            for name, value in kept.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def allow_files(n: int) -> None:
    """Raises the limit of open files as far as it takes, or says what to do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = n + SPARE
    if hard != resource.RLIM_INFINITY and hard < needed:
        sys.exit(
            f"{n} workers need {needed} open files, and {hard} are allowed: raise `ulimit -Hn`, or use fewer"
        )
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def pin(*pids: int) -> None:
    """Puts these processes, with all their threads, and this one on one core."""
    for pid in (os.getpid(), *pids):
        for task in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(task), {CORE})


# --- the machine, and who else used it ---------------------------------------------------------------------


def versions(*names: str) -> dict[str, str]:
    """Versions of installed packages."""
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """What a reader must know of where the figures come from."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "")
    told = subprocess.run([find_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "cores": os.cpu_count(),
        "cpu": cpu,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "server": " ".join(word for word in told.split() if word[:2] in ("v=", "Va", "Re"))[:40],
        **versions("rushlight", "redis", "hiredis", "msgspec", "cloudpickle", "polars"),
    }


class Quiet:
    """How loaded the machine was: the load average, and the cores others used just before the block and
    in it."""

    def __init__(self, settle: float = 0.5) -> None:
        self._settle = settle
        self.before = 0.0

    def __enter__(self) -> Self:
        self.load = os.getloadavg()[0]
        if self._settle:
            before = _busy_seconds() - _own_seconds()
            time.sleep(self._settle)
            self.before = max(0.0, _busy_seconds() - _own_seconds() - before) / self._settle
        self._wall, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._wall
        self.own = (_own_seconds() - self._own) / seconds
        self.others = max(0.0, (_busy_seconds() - self._busy) / seconds - self.own)

    def as_record(self) -> dict[str, float]:
        return {
            "load_at_start": round(self.load, 2),
            "cores_used_just_before": round(self.before, 2),
            "cores_used_by_others": round(self.others, 2),
            "cores_used_by_this_run": round(self.own, 2),
        }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _busy_seconds() -> float:
    user, nice, system, _idle, _wait, irq, soft = map(int, _lines("/proc/stat")[0].split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """CPU of this process and of all that came from it, alive or waited for."""
    import psutil

    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            used = process.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total


# --- a program of rows -----------------------------------------------------------------------------------


def main(doc: str, rows: Callable[[Options], Iterable[Row]]) -> None:
    """Runs a program of rows: prints them as text, or as one JSON object with ``machine``, ``quiet`` and
    ``rows``."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--socket", choices=("tcp", "unix"), default="tcp")
    parser.add_argument("--pin", action="store_true", help="client and server on one core")
    parser.add_argument("--small", action="store_true", help="only show that it works")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    options = Options(asked.socket, asked.pin, asked.small)
    gc.collect()
    records = []
    facts = machine()
    with Quiet() as quiet:
        for row in rows(options):
            record = {**row.as_record(), "setting": row.setting or options.setting}
            records.append(record)
            if not asked.json:
                print(as_line(record), flush=True)
    if asked.json:
        print(json.dumps({"machine": facts, "quiet": quiet.as_record(), "rows": records}))
    else:
        print(*(f"{name}: {value}" for name, value in (facts | quiet.as_record()).items()), sep=", ")


def as_line(record: dict[str, Any]) -> str:
    """A row for the terminal."""
    spread = "-".join(f"{value:g}" for value in record["spread"] or ())
    verdict = "yes" if record["reached"] else "NO"
    figure = f"{record['figure']:g} {record['unit']}"
    floors = "; ".join(f"{name} {value:g}" for name, value in record["floors"].items())
    return (
        f"{record['work']:<58.58} {figure:>22} {'[' + spread + ']' if spread else '':<16} "
        f"{record['reach']:>14} {verdict:<4} {record['setting']:<15} {record['yardstick']} {record['note']}"
        f"{' below: ' if floors else ''}{floors}"
    ).rstrip()
