"""Writes ``docs/explanation/keys.md`` from ``rushlight._keys.CATALOGUE``.

python scripts/keys_page.py
"""

# ruff: noqa: INP001 - a program, not a package
from __future__ import annotations

from pathlib import Path

from rushlight._keys import CATALOGUE, Keys

PAGE = Path(__file__).resolve().parent.parent / "docs" / "explanation" / "keys.md"
HEAD = """\
<!-- Made by scripts/keys_page.py from rushlight._keys.CATALOGUE: change it there. -->

# Keys

All state of a network is in these keys of the server. Their names have one spelling, `_keys.py`; no script
and no other module builds one. Each carries the network's name as its hash tag, so that a network lies on one
node of a cluster and a script may touch all of it.

For a network named `study` the key `{first}` is `{spelled}`, and everything is matched by `{pattern}`.
All keys live until `reset`; that of a worker told to stop, `bell:<worker>`, expires after ten seconds, and
`answers` a minute or two after the last call that left one.

| key | type | what it holds |
|---|---|---|
"""


def page() -> str:
    """The text of the page."""
    keys = Keys("study")
    lines = [HEAD.format(first="queue", spelled=keys["queue"], pattern=keys.pattern())]
    for key, (kind, meaning) in CATALOGUE.items():
        lines.append(f"| `{key}` | {kind} | {cell(meaning)} |\n")
    lines.append("| `bell:<worker>` | list | a token for this one worker: a stop, or a task of its own |\n")
    lines.append(
        "\nWhich script moves what: [states](states.md). How a record is made: [records](records.md).\n"
    )
    return "".join(lines)


def cell(text: str) -> str:
    """The text as it can stand in a cell: what looks like a placeholder is code, outside of code."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
