"""Values that were stored apart, put into the columns of a table that has them.

Each is asked for once, all of a table in one call. Never talks to a server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ._blocks import Block, Column, Schema, settle
from ._codec import Spilled
from ._columns import SPILLED

#: Reads values stored apart, in order.
Resolve = Callable[[list[Spilled]], list[Any]]


def load(blocks: Sequence[Block], fields: set[str] | None, schema: Schema, resolve: Resolve | None) -> None:
    """Put values stored apart in their places, in the columns a table has; one call of ``resolve``."""
    wanted: list[tuple[Block, Column, list[Any]]] = []
    for block in blocks:
        if not block.spilled:
            continue
        for column, kind in block.kinds.items():
            if kind == SPILLED and (fields is None or schema.names[column] in fields):
                wanted.append((block, column, block.values(column)))
    references = [v for _, _, values in wanted for v in values if type(v) is Spilled]
    found = resolved(references, resolve)
    for block, column, values in wanted:
        settle(block, column, [found.get(v) if type(v) is Spilled else v for v in values])


def resolved(references: Sequence[Spilled], resolve: Resolve | None) -> dict[Spilled, Any]:
    """The value of each reference; each is asked for once. Without a reader it stands for itself."""
    distinct = list(dict.fromkeys(references))
    values: Sequence[Any] = distinct if resolve is None else resolve(distinct) if distinct else []
    return dict(zip(distinct, values, strict=True))


def with_values(row: Sequence[Any], found: Mapping[Spilled, Any]) -> Sequence[Any]:
    """The row with the values in the place of their references; the row itself stays as it is."""
    if not found:
        return row
    return [
        {name: found[v] if type(v) is Spilled else v for name, v in part.items()}
        if isinstance(part, dict)
        else part
        for part in row
    ]
