"""Steps of TRL's GRPOTrainer, a line of JSON each; run by `against_trl` and `to_reward` where TRL is installed."""

import argparse
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from reward.math.answer import math_reward
from reward.types import RewardInput
from tests.benchmarks.rewards import share_of_vowels

logging.getLogger("transformers").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


class _Timed(TrainerCallback):
    """Says of each step how long it took, and of how many tokens."""

    def __init__(self, num_completions: int) -> None:
        self._num_completions = num_completions
        self._began_s = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began_s = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._seconds = time.perf_counter() - self._began_s

    def on_log(self, *_: Any, **named: Any) -> None:
        logs = named["logs"]
        if "completions/mean_length" in logs:
            tokens = logs["completions/mean_length"] * self._num_completions
            line = {"seconds": self._seconds, "tokens": tokens, "reward": logs["reward"]}
            print(json.dumps(line), flush=True)


def vowels(completions: list[Any], **_: Any) -> list[float]:
    """A reward in the form that TRL asks for."""
    return [share_of_vowels(completion[0]["content"]) for completion in completions]


def right(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """Shoal's own judgement of an answer, in that form."""
    return [
        math_reward(RewardInput(question="", prompt="", completion=completion[0]["content"], ground_truth=truth))
        for completion, truth in zip(completions, answer, strict=True)
    ]


REWARDS = {"vowels": vowels, "math": right}


def main() -> None:
    """Trains for `--steps` steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--questions", type=Path, required=True, help="JSON: a list of [question, answer]")
    parser.add_argument("--prompts-per-step", type=int, required=True)
    parser.add_argument("--group-size", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="completions in one backward pass")
    parser.add_argument("--weights", choices=("bfloat16", "float32"), required=True)
    parser.add_argument("--reward", choices=sorted(REWARDS), default="vowels")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    num_completions = arguments.prompts_per_step * arguments.group_size
    questions = json.loads(arguments.questions.read_text())
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, arguments.weights)),
            reward_funcs=REWARDS[arguments.reward],
            args=GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=arguments.batch,
                gradient_accumulation_steps=num_completions // arguments.batch,
                num_generations=arguments.group_size,
                max_completion_length=arguments.max_tokens,
                beta=0.0,
                # What `quickstart` has.
                loss_type="grpo",
                learning_rate=2e-5,
                adam_beta2=0.99,
                seed=arguments.seed,
                lr_scheduler_type="constant",
                max_steps=arguments.steps,
                use_cpu=True,
                bf16=arguments.weights == "float32",
                gradient_checkpointing=False,
                report_to=[],
                save_strategy="no",
                logging_steps=1,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict(
                {
                    "prompt": [[{"role": "user", "content": text}] for text, _ in questions],
                    "answer": [answer for _, answer in questions],
                }
            ),
            processing_class=tokenizer,
            callbacks=[_Timed(num_completions)],
        )
        trainer.train()


if __name__ == "__main__":
    main()
