"""Shows a run while it goes on: a live panel on a terminal, an occasional line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

from ._output import console, span
from ._progress import Goal, Picture

#: Seconds between two lines where there is no terminal.
LINE_EVERY = 5.0

_STYLES = {"running": "green", "finished": "green", "failed": "red", "lost": "red", "killed": "red"}


class Display(Protocol):
    """Something that shows pictures of a run; a context manager."""

    def show(self, picture: Picture) -> None:
        """Show this moment, or leave it out if one was shown a moment ago."""

    def say(self, text: str) -> None:
        """Show a sentence that stays."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def display(title: str, goal: Goal | None) -> Display:
    """The display that fits stderr: results on stdout stay clean for a pipe or a file."""
    return Panel(title, goal) if sys.stderr.isatty() else Lines(title, goal)


class Lines:
    """Plain lines, one in :data:`LINE_EVERY` seconds."""

    def __init__(self, title: str, goal: Goal | None) -> None:
        self._title = title
        self._goal = goal
        self._due = 0.0

    def __enter__(self) -> Self:
        self.say(self._title)
        return self

    def show(self, picture: Picture) -> None:
        if picture.seconds >= self._due:
            self._due = picture.seconds + LINE_EVERY
            self.say(picture.line(self._goal))

    def say(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Panel:
    """A few lines at the foot of the terminal that are drawn anew."""

    def __init__(self, title: str, goal: Goal | None) -> None:
        self._title = title
        self._goal = goal
        self._console = console(sys.stderr)
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._console.print(Text(self._title, style="bold"))
        self._live.start()
        return self

    def show(self, picture: Picture) -> None:
        self._live.update(render(picture, self._goal))

    def say(self, text: str) -> None:
        self._live.console.print(Text(text, style="yellow"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def render(picture: Picture, goal: Goal | None) -> Table:
    """The panel: one row each for workers, tasks, speed and the best result."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row(Text("workers", style="dim"), _counts(picture.workers, always=("running",)))
    grid.add_row(Text("tasks", style="dim"), _counts(picture.tasks, always=tuple(picture.tasks)))
    grid.add_row(Text("speed", style="dim"), Text(f"{picture.rate:.1f} tasks/s, {span(picture.seconds)}"))
    if goal is not None:
        best = "none yet" if picture.best is None else f"{picture.best:.6g}"
        grid.add_row(Text(f"best {goal.name}", style="dim"), Text(best, style="bold"))
    return grid


def _counts(counts: Mapping[str, int], always: tuple[str, ...]) -> Text:
    text = Text()
    for state, count in counts.items():
        if count or state in always:
            text.append(f"{count} {state}   ", style=_STYLES.get(state, "") if count else "dim")
    return text
