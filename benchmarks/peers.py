"""Other libraries and ours, the same tasks in the same run: ``python benchmarks/peers.py [--save] [name]``.

Each library is put into a virtual environment of its own (``.venv-peers/NAME``, kept for the next time)
and measured by ``peers/measure.py`` there, with two workers on this machine, all on the same server program
with the same options: tasks per second and latency of a no-op, and of a task that takes a millisecond of CPU.
Every result is collected and checked. What cannot be installed or does not run is said in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import headline
import kit
import publish
from leaders import OURS, Kind, cpu_us, lines, rate, trial_us

HERE = Path(__file__).resolve().parent
#: Names, in the environment of all processes of a measurement, what no other's have.
MARK = "PEERS_RUN"


@dataclass(frozen=True, slots=True)
class Peer:
    """A library: what to install, and the variants of its ``peers/with_*.py``. ``between``: what is between
    the caller and its workers (``leaders.REASONS``); ``batched``: the variants that send many tasks in a
    message; ``instead``: what else to know of its tasks where they are ahead of ours."""

    name: str
    packages: tuple[str, ...]
    variants: tuple[str, ...]
    between: str = "server"
    batched: tuple[str, ...] = ()
    instead: str = ""


PEERS = (
    Peer(
        OURS,
        (),
        (
            "queue",
            "queue, one by one",
            "controller",
            "controller, chunks of 64",
            "search",
            "search, step",
            "search, write_behind",
        ),
        batched=("controller, chunks of 64",),
    ),
    Peer(
        "pool",
        (),
        ("submit", "map, chunks of 64"),
        between="pipes",
        batched=("map, chunks of 64",),
    ),
    Peer(
        "joblib",
        ("joblib",),
        ("batch_size=1", "batch_size=auto"),
        between="pipes",
        batched=("batch_size=auto",),
    ),
    Peer("rq", ("rq",), ("fork per job", "SimpleWorker")),
    Peer("celery", ("celery[redis]",), ("prefork",)),
    Peer("dramatiq", ("dramatiq[redis]",), ("2 x 8 threads", "2 x 1 thread")),
    Peer(
        "huey",
        ("huey[redis]",),
        ("as shipped", "notify_result"),
        instead="through the same server, but a task that was taken is nowhere but in its worker, and gone "
        "with it",
    ),
    Peer("arq", ("arq",), ("as shipped", "polls every ms")),
    Peer("taskiq", ("taskiq", "taskiq-redis"), ("as shipped", "polls every ms")),
    Peer("streaq", ("streaq",), ("as shipped",)),
    Peer("dask", ("distributed",), ("LocalCluster",), between="daemons"),
    Peer("ray", ("ray",), ("tasks", "actors"), between="daemons"),
    Peer("parsl", ("parsl",), ("HTEX",), between="daemons"),
    Peer(
        "optuna",
        ("optuna", "redis"),
        ("in memory", "journal, Redis", "journal, file", "RDB, sqlite"),
        between="shared",
    ),
)
KIND = Kind(
    between={peer.name: peer.between for peer in PEERS},
    batched=frozenset((peer.name, variant) for peer in PEERS for variant in peer.batched),
    instead={peer.name: peer.instead for peer in PEERS},
)


def python_of(peer: Peer, folder: Path) -> tuple[str, str]:
    """The interpreter of its environment, made if need be; and why there is none, if so."""
    if not peer.packages:
        return sys.executable, ""
    home = folder / peer.name
    python, stamp = home / "bin" / "python", home / "installed"
    if not stamp.exists():
        venv.create(home, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *peer.packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return "", f"could not be installed: {last_line(done.stderr)}"
        stamp.touch()
    return str(python), ""


def last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def run(peer: Peer, variant: str, python: str, *, small: bool, limit: float) -> dict[str, Any]:
    """One variant on a fresh server."""
    found: dict[str, Any] = {"peer": peer.name, "variant": variant}
    with kit.own_server() as server, kit.Quiet() as quiet:
        script = str(HERE / "peers" / "measure.py")
        command = [python, script, f"with_{peer.name}", variant, "--url", server.url]
        # Workers find the tasks by the names of their modules, and a library its own programs.
        programs = f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        env = {**os.environ, "PYTHONPATH": str(HERE / "peers"), "PATH": programs}
        env |= {MARK: server.path, "PEERS_SERVER": str(server.pid)}
        try:
            done = subprocess.run(
                [*command, *(("--small",) if small else ())],
                capture_output=True,
                text=True,
                check=False,
                timeout=limit,
                env=env,
                cwd=HERE / "peers",
            )
            if done.returncode:
                found["error"] = last_line(done.stderr)
            else:
                found |= json.loads(done.stdout.strip().splitlines()[-1])
        except subprocess.TimeoutExpired:
            found["error"] = f"did not end within {limit:g} s"
        finally:
            end_all(f"{MARK}={server.path}".encode())
    return found | {"quiet": quiet.as_record()}


def end_all(mark: bytes) -> None:
    """Ends what a measurement has left running: every process with this mark in its environment."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)


