"""How a socket waits for an answer: adaptively, or asleep."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from rushlight import Rush, plan
from rushlight._connect import StoreConfig
from rushlight._sockets import adaptive, set_timeout
from rushlight.errors import ConfigError


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one line."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


class Server:
    """The other end, which answers once it has been let run so many times, and counts how often it was."""

    def __init__(self, end: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self._end = end
        self.turns = self.answer_at = 0
        monkeypatch.setattr(os, "sched_yield", self._run)

    def _run(self) -> None:
        self.turns += 1
        if self.turns == self.answer_at:
            self._end.send(b"answer")

    def answer_after(self, turns: int) -> None:
        self.turns, self.answer_at = 0, turns
        if turns == 0:
            self._end.send(b"answer")


def test_an_answer_that_comes_soon_is_met_awake(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lets others run between its looks, and no more often than it takes."""
    server = Server(pair[1], monkeypatch)
    receive = adaptive(pair[0])
    for turns in (0, 1, 7, 99):
        server.answer_after(turns)
        assert b"answer" == receive()
        assert turns == server.turns


def test_looking_in_vain_becomes_rare(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that take long are slept for; now and then it looks again, and goes on where that pays."""
    server = Server(pair[1], monkeypatch)
    receive = adaptive(pair[0])
    looks = []
    for expected in (100, 50, 25, 12, 6, 3, 1):
        server.answer_after(expected)  # when it has looked for the last time
        assert b"answer" == receive()
        looks.append(server.turns)
    assert [100, 50, 25, 12, 6, 3, 1] == looks
    for _ in range(43):
        server.answer_after(0)
        assert b"answer" == receive()
        assert 0 == server.turns
    server.answer_after(99)
    assert b"answer" == receive()
    assert 99 == server.turns


def test_an_end_is_told(pair: tuple[socket.socket, socket.socket]) -> None:
    """A line that was closed gives nothing, as a plain one does."""
    receive = adaptive(pair[0])
    pair[1].close()
    assert b"" == receive()


def test_silence_has_an_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """The timeout of the socket holds."""
    set_timeout(pair[0], 0.05)
    with pytest.raises(BlockingIOError):
        adaptive(pair[0])()


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, server: object) -> None:
    """By a plan, or by the variable ``RUSHLIGHT_WAIT``; anything else it may say is an error."""
    assert StoreConfig.find().adaptive
    monkeypatch.setenv("RUSHLIGHT_WAIT", "block")
    assert not StoreConfig.find().adaptive
    with plan(adaptive_waiting=True), Rush("waiting") as rush:
        assert rush._store.config.adaptive
    monkeypatch.setenv("RUSHLIGHT_WAIT", "never")
    with pytest.raises(ConfigError, match="RUSHLIGHT_WAIT='never'"):
        StoreConfig.find()
