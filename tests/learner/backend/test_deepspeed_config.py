import subprocess
import sys

import pytest

from learner.backend.deepspeed_config import deepspeed_config
from learner.config import LearnerConfig


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_stage_and_clipping(stage: int) -> None:
    made = deepspeed_config(LearnerConfig(zero_stage=stage, max_grad_norm=0.5), world_size=2)
    assert made["zero_optimization"]["stage"] == stage
    # At stage 0 the step guard clips: clipping twice would use the norm of clipped gradients.
    assert made["gradient_clipping"] == (0.5 if stage else 0.0)
    assert made["managed_gradient_accumulation"] is False
    assert made["train_batch_size"] == 2


def test_optimizer_settings_arrive_and_need_no_compiler() -> None:
    made = deepspeed_config(LearnerConfig(lr=3e-5, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1), world_size=1)
    assert made["optimizer"]["params"] == {
        "lr": 3e-5,
        "betas": [0.8, 0.9],
        "eps": 1e-6,
        "weight_decay": 0.1,
        "torch_adam": True,
    }


def test_bfloat16_changes_nothing_for_deepspeed() -> None:
    # Weights, gradients and communication stay in fp32; the model's own forward pass does the rest.
    assert deepspeed_config(LearnerConfig(dtype="bfloat16"), world_size=1) == deepspeed_config(
        LearnerConfig(), world_size=1
    )


def test_records_and_files_of_checkpoints_import_no_torch() -> None:
    code = (
        "import sys, learner.types, learner.config, learner.backend.deepspeed_config, learner.saving.files, "
        "learner.algorithm.advantages, learner.algorithm.schedule; "
        "sys.exit('torch' in sys.modules or 'deepspeed' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
