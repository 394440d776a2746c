"""Writes ``docs/reference/cli.md`` from the ``--help`` of every command.

python scripts/cli_page.py
"""

# ruff: noqa: INP001 - a program, not a package
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from rushlight._entry import _parser
from rushlight.cli._app import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
WIDTH = 100
Contexts = Iterator[click.Context]
HEAD = """\
<!-- Made by scripts/cli_page.py from --help: change it there. -->

# The command line

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 a failure of the work, 2 wrong usage.
Every reading command takes `--json`. `--network` may come from the variable `RUSHLIGHT_NETWORK`.
"""


def contexts(command: click.Command, name: str, parent: click.Context | None = None) -> Contexts:
    """The command as it is called, and below a group all of its commands."""
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    context.terminal_width = context.max_content_width = WIDTH
    yield context
    if isinstance(command, click.Group):
        for below in sorted(command.commands):
            yield from contexts(command.commands[below], below, context)


def help_of(context: click.Context) -> str:
    """What the command prints for ``--help``, without spaces at the ends of lines."""
    if context.command.name == "worker":
        os.environ["COLUMNS"] = str(WIDTH)
        # Its usage line is the one thing that differs between versions of Python.
        text = "Usage: rushlight worker [OPTIONS]\n\n" + _parser().format_help().partition("\n\n")[2]
    else:
        text = context.get_help()
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def page() -> str:
    """The text of the page."""
    parts = [f"\n## {c.command_path}\n\n```text\n{help_of(c)}\n```\n" for c in contexts(app, "rushlight")]
    return HEAD + "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
