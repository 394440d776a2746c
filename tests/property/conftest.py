"""The same ground as the tests of the store stand on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import Server
from store.conftest import binary_of, network, no_leaks, session_home, settings

__all__ = ["network", "no_leaks", "session_home", "settings"]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all examples."""
    server = Server(binary_of("valkey"))
    yield server
    server.close()
