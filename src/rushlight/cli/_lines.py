"""One record of the network's log as text or as an object."""

from __future__ import annotations

from rushlight._logs import format_entry

from ._progress import Record


def log_line(record: Record) -> str:
    """A record in one line: worker, time, level, logger, message."""
    return format_entry(record["worker_id"], {**record, "t": record["timestamp"]})
