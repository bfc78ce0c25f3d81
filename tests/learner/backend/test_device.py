"""A rank computes where it was asked to, also on a machine that has something faster."""

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from learner.backend.engine import RankPlace, RendezvousAddress, join_ranks, leave_ranks
from learner.model.attention import CPU_ATTENTION, FUSED_ATTENTION
from learner.model.policy import build_policy
from tests.learner.ranks import run_ranks
from tests.learner.samples import save_toy_model


def joined(rank: int, world_size: int, addresses: list[RendezvousAddress]) -> tuple[str, str]:
    """(backend of the process group, accelerator of DeepSpeed) of a rank without a GPU."""
    place = RankPlace(rank=rank, world_size=world_size, local_rank=0, on_gpu=False, rendezvous=addresses[0])
    with patch.object(torch.cuda, "is_available", lambda: True):
        join_ranks(place, timeout_s=60)
    try:
        return torch.distributed.get_backend(), os.environ["DS_ACCELERATOR"]
    finally:
        leave_ranks()


def test_ranks_without_gpus_meet_over_gloo_where_there_are_gpus() -> None:
    assert run_ranks(joined, 2, 1) == [("gloo", "cpu")] * 2


@pytest.mark.parametrize(("on_gpu", "name"), [(False, CPU_ATTENTION), (True, FUSED_ATTENTION)])
def test_a_bf16_policy_has_the_attention_of_its_device_whatever_else_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_gpu: bool, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: not on_gpu)
    path = save_toy_model(tmp_path / "model")
    model = build_policy(path, dtype="bfloat16", gradient_checkpointing=False, on_gpu=on_gpu)
    policy: Any = model.policy
    attention = policy.config._attn_implementation
    assert attention == name
