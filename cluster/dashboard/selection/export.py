"""A filtered selection of a run's rollouts as a file: `shoal rollouts RUN -o FILE`, and the page's download."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cluster.dashboard.selection.columns import JSON_COLUMNS, exported_columns
from cluster.dashboard.selection.completions import SelectionError, read_completions
from cluster.dashboard.selection.training_pairs import (
    PAIR_COLUMNS,
    Shape,
    best_and_worst,
    dpo_records,
    pair_columns,
    sft_records,
    turns_of,
)
from cluster.dashboard.selection.writers import Format, write_records

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is exported, and how."""

    filter: str = ""
    """In the filter language; empty is everything."""
    shape: Shape = "rollouts"
    format: Format = "jsonl"
    tokens: bool = False
    """With the columns that have a value for each token; of the shape rollouts alone."""


class Counted(Generic[T]):
    """An iterator that knows how many it gave."""

    def __init__(self, values: Iterator[T]) -> None:
        self._values = values
        self.num = 0

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        value = next(self._values)
        self.num += 1
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A file that is written while it is taken."""

    parts: Iterator[bytes]
    num_rollouts: int
    """Completions that pass the filter."""
    num_truncated: int
    """Of these, cut off at the limit of tokens."""
    records: Counted[Any]
    """How many were written so far."""


def open_export(store: "RunStore", asked: Asked) -> Export:
    """Everything that can be wrong with the question is said here, before the first byte.

    Raises FilterError, SelectionError; while the parts are taken, SelectionChangedError.
    """
    if asked.tokens and asked.shape != "rollouts":
        raise SelectionError(f"the shape {asked.shape} is text alone; leave out the tokens, or export as rollouts")
    ids = store.select(asked.filter)
    if not ids:
        raise SelectionError(
            f"no rollout passes the filter {asked.filter!r}" if asked.filter.strip() else "the run has no rollouts yet"
        )
    if asked.shape == "rollouts":
        columns = exported_columns(tokens=asked.tokens)
        parts = read_completions(store, ids, tuple(columns))
        records: Iterator[Any] = (values for part in parts for _, values in part)
        if asked.format == "jsonl":
            records = map(_with_json, records)
    else:
        columns = pair_columns(asked.shape)
        turns = None if asked.shape.endswith("-text") else turns_of(store.config())
        if asked.shape.startswith("sft"):
            records = sft_records(read_completions(store, ids, PAIR_COLUMNS), turns)
        else:
            records = dpo_records(read_completions(store, ids, PAIR_COLUMNS, best_and_worst), turns)
    first = next(records, None)
    if first is None:
        raise SelectionError("no group has two selected completions with different rewards, so that there is no pair")
    counted = Counted(itertools.chain([first], records))
    return Export(
        parts=write_records(counted, columns, asked.format),
        num_rollouts=len(ids),
        num_truncated=len({*ids}.intersection(store.select("truncated"))),
        records=counted,
    )


def _with_json(record: Mapping[str, Any]) -> dict[str, Any]:
    """Values that are JSON in the run's tables, as values; what is none stays text."""
    return {**record, **{name: _parsed(record[name]) for name in JSON_COLUMNS}}


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text
