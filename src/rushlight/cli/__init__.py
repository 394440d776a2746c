"""The command line: ``rushlight COMMAND``.

Owns arguments, help and printing; everything it does to a network it does through the public
classes of ``rushlight``. ``click`` and ``rich`` are imported here and nowhere else, so no worker pays
for them.
"""

from __future__ import annotations

from ._app import main

__all__ = ["main"]
