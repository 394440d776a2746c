"""``rushlight doctor``: is everything as it should be, and if not, what to do."""

from __future__ import annotations

from dataclasses import asdict

import click

from rushlight._connect import StoreConfig
from rushlight._doctor import diagnose, examine, worst

from ._options import DONE, FAILED, debug_option, json_option, url_option
from ._output import number, print_json, say

_MARKS = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}


@click.command()
@click.option(
    "-n",
    "--network",
    envvar="RUSHLIGHT_NETWORK",
    show_envvar=True,
    metavar="NAME",
    help="Look at this network's workers, too.",
)
@url_option
@debug_option
@json_option
def doctor(network: str | None, url: str | None, as_json: bool) -> int:
    """Examine this installation, the server and its networks, and say what to do.

    Looks at: whether the server can be reached and by what right, its version, round trip and clock,
    memory policy, persistence, networks nobody uses any more, and the versions the workers run.
    Changes nothing. Exit code 1 if something is a problem; warnings are none.
    """
    findings = diagnose(examine(StoreConfig.find(url), network))
    verdict = worst(findings)
    if as_json:
        print_json({"verdict": verdict, "findings": [asdict(finding) for finding in findings]})
        return FAILED if verdict == "problem" else DONE
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        say(f"{_MARKS[finding.level]:8} {finding.check:{width}}  {finding.found}")
        if finding.advice:
            say(f"{'':8} {'':{width}}  -> {finding.advice}")
    counts = {level: sum(finding.level == level for finding in findings) for level in _MARKS}
    said = [number(counts["problem"], "problem"), number(counts["warning"], "warning")]
    say("Everything is as it should be." if verdict == "ok" else f"{said[0]}, {said[1]}.")
    return FAILED if verdict == "problem" else DONE
