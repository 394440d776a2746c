"""Where results go: data and pictures in ``results/``, tables between their marks in README.md."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def into_readme(name: str, text: str, path: Path = HERE / "README.md") -> None:
    """Puts a text between the marks that the program of this name has in README.md."""
    begin, end = f"<!-- made by {name} -->", f"<!-- end of {name} -->"
    head, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, ended, tail = rest.partition(end)
    if not found or not ended:
        raise SystemExit(f"{path} has no place for {name}: {begin} ... {end}")
    path.write_text(f"{head}{begin}\n\n{text.strip()}\n\n{end}{tail}", encoding="utf-8")


def save(name: str, whole: dict[str, Any], folder: Path = RESULTS) -> None:
    """The data as JSON; where it is points, also as CSV."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if "points" in whole:
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(whole["points"][0]))
            writer.writeheader()
            writer.writerows(whole["points"])


def load(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """The data of an earlier run."""
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return found


def facts(whole: dict[str, Any]) -> str:
    """The machine in a line."""
    return ", ".join(f"{name} {value}" for name, value in whole["machine"].items()) + "."


def canvas() -> tuple[Any, Any]:
    """An empty picture: the figure and its axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    # Text stays text, and the same data makes the same file.
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "rushlight", "font.size": 9}
    return plt.subplots(figsize=(7, 4.5))


def finish(figure: Any, axes: Any, whole: dict[str, Any], others: float, path: Path) -> None:
    """Grid, legend and the machine, then into the file; ``others``: cores that others used meanwhile."""
    import matplotlib.pyplot as plt

    machine = whole["machine"]
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    told = f"{machine['date']}, {machine['cores']} cores, {machine['server']}, others used {others:g} cores"
    axes.set_title(told, fontsize=8)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
