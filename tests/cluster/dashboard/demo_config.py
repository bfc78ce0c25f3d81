"""The configuration of a demo run."""

from cluster.config import RunConfig
from cluster.configuration.loading import load_config
from tests.cluster.dashboard.demo_faults import FAULTY_SAMPLER

SAMPLERS = ("sampler-0", FAULTY_SAMPLER)
LEARNERS = ("learner-0", "learner-1")
NUM_HELD_OUT = 24
"""Questions of an evaluation."""


def demo_config(steps: int, seed: int = 0) -> RunConfig:
    every = max(2, steps // 4)
    words = {
        "seed": seed,
        "steps": steps,
        "task.params": "{min_terms: 2, max_terms: 2, min_digits: 2, max_digits: 2}",
        "model.max_context_tokens": 192,
        # The recipe has what the machine is good at, and a demo is the same on each.
        "rollout.dtype": "bfloat16",
        "learner.dtype": "bfloat16",
        "rollout.num_engines": len(SAMPLERS),
        "rollout.prompts_per_step": 12,
        "rollout.sampling.max_tokens": 96,
        "reward.functions": "[{function: math}, {function: length_penalty, weight: 0.0}]",
        "reward.timeout_s": 2.0,
        "learner.num_ranks": len(LEARNERS),
        "learner.objective.kl.coef": 0.001,
        "dynamic_sampling.enabled": "true",
        "dynamic_sampling.max_resample_factor": 1.25,
        "eval.every": every,
        "eval.num_prompts": NUM_HELD_OUT,
        "eval.num_samples": 4,
        "eval.sampling.max_tokens": 96,
        "checkpoint.every": every,
    }
    return load_config("quickstart", [f"{key}={value}" for key, value in words.items()])
