"""Writes `training.npz`: the weights after three training steps of TRL 1.16.0's GRPOTrainer, on completions that are
handed to it. `make_references.py` says in what environment; then

    PYTHONPATH=$PWD /tmp/trl/bin/python -m tests.learner.parity.make_training
"""

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from learner.types import TrainBatch
from tests.learner.parity.training_cases import (
    BETAS,
    CASES,
    GROUP,
    LR,
    MAX_TOKENS,
    NUM_GROUPS,
    NUM_STEPS,
    TEMPERATURE,
    TrainingCase,
    batches,
    kept,
    model_in,
)
from tests.learner.samples import VOCABULARY, groups_of

HERE = Path(__file__).parent
logging.getLogger("transformers").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


class _Injected(GRPOTrainer):  # type: ignore[misc]
    """Its completions come from a batch, and their log-probabilities count as those of the policy before."""

    batches: list[TrainBatch]
    step = -1

    def _completions(self) -> list[Any]:
        groups = groups_of(self.batches[self.step])
        return [(group.prompt, completion) for group in groups.values() for completion in group.completions]

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        self.step += 1
        sampled = self._completions()
        assert [prompt.uid for prompt, _ in sampled] == prompts, "the prompts came in another order"
        return (
            [list(prompt.token_ids) for prompt, _ in sampled],
            [completion.token_ids.tolist() for _, completion in sampled],
            [completion.loss_mask.astype(int).tolist() for _, completion in sampled],
            prompts,
            None,
            {},
            None,
            None,
        )

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        old = torch.zeros(output["completion_ids"].shape)
        for row, (_, completion) in enumerate(self._completions()):
            old[row, : completion.num_tokens] = torch.tensor(completion.logprobs.tolist())
        return output | {"old_per_token_logps": old}


def _trained(case: TrainingCase, model_dir: str) -> dict[str, np.ndarray]:
    """Weights by name."""
    of_steps = batches(model_dir)
    uids = [scored.group.prompt.uid for batch in of_steps for scored in batch.groups]
    rewards: dict[str, list[Any]] = {
        scored.group.prompt.uid: [result.reward for result in scored.rewards]
        for batch in of_steps
        for scored in batch.groups
    }

    def reward(prompts: list[str], **_: Any) -> list[float]:
        return [rewards[prompt][row % GROUP] for row, prompt in enumerate(prompts)]

    options = {
        "per_device_train_batch_size": NUM_GROUPS * GROUP,
        "gradient_accumulation_steps": 1,
        "num_generations": GROUP,
        "max_completion_length": MAX_TOKENS,
        "temperature": TEMPERATURE,
        "learning_rate": LR,
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "lr_scheduler_type": "constant",
        "max_steps": NUM_STEPS * case.updates_per_batch,
        "shuffle_dataset": False,
        "disable_dropout": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
    }
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0")),
        pad_token="0",
        eos_token="1",
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = _Injected(
            # `disable_dropout` leaves the dropout of attention, which is no module of its own, as it is.
            model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attention_dropout=0.0),
            reward_funcs=reward,
            args=GRPOConfig(output_dir=folder, **(options | case.trl)),
            train_dataset=Dataset.from_dict({"prompt": uids}),
            processing_class=tokenizer,
        )
        trainer.batches = of_steps
        trainer.train()
        assert trainer.step == NUM_STEPS - 1, trainer.step
        print(
            case.name,
            [{k: v for k, v in log.items() if k in ("loss", "grad_norm", "kl")} for log in trainer.state.log_history],
        )
        return {name: weight.detach().numpy() for name, weight in trainer.model.named_parameters()}


def main() -> None:
    """The file."""
    assert trl.__version__ == "1.16.0", trl.__version__
    torch.set_num_threads(1)
    arrays: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model_dir = model_in(Path(folder))
        start = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
        arrays |= {f"start/{name}": kept(weight.detach().numpy()) for name, weight in start.named_parameters()}
        for case in CASES:
            arrays |= {f"{case.name}/{name}": kept(values) for name, values in _trained(case, model_dir).items()}
    np.savez_compressed(HERE / "training.npz", **arrays)


if __name__ == "__main__":
    main()
