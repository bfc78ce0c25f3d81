"""Groups <-> Arrow tables, a row for each completion: the form in which they lie in files.

Arrays go into columns as they are: no token becomes a Python object. The columns are those of `cluster.columns`; a
table of groups that wait in a checkpoint has `WAITING_COLUMNS` besides, so that it comes back whole.
"""

import dataclasses
import io
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
from cluster.record.episode_text import episode_of, episode_text
from learner.types import NO_VALUES, CompletionKey, TokenValues
from reward.types import GroupScores, RewardOutcome, RewardResult, ScoredGroup, ServerCost, StepReward
from rollout.types import Completion, FinishReason, Prompt, RolloutGroup, SampledGroup, VersionSpan, facts_of

WAITING_COLUMNS = (
    ("row", "string"),
    ("num_nonfinite_logprobs", "int64"),
    ("texts", "string"),
    ("started_s", "float64"),
    ("finished_s", "float64"),
    ("score_started_s", "float64"),
    ("score_finished_s", "float64"),
    ("cost", "string"),
)
"""What a run that goes on needs of a group, and a reader of rollouts does not. `texts` has, as JSON, those of `_TEXTS`
as they are: a column of text cannot hold every one that a model writes."""
_TEXTS = ("prompt_text", "question", "ground_truth", "completion_text", "detail", "answer", "vote")
_LISTS = (
    "prompt_token_ids",
    "teacher_prompt_token_ids",
    "token_ids",
    "rollout_logprobs",
    "loss_mask",
    "teacher_logprobs",
)
"""Columns of arrays that a group is made of."""
MAX_TOKENS_IN_TABLE = 1_000_000
"""A table is built by calls that nothing can interrupt; at this size each takes some milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGroup:
    """A scored group with its completions."""

    scored: ScoredGroup
    group: RolloutGroup
    rejected: str = ""
    """Why it was not trained on; empty where it was, or may be yet."""


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
    left = set(values or ())
    part: list[OpenGroup] = []
    num_tokens = 0
    for open_group in groups:
        part.append(open_group)
        left.difference_update(_keys(open_group))
        num_tokens += open_group.scored.group.facts.num_tokens
        if num_tokens >= MAX_TOKENS_IN_TABLE:
            yield _table(step, part, advantages or {}, values or {}, waiting=waiting)
            part, num_tokens = [], 0
    assert not left, f"values for completions that are not in the batch: {sorted(left)[:3]}"
    yield _table(step, part, advantages or {}, values or {}, waiting=waiting)


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
    options: dict[str, Any] = {"use_dictionary": scalars, "write_statistics": scalars, "column_encoding": split}
    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd", **options) as writer:
        for table in tables:
            writer.write_table(table)


def load_libraries() -> None:
    """Imports what writing a table needs, and pandas, which pyarrow asks for at its first list: within a run that would
    be half a second in which the loop gets the interpreter's lock only now and then."""
    import pyarrow

    write_tables(io.BytesIO(), [])
    pyarrow.array([""])


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
    lists = {name: _arrays(table[name]) for name in _LISTS if name in names}
    plain = table.drop_columns(list(lists)).to_pylist()
    by_group: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(plain):
        whole = {**row, **{name: arrays[number] for name, arrays in lists.items()}}
        if "texts" in row:
            whole |= zip(_TEXTS, json.loads(row["texts"]), strict=True)
        by_group.setdefault(row["group_id"], []).append(whole)
    return [_open_group(rows) for rows in by_group.values()]


def _table(
    step: int,
    groups: Sequence[OpenGroup],
    advantages: Mapping[CompletionKey, float | None],
    values: Mapping[CompletionKey, TokenValues],
    *,
    waiting: bool,
) -> Any:
    import pyarrow

    columns: dict[str, list[Any]] = {field.name: [] for field in schema_of(waiting=waiting)}
    for of in groups:
        num_completions = len(of.group.completions)
        for name, value in (_of_group(step, of) | (_waiting_of_group(of) if waiting else {})).items():
            columns[name] += [value] * num_completions
        keys = _keys(of)
        of_each = [*_of_completions(of), ("advantage", [advantages.get(key) for key in keys])]
        of_each += _token_columns(of, [values.get(key, NO_VALUES) for key in keys])
        if waiting:
            of_each += _waiting_of_completions(of)
        for name, each in of_each:
            columns[name] += each
    schema = schema_of(waiting=waiting)
    arrays = [
        _list_column(columns[field.name], field.type)
        if pyarrow.types.is_list(field.type)
        else pyarrow.array(columns[field.name], field.type)
        for field in schema
    ]
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def _keys(of: OpenGroup) -> list[CompletionKey]:
    group_id = of.group.group_id
    return [(group_id, completion.sample_index) for completion in of.group.completions]


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


