"""Reads completions in full from a rollouts file: those of one group, in parts that fit into memory."""

import bisect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from cluster.dashboard.files.arrow_arrays import arrow_types, indices
from cluster.dashboard.files.rollout_file import UnreadableRolloutsError, scalar_columns
from cluster.dashboard.files.sampled_tokens import read_episodes
from cluster.dashboard.files.tail import open_inside
from cluster.dashboard.records import RolloutRecord, RolloutRow

_PART_BYTES = 16 << 20
_TYPES = arrow_types(
    *("task", "prompt_text", "question", "ground_truth", "completion_text", "detail", "reward_worker"),
    *("version_spans", "group_id", "sample_index", "attempt", "score_s", "prompt_token_ids", "token_ids"),
    *("rollout_logprobs", "policy_logprobs", "ref_logprobs", "entropies", "loss_mask", "episode"),
)


PlacedValues = tuple[int, dict[str, Any]]
"""A place in a file, and the values of its row by column."""


def read_records(path: Path, rows: Sequence[RolloutRow], places: Sequence[int]) -> list[RolloutRecord]:
    """The completions that stand at `places` of the file, as `rows` has them in the index. Empty when the file is gone
    or has others there by now: it was replaced, and the index follows with its next refresh."""
    try:
        with open_inside(path) as source, pyarrow.parquet.ParquetFile(source, pre_buffer=False) as file:
            found = {place: values for part in _parts(file, places, _TYPES) for place, values in part}
    except (OSError, pyarrow.ArrowException, ValueError, TypeError, KeyError):
        # What pyarrow raises for a file that is being written or is no Parquet any more.
        return []
    records = []
    for row, place in zip(rows, places, strict=True):
        values = found.get(place)
        if values is None or (values["group_id"] or "", values["sample_index"] or 0) != (
            row.group_id,
            row.sample_index,
        ):
            return []
        records.append(_record(row, values))
    return records


def read_parts(path: Path, places: Sequence[int], types: dict[str, Any]) -> Iterator[list[PlacedValues]]:
    """What stands at `places` of the file, some rows at a time, in order of the file; null for a column that it lacks.
    Raises UnreadableRolloutsError for what is no whole table (any more)."""
    try:
        with open_inside(path) as source, pyarrow.parquet.ParquetFile(source, pre_buffer=False) as file:
            yield from _parts(file, places, types)
    except OSError as error:
        raise UnreadableRolloutsError(f"cannot be read: {error.strerror or error}") from error
    except (pyarrow.ArrowException, ValueError, TypeError, KeyError) as error:
        raise UnreadableRolloutsError(f"is no whole table of rollouts: {error}") from error


def _parts(file: Any, places: Sequence[int], types: dict[str, Any]) -> Iterator[list[PlacedValues]]:
    present = set(file.schema_arrow.names)
    metadata = file.metadata
    total = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    rows = max(1, min(4096, _PART_BYTES * max(1, metadata.num_rows) // max(1, 2 * total)))
    wanted = sorted(set(places))
    first = 0
    columns = [name for name in types if name in present]
    for batch in file.iter_batches(batch_size=rows, columns=columns, use_threads=False):
        start, stop = (bisect.bisect_left(wanted, at) for at in (first, first + batch.num_rows))
        here = [place - first for place in wanted[start:stop]]
        if here:
            part = pyarrow.Table.from_batches([batch]).take(indices(here))
            values = {name: column.to_pylist() for name, column in scalar_columns(part, types).items()}
            records = (dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
            yield list(zip(wanted[start:stop], records, strict=True))
        first += batch.num_rows
        if first > wanted[-1]:
            break


def _record(row: RolloutRow, values: dict[str, Any]) -> RolloutRecord:
    return RolloutRecord(
        row=row,
        task=values["task"] or "",
        prompt_text=values["prompt_text"] or "",
        question=values["question"] or "",
        ground_truth=values["ground_truth"],
        text=values["completion_text"] or "",
        detail=values["detail"] or "",
        attempt=values["attempt"] or 0,
        reward_worker=values["reward_worker"] or "",
        score_s=values["score_s"] or 0.0,
        prompt_token_ids=values["prompt_token_ids"] or (),
        token_ids=values["token_ids"] or (),
        rollout_logprobs=values["rollout_logprobs"] or (),
        policy_logprobs=values["policy_logprobs"] or (),
        ref_logprobs=values["ref_logprobs"] or (),
        entropies=values["entropies"] or (),
        loss_mask=values["loss_mask"] or (),
        episode=read_episodes([values["episode"]])[0],
        version_spans=_version_spans(values["version_spans"]),
    )


def _version_spans(text: str | None) -> tuple[tuple[int, int, int], ...]:
    try:
        spans = json.loads(text) if text else []
        return tuple((int(version), int(start), int(end)) for version, start, end in spans)
    except (ValueError, TypeError, RecursionError):
        return ()
