"""LearnerConfig -> DeepSpeed's dictionary, as a pure function.

Precision: DeepSpeed sees a model of fp32 weights in every case. bf16 is torch.autocast inside the model's own forward
pass (`learner/model/policy.py`), which works the same for all ZeRO stages and keeps weights, gradients, communication
and optimizer state in fp32.
"""

from typing import Any

from learner.config import LearnerConfig

# ZeRO-3 keeps parameters of fewer elements whole on every rank: norms and biases, for which a message costs more than
# the memory.
STAGE3_PERSISTENCE_ELEMENTS = 10_000
# Gradients are reduced in buffers of this many elements (200 MB); DeepSpeed's default takes 2 GB at any model size.
BUCKET_ELEMENTS = 50_000_000


def deepspeed_config(config: LearnerConfig, *, world_size: int) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`."""
    return {
        # Batches have any number of micro-batches, so accumulation is ours: any number of backward passes, then one
        # step. The sizes below are then nothing but what DeepSpeed's own check wants.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": world_size,
        "managed_gradient_accumulation": False,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": config.lr,
                "betas": list(config.betas),
                "eps": config.eps,
                "weight_decay": config.weight_decay,
                # torch's own AdamW: DeepSpeed's are compiled on first use, minutes of a CPU's time.
                "torch_adam": True,
            },
        },
        # Stage 0 has no norm to report when DeepSpeed clips, so there the step guard clips, by the same formula.
        "gradient_clipping": config.max_grad_norm if config.zero_stage > 0 else 0.0,
        "zero_optimization": {
            "stage": config.zero_stage,
            # Not supported for stages 1 and 3 with accumulation of our own, and it reorders sums.
            "overlap_comm": False,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
            "stage3_param_persistence_threshold": STAGE3_PERSISTENCE_ELEMENTS,
        },
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
