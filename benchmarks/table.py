"""The whole table of what the project means to reach, in one run: ``python benchmarks/table.py``.

Runs every program of rows in each of its settings, each in a process of its own, and prints one line per
figure: the work, the yardstick of the same run, figure, spread, bound, reached or not. ``--save`` writes
``results/table.json`` and puts the table into README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import headline
import kit
import publish
from targets import TARGETS

HERE = Path(__file__).resolve().parent
#: Settings in which each program runs: client and server where the kernel puts them, and on one core.
SOLO = ((), ("--pin",), ("--socket", "unix"), ("--socket", "unix", "--pin"))
PROGRAMS = {
    "bench_core.py": SOLO,
    "bench_fetch.py": ((),),
    "bench_queue.py": ((),),
    "bench_workers.py": ((), ("--socket", "unix")),
    "bench_search.py": ((), ("--socket", "unix")),
}


def runs(*, small: bool, only: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Programs that are there, with their settings. A small run takes the first setting of each."""
    for program, settings in PROGRAMS.items():
        if (HERE / program).exists() and (not only or any(word in program for word in only)):
            for flags in settings[:1] if small else settings:
                yield program, (*flags, *(("--small",) if small else ()))


def run(program: str, flags: tuple[str, ...]) -> dict[str, Any]:
    """What one program printed; ``error`` where it did not come to its end."""
    start = time.monotonic()
    command = [sys.executable, str(HERE / program), "--json", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, Any] = {"program": program, "flags": list(flags), "rows": [], "quiet": {}, "machine": {}}
    if done.returncode:
        found["error"] = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    else:
        found |= json.loads(done.stdout.splitlines()[-1])
    return found | {"seconds": round(time.monotonic() - start, 1)}


def in_order(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows, in the order of the targets; a target nobody measured has a row that says so."""
    rows = [row for one in found for row in one["rows"]]
    ordered = []
    for name, target in TARGETS.items():
        mine = [row for row in rows if row["target"] == name]
        ordered += mine or [
            {"target": name, "work": target.work, "reach": target.reach, "unit": target.unit, "figure": None}
        ]
    return ordered


def as_markdown(whole: dict[str, Any]) -> str:
    """The table and what must be known to read it."""
    found = whole["runs"]
    lines = [
        "| work | setting | figure | spread | reach | reached | beside |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in in_order(found):
        if row["figure"] is None:
            lines.append(f"| {row['work']} | | not measured | | {row['reach']} {row['unit']} | no | |")
            continue
        spread = " to ".join(f"{value:,g}" for value in row["spread"] or ())
        more = ", ".join(f"{name} {value:g}" for name, value in row["beside"].items() if "yard" not in name)
        beside = "; ".join(filter(None, (row["yardstick"], more, row["note"])))
        lines.append(
            f"| {row['work']} | {row['setting']} | {row['figure']:,g} {row['unit']} | {spread} "
            f"| {row['reach']} | {'yes' if row['reached'] else '**no**'} | {beside} |"
        )
    lines += floors_table(in_order(found))
    facts = next((one["machine"] for one in found if one["machine"]), {})
    lines += ["", ", ".join(f"{name} {value}" for name, value in facts.items()) + ".", ""]
    lines += [
        "| program | seconds | load at start | cores used by others | by this run |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        quiet = one["quiet"]
        if "error" in one:
            told = f"failed: {one['error']} | | "
        else:
            names = ("load_at_start", "cores_used_by_others", "cores_used_by_this_run")
            told = " | ".join(str(quiet[name]) for name in names)
        lines.append(f"| `{' '.join([one['program'], *one['flags']])}` | {one['seconds']} | {told} |")
    return "\n".join(lines) + "\n"


def floors_table(rows: list[dict[str, Any]]) -> list[str]:
    """For the operations of one task per call: what of their figures is the wire, the calling of scripts,
    commands and our client."""
    rows = [row for row in rows if row.get("floors")]
    if not rows:
        return []
    names = list(rows[0]["floors"])
    lines = [
        "",
        f"| below it, in the same unit | setting | {' | '.join(names)} | with our client | reach |",
        f"|---|---|{'---|' * len(names)}---|---|",
    ]
    for row in rows:
        told = " | ".join(f"{row['floors'][name]:.2f}" for name in names)
        figures = f"{row['setting']} | {told} | {row['figure']:.2f} | {row['reach']}"
        lines.append(f"| {row['work']} | {figures} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="programs whose name contains one of these; all without")
    parser.add_argument("--small", action="store_true", help="only show that it works")
    parser.add_argument("--format", choices=("text", "json", "markdown"), default="text")
    parser.add_argument("--save", action="store_true", help="into results/ and README.md")
    options = parser.parse_args()
    found = []
    for program, flags in runs(small=options.small, only=options.only):
        print(f"{program} {' '.join(flags)} ...", file=sys.stderr, flush=True)
        found.append(run(program, flags))
    if options.format == "json":
        print(json.dumps(found))
    elif options.format == "markdown":
        print(as_markdown({"runs": found}))
    else:
        print(*(as_text(row) for row in in_order(found)), sep="\n")
        for one in found:
            print(one["program"], *one["flags"], one.get("error", one["quiet"]))
    if options.save:
        publish.save("table", {"runs": found})
        publish.into_readme("table.py", as_markdown({"runs": found}))
        headline.refresh()
    sys.exit(any("error" in one for one in found))


def as_text(row: dict[str, Any]) -> str:
    """A line for the terminal."""
    if row["figure"] is None:
        return f"{row['work']:<58.58} {'not measured':>22} {'':<16} {row['reach']:>14} NO"
    return kit.as_line(row)


if __name__ == "__main__":
    main()
