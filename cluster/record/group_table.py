"""Groups <-> Arrow tables, a row for each completion: the form in which they lie in files.

Arrays go into columns as they are: no token becomes a Python object. The columns are those of `cluster.columns`; a
table of groups that wait in a checkpoint has `WAITING_COLUMNS` besides, so that it comes back whole.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cluster.columns import ROLLOUT_COLUMNS
from cluster.record.append_log import json_line
from learner.types import NO_VALUES, CompletionKey, TokenValues
from reward.types import GroupScores, RewardOutcome, RewardResult, ScoredGroup
from rollout.types import Completion, FinishReason, Prompt, RolloutGroup, SampledGroup, VersionSpan, facts_of

WAITING_COLUMNS = (
    ("row", "string"),
    ("num_nonfinite_logprobs", "int64"),
    ("texts", "string"),
    ("started_s", "float64"),
    ("finished_s", "float64"),
    ("score_started_s", "float64"),
    ("score_finished_s", "float64"),
)
"""What a run that goes on needs of a group, and a reader of rollouts does not. `texts` has, as JSON, those of `_TEXTS`
as they are: a column of text cannot hold every one that a model writes."""
_TEXTS = ("prompt_text", "question", "ground_truth", "completion_text", "detail", "answer", "vote")
MAX_TOKENS_IN_TABLE = 1_000_000
"""A table is built by calls that nothing can interrupt; at this size each takes some milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGroup:
    """A scored group with its completions."""

    scored: ScoredGroup
    group: RolloutGroup
    rejected: str = ""
    """Why it was not trained on; empty where it was, or may be yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One completion with what belongs to it."""

    open: OpenGroup
    completion: Completion
    result: RewardResult
    advantage: float | None
    values: TokenValues


def tables_of(
    step: int,
    groups: Iterable[OpenGroup],
    advantages: Mapping[CompletionKey, float | None] | None = None,
    values: Mapping[CompletionKey, TokenValues] | None = None,
    *,
    waiting: bool = False,
) -> Iterator[Any]:
    """pyarrow tables, groups in their order, some groups in each. A completion without an advantage was not scored or
    not trained on; one without values was not computed. `waiting` adds `WAITING_COLUMNS`."""
    advantages, values = advantages or {}, values or {}
    left = set(values)
    rows: list[_Row] = []
    num_tokens = 0
    for open_group in groups:
        for completion, result in zip(open_group.group.completions, open_group.scored.rewards, strict=True):
            key = (open_group.group.group_id, completion.sample_index)
            row = _Row(
                open=open_group,
                completion=completion,
                result=result,
                advantage=advantages.get(key),
                values=values.get(key, NO_VALUES),
            )
            rows.append(row)
            left.discard(key)
            num_tokens += completion.num_tokens
        if num_tokens >= MAX_TOKENS_IN_TABLE:
            yield _table(step, rows, waiting=waiting)
            rows, num_tokens = [], 0
    assert not left, f"values for completions that are not in the batch: {sorted(left)[:3]}"
    yield _table(step, rows, waiting=waiting)


def schema_of(*, waiting: bool = False) -> Any:
    """The pyarrow schema of `tables_of`."""
    import pyarrow

    columns = (*ROLLOUT_COLUMNS.items(), *WAITING_COLUMNS) if waiting else ROLLOUT_COLUMNS.items()
    return pyarrow.schema([(name, _arrow_type(kind)) for name, kind in columns])


def write_tables(file: BinaryIO, tables: Iterable[Any], *, waiting: bool = False) -> None:
    """The tables as one Parquet file, written as they come."""
    import pyarrow
    import pyarrow.parquet

    schema = schema_of(waiting=waiting)
    lists = [field for field in schema if pyarrow.types.is_list(field.type)]
    scalars = [field.name for field in schema if not pyarrow.types.is_list(field.type)]
    # A dictionary and statistics of numbers that hardly ever repeat took half of the time; the bytes of floats, place
    # by place, are smaller.
    split = {f"{field.name}.list.element": "BYTE_STREAM_SPLIT" for field in lists if field.type.value_type == "float"}
    with pyarrow.parquet.ParquetWriter(
        file, schema, compression="zstd", use_dictionary=scalars, write_statistics=scalars, column_encoding=split
    ) as writer:
        for table in tables:
            writer.write_table(table)


