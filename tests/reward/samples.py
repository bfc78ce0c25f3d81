"""Groups and completions for the tests of rewards."""

import os
from pathlib import Path

import numpy as np
import pytest

from reward.types import RewardInput
from rollout.types import Completion, FinishReason, Prompt, RolloutGroup, VersionSpan, read_only


def item(completion: str, ground_truth: str | None = "1", num_tokens: int = 1, **fields: object) -> RewardInput:
    values = {"question": "q", "prompt": "q", "token_ids": read_only(range(num_tokens), np.int32), **fields}
    return RewardInput(completion=completion, ground_truth=ground_truth, **values)  # type: ignore[arg-type]


def prompt(ground_truth: str | None = "1", row: dict[str, object] | None = None, task: str = "t") -> Prompt:
    return Prompt(
        uid="0" * 16,
        epoch=0,
        index=3,
        token_ids=(1,),
        text="q",
        question="q",
        ground_truth=ground_truth,
        task=task,
        row=row or {},
    )


def group(
    texts: list[str], ground_truth: str | None = "1", row: dict[str, object] | None = None, task: str = "t"
) -> RolloutGroup:
    return RolloutGroup(
        prompt=prompt(ground_truth, row, task),
        completions=tuple(_completion(index, text) for index, text in enumerate(texts)),
        attempt=1,
        worker="sampler-0",
        started_s=0.0,
        finished_s=1.0,
    )


def _completion(index: int, text: str) -> Completion:
    return Completion(
        sample_index=index,
        token_ids=read_only((5,), np.int32),
        logprobs=read_only((-0.5,), np.float32),
        loss_mask=read_only((True,), np.bool_),
        text=text,
        finish_reason=FinishReason.STOP,
        version_spans=(VersionSpan(policy_version=0, start=0, end=1),),
    )


def gsm8k_file(split: str) -> Path:
    """The rows of GSM8K, or a skip that says where they were looked for."""
    folder = Path(os.environ.get("SHOAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / "gsm8k" / f"{split}.jsonl"
    if not path.is_file():
        pytest.skip(f"no GSM8K rows at {path}; set SHOAL_DATA to the folder that holds gsm8k/")
    return path
