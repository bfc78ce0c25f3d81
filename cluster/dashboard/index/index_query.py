"""Filters and sorts the columns of the index."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.dashboard.files.annotations import Address, Annotation
from cluster.dashboard.index.annotated_rows import row_ids
from cluster.dashboard.index.columns import Columns, Mask, Read, TextSearch
from cluster.dashboard.index.filter_tree import And, Between, Compare, Flag, Node, Not, Or
from rollout.types import FinishReason

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}
_BEHIND = 1 << 30
"""More than any step: what it is added to comes behind all others."""
_NUMBER_COLUMNS = {"sample_index": "sample"}
_GROUP_COLUMNS = ("group_id", "uid", "worker", "truth", "question")
_NOTED = ("label", "note")
_WORD_COLUMNS = ("outcome", "finish", "answer", "episode_outcome")


class Evaluator:
    """A filter's tree -> the rows that pass, on one state of the index.

    A comparison with what is absent is false; `!=`, `!~` and `!` are the exact opposites of `=`, `~` and nothing.
    """

    def __init__(
        self, columns: Columns, read: Read, search: TextSearch, noted: Mapping[Address, Annotation] | None = None
    ) -> None:
        self._columns = columns
        self._read = read
        self._search = search
        self._noted = noted or {}

    def rows(self, node: Node | None) -> NDArray[np.int64]:
        """Places of the rows that pass, in order of dispatch."""
        if node is None:
            return np.arange(self._columns.size)
        return np.flatnonzero(self._mask(node))

    def order(self, places: NDArray[np.int64], field: str, *, descending: bool) -> NDArray[np.int64]:
        """The places sorted; equal ones in order of dispatch, absent ones at the end."""
        if not field:
            return places[::-1] if descending else places
        key, absent = self._sort_key(field, places, descending=descending)
        key = _ordered_bits(key)
        if descending:
            key = ~key
        key[absent] = np.iinfo(np.uint32).max
        # Key and number in one integer: sorting those is six times faster than a stable argsort, and as stable.
        packed = (key.astype(np.uint64) << np.uint64(32)) | np.arange(len(places), dtype=np.uint64)
        packed.sort()
        return places[(packed & np.uint64(0xFFFFFFFF)).astype(np.int64)]

    def _mask(self, node: Node) -> Mask:
        match node:
            case And(parts):
                return self._combine(parts, np.logical_and)
            case Or(parts):
                return self._combine(parts, np.logical_or)
            case Not(part):
                return ~self._mask(part)
            case Flag(field):
                return self._flag(field)
            case Between(field, low, high):
                values = self._number(field)
                return (values >= low) & (values <= high)
            case Compare():
                return self._compare(node)

    def _combine(self, parts: Sequence[Node], join: Callable[[Mask, Mask], Mask]) -> Mask:
        mask = self._mask(parts[0])
        for part in parts[1:]:
            mask = join(mask, self._mask(part))
        return mask

    def _flag(self, field: str) -> Mask:
        if field == "truncated":
            return self._compare(Compare("finish", "=", FinishReason.LENGTH))
        if field == "bookmarked":
            return self._annotated(lambda noted: noted.bookmarked)
        if field == "trained":
            trained: Mask = ~np.isnan(self._columns.column("advantage"))
            return trained
        flags: Mask = self._columns.column(field) == 1
        return flags

    def _compare(self, node: Compare) -> Mask:
        if node.operator == "!=":
            return ~self._compare(Compare(node.field, "=", node.value))
        if node.operator == "!~":
            return ~self._compare(Compare(node.field, "~", node.value))
        if node.field == "text":
            # A completion is never absent, only empty.
            return self._search.rows(self._columns, str(node.value))
        if node.field in _NOTED:
            return self._note(node)
        if node.field == "phase":
            return self._phase(node)
        if node.field in _GROUP_COLUMNS:
            return self._group_text(node)
        if node.field in _WORD_COLUMNS:
            return self._word(node)
        values = self._number(node.field)
        if node.value is None:
            absent: Mask = np.isnan(values)
            return absent
        found: Mask = _OPERATORS[node.operator](values, node.value)
        return found

    def _number(self, field: str) -> NDArray[Any]:
        return self._columns.column(_NUMBER_COLUMNS.get(field, field))

    def _phase(self, node: Compare) -> Mask:
        wanted = [
            node.value is not None and (name == node.value if node.operator == "=" else str(node.value) in name)
            for name in ("eval", "train")
        ]
        rows: Mask = np.array(wanted)[self._columns.column("phase")]
        return rows

    def _group_text(self, node: Compare) -> Mask:
        condition, parameters = _text_condition(node.field, node)
        with self._read() as connection:
            found = connection.execute(f"select id from groups where {condition}", parameters).fetchall()
        return self._columns.group_column([id_ for (id_,) in found])

    def _note(self, node: Compare) -> Mask:
        def text(noted: Annotation) -> str | None:
            return noted.label if node.field == "label" else noted.note

        if node.value is None:
            return ~self._annotated(lambda noted: text(noted) is not None)
        wanted = str(node.value)
        if node.operator == "=":
            return self._annotated(lambda noted: text(noted) == wanted)
        return self._annotated(lambda noted: wanted.lower() in (text(noted) or "").lower())

    def _annotated(self, passes: Callable[[Annotation], bool]) -> Mask:
        """Rows of the annotated completions that pass."""
        addresses = [address for address, noted in self._noted.items() if passes(noted)]
        mask = np.zeros(self._columns.size, dtype=bool)
        with self._read() as connection:
            mask[self._columns.places(row_ids(connection, addresses))] = True
        return mask

    def _word(self, node: Compare) -> Mask:
        codes = self._columns.column(node.field)
        if node.value is None:
            return codes < 0
        with self._read() as connection:
            condition, parameters = _text_condition("value", node)
            found = connection.execute(f"select id from words where {condition}", parameters)
            return np.isin(codes, np.array([id_ for (id_,) in found], dtype=np.int32))

    def _sort_key(self, field: str, places: NDArray[np.int64], *, descending: bool) -> tuple[NDArray[Any], Mask]:
        """(key of each place, which are absent)"""
        if field in _GROUP_COLUMNS:
            with self._read() as connection:
                ranked = connection.execute(
                    f"select id, case when {field} is null then -1 else dense_rank() over (order by {field}) end"
                    " from groups"
                ).fetchall()
            ranks = self._columns.group_ranks([id_ for id_, _ in ranked], [rank for _, rank in ranked])[places]
            return ranks, ranks < 0
        if field in _WORD_COLUMNS:
            return self._word_rank(field, places)
        values = self._number(field)[places]
        if field == "step":
            # Training first, whichever way: an evaluation of 24 questions would stand before the newest step.
            last = np.int32(-_BEHIND if descending else _BEHIND)
            values = np.where(self._columns.column("phase")[places] == 1, values, values + last)
        if values.dtype.kind != "f":
            return values.astype(np.int32), np.zeros(len(values), dtype=bool)
        return values, np.isnan(values)

    def _word_rank(self, field: str, places: NDArray[np.int64]) -> tuple[NDArray[Any], Mask]:
        codes = self._columns.column(field)[places]
        with self._read() as connection:
            ids = [id_ for (id_,) in connection.execute("select id from words order by value")]
        rank = np.zeros(max(ids, default=0) + 2, dtype=np.int32)
        rank[ids] = np.arange(len(ids))
        known = np.where(codes < len(rank), codes, -1)
        return rank[known], codes < 0


def _ordered_bits(key: NDArray[Any]) -> NDArray[np.uint32]:
    """float32 or int32 -> unsigned integers in the same order."""
    bits = key.view(np.uint32)
    if key.dtype.kind == "i":
        return bits ^ np.uint32(0x80000000)
    # -0.0 and 0.0 are equal; negative floats have their order reversed.
    bits = (key + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))


def _text_condition(column: str, node: Compare) -> tuple[str, tuple[str, ...]]:
    """Condition on a column of ours, its parameter bound; A-Z and a-z are the same for `~`."""
    if node.value is None:
        return f"{column} is null", ()
    value = str(node.value).encode("utf-8", "backslashreplace").decode("utf-8")
    if node.operator == "=":
        return f"{column} = ?", (value,)
    return f"instr(lower({column}), lower(?)) > 0", (value,)