def _of_group(step: int, of: OpenGroup) -> dict[str, Any]:
    """What is the same in each row of a group."""
    prompt, group = of.group.prompt, of.group
    return {
        "step": step,
        "group_id": group.group_id,
        "uid": prompt.uid,
        "index": prompt.index,
        "epoch": prompt.epoch,
        "task": prompt.task,
        "prompt_text": _utf8(prompt.text),
        "question": _utf8(prompt.question),
        "ground_truth": None if prompt.ground_truth is None else _utf8(prompt.ground_truth),
        "prompt_token_ids": np.array(prompt.token_ids, np.int32),
        "teacher_prompt_token_ids": np.array(prompt.teacher_token_ids, np.int32),
        "teacher": prompt.teacher,
        "rejected": of.rejected,
        "attempt": group.attempt,
        "worker": group.worker,
        "reward_worker": of.scored.scores.worker,
    }


def _of_completions(of: OpenGroup) -> list[tuple[str, list[Any]]]:
    """(column, a value for each row) of a group."""
    completions, results, facts = of.group.completions, of.scored.rewards, of.scored.group.facts
    return [
        ("sample_index", [completion.sample_index for completion in completions]),
        ("completion_text", [_utf8(completion.text) for completion in completions]),
        ("finish_reason", [completion.finish_reason.value for completion in completions]),
        ("min_policy_version", list(facts.min_versions_G)),
        ("max_policy_version", list(facts.max_versions_G)),
        ("version_spans", [_spans_text(completion) for completion in completions]),
        ("episode", [episode_text(completion.episode) for completion in completions]),
        ("reward", [result.reward for result in results]),
        ("steps", [_steps_text(result) for result in results]),
        ("components", [json_line(result.components) for result in results]),
        ("outcome", [result.outcome.value for result in results]),
        ("detail", [_utf8(result.detail) for result in results]),
        ("verdicts", [json_line(result.verdicts) if result.verdicts else None for result in results]),
        ("correct", [result.correct for result in results]),
        ("answer", [None if result.answer is None else _utf8(result.answer) for result in results]),
        ("score_s", [result.duration_s for result in results]),
    ]


def _token_columns(of: OpenGroup, values: Sequence[TokenValues]) -> list[tuple[str, list[Any]]]:
    """As `_of_completions`, of arrays."""
    completions = of.group.completions
    return [
        ("token_ids", [completion.token_ids for completion in completions]),
        ("rollout_logprobs", [completion.logprobs for completion in completions]),
        ("loss_mask", [completion.loss_mask for completion in completions]),
        ("policy_logprobs", [value.policy_logprobs for value in values]),
        ("ref_logprobs", [value.ref_logprobs for value in values]),
        ("entropies", [value.entropies for value in values]),
        ("teacher_logprobs", [completion.teacher_logprobs for completion in completions]),
    ]


def _waiting_of_group(of: OpenGroup) -> dict[str, Any]:
    scores = of.scored.scores
    return {
        "row": json_line(of.group.prompt.row),
        "started_s": of.group.started_s,
        "finished_s": of.group.finished_s,
        "score_started_s": scores.started_s,
        "score_finished_s": scores.finished_s,
        "cost": None if scores.cost is None else json_line(dataclasses.asdict(scores.cost)),
    }


def _waiting_of_completions(of: OpenGroup) -> list[tuple[str, list[Any]]]:
    prompt = of.group.prompt
    texts = [
        (prompt.text, prompt.question, prompt.ground_truth, completion.text, result.detail, result.answer, result.vote)
        for completion, result in zip(of.group.completions, of.scored.rewards, strict=True)
    ]
    return [
        ("num_nonfinite_logprobs", [completion.num_nonfinite_logprobs for completion in of.group.completions]),
        ("texts", [json.dumps(of_one) for of_one in texts]),
    ]


def _spans_text(completion: Completion) -> str:
    spans = [f"[{span.policy_version}, {span.start}, {span.end}]" for span in completion.version_spans]
    return f"[{', '.join(spans)}]"


def _steps_text(result: RewardResult) -> str:
    return json.dumps(None if result.steps is None else [[step.end, step.reward] for step in result.steps])


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
        teacher_token_ids=tuple(int(token) for token in first.get("teacher_prompt_token_ids", ())),
        teacher=first.get("teacher") or "",
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
        cost=None if first.get("cost") is None else ServerCost(**json.loads(first["cost"])),
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
        episode=episode_of(row.get("episode")),
        teacher_logprobs=row.get("teacher_logprobs", ()),
    )


def _result(row: Mapping[str, Any]) -> RewardResult:
    steps = json.loads(row.get("steps") or "null")
    return RewardResult(
        outcome=RewardOutcome(row["outcome"]),
        reward=row["reward"],
        components=json.loads(row["components"]),
        correct=row["correct"],
        detail=row["detail"],
        answer=row["answer"],
        vote=row.get("vote"),
        duration_s=row["score_s"],
        verdicts=json.loads(row.get("verdicts") or "{}"),
        steps=None if steps is None else tuple(StepReward(end=end, reward=reward) for end, reward in steps),
    )


def _utf8(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


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