def read_groups(path: Path) -> list[OpenGroup]:
    """The groups of a file, in their order. What the table has no columns for is empty: the columns that reward
    functions read, times, votes.

    Errors: OSError, ValueError or KeyError for a file that cannot be read or has other columns.
    """
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    there = set(file.schema_arrow.names)
    unused = {"policy_logprobs", "ref_logprobs", "entropies", "advantage"}
    names = [name for name, _ in (*ROLLOUT_COLUMNS.items(), *WAITING_COLUMNS) if name in there and name not in unused]
    table = file.read(columns=names).combine_chunks()
    lists = {name: _arrays(table[name]) for name in ("prompt_token_ids", "token_ids", "rollout_logprobs", "loss_mask")}
    plain = table.drop_columns(list(lists)).to_pylist()
    by_group: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(plain):
        whole = {**row, **{name: arrays[number] for name, arrays in lists.items()}}
        if "texts" in row:
            whole |= zip(_TEXTS, json.loads(row["texts"]), strict=True)
        by_group.setdefault(row["group_id"], []).append(whole)
    return [_open_group(rows) for rows in by_group.values()]


def _table(step: int, rows: Sequence[_Row], *, waiting: bool) -> Any:
    import pyarrow

    schema = schema_of(waiting=waiting)
    scalars = [_scalars(step, row) | (_waiting_scalars(row) if waiting else {}) for row in rows]
    lists: dict[str, Sequence[NDArray[Any]]] = {
        "prompt_token_ids": _prompts(rows),
        "token_ids": [row.completion.token_ids for row in rows],
        "rollout_logprobs": [row.completion.logprobs for row in rows],
        "policy_logprobs": [row.values.policy_logprobs for row in rows],
        "ref_logprobs": [row.values.ref_logprobs for row in rows],
        "entropies": [row.values.entropies for row in rows],
        "loss_mask": [row.completion.loss_mask for row in rows],
    }
    columns = [
        _list_column(lists[field.name], field.type)
        if field.name in lists
        else pyarrow.array([scalar[field.name] for scalar in scalars], field.type)
        for field in schema
    ]
    return pyarrow.Table.from_arrays(columns, schema=schema)


def _prompts(rows: Sequence[_Row]) -> list[NDArray[np.int32]]:
    """Once for each group, though each of its rows has it."""
    made: dict[str, NDArray[np.int32]] = {}
    for row in rows:
        prompt = row.open.group.prompt
        if prompt.group_id not in made:
            made[prompt.group_id] = np.array(prompt.token_ids, np.int32)
    return [made[row.open.group.group_id] for row in rows]


def _list_column(arrays: Sequence[NDArray[Any]], kind: Any) -> Any:
    import pyarrow

    offsets = np.zeros(len(arrays) + 1, np.int32)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    flat = np.concatenate(arrays) if arrays else np.zeros(0)
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), pyarrow.array(flat, kind.value_type), type=kind)


