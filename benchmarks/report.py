"""All pictures and tables anew from the data in ``results/``: ``python benchmarks/report.py``."""

from __future__ import annotations

import curves
import headline
import peers
import publish
import scale
import table


def main() -> None:
    """Each program's picture, where it draws one, and its table in README.md."""
    for program in (table, curves, scale, peers):
        name = program.__name__
        if (publish.RESULTS / f"{name}.json").exists():
            whole = publish.load(name)
            if hasattr(program, "draw"):
                program.draw(whole, publish.RESULTS)
            publish.into_readme(f"{name}.py", program.as_markdown(whole))
    headline.refresh()


if __name__ == "__main__":
    main()
