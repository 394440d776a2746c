"""The few figures in the project's README.md, from the data that ``table.py`` and ``peers.py`` have saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import publish
from leaders import OURS, rate

README = publish.HERE.parent / "README.md"
#: Other libraries, each in its quickest variant that sends one task in a message.
BESIDE = {
    ("pool", "submit"): "ProcessPoolExecutor",
    ("ray", "actors"): "Ray",
    ("huey", "as shipped"): "Huey",
    ("rq", "SimpleWorker"): "RQ",
    ("celery", "prefork"): "Celery",
}


def refresh() -> None:
    """Writes them between their marks."""
    table, peers = (publish.load(name) for name in ("table", "peers"))
    rows = {
        (row["target"], row["setting"]): row
        for run in table["runs"]
        for row in run.get("rows", ())
        if row["figure"] is not None
    }
    text = ["| | |", "|---|---|", *lines(rows, peers["peers"])]
    publish.into_readme("headline.py", "\n".join(text), README)


def lines(rows: dict[tuple[str, str], dict[str, Any]], peers: list[dict[str, Any]]) -> Iterator[str]:
    """One for each thing a newcomer asks for; none where it was not measured."""
    if row := rows.get(("create_finish", "TCP")):
        ping = row["beside"]["yard_us"]
        figure = f"{row['beside']['us']:.0f} us; two bare pings {ping:.0f}"
        yield f"| create and finish a task, a call each | {figure} |"
    if row := rows.get(("step", "TCP")):
        yield f"| finish one and create the next in one call | {row['beside']['us']:.0f} us |"
    if row := rows.get(("fetch_new_1m_3", "TCP")):
        yield f"| a table of 1,000,000 results, of which one is new | {row['figure']:.0f} us |"
    if row := rows.get(("fetch_cold_3", "TCP")):
        yield f"| a table of 100,000 results, all new | {row['figure']:.0f} ms |"
    if row := rows.get(("branin", "TCP, create + finish")):
        yield f"| random search by two workers, a trip per call | {row['figure']:,.0f} tasks/s |"
    if row := rows.get(("server_memory", "TCP")):
        yield f"| memory of the server for a finished task | {row['figure']:.0f} bytes |"
    single = {(one["peer"], one["variant"]): one for one in peers if "noop" in one and not one["again"]}
    if ours := single.get((OURS, "queue")):
        others = [
            f"{name} {rate(single[peer], 'noop'):,.0f}" for peer, name in BESIDE.items() if peer in single
        ]
        figure = "; ".join([f"{rate(ours, 'noop'):,.0f} tasks/s", ", ".join(others)])
        yield f"| no-op tasks through a queue, two workers | {figure} |"
