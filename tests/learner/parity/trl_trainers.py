"""TRL's trainers without a model: its own code from generation to loss, on tensors that are handed to it.

Needs TRL 1.16.0, which the tests do not: `make_references.py` says how to run this.
"""

import functools
import logging
import warnings
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.experimental.gmpo import GMPOConfig, GMPOTrainer

from tests.learner.parity.advantage_cases import AdvantageCase, RewardTable
from tests.learner.parity.loss_cases import GROUP, MAX_TOKENS, ON_POLICY, PPO, LossCase, Scene

EOS, CUT_OFF, PAD = 1, 2, 0
logging.getLogger("transformers").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


class Injected:
    """In front of a trainer of TRL's: what would sample, compute and score hands over what it was given."""

    scene: Scene
    logits_BT: Tensor
    """With a gradient."""
    rewards_BK: Tensor
    samplers: bool

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        """One token of a prompt, which is the number of the completion, and the completion's masks."""
        lengths, mask = self.scene.lengths_B.tolist(), self.scene.mask_BT.astype(int)
        ids = [[CUT_OFF] * n for n in lengths]
        for row, n in enumerate(lengths):
            if self.scene.mask_BT[row, :n].any():
                ids[row][-1] = EOS
        prompt_ids = [[row] for row in range(len(prompts))]
        if isinstance(self, RLOOTrainer):
            return prompt_ids, ids, prompts
        tool_mask = [mask[row, :n].tolist() for row, n in enumerate(lengths)]
        sampled = [self.scene.sampler_BT[row, :n].tolist() for row, n in enumerate(lengths)]
        return prompt_ids, ids, tool_mask, prompts, sampled if self.samplers else None, {}, None, None

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor, None]:
        """Of the reference, of the policy before (TRL asks without a gradient), or of the policy now."""
        rows = input_ids[:, 0]
        logits_BT = self.logits_BT[rows]
        policy_BT = torch.nn.functional.logsigmoid(logits_BT)
        other_BT = torch.nn.functional.logsigmoid(-logits_BT)
        entropy_BT = -(policy_BT.exp() * policy_BT + other_BT.exp() * other_BT)
        if model is self.ref_model:  # type: ignore[attr-defined]
            return torch.from_numpy(self.scene.ref_BT)[rows], entropy_BT, None
        if not torch.is_grad_enabled():
            return torch.from_numpy(self.scene.old_BT)[rows], entropy_BT, None
        return policy_BT, entropy_BT, None

    def _calculate_rewards(self, *_args: Any) -> Tensor:
        return self.rewards_BK


class _Grpo(Injected, GRPOTrainer):  # type: ignore[misc]
    pass


class _Gmpo(Injected, GMPOTrainer):  # type: ignore[misc]
    pass


class _Rloo(Injected, RLOOTrainer):  # type: ignore[misc]
    pass


_MODEL, _REFERENCE = torch.nn.Identity().train(), torch.nn.Identity().eval()
_MODEL.is_gradient_checkpointing = False  # type: ignore[assignment]
_CLASSES: dict[str, tuple[Any, Any]] = {
    "grpo": (_Grpo, GRPOConfig),
    "gmpo": (_Gmpo, GMPOConfig),
    "rloo": (_Rloo, RLOOConfig),
}


def loss_and_gradient(case: LossCase, scene: Scene) -> tuple[float, Tensor]:
    """TRL's loss of an optimizer step, and its gradient [B, T] by the logits."""
    trainer = _trainer_of(case, scene)
    inputs = trainer._generate_and_score_completions([{"prompt": ""} for _ in scene.lengths_B])
    if case.loss != "rloo":
        inputs["advantages"] = torch.from_numpy(scene.advantages_B)
    total = 0.0
    for rows in torch.arange(len(scene.lengths_B)).chunk(case.num_micro_batches):
        part = {name: value[rows] if value.dim() else value for name, value in inputs.items()}
        loss = trainer.compute_loss(_MODEL, part)
        loss.backward()
        total += loss.item()
    assert trainer.logits_BT.grad is not None
    return total, trainer.logits_BT.grad


def advantages(case: AdvantageCase, table: RewardTable) -> Tensor:
    """[B] TRL's, for completions of one token."""
    rewards_BK = torch.from_numpy(table.rewards_BK)
    size = len(rewards_BK)
    ones = torch.ones(size, 1, dtype=torch.float64)
    scene = Scene(
        logits_BT=-ones.numpy(),
        old_BT=-ones.numpy(),
        sampler_BT=-ones.numpy(),
        ref_BT=-ones.numpy(),
        lengths_B=ones[:, 0].long().numpy(),
        mask_BT=ones.bool().numpy(),
        advantages_B=ones[:, 0].numpy(),
        rewards_B=ones[:, 0].numpy(),
    )
    loss = "rloo" if case.estimator == "rloo" else "grpo"
    trainer = _trainer_of(LossCase(loss=loss, scene=""), scene, group=table.group)
    trainer.rewards_BK = rewards_BK
    trainer.reward_weights = torch.from_numpy(table.weights_K)
    trainer.reward_funcs = [None] * rewards_BK.shape[1]
    trainer.reward_func_names = [str(k) for k in range(rewards_BK.shape[1])]
    if case.estimator == "gdpo":
        trainer.multi_objective_aggregation = "normalize_then_sum"
    elif case.estimator != "rloo":
        trainer.scale_rewards = case.estimator
    found: Tensor = trainer._generate_and_score_completions([{"prompt": ""}] * size)["advantages"]
    return found


