"""The empty places of the list of finished tasks, as one reader of it has come across them.

A task that was removed has left one. So a place in the list is no number of a row any more: this says which
row stands where.
"""

from __future__ import annotations


class Holes:
    """Empty places, behind so many rows each."""

    def __init__(self) -> None:
        #: Rows and empty places in front, and how many they are.
        self._holes: list[tuple[int, int, int]] = []

    @property
    def total(self) -> int:
        """All of them."""
        _, before, n = self._holes[-1] if self._holes else (0, 0, 0)
        return before + n

    def skip(self, rows: int, n: int) -> None:
        """Notes that behind so many rows n places were empty; what was read with them is put behind."""
        if not n:
            return
        last, before, there = self._holes[-1] if self._holes else (-1, 0, 0)
        if last == rows:
            self._holes[-1] = (last, before, there + n)
        else:
            self._holes.append((rows, before + there, n))

    def row_at(self, place: int) -> tuple[int, bool]:
        """The number of the first row that may have been at this place or behind it, and whether any place
        from there on was empty."""
        empty = False
        for row, before, n in reversed(self._holes):
            if row + before + n <= place:
                return place - before - n, empty
            empty = True
            if row + before <= place:
                return row, True
        return place, empty
