"""``python -m rushlight``: the worker command without the rest of the command line, which it never needs."""

from __future__ import annotations

import sys


def main() -> int | None:
    """Runs the command line; workers start often, so theirs imports neither click nor rich."""
    if sys.argv[1:2] == ["worker"]:
        from rushlight._entry import main as worker

        return worker(sys.argv[2:])
    from rushlight.cli import main as everything

    everything()
    return None


if __name__ == "__main__":
    sys.exit(main())
