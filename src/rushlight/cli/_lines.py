"""One record of the network's log as text or as an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rushlight._logs import format_entry

from ._progress import Record


def log_record(worker_id: str, entry: Mapping[str, Any]) -> Record:
    """An entry as it is stored, under the names ``Rush.read_log`` gives its columns."""
    return {
        "worker_id": worker_id,
        "level": entry["level"],
        "timestamp": entry["t"],
        "logger": entry["logger"],
        "caller": entry["caller"],
        "msg": entry["msg"],
    }


def log_line(record: Record) -> str:
    """A record in one line: worker, time, level, logger, message."""
    return format_entry(record["worker_id"], {**record, "t": record["timestamp"]})
