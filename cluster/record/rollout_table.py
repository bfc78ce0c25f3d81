"""Scored groups -> one Parquet table: a row for each completion, with everything that its training used.

The columns stand in `cluster/columns.py`.
"""

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from cluster.columns import ROLLOUT_COLUMNS
from cluster.record.append_log import json_line
from learner.types import SequenceOutput
from reward.types import RewardResult, ScoredGroup
from rollout.types import Completion


def rollout_rows(
    step: int,
    groups: Sequence[ScoredGroup],
    outputs: Sequence[SequenceOutput],
    rejected: Sequence[tuple[ScoredGroup, str]] = (),
) -> Iterator[dict[str, Any]]:
    """A row for each completion, groups in their order, then those that were rejected, each with its reason. A
    completion without an output was not trained on: its advantage is null and its learner's log-probabilities are
    empty."""
    by_key = {(output.group_id, output.sample_index): output for output in outputs}
    assert len(by_key) == len(outputs), "two outputs for one completion"
    for scored, reason in [*((scored, "") for scored in groups), *rejected]:
        for completion, result in zip(scored.group.completions, scored.rewards, strict=True):
            output = by_key.pop((scored.group_id, completion.sample_index), None)
            yield {**_row(step, scored, completion, result, output), "rejected": reason}
    assert not by_key, f"outputs for completions that are not in the batch: {sorted(by_key)[:3]}"


def parquet_bytes(rows: Sequence[dict[str, Any]]) -> bytes:
    """The rows as a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, _arrow_type(kind)) for name, kind in ROLLOUT_COLUMNS.items()])
    table = pyarrow.Table.from_pylist(list(rows), schema=schema)
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _row(
    step: int, scored: ScoredGroup, completion: Completion, result: RewardResult, output: SequenceOutput | None
) -> dict[str, Any]:
    prompt, group = scored.group.prompt, scored.group
    versions = [span.policy_version for span in completion.version_spans]
    return {
        "step": step,
        "group_id": scored.group_id,
        "uid": prompt.uid,
        "index": prompt.index,
        "epoch": prompt.epoch,
        "task": prompt.task,
        "sample_index": completion.sample_index,
        "prompt_text": _utf8(prompt.text),
        "question": _utf8(prompt.question),
        "completion_text": _utf8(completion.text),
        "ground_truth": None if prompt.ground_truth is None else _utf8(prompt.ground_truth),
        "prompt_token_ids": prompt.token_ids,
        "token_ids": completion.token_ids,
        "rollout_logprobs": completion.logprobs,
        "policy_logprobs": output.policy_logprobs if output is not None else (),
        "ref_logprobs": output.ref_logprobs if output is not None else (),
        "entropies": output.entropies if output is not None else (),
        "loss_mask": completion.loss_mask,
        "advantage": output.advantage if output is not None else None,
        "reward": result.reward,
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
        "reward_worker": scored.worker,
        "score_s": result.duration_s,
    }


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
