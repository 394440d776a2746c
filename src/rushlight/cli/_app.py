"""The group of commands and the one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

import click

from rushlight._version import __version__

from ._act import reset, retry, script, stop
from ._doctor import doctor
from ._export import export
from ._options import DONE, INTERRUPTED, debug_option, hang_up, report
from ._read import logs, status, tasks, workers
from ._run import run
from ._server_commands import server

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="rushlight", message="%(prog)s %(version)s")
@debug_option
def app() -> None:
    """Asynchronous computing: workers share tasks and results in a network on Redis or Valkey.

    Without a URL the network lives on an embedded server that starts by itself.

    \b
    A first run, and a look at what it left:
      rushlight run examples/random_search.py:random_search --network branin --workers 4
      rushlight status --network branin
      rushlight tasks --network branin --limit 5

    \b
    Exit codes: 0 done, 1 a failure of the work, 2 wrong usage; 130 where Ctrl-C cut a
    command short (`run` and `logs --follow` take it as the way to end).
    """


for command in (run, status, tasks, workers, logs, stop, retry, reset, export, script, server, doctor):
    app.add_command(command)


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(arguments: tuple[str, ...]) -> None:
    """Start workers of a network on this host, as launchers and `script` do."""
    # A fresh interpreter: the workers it forks are not to carry what the command line has imported.
    os.execv(sys.executable, [sys.executable, "-m", "rushlight", "worker", *arguments])


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``rushlight`` command; ends the process with the command's exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(_run(given))


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    try:
        result = app.main(arguments, prog_name="rushlight", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return hang_up()
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:
        return report(error, debug=debug)
    return result if isinstance(result, int) else DONE