def measured(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every variant of each library asked for; the pool and ours again at the end, to show the drift."""
    chosen = [peer for peer in PEERS if not asked.names or peer.name in asked.names]
    again = [peer for peer in chosen if peer.name in (OURS, "pool")] if len(chosen) > 2 else []
    for at, peer in enumerate([*chosen, *again]):
        python, trouble = python_of(peer, asked.folder)
        variants = peer.variants[:1] if at >= len(chosen) else peer.variants
        for variant in variants:
            if trouble:
                yield {"peer": peer.name, "variant": variant, "error": trouble}
                continue
            found = run(peer, variant, python, small=asked.small, limit=asked.limit)
            yield found | {"again": at >= len(chosen)}


def as_markdown(whole: dict[str, Any]) -> str:
    """The tables, who is ahead of ours and why, what could not be measured, settings and versions."""
    found = whole["peers"]
    parts = [*queue_lines(found), "", *store_lines(found), "", "Who leads, column by column:", ""]
    parts += [*lines(found, KIND), ""]
    for one in found:
        if "error" in one:
            parts.append(f"- {one['peer']} ({one['variant']}) was not measured: {one['error']}")
    parts += ["", "Settings and versions:", ""]
    for one in found:
        if "settings" in one and not one["again"]:
            used = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
            parts.append(f"- {one['peer']}, {one['variant']}: {one['settings']}{used and f' ({used})'}")
    return "\n".join([*parts, "", publish.facts(whole)])


def queue_lines(found: list[dict[str, Any]]) -> Iterator[str]:
    """Queues, the fastest first."""
    yield (
        "| library | variant | no-op tasks/s | 1 ms tasks/s | CPU us of a no-op, all processes "
        "| no-op p50 / p95 ms | 1 ms p50 / p95 ms | first result s | others' cores |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    queues = [one for one in found if "noop" in one]
    for one in sorted(queues, key=lambda one: rate(one, "noop"), reverse=True):
        singles = (one["noop_latency"], one["spin_latency"])
        times = " | ".join(f"{single['p50_ms']:g} / {single['p95_ms']:g}" for single in singles)
        again = " (again)" if one["again"] else ""
        yield (
            f"| {name_of(one)} | {one['variant']}{again} | {rate(one, 'noop'):,.0f} "
            f"| {rate(one, 'spin'):,.0f} | {cpu_us(one):,.0f} | {times} | {one['first_result_seconds']:g} "
            f"| {one['quiet']['cores_used_by_others']} |"
        )


def store_lines(found: list[dict[str, Any]]) -> Iterator[str]:
    """Stores of trials, the fastest first."""
    yield "| store of trials | variant | us per trial | 2 processes, trials/s | reading 5,000 anew, ms |"
    yield "|---|---|---|---|---|"
    for one in sorted((one for one in found if "trial_us" in one), key=trial_us):
        pair, load = one.get("two_processes"), one.get("load")
        together = f"{pair['per_second']:,.0f}" if pair else ""
        reading = f"{load['ms']:g}" if load else ""
        yield f"| {name_of(one)} | {one['variant']} | {trial_us(one):,.1f} | {together} | {reading} |"


def name_of(one: dict[str, Any]) -> str:
    return f"**{one['peer']}**" if one["peer"] == OURS else str(one["peer"])


def as_line(one: dict[str, Any]) -> str:
    """A variant for the terminal."""
    head = f"{one['peer']:<10} {one['variant']:<24}"
    if "error" in one:
        return f"{head} {one['error']}"
    if "trial_us" in one:
        return f"{head} {trial_us(one):>9,.1f} us per trial {one.get('two_processes')} {one.get('load')}"
    return (
        f"{head} no-op {rate(one, 'noop'):>9,.0f}/s, 1 ms {rate(one, 'spin'):>7,.0f}/s, "
        f"CPU {cpu_us(one):,.0f} us, latency "
        f"{one['noop_latency']['p50_ms']:g}/{one['noop_latency']['p95_ms']:g} ms, "
        f"{one['spin_latency']['p50_ms']:g}/{one['spin_latency']['p95_ms']:g} ms, first result "
        f"{one['first_result_seconds']:g} s; others used {one['quiet']['cores_used_by_others']} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *(peer.name for peer in PEERS)], help="all without")
    parser.add_argument("--folder", type=Path, default=HERE.parent / ".venv-peers", help="of environments")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds a variant may take")
    parser.add_argument("--small", action="store_true", help="only show that it works")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true", help="into results/ and README.md")
    asked = parser.parse_args()
    found = []
    for one in measured(asked):
        found.append(one)
        if not asked.json:
            print(as_line(one), flush=True)
    whole = {"machine": kit.machine(), "peers": found}
    if asked.json:
        print(json.dumps(whole))
    else:
        print(*lines(found, KIND), sep="\n")
    if asked.save:
        publish.save("peers", whole)
        publish.into_readme("peers.py", as_markdown(whole))
        headline.refresh()


if __name__ == "__main__":
    main()
