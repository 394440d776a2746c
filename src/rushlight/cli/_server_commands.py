"""``rushlight server``: the embedded server of this user."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from rushlight._server import ServerStatus, ensure_server, server_status, stop_server
from rushlight.errors import ConfigError

from ._options import F, debug_option, json_option
from ._output import print_json, say, span


def server_options(function: F) -> F:
    """Adds what the other commands take, so that one alias fits all; ``--network`` changes nothing."""
    network = click.option("-n", "--network", hidden=True, expose_value=False)
    url = click.option("--url", hidden=True, expose_value=False, callback=_refuse_url)
    return network(url(debug_option(function)))


def _refuse_url(_context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise ConfigError(
            "--url names a server that somebody else runs; `rushlight server` is about the embedded one, "
            "which has no URL (RUSHLIGHT_HOME says where it lives)",
            value=value,
        )


@click.group()
def server() -> None:
    """Start, stop or describe this user's embedded server.

    It starts by itself when a command needs it and ends some time after its last client; its data
    stays on disk in RUSHLIGHT_HOME.
    """


@server.command()
@server_options
@click.option(
    "--idle-timeout",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long it stays without a client; 0: until stopped. Holds until `server stop`.",
)
@json_option
def start(idle_timeout: float | None, as_json: bool) -> None:
    """Start the server if it does not run."""
    ensure_server(idle_timeout=idle_timeout)
    _describe(server_status(), as_json=as_json)


@server.command()
@server_options
@json_option
def stop(as_json: bool) -> None:
    """Stop the server; its data stays."""
    stopped = stop_server()
    if as_json:
        print_json({"stopped": stopped})
    else:
        say("The embedded server has stopped." if stopped else "No embedded server was running.")


@server.command()
@server_options
@json_option
def status(as_json: bool) -> None:
    """Say whether the server runs, where, and how much memory it uses."""
    _describe(server_status(), as_json=as_json)


def _describe(state: ServerStatus, *, as_json: bool) -> None:
    facts = {name: str(value) if name in _PATHS else value for name, value in asdict(state).items()}
    if as_json:
        print_json(facts)
        return
    say("The embedded server is running." if state.running else "The embedded server is not running.")
    for name, value in facts.items():
        if value is not None and name != "running":
            say(f"  {name.replace('_', ' '):13} {_fact(name, value)}")


_PATHS = ("socket", "home", "log")


def _fact(name: str, value: Any) -> str:
    if name == "memory":
        return f"{value / 2**20:.1f} MiB"
    if name == "uptime":
        return span(value)
    if name == "idle_timeout":
        return span(value) if value else "never"
    return str(value)
