"""Which server a network's connections go to, where several belong together."""

from __future__ import annotations


class Whereabouts:
    """Where the links of one network connect to: the node of a cluster that has its keys, once one has
    told."""

    __slots__ = ("moved_to",)

    def __init__(self) -> None:
        self.moved_to: tuple[str, int] | None = None

    def learn(self, trouble: str) -> bool:
        """From ``MOVED slot host:port``, then True. Any other trouble: the node may be gone, so the first one
        is asked again."""
        words = trouble.split()
        if len(words) == 3 and words[0] in ("MOVED", "ASK"):
            host, _, port = words[2].rpartition(":")
            self.moved_to = (host, int(port))
            return True
        self.moved_to = None
        return False
