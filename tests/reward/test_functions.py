"""What a reward function is given, how it gets its name, and how values become one."""

import subprocess
import sys

import pytest

from reward.config import RewardFunctionConfig
from reward.function_loading import load_function
from reward.functions import register, reward_input, weighted_sum
from reward.types import RewardInput
from rollout.types import FinishReason
from tests.reward.samples import group


def test_a_name_is_given_once() -> None:
    def another(item: RewardInput) -> float:
        return 0.0

    load_function(RewardFunctionConfig(function="exact_match"))
    with pytest.raises(ValueError, match="'exact_match' is taken"):
        register("exact_match")(another)


def test_reward_input_shows_prompt_and_completion() -> None:
    sampled = group(["hello"], ground_truth="7", row={"level": 2})
    seen = reward_input(sampled.prompt, sampled.completions[0], max_tokens=64)
    assert (seen.question, seen.completion, seen.ground_truth, seen.row["level"]) == ("q", "hello", "7", 2)
    assert (tuple(seen.token_ids), seen.finish_reason, seen.max_tokens, seen.task) == ((5,), FinishReason.STOP, 64, "t")


def test_weighted_sum() -> None:
    # 2 * 1.0 + 0.5 * 0.5 + 0 * 9 = 2.25
    assert weighted_sum({"a": 1.0, "b": 0.5, "c": 9.0}, {"a": 2.0, "b": 0.5, "c": 0.0}) == 2.25


def test_importing_the_contract_loads_nothing_heavy() -> None:
    code = (
        "import sys, reward.functions, reward.worker, reward.math.extraction\n"
        "print([m for m in ('sympy', 'torch', 'transformers', 'ray', 'vllm', 'reasoning_gym') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
