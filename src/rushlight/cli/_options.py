"""What every command shares: its options, how it reaches a network, how it reports a failure.

Never prints a result.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import click

from rushlight import Rush
from rushlight.errors import ConfigError, RushlightError

F = TypeVar("F", bound=Callable[..., Any])

#: Exit codes, the same for every command.
DONE, FAILED, USAGE = 0, 1, 2
#: What a shell expects of a command that Ctrl-C ended before it was done.
INTERRUPTED = 130


class WorkFailed(click.ClickException):
    """The command did what it was asked, and the answer is that the work failed."""

    exit_code = FAILED


def debug_option(function: F) -> F:
    """Adds ``--debug``, which may stand before or after the command."""
    return click.option(
        "--debug", is_flag=True, expose_value=False, help="Show the full traceback of an error."
    )(function)


def url_option(function: F) -> F:
    """Adds ``--url``."""
    return click.option(
        "--url",
        metavar="URL",
        help="Redis or Valkey server, such as redis://host:6379/0. Default: RUSHLIGHT_URL, then "
        "REDIS_URL, then this user's own embedded server.",
    )(function)


def network_options(function: F) -> F:
    """Adds what every command about one network takes: ``--network``, ``--url``, ``--debug``."""
    network = click.option(
        "-n",
        "--network",
        required=True,
        envvar="RUSHLIGHT_NETWORK",
        show_envvar=True,
        metavar="NAME",
        help="The network: the name its workers and tasks share.",
    )
    return network(url_option(debug_option(function)))


def json_option(function: F) -> F:
    """Adds ``--json``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON for programs instead of text for people."
    )(function)


def kwargs_option(function: F) -> F:
    """Adds ``--kwargs``."""
    return click.option(
        "--kwargs", "kwargs_json", metavar="JSON", help="Keyword arguments of LOOP, as a JSON object."
    )(function)


def connect(network: str, url: str | None) -> Rush:
    """The manager of ``network``; use it in a ``with`` statement."""
    return Rush(network, url=url)


def one_line(text: object) -> str:
    """The text without line breaks, as an error is printed."""
    return " ".join(str(text).split())


def report(error: BaseException, *, debug: bool) -> int:
    """Print an error as one line on stderr (after its traceback, with ``debug``); its exit code."""
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)
        return USAGE
    if isinstance(error, click.UsageError):
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx is not None else ""
        _complain(one_line(error.format_message()) + hint)
        return USAGE
    if isinstance(error, click.ClickException):
        _complain(one_line(error.format_message()))
        return error.exit_code
    if isinstance(error, RushlightError):
        _complain(one_line(error))
        return USAGE if isinstance(error, ConfigError) else FAILED
    hint = "" if debug else " (--debug shows where)"
    _complain(f"{type(error).__name__}: {one_line(error)}{hint}")
    return FAILED


def _complain(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(f"error: {text}", file=sys.stderr)


def hang_up() -> int:
    """The reader of our output has gone (``| head``): let nothing more be written, and be content."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(null, stream.fileno())
    os.close(null)
    return DONE
