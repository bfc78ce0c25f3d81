"""Where in the index the completions are that somebody annotated."""

import sqlite3
from collections.abc import Sequence

from cluster.dashboard.files.annotations import Address
from cluster.dashboard.index.schema import FILE_SHIFT

_MASK = (1 << FILE_SHIFT) - 1


def row_ids(connection: sqlite3.Connection, addresses: Sequence[Address]) -> list[int]:
    """Ids in the table `rows`; those that a resume took back are left out."""
    found: list[int] = []
    for phase, step, group_id, sample_index in addresses:
        group = connection.execute(
            "select id from groups where group_id = ? and phase = ? and step = ?", (group_id, phase, step)
        ).fetchone()
        if group is None:
            continue
        first = group[0] >> FILE_SHIFT << FILE_SHIFT
        rows = connection.execute(
            "select id from rows where id >= ? and id < ? and grp = ? and sample_index = ?",
            (first, first + _MASK + 1, group[0] & _MASK, sample_index),
        )
        found += [id_ for (id_,) in rows]
    return found
