"""The command that writes a network's tasks to a file: ``export``."""

from __future__ import annotations

import os

import click

from ._options import connect, network_options
from ._output import number, say


@click.command()
@click.argument("path", metavar="FILE")
@network_options
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it exists.")
def export(path: str, network: str, url: str | None, force: bool) -> None:
    """Write all tasks to FILE: .parquet, .ndjson or .jsonl.

    Any program can read its columns; `rushlight.Rush.read_archive` gives everything back exactly,
    without a server.
    """
    if not force and os.path.exists(path):
        raise click.UsageError(f"{path} exists already; --force replaces it")
    with connect(network, url) as rush:
        n_tasks = rush.export(path)
    say(f"{path}: {number(n_tasks, 'task')} of network {network}.")
