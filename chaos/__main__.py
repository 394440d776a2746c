"""``python -m chaos``: a run, its report, and an exit code: 0 if nothing was lost, 1 if anything is wrong."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chaos import ledger
from chaos.calls_checker import CallLedgers, check_calls
from chaos.checker import Final, Ledgers, check
from chaos.faults import Lane, lanes
from chaos.place import ROOT, Site
from rushlight import Rush

#: Seconds within which everybody is to work again once nothing is wrong any more.
RECOVERY = 30.0
#: Seconds of faults between two looks at whether everybody comes back.
_PART = 45.0


def main() -> int:
    """Runs it."""
    asked = _arguments()
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(_old_source(asked.old)) if asked.old else None
        counts = (asked.managers, asked.machines, asked.controllers)
        site = Site(asked.seed, *counts, old, asked.server, asked.fsync)
        report: dict[str, Any] = {
            "seed": asked.seed,
            "old": asked.old,
            "server": site.server.binary,
            "fsync": asked.fsync,
        }
        try:
            wrong = _run(site, asked, report)
        except BaseException:
            site.close(keep=True)
            print(f"the run's folder is {site.folder}", file=sys.stderr)
            raise
        site.close(keep=bool(wrong) and asked.keep)
    print(json.dumps(report, indent=1))
    for sentence in wrong[:40]:
        print(f"WRONG: {sentence}")
    if wrong and asked.keep:
        print(f"the run's folder is {site.folder}")
    print(f"{len(wrong)} things are wrong" if wrong else "nothing is lost, nothing is there twice")
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    add = parser.add_argument
    add("--seed", type=int, default=1, help="what goes wrong, and when (1)")
    add("--seconds", type=float, default=40.0, help="how long things go wrong (40)")
    add("--managers", type=int, default=3, help="programs that push and read, with workers of their own (3)")
    add("--machines", type=int, default=2, help="supervisors besides (2)")
    add("--controllers", type=int, default=2, help="programs that make calls on a network beside (2)")
    add("--old", metavar="REVISION", help="the last manager and its workers are of this commit")
    add("--server", metavar="PROGRAM", help="the server's program (the one in the wheel)")
    add("--fsync", choices=("always", "everysec", "no"), default="always", help="the server's appendfsync")
    add("--keep", action="store_true", help="where something is wrong, leave ledgers and server's log behind")
    spoil = "spoil the account, to see that it is noticed; may be given several times"
    add("--break", dest="broken", action="append", default=[], choices=sorted(BREAKS), help=spoil)
    return parser.parse_args()


@contextlib.contextmanager
def _old_source(revision: str) -> Iterator[Path]:
    """The package as it was, for programs of another version."""
    with tempfile.TemporaryDirectory(prefix="rlc-old-", dir="/tmp") as folder:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", revision, "src"], check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder) / "src"


def _run(site: Site, asked: argparse.Namespace, report: dict[str, Any]) -> list[str]:
    began = time.monotonic()
    wrong: list[str] = []
    recoveries: list[float] = []
    faults: Counter[str] = Counter()
    site.keep_up()
    _recover(site, wrong, recoveries)
    part = 0
    while not wrong and (left := began + asked.seconds - time.monotonic()) > 0:
        part += 1
        faults += _go_wrong(site, part, min(_PART, left))
        _recover(site, wrong, recoveries)
    site.rest()
    site.kill_controllers()
    _spoil(site, CALL_BREAKS, asked.broken)
    site.collect_the_rest()
    site.stop_workers()
    site.stop_managers()
    _spoil(site, TASK_BREAKS, asked.broken)
    lines = list(ledger.read(site.ledgers))
    ledgers, calls = Ledgers.of(lines), CallLedgers.of(lines)
    tasks = _tables(site, wrong)
    wrong += check(ledgers, tasks)
    wrong += check_calls(calls, ledgers.events)
    for network in (site.name, site.calls):
        with Rush(network, site.direct) as rush:
            rush.reset()
    with site.server.client() as client:
        wrong += [f"left over: key {key!r}" for key in client.scan_iter()]
    wrong += [f"left over: {left}" for left in site.left_over()]
    _tell(report, site, ledgers, tasks, wrong)
    _tell_calls(report, calls)
    report |= {
        "seconds": round(time.monotonic() - began),
        "recoveries_s": [round(seconds, 1) for seconds in recoveries],
        "faults": dict(sorted(faults.items())),
    }
    return wrong


def _go_wrong(site: Site, part: int, seconds: float) -> Counter[str]:
    running: list[Lane] = lanes(site, part)
    for lane in running:
        lane.start()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not any(lane.trouble for lane in running):
        site.keep_up()
        threading.Event().wait(0.2)
    counts: Counter[str] = Counter()
    for lane in running:
        lane.finish()
        counts += lane.counts
    return counts


def _recover(site: Site, wrong: list[str], recoveries: list[float]) -> None:
    """Mends everything, and waits until everybody who is there has got something done since."""
    site.heal()
    site.keep_up()
    began = time.monotonic()
    waited_for = _who(site)
    while True:
        there = _who(site) & waited_for
        late = there - _alive_since(site, began)
        if not late:
            break
        if time.monotonic() - began > RECOVERY:
            wrong.append(f"not recovered after {RECOVERY:g} s: {sorted(late)}: {_last_words(site, late)}")
            return
        threading.Event().wait(0.1)
    recoveries.append(time.monotonic() - began)


def _who(site: Site) -> set[int]:
    return {process.pid for process in (*site.managers(), *site.controllers(), *site.workers())}


def _alive_since(site: Site, began: float) -> set[int]:
    return {
        int(path.name.split(".")[1])
        for path in site.ledgers.glob("*.jsonl")
        if any(line["what"] == "alive" and line["t"] >= began for line in _tail(path))
    }


def _tail(path: Path) -> list[dict[str, Any]]:
    """The last lines of a ledger."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        found = file.read().splitlines()
    lines = []
    for line in found:
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines


def _last_words(site: Site, pids: set[int]) -> list[dict[str, Any]]:
    return [
        line
        for path in site.ledgers.glob("*.jsonl")
        if int(path.name.split(".")[1]) in pids
        for line in _tail(path)[-2:]
    ]


def _tables(site: Site, wrong: list[str]) -> list[Final]:
    """All tasks as a new manager reads them, after the raw containers were read one by one."""
    sys.path.append(str(ROOT / "tests"))
    from harness import account

    with site.server.client() as client:
        try:
            states = account(client, site.name).states()
        except AssertionError as error:
            wrong.append(f"the books do not agree: {error}")
            states = {}
    with Rush(site.name, site.direct) as rush:
        tasks = rush.fetch_tasks(as_="tasks")
    found = [
        Final(task.key, str(task.state), task.xs, task.ys, task.condition, task.worker_id, task.attempt)
        for task in tasks
    ]
    read = {task.key: task.state for task in found}
    if states and states != read:
        wrong.append("a manager reads other states than the containers hold")
    return found


def _tell(report: dict[str, Any], site: Site, ledgers: Ledgers, tasks: list[Final], wrong: list[str]) -> None:
    kinds = Counter(sentence.partition(":")[0] for sentence in wrong)
    events = ledgers.events
    report |= {
        "tasks": len(tasks),
        "acknowledged": len(ledgers.pushed),
        "states": dict(Counter(task.state for task in tasks)),
        "attempts_beyond_the_first": sum(task.attempt - 1 for task in tasks),
        "results_acknowledged": ledgers.finished.total(),
        "kills": {name[5:]: n for name, n in sorted(events.items()) if name.startswith("kill ")},
        "stops": events["stopped"],
        "server_starts": site.server.starts,
        "packets": vars(site.proxy.counts),
        "errors_told_to_managers": dict(ledgers.errors),
        "lost": kinds["lost"],
        "twice": kinds["twice"] + kinds["decided twice"] + kinds["seen twice"],
        "wrong": len(wrong),
        "processes": len(list(site.ledgers.glob("*.jsonl"))),
    }


def _tell_calls(report: dict[str, Any], calls: CallLedgers) -> None:
    report["calls"] = {
        "submitted": len(calls.submitted),
        "collected": dict(Counter(one.status for one in calls.taken)),
        "given_again": len(calls.taken) - len({one.name for one in calls.taken}),
        "read": len(calls.read),
    }


# --- breaking the account on purpose ------------------------------------------------------------------


def _forge(site: Site) -> None:
    """An acknowledgement of a task that never was."""
    site.ledger.write("pushed", ids=["never"], keys=["never-was"])


def _delete(site: Site) -> None:
    """A finished task disappears from the server, and its place with it."""
    with site.server.client() as client:
        name = f"rl:{{{site.name}}}:"
        last = client.llen(f"{name}finished") - 1
        key = next(key for key, at in client.hscan_iter(f"{name}index") if at == str(last).encode())
        client.rpop(f"{name}finished")
        client.hdel(f"{name}index", key)


def _double(site: Site) -> None:
    """A result is there twice."""
    with site.server.client() as client:
        name = f"rl:{{{site.name}}}:finished"
        client.rpush(name, client.lindex(name, 0))


def _forge_call(site: Site) -> None:
    """An acknowledgement of a call that never was."""
    site.ledger.write("submitted", names=["never-called"])


def _recollect(site: Site) -> None:
    """The server forgets who has collected a result."""
    with site.server.client() as client:
        client.delete(f"rl:{{{site.calls}}}:collected")


Break = Callable[[Site], None]
TASK_BREAKS: dict[str, Break] = {"forge": _forge, "delete": _delete, "double": _double}
#: Before what is left of the calls is collected.
CALL_BREAKS: dict[str, Break] = {"forge-call": _forge_call, "recollect": _recollect}
BREAKS = TASK_BREAKS | CALL_BREAKS


def _spoil(site: Site, breaks: dict[str, Break], wanted: list[str]) -> None:
    for how in wanted:
        if how in breaks:
            breaks[how](site)


if __name__ == "__main__":
    sys.exit(main())
