"""A recorded training step -> the batch that it was made of, to the last bit: what a restarted learner trains again.

Token ids, masks and rewards are recorded as they were. Log-probabilities are recorded in float32, which is what engines
compute, so that these too come back as they were.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learner.types import TrainBatch
from reward.types import RewardOutcome, RewardResult, ScoredGroup
from rollout.types import Completion, FinishReason, Prompt, RolloutGroup, VersionSpan

COLUMNS = (
    *("group_id", "uid", "index", "epoch", "task", "sample_index", "prompt_text", "question", "completion_text"),
    *("ground_truth", "prompt_token_ids", "token_ids", "rollout_logprobs", "loss_mask", "reward", "rejected"),
    *("components", "outcome", "detail", "correct", "answer", "finish_reason", "version_spans", "attempt", "worker"),
    *("reward_worker", "score_s"),
)


def read_train_batch(path: Path, step: int, policy_version: int) -> TrainBatch:
    """The trained groups of one step's table, in their order. Times of sampling and scoring, and the columns that
    reward functions read, are not recorded there and are empty; training uses none of them.

    Errors: OSError, ValueError or KeyError for a table that cannot be read or has other columns.
    """
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(path, columns=list(COLUMNS)).to_pylist()
    by_group: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if not row["rejected"]:
            by_group.setdefault(row["group_id"], []).append(row)
    if not by_group:
        raise ValueError("it has no group that was trained on")
    return TrainBatch(
        step=step, policy_version=policy_version, groups=tuple(_scored_group(group) for group in by_group.values())
    )


def _scored_group(rows: list[Mapping[str, Any]]) -> ScoredGroup:
    first = rows[0]
    prompt = Prompt(
        uid=first["uid"],
        epoch=first["epoch"],
        index=first["index"],
        token_ids=tuple(first["prompt_token_ids"]),
        text=first["prompt_text"],
        question=first["question"],
        ground_truth=first["ground_truth"],
        task=first["task"],
    )
    group = RolloutGroup(
        prompt=prompt,
        completions=tuple(_completion(row) for row in rows),
        attempt=first["attempt"],
        worker=first["worker"],
        started_s=0.0,
        finished_s=0.0,
    )
    return ScoredGroup(
        group=group,
        rewards=tuple(_result(row) for row in rows),
        worker=first["reward_worker"],
        started_s=0.0,
        finished_s=0.0,
    )


def _completion(row: Mapping[str, Any]) -> Completion:
    return Completion(
        sample_index=row["sample_index"],
        token_ids=tuple(row["token_ids"]),
        logprobs=tuple(row["rollout_logprobs"]),
        loss_mask=tuple(row["loss_mask"]),
        text=row["completion_text"],
        finish_reason=FinishReason(row["finish_reason"]),
        version_spans=tuple(
            VersionSpan(policy_version=version, start=start, end=end)
            for version, start, end in json.loads(row["version_spans"])
        ),
    )


def _result(row: Mapping[str, Any]) -> RewardResult:
    return RewardResult(
        outcome=RewardOutcome(row["outcome"]),
        reward=row["reward"],
        components=json.loads(row["components"]),
        correct=row["correct"],
        detail=row["detail"],
        answer=row["answer"],
        duration_s=row["score_s"],
    )
