"""The ``worker`` command: its options, and what its process becomes.

The process is a supervisor until it returns, in a forked child, as a worker. Prints nothing but one
line where it cannot begin.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from . import _child
from ._child import ChildJob
from ._children import open_channel
from ._connect import StoreConfig
from ._names import random_name
from ._options import Options
from ._store import Store
from ._store_roster import WorkerCard
from ._supervisor import Supervisor
from .errors import ConfigError, RushlightError
from .launchers import read_environment

#: Seconds a supervisor waits for the server's answer before it looks after its processes again.
_TIMEOUT = 3.0


def main(argv: Sequence[str]) -> int:
    """Runs ``rushlight worker ARGV``; returns the exit code of whatever this process has become."""
    try:
        arguments = _parser().parse_args(argv)
        _set_environment(arguments)
        if arguments.child is not None:
            return _child.run(_adopted(arguments.child))
        became = _supervise(arguments)
    except RushlightError as error:
        print(f"rushlight worker: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    # A forked worker: it leaves the supervisor's frames first, and ends like any Python program.
    return _child.run(became) if isinstance(became, ChildJob) else became


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, like the other commands."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see 'rushlight worker --help')")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rushlight worker", description="Start worker processes and look after them.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--network", help="the network to work for")
    add(
        "--spec", help="id of the start arguments a manager stored; without, waits for a manager to name some"
    )
    add("--url", help="the server; RUSHLIGHT_URL where it holds a password")
    add("--workers", type=int, default=1, metavar="N", help="how many workers to start (1)")
    add("--worker-id", action="append", default=[], metavar="ID", help="name of a worker; repeatable")
    add("--grace", type=float, default=20.0, metavar="SECONDS", help="from SIGTERM to the kill (20)")
    add("--outlive", action="store_true", help="go on after the process that launched this one has ended")
    add("--env-file", metavar="PATH", help="JSON object of environment variables, in a file of mode 0600")
    add("--launcher", default="process", help=argparse.SUPPRESS)
    add("--parent", type=int, help=argparse.SUPPRESS)
    add("--child", type=int, help=argparse.SUPPRESS)
    return parser


def _set_environment(arguments: argparse.Namespace) -> None:
    """Settings by way of the environment, where worker processes and the code they run find them too."""
    if arguments.env_file is not None:
        os.environ.update(read_environment(arguments.env_file))
    if arguments.url is not None:
        os.environ["RUSHLIGHT_URL"] = arguments.url


def _supervise(arguments: argparse.Namespace) -> int | ChildJob:
    options = _options(arguments)
    config = StoreConfig.find()
    # The supervisor has processes to look after: it tries again itself, later, instead of waiting.
    store = Store(replace(config, timeout=min(config.timeout, _TIMEOUT), patience=0.0), options.network)
    return Supervisor(store, config, options).run()


def _options(arguments: argparse.Namespace) -> Options:
    if not arguments.network:
        raise ConfigError("--network is missing: give --network=...")
    if arguments.workers < 1:
        raise ConfigError(f"--workers={arguments.workers}: start at least one")
    if not arguments.grace >= 0:
        raise ConfigError(f"--grace={arguments.grace}: seconds cannot be negative")
    ids = tuple(arguments.worker_id) or tuple(random_name() for _ in range(arguments.workers))
    if len(set(ids)) != len(ids):
        raise ConfigError("--worker-id is given twice with the same name")
    return Options(
        network=arguments.network,
        spec_id=arguments.spec or "",
        worker_ids=ids,
        launcher=arguments.launcher,
        parent=None if arguments.outlive else arguments.parent,
        grace=arguments.grace,
        spawn=os.environ.get("RUSHLIGHT_START_METHOD", _START_METHOD) == "spawn",
    )


#: Forking a single-threaded process that has run no code of the user's is safe, but macOS's own
#: libraries do not promise to survive it.
_START_METHOD = "spawn" if sys.platform == "darwin" else "fork"


def _adopted(descriptor: int) -> ChildJob:
    """The job of a worker process that was started anew instead of forked."""
    channel = open_channel(descriptor)
    told = channel.wait()
    if told is None:
        raise ConfigError("--child is for the supervisor's own use")
    return ChildJob(
        config=StoreConfig.find(),
        network=told["network"],
        card=WorkerCard(**told["card"]),
        spec_id=told["spec_id"],
        channel=channel,
    )