def _arrays(column: Any) -> list[NDArray[Any]]:
    """[row] views of a list column."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    offsets = array.offsets.to_numpy()
    flat = array.values.to_numpy(zero_copy_only=False)
    return [flat[start:end] for start, end in pairwise(offsets)]


def _scalars(step: int, row: _Row) -> dict[str, Any]:
    prompt, group, completion, result = row.open.group.prompt, row.open.group, row.completion, row.result
    versions = [span.policy_version for span in completion.version_spans]
    return {
        "step": step,
        "group_id": group.group_id,
        "uid": prompt.uid,
        "index": prompt.index,
        "epoch": prompt.epoch,
        "task": prompt.task,
        "sample_index": completion.sample_index,
        "prompt_text": _utf8(prompt.text),
        "question": _utf8(prompt.question),
        "completion_text": _utf8(completion.text),
        "ground_truth": None if prompt.ground_truth is None else _utf8(prompt.ground_truth),
        "advantage": row.advantage,
        "reward": result.reward,
        "rejected": row.open.rejected,
        "components": json_line(result.components),
        "outcome": str(result.outcome),
        "detail": _utf8(result.detail),
        "correct": result.correct,
        "answer": None if result.answer is None else _utf8(result.answer),
        "finish_reason": str(completion.finish_reason),
        "min_policy_version": min(versions, default=None),
        "max_policy_version": max(versions, default=None),
        "version_spans": json.dumps([[s.policy_version, s.start, s.end] for s in completion.version_spans]),
        "attempt": group.attempt,
        "worker": group.worker,
        "reward_worker": row.open.scored.scores.worker,
        "score_s": result.duration_s,
    }


def _waiting_scalars(row: _Row) -> dict[str, Any]:
    group, scores = row.open.group, row.open.scored.scores
    return {
        "row": json_line(group.prompt.row),
        "num_nonfinite_logprobs": row.completion.num_nonfinite_logprobs,
        "texts": json.dumps(
            (
                group.prompt.text,
                group.prompt.question,
                group.prompt.ground_truth,
                row.completion.text,
                row.result.detail,
                row.result.answer,
                row.result.vote,
            )
        ),
        "started_s": group.started_s,
        "finished_s": group.finished_s,
        "score_started_s": scores.started_s,
        "score_finished_s": scores.finished_s,
    }


def _open_group(rows: list[dict[str, Any]]) -> OpenGroup:
    first = rows[0]
    prompt = Prompt(
        uid=first["uid"],
        epoch=first["epoch"],
        index=first["index"],
        token_ids=tuple(first["prompt_token_ids"].tolist()),
        text=first["prompt_text"],
        question=first["question"],
        ground_truth=first["ground_truth"],
        task=first["task"],
        row=json.loads(first.get("row", "{}")),
    )
    group = RolloutGroup(
        prompt=prompt,
        completions=tuple(_completion(row) for row in rows),
        attempt=first["attempt"],
        worker=first["worker"],
        started_s=first.get("started_s", 0.0),
        finished_s=first.get("finished_s", 0.0),
    )
    scores = GroupScores(
        rewards=tuple(_result(row) for row in rows),
        worker=first["reward_worker"],
        started_s=first.get("score_started_s", 0.0),
        finished_s=first.get("score_finished_s", 0.0),
    )
    sampled = SampledGroup(prompt=prompt, facts=facts_of(group), payload=group)
    return OpenGroup(scored=ScoredGroup(group=sampled, scores=scores), group=group, rejected=first["rejected"])


def _completion(row: Mapping[str, Any]) -> Completion:
    return Completion(
        sample_index=row["sample_index"],
        token_ids=row["token_ids"],
        logprobs=row["rollout_logprobs"],
        loss_mask=row["loss_mask"],
        text=row["completion_text"],
        finish_reason=FinishReason(row["finish_reason"]),
        version_spans=tuple(
            VersionSpan(policy_version=version, start=start, end=end)
            for version, start, end in json.loads(row["version_spans"])
        ),
        num_nonfinite_logprobs=row.get("num_nonfinite_logprobs", 0),
    )


def _result(row: Mapping[str, Any]) -> RewardResult:
    return RewardResult(
        outcome=RewardOutcome(row["outcome"]),
        reward=row["reward"],
        components=json.loads(row["components"]),
        correct=row["correct"],
        detail=row["detail"],
        answer=row["answer"],
        vote=row.get("vote"),
        duration_s=row["score_s"],
    )


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _arrow_type(kind: str) -> Any:
    import pyarrow

    if kind.startswith("list<"):
        return pyarrow.list_(_arrow_type(kind[5:-1]))
    return {
        "int64": pyarrow.int64(),
        "int32": pyarrow.int32(),
        "float64": pyarrow.float64(),
        "float32": pyarrow.float32(),
        "bool": pyarrow.bool_(),
        "string": pyarrow.string(),
    }[kind]