def _trainer_of(case: LossCase, scene: Scene, *, group: int = GROUP) -> Any:
    """A trainer whose options are those of a real configuration, without what needs a model."""
    trainer_class, config_class = _CLASSES.get(case.loss, _CLASSES["grpo"])
    trainer = trainer_class.__new__(trainer_class)
    trainer.args = args = _args(*_options(case, len(scene.lengths_B), group), config_class=config_class)
    trainer.scene, trainer.samplers = scene, case.correction.knows_sampler
    trainer.logits_BT = torch.from_numpy(scene.logits_BT.copy()).requires_grad_()
    trainer.rewards_BK = torch.from_numpy(scene.rewards_B)[:, None]
    # After the configuration, which takes accelerate's state back.
    trainer.accelerator, trainer.model, trainer.ref_model = Accelerator(cpu=True), _MODEL, _REFERENCE
    for name in ("environment_factories", "environments", "tools", "pad_to_multiple_of", "reward_clip_range"):
        setattr(trainer, name, None)
    trainer._tokenizer = type("Tokenizer", (), {"pad_token_id": PAD})
    trainer.eos_token_ids = [EOS]
    trainer.reward_weights = torch.ones(1)
    trainer.reward_funcs, trainer.reward_func_names = [None], ["reward"]
    trainer._metrics = {"train": defaultdict(list)}
    trainer._logs = {name: deque() for name in ("prompt", "completion", "advantages")}
    trainer._logs |= {"rewards": defaultdict(deque), "extra": defaultdict(deque)}
    trainer._pending_extra_logs, trainer._pending_metrics = defaultdict(list), defaultdict(list)
    trainer.current_gradient_accumulation_steps = case.num_micro_batches
    trainer.aux_loss_enabled = trainer.use_adaptive_entropy = False
    trainer._entropy_bonus_enabled = case.entropy_coef != 0
    trainer.use_vllm = case.correction.vllm_importance_sampling_mode is not None
    trainer.epsilon_low = args.epsilon
    trainer.epsilon_high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    for name in _COPIED:
        if hasattr(args, name):
            setattr(trainer, name, getattr(args, name))
    return trainer


_COPIED = (
    "beta",
    "entropy_coef",
    "importance_sampling_level",
    "loss_type",
    "mask_truncated_completions",
    "max_completion_length",
    "multi_objective_aggregation",
    "normalize_advantages",
    "num_generations",
    "num_iterations",
    "off_policy_mask_threshold",
    "scale_rewards",
    "top_entropy_quantile",
    "vllm_importance_sampling_clip_max",
    "vllm_importance_sampling_clip_min",
    "vllm_importance_sampling_correction",
    "vllm_importance_sampling_mode",
)


@functools.cache
def _args(*options: tuple[str, Any], config_class: Any) -> Any:
    """The real configuration, checked by TRL itself."""
    fixed = {"output_dir": "/tmp/unused", "use_cpu": True, "bf16": False, "report_to": []}
    return config_class(**fixed, **dict(options))


def _options(case: LossCase, size: int, group: int) -> Iterable[tuple[str, Any]]:
    options: dict[str, Any] = {
        "per_device_train_batch_size": size // case.num_micro_batches,
        "gradient_accumulation_steps": case.num_micro_batches,
        "num_generations": group,
        "max_completion_length": MAX_TOKENS,
        # With several the policy before the step is computed; with one it is taken to be the policy.
        "num_iterations": 1 if case.scene == ON_POLICY else 3,
        "epsilon": case.clip.epsilon,
        "epsilon_high": case.clip.epsilon_high,
        "beta": case.kl.beta,
    }
    if case.loss != "rloo":
        options |= {
            "delta": case.clip.delta,
            "loss_type": case.loss if case.loss in (*PPO, "cispo", "sapo") else "grpo",
            "importance_sampling_level": case.level,
            "use_bias_correction_kl": case.kl.unbiased,
            "entropy_coef": case.entropy_coef,
            "sapo_temperature_pos": case.temperatures[0],
            "sapo_temperature_neg": case.temperatures[1],
            "off_policy_mask_threshold": case.correction.off_policy_mask_threshold,
            "top_entropy_quantile": case.correction.top_entropy_quantile,
            "vllm_importance_sampling_clip_min": case.correction.vllm_importance_sampling_clip_min,
            "vllm_importance_sampling_clip_max": case.correction.vllm_importance_sampling_clip_max,
        }
        if case.correction.vllm_importance_sampling_mode is not None:
            options["vllm_importance_sampling_mode"] = case.correction.vllm_importance_sampling_mode
    return options.items()
