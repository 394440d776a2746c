"""Calls a worker makes for one task at a time, thousands of times: all but their last arguments packed once.

Each method gives the same bytes as the method of ``Scripts`` with all arguments would.
"""

from __future__ import annotations

from ._scripts import MemberArgs, Scripts, variant


class Stems:
    """The calls of one life of a worker under one epoch; ``worker`` is its packed id, ``first`` the same with
    the attempt 1, of which alone these calls tell."""

    __slots__ = ("_begin", "_claim", "_claim_woken", "_finish", "_finish_claim", "_step")

    def __init__(self, scripts: Scripts, member: MemberArgs, worker: bytes, first: bytes) -> None:
        def stem(name: str, more: int, *args: str | bytes | int) -> bytes:
            return scripts.stem(name, (*member[:3], *args), more)

        self._begin = stem("begin", 2, first)
        self._finish = stem(variant("settle", member, failing=False), 2, "f", first)
        self._step = stem(variant("step", member, failing=False), 4, first, "f", first)
        self._claim, self._claim_woken = (stem(variant("claim", member), 1, worker, 1, n) for n in (0, 1))
        self._finish_claim = stem(variant("settle_claim", member, failing=False), 3, worker, 1, "f", first)

    def begin(self, key: bytes, head: bytes) -> bytes:
        """Creates a task running."""
        return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n" % (self._begin, len(key), key, len(head), head)

    def finish(self, key: bytes, payload: bytes) -> bytes:
        """Finishes one."""
        return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n" % (self._finish, len(key), key, len(payload), payload)

    def step(self, key: bytes, payload: bytes, new: bytes, head: bytes) -> bytes:
        """Finishes one and creates the next."""
        return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            *(self._step, len(key), key, len(payload), payload),
            *(len(new), new, len(head), head),
        )

    def claim(self, number: int, *, woken: bool = False) -> bytes:
        """Takes the next."""
        return b"%b$14\r\n%014x\r\n" % (self._claim_woken if woken else self._claim, number)

    def finish_claim(self, key: bytes, payload: bytes, number: int) -> bytes:
        """Finishes one and takes the next."""
        return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$14\r\n%014x\r\n" % (
            *(self._finish_claim, len(key), key, len(payload), payload),
            number,
        )
